"""A frame of unknown pulse, carrier offset and multipath: band, equaliser and carrier from its samples.

Of the signal only the symbol rate is known, 8 samples per symbol; no step knows the modulation. First
come the pulse of a family, the band's place and the timing under which a Gaussian signal is likeliest;
then a short equaliser under which magnitudes of symbols gather on those of some alphabet, which needs
no carrier; the carrier offset, from lines of powers of the equalised symbols; and a second equaliser,
for in-phase and quadrature parts. What follows is as for a known pulse and a small offset.

Sources: Godard, "Self-recovering equalization and carrier tracking in two-dimensional data
communication systems", 1980, of equalisers for magnitudes; Viterbi and Viterbi, "Nonlinear estimation
of PSK-modulated carrier phase", 1983, of powers and weights for the carrier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.special import ive
from torch import Tensor

from amc_utils.dsp.carrier import estimate_phase, squared_magnitude
from amc_utils.modulation.constellations import symbol_map
from amc_utils.signals import SAMPLES_PER_SYMBOL, pulse_energy, raised_cosine, unit_phasor

# The family of pulses that is tried: powers of a raised cosine, roll-offs. Neighbours differ by
# interference of -20 dB or less, which the equaliser takes away.
_EXPONENTS = (0.5, 1.0, 1.5)
_ROLLOFFS = (0.05, 0.11, 0.18, 0.25, 0.33, 0.42, 0.53, 0.66, 0.82, 1.0)
# Places of the band reach so far to each side, in cycles per sample, to the bin of a frame below; the
# carrier is looked for beyond.
_REACH = 0.0105
# No signal lies beyond, in cycles per sample: roll-off 1 and the largest offset.
_BAND_EDGE = 0.146
# Noise over signal density at the carrier that the likelihood of pulses reckons with, the nearest of
# these: not less, since what multipath does to a spectrum is no noise, and no spectrum of the family.
_RATIOS = tuple(0.05 * 2**step for step in range(10))
# Noise over signal density that the filter of a pulse reckons with at least.
_LEAST_FILTER_RATIO = 1e-3
# Signal power that is reckoned with at least, as a share of a frame's.
_LEAST_SIGNAL = 0.003
# Symbols' length of zeros after a frame that keep its two ends apart.
_PADDING = 16
# Taps of the equaliser, half a symbol apart.
_NUM_TAPS = 13
# How strongly taps are held to a single one: without noise, and per noise over signal density, and by
# the exponent of the last more from one tap to the next. Loosely for most alphabets; dense ones, the
# last of either list, are so near to a Gaussian that loose taps do not find them.
_HOLDS = ((1e-4, 0.05, 0.5), (1e-3, 0.08, 0.9))
_NUM_DENSE = 3
# What is added to the covariance of symbols that foretell one another, in units of their power.
_LOADING = 0.02
# Iterations; the noise variance that the first reckons with, and the last.
_NUM_ITERATIONS, _FIRST_VARIANCE, _LAST_VARIANCE = 16, 0.3, 1e-3
# Steps are longer than those of expectation maximisation by a factor: the nearer an alphabet is to a
# Gaussian, the slower is that. Real ones do not bear more.
_STEP_LENGTHS = {"OOK": 1.5, "BPSK": 1.5, "4ASK": 1.5, "8ASK": 1.5, "QPSK": 2.5}
_STEP_LENGTH, _DENSE_STEP_LENGTH = 4.0, 6.0
# What the equaliser for magnitudes, and that for parts, must gain in log-likelihood of a frame to be
# used: noise alone lets them gain some, and loose taps more than held ones. Tuned on frames without
# multipath, of which an equaliser should make nothing else.
LEAST_GAINS = (15.0, 20.0)
_HANDICAP = 15.0
# Of the line that shows real symbols, in units of what unrelated angles give; theirs reach 6.
_LEAST_SQUARE_LINE = 20.0
# Noise variances and magnitudes, from zero up, of the tables of alphabets.
_VARIANCES = tuple(10 ** (-3 + 3 * step / 11) for step in range(12))
_NUM_PLACES, _LARGEST = 256, 2.4
# One modulation for each set of magnitudes; and those whose in-phase and quadrature parts have few
# values, the real ones once along and once across.
MODULUS_ALPHABETS = (
    "QPSK", "OOK", "4ASK", "8ASK", "16APSK", "32APSK", "64APSK", "128APSK", "16QAM", "32QAM", "64QAM",
    "128QAM", "256QAM",
)  # fmt: skip
PART_ALPHABETS = (
    "BPSK", "4ASK", "8ASK", "BPSK", "4ASK", "8ASK", "QPSK", "16QAM", "32QAM", "64QAM", "128QAM",
    "256QAM",
)  # fmt: skip
_ACROSS = range(3, 6)
# Of the carrier: length of the transforms, and the power of symbols that is tried for each modulation.
# Turning by one turn over the power leaves the map as it is, but for APSK, whose outer rings tell more.
_NUM_BINS = 512
_ORDERS = {
    "OOK": 1, "4ASK": 2, "8ASK": 2, "BPSK": 2, "QPSK": 4, "8PSK": 8, "16PSK": 16, "32PSK": 32,
    "16APSK": 12, "32APSK": 16, "64APSK": 28, "128APSK": 4, "16QAM": 4, "32QAM": 4, "64QAM": 4,
    "128QAM": 4, "256QAM": 4,
}  # fmt: skip
# Magnitudes may make a modulation so much less likely there, but no more: equalisers mislead.
_MOST_KNOWN = 10.0
# The band's place is right to the first in most frames, in cycles per symbol, and to the second under
# multipath; share of the first.
_NARROW, _WIDE, _SHARE = 0.003, 0.03, 0.3


@dataclass(frozen=True)
class Equalised:
    """What the front end makes of frames, float32 [B] unless another type is named.

    Attributes:
        cfo: carrier offset that was taken out, in cycles per sample.
        timing: position of the first symbol's peak in samples, in [0, 8).
        timing_likelihood: see ReceivedBatch.timing_likelihood.
        bands: spectrum of the equalised frame, complex64 [B, 2, F], see ReceivedBatch.bands.
        noise_gain: what the equaliser multiplies the noise of a symbol by.
        disturbance: power of noise and interference in symbols, as a share of theirs, under the
            likeliest alphabet.
        ratio: noise over signal density, N0 / Es of the frame as received.
        exponent, rolloff: pulse of the family.
        likelihoods: mean log-likelihood of a symbol under each of MODULUS_ALPHABETS, at any angle, and
            each of PART_ALPHABETS, [B, 2, alphabets]: before its equaliser, and after, less what loose
            taps gain from noise.
    """

    cfo: Tensor
    timing: Tensor
    timing_likelihood: Tensor
    bands: Tensor
    noise_gain: Tensor
    disturbance: Tensor
    ratio: Tensor
    exponent: Tensor
    rolloff: Tensor
    likelihoods: Tensor


def equalise(iq: Tensor, noise: Tensor, least_gains: tuple[float, float] = LEAST_GAINS) -> Equalised:
    """Carrier, timing and equalised spectrum of frames of an unknown channel.

    Args:
        iq: complex64 [B, num_samples], 8 samples per symbol.
        noise: noise variance per complex sample, float32 [B].
        least_gains: see LEAST_GAINS; infinite ones leave frames as the filter of the pulse makes them.
    """
    signal = _signal_power(iq, noise)
    ratio = noise / (SAMPLES_PER_SYMBOL * signal)
    exponent, rolloff, cfo, cross, _ = _find_band(iq, noise, signal)
    timing = (-cross.angle() / (2 * torch.pi) % 1) * SAMPLES_PER_SYMBOL
    frequency = _frequencies(iq.shape[1], iq.device)
    turn = unit_phasor(-2 * torch.pi * cfo[:, None] * torch.arange(iq.shape[1], device=iq.device))
    spectrum = torch.fft.fft(iq * turn, iq.shape[1] + _PADDING * SAMPLES_PER_SYMBOL)
    half = len(frequency) // 2
    spectrum = torch.cat([spectrum[:, :half], spectrum[:, -half:]], 1)
    pulses = _pulses(frequency, exponent, rolloff)
    response = equaliser(pulses, ratio.clamp_min(_LEAST_FILTER_RATIO)).flatten(1)
    advance = unit_phasor(2 * torch.pi / SAMPLES_PER_SYMBOL * timing[:, None] * frequency)
    samples = torch.fft.ifft(spectrum * response * advance)
    scale = squared_magnitude(samples).mean(1).clamp_min(1e-24).rsqrt()[:, None]
    num_symbols = iq.shape[1] // SAMPLES_PER_SYMBOL
    taps, offset, variance, likelihoods = _equaliser(samples * scale, ratio, num_symbols, least_gains)
    delays = torch.arange(_NUM_TAPS, device=iq.device) - _NUM_TAPS // 2
    response = response * (taps @ unit_phasor(torch.pi * torch.outer(delays, frequency)))
    instants = torch.arange(len(frequency), device=iq.device) / 2
    equalised = torch.fft.ifft(spectrum * response * advance)
    equalised = equalised * unit_phasor(-2 * torch.pi * offset[:, None] * instants)
    bands = torch.fft.fft(equalised) * advance.conj()
    return Equalised(
        cfo=cfo + offset / SAMPLES_PER_SYMBOL,
        timing=timing,
        timing_likelihood=2 * cross.abs(),
        bands=bands.unflatten(1, (2, half)),
        noise_gain=squared_magnitude(response).sum(1) / half,
        disturbance=variance / (1 + variance),
        ratio=ratio,
        exponent=exponent,
        rolloff=rolloff,
        likelihoods=likelihoods,
    )


def line_incoherence(iq: Tensor, noise: Tensor) -> Tensor:
    """By how much the line at the symbol rate lacks coherence, float32 [B].

    Two frequencies that are the symbol rate apart hold the same symbols, and their products agree in
    phase; of a signal of another rate, or of none, they do not. What lacks of all coherence is
    multiplied by the number of frequencies that tell. For the arguments see equalise.
    """
    return _find_band(iq, noise, _signal_power(iq, noise))[4]


def _signal_power(iq: Tensor, noise: Tensor) -> Tensor:
    """Power of frames without noise, float32 [B]."""
    power = squared_magnitude(iq).mean(1)
    return torch.maximum(power - noise, _LEAST_SIGNAL * power).clamp_min(1e-12)


def equaliser(pulses: Tensor, ratio: Tensor) -> Tensor:
    """Filter of least mean-square error at the symbol instants, float32 [B, 2, F].

    H / (H^2 + H_alias^2 + N0 / Es), where H_alias is the pulse's spectrum a symbol rate away: sampled
    once per symbol, the two fall together. Without noise no intersymbol interference is left. For the
    exponent 0.5 the sum of the squares is 1, and the filter is the matched filter.

    Args:
        pulses: float32 [B or 1, 2, F], spectrum of the pulse at frequencies a symbol rate apart.
        ratio: float32 [B], N0 / Es for the exponent 0.5.

    Source: Proakis, "Digital Communications", linear equalisation with mean-square-error criterion.
    """
    # Where both are zero the noise alone is left, and the filter is zero.
    return pulses / (pulses.square().sum(1, keepdim=True) + ratio[:, None, None])


@cache
def taper(num_samples: int, device: torch.device) -> Tensor:
    """Window that falls to zero over a twentieth of the frame at either end."""
    from_end = torch.arange(num_samples, device=device) + 0.5
    from_end = torch.minimum(from_end, num_samples - from_end) / (num_samples / 20)
    return (0.5 - 0.5 * torch.cos(torch.pi * from_end.clamp(max=1))).float()


def _frequencies(num_samples: int, device: torch.device) -> Tensor:
    """Frequencies 0 to 1 and -1 to 0 in symbol rates, float32 [2 F]."""
    half = num_samples // SAMPLES_PER_SYMBOL + _PADDING
    upper = torch.arange(half, device=device) / half
    return torch.cat([upper, upper - 1])


def _find_band(iq: Tensor, noise: Tensor, signal: Tensor) -> tuple[Tensor, ...]:
    """Exponent, roll-off, carrier offset to a bin; the timing's line, complex; its incoherence; [B].

    The likelihood is that of estimate_timing, for each pulse: sums of the spectrum's power, and of
    products of frequencies a symbol rate apart, with weights that are matrices. First at all places
    with those of the least noise, with which a place is found as well at any other; then at the one
    found with those of the frame's own, without which too wide a pulse is taken from 4 dB per sample
    down.
    """
    num_samples, reach = iq.shape[1], int(_REACH * iq.shape[1])
    window = taper(num_samples, iq.device)
    spectrum = torch.fft.fft(iq * window) / window.square().sum().sqrt()
    least = SAMPLES_PER_SYMBOL * signal * _RATIOS[0]
    pulses, *weights = _band_weights(num_samples, _RATIOS[:1], reach, iq.device)
    likelihood = _band_likelihoods(spectrum, noise, torch.maximum(noise, least), 0 * noise, weights)[0]
    place = likelihood.argmax(1) % (2 * reach + 1) - reach
    ratios, between = _ratios(iq.device)
    level = torch.bucketize(noise / (SAMPLES_PER_SYMBOL * signal), between)
    density = SAMPLES_PER_SYMBOL * signal * ratios[level]
    _, *weights = _band_weights(num_samples, _RATIOS, 0, iq.device)
    likelihood, cross, product = _band_likelihoods(spectrum, noise, density, place, weights)
    number = torch.arange(likelihood.shape[1], device=iq.device) // len(pulses)
    best = likelihood.masked_fill(number != level[:, None], -torch.inf).argmax(1)
    found = cross.gather(1, best[:, None])[:, 0]
    parts = weights[1].T[best] * squared_magnitude(product).sqrt() / density[:, None]
    most = parts.sum(1).clamp_min(1e-12)
    incoherence = most.square() / parts.square().sum(1).clamp_min(1e-12) * (1 - found.abs() / most)
    exponent, rolloff = pulses[best % len(pulses)].T
    return exponent, rolloff, place / num_samples, found, incoherence


def _band_likelihoods(
    spectrum: Tensor, noise: Tensor, density: Tensor, place: Tensor, weights: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-likelihoods [B, columns], lines at the symbol rate [B, columns], products [B, bins].

    Args:
        spectrum: complex64 [B, num_samples], of white noise with power `noise`.
        noise: float32 [B].
        density: float32 [B], noise that the likelihood reckons with.
        place: of the carrier, float32 or int64 [B], in bins.
        weights: see _band_weights, without the first.
    """
    own, shared, spread = weights
    num_samples, reach = spectrum.shape[1], len(own) // 2
    bins = torch.arange(-reach, reach + 1, device=spectrum.device) + place.long()[:, None]
    inside, apart = (
        spectrum.gather(1, at % num_samples) for at in (bins, bins - num_samples // SAMPLES_PER_SYMBOL)
    )
    product = inside * apart.conj()
    density = density[:, None]
    cross = torch.complex(*(torch.view_as_real(product).permute(2, 0, 1) @ shared)) / density
    # With the noise that is reckoned with, however much there is.
    level = (squared_magnitude(inside) - noise[:, None] + density) @ own / density
    return level + 2 * cross.abs() - spread, cross, product


@cache
def _ratios(device: torch.device) -> tuple[Tensor, Tensor]:
    """_RATIOS, and the limits between them."""
    ratios = torch.tensor(_RATIOS, device=device)
    return ratios, (ratios[1:] * ratios[:-1]).sqrt()


@cache
def _band_weights(
    num_samples: int, ratios: tuple[float, ...], reach: int, device: torch.device
) -> tuple[Tensor, ...]:
    """Exponents and roll-offs [P, 2], weights [bins, columns] twice, and a constant [columns].

    Columns are ratios, of noise over signal density, times pulses times places to `reach` bins to each
    side.
    """
    pulses = torch.tensor([(e, r) for e in _EXPONENTS for r in _ROLLOFFS], dtype=torch.float64)
    exponent, rolloff = (part[:, None, None] for part in pulses.T)
    places = torch.arange(-reach, reach + 1)
    edge = round(_BAND_EDGE * num_samples)
    bins = torch.arange(-edge, edge + 1)
    frequency = (bins - places[:, None]).double() * (SAMPLES_PER_SYMBOL / num_samples)
    energy = torch.stack([pulse_energy(r, float(e)) for e, r in pulses])[:, None, None]
    pulse, below, above = (
        raised_cosine(frequency + shift, rolloff) ** exponent / energy.sqrt() for shift in (0, -1, 1)
    )
    density = pulse.square() + below.square() + above.square()
    ratio = torch.tensor(ratios, dtype=torch.float64)[:, None, None, None]
    weighted = density + ratio
    # Every frequency of the symbols is there twice; each copy counts by its share.
    share = pulse.square() / density.clamp_min(1e-12)
    spread = (share * torch.log1p(density / ratio)).sum(3).flatten()
    own, shared = pulse.square() / weighted, pulse * below / weighted
    own, shared = (part.flatten(0, 2).T.contiguous() for part in (own, shared))
    return tuple(part.to(device, torch.float32) for part in (pulses, own, shared, spread))


def _pulses(frequency: Tensor, exponent: Tensor, rolloff: Tensor) -> Tensor:
    """Spectra of pulses of unit energy, float32 [B, 2, F]."""
    half = len(frequency) // 2
    pulse = raised_cosine(frequency, rolloff[:, None]) ** exponent[:, None]
    return (pulse / (pulse.square().sum(1, keepdim=True) / half).sqrt()).unflatten(1, (2, half))


def _equaliser(
    samples: Tensor, ratio: Tensor, num_symbols: int, least_gains: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Taps, complex64 [B, taps], carrier offset in cycles per symbol [B], noise variance, likelihoods.

    First for magnitudes, which need no carrier; then, once there is one, for in-phase and quadrature
    parts. Each time the taps of the likeliest alphabet are taken, if they gain enough.

    Args:
        samples: complex64 [B, at least 2 K], unit power, half a symbol apart, the first at a symbol.
        ratio: float32 [B], N0 / Es.
        num_symbols: K.
        least_gains: see LEAST_GAINS.
    """
    middle = _NUM_TAPS // 2
    padded = torch.cat([samples[:, -middle:], samples, samples[:, :middle]], 1)
    seen = padded.unfold(1, _NUM_TAPS, 2)[:, :num_symbols].contiguous()
    taps = seen.new_zeros(seen.shape[0], _NUM_TAPS)
    taps[:, middle] = 1
    tables, (gain, gain_of_parts) = _magnitude_tables(seen.device), least_gains
    # Magnitudes do not tell BPSK from sums of two of its symbols, one of them a quarter turn on.
    least = torch.where(_is_real(seen[:, :, middle]), math.inf, -math.inf)
    taps, by_magnitude, variance = _better_taps(
        seen, ratio, taps, _predictor(seen), MODULUS_ALPHABETS, tables, least, gain
    )
    symbols = (seen @ taps[..., None])[..., 0]
    offset = _find_carrier(symbols, variance, by_magnitude.amax(1) * num_symbols)
    number = torch.arange(num_symbols, device=seen.device)
    turn = unit_phasor(-2 * torch.pi * offset[:, None] * number)
    turn = turn * unit_phasor(-estimate_phase(symbols * turn))[:, None]
    least, tables = by_magnitude.flatten(1).amax(1), _part_tables(seen.device)
    seen = seen * turn[..., None]
    taps, by_part, refined = _better_taps(
        seen, ratio, taps, taps, PART_ALPHABETS, tables, least, gain_of_parts
    )
    # Parts say less of the noise where they do not fit.
    fit = by_part.flatten(1).amax(1) > by_magnitude.flatten(1).amax(1)
    likelihoods = torch.cat([by_magnitude, by_part], 2)
    return taps, offset, torch.where(fit, refined, variance), likelihoods


def _predictor(seen: Tensor) -> Tensor:
    """Taps, complex64 [B, taps], that leave of symbols what earlier ones do not foretell.

    They undo multipath up to a complex gain, the better the more the first path exceeds all others.
    """
    middle = _NUM_TAPS // 2
    back = slice(middle % 2, middle + 1, 2)
    past = seen[:, :, back]
    covariance = past.mH @ past / past.shape[1]
    loading = _LOADING * covariance.diagonal(dim1=1, dim2=2).real.mean(1)
    loading = torch.diag_embed(loading[:, None].expand(-1, covariance.shape[1]))
    inverse = torch.linalg.inv_ex(covariance + loading.to(covariance.dtype)).inverse
    taps = seen.new_zeros(seen.shape[0], _NUM_TAPS)
    taps[:, back] = inverse[:, :, -1] / inverse[:, -1:, -1]
    return taps


@cache
def _step_lengths(names: Sequence[str], device: torch.device) -> Tensor:
    """Length of the steps for each alphabet, float32 [alphabets]."""
    lengths = [_STEP_LENGTHS.get(name, _STEP_LENGTH) for name in names[:-_NUM_DENSE]]
    return torch.tensor(lengths + [_DENSE_STEP_LENGTH] * _NUM_DENSE, device=device)


def _is_real(symbols: Tensor) -> Tensor:
    """Whether the square of symbols [B, K] has a line, as that of real ones has; bool [B]."""
    square = symbols.square()
    lines = squared_magnitude(torch.fft.fft(square, _NUM_BINS)).amax(1)
    return lines > _LEAST_SQUARE_LINE * squared_magnitude(square).sum(1)


def _better_taps(
    seen: Tensor,
    ratio: Tensor,
    start: Tensor,
    first: Tensor,
    names: Sequence[str],
    tables: Sequence[Sequence[Tensor]],
    least: Tensor,
    least_gain: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Taps of unit output power [B, taps]: those at the start, or of the likeliest alphabet if better.

    Those of alphabets are looked for from the `first` on.
    Better by `least_gain` than those at the start under any alphabet, and than `least`, the mean
    log-likelihood [B] by other alphabets: sums of two symbols are symbols of others. Returned are
    also mean log-likelihoods of symbols under each alphabet, [B, 2, alphabets], before and after, and
    the noise variance with the taps taken, [B].
    """
    before = seen @ start[..., None]
    scale = squared_magnitude(before).mean(1).clamp_min(1e-12).rsqrt()
    start, before = start * scale, before * scale[..., None]
    factors, densities = tables
    taps = _fitted_taps(seen, ratio, first, _step_lengths(names, seen.device), factors)
    both = before.expand(-1, -1, taps.shape[2]), seen @ taps
    found = zip(*(_likelihoods(part, densities) for part in both), strict=True)
    likelihoods, variances = (torch.stack(part, 1) for part in found)
    likelihoods[:, 1, :-_NUM_DENSE] -= _HANDICAP / seen.shape[1]
    best, alphabet = likelihoods.max(2)
    gains = (best[:, 1] - torch.maximum(best[:, 0], least)) * seen.shape[1] > least_gain
    column = alphabet[:, 1, None, None].expand(-1, taps.shape[1], 1)
    taps = torch.where(gains[:, None], taps.gather(2, column)[..., 0], start)
    variance = variances.gather(2, alphabet[..., None])[..., 0]
    return taps, likelihoods, torch.where(gains, variance[:, 1], variance[:, 0])


def _fitted_taps(
    seen: Tensor, ratio: Tensor, first: Tensor, lengths: Tensor, factors: Sequence[Tensor]
) -> Tensor:
    """Taps for each alphabet, complex64 [B, taps, alphabets], that give symbols of unit power.

    Expectation maximisation under each alphabet: symbols that are expected, and the taps of least
    squares, held to a single one. The noise variance that symbols are judged with falls slowly, since
    interference is larger at first.

    Args:
        seen: complex64 [B, K, taps], samples that make each symbol.
        ratio: float32 [B], N0 / Es.
        first: complex64 [B, taps], for all alphabets.
        lengths: float32 [alphabets], see _STEP_LENGTHS.
        factors: tables of what is expected, see _tables.
    """
    adjoint = seen.mH / seen.shape[1]
    covariance = adjoint @ seen
    squares, pulls = zip(
        *(_least_squares(adjoint, covariance, ratio, *hold) for hold in _HOLDS), strict=True
    )
    sizes = len(lengths) - _NUM_DENSE, _NUM_DENSE
    pull = torch.cat([p[..., None].expand(-1, -1, n) for p, n in zip(pulls, sizes, strict=True)], 2)
    taps = first[..., None].expand(-1, -1, len(lengths))
    edges = _variances(seen.device)[1]
    for step in range(_NUM_ITERATIONS):
        fall = (_LAST_VARIANCE / _FIRST_VARIANCE) ** (step / (_NUM_ITERATIONS - 1))
        variance = ratio.clamp(_FIRST_VARIANCE * fall, _VARIANCES[-1])
        taps = taps * ((1 + variance)[:, None] / _output_power(taps, covariance)).sqrt()[:, None]
        level = torch.bucketize(variance, edges)[:, None, None]
        expected = _expected(seen @ taps, level, factors)
        parts = expected.split(sizes, 2)
        wanted = pull + torch.cat([s @ part for s, part in zip(squares, parts, strict=True)], 2)
        along = (wanted.conj() * taps).real.sum(1, keepdim=True)
        along = along / squared_magnitude(taps).sum(1, keepdim=True)
        taps = taps + lengths * (wanted / along.clamp_min(0.05) - taps)
    return taps / _output_power(taps, covariance).sqrt()[:, None]


def _least_squares(
    adjoint: Tensor,
    covariance: Tensor,
    ratio: Tensor,
    penalty: float,
    noise_penalty: float,
    growth: float,
) -> tuple[Tensor, Tensor]:
    """What gives taps of least squares from symbols, [B, taps, K]; what a single tap adds [B, taps].

    For the penalties see _HOLDS.
    """
    middle = _NUM_TAPS // 2
    distance = (torch.arange(_NUM_TAPS, device=ratio.device) - middle).abs()
    held = (penalty + noise_penalty * ratio.clamp(max=10.0))[:, None] * torch.exp(growth * distance)
    # Unlike inv, it does not look whether there is an inverse, for which the host would wait.
    inverse = torch.linalg.inv_ex(covariance + torch.diag_embed(held).to(covariance.dtype)).inverse
    return inverse @ adjoint, inverse[:, :, middle] * held[:, middle, None]


def _output_power(taps: Tensor, covariance: Tensor) -> Tensor:
    """Mean power of symbols, float32 [B, alphabets]."""
    return (taps.conj() * (covariance @ taps)).real.sum(1).clamp_min(1e-12)


def _expected(symbols: Tensor, level: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Symbols expected under each alphabet, complex64 [B, K, A], of noisy ones at levels [B, 1, 1]."""
    found = [
        _look_up(table, part, level)
        for table, part in zip(factors, _seen_as(symbols, factors), strict=True)
    ]
    if len(found) == 1:
        return symbols * found[0]
    return torch.complex(symbols.real * found[0], symbols.imag * found[1])


def _likelihoods(symbols: Tensor, densities: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean log-likelihood at the best noise variance, and that, [B, A]; of symbols [B, K, A]."""
    total = 0
    for table, part in zip(densities, _seen_as(symbols, densities), strict=True):
        part = part.transpose(1, 2)
        place = (part * (table.shape[2] / _LARGEST)).long().clamp_(0, table.shape[2] - 1)
        counts = torch.zeros(*part.shape[:2], table.shape[2], device=part.device)
        counts.scatter_add_(2, place, torch.ones_like(part))
        total = total + torch.einsum("bam,asm->bas", counts, table)
    best, level = total.max(2)
    return best / symbols.shape[1], _variances(level.device)[0][level]


def _seen_as(symbols: Tensor, tables: Sequence[Tensor]) -> list[Tensor]:
    """Magnitudes of symbols, or of their parts where there is a table for each."""
    if len(tables) == 1:
        # Faster by far than the magnitude.
        return [squared_magnitude(symbols).sqrt()]
    return list(torch.view_as_real(symbols).abs().unbind(-1))


def _look_up(table: Tensor, magnitude: Tensor, level: Tensor) -> Tensor:
    """Values of a table [A, variances, places] for magnitudes [B, K, A] at levels [B, 1, 1]."""
    count, num_levels, size = table.shape
    number = torch.arange(count, device=table.device) * num_levels + level
    place = (magnitude * (size / _LARGEST)).to(torch.int32).clamp_(0, size - 1)
    place = place.add_(number.to(torch.int32) * size)
    return table.flatten().index_select(0, place.flatten()).view(place.shape)


@cache
def _variances(device: torch.device) -> tuple[Tensor, Tensor]:
    """Noise variances of the tables, and the limits between them."""
    levels = torch.tensor(_VARIANCES, device=device)
    return levels, (levels[1:] * levels[:-1]).sqrt()


@cache
def _magnitude_tables(device: torch.device) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Tables of MODULUS_ALPHABETS, one of each kind: see _tables.

    A symbol on a ring of radius r, at any angle, in noise of variance v has a magnitude m of Rice's
    distribution, and is expected at r I1(2 m r / v) / I0(2 m r / v).
    """

    def ring(magnitude: Tensor, radius: Tensor, variance: float) -> tuple[Tensor, Tensor]:
        argument = 2 * magnitude * radius / variance
        scaled = torch.special.i0e(argument)
        return scaled.log(), radius * torch.special.i1e(argument) / scaled

    values = [abs(symbol_map(name)) for name in MODULUS_ALPHABETS]
    return tuple((table,) for table in _tables(values, ring, 2, device))


@cache
def _part_tables(device: torch.device) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Tables of PART_ALPHABETS and of real ones that lie across, for in-phase and quadrature parts.

    Parts are taken as independent of each other, as those of cross QAM are not.
    """

    def part(_: Tensor, value: Tensor, variance: float) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(value), value

    points = [symbol_map(name) for name in PART_ALPHABETS]
    for number in _ACROSS:
        points[number] = 1j * points[number]
    made = [_tables([getattr(p, axis) for p in points], part, 1, device) for axis in ("real", "imag")]
    return tuple(zip(*made, strict=True))


def _tables(
    values: Sequence[np.ndarray],
    kernel: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]],
    num_dimensions: int,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """For each alphabet, noise variance and magnitude, float32 [A, variances, places] twice.

    What is expected over what is seen; and the log-density of what is seen if it has unit power.

    Args:
        values: of what is sent.
        kernel: gives, of what is seen and sent, what the logarithm of a Gaussian's density has beside
            the squared distance, and what is expected.
        num_dimensions: two for magnitudes, of points of the plane; one for parts.
        device: where the tables are wanted.
    """
    seen = (torch.arange(_NUM_PLACES, dtype=torch.float64) + 0.5)[:, None] * (_LARGEST / _NUM_PLACES)
    factors, densities = [], []
    for numbers in values:
        value, count = torch.from_numpy(numbers.round(6)).unique(return_counts=True)
        often = (count / count.sum()).log()
        for variance in _VARIANCES:
            scale = (1 + variance) ** 0.5
            (beside, expected), (beside_scaled, _) = (
                kernel(x, value + 0 * x, variance) for x in (seen, seen * scale)
            )
            weight = often + beside - (seen - value).square() / variance
            factors.append((weight.softmax(1) * expected).sum(1) / seen[:, 0])
            weight = often + beside_scaled - (seen * scale - value).square() / variance
            constant = math.log(scale**2 / (math.pi * variance)) * num_dimensions / 2
            densities.append(weight.logsumexp(1) + constant)
    shape = len(values), len(_VARIANCES), _NUM_PLACES
    return tuple(torch.stack(made).view(shape).float().to(device) for made in (factors, densities))


def _find_carrier(symbols: Tensor, variance: Tensor, by_magnitude: Tensor) -> Tensor:
    """Carrier offset in cycles per symbol, float32 [B], up to what a modulation's symmetry hides.

    The m-th power of the symbols' angles has a line at m times the offset. How much a symbol adds to
    it, and with which sign, follows from its magnitude under a modulation. The offset is the likeliest
    one of all modulations, the place of the band being a first guess.

    Args:
        symbols: complex64 [B, K], unit power.
        variance: float32 [B], of noise and interference.
        by_magnitude: float32 [B, A], log-likelihood of the magnitudes under each of MODULUS_ALPHABETS.
    """
    table, order, alphabet = _line_tables(symbols.device)
    level = torch.bucketize(variance, _variances(symbols.device)[1])[:, None, None]
    magnitude = squared_magnitude(symbols).sqrt()[..., None].expand(-1, -1, len(table))
    weight = _look_up(table, magnitude, level).transpose(1, 2)
    turned = unit_phasor(order[:, None] * symbols.angle()[:, None])
    energy = weight.square().sum(2, keepdim=True).clamp_min(1e-6)
    lines = squared_magnitude(torch.fft.fft(weight * turned, _NUM_BINS)).sqrt() / energy.sqrt()
    # Of unrelated angles a line has unit power, of the modulation's the energy of the weights.
    known = by_magnitude[:, alphabet]
    known = (known - known.amax(1, keepdim=True)).clamp_min(-_MOST_KNOWN)
    likelihood = 2 * lines * energy.sqrt() - energy + known[..., None]
    offset = torch.fft.fftfreq(_NUM_BINS, device=symbols.device) / order[:, None]
    narrow, wide = (torch.exp(-0.5 * (offset / width).square()) / width for width in (_NARROW, _WIDE))
    prior = (_SHARE * narrow + (1 - _SHARE) * wide).log()
    return offset.flatten()[(likelihood + prior).flatten(1).argmax(1)]


@cache
def _line_tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of magnitudes, float32 [M, variances, places], for each of _ORDERS, which follow [M].

    And the number among MODULUS_ALPHABETS of each modulation's magnitudes, int64 [M]. A weight is the
    mean of exp(j m angle) of noisy symbols of a magnitude: around a point on a ring of radius r the
    angle has von Mises' distribution.
    """
    seen = (torch.arange(_NUM_PLACES, dtype=torch.float64) + 0.5)[:, None] * (_LARGEST / _NUM_PLACES)
    tables = []
    for name, order in _ORDERS.items():
        points = torch.from_numpy(symbol_map(name).copy())
        radius, ring, count = (
            (points.abs() * 1e6).round().unique(return_inverse=True, return_counts=True)
        )
        radius = radius / 1e6
        together = (
            torch.zeros_like(radius).index_add_(0, ring, torch.cos(order * points.angle())) / count
        )
        for variance in _VARIANCES:
            argument = 2 * seen * radius / variance
            scaled = torch.special.i0e(argument)
            density = (count / len(points)).log() + scaled.log() - (seen - radius).square() / variance
            spread = torch.from_numpy(ive(order, argument.numpy())) / scaled
            tables.append((density.softmax(1) * together * spread).sum(1))
    shape = len(_ORDERS), len(_VARIANCES), _NUM_PLACES
    names = (name if name in MODULUS_ALPHABETS else "QPSK" for name in _ORDERS)  # of PSK all alike
    alphabets = torch.tensor([MODULUS_ALPHABETS.index(name) for name in names], device=device)
    orders = torch.tensor(list(_ORDERS.values()), device=device)
    return torch.stack(tables).view(shape).float().to(device), orders, alphabets

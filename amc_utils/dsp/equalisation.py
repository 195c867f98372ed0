"""A frame of unknown pulse, carrier offset and multipath: band, equaliser and carrier from its samples.

Of the signal only the symbol rate is known, 8 samples per symbol. Three steps, none of which knows the
modulation: the pulse of a family, the band's place and the timing under which a Gaussian signal is
likeliest; a short equaliser under which magnitudes of symbols gather on those of some alphabet, which
needs no carrier; and the carrier offset, from lines of powers of the equalised symbols. What follows is
that of a channel with a known pulse and a small offset.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from amc_utils.modulation.constellations import symbol_map
from amc_utils.signals import SAMPLES_PER_SYMBOL, pulse_energy, raised_cosine, unit_phasor

# The family of pulses that is tried: powers of a raised cosine, roll-offs. Neighbours differ by
# interference of -20 dB or less, which the equaliser takes away.
_EXPONENTS = (0.5, 1.0, 1.5)
_ROLLOFFS = (0.05, 0.11, 0.18, 0.25, 0.33, 0.42, 0.53, 0.66, 0.82, 1.0)
# Places of the band reach so far to each side, in cycles per sample, and are a bin of a frame apart.
_REACH = 0.0105
# No signal lies beyond, in cycles per sample: roll-off 1 and the largest offset.
_BAND_EDGE = 0.146
# Noise over signal density at the carrier that the likelihood of pulses reckons with at least: what
# multipath does to a spectrum is no noise, and no spectrum of the family either.
_LEAST_RATIO = 0.05
# Noise over signal density that the filter of a pulse reckons with at least.
_LEAST_FILTER_RATIO = 1e-3
# Signal power that is reckoned with at least, as a share of a frame's.
_LEAST_SIGNAL = 0.003
# Symbols' length of zeros after a frame that keep its two ends apart.
_PADDING = 16
# Taps of the equaliser, half a symbol apart.
_NUM_TAPS = 9
# How strongly taps are held to a single one: without noise, and per noise over signal density; by so
# much more from one tap to the next.
_PENALTY, _NOISE_PENALTY, _PENALTY_GROWTH = 1e-3, 0.08, 0.9
# Iterations; the noise variance that they reckon with falls from the first to the last; steps are
# longer than those of expectation maximisation by the factor.
_NUM_STEPS, _FIRST_VARIANCE, _LAST_VARIANCE, _STEP = 12, 0.3, 1e-3, 1.7
# What an equaliser must gain in log-likelihood of a frame to be used: noise alone lets it gain some.
_LEAST_GAIN = 15.0
# Noise variances and magnitudes, from zero up, of the tables of alphabets.
_VARIANCES = tuple(10 ** (-3 + 3 * step / 11) for step in range(12))
_NUM_MAGNITUDES, _LARGEST = 256, 2.4
# One modulation for each set of magnitudes.
MODULUS_ALPHABETS = (
    "QPSK", "OOK", "4ASK", "8ASK", "16APSK", "32APSK", "64APSK", "128APSK", "16QAM", "32QAM", "64QAM",
    "128QAM", "256QAM",
)  # fmt: skip
# Of the carrier: length of the transforms; edges of magnitude rings; symmetries that are tried, and
# whether rings are told apart, since their lines have phases of their own.
_NUM_BINS, _RINGS = 512, (0.45, 0.7, 0.9, 1.1, 1.3)
_LINES = ((1, False), (2, False), (4, True), (8, True), (12, True), (16, False), (32, False))
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
        ratio: noise over signal density, N0 / Es of the frame as received.
        exponent, rolloff: pulse of the family.
        likelihoods: mean log-likelihood of the magnitudes of symbols under each of MODULUS_ALPHABETS,
            [B, 2, alphabets]: after the filter of the pulse alone, and after each one's equaliser.
    """

    cfo: Tensor
    timing: Tensor
    timing_likelihood: Tensor
    bands: Tensor
    noise_gain: Tensor
    ratio: Tensor
    exponent: Tensor
    rolloff: Tensor
    likelihoods: Tensor


def equalise(iq: Tensor, noise: Tensor) -> Equalised:
    """Carrier, timing and equalised spectrum of frames of an unknown channel.

    Args:
        iq: complex64 [B, num_samples], 8 samples per symbol.
        noise: noise variance per complex sample, float32 [B].
    """
    power = iq.abs().square().mean(1)
    signal = torch.maximum(power - noise, _LEAST_SIGNAL * power).clamp_min(1e-12)
    ratio = noise / (SAMPLES_PER_SYMBOL * signal)
    exponent, rolloff, cfo, cross = _find_band(iq, noise, signal)
    timing = (-cross.angle() / (2 * torch.pi) % 1) * SAMPLES_PER_SYMBOL
    frequency = _frequencies(iq.shape[1], iq.device)
    num_samples = torch.arange(iq.shape[1], device=iq.device)
    shifted = iq * unit_phasor(-2 * torch.pi * cfo[:, None] * num_samples)
    length = iq.shape[1] + _PADDING * SAMPLES_PER_SYMBOL
    spectrum = torch.fft.fft(shifted, length)
    half = len(frequency) // 2
    spectrum = torch.cat([spectrum[:, :half], spectrum[:, -half:]], 1)
    pulses = _pulses(frequency, exponent, rolloff)
    response = equaliser(pulses, ratio.clamp_min(_LEAST_FILTER_RATIO)).flatten(1)
    advance = unit_phasor(2 * torch.pi / SAMPLES_PER_SYMBOL * timing[:, None] * frequency)
    samples = torch.fft.ifft(spectrum * response * advance)
    scale = samples.abs().square().mean(1).clamp_min(1e-24).rsqrt()[:, None]
    taps, symbols, likelihoods = _equaliser(samples * scale, ratio, iq.shape[1] // SAMPLES_PER_SYMBOL)
    delays = torch.arange(_NUM_TAPS, device=iq.device) - _NUM_TAPS // 2
    response = response * (taps @ unit_phasor(torch.pi * torch.outer(delays, frequency)))
    offset = _find_carrier(symbols)
    instants = torch.arange(len(frequency), device=iq.device) / 2
    equalised = torch.fft.ifft(spectrum * response * advance)
    equalised = equalised * unit_phasor(-2 * torch.pi * offset[:, None] * instants)
    bands = torch.fft.fft(equalised) * advance.conj()
    return Equalised(
        cfo=cfo + offset / SAMPLES_PER_SYMBOL,
        timing=timing,
        timing_likelihood=2 * cross.abs(),
        bands=bands.unflatten(1, (2, half)),
        noise_gain=response.abs().square().sum(1) / half,
        ratio=ratio,
        exponent=exponent,
        rolloff=rolloff,
        likelihoods=likelihoods,
    )


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


def _find_band(iq: Tensor, noise: Tensor, signal: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Exponent, roll-off, carrier offset to a bin, [B]; and the timing's line, complex64 [B].

    The likelihood is that of estimate_timing, for each pulse at each place: sums of the spectrum's
    power, and of products of frequencies a symbol rate apart, with weights that are matrices.
    """
    num_samples = iq.shape[1]
    window = taper(num_samples, iq.device)
    spectrum = torch.fft.fft(iq * window) / window.square().sum().sqrt()
    reach = round(_BAND_EDGE * num_samples)
    bins = torch.arange(-reach, reach + 1, device=iq.device)
    exponents, rolloffs, cfos, own, shared, spread = _band_weights(num_samples, iq.device)
    inside = spectrum[:, bins % num_samples]
    apart = spectrum[:, (bins - num_samples // SAMPLES_PER_SYMBOL) % num_samples]
    density = torch.maximum(noise, SAMPLES_PER_SYMBOL * signal * _LEAST_RATIO)[:, None]
    cross = torch.view_as_real(inside * apart.conj()).permute(2, 0, 1) @ shared
    cross = torch.complex(*cross) / density
    level = (inside.abs().square() - noise[:, None]) @ own / density
    best = (level + 2 * cross.abs() - spread).argmax(1)
    pulse, place = best // len(cfos), best % len(cfos)
    found = cross.gather(1, best[:, None])[:, 0]
    return exponents[pulse], rolloffs[pulse], cfos[place], found


@cache
def _band_weights(num_samples: int, device: torch.device) -> tuple[Tensor, ...]:
    """Exponents and roll-offs [P], places [C], weights [bins, P C] twice, and a constant [P C]."""
    pulses = torch.tensor([(e, r) for e in _EXPONENTS for r in _ROLLOFFS], dtype=torch.float64)
    exponent, rolloff = (part[:, None, None] for part in pulses.T)
    steps = int(_REACH * num_samples)
    cfos = torch.arange(-steps, steps + 1, dtype=torch.float64) / num_samples
    reach = round(_BAND_EDGE * num_samples)
    bins = torch.arange(-reach, reach + 1, dtype=torch.float64) / num_samples
    frequency = (bins - cfos[:, None]) * SAMPLES_PER_SYMBOL
    energy = torch.stack([pulse_energy(r, float(e)) for e, r in pulses])[:, None, None]
    pulse, below, above = (
        raised_cosine(frequency + shift, rolloff) ** exponent / energy.sqrt() for shift in (0, -1, 1)
    )
    density = pulse.square() + below.square() + above.square()
    weighted = density + _LEAST_RATIO
    # Every frequency of the symbols is there twice; each copy counts by its share.
    share = pulse.square() / density.clamp_min(1e-12)
    spread = (share * torch.log1p(density / _LEAST_RATIO)).sum(2)
    own, shared = pulse.square() / weighted, pulse * below / weighted
    own, shared = (part.flatten(0, 1).T.contiguous() for part in (own, shared))
    made = (*pulses.T, cfos, own, shared, spread.flatten())
    return tuple(part.to(device, torch.float32) for part in made)


def _pulses(frequency: Tensor, exponent: Tensor, rolloff: Tensor) -> Tensor:
    """Spectra of pulses of unit energy, float32 [B, 2, F]."""
    half = len(frequency) // 2
    pulse = raised_cosine(frequency, rolloff[:, None]) ** exponent[:, None]
    return (pulse / (pulse.square().sum(1, keepdim=True) / half).sqrt()).unflatten(1, (2, half))


def _equaliser(samples: Tensor, ratio: Tensor, num_symbols: int) -> tuple[Tensor, Tensor, Tensor]:
    """Taps, complex64 [B, taps], and symbols [B, K], of the likeliest alphabet; likelihoods of all.

    Args:
        samples: complex64 [B, at least 2 K], unit power, half a symbol apart, the first at a symbol.
        ratio: float32 [B], N0 / Es.
        num_symbols: K.
    """
    middle = _NUM_TAPS // 2
    padded = torch.cat([samples[:, -middle:], samples, samples[:, :middle]], 1)
    seen = padded.unfold(1, _NUM_TAPS, 2)[:, :num_symbols].contiguous()
    taps = _fitted_taps(seen, ratio)
    symbols = seen @ taps
    single = torch.zeros_like(taps[:, :, :1])
    single[:, middle] = 1
    plain = seen[:, :, middle, None]
    plain = plain * plain.abs().square().mean(1, keepdim=True).clamp_min(1e-12).rsqrt()
    both = plain.expand_as(symbols), symbols
    likelihoods = torch.stack([_modulus_likelihoods(part) for part in both], 1)
    best, alphabet = likelihoods.max(2)
    gains = ((best[:, 1] - best[:, 0]) * num_symbols > _LEAST_GAIN)[:, None]

    def chosen(equalised: Tensor, alone: Tensor) -> Tensor:
        column = alphabet[:, 1, None, None].expand(-1, equalised.shape[1], 1)
        return torch.where(gains, equalised.gather(2, column)[..., 0], alone[..., 0])

    return chosen(taps, single), chosen(symbols, plain), likelihoods


def _fitted_taps(seen: Tensor, ratio: Tensor) -> Tensor:
    """Taps for each alphabet, complex64 [B, taps, alphabets], that give symbols of unit power.

    Expectation maximisation under each alphabet of magnitudes: the symbols that are expected are the
    equalised ones at magnitudes that are, and the taps those of least squares, held to a single one.
    The noise variance that magnitudes are judged with falls slowly, since interference is larger at
    first. Magnitudes alone have no carrier.

    Args:
        seen: complex64 [B, K, taps], samples that make each symbol.
        ratio: float32 [B], N0 / Es.
    """
    adjoint = seen.mH / seen.shape[1]
    covariance = adjoint @ seen
    middle = _NUM_TAPS // 2
    distance = (torch.arange(_NUM_TAPS, device=seen.device) - middle).abs()
    penalty = (_PENALTY + _NOISE_PENALTY * ratio.clamp(max=10.0))[:, None]
    penalty = penalty * torch.exp(_PENALTY_GROWTH * distance)
    inverse = torch.linalg.inv(covariance + torch.diag_embed(penalty).to(covariance.dtype))
    # What a single tap pulls the others to.
    pull = inverse[:, :, middle, None] * penalty[:, middle, None, None]
    least_squares = inverse @ adjoint
    table, edges = _modulus_tables(seen.device)[0], _variance_edges(seen.device)
    taps = seen.new_zeros(len(seen), _NUM_TAPS, len(table))
    taps[:, middle] = 1
    for step in range(_NUM_STEPS):
        fall = (_LAST_VARIANCE / _FIRST_VARIANCE) ** (step / (_NUM_STEPS - 1))
        variance = ratio.clamp(_FIRST_VARIANCE * fall, _VARIANCES[-1])
        taps = taps * ((1 + variance)[:, None] / _output_power(taps, covariance)).sqrt()[:, None]
        symbols = seen @ taps
        level = torch.bucketize(variance, edges)[:, None, None]
        expected = symbols * _at_magnitude(table, symbols.abs(), level)
        wanted = least_squares @ expected + pull
        along = (wanted.conj() * taps).real.sum(1, keepdim=True)
        along = along / taps.abs().square().sum(1, keepdim=True)
        taps = taps + _STEP * (wanted / along.clamp_min(0.05) - taps)
    return taps / _output_power(taps, covariance).sqrt()[:, None]


def _output_power(taps: Tensor, covariance: Tensor) -> Tensor:
    """Mean power of symbols, float32 [B, alphabets]."""
    return (taps.conj() * (covariance @ taps)).real.sum(1).clamp_min(1e-12)


def _at_magnitude(table: Tensor, magnitude: Tensor, level: Tensor) -> Tensor:
    """Values of a table [A, variances, magnitudes] for magnitudes [B, K, A] at levels [B, 1, 1]."""
    count, num_levels, size = table.shape
    number = torch.arange(count, device=table.device) * num_levels + level
    place = (magnitude * (size / _LARGEST)).to(torch.int32).clamp_(0, size - 1)
    return table.flatten()[number * size + place]


def _modulus_likelihoods(symbols: Tensor) -> Tensor:
    """Mean log-likelihood of magnitudes of symbols, unit power, at the best noise variance, [B, A].

    Args:
        symbols: complex64 [B, K, A], those of each alphabet.
    """
    table = _modulus_tables(symbols.device)[1]
    magnitude = symbols.abs().transpose(1, 2)
    place = (magnitude * (table.shape[2] / _LARGEST)).long().clamp_(0, table.shape[2] - 1)
    counts = torch.zeros(*magnitude.shape[:2], table.shape[2], device=symbols.device)
    counts.scatter_add_(2, place, torch.ones_like(magnitude))
    return torch.einsum("bam,asm->bas", counts, table).amax(2) / magnitude.shape[2]


@cache
def _variance_edges(device: torch.device) -> Tensor:
    levels = torch.tensor(_VARIANCES, device=device)
    return (levels[1:] * levels[:-1]).sqrt()


@cache
def _modulus_tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """For each alphabet, noise variance and magnitude, float32 [A, variances, magnitudes] twice.

    The expected symbol over the noisy one; and the log-likelihood of a magnitude among symbols of unit
    power, noise included. A symbol on a ring of radius r, of all phases, in noise of variance v has a
    magnitude of Rice's distribution, and is expected at r I1(2 m r / v) / I0(2 m r / v).
    """
    magnitude = (torch.arange(_NUM_MAGNITUDES, dtype=torch.float64) + 0.5) * (
        _LARGEST / _NUM_MAGNITUDES
    )
    factors, likelihoods = [], []
    for name in MODULUS_ALPHABETS:
        radius, count = (
            torch.from_numpy(abs(symbol_map(name))).round(decimals=6).unique(return_counts=True)
        )
        for variance in _VARIANCES:
            for scale, found in ((1, factors), ((1 + variance) ** 0.5, likelihoods)):
                m = magnitude[:, None] * scale
                argument = 2 * m * radius / variance
                weight = torch.special.i0e(argument).log() - (m - radius).square() / variance
                weight = weight + (count / count.sum()).log()
                if found is factors:
                    bessel = torch.special.i1e(argument) / torch.special.i0e(argument)
                    found.append((weight.softmax(1) * radius * bessel).sum(1) / magnitude)
                else:
                    found.append(weight.logsumexp(1) + (2 * m[:, 0] * scale / variance).log())
    shape = len(MODULUS_ALPHABETS), len(_VARIANCES), _NUM_MAGNITUDES
    return tuple(torch.stack(found).view(shape).float().to(device) for found in (factors, likelihoods))


def _find_carrier(symbols: Tensor) -> Tensor:
    """Carrier offset in cycles per symbol, float32 [B], up to what a modulation's symmetry hides.

    Each power m of the symbols may have a line at m times the offset, in each magnitude ring with a
    phase of its own. The offset is the one of greatest likelihood over all m, the place of the band
    being a first guess.
    """
    magnitude = symbols.abs().clamp_min(1e-12)
    unit = symbols / magnitude
    ring = torch.bucketize(magnitude, torch.tensor(_RINGS, device=symbols.device))
    in_ring = torch.nn.functional.one_hot(ring, len(_RINGS) + 1).transpose(1, 2).to(magnitude.dtype)
    powers = {1: unit, 2: unit.square()}
    powers[4] = powers[2].square()
    powers[8] = powers[4].square()
    powers |= {12: powers[8] * powers[4], 16: powers[8].square()}
    powers[32] = powers[16].square()
    scores, offsets = [], []
    for order, by_ring in _LINES:
        weight = in_ring if by_ring else magnitude[:, None]
        energy = weight.square().sum(2, keepdim=True).clamp_min(1.0)
        lines = torch.fft.fft(powers[order][:, None] * weight, _NUM_BINS)
        count = weight.shape[1]
        power = (lines.abs().square() / energy).sum(1)
        # Logarithm of how much rarer such a power is among unrelated angles than the usual one.
        scores.append(power - count - (count - 1) * (power / count).clamp_min(1.0).log())
        offsets.append(torch.fft.fftfreq(_NUM_BINS, order, device=symbols.device))
    offset = torch.cat(offsets)
    narrow, wide = (torch.exp(-0.5 * (offset / width).square()) / width for width in (_NARROW, _WIDE))
    prior = (_SHARE * narrow + (1 - _SHARE) * wide).log()
    return offset[(torch.cat(scores, 1) + prior).argmax(1)]

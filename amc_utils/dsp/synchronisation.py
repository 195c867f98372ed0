"""Blind timing: from the samples of a frame to its symbols.

What a receiver for such signals knows is known here, see ReceiverSettings: 8 samples per symbol, the
shape of the pulse, the largest carrier offset. Timing and roll-off are those under which a Gaussian
signal of that bandwidth is likeliest, so no step knows the modulation; only OQPSK, whose two parts
change half a symbol apart, needs its own. Where there is nothing to find, as below the noise, something
is found at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import scipy.signal
import torch
from torch import Tensor

from amc_utils.dsp.receiver_settings import DEFAULT_RECEIVER, ReceiverSettings
from amc_utils.signals import SAMPLES_PER_SYMBOL, pulse_energy, raised_cosine, unit_phasor

# Carrier offsets that are tried; on a grid of 3.75e-4 to each side, neighbours turn the ends of a frame
# by less than three degrees.
NUM_CFOS = 49
# Noise over signal density that the equaliser reckons with, at most and at least.
_NOISE_RATIO_RANGE = (1e-7, 30.0)
# Signal power that is reckoned with at least, as a share of a frame's.
_LEAST_SIGNAL = 0.003
# Of the filter that lets noise beside the signal through: length, edge in cycles per sample. It holds
# back a signal of roll-off 0.44 by 90 dB.
_NUM_HIGH_PASS_TAPS, _HIGH_PASS_EDGE = 97, 0.12


@dataclass(frozen=True)
class Synchronised:
    """Symbols of a batch of frames after timing recovery, before carrier recovery.

    Attributes:
        symbols: complex64 [B, K], unit mean power.
        rolloff: float32 [B].
        timing: float32 [B], position of the first symbol's peak in samples, in [0, 8).
        noise_power: float32 [B], noise variance per complex symbol, in units of the mean power.
        receiver: what was known about the channel.
    """

    symbols: Tensor
    rolloff: Tensor
    timing: Tensor
    noise_power: Tensor
    receiver: ReceiverSettings = DEFAULT_RECEIVER


def synchronise(iq: Tensor, receiver: ReceiverSettings = DEFAULT_RECEIVER) -> Synchronised:
    """Symbols at the instants of greatest likelihood, through the equaliser.

    Args:
        iq: complex64 [B, num_samples], 8 samples per symbol.
        receiver: what is known about the channel.
    """
    noise = out_of_band_power(iq)
    ratio = noise_ratio(iq, noise, receiver)
    rolloff, timing = estimate_timing(iq, ratio, receiver)
    spectrum, gain = _equalised_spectrum(iq, rolloff, ratio, receiver)
    symbols, power = _unit_power(_at_symbols(spectrum, timing, iq.shape[1], receiver))
    return Synchronised(symbols, rolloff, timing, noise * gain / power, receiver)


def noise_ratio(iq: Tensor, noise: Tensor, receiver: ReceiverSettings) -> Tensor:
    """Noise over signal density at the carrier, N0 / Es for the exponent 0.5; float32 [B].

    Args:
        iq: complex64 [B, num_samples].
        noise: float32 [B], noise variance per sample.
        receiver: what is known about the channel.
    """
    power = _power(iq)
    signal = torch.maximum(power - noise, _LEAST_SIGNAL * power).clamp_min(1e-12)
    rolloff = torch.full((), receiver.mean_rolloff, device=iq.device)
    ratio = noise * pulse_energy(rolloff, receiver.pulse_exponent) / (SAMPLES_PER_SYMBOL * signal)
    return ratio.clamp(*_NOISE_RATIO_RANGE)


def equaliser(frequency: Tensor, rolloff: Tensor, ratio: Tensor, receiver: ReceiverSettings) -> Tensor:
    """Filter of least mean-square error at the symbol instants, float32 [B, F].

    H / (H^2 + H_alias^2 + N0 / Es), where H_alias is the pulse's spectrum a symbol rate away: sampled
    once per symbol, the two fall together. Without noise no intersymbol interference is left. For the
    exponent 0.5 the sum of the squares is 1, and the filter is the matched filter.

    Args:
        frequency: float32 [F], in symbol rates.
        rolloff: float32 [B].
        ratio: float32 [B], see noise_ratio.
        receiver: gives the exponent.

    Source: Proakis, "Digital Communications", linear equalisation with mean-square-error criterion.
    """
    own, alias = _pulse_and_alias(frequency, rolloff[:, None], receiver)
    # Where both are zero the noise alone is left, and the filter is zero.
    return own / (own.square() + alias.square() + ratio[:, None])


def _pulse_and_alias(
    frequency: Tensor, rolloff: Tensor, receiver: ReceiverSettings
) -> tuple[Tensor, Tensor]:
    """Spectrum of the pulse at a frequency, and a symbol rate nearer to the carrier or beyond it."""
    distance = frequency.abs()
    own, alias = (raised_cosine(f, rolloff) for f in (distance, 1 - distance))
    return own**receiver.pulse_exponent, alias**receiver.pulse_exponent * (distance < 1)


def offset_lines(iq: Tensor, receiver: ReceiverSettings = DEFAULT_RECEIVER) -> Tensor:
    """Lines that the square of OQPSK has at twice the carrier offset plus and minus the symbol rate.

    Args:
        iq: complex64 [B, num_samples], 8 samples per symbol.
        receiver: what is known about the channel.

    Returns:
        complex64 [B, 2, NUM_CFOS], in units of the power, so at most one; their phases are those at
        the middle of the frame.
    """
    spectrum = _filtered(iq, receiver)[0]
    # A quarter of the spectrum at either end holds the signal; what is left runs at half the rate.
    quarter = spectrum.shape[1] // 4
    slow = torch.fft.ifft(torch.cat([spectrum[:, :quarter], spectrum[:, -quarter:]], 1))
    square = slow[:, : iq.shape[1] // 2].square()
    power = square.abs().sum(1).clamp_min(1e-12)
    lines = square @ _square_waves(iq.shape[1], receiver, iq.device) / power[:, None]
    return lines.unflatten(1, (2, NUM_CFOS))


def equalised_powers(es_n0_db: Tensor, receiver: ReceiverSettings) -> tuple[Tensor, Tensor]:
    """Power of signal and of intersymbol interference in equalised symbols of unit noise variance.

    For the exponent 0.5 they are Es/N0 and zero. Shaped like `es_n0_db`.
    """
    frequency = (torch.arange(256, device=es_n0_db.device, dtype=es_n0_db.dtype) + 0.5) / 512
    rolloff = torch.full((), receiver.mean_rolloff, device=es_n0_db.device, dtype=es_n0_db.dtype)
    own, alias = _pulse_and_alias(frequency, rolloff, receiver)
    energy = pulse_energy(rolloff, receiver.pulse_exponent)
    ratio = (energy * 10 ** (-es_n0_db / 10))[..., None]
    density = own.square() + alias.square()
    folded = density / (density + ratio)
    noise = ratio[..., 0] * (density / (density + ratio).square()).mean(-1)
    signal = folded.mean(-1).square()
    return signal / noise, (folded.square().mean(-1) - signal) / noise


def synchronise_offset(iq: Tensor, receiver: ReceiverSettings = DEFAULT_RECEIVER) -> Synchronised:
    """Symbols as those of OQPSK, the quadrature part half a symbol late.

    The mean of the phases of the two lines is twice the carrier's, half their difference the timing's.
    The offset is the one under which the two are strongest. The carrier is taken out, up to quarter
    turns; symbols of any other modulation come out as a smear.

    Args:
        iq: complex64 [B, num_samples], 8 samples per symbol.
        receiver: what is known about the channel.
    """
    num_samples, device = iq.shape[1], iq.device
    upper, lower = offset_lines(iq, receiver).unbind(1)
    best = (upper.abs() + lower.abs()).argmax(1, keepdim=True)
    upper, lower = (side.gather(1, best)[:, 0].angle() for side in (upper, lower))
    cfo = cfo_grid(receiver, device)[best[:, 0]]
    phase = (upper + lower) / 4
    # Phases and timing are those at the middle of the frame.
    timing = (lower - upper) / (4 * torch.pi) * SAMPLES_PER_SYMBOL + num_samples / 2
    (spectrum, gain), noise, parts = _filtered(iq, receiver), out_of_band_power(iq), []
    for late in (0.0, SAMPLES_PER_SYMBOL / 2):
        first = (timing + late) % SAMPLES_PER_SYMBOL
        start = first + receiver.guard_symbols * SAMPLES_PER_SYMBOL - num_samples / 2
        symbols = _at_symbols(spectrum, first, num_samples, receiver)
        instants = start[:, None] + SAMPLES_PER_SYMBOL * torch.arange(symbols.shape[1], device=device)
        parts.append(symbols * unit_phasor(-2 * torch.pi * cfo[:, None] * instants - phase[:, None]))
    symbols, power = _unit_power(torch.complex(parts[0].real, parts[1].imag))
    rolloff = torch.full_like(power, receiver.mean_rolloff)
    first = timing % SAMPLES_PER_SYMBOL
    return Synchronised(symbols, rolloff, first, noise * gain / power, receiver)


@cache
def cfo_grid(receiver: ReceiverSettings, device: torch.device) -> Tensor:
    """Carrier offsets that are tried, in cycles per sample, float32 [NUM_CFOS]."""
    return torch.linspace(-receiver.max_cfo, receiver.max_cfo, NUM_CFOS, device=device)


def _filtered(iq: Tensor, receiver: ReceiverSettings) -> tuple[Tensor, Tensor]:
    """What _equalised_spectrum gives with the mean roll-off, for where none is estimated."""
    ratio = noise_ratio(iq, out_of_band_power(iq), receiver)
    rolloff = torch.full((1,), receiver.mean_rolloff, device=iq.device)
    return _equalised_spectrum(iq, rolloff, ratio, receiver)


def _equalised_spectrum(
    iq: Tensor, rolloff: Tensor, ratio: Tensor, receiver: ReceiverSettings
) -> tuple[Tensor, Tensor]:
    """Spectrum after the equaliser, and what it multiplies the noise of a symbol by, [B].

    Zeros are appended to keep the two ends of a frame apart. In the exponent 0.5 the equaliser is the
    matched filter times a factor, which is left out: symbols of unit noise energy stay so.
    """
    length = iq.shape[1] + 2 * SAMPLES_PER_SYMBOL**2
    frequency = torch.fft.fftfreq(length, 1 / SAMPLES_PER_SYMBOL, device=iq.device)
    response = equaliser(frequency, rolloff, ratio, receiver) * (1 + ratio[:, None])
    gain = response.square().sum(1) * (SAMPLES_PER_SYMBOL / length)
    return torch.fft.fft(iq, length) * response, gain


def _at_symbols(
    spectrum: Tensor, timing: Tensor, num_samples: int, receiver: ReceiverSettings
) -> Tensor:
    """Signal of an equalised spectrum once per symbol from `timing` on (samples), complex64 [B, K]."""
    frequency = torch.fft.fftfreq(spectrum.shape[1], 1 / SAMPLES_PER_SYMBOL, device=spectrum.device)
    turned = spectrum * unit_phasor(2 * torch.pi * frequency * (timing / SAMPLES_PER_SYMBOL)[:, None])
    # Sampling once per symbol folds the spectrum.
    symbols = torch.fft.ifft(turned.unflatten(1, (SAMPLES_PER_SYMBOL, -1)).sum(1))
    # The noise of a symbol has the variance of a sample's when the pulse has unit energy.
    symbols = symbols / SAMPLES_PER_SYMBOL**0.5
    guard = receiver.guard_symbols
    return symbols[:, guard : num_samples // SAMPLES_PER_SYMBOL - guard]


def _power(iq: Tensor) -> Tensor:
    return torch.view_as_real(iq).square().sum(-1).mean(1)


def _unit_power(symbols: Tensor) -> tuple[Tensor, Tensor]:
    """Symbols of unit mean power in each frame, and the power that they had."""
    power = _power(symbols).clamp_min(1e-12)
    return symbols / power.sqrt()[:, None], power


def out_of_band_power(iq: Tensor) -> Tensor:
    """Noise variance per complex sample, float32 [B], from the frequencies that no signal reaches."""
    return _power(out_of_band(iq)).clamp_min(1e-12)


def out_of_band(iq: Tensor) -> Tensor:
    """Noise beside the signal, white noise at the power that it has; complex64 [B, num_samples - 96].

    A long filter, of which only what whole stretches of the frame give is kept: a window or a
    frame's ends would let a millionth of the signal through, as much as all noise at 60 dB. Its first
    sample belongs to the frame's sample 48.
    """
    taps = _high_pass_taps(iq.device)
    spectrum = torch.fft.fft(iq) * torch.fft.fft(taps, iq.shape[1])
    return torch.fft.ifft(spectrum)[:, _NUM_HIGH_PASS_TAPS - 1 :]


@cache
def _high_pass_taps(device: torch.device) -> Tensor:
    taps = scipy.signal.firwin(
        _NUM_HIGH_PASS_TAPS, 2 * _HIGH_PASS_EDGE, window=("kaiser", 9.0), pass_zero=False
    )
    return torch.from_numpy(taps / (taps**2).sum() ** 0.5).to(torch.float32).to(device)


def estimate_timing(
    iq: Tensor, ratio: Tensor, receiver: ReceiverSettings = DEFAULT_RECEIVER
) -> tuple[Tensor, Tensor]:
    """Roll-off and position of the first symbol's peak in samples, in [0, 8); float32 [B] each.

    Where the excess band is shared, the spectrum Y holds every frequency f of the symbols twice, at f
    and f - 1 (in symbol rates), weighted with the pulse H. With D = H(f)^2 + H(f-1)^2 + N0 / Es, the
    likelihood of an instant t is sum |H Y|^2 / D + 2 Re exp(j 2 pi t) sum H(f) H(f-1) Y(f) conj Y(f-1)
    / D but for what does not depend on it: its maximum has a closed form, and over the roll-off a
    short list.
    """
    num_symbols = iq.shape[1] // SAMPLES_PER_SYMBOL
    spectrum = torch.fft.fft(iq * _taper(iq.shape[1], iq.device))
    upper, lower = spectrum[:, :num_symbols], spectrum[:, -num_symbols:]
    own, alias, rolloffs = _timing_pulses(num_symbols, receiver, iq.device)
    product = upper * lower.conj()
    if len(rolloffs) == 1:
        weight = own * alias / (own.square() + alias.square() + ratio[:, None])
        cross, rolloff = (product * weight).sum(1), rolloffs.expand(len(iq))
    else:
        # The sum of squares is 1 at every frequency, so noise changes no maximum.
        power_weight = torch.cat([own, alias], 1).square().T
        power = torch.cat([upper, lower], 1).abs().square() @ power_weight
        cross = torch.view_as_real(product).transpose(1, 2) @ (own * alias).T
        cross = torch.complex(cross[:, 0], cross[:, 1])
        best = (power + 2 * cross.abs()).argmax(1, keepdim=True)
        cross, rolloff = cross.gather(1, best)[:, 0], rolloffs[best[:, 0]]
    return rolloff, (-cross.angle() / (2 * torch.pi) % 1.0) * SAMPLES_PER_SYMBOL


@cache
def _taper(num_samples: int, device: torch.device) -> Tensor:
    """Window that falls to zero over a twentieth of the frame at either end."""
    from_end = torch.arange(num_samples, device=device) + 0.5
    from_end = torch.minimum(from_end, num_samples - from_end) / (num_samples / 20)
    return (0.5 - 0.5 * torch.cos(torch.pi * from_end.clamp(max=1))).float()


@cache
def _timing_pulses(
    num_symbols: int, receiver: ReceiverSettings, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Pulse at frequencies 0 to 1, and at -1 to 0, [roll-offs, num_symbols]; and the roll-offs."""
    upper = torch.arange(num_symbols, device=device) / num_symbols
    rolloffs = torch.tensor(receiver.rolloffs, device=device)
    own, alias = _pulse_and_alias(upper, rolloffs[:, None], receiver)
    return own, alias, rolloffs


@cache
def _square_waves(num_samples: int, receiver: ReceiverSettings, device: torch.device) -> Tensor:
    """Conjugate lines of a squared signal at half the sample rate, [num_samples / 2, 2 * offsets]."""
    instants = 2.0 * torch.arange(num_samples // 2, device=device) - num_samples / 2
    sides = torch.tensor([1.0, -1.0], device=device)[:, None] / SAMPLES_PER_SYMBOL
    frequency = (2 * cfo_grid(receiver, device) + sides).flatten()
    return unit_phasor(-2 * torch.pi * instants[:, None] * frequency)

"""Blind timing: from the samples of a frame to its symbols.

What a receiver for such signals knows is known here: 8 samples per symbol, root-raised-cosine pulses
with roll-offs from 0.1 to 0.4, carrier offsets up to 3.75e-4 cycles per sample. Timing and roll-off
are those under which a Gaussian signal of that bandwidth is likeliest, so no step knows the
modulation; only OQPSK, whose two parts change half a symbol apart, needs its own. Where there is
nothing to find, as below the noise, something is found at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from amc_utils.signals import SAMPLES_PER_SYMBOL, raised_cosine, unit_phasor

# Roll-offs that are tried, and the one that stands for all where none is estimated.
MEAN_ROLLOFF = 0.25
ROLLOFFS = tuple(round(0.1 + 0.025 * step, 3) for step in range(13))
# Beyond this distance from the carrier, in symbol rates, there is noise alone.
BAND_EDGE = 0.7
# Symbols at each end that lie in the transient of the matched filter and are left out.
GUARD_SYMBOLS = 2
# Carrier offsets that are tried, in cycles per sample: 3.75 standard deviations of the channel of
# record to each side, in steps that turn the ends of a frame by less than three degrees.
MAX_CFO = 3.75e-4
NUM_CFOS = 49


@dataclass(frozen=True)
class Synchronised:
    """Symbols of a batch of frames after timing recovery, before carrier recovery.

    Attributes:
        symbols: complex64 [B, K], unit mean power.
        rolloff: float32 [B].
        timing: float32 [B], position of the first symbol's peak in samples, in [0, 8).
        noise_power: float32 [B], noise variance per complex symbol, in units of the mean power.
    """

    symbols: Tensor
    rolloff: Tensor
    timing: Tensor
    noise_power: Tensor


def synchronise(iq: Tensor) -> Synchronised:
    """Symbols at the instants of greatest likelihood, through the matched filter.

    Args:
        iq: complex64 [B, num_samples], 8 samples per symbol.
    """
    rolloff, timing = estimate_timing(iq)
    symbols = _at_symbols(_matched_spectrum(iq, rolloff), timing, iq.shape[1])
    power = torch.view_as_real(symbols).square().sum(-1).mean(1).clamp_min(1e-12)
    symbols = symbols / power.sqrt()[:, None]
    return Synchronised(symbols, rolloff, timing, out_of_band_power(iq) / power)


def offset_lines(iq: Tensor) -> Tensor:
    """Lines that the square of OQPSK has at twice the carrier offset plus and minus the symbol rate.

    Args:
        iq: complex64 [B, num_samples], 8 samples per symbol.

    Returns:
        complex64 [B, 2, NUM_CFOS], in units of the power, so at most one; their phases are those at
        the middle of the frame.
    """
    spectrum = _filtered(iq)
    # A quarter of the spectrum at either end holds the signal; what is left runs at half the rate.
    quarter = spectrum.shape[1] // 4
    slow = torch.fft.ifft(torch.cat([spectrum[:, :quarter], spectrum[:, -quarter:]], 1))
    square = slow[:, : iq.shape[1] // 2].square()
    power = square.abs().sum(1).clamp_min(1e-12)
    lines = square @ _square_waves(iq.shape[1], iq.device) / power[:, None]
    return lines.unflatten(1, (2, NUM_CFOS))


def synchronise_offset(iq: Tensor) -> Tensor:
    """Symbols as those of OQPSK, the quadrature part half a symbol late; complex64 [B, K].

    The mean of the phases of the two lines is twice the carrier's, half their difference the timing's.
    The offset is the one under which the two are strongest. Symbols have the scale of unit noise
    energy per sample and are known up to quarter turns; those of any other modulation come out as a
    smear.

    Args:
        iq: complex64 [B, num_samples], 8 samples per symbol.
    """
    num_samples, device = iq.shape[1], iq.device
    upper, lower = offset_lines(iq).unbind(1)
    best = (upper.abs() + lower.abs()).argmax(1, keepdim=True)
    upper, lower = (side.gather(1, best)[:, 0].angle() for side in (upper, lower))
    cfo = cfo_grid(device)[best[:, 0]]
    phase = (upper + lower) / 4
    # Phases and timing are those at the middle of the frame.
    timing = (lower - upper) / (4 * torch.pi) * SAMPLES_PER_SYMBOL + num_samples / 2
    spectrum, parts = _filtered(iq), []
    for late in (0.0, SAMPLES_PER_SYMBOL / 2):
        first = (timing + late) % SAMPLES_PER_SYMBOL
        start = first + GUARD_SYMBOLS * SAMPLES_PER_SYMBOL - num_samples / 2
        symbols = _at_symbols(spectrum, first, num_samples)
        instants = start[:, None] + SAMPLES_PER_SYMBOL * torch.arange(symbols.shape[1], device=device)
        parts.append(symbols * unit_phasor(-2 * torch.pi * cfo[:, None] * instants - phase[:, None]))
    return torch.complex(parts[0].real, parts[1].imag)


def cfo_grid(device: torch.device) -> Tensor:
    """Carrier offsets that are tried, in cycles per sample, float32 [NUM_CFOS]."""
    return torch.linspace(-MAX_CFO, MAX_CFO, NUM_CFOS, device=device)


def _filtered(iq: Tensor) -> Tensor:
    """Spectrum after the matched filter of mean roll-off, for where none is estimated."""
    return _matched_spectrum(iq, torch.full((len(iq),), MEAN_ROLLOFF, device=iq.device))


def _matched_spectrum(iq: Tensor, rolloff: Tensor) -> Tensor:
    """Spectrum after the matched filter, zeros appended to keep the two ends of a frame apart."""
    length = iq.shape[1] + 2 * SAMPLES_PER_SYMBOL**2
    frequency = torch.fft.fftfreq(length, 1 / SAMPLES_PER_SYMBOL, device=iq.device)
    response = raised_cosine(frequency, rolloff[:, None]).sqrt()
    return torch.fft.fft(iq, length) * response


def _at_symbols(spectrum: Tensor, timing: Tensor, num_samples: int) -> Tensor:
    """Signal of a matched spectrum once per symbol from `timing` on (samples), complex64 [B, K]."""
    frequency = torch.fft.fftfreq(spectrum.shape[1], 1 / SAMPLES_PER_SYMBOL, device=spectrum.device)
    turned = spectrum * unit_phasor(2 * torch.pi * frequency * (timing / SAMPLES_PER_SYMBOL)[:, None])
    # Sampling once per symbol folds the spectrum.
    symbols = torch.fft.ifft(turned.unflatten(1, (SAMPLES_PER_SYMBOL, -1)).sum(1))
    # The noise of a symbol has the variance of a sample's when the pulse has unit energy.
    symbols = symbols / SAMPLES_PER_SYMBOL**0.5
    return symbols[:, GUARD_SYMBOLS : num_samples // SAMPLES_PER_SYMBOL - GUARD_SYMBOLS]


def out_of_band_power(iq: Tensor) -> Tensor:
    """Noise variance per complex sample, float32 [B], from the frequencies that no signal reaches."""
    taper = _taper(iq.shape[1], iq.device)
    frequency = torch.fft.fftfreq(iq.shape[1], 1 / SAMPLES_PER_SYMBOL, device=iq.device)
    outside = torch.fft.fft(iq * taper)[:, frequency.abs() > BAND_EDGE]
    power = torch.view_as_real(outside).square().sum(-1).mean(1) / taper.square().sum()
    return power.clamp_min(1e-12)


def estimate_timing(iq: Tensor) -> tuple[Tensor, Tensor]:
    """Roll-off and position of the first symbol's peak in samples, in [0, 8); float32 [B] each.

    Where the excess band is shared, the spectrum Y holds every frequency f of the symbols twice, at f
    and f - 1 (in symbol rates), weighted with the pulse. The energy of the matched filter's output at
    the symbol instants is therefore sum |H Y|^2 + 2 Re exp(j 2 pi t) sum H(f) H(f-1) Y(f) conj Y(f-1):
    its maximum over the instant t has a closed form, and over the roll-off a short list.
    """
    num_symbols = iq.shape[1] // SAMPLES_PER_SYMBOL
    spectrum = torch.fft.fft(iq * _taper(iq.shape[1], iq.device))
    upper, lower = spectrum[:, :num_symbols], spectrum[:, -num_symbols:]
    power_weight, cross_weight = _timing_weights(num_symbols, iq.device)
    power = torch.cat([upper, lower], 1).abs().square() @ power_weight
    cross = torch.view_as_real(upper * lower.conj()).transpose(1, 2) @ cross_weight
    cross = torch.complex(cross[:, 0], cross[:, 1])
    best = (power + 2 * cross.abs()).argmax(1, keepdim=True)
    turns = -cross.gather(1, best)[:, 0].angle() / (2 * torch.pi)
    rolloffs = torch.tensor(ROLLOFFS, device=iq.device)
    return rolloffs[best[:, 0]], (turns % 1.0) * SAMPLES_PER_SYMBOL


@cache
def _taper(num_samples: int, device: torch.device) -> Tensor:
    """Window that falls to zero over a twentieth of the frame at either end."""
    from_end = torch.arange(num_samples, device=device) + 0.5
    from_end = torch.minimum(from_end, num_samples - from_end) / (num_samples / 20)
    return (0.5 - 0.5 * torch.cos(torch.pi * from_end.clamp(max=1))).float()


@cache
def _timing_weights(num_symbols: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """|H|^2 at frequencies 0 to 1 and -1 to 0, and H(f) H(f - 1), one column a roll-off."""
    upper = torch.arange(num_symbols, device=device) / num_symbols
    columns = torch.tensor(ROLLOFFS, device=device)
    above, below = (raised_cosine(f[:, None], columns) for f in (upper, upper - 1))
    return torch.cat([above, below]), (above * below).sqrt()


@cache
def _square_waves(num_samples: int, device: torch.device) -> Tensor:
    """Conjugate lines of a squared signal at half the sample rate, [num_samples / 2, 2 * offsets]."""
    instants = 2.0 * torch.arange(num_samples // 2, device=device) - num_samples / 2
    sides = torch.tensor([1.0, -1.0], device=device)[:, None] / SAMPLES_PER_SYMBOL
    frequency = (2 * cfo_grid(device) + sides).flatten()
    return unit_phasor(-2 * torch.pi * instants[:, None] * frequency)

"""Blind synchronisation: from the samples of a frame to its symbols, knowing no more than 8 per symbol.

No step knows the modulation. Timing and roll-off are those of a Gaussian signal of greatest
likelihood; the carrier offset is the one under which symbols of like magnitude meet at like angles; the
phase is the one under which in-phase and quadrature parts gather on the fewest values. What is not
there (the timing line of OQPSK, any carrier below the noise) is estimated all the same, at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from amc_utils.signals import SAMPLES_PER_SYMBOL, raised_cosine

# Roll-offs that are tried; their spacing costs less than 0.01 dB of matched-filter output.
ROLLOFFS = tuple(round(0.1 + 0.025 * step, 3) for step in range(13))
# Beyond this distance from the carrier, in symbol rates, there is noise alone.
BAND_EDGE = 0.7
# Symbols at each end that lie in the transient of the matched filter and are left out.
GUARD_SYMBOLS = 2
# Carrier offsets that are tried, in cycles per sample: three standard deviations of the channel of
# record to each side, in steps that turn the ends of a frame by less than three degrees.
MAX_CFO = 3.75e-4
_NUM_CFOS = 49
# Magnitude rings of the carrier search, in units of the root mean square, and bins of a quarter turn.
_RING_WIDTH, _NUM_RINGS, _NUM_ANGLES, _NUM_HARMONICS = 0.2, 11, 64, 16
# Phases of a quarter turn, and bins of the magnitude of a symbol's parts, that the phase search tries.
_NUM_PHASES, _NUM_BINS, _LARGEST_PART = 64, 64, 1.8
# Rotational symmetries whose line the symbols are aligned with: two, and the multiples of four.
_SYMMETRIES = (2, 4, 8, 12, 16, 20, 24, 28, 32)


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
    num_symbols = iq.shape[1] // SAMPLES_PER_SYMBOL
    # Zeros behind the frame keep its two ends from mixing.
    length = iq.shape[1] + 2 * SAMPLES_PER_SYMBOL * SAMPLES_PER_SYMBOL
    frequency = torch.fft.fftfreq(length, 1 / SAMPLES_PER_SYMBOL, device=iq.device)
    response = raised_cosine(frequency, rolloff[:, None]).sqrt()
    turn = 2 * torch.pi * frequency * (timing / SAMPLES_PER_SYMBOL)[:, None]
    shaped = torch.fft.fft(iq, length) * torch.polar(response, turn)
    folded = shaped.view(len(iq), SAMPLES_PER_SYMBOL, -1).sum(1)
    symbols = torch.fft.ifft(folded)[:, GUARD_SYMBOLS : num_symbols - GUARD_SYMBOLS]
    # The noise of a symbol has the variance of a sample's when the pulse has unit energy.
    symbols = symbols / SAMPLES_PER_SYMBOL**0.5
    power = torch.view_as_real(symbols).square().sum(-1).mean(1).clamp_min(1e-12)
    symbols = symbols / power.sqrt()[:, None]
    return Synchronised(symbols, rolloff, timing, out_of_band_power(iq) / power)


def out_of_band_power(iq: Tensor) -> Tensor:
    """Noise variance per complex sample, float32 [B], from the frequencies that no signal reaches."""
    taper = _taper(iq.shape[1], iq.device)
    frequency = torch.fft.fftfreq(iq.shape[1], 1 / SAMPLES_PER_SYMBOL, device=iq.device)
    outside = torch.fft.fft(iq * taper)[:, frequency.abs() > BAND_EDGE]
    return torch.view_as_real(outside).square().sum(-1).mean(1) / taper.square().sum()


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


def estimate_cfo(synchronised: Synchronised) -> Tensor:
    """Carrier offset in cycles per sample, float32 [B]: symbols of like magnitude meet at like angles.

    Symbols are counted by magnitude ring and by angle modulo a quarter turn, for every offset that is
    tried. The score is the energy of the count's variation along the angle, its fine structure
    weighted down as far as the noise has washed it out.
    """
    symbols, device = synchronised.symbols, synchronised.symbols.device
    cfos = torch.linspace(-MAX_CFO, MAX_CFO, _NUM_CFOS, device=device)
    ring = (symbols.abs() / _RING_WIDTH).long().clamp_(max=_NUM_RINGS - 1)
    # In quarter turns, of which the fraction counts.
    drift = 4 * SAMPLES_PER_SYMBOL * cfos[:, None] * _centred(symbols.shape[1], device)
    quarter = symbols.angle()[:, None] * (2 / torch.pi) - drift
    angle = quarter.sub_(quarter.floor()).mul_(_NUM_ANGLES).long().clamp_(max=_NUM_ANGLES - 1)
    place = angle.add_(ring[:, None] * _NUM_ANGLES)
    table = torch.zeros(len(symbols), _NUM_CFOS, _NUM_RINGS * _NUM_ANGLES, device=device)
    table.scatter_add_(2, place, torch.ones((), device=device).expand(place.shape))
    waves, order = _angle_waves(device)
    energy = (table.view(*table.shape[:2], _NUM_RINGS, -1) @ waves).square().sum(2)
    weight = torch.exp(-synchronised.noise_power[:, None] / 2 * order.square())
    return cfos[torch.einsum("bwn,bn->bw", energy, weight).argmax(1)]


def estimate_phase(symbols: Tensor) -> Tensor:
    """Phase in radians, float32 [B], in [0, pi / 2): parts gather on the fewest values.

    Args:
        symbols: complex64 [B, K], unit mean power, without carrier offset.
    """
    phases = torch.arange(_NUM_PHASES, device=symbols.device) * (torch.pi / 2 / _NUM_PHASES)
    cosine, sine = phases.cos()[:, None], phases.sin()[:, None]
    real, imag = symbols.real[:, None], symbols.imag[:, None]
    parts = torch.cat([real * cosine + imag * sine, imag * cosine - real * sine], 2).abs_()
    place = parts.mul_(_NUM_BINS / _LARGEST_PART).long().clamp_(max=_NUM_BINS - 1)
    counts = torch.zeros(len(symbols), _NUM_PHASES, _NUM_BINS, device=symbols.device)
    counts.scatter_add_(2, place, torch.ones((), device=symbols.device).expand(place.shape))
    smooth = torch.nn.functional.avg_pool1d(counts, 3, 1, 1)
    return phases[smooth.square().sum(2).argmax(1)]


def recover_carrier(synchronised: Synchronised) -> Tensor:
    """Symbols without carrier offset and phase, complex64 [B, K], up to quarter turns."""
    symbols = _derotate(synchronised.symbols, estimate_cfo(synchronised))
    return symbols * _phasor(-estimate_phase(symbols))[:, None]


def align_with_line(synchronised: Synchronised) -> Tensor:
    """Symbols turned so that their strongest power line stands at frequency and phase zero.

    Raising the angles to the m-th multiple turns a constellation of m-fold symmetry into a spectral
    line at m times the carrier offset. Of all symmetries and offsets that are tried the strongest line
    is taken; complex64 [B, K], up to turns by 1/m.
    """
    symbols = synchronised.symbols
    cfos = torch.linspace(-MAX_CFO, MAX_CFO, _NUM_CFOS, device=symbols.device)
    waves, orders = _line_waves(symbols.shape[1], symbols.device)
    fourth = (symbols / symbols.abs().clamp_min(1e-12)).square()
    raised = [symbols.abs().square() * fourth]
    fourth = fourth.square()
    raised.append(symbols.abs().square() * fourth)
    while len(raised) < len(_SYMMETRIES):
        raised.append(raised[-1] * fourth)
    lines = torch.einsum("bmk,mkw->bmw", torch.stack(raised, 1), waves).flatten(1)
    # All symmetries have the same weights, hence the same noise, and compare as they are.
    best = lines.abs().argmax(1)
    order = orders[best // _NUM_CFOS]
    phase = lines.gather(1, best[:, None])[:, 0].angle() / order
    return _derotate(symbols, cfos[best % _NUM_CFOS]) * _phasor(-phase)[:, None]


def _derotate(symbols: Tensor, cfo: Tensor) -> Tensor:
    turn = 2 * torch.pi * SAMPLES_PER_SYMBOL * cfo[:, None]
    return symbols * _phasor(-turn * _centred(symbols.shape[1], symbols.device))


def _phasor(angle_rad: Tensor) -> Tensor:
    return torch.polar(torch.ones_like(angle_rad), angle_rad)


def _centred(num_symbols: int, device: torch.device) -> Tensor:
    """Symbol numbers with their mean at zero: a wrong offset then leaves the phase as it is."""
    return torch.arange(num_symbols, device=device) - (num_symbols - 1) / 2


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
def _angle_waves(device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines over the bins of a quarter turn, and the symmetry order of each."""
    number = torch.arange(1, _NUM_HARMONICS + 1, device=device)
    angle = torch.outer(torch.arange(_NUM_ANGLES, device=device), number) * (2 * torch.pi / _NUM_ANGLES)
    return torch.cat([angle.cos(), angle.sin()], 1), 4.0 * torch.cat([number, number])


@cache
def _line_waves(num_symbols: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Conjugate carriers [symmetries, K, offsets] at each multiple of each offset; the symmetries."""
    orders = torch.tensor(_SYMMETRIES, device=device, dtype=torch.float32)
    cfos = torch.linspace(-MAX_CFO, MAX_CFO, _NUM_CFOS, device=device)
    turns = orders[:, None, None] * _centred(num_symbols, device)[:, None] * cfos
    return _phasor(-2 * torch.pi * SAMPLES_PER_SYMBOL * turns), orders

"""Blind carrier recovery: offset and phase of symbols of an unknown modulation.

The offset is the one under which symbols of like magnitude meet at like angles; the phase the one under
which in-phase and quadrature parts gather on the fewest values. Below the noise they are found at
random. Power lines show offset and symmetry at once, and at lower SNR.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from amc_utils.dsp.receiver_settings import DEFAULT_RECEIVER, ReceiverSettings
from amc_utils.signals import SAMPLES_PER_SYMBOL, unit_phasor

# Carrier offsets that are tried; on a grid of 3.75e-4 to each side, neighbours turn the ends of a frame
# by less than three degrees.
NUM_CFOS = 49
# Of the carrier search: cycles per sample from one offset to the next, magnitude rings in units of the
# root mean square, bins of a quarter turn and the harmonics of their counts.
_CFO_STEP, _RING_WIDTH, _NUM_RINGS, _NUM_ANGLES, _NUM_HARMONICS = 1.5625e-5, 0.2, 8, 64, 16
# Of the phase search, which tries as many phases as there are angles: magnitude rings up to the largest
# that is told apart, waves over the magnitude of a symbol's parts, harmonics of a quarter turn.
_NUM_FINE_RINGS, _LARGEST, _NUM_PART_WAVES, _NUM_PHASE_HARMONICS = 40, 1.6, 28, 20
# Width of the box that smooths the density of the parts, and how far from its zero the waves are even.
_SMOOTHING, _MARGIN = 0.084, 0.05
# Integer angles: so many bits to a quarter turn, of which the upper six are the number of the bin.
_ANGLE_BITS, _FRACTION_BITS = 20, 14
# Rotational symmetries that have a line: two, and the multiples of four.
SYMMETRIES = (2, 4, 8, 12, 16, 20, 24, 28, 32)


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


def squared_magnitude(z: Tensor) -> Tensor:
    """|z|^2, float32 shaped like `z`."""
    # Faster by far than the magnitude, or a sum over an axis of two.
    squares = torch.view_as_real(z).square()
    return squares[..., 0] + squares[..., 1]


@cache
def cfo_grid(receiver: ReceiverSettings, device: torch.device) -> Tensor:
    """Carrier offsets that are tried, in cycles per sample, float32 [NUM_CFOS]."""
    return torch.linspace(-receiver.max_cfo, receiver.max_cfo, NUM_CFOS, device=device)


def estimate_cfo(synchronised: Synchronised) -> Tensor:
    """Carrier offset in cycles per sample, float32 [B]: symbols of like magnitude meet at like angles.

    Symbols are counted by magnitude ring and by angle modulo a quarter turn, for every offset that is
    tried. The score is the energy of the count's variation along the angle, its fine structure
    weighted down as far as the noise has washed it out; its logarithm is interpolated by a parabola.
    """
    symbols, receiver = synchronised.symbols, synchronised.receiver
    drift = _drifts(symbols.shape[1], receiver, symbols.device)
    series = torch.fft.rfft(_counts(symbols, _NUM_RINGS, _RING_WIDTH, drift))
    energy = squared_magnitude(series[..., 1 : _NUM_HARMONICS + 1]).sum(2)
    order = 4 * torch.arange(1, _NUM_HARMONICS + 1, device=symbols.device)
    weight = torch.exp(-synchronised.noise_power[:, None] / 2 * order.square())
    score = (energy @ weight[:, :, None])[:, :, 0].clamp_min(1e-12).log()
    top = score.argmax(1, keepdim=True).clamp(1, len(drift) - 2)
    left, middle, right = score.gather(1, torch.cat([top - 1, top, top + 1], 1)).unbind(1)
    # At an end of the range the maximum may lie beside the middle one of the three.
    curvature = (left - 2 * middle + right).clamp(max=-1e-9)
    shift = ((left - right) / (2 * curvature)).clamp(-1, 1)
    return (top[:, 0] + shift) * (2 * receiver.max_cfo / (len(drift) - 1)) - receiver.max_cfo


def estimate_phase(symbols: Tensor) -> Tensor:
    """Phase in radians, float32 [B], in [0, pi / 2): parts gather on the fewest values.

    The score is the energy, above its mean, of the smoothed density of the magnitudes of in-phase and
    quadrature parts. A symbol adds to each wave of that density what depends on its magnitude and,
    periodically, on its angle less the phase. So the waves at all phases are a circular correlation of
    counts by magnitude and angle, and take two Fourier transforms.

    Args:
        symbols: complex64 [B, K], unit mean power, without carrier offset.
    """
    counts = _counts(symbols, _NUM_FINE_RINGS, _LARGEST / _NUM_FINE_RINGS)
    series = torch.fft.rfft(counts[:, 0])
    response = _part_waves(symbols.device)
    # For every harmonic a matrix product, [2 B, rings] by [rings, waves].
    rings = torch.view_as_real(series[..., : len(response)]).permute(2, 0, 3, 1)
    waves = torch.complex(*(rings.flatten(1, 2) @ response).unflatten(1, (-1, 2)).unbind(2))
    score = torch.fft.irfft(waves.permute(1, 2, 0), _NUM_ANGLES).square().sum(1)
    # An angle lies half a bin, in the mean, beyond the beginning of its own.
    return (score.argmax(1) + 0.5) * (torch.pi / 2 / _NUM_ANGLES)


def _counts(symbols: Tensor, num_rings: int, width: float, drift: Tensor | int = 0) -> Tensor:
    """Symbols by magnitude ring, the last one open, and angle, float32 [B, W, rings, angles].

    For each `drift`, int32 [W, K], that is taken from the angles, in units of 2^-20 of a quarter turn.
    """
    angle = (symbols.angle() * (2 / torch.pi * 2**_ANGLE_BITS)).to(torch.int32)[:, None] - drift
    ring = (symbols.abs() * (1 / width)).to(torch.int32).clamp_(0, num_rings - 1)[:, None]
    first = torch.arange(angle.shape[1], dtype=torch.int32, device=symbols.device)[:, None]
    place = ((angle & (2**_ANGLE_BITS - 1)) >> _FRACTION_BITS) + ring * _NUM_ANGLES
    place = (place + first * (num_rings * _NUM_ANGLES)).flatten(1).to(torch.int64)
    counts = torch.zeros(place.shape[0], len(first) * num_rings * _NUM_ANGLES, device=place.device)
    counts.scatter_add_(1, place, torch.ones(place.shape, device=place.device))
    return counts.view(-1, len(first), num_rings, _NUM_ANGLES)


def recover_carrier(synchronised: Synchronised) -> Tensor:
    """Symbols without carrier offset and phase, complex64 [B, K], up to quarter turns."""
    symbols = _derotate(synchronised.symbols, estimate_cfo(synchronised))
    return symbols * unit_phasor(-estimate_phase(symbols))[:, None]


def power_lines(synchronised: Synchronised) -> Tensor:
    """Spectral lines of powers of the symbols, complex64 [B, symmetries, NUM_CFOS].

    Raising the angles to the m-th multiple turns a constellation of m-fold symmetry into a line at m
    times the carrier offset. In units of the noise that unrelated angles leave, so at most sqrt(K).
    """
    symbols = synchronised.symbols
    power = squared_magnitude(symbols)
    square = symbols.square() / power.clamp_min(1e-24)
    fourth = square.square()
    # All symmetries have the same weights, hence the same noise, and compare as they are.
    weight = power / power.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)
    raised = [weight * square, weight * fourth]
    while len(raised) < len(SYMMETRIES):
        raised.append(raised[-1] * fourth)
    waves = _line_waves(symbols.shape[1], synchronised.receiver, symbols.device)
    return (torch.stack(raised) @ waves).transpose(0, 1)


def _derotate(symbols: Tensor, cfo: Tensor) -> Tensor:
    turn = 2 * torch.pi * SAMPLES_PER_SYMBOL * cfo[:, None]
    return symbols * unit_phasor(-turn * _centred(symbols.shape[1], symbols.device))


def _centred(num_symbols: int, device: torch.device) -> Tensor:
    """Symbol numbers with their mean at zero: a wrong offset then leaves the phase as it is."""
    return torch.arange(num_symbols, device=device) - (num_symbols - 1) / 2


@cache
def _drifts(num_symbols: int, receiver: ReceiverSettings, device: torch.device) -> Tensor:
    """Angles by which each offset that is tried turns the symbols, see _counts, int32 [W, K]."""
    number = 1 + round(2 * receiver.max_cfo / _CFO_STEP)
    cfos = torch.linspace(-receiver.max_cfo, receiver.max_cfo, number, device=device)
    turn = 4 * SAMPLES_PER_SYMBOL * cfos[:, None] * _centred(num_symbols, device)
    return (turn * 2**_ANGLE_BITS).to(torch.int32)


@cache
def _part_waves(device: torch.device) -> Tensor:
    """Harmonics over the angle of what a symbol of a ring adds, float32 [harmonics, rings, waves]."""
    radius = (torch.arange(_NUM_FINE_RINGS) + 0.5) * (_LARGEST / _NUM_FINE_RINGS)
    angle = torch.arange(8 * _NUM_ANGLES) * (torch.pi / 2 / (8 * _NUM_ANGLES))
    parts = radius[:, None, None, None] * torch.stack([angle.cos(), angle.sin()])[..., None]
    cycles = torch.arange(1, _NUM_PART_WAVES + 1) / (2 * (_LARGEST + _MARGIN))
    added = torch.cos(2 * torch.pi * cycles * (parts + _MARGIN)).sum(1)
    # A box, and bins of a third of it.
    weight = torch.sinc(cycles * _SMOOTHING) * torch.sinc(cycles * (_SMOOTHING / 3)) / 8
    series = torch.fft.rfft(added * weight, dim=1).real[:, : _NUM_PHASE_HARMONICS + 1]
    return series.transpose(0, 1).contiguous().to(device)


@cache
def _line_waves(num_symbols: int, receiver: ReceiverSettings, device: torch.device) -> Tensor:
    """Conjugate carriers at each multiple of each offset, [symmetries, K, offsets]."""
    orders = torch.tensor(SYMMETRIES, device=device, dtype=torch.float32)
    turns = orders[:, None, None] * _centred(num_symbols, device)[:, None] * cfo_grid(receiver, device)
    return unit_phasor(-2 * torch.pi * SAMPLES_PER_SYMBOL * turns)

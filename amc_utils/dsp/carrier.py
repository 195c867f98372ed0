"""Blind carrier recovery: offset and phase of symbols of an unknown modulation.

The offset is the one under which symbols of like magnitude meet at like angles; the phase the one under
which in-phase and quadrature parts gather on the fewest values. Below the noise they are found at
random. Power lines show offset and symmetry at once, and at lower SNR.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from amc_utils.dsp.receiver_settings import ReceiverSettings
from amc_utils.dsp.synchronisation import NUM_CFOS, Synchronised, cfo_grid
from amc_utils.signals import SAMPLES_PER_SYMBOL, unit_phasor

# Magnitude rings of the carrier search, in units of the root mean square, and bins of a quarter turn.
_RING_WIDTH, _NUM_RINGS, _NUM_ANGLES, _NUM_HARMONICS = 0.2, 11, 64, 16
# Phases of a quarter turn, and bins of the magnitude of a symbol's parts, that the phase search tries.
_NUM_PHASES, _NUM_BINS, _LARGEST_PART = 64, 64, 1.8
# Rotational symmetries that have a line: two, and the multiples of four.
SYMMETRIES = (2, 4, 8, 12, 16, 20, 24, 28, 32)


def estimate_cfo(synchronised: Synchronised) -> Tensor:
    """Carrier offset in cycles per sample, float32 [B]: symbols of like magnitude meet at like angles.

    Symbols are counted by magnitude ring and by angle modulo a quarter turn, for every offset that is
    tried. The score is the energy of the count's variation along the angle, its fine structure
    weighted down as far as the noise has washed it out.
    """
    symbols, device = synchronised.symbols, synchronised.symbols.device
    cfos = cfo_grid(synchronised.receiver, device)
    ring = (symbols.abs() / _RING_WIDTH).long().clamp_(0, _NUM_RINGS - 1)
    # In quarter turns, of which the fraction counts.
    drift = 4 * SAMPLES_PER_SYMBOL * cfos[:, None] * _centred(symbols.shape[1], device)
    quarter = symbols.angle()[:, None] * (2 / torch.pi) - drift
    angle = quarter.sub_(quarter.floor()).mul_(_NUM_ANGLES).long().clamp_(0, _NUM_ANGLES - 1)
    place = angle.add_(ring[:, None] * _NUM_ANGLES)
    table = torch.zeros(len(symbols), NUM_CFOS, _NUM_RINGS * _NUM_ANGLES, device=device)
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
    place = parts.mul_(_NUM_BINS / _LARGEST_PART).long().clamp_(0, _NUM_BINS - 1)
    counts = torch.zeros(len(symbols), _NUM_PHASES, _NUM_BINS, device=symbols.device)
    counts.scatter_add_(2, place, torch.ones((), device=symbols.device).expand(place.shape))
    smooth = torch.nn.functional.avg_pool1d(counts, 3, 1, 1)
    return phases[smooth.square().sum(2).argmax(1)]


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
    power = symbols.abs().square()
    square = (symbols / symbols.abs().clamp_min(1e-12)).square()
    fourth = square.square()
    # All symmetries have the same weights, hence the same noise, and compare as they are.
    raised = [power * square, power * fourth]
    while len(raised) < len(SYMMETRIES):
        raised.append(raised[-1] * fourth)
    waves = _line_waves(symbols.shape[1], synchronised.receiver, symbols.device)
    noise = power.square().sum(1).sqrt().clamp_min(1e-12)
    return torch.einsum("bmk,mkw->bmw", torch.stack(raised, 1), waves) / noise[:, None, None]


def _derotate(symbols: Tensor, cfo: Tensor) -> Tensor:
    turn = 2 * torch.pi * SAMPLES_PER_SYMBOL * cfo[:, None]
    return symbols * unit_phasor(-turn * _centred(symbols.shape[1], symbols.device))


def _centred(num_symbols: int, device: torch.device) -> Tensor:
    """Symbol numbers with their mean at zero: a wrong offset then leaves the phase as it is."""
    return torch.arange(num_symbols, device=device) - (num_symbols - 1) / 2


@cache
def _angle_waves(device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines over the bins of a quarter turn, and the symmetry order of each."""
    number = torch.arange(1, _NUM_HARMONICS + 1, device=device)
    angle = torch.outer(torch.arange(_NUM_ANGLES, device=device), number) * (2 * torch.pi / _NUM_ANGLES)
    return torch.cat([angle.cos(), angle.sin()], 1), 4.0 * torch.cat([number, number])


@cache
def _line_waves(num_symbols: int, receiver: ReceiverSettings, device: torch.device) -> Tensor:
    """Conjugate carriers at each multiple of each offset, [symmetries, K, offsets]."""
    orders = torch.tensor(SYMMETRIES, device=device, dtype=torch.float32)
    turns = orders[:, None, None] * _centred(num_symbols, device)[:, None] * cfo_grid(receiver, device)
    return unit_phasor(-2 * torch.pi * SAMPLES_PER_SYMBOL * turns)

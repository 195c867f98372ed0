"""A likelihood receiver without a genie: it estimates what that of amc_utils.baselines.bounds knows.

Timing and roll-off come from amc_utils.dsp.synchronisation and are trusted; carrier phase and offset
are averaged over, the offset with the spread that the channel gives it. For OQPSK they are estimated
first, which favours it: in noise too strong for any decision (below -10 dB) about half of all go to it.
SNR follows from the energies in and out of the band. What lies between the bound and this receiver is
the price of synchronisation and of this receiver's own limits: it drops symbols at the ends, trusts its
timing, and decides for an SNR before it looks at symbols. It is a mark to reach, not a bound; at high
SNR a network may pass it.

The likelihood of a symbol under a modulation depends on its magnitude and, periodically, on its angle.
As a Fourier series in the angle, the sum over the symbols of a frame is, for all phases and offsets at
once, a pair of discrete Fourier transforms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from amc_utils.baselines.bounds import class_es_n0_db, energy_fit
from amc_utils.dsp.receiver_settings import DEFAULT_RECEIVER, ReceiverSettings
from amc_utils.dsp.synchronisation import cfo_grid, equalised_powers, synchronise, synchronise_offset
from amc_utils.modulation.constellations import symbol_map
from amc_utils.signals import SAMPLES_PER_SYMBOL, Channel, unit_phasor

# Above this Es/N0 frames are judged as if they had no more: finer structure than the grids of phase and
# offset resolve would count against the truth.
_MAX_ES_N0_DB = 25.0
_NUM_RADII = 256
_NUM_ANGLES, _NUM_HARMONICS, _NUM_PHASES = 128, 32, 64
_FRAMES_AT_ONCE = 64


def receiver_log_likelihoods(
    iq: Tensor,
    *,
    modulations: Sequence[str],
    snr_labels: Sequence[float],
    channel: Channel,
    receiver: ReceiverSettings = DEFAULT_RECEIVER,
) -> Tensor:
    """Log-likelihood of every class, float32 [B, num_modulations, num_labels], but for a constant.

    A frame with samples that are no numbers has the same likelihood in all classes. The scale of frames
    says nothing here.

    Args:
        iq: complex64 [B, num_samples], 8 samples per symbol.
        modulations: hypotheses.
        snr_labels: hypotheses; where none is a frame's SNR to half a decibel, its amplitude is taken
            wrongly and so is its modulation.
        channel: gives the SNRs of the labels, the levels of ASK and the spread of the carrier offset.
        receiver: what synchronisation knows about the channel.
    """
    options = {"modulations": tuple(modulations), "snr_labels": tuple(snr_labels)}
    options |= {"channel": channel, "receiver": receiver}
    found = torch.cat([_log_likelihoods(part, **options) for part in iq.split(_FRAMES_AT_ONCE)])
    says_something = found.isfinite().all(2).all(1)[:, None, None]
    return torch.where(says_something, found, 0)


def _log_likelihoods(
    iq: Tensor,
    modulations: tuple[str, ...],
    snr_labels: tuple[float, ...],
    channel: Channel,
    receiver: ReceiverSettings,
) -> Tensor:
    symbols = {}
    for kind, timed in {
        False: synchronise(iq, receiver),
        True: synchronise_offset(iq, receiver),
    }.items():
        symbols[kind] = timed.symbols * timed.noise_power.rsqrt()[:, None]
    result = iq.real.new_empty(len(iq), len(modulations), len(snr_labels))
    cfos = cfo_grid(receiver, iq.device)
    prior = -0.5 * (cfos / max(channel.cfo_std, 1e-9)).square()
    # The interference at high SNR is a small difference, which float32 would not show.
    es_n0_db = class_es_n0_db(modulations, snr_labels, channel)
    signal, interference = (power.to(iq.real) for power in equalised_powers(es_n0_db, receiver))
    for number, name in enumerate(modulations):
        seen = symbols[name == "OQPSK"]
        fit = _snr_fit(seen, iq.shape[1], signal[number] + interference[number])
        level = fit.argmax(1)
        # Interference is taken for noise.
        noise = 1 + interference[number][level]
        seen_db = 10 * (signal[number] / (1 + interference[number])).log10()
        used_db = seen_db.clamp(max=_MAX_ES_N0_DB)
        shape = iq.real.new_empty(len(iq))
        for one in level.unique().tolist():
            rows = level == one
            # Where frames are judged as if they had less SNR, symbols are scaled to have it.
            gain = 10 ** ((used_db[one] - seen_db[one]) / 20) / noise[rows].sqrt()
            points = symbol_map(name, unipolar_ask=channel.unipolar_ask)
            scaled = seen[rows] * gain[:, None]
            found = _shape_likelihood(scaled, points, round(used_db[one].item(), 3), prior, cfos)
            # Symbols are scaled differently for each modulation; their density must not be.
            energy = torch.view_as_real(scaled).square().sum((1, 2))
            shape[rows] = found - energy + 2 * scaled.shape[1] * gain.log()
        # Where the SNR fits the energies less well, so does any modulation at that SNR.
        result[:, number] = shape[:, None] + fit - fit.gather(1, level[:, None])
    return result


def _snr_fit(symbols: Tensor, num_samples: int, symbol_snr: Tensor) -> Tensor:
    """Log-likelihood of each SNR from energies alone, for symbols at unit noise variance."""
    outside = num_samples * (1 - 1 / SAMPLES_PER_SYMBOL)
    return energy_fit(symbols, outside, symbols.shape[1] + int(outside), symbol_snr)


def _shape_likelihood(
    symbols: Tensor, points: np.ndarray, es_n0_db: float, prior: Tensor, cfos: Tensor
) -> Tensor:
    """Log-likelihood of symbols at unit noise variance, averaged over phase and offset; float32 [B].

    Without the term of the symbols' energy, which is the same for all points.
    """
    radius = symbols.abs() / 10 ** (es_n0_db / 20)
    series, order = _angle_series(tuple(points.tolist()), es_n0_db, symbols.device)
    place = (radius.nan_to_num(0) * (_NUM_RADII / _largest_radius(es_n0_db))).long()
    place = place.clamp_(0, _NUM_RADII - 1)
    coefficients = series[place]
    harmonics = torch.arange(_NUM_HARMONICS, device=symbols.device)
    turned = coefficients * unit_phasor(order * harmonics * symbols.angle()[..., None])
    waves = _offset_waves(order, symbols.shape[1], tuple(cfos.tolist()), symbols.device)
    # [B, K, N] and [N, K, W] give [B, N, W]; then all phases of one turn by 1/order.
    by_offset = torch.einsum("bkn,nkw->bwn", turned, waves)
    # As many to a quarter turn, or to one by 1/order if that is less.
    num_phases = _NUM_PHASES * max(4 // order, 1)
    phases = torch.arange(num_phases, device=symbols.device) * (2 * torch.pi / num_phases)
    rotation = torch.view_as_real(unit_phasor(harmonics[:, None] * phases))
    real = by_offset.real @ rotation[..., 0] + by_offset.imag @ rotation[..., 1]
    return (real + prior[:, None]).logsumexp((1, 2)) - prior.logsumexp(0) - math.log(num_phases)


def _largest_radius(es_n0_db: float) -> float:
    """Magnitude beyond which there are next to no symbols, in units of the signal's amplitude."""
    return 1.8 + 4 / 10 ** (es_n0_db / 20)


@cache
def _angle_series(
    points: tuple[complex, ...], es_n0_db: float, device: torch.device
) -> tuple[Tensor, int]:
    """Fourier series in the angle of log mean_s exp(-|z - a s|^2) + |z|^2, and the symmetry order.

    Returns:
        complex64 [radii, harmonics], the constant halved so that the real part of the sum over
        harmonics is the function; and the order of the rotational symmetry.
    """
    points = torch.tensor(points, dtype=torch.complex64)
    order = max(n for n in (1, 2, 4, 8, 16, 32) if _is_symmetric(points, n))
    snr = 10 ** (es_n0_db / 10)
    radius = (torch.arange(_NUM_RADII) + 0.5) * (_largest_radius(es_n0_db) / _NUM_RADII)
    angle = torch.arange(_NUM_ANGLES) * (2 * torch.pi / _NUM_ANGLES / order)
    places = radius[:, None] * unit_phasor(angle)
    inner = (places[..., None] * points.conj()).real
    exponent = snr * (2 * inner - torch.view_as_real(points).square().sum(-1))
    function = exponent.logsumexp(-1) - math.log(len(points))
    series = torch.fft.rfft(function, norm="forward")[:, :_NUM_HARMONICS] * 2
    series[:, 0] /= 2
    return series.to(device), order


def _is_symmetric(points: Tensor, order: int) -> bool:
    """Whether a turn by 1/order maps the points onto themselves."""
    turned = points * unit_phasor(torch.tensor(2 * torch.pi / order))
    return bool((turned[:, None] - points).abs().amin(1).max() < 1e-3)


@cache
def _offset_waves(
    order: int, num_symbols: int, cfos: tuple[float, ...], device: torch.device
) -> Tensor:
    """Conjugate carriers at each harmonic of each offset, complex64 [harmonics, K, offsets]."""
    number = torch.arange(num_symbols, device=device) - (num_symbols - 1) / 2
    harmonics = order * torch.arange(_NUM_HARMONICS, device=device)
    turns = (
        harmonics[:, None, None]
        * SAMPLES_PER_SYMBOL
        * number[:, None]
        * torch.tensor(cfos, device=device)
    )
    return unit_phasor(-2 * torch.pi * turns)

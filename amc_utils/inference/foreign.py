"""Signals that no network here is trained on, to see whether it says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from scipy.signal import resample_poly
from torch import Tensor

from amc_utils.signals import NUM_SAMPLES, Channel, generate_frames, unit_phasor

# Makers of clean signals from their number, a source of randomness and a channel.
_Maker = Callable[[int, torch.Generator, Channel], Tensor]
# Without noise to speak of; the noise of the wanted SNR is added afterwards.
_CLEAN_DB = 60.0
_OFDM_CARRIERS = 64


def _generated(
    names: tuple[str, ...],
    num_frames: int,
    generator: torch.Generator,
    channel: Channel,
    num_samples: int = NUM_SAMPLES,
) -> Tensor:
    index = torch.arange(num_frames)
    return generate_frames(
        index,
        index % len(names),
        torch.full((num_frames,), _CLEAN_DB),
        modulations=names,
        seed=int(torch.randint(2**31, (), generator=generator)),
        channel=channel,
        num_samples=num_samples,
    ).iq


def _at_other_rate(up: int, down: int) -> _Maker:
    def make(num_frames: int, generator: torch.Generator, channel: Channel) -> Tensor:
        # Twice as long is long enough for any of the rates.
        iq = _generated(("QPSK", "16QAM"), num_frames, generator, channel, 2 * NUM_SAMPLES)
        other = resample_poly(iq.numpy(), up, down, axis=1)[:, :NUM_SAMPLES]
        return torch.from_numpy(other).to(torch.complex64)

    return make


def _tone(num_frames: int, generator: torch.Generator, _: Channel) -> Tensor:
    frequency, phase = torch.rand(2, num_frames, 1, generator=generator)
    turns = (frequency - 0.5) / 10 * torch.arange(NUM_SAMPLES) + phase
    return unit_phasor(2 * torch.pi * turns)


def _ofdm(num_frames: int, generator: torch.Generator, _: Channel) -> Tensor:
    """Carriers of random QPSK in an eighth of the band, with a cyclic prefix of a quarter."""
    length = 8 * _OFDM_CARRIERS
    count = -(-NUM_SAMPLES // (length * 5 // 4)) + 1
    bits = torch.randint(4, (num_frames, count, _OFDM_CARRIERS), generator=generator)
    spectrum = torch.zeros(num_frames, count, length, dtype=torch.complex64)
    spectrum[..., torch.arange(_OFDM_CARRIERS) - _OFDM_CARRIERS // 2] = unit_phasor(torch.pi / 2 * bits)
    symbols = torch.fft.ifft(spectrum)
    return torch.cat([symbols[..., -length // 4 :], symbols], -1).flatten(1)[:, :NUM_SAMPLES]


def _two_at_once(num_frames: int, generator: torch.Generator, channel: Channel) -> Tensor:
    one, other = _generated(("QPSK",), 2 * num_frames, generator, channel).chunk(2)
    return one + 0.7 * other


def _noise(num_frames: int, generator: torch.Generator, _: Channel) -> Tensor:
    return torch.randn(num_frames, NUM_SAMPLES, dtype=torch.complex64, generator=generator)


def _changed(**settings: Any) -> _Maker:
    names = ("QPSK", "16QAM")
    return lambda num_frames, generator, channel: _generated(
        names, num_frames, generator, replace(channel, **settings)
    )


# Classes of RadioML that the networks for 17 modulations do not know.
_CLASSES = {
    "AM with carrier": ("AM-SSB-WC", "AM-DSB-WC"),
    "AM without carrier": ("AM-SSB-SC", "AM-DSB-SC"),
    "FM": ("FM",),
    "GMSK": ("GMSK",),
    "OOK": ("OOK",),
}
# Makers of other clean signals, complex64 [num_frames, NUM_SAMPLES].
_MAKERS: dict[str, _Maker] = {
    "carrier alone": _tone,
    "OFDM of 64 carriers": _ofdm,
    "two QPSK signals at once": _two_at_once,
    "4 samples a symbol": _at_other_rate(1, 2),
    "10 samples a symbol": _at_other_rate(5, 4),
    "16 samples a symbol": _at_other_rate(2, 1),
    "carrier offsets spread by 1e-3": _changed(cfo_std=1e-3),
    "multipath decaying over 2 samples": _changed(delay_spread=2.0),
    "roll-off 0.8": _changed(rolloff_range=(0.8, 0.8)),
    "noise alone": _noise,
}


def foreign_kinds(trained: Sequence[str]) -> list[str]:
    """Kinds of signals that are none of the modulations trained on."""
    return [kind for kind, names in _CLASSES.items() if not set(names) & set(trained)] + [*_MAKERS]


def foreign_frames(
    kind: str, snr_db: float, num_frames: int, *, generator: torch.Generator, channel: Channel
) -> Tensor:
    """Noisy frames of one of foreign_kinds, complex64 [num_frames, NUM_SAMPLES], unit mean power.

    Args:
        kind: one of foreign_kinds.
        snr_db: SNR per sample.
        num_frames: how many.
        generator: source of all that is random.
        channel: what a signal of RadioML goes through, or what is changed about it.
    """
    if kind in _CLASSES:
        clean = _generated(_CLASSES[kind], num_frames, generator, channel)
    else:
        clean = _MAKERS[kind](num_frames, generator, channel)
    clean = clean / clean.abs().square().mean(1, keepdim=True).sqrt()
    noise = torch.randn(clean.shape, dtype=torch.complex64, generator=generator)
    iq = clean + noise * 10 ** (-snr_db / 20)
    return iq / iq.abs().square().mean(1, keepdim=True).sqrt()

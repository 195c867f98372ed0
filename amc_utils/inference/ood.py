"""Out-of-distribution (OOD) signals: a detector on a network's features, and signals to try it on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.signal import resample_poly
from scipy.stats import binomtest
from torch import Tensor

from amc_utils.signals import (
    NUM_SAMPLES,
    SAMPLES_PER_SYMBOL,
    Channel,
    generate_frames,
    to_unit_power,
    unit_phasor,
)

# A frame is flagged as OOD if its p-value is below this; as many frames like those of training are.
SIGNIFICANCE = 0.01
# A recording is OOD if as many flagged frames are rarer than this in a class of the training data that
# is flagged three times as often as it should be; frames of one class share its sampling error.
_RECORDING_SIGNIFICANCE, _WORST_CLASS = 1e-3, 3 * SIGNIFICANCE
# A single frame says no more against a recording.
_LEAST_LOG_P = -7.0
# Of the distances of a class, this many evenly spaced order statistics are kept.
_NUM_QUANTILES = 201
# With fewer held-out frames than this a class takes the distances of its SNR level.
_FEW = 100


def mean_log_p_value(p_values: np.ndarray) -> float:
    """Mean logarithm of frames' p-values, none below e^-7: how unlike those of training they are."""
    return float(np.log(np.maximum(p_values, np.exp(_LEAST_LOG_P))).mean())


def is_out_of_distribution(num_flagged: int, num_frames: int) -> bool:
    """Whether a recording has more flagged frames than chance gives a class of the training data."""
    test = binomtest(num_flagged, num_frames, _WORST_CLASS, alternative="greater")
    return bool(test.pvalue < _RECORDING_SIGNIFICANCE)


@dataclass(frozen=True)
class MahalanobisDetector:
    """Mahalanobis distance of features to the nearest class, and its p-value.

    Classes have means of their own and share a covariance. Beside the features there may be further
    statistics, large for OOD signals; each is a test of its own, and the smallest p-value counts.

    Attributes:
        whitener: float32 [W, W], under which features of a class have unit covariance.
        means: float32 [num_classes, W], whitened means of the joint classes.
        quantiles: float32 [num_classes, 1 + S, Q], ascending distances of held-out frames and their S
            statistics, by predicted joint class.

    Source: Lee, Lee, Lee, Shin, "A Simple Unified Framework for Detecting Out-of-Distribution Samples
    and Adversarial Attacks", 2018, equations 1 and 2, on the last features.
    """

    whitener: Tensor
    means: Tensor
    quantiles: Tensor

    @classmethod
    def fit(
        cls,
        features: Tensor,
        cell: Tensor,
        *,
        held_out: Tensor,
        predicted: Tensor,
        num_classes: int,
        num_snrs: int,
        num_statistics: int = 0,
    ) -> MahalanobisDetector:
        """Means and covariance of training frames, and distances of held-out ones.

        Args:
            features: float [N, W + S] of training frames.
            cell: int64 [N], their joint classes, all of which occur.
            held_out: float [M, W + S], features of frames that were not trained on.
            predicted: int64 [M], joint class predicted for each of those.
            num_classes: number of joint classes.
            num_snrs: number of SNR levels, which run fastest in a joint class.
            num_statistics: S, how many of the last columns are further statistics.

        Raises:
            ValueError: a class without training frames.
        """
        # Here, since using a fitted detector needs none of the 0.3 s that scikit-learn takes to import.
        from sklearn.covariance import LedoitWolf

        features = features[:, : features.shape[1] - num_statistics]
        counts = torch.bincount(cell, minlength=num_classes)
        if not counts.all():
            raise ValueError("every class needs training frames for its mean; train on more frames")
        sums = torch.zeros(num_classes, features.shape[1]).index_add_(0, cell, features.float())
        means = sums / counts[:, None]
        within = (features - means[cell]).double()
        precision = LedoitWolf(assume_centered=True).fit(within.numpy()).get_precision()
        whitener = torch.linalg.cholesky(torch.from_numpy(precision)).float()
        fitted = cls(whitener, means @ whitener, torch.empty(0))
        distance, level = fitted.distances(held_out), predicted % num_snrs
        rows = [
            _quantiles(distance[predicted == number], distance[level == number % num_snrs], distance)
            for number in range(num_classes)
        ]
        return replace(fitted, quantiles=torch.stack(rows))

    def distances(self, features: Tensor) -> Tensor:
        """Of features [B, W + S] the distance to the nearest class and the statistics, [B, 1 + S]."""
        own, statistics = features.float().tensor_split([len(self.whitener)], dim=1)
        nearest = torch.cdist(own @ self.whitener, self.means).amin(1, keepdim=True)
        return torch.cat([nearest, statistics], 1)

    def p_value(self, features: Tensor, predicted: Tensor) -> Tensor:
        """Share of held-out frames of the predicted class at least as unlike it, float32 [B].

        Of several tests the smallest share times their number.
        """
        known, distance = self.quantiles[predicted].contiguous(), self.distances(features)
        below = torch.searchsorted(known, distance[..., None])[..., 0]
        # In the middle of the step from one kept quantile to the next; beyond the last there is none.
        share = (1 - (below - 0.5) / (known.shape[2] - 1)).clamp_min(0)
        return (share.amin(1) * share.shape[1]).clamp(max=1)

    def tensors(self) -> dict[str, Tensor]:
        """What a file must hold of it; the quantiles, most of it, in half precision."""
        return {f"ood.{name}": v.half() if name == "quantiles" else v for name, v in vars(self).items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> MahalanobisDetector:
        """From what a file holds, see `tensors`."""
        made = cls(*(tensors[f"ood.{name}"].float() for name in ("whitener", "means", "quantiles")))
        # Files from before there were further statistics have one test.
        return replace(made, quantiles=made.quantiles.view(len(made.means), -1, _NUM_QUANTILES))


def _quantiles(*held_out: Tensor) -> Tensor:
    """Quantiles [T, Q] of the first distances [M, T] that are enough, or else of the last."""
    some = next((part for part in held_out if len(part) >= _FEW), held_out[-1])
    # A new frame is the farthest of all once in so many: beyond those that are held out.
    some = torch.cat([some, some.new_full((1, some.shape[1]), torch.inf)])
    points = torch.linspace(0, 1, _NUM_QUANTILES)
    return torch.quantile(some, points, dim=0, interpolation="nearest").T


# Makers of clean signals, complex64 [num_frames, num_samples], from both numbers, a source of
# randomness and a channel.
_Maker = Callable[[int, int, torch.Generator, Channel], Tensor]
# Without noise to speak of; the noise of the wanted SNR is added afterwards.
_CLEAN_DB = 60.0
_OFDM_CARRIERS = 64


def _generated(
    names: Sequence[str],
    num_frames: int,
    num_samples: int,
    generator: torch.Generator,
    channel: Channel,
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


def _classes(*names: str, **changes: Any) -> _Maker:
    """Frames of these modulations, after changes to the channel."""
    return lambda num_frames, num_samples, generator, channel: _generated(
        names, num_frames, num_samples, generator, replace(channel, **changes)
    )


def _resampled(up: int, down: int) -> _Maker:
    def make(num_frames: int, num_samples: int, generator: torch.Generator, channel: Channel) -> Tensor:
        # Twice as long is long enough for any of the rates.
        iq = _generated(("QPSK", "16QAM"), num_frames, 2 * num_samples, generator, channel)
        other = resample_poly(iq.numpy(), up, down, axis=1)[:, :num_samples]
        return torch.from_numpy(other).to(torch.complex64)

    return make


def _tone(num_frames: int, num_samples: int, generator: torch.Generator, _: Channel) -> Tensor:
    frequency, phase = torch.rand(2, num_frames, 1, generator=generator)
    turns = (frequency - 0.5) / 10 * torch.arange(num_samples) + phase
    return unit_phasor(2 * torch.pi * turns)


def _fsk(num_frames: int, num_samples: int, generator: torch.Generator, _: Channel) -> Tensor:
    """A turn forth or back in every symbol of 8 samples."""
    bits = torch.randint(2, (num_frames, num_samples // SAMPLES_PER_SYMBOL), generator=generator)
    step = (bits.repeat_interleave(SAMPLES_PER_SYMBOL, 1) - 0.5) / SAMPLES_PER_SYMBOL
    return unit_phasor(2 * torch.pi * (step.cumsum(1) + torch.rand(num_frames, 1, generator=generator)))


def _chirps(num_frames: int, num_samples: int, generator: torch.Generator, _: Channel) -> Tensor:
    """Sweeps over an eighth of the band, of 64 symbols each, one after the other, as LoRa's."""
    length = 64 * SAMPLES_PER_SYMBOL
    first = torch.randint(length, (num_frames, 1), generator=generator)
    ramp = (torch.arange(num_samples) + first) % length / length - 0.5
    return unit_phasor(2 * torch.pi * (ramp / SAMPLES_PER_SYMBOL).cumsum(1))


def _ofdm(num_frames: int, num_samples: int, generator: torch.Generator, _: Channel) -> Tensor:
    """Carriers of random QPSK in an eighth of the band, with a cyclic prefix of a quarter."""
    length = 8 * _OFDM_CARRIERS
    count = -(-num_samples // (length * 5 // 4)) + 1
    bits = torch.randint(4, (num_frames, count, _OFDM_CARRIERS), generator=generator)
    spectrum = torch.zeros(num_frames, count, length, dtype=torch.complex64)
    spectrum[..., torch.arange(_OFDM_CARRIERS) - _OFDM_CARRIERS // 2] = unit_phasor(torch.pi / 2 * bits)
    symbols = torch.fft.ifft(spectrum)
    return torch.cat([symbols[..., -length // 4 :], symbols], -1).flatten(1)[:, :num_samples]


def _two_at_once(
    num_frames: int, num_samples: int, generator: torch.Generator, channel: Channel
) -> Tensor:
    one, other = _generated(("QPSK",), 2 * num_frames, num_samples, generator, channel).chunk(2)
    return one + 0.7 * other


def _noise(num_frames: int, num_samples: int, generator: torch.Generator, _: Channel) -> Tensor:
    return torch.randn(num_frames, num_samples, dtype=torch.complex64, generator=generator)


# Classes of RadioML that the networks for 17 modulations do not know.
_OTHER_CLASSES = {
    "AM with carrier": ("AM-SSB-WC", "AM-DSB-WC"),
    "AM without carrier": ("AM-SSB-SC", "AM-DSB-SC"),
    "FM": ("FM",),
    "GMSK": ("GMSK",),
    "OOK": ("OOK",),
}
# What a channel is trained for if it reaches as far.
_OTHER_CHANNELS = {
    "carrier offsets spread by 1e-3": {"cfo_std": 1e-3},
    "multipath decaying over 2 samples": {"delay_spread": 2.0},
    "roll-off 0.8": {"rolloff_range": (0.8, 0.8)},
}
_MAKERS: dict[str, _Maker] = (
    {name: _classes(*names) for name, names in _OTHER_CLASSES.items()}
    | {
        "carrier alone": _tone,
        "2FSK of index 1": _fsk,
        "chirps": _chirps,
        "OFDM of 64 carriers": _ofdm,
        "two QPSK signals at once": _two_at_once,
        "4 samples a symbol": _resampled(1, 2),
        "10 samples a symbol": _resampled(5, 4),
        "16 samples a symbol": _resampled(2, 1),
        "noise alone": _noise,
    }
    | {name: _classes("QPSK", "16QAM", **changes) for name, changes in _OTHER_CHANNELS.items()}
)


def ood_kinds(trained: Sequence[str], channel: Channel) -> list[str]:
    """Kinds of OOD signals: those of no modulation trained on, and of no channel within that one."""
    known = {kind for kind, names in _OTHER_CLASSES.items() if set(names) & set(trained)}
    reach = {
        "carrier offsets spread by 1e-3": 3 * channel.cfo_std + channel.cfo_max >= 3e-3,
        "multipath decaying over 2 samples": channel.delay_spread >= 2,
        "roll-off 0.8": channel.rolloff_range[1] >= 0.8,
    }
    return [kind for kind in _MAKERS if kind not in known and not reach.get(kind)]


def ood_frames(
    kind: str,
    snr_db: float,
    num_frames: int,
    *,
    generator: torch.Generator,
    channel: Channel,
    num_samples: int = NUM_SAMPLES,
) -> Tensor:
    """Noisy frames of one of ood_kinds, complex64 [num_frames, num_samples], unit mean power.

    Args:
        kind: one of ood_kinds.
        snr_db: SNR per sample.
        num_frames: how many.
        generator: source of all that is random.
        channel: what a signal of RadioML goes through, or what is changed about it.
        num_samples: of each; those of a recording are many.
    """
    clean = to_unit_power(_MAKERS[kind](num_frames, num_samples, generator, channel))
    noise = torch.randn(clean.shape, dtype=torch.complex64, generator=generator)
    return to_unit_power(clean + noise * 10 ** (-snr_db / 20))

"""How unlike its training frames a frame looks to a network: a distance between features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from scipy.stats import binomtest
from sklearn.covariance import LedoitWolf
from torch import Tensor

# A frame is called foreign if fewer than this share of frames like those of training are as unusual.
FALSE_ALARMS = 0.01
# Of the distances of a class, this many evenly spaced order statistics are kept.
_NUM_QUANTILES = 201
# With fewer frames than this that were not trained on, a class takes the distances of its SNR level.
_FEW = 100


# A recording is foreign when so many of its frames would be as unusual this rarely, in a class in which
# they are three times as frequent as they should be; frames of one class share its sampling error.
_SURPRISE, _WORST_CLASS = 1e-3, 3 * FALSE_ALARMS


def is_foreign(num_unusual: int, num_frames: int) -> bool:
    """Whether a recording has more unusual frames than chance gives a class of the training data."""
    test = binomtest(num_unusual, num_frames, _WORST_CLASS, alternative="greater")
    return bool(test.pvalue < _SURPRISE)


@dataclass(frozen=True)
class Novelty:
    """Distance of features to the nearest class, and how usual it is among frames of that SNR.

    The distance is Mahalanobis': classes have means of their own and share a covariance.

    Attributes:
        whitener: float32 [W, W], under which features of a class have unit covariance.
        centres: float32 [num_classes, W], whitened means of the joint classes.
        quantiles: float32 [num_classes, Q], ascending distances of frames that were not trained on,
            by the joint class decided for.

    Source: Lee, Lee, Lee, Shin, "A Simple Unified Framework for Detecting Out-of-Distribution Samples
    and Adversarial Attacks", 2018, equations 1 and 2, on the last features.
    """

    whitener: Tensor
    centres: Tensor
    quantiles: Tensor

    @classmethod
    def fit(
        cls,
        features: Tensor,
        cell: Tensor,
        *,
        unseen: Tensor,
        decided: Tensor,
        num_classes: int,
        num_snrs: int,
    ) -> Novelty:
        """Statistics of training frames, and distances of others.

        Args:
            features: float [N, W] of training frames.
            cell: int64 [N], their joint classes, all of which occur.
            unseen: float [M, W], features of frames that were not trained on.
            decided: int64 [M], joint class decided for each of those.
            num_classes: number of joint classes.
            num_snrs: number of SNR levels, which run fastest in a joint class.

        Raises:
            ValueError: a class without training frames.
        """
        counts = torch.bincount(cell, minlength=num_classes)
        if not counts.all():
            raise ValueError("every class needs training frames for its mean; train on more frames")
        sums = torch.zeros(num_classes, features.shape[1]).index_add_(0, cell, features.float())
        means = sums / counts[:, None]
        within = (features - means[cell]).double()
        precision = LedoitWolf(assume_centered=True).fit(within.numpy()).get_precision()
        whitener = torch.linalg.cholesky(torch.from_numpy(precision)).float()
        fitted = cls(whitener, means @ whitener, torch.empty(0))
        distance, points = fitted.distance(unseen), torch.linspace(0, 1, _NUM_QUANTILES)

        def usual(number: int) -> Tensor:
            level = decided % num_snrs == number % num_snrs
            for some in (distance[decided == number], distance[level]):
                if len(some) >= _FEW:
                    return torch.quantile(some, points)
            return torch.quantile(distance, points)

        return cls(whitener, fitted.centres, torch.stack([usual(n) for n in range(num_classes)]))

    def distance(self, features: Tensor) -> Tensor:
        """Distance of each frame to the nearest class, in standard deviations, float32 [B]."""
        return torch.cdist(features.float() @ self.whitener, self.centres).amin(1)

    def usual(self, features: Tensor, decided: Tensor) -> Tensor:
        """Share of unseen training-like frames of the class decided for as far away, float32 [B]."""
        known = self.quantiles[decided].contiguous()
        below = torch.searchsorted(known, self.distance(features)[:, None])[:, 0]
        return 1 - below / known.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        """What a file must hold of it."""
        return {f"novelty.{name}": value for name, value in vars(self).items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Novelty:
        """From what a file holds, see `tensors`."""
        names = ("whitener", "centres", "quantiles")
        return cls(*(tensors[f"novelty.{name}"].float() for name in names))

"""What a network makes of frames: pictures, losses, accuracies, predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from amc_utils.config import TrainingParameters
from amc_utils.constellation import network_input
from amc_utils.frames import Frames
from amc_utils.losses import TaskWeighting, snr_loss
from amc_utils.models import Logits

# Frames per forward pass when nothing is learnt; large enough for speed, small enough for memory.
_EVALUATION_BATCH = 256


class Evaluator:
    """A network, the weights of its tasks, and the frames that it looks at.

    Attributes:
        network: the network, on the frames' device.
        weighting: the weights of the two tasks.
        frames: the frames.
        config: parameters of pictures and losses.
    """

    def __init__(
        self, network: nn.Module, weighting: TaskWeighting, frames: Frames, config: TrainingParameters
    ) -> None:
        self.network, self.weighting = network, weighting
        self.frames, self.config = frames, config

    def draw(self, batch: Tensor) -> Tensor:
        """What the network is given for some frames, drawn on the device; see network_input."""
        return network_input(self.frames.iq(batch), self.config.channels, self.config.image_size)

    def judge(self, logits: Logits, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of the two tasks, float32 [2], and hits, bool [3, B]: joint, modulation, SNR."""
        modulation, snr_index = self.frames.modulation[batch], self.frames.snr_index[batch]
        losses = torch.stack([
            torch.nn.functional.cross_entropy(logits.modulation.float(), modulation),
            snr_loss(logits.snr, snr_index, weights=tuple(self.config.snr_loss_weights)),
        ])  # fmt: skip
        right = logits.modulation.argmax(1) == modulation, logits.snr.argmax(1) == snr_index
        return losses, torch.stack([right[0] & right[1], *right])

    @torch.no_grad()
    def measure(self, index: Tensor, prefix: str) -> dict[str, float]:
        """Losses and accuracies over frames in evaluation mode, keys beginning with `prefix`."""
        self.network.eval()
        sums = torch.zeros(6, device=self.frames.device)
        for batch in index.split(_EVALUATION_BATCH):
            sums += tally(*self.judge(self.network(self.draw(batch)), batch))
        return means(prefix, sums, self.weighting)

    @torch.no_grad()
    def predict(self, index: Tensor) -> pd.DataFrame:
        """Predictions for some frames, in the columns that amc_utils.metrics describes."""
        self.network.eval()
        parts = []
        for batch in index.split(_EVALUATION_BATCH):
            logits = self.network(self.draw(batch))
            modulation = logits.modulation.float().softmax(1).max(1)
            snr = logits.snr.float().softmax(1).max(1)
            parts.append((modulation.indices, snr.indices, modulation.values, snr.values))
        return prediction_table(self.frames, index, [torch.cat(c) for c in zip(*parts, strict=True)])


def prediction_table(frames: Frames, index: Tensor, decided: Sequence[Tensor]) -> pd.DataFrame:
    """Predictions for some frames, in the columns that amc_utils.metrics describes.

    Args:
        frames: the frames.
        index: int64 [B], which of them.
        decided: [B] each, index of the modulation, index of the SNR level, confidence in either.
    """
    modulation, level, *sure = (column.cpu().numpy() for column in decided)
    names, grid = list(frames.modulations), np.array(frames.snr_grid_db)
    true = frames.modulation[index].cpu().numpy()
    return pd.DataFrame({
        "frame": index.cpu().numpy(),
        "modulation": pd.Categorical.from_codes(true, names, ordered=True),
        "snr_db": grid[frames.snr_index[index].cpu().numpy()],
        "predicted_modulation": pd.Categorical.from_codes(modulation, names, ordered=True),
        "predicted_snr_db": grid[level],
        "modulation_confidence": sure[0],
        "snr_confidence": sure[1],
    })  # fmt: skip


def tally(losses: Tensor, hits: Tensor) -> Tensor:
    """Sums over a batch, to be added up on the device: two losses, three hits, frames; float32 [6]."""
    size = hits.shape[1]
    return torch.cat([losses * size, hits.sum(1), torch.full((1,), size, device=hits.device)])


@torch.no_grad()
def means(prefix: str, sums: Tensor, weighting: TaskWeighting) -> dict[str, float]:
    """Total loss, losses and accuracies from the sums of `tally`, keys beginning with `prefix`."""
    per_frame = sums[:5] / sums[5]
    total = weighting(per_frame[:2])
    names = ("modulation_loss", "snr_loss", "joint_accuracy", "modulation_accuracy", "snr_accuracy")
    row = {f"{prefix}_loss": float(total)}
    return row | {f"{prefix}_{n}": v for n, v in zip(names, per_frame.tolist(), strict=True)}

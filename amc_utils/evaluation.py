"""What a network makes of frames: pictures, losses, accuracies, predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from amc_utils.config import TrainingParameters
from amc_utils.constellation import network_input
from amc_utils.frames import Frames
from amc_utils.losses import TaskWeighting, decide_level, snr_loss
from amc_utils.models import Logits

# Frames per forward pass when nothing is learnt; large enough for speed, small enough for memory.
_EVALUATION_BATCH = 256


class Evaluator:
    """A network, the weights of its tasks, and the frames that it looks at.

    Of several processes each looks at the frames that it holds; what they find is put together.

    Attributes:
        network: the network, on the frames' device.
        weighting: the weights of the two tasks.
        frames: the frames.
        config: parameters of pictures and losses.
        fabric: the devices.
    """

    def __init__(
        self,
        network: nn.Module,
        weighting: TaskWeighting,
        frames: Frames,
        config: TrainingParameters,
        fabric: Fabric,
    ) -> None:
        self.network, self.weighting = network, weighting
        self.frames, self.config, self.fabric = frames, config, fabric

    def draw(self, batch: Tensor) -> Tensor:
        """What the network is given for some frames, drawn on the device; see network_input."""
        return self.pictures(self.frames.iq(batch))

    def pictures(self, iq: Tensor) -> Tensor:
        """What the network is given for samples, complex64 [B, num_samples]; see network_input."""
        return network_input(iq, **self.config.picture_options)

    def judge(self, logits: Logits, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of the two tasks, float32 [2], and hits, bool [3, B]: joint, modulation, SNR."""
        config = self.config
        modulation, snr_index = self.frames.modulation[batch], self.frames.snr_index[batch]
        losses = torch.stack([
            torch.nn.functional.cross_entropy(logits.modulation.float(), modulation),
            snr_loss(
                logits.snr, snr_index, weights=tuple(config.snr_loss_weights), kind=config.snr_loss
            ),
        ])  # fmt: skip
        level = decide_level(logits.snr, config.snr_loss)
        right = logits.modulation.argmax(1) == modulation, level == snr_index
        return losses, torch.stack([right[0] & right[1], *right])

    @torch.no_grad()
    def measure(self, index: Tensor, prefix: str) -> dict[str, float]:
        """Losses and accuracies over frames in evaluation mode, keys beginning with `prefix`."""
        self.network.eval()
        sums = torch.zeros(6, dtype=torch.float64, device=self.frames.device)
        batches = _batches(self.frames.here(index))
        for batch, iq in zip(batches, self.frames.ahead(batches), strict=True):
            sums += tally(*self.judge(self.network(self.pictures(iq)), batch))
        return means(prefix, self.fabric.all_reduce(sums, reduce_op="sum"), self.weighting)

    @torch.no_grad()
    def predict(self, index: Tensor) -> pd.DataFrame:
        """Predictions for some frames, in the columns that amc_utils.metrics describes."""
        self.network.eval()
        mine = torch.isin(index, self.frames.here(index)).nonzero()[:, 0]
        # Each frame is decided by one process and zero in the others: their sum is the table.
        decided = torch.zeros(4, len(index), dtype=torch.float64, device=self.frames.device)
        places = _batches(mine)
        for place, iq in zip(places, self.frames.ahead(index[p] for p in places), strict=True):
            logits = self.network(self.pictures(iq))
            modulation = logits.modulation.float().softmax(1).max(1)
            level = decide_level(logits.snr, self.config.snr_loss)
            sure = logits.snr.float().softmax(1).gather(1, level[:, None])[:, 0]
            found = (modulation.indices, level, modulation.values, sure)
            decided[:, place] = torch.stack([column.double() for column in found])
        modulation, level, *sure = self.fabric.all_reduce(decided, reduce_op="sum")
        return prediction_table(self.frames, index, [modulation.long(), level.long(), *sure])


def _batches(index: Tensor) -> list[Tensor]:
    """The index in parts; no part where there is nothing, though torch would give an empty one."""
    return [part for part in index.split(_EVALUATION_BATCH) if len(part)]


def prediction_table(frames: Frames, index: Tensor, decided: Sequence[Tensor]) -> pd.DataFrame:
    """Predictions for some frames, in the columns that amc_utils.metrics describes.

    Args:
        frames: the frames.
        index: int64 [B], which of them.
        decided: [B] each, index of the modulation, index of the SNR level, confidence in either.
    """
    modulation, level, *sure = (column.cpu().numpy() for column in decided)
    names, grid = list(frames.modulations), np.array(frames.snr_labels)
    true = frames.modulation[index].cpu().numpy()
    return pd.DataFrame({
        "frame": index.cpu().numpy(),
        "modulation": pd.Categorical.from_codes(true, names, ordered=True),
        "snr_label": grid[frames.snr_index[index].cpu().numpy()],
        "predicted_modulation": pd.Categorical.from_codes(modulation, names, ordered=True),
        "predicted_snr_label": grid[level],
        "modulation_confidence": sure[0],
        "snr_confidence": sure[1],
    })  # fmt: skip


def tally(losses: Tensor, hits: Tensor) -> Tensor:
    """Sums over a batch, to be added up on the device: two losses, three hits, frames; float64 [6]."""
    size = hits.shape[1]
    return torch.cat([losses.double() * size, hits.sum(1), torch.full((1,), size, device=hits.device)])


@torch.no_grad()
def means(prefix: str, sums: Tensor, weighting: TaskWeighting) -> dict[str, float]:
    """Total loss, losses and accuracies from the sums of `tally`, keys beginning with `prefix`."""
    per_frame = sums[:5] / sums[5]
    total = weighting(per_frame[:2].to(weighting.log_variance.dtype))
    names = ("modulation_loss", "snr_loss", "joint_accuracy", "modulation_accuracy", "snr_accuracy")
    row = {f"{prefix}_loss": float(total)}
    return row | {f"{prefix}_{n}": v for n, v in zip(names, per_frame.tolist(), strict=True)}

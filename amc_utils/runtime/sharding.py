"""Which frames each of several processes trains on; any number of them sees the same batches."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from amc_utils.config import TrainingParameters
from amc_utils.data import Split

_NOBODY = -1


class BatchPlan:
    """Batches of training frames: rows of a table whose columns belong to processes.

    A frame stays in its column, and a column with its process, which therefore needs the samples of its
    own columns only. An epoch shuffles every column by itself, and its k-th batch is the k-th row. The
    batches follow from seed, epoch and batch size; the number of processes changes nothing.

    Attributes:
        steps: batches in an epoch; the frames left over are others in each.
    """

    def __init__(self, config: TrainingParameters, split: Split) -> None:
        self.config = config
        train = split.train.cpu().numpy()
        size = config.batch_size
        self.steps = len(train) // size
        if not self.steps:
            raise ValueError(
                f"batch_size must be at most the number of training frames, {len(train)}, got {size}"
            )
        padded = np.full(-(-len(train) // size) * size, _NOBODY)
        padded[: len(train)] = np.random.default_rng([config.seed, 0xC01]).permutation(train)
        self._table = padded.reshape(-1, size)

    def batches(self, epoch: int) -> Tensor:
        """Batches of an epoch (counted from 0), int64 [steps, batch_size], in host memory."""
        number = epoch if self.config.shuffle else 0
        keys = np.random.default_rng([self.config.seed, 0x0DE2, number]).random(self._table.shape)
        keys[self._table == _NOBODY] = np.inf
        shuffled = np.take_along_axis(self._table, keys.argsort(0), 0)
        return torch.from_numpy(shuffled[: self.steps])

    def places(self, rank: int, num_processes: int) -> slice:
        """Columns of a process.

        Raises:
            ValueError: the batch cannot be shared out evenly.
        """
        parts = num_processes * self.config.engine.accumulate
        if self.config.batch_size % parts:
            raise ValueError(
                f"batch_size must be a multiple of {parts}, processes times accumulate, "
                f"got {self.config.batch_size}"
            )
        width = self.config.batch_size // num_processes
        return slice(rank * width, (rank + 1) * width)

    def train_share(self, rank: int, num_processes: int) -> Tensor:
        """Training frames of a process, int64."""
        own = self._table[:, self.places(rank, num_processes)]
        return torch.from_numpy(own[own != _NOBODY])


def share(config: TrainingParameters, split: Split, rank: int, num_processes: int) -> Tensor:
    """All frames of a process, int64: its columns, and every so-and-so-many-th of the other parts."""
    train = BatchPlan(config, split).train_share(rank, num_processes).to(split.train.device)
    others = (split.validation, split.test)
    return torch.cat([train, *(part[rank::num_processes] for part in others)])

"""Training: a visible epoch loop with checkpoints that continue exactly where they stopped."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from amc_utils.config import TrainingParameters
from amc_utils.evaluation import Evaluator, means, tally
from amc_utils.frames import Frames, Split, redraw_frames, split_fingerprint
from amc_utils.losses import TaskWeighting
from amc_utils.models import TwoHeadNetwork
from amc_utils.optimisation import make_optimizer, make_scheduler
from amc_utils.paths import replacing

# What a resumed run may change; anything else would make it another run.
_FREE_ON_RESUME = {"num_epochs", "run_name", "resume_from", "output_root", "profile", "data_path"}
_SECONDS_BETWEEN_UPDATES = 5


class Trainer:
    """A network in training, with everything that a checkpoint must hold.

    Attributes:
        network: the network, on the device.
        weighting: the weights of the two tasks.
        evaluator: measures the network on any frames.
        history: one dict of plain numbers per finished epoch, the rows of history.csv.
        epoch_seconds: duration of each finished epoch.
        folder: where best.ckpt and last.ckpt go.
    """

    def __init__(
        self,
        config: TrainingParameters,
        network: TwoHeadNetwork,
        frames: Frames,
        split: Split,
        *,
        fabric: Fabric,
        folder: Path,
    ) -> None:
        self.config, self.frames, self.split = config, frames, split
        self.fabric, self.folder = fabric, folder
        self.steps_per_epoch = len(split.train) // config.batch_size
        if not self.steps_per_epoch:
            raise ValueError(
                f"batch_size must be at most the number of training frames, {len(split.train)}, "
                f"got {config.batch_size}"
            )
        self.weighting = TaskWeighting(config.task_weighting).to(fabric.device)
        optimizer = make_optimizer(network, self.weighting, config)
        # Convolutions are up to twice as fast on a CPU when channels lie innermost in memory.
        network = network.to(memory_format=torch.channels_last)
        self.network, self.optimizer = fabric.setup(network, optimizer)
        num_steps = config.num_epochs * self.steps_per_epoch
        self.scheduler = make_scheduler(self.optimizer, config, num_steps)
        self.evaluator = Evaluator(self.network, self.weighting, frames, config)
        self.history: list[dict[str, float]] = []
        self.epoch_seconds: list[float] = []

    @property
    def best_checkpoint(self) -> Path:
        """Checkpoint of the epoch with the highest joint accuracy on the validation frames."""
        return self.folder / "best.ckpt"

    @property
    def last_checkpoint(self) -> Path:
        """Checkpoint of the last finished epoch."""
        return self.folder / "last.ckpt"

    @property
    def history_table(self) -> pd.DataFrame:
        """The history, one row an epoch."""
        return pd.DataFrame(self.history)

    def fit(self) -> Iterator[dict[str, float]]:
        """Train the epochs that are left; yields each epoch's row of the history when it is done."""
        while len(self.history) < self.config.num_epochs:
            started = time.perf_counter()
            row = {"epoch": len(self.history) + 1} | self._train_epoch() | self._assess()
            self.history.append(row)
            self.epoch_seconds.append(time.perf_counter() - started)
            scores = [earlier["validation_joint_accuracy"] for earlier in self.history]
            if scores[-1] > max(scores[:-1], default=-1.0):
                self.save(self.best_checkpoint)
            self.save(self.last_checkpoint)
            yield row

    def describe_epoch(self) -> str:
        """One line on the last finished epoch, with the time that the remaining ones will take."""
        row, seconds = self.history[-1], self.epoch_seconds
        left = (self.config.num_epochs - len(seconds)) * float(np.mean(seconds))
        return (
            f"epoch {row['epoch']}/{self.config.num_epochs}  "
            f"train loss {row['train_loss']:.3f}  validation loss {row['validation_loss']:.3f}  "
            f"joint {row['validation_joint_accuracy']:.3f}  "
            f"modulation {row['validation_modulation_accuracy']:.3f}  "
            f"SNR {row['validation_snr_accuracy']:.3f}  "
            f"{seconds[-1]:.0f} s, about {left:.0f} s left"
        )

    def _train_epoch(self) -> dict[str, float]:
        epoch = len(self.history)
        # Dropout and order depend on seed and epoch alone, so a resumed run repeats them exactly.
        torch.manual_seed(int(np.random.SeedSequence([self.config.seed, epoch]).generate_state(1)[0]))
        if self.config.fresh_frames and epoch:
            redraw_frames(self.frames, self.split.train, epoch)
        order = self._order(epoch if self.config.shuffle else 0)
        batches = order[: self.steps_per_epoch * self.config.batch_size].split(self.config.batch_size)
        learning_rate = self.scheduler.get_last_lr()[0]
        self.network.train()
        sums = torch.zeros(6, device=self.fabric.device)
        for batch in tqdm(
            batches,
            desc=f"epoch {epoch + 1}/{self.config.num_epochs}",
            file=sys.stdout,
            leave=False,
            ascii=True,
            ncols=80,
            mininterval=_SECONDS_BETWEEN_UPDATES,
            delay=_SECONDS_BETWEEN_UPDATES,
        ):
            sums += self._step(batch)
        return {"learning_rate": learning_rate} | means("train", sums, self.weighting)

    def _order(self, epoch: int) -> Tensor:
        rng = np.random.default_rng([self.config.seed, 0x0DE2, epoch])
        order = torch.from_numpy(rng.permutation(len(self.split.train)))
        return self.split.train[order.to(self.split.train.device)]

    def _step(self, batch: Tensor) -> Tensor:
        logits = self.network(self.evaluator.draw(batch))
        losses, hits = self.evaluator.judge(logits, batch)
        total = self.weighting(losses)
        self.optimizer.zero_grad()
        self.fabric.backward(total)
        if self.config.gradient_clip:
            self.fabric.clip_gradients(self.network, self.optimizer, max_norm=self.config.gradient_clip)
        self.optimizer.step()
        self.scheduler.step()
        return tally(losses.detach(), hits)

    def _assess(self) -> dict[str, float]:
        """Validation against as many training frames, both in evaluation mode."""
        validation, train = self.split.validation, self.split.train
        spread = torch.linspace(0, len(train) - 1, min(len(validation), len(train)))
        same_mode = train[spread.round().long().to(train.device)]
        row = self.evaluator.measure(same_mode, "train_eval") | self.evaluator.measure(
            validation, "validation"
        )
        names = ("modulation", "snr")
        row |= {f"weight_{n}": v for n, v in zip(names, self.weighting.weights.tolist(), strict=True)}
        row |= {
            f"variance_{n}": v for n, v in zip(names, self.weighting.variances.tolist(), strict=True)
        }
        return row

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "weighting": self.weighting,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
        }

    def save(self, path: Path) -> None:
        """Write a complete checkpoint; it appears whole or not at all.

        Random states need no place in it: order and dropout of an epoch follow from seed and epoch.
        """
        facts = {
            "history": self.history,
            "epoch_seconds": self.epoch_seconds,
            "config": self.config.model_dump(),
            "frames": split_fingerprint(self.frames, self.split),
        }
        with replacing(path) as temporary:
            self.fabric.save(temporary, self._state() | facts)

    def resume(self, path: Path | str) -> None:
        """Continue from a checkpoint as if the run had never stopped.

        Raises:
            ValueError: the checkpoint belongs to a run with other parameters or other frames.
            FileNotFoundError: best.ckpt, which the run may still need, is not beside it.
        """
        path = Path(path)
        facts = self.fabric.load(path, weights_only=True)
        self._check_same_run(path, facts)
        best = path.with_name(self.best_checkpoint.name)
        if not best.is_file():
            raise FileNotFoundError(f"best.ckpt must lie beside the checkpoint {path}, it does not")
        self.fabric.load(path, self._state(), weights_only=True)
        self.history, self.epoch_seconds = facts["history"], facts["epoch_seconds"]
        if best.resolve() != self.best_checkpoint.resolve():
            with replacing(self.best_checkpoint) as temporary:
                shutil.copyfile(best, temporary)

    def load_best(self) -> None:
        """Restore network and task weights of the epoch with the best validation joint accuracy."""
        kept = {"network": self.network, "weighting": self.weighting}
        rest = self.fabric.load(self.best_checkpoint, kept, weights_only=True)
        if len(rest["history"]) != self.best_row["epoch"]:
            best = self.best_row["epoch"]
            raise ValueError(f"{self.best_checkpoint} must hold epoch {best}, the best, and does not")

    @property
    def best_row(self) -> dict[str, float]:
        """Row of the history with the best validation joint accuracy; of equals the earliest."""
        return max(self.history, key=lambda row: row["validation_joint_accuracy"])

    def _check_same_run(self, path: Path, facts: dict[str, Any]) -> None:
        if not {"history", "config", "frames"} <= facts.keys():
            raise ValueError(f"{path} must be a checkpoint that this project wrote, it is another file")
        done = len(facts["history"])
        restoring = path.parent.resolve() == self.folder.resolve()
        if done > self.config.num_epochs or (done == self.config.num_epochs and not restoring):
            raise ValueError(
                f"num_epochs must exceed the {done} epochs that {path} has behind it, "
                f"got {self.config.num_epochs}"
            )
        free = _FREE_ON_RESUME - ({"num_epochs"} if self.config.schedule != "constant" else set())
        mine = self.config.model_dump()
        for name, value in facts["config"].items():
            if name not in free and mine[name] != value:
                raise ValueError(
                    f"{name} must stay {value!r} to resume from {path}, got {mine[name]!r}; "
                    f"leave resume_from empty to start a new run"
                )
        if facts["frames"] != split_fingerprint(self.frames, self.split):
            raise ValueError(f"{path} was trained on other frames; resume needs the same data and seed")

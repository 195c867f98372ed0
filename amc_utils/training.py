"""Training: a visible epoch loop that may stop at any step and goes on exactly where it stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric

from amc_utils.config import TrainingParameters
from amc_utils.constellation import expand_channels
from amc_utils.evaluation import means
from amc_utils.frames import Frames, Split, redraw_frames, split_fingerprint
from amc_utils.learning import Learner
from amc_utils.models import TwoHeadNetwork
from amc_utils.runtime.checkpoints import Checkpoints, check_same_run, read_checkpoint
from amc_utils.runtime.interruption import Stopped, StopRequests
from amc_utils.runtime.progress import progress
from amc_utils.runtime.sharding import BatchPlan
from amc_utils.runtime.tracking import report

# Steps between two looks at clock, signals and losses, where a look makes devices wait for each other.
_STEPS_BETWEEN_LOOKS = 20


class Trainer:
    """A network in training, with everything that a checkpoint must hold.

    Attributes:
        learner: network, task weights, optimiser, schedule; network, weighting and evaluator are its.
        history: one dict of plain numbers per finished epoch, the rows of history.csv.
        epoch_seconds: duration of each finished epoch.
        checkpoints: where best.ckpt, last.ckpt and previous.ckpt go.
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
        self.config, self.frames, self.split, self.fabric = config, frames, split, fabric
        self.plan = BatchPlan(config, split)
        self._places = self.plan.places(fabric.global_rank, fabric.world_size)
        self.checkpoints = Checkpoints(folder)
        if fabric.is_global_zero:
            self.checkpoints.claim()
        num_steps = config.num_epochs * self.plan.steps
        self.learner = Learner(config, network, frames, fabric=fabric, num_steps=num_steps)
        self.network, self.weighting = self.learner.network, self.learner.weighting
        self.evaluator = self.learner.evaluator
        self.history: list[dict[str, float]] = []
        self.epoch_seconds: list[float] = []
        # A run that goes on from another one's checkpoint says so; its own checkpoints remember.
        self.origin = config.resume_from
        self._kept: dict[str, dict[str, torch.Tensor]] = {}
        self._begin_epoch()

    @property
    def history_table(self) -> pd.DataFrame:
        """The history, one row an epoch."""
        return pd.DataFrame(self.history)

    @property
    def best_row(self) -> dict[str, float]:
        """Row with the best validation joint accuracy; of equals the earliest."""
        return max(self.history, key=lambda row: row["validation_joint_accuracy"])

    def fit(self) -> Iterator[dict[str, float]]:
        """Train the epochs that are left; yields each epoch's row of the history when it is done.

        Raises:
            Stopped: by Ctrl-C or SIGTERM; a checkpoint of the last step has been written.
            FloatingPointError: a loss is not finite.
            OSError: a checkpoint cannot be written.
        """
        # One for all epochs: a request that comes while processes wait for each other in an epoch's
        # last look is met in the first one of the next.
        requests = StopRequests()
        while len(self.history) < self.config.num_epochs:
            with requests:
                self._train_epoch(requests)
                sums = self.fabric.all_reduce(self._sums, reduce_op="sum")
                row = {"epoch": len(self.history) + 1, "learning_rate": self._learning_rate}
                row |= means("train", sums, self.weighting) | self._assess()
                self.history.append(row)
                self.epoch_seconds.append(self._seconds())
                report(self.fabric, row)
                self._begin_epoch()
                if self.best_row is row:
                    self._kept = self.learner.weights()
                self.save(self.checkpoints.last)
                if self.best_row is row:
                    self._save_best()
                self._look_around(requests)
            yield row
        requests.obey()

    def describe_epoch(self) -> str:
        """One line on the last finished epoch, with the time that the remaining ones will take."""
        row, seconds = self.history[-1], self.epoch_seconds
        left = (self.config.num_epochs - len(seconds)) * float(np.mean(seconds))
        return (
            f"epoch {row['epoch']}/{self.config.num_epochs}  train loss {row['train_loss']:.3f}  "
            f"validation loss {row['validation_loss']:.3f}  "
            f"joint {row['validation_joint_accuracy']:.3f}  "
            f"modulation {row['validation_modulation_accuracy']:.3f}  "
            f"SNR {row['validation_snr_accuracy']:.3f}  "
            + (f"{self.learner.skipped} steps skipped  " if self.learner.skipped else "")
            + f"{seconds[-1]:.0f} s, about {left:.0f} s left"
        )

    def _begin_epoch(self) -> None:
        """Forget the epoch that is over."""
        self._step, self._seconds_before = 0, 0.0
        self._sums = torch.zeros(6, dtype=torch.float64, device=self.fabric.device)
        self._learning_rate = self.learner.scheduler.get_last_lr()[0]
        self._started = self._saved = time.perf_counter()

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started

    def _train_epoch(self, requests: StopRequests) -> None:
        epoch = len(self.history)
        self._started = self._saved = time.perf_counter()
        if self.config.fresh_frames and int(self.frames.generation) != epoch:
            redraw_frames(self.frames, self.split.train, epoch)
        batches = self.plan.batches(epoch)[self._step :, self._places]
        self.network.train()
        bar = progress(
            zip(batches, self.frames.ahead(batches), strict=True),
            desc=f"epoch {epoch + 1}/{self.config.num_epochs}",
            total=self.plan.steps,
            initial=self._step,
            disable=not self.fabric.is_global_zero,
        )
        for batch, iq in bar:
            self.learner.seed(epoch, self._step)
            batch = batch.to(self.fabric.device, non_blocking=True)
            self._sums += self.learner.step(batch, iq, epoch * self.plan.steps + self._step)
            self._step += 1
            self._look_around(requests)

    def _look_around(self, requests: StopRequests) -> None:
        """Now and then: stop if a loss is bad or somebody asks to, save if it is time."""
        alone = self.fabric.device.type == "cpu" and self.fabric.world_size == 1
        if not alone and self._step % _STEPS_BETWEEN_LOOKS and self._step < self.plan.steps:
            return
        self.learner.stop_if_bad(self.plan.steps, self.checkpoints.last)
        due = time.perf_counter() - self._saved > 60 * self.config.engine.checkpoint_minutes
        flags = torch.tensor([requests.received is not None, due], dtype=torch.float64)
        # Clocks differ and a signal reaches one process first: all do what any of them has to.
        stop, due = self.fabric.all_reduce(flags.to(self.fabric.device), reduce_op="max").tolist()
        if stop or due:
            self.save(self.checkpoints.last)
            self._saved = time.perf_counter()
        if stop:
            self._seconds_before = self._seconds()
            raise Stopped(
                f"stopped after step {self._step} of epoch {len(self.history) + 1}; the run goes on "
                f"from there when it is started again with run_name {self.checkpoints.folder.name!r}"
            )

    def _assess(self) -> dict[str, float]:
        """Validation against as many training frames, both in evaluation mode."""
        validation, train = self.split.validation, self.split.train
        spread = torch.linspace(0, len(train) - 1, min(len(validation), len(train)))
        same_mode = train[spread.round().long().to(train.device)]
        row = self.evaluator.measure(same_mode, "train_eval")
        row |= self.evaluator.measure(validation, "validation")
        for name in ("weights", "variances"):
            modulation, snr = getattr(self.weighting, name).tolist()
            row |= {f"{name[:-1]}_modulation": modulation, f"{name[:-1]}_snr": snr}
        return row

    def save(self, path: Path) -> None:
        """Write a complete checkpoint; it appears whole or not at all.

        Random states need no place in it: the order of an epoch follows from seed and epoch, the
        dropout of a step from seed, epoch and step.
        """
        self.learner.stop_if_bad(self.plan.steps, self.checkpoints.last)
        facts = {
            "epoch": {
                "step": self._step,
                "seconds": self._seconds() if self._step else 0.0,
                "learning_rate": self._learning_rate,
                "sums": self.fabric.all_reduce(self._sums.clone(), reduce_op="sum").cpu(),
            },
            "epoch_seconds": self.epoch_seconds,
            "kept": self._kept,
            "origin": self.origin,
        }
        self.checkpoints.write(path, self.learner.state() | facts | self._identity(), self.fabric)

    def _save_best(self) -> None:
        identity = self._identity() | {"history": self.history[: self.best_row["epoch"]]}
        self.checkpoints.write(self.checkpoints.best, self._kept | identity, self.fabric)

    def _identity(self) -> dict[str, Any]:
        frames = split_fingerprint(self.frames, self.split)
        pictures = "+".join(expand_channels(self.config.channels))
        config = self.config.model_dump()
        return {"history": self.history, "config": config, "frames": f"{frames} {pictures}"}

    def resume(self, path: Path | str) -> None:
        """Continue from a checkpoint as if the run had never stopped.

        Raises:
            ValueError: the checkpoint is damaged, or belongs to a run with other parameters or frames.
            FileNotFoundError: there is no such file.
        """
        self._restore(Path(path), read_checkpoint(path))

    def resume_if_begun(self) -> bool:
        """Continue the run of this name from its newest checkpoint, if there is one that is whole.

        Raises:
            ValueError: see resume.
        """
        if found := self.checkpoints.newest():
            self._restore(*found)
            self.fabric.print(f"goes on after {len(self.history)} epochs and {self._step} steps")
        return bool(found)

    def _restore(self, path: Path, content: dict[str, Any]) -> None:
        fingerprint = self._identity()["frames"]
        own = path.parent.resolve() == self.checkpoints.folder.resolve()
        check_same_run(path, content, self.config, fingerprint, own=own)
        self.learner.restore(content)
        self._kept, self.origin = content["kept"], content["origin"] if own else self.origin
        self.history, self.epoch_seconds = content["history"], content["epoch_seconds"]
        self._begin_epoch()
        epoch = content["epoch"]
        self._step, self._learning_rate = epoch["step"], epoch["learning_rate"]
        self._seconds_before = epoch["seconds"]
        if self.fabric.is_global_zero:
            self._sums += epoch["sums"].to(self._sums.device)
        if self.history:
            self._save_best()

    def load_best(self) -> None:
        """Restore network and task weights of the epoch with the best validation joint accuracy."""
        self.network.load_state_dict(self._kept["network"])
        self.weighting.load_state_dict(self._kept["weighting"])

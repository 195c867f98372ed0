"""Training: a visible epoch loop that may stop at any step and goes on exactly where it stopped."""

from __future__ import annotations

import copy
import datetime
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim import lr_scheduler

from amc_utils.audit.audit import require_passed_audit
from amc_utils.config import TrainingParameters, result_affecting
from amc_utils.data import (
    BatchPlan,
    Frames,
    Split,
    cached_radioml,
    file_selection,
    load_frames,
    redraw_frames,
    share,
    split_fingerprint,
    stratified_split,
)
from amc_utils.images import expand_channels, network_input
from amc_utils.losses import MODULATION_LOSSES, TaskWeighting, predict_snr_index, snr_loss
from amc_utils.metrics import accuracy_line
from amc_utils.models import (
    Logits,
    TwoHeadNetwork,
    convert_sync_batchnorm,
    count_activation_bytes,
    count_flops,
    count_parameters,
    training_bytes,
    untrained_network,
)
from amc_utils.results import Run, claim_run_name, new_run_name, write_run
from amc_utils.runtime import tracking
from amc_utils.runtime.checkpoints import Checkpoints, read_checkpoint
from amc_utils.runtime.devices import best_accelerator, best_fabric, missing_for_compiling
from amc_utils.runtime.environment import environment
from amc_utils.runtime.interruption import Stopped, StopRequests
from amc_utils.runtime.paths import Workspace
from amc_utils.runtime.plugins import load_plugins
from amc_utils.runtime.progress import progress
from amc_utils.runtime.storage import choose_place, free_bytes
from amc_utils.runtime.tracking import report

# Share of the steps in which a one-cycle schedule raises the learning rate.
_WARM_UP = 0.15


def make_optimizer(
    network: nn.Module, weighting: nn.Module, config: TrainingParameters
) -> torch.optim.AdamW:
    """AdamW over the network and the weights of its tasks."""
    # Decay would pull the task weights towards one half, whatever the losses say.
    rate = config.learning_rate
    groups = [
        {"params": list(network.parameters()), "weight_decay": config.weight_decay},
        {
            "params": list(weighting.parameters()),
            "weight_decay": 0.0,
            "lr": rate * config.log_variance_rate,
        },
    ]
    return torch.optim.AdamW(groups, lr=rate, fused=config.engine.fused is True)


def make_scheduler(
    optimizer: torch.optim.Optimizer, config: TrainingParameters, num_steps: int
) -> lr_scheduler.LRScheduler:
    """Learning rate over `num_steps` steps: constant, a cosine to zero, or one cycle."""
    if config.schedule == "constant":
        return lr_scheduler.ConstantLR(optimizer, factor=1.0)
    if config.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=num_steps)
    highest = [group["lr"] for group in optimizer.param_groups]
    return lr_scheduler.OneCycleLR(optimizer, highest, num_steps, pct_start=_WARM_UP)


# Frames per forward pass when nothing is learnt; large enough for speed, small enough for memory.
_EVALUATION_BATCH = 256


def _says_what_fits(method: Callable) -> Callable:
    """The method of a Learner or Evaluator; when memory runs out its error says what would fit."""

    @wraps(method)
    def careful(self: Learner | Evaluator, *arguments: Any) -> Any:
        try:
            return method(self, *arguments)
        except torch.OutOfMemoryError as error:
            evaluator = getattr(self, "evaluator", self)
            said = _what_fits(evaluator, learns=self is not evaluator)
            raise torch.OutOfMemoryError(said) from error

    return careful


def _what_fits(evaluator: Evaluator, *, learns: bool) -> str:
    """One sentence on a forward pass that the device had no room for, and on one that it has."""
    config, frames, fabric = evaluator.config, evaluator.frames, evaluator.fabric
    device, parts = frames.device, fabric.world_size * config.engine.accumulate
    size = config.batch_size // parts if learns else _EVALUATION_BATCH
    room = free_bytes(device)
    if device.type == "cuda":
        # What torch holds goes with the step that failed, but for weights and samples.
        total = torch.cuda.get_device_properties(device).total_memory
        allowed = int(total * torch.cuda.get_per_process_memory_fraction(device))
        room = min(room + torch.cuda.memory_reserved(device), allowed)
    network = untrained_network(config)
    each = count_activation_bytes(network)
    taken = training_bytes(network, 0) + frames.iq_pairs.nbytes * (frames.place == "device")
    # A fifth is left for what passes; what has just failed does not fit, whatever is counted.
    most = min(0.8 * (room - taken) / each, size / 2)
    fits = 2 ** int(math.log2(most)) if most >= 1 else 0
    said = (
        f"{size} inputs of shape {network.input_shape} at once must fit into memory beside "
        f"{taken / 1e9:.3g} GB of weights and samples, and {device} has {room / 1e9:.3g} GB in all"
    )
    if not (learns and fits):
        return f"{said}; take a smaller image_size or network, or engine: {{samples_in: host}}"
    own = config.batch_size // fabric.world_size
    cut = next(count for count in range(1, own + 1) if own % count == 0 and own // count <= fits)
    smaller = f" or batch_size: {fits * parts}" if fits * parts > 1 else ""
    return f"{said}; at about {each / 1e6:.1f} MB each take engine: {{accumulate: {cut}}}{smaller}"


class Evaluator:
    """A network, the weights of its tasks, and the frames that it looks at.

    Of several processes each looks at the frames that it holds; what they find is put together.

    Attributes:
        network: the network, on the frames' device.
        weighting: the weights of the two tasks.
        frames: the frames.
        config: parameters of images and losses.
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
        return self.images(self.frames.iq(batch))

    def images(self, iq: Tensor) -> Tensor:
        """What the network is given for samples, complex64 [B, num_samples]; see network_input."""
        return network_input(iq, **self.config.image_options)

    def loss_and_correct(self, logits: Logits, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of the two tasks, float32 [2], and hits, bool [3, B]: joint, modulation, SNR."""
        config = self.config
        modulation, snr_index = self.frames.modulation[batch], self.frames.snr_index[batch]
        losses = torch.stack([
            MODULATION_LOSSES[config.modulation_loss](logits.modulation, modulation),
            snr_loss(
                logits.snr, snr_index, weights=tuple(config.snr_loss_weights), kind=config.snr_loss
            ),
        ])  # fmt: skip
        level = predict_snr_index(logits.snr, config.snr_loss)
        right = logits.modulation.argmax(1) == modulation, level == snr_index
        return losses, torch.stack([right[0] & right[1], *right])

    @_says_what_fits
    @torch.no_grad()
    def measure(self, index: Tensor, prefix: str) -> dict[str, float]:
        """Losses and accuracies over frames in evaluation mode, keys beginning with `prefix`."""
        self.network.eval()
        sums = torch.zeros(6, dtype=torch.float64, device=self.frames.device)
        batches = _batches(self.frames.local(index))
        for batch, iq in zip(batches, self.frames.prefetch(batches), strict=True):
            sums += batch_sums(*self.loss_and_correct(self.network(self.images(iq)), batch))
        return to_metrics(prefix, self.fabric.all_reduce(sums, reduce_op="sum"), self.weighting)

    @_says_what_fits
    @torch.no_grad()
    def predict(self, index: Tensor) -> pd.DataFrame:
        """Predictions for some frames, in the columns that amc_utils.metrics describes."""
        self.network.eval()
        mine = torch.isin(index, self.frames.local(index)).nonzero()[:, 0]
        # Each frame is decided by one process and zero in the others: their sum is the table.
        decided = torch.zeros(4, len(index), dtype=torch.float64, device=self.frames.device)
        places = _batches(mine)
        for place, iq in zip(places, self.frames.prefetch(index[p] for p in places), strict=True):
            logits = self.network(self.images(iq))
            modulation = logits.modulation.float().softmax(1).max(1)
            level = predict_snr_index(logits.snr, self.config.snr_loss)
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


def batch_sums(losses: Tensor, hits: Tensor) -> Tensor:
    """Sums over a batch, to be added up on the device: two losses, three hits, frames; float64 [6]."""
    size = hits.shape[1]
    return torch.cat([losses.double() * size, hits.sum(1), torch.full((1,), size, device=hits.device)])


@torch.no_grad()
def to_metrics(prefix: str, sums: Tensor, weighting: TaskWeighting) -> dict[str, float]:
    """Total loss, losses and accuracies from the sums of `batch_sums`, keys beginning with `prefix`."""
    per_frame = sums[:5] / sums[5]
    total = weighting(per_frame[:2].to(weighting.log_variance.dtype))
    names = ("modulation_loss", "snr_loss", "joint_accuracy", "modulation_accuracy", "snr_accuracy")
    row = {f"{prefix}_loss": float(total)}
    return row | {f"{prefix}_{n}": v for n, v in zip(names, per_frame.tolist(), strict=True)}


class Learner:
    """A network with what changes it.

    Attributes:
        network: the network, on the device.
        weighting: the weights of the two tasks.
        optimizer: AdamW over both.
        scheduler: its learning rate.
        evaluator: measures the network on any frames.
        skipped: number of steps that were left out because loss or gradients were not finite.
    """

    def __init__(
        self,
        config: TrainingParameters,
        network: TwoHeadNetwork,
        frames: Frames,
        *,
        fabric: Fabric,
        num_steps: int,
    ) -> None:
        self.config, self.fabric = config, fabric
        self.weighting = TaskWeighting(config.task_weighting, config.task_weights).to(fabric.device)
        optimizer = make_optimizer(network, self.weighting, config)
        # Convolutions are up to twice as fast on a CPU when channels lie innermost in memory.
        network = network.to(memory_format=torch.channels_last)
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            network = convert_sync_batchnorm(network)
        if config.engine.compile is True:
            network = torch.compile(network)
        self.network, self.optimizer = fabric.setup(network, optimizer)
        self.scheduler = make_scheduler(self.optimizer, config, num_steps)
        self.evaluator = Evaluator(self.network, self.weighting, frames, config, fabric)
        self.skipped = 0
        self._first_bad = torch.full((), -1, device=fabric.device)

    def seed(self, epoch: int, step: int) -> None:
        """Let the dropout of a step follow from seed, epoch, step and process alone."""
        words = [self.config.seed, epoch, step, self.fabric.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))

    @_says_what_fits
    def step(self, batch: Tensor, iq: Tensor, number: int) -> Tensor:
        """Learn from one batch.

        Args:
            batch: int64 [B], this process's frames of the batch.
            iq: complex64 [B, num_samples], their samples.
            number: of the step, to be named if its loss is not finite.

        Returns:
            Sums over the frames, see amc_utils.training.batch_sums; zeros for a step that was left out.
        """
        skip = self.config.engine.skip_bad_steps
        buffers = [b.clone() for b in self.network.buffers()] if skip else []
        self.optimizer.zero_grad()
        sums = torch.zeros(6, dtype=torch.float64, device=iq.device)
        parts = self.config.engine.accumulate
        for place, (part, samples) in enumerate(zip(batch.chunk(parts), iq.chunk(parts), strict=True)):
            with self.fabric.no_backward_sync(self.network, enabled=place < parts - 1):
                sums += self._backward(part, samples, parts)
        bad = ~torch.isfinite(self._gradient_norm() + sums[:2].sum())
        if skip and self.any_rank(bad):
            for buffer, before in zip(self.network.buffers(), buffers, strict=True):
                buffer.copy_(before)
            self.skipped += 1
            self.scheduler.step()
            return torch.zeros_like(sums)
        self._first_bad = torch.where(bad & (self._first_bad < 0), number, self._first_bad)
        self._update()
        return sums

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of the learner, for Fabric to save."""
        return self._parts() | {"skipped": self.skipped}

    def restore(self, content: Mapping[str, Any]) -> None:
        """Take over what `state` saved."""
        for name, part in self._parts().items():
            part.load_state_dict(content[name])
        self.skipped = content["skipped"]

    def _parts(self) -> dict[str, Any]:
        names = ("network", "weighting", "optimizer", "scheduler")
        parts = {name: getattr(self, name) for name in names}
        # Losses are scaled in half precision of 16 bits alone.
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        return parts if scaler is None else parts | {"scaler": scaler}

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Copy of the network's and the task weighting's state, in host memory."""
        parts = {"network": self.network, "weighting": self.weighting}
        return {
            name: {key: value.to("cpu", copy=True) for key, value in part.state_dict().items()}
            for name, part in parts.items()
        }

    def stop_if_bad(self, steps_per_epoch: int, last: Path) -> None:
        """Refuse to go on after a step that learnt from numbers that are not finite.

        Raises:
            FloatingPointError: names the step, and `last` as the last good checkpoint if it is there.
        """
        bad = int(self.fabric.all_reduce(self._first_bad.double(), reduce_op="max"))
        if bad < 0:
            return
        epoch, step = divmod(bad, steps_per_epoch)
        good = f"the last good checkpoint is {last}" if last.exists() else "there is no checkpoint yet"
        raise FloatingPointError(
            f"loss and gradients must be finite, they are not in step {step + 1} of epoch {epoch + 1}; "
            f"{good}. Start again with engine: {{skip_bad_steps: true}} to leave such steps out, or "
            f"begin a new run with a lower learning_rate or with gradient_clip"
        )

    def _backward(self, batch: Tensor, iq: Tensor, parts: int) -> Tensor:
        logits = self.network(self.evaluator.images(iq))
        losses, hits = self.evaluator.loss_and_correct(logits, batch)
        self.fabric.backward(self.weighting(losses) / parts)
        return batch_sums(losses.detach(), hits)

    def _gradient_norm(self) -> Tensor:
        """Norm of all gradients; 0 where losses are scaled, since the scaler itself skips bad ones."""
        if "scaler" in self._parts():
            return torch.zeros((), device=self.fabric.device)
        both = (self.network, self.weighting)
        gradients = [p.grad for part in both for p in part.parameters() if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def any_rank(self, flag: Tensor) -> bool:
        """Whether the flag is up in any process."""
        flag = flag.to(self.fabric.device, torch.float64)
        return bool(self.fabric.all_reduce(flag, reduce_op="max"))

    def _update(self) -> None:
        gradient = self.weighting.log_variance.grad
        if gradient is not None and self.fabric.world_size > 1:
            # DDP averages the gradients of the network; the weights of the tasks are no part of it.
            self.weighting.log_variance.grad = self.fabric.all_reduce(gradient, reduce_op="mean")
        if self.config.gradient_clip:
            # Whether they are finite `step` has noted already; to be told here would be a wait.
            options = {"max_norm": self.config.gradient_clip, "error_if_nonfinite": False}
            self.fabric.clip_gradients(self.network, self.optimizer, **options)
        self.optimizer.step()
        self.scheduler.step()


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
                row |= to_metrics("train", sums, self.weighting) | self._assess()
                self.history.append(row)
                self.epoch_seconds.append(self._seconds())
                report(self.fabric, row)
                self._begin_epoch()
                if self.best_row is row:
                    self._kept = self.learner.weights()
                self.save(self.checkpoints.last)
                if self.best_row is row:
                    self._save_best()
                self._handle_periodic_events(requests)
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
            zip(batches, self.frames.prefetch(batches), strict=True),
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
            self._handle_periodic_events(requests)

    def _handle_periodic_events(self, requests: StopRequests) -> None:
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
            is_over = len(self.history) == self.config.num_epochs
            step = f"step {self._step} of epoch {len(self.history) + 1}"
            raise Stopped(
                f"stopped after {'the last epoch' if is_over else step}; the run goes on "
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
        images = "+".join(expand_channels(self.config.channels))
        config = self.config.model_dump(exclude={"plugins"})
        return {"history": self.history, "config": config, "frames": f"{frames} {images}"}

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


# Steps whose time is taken at most, after a first one that compiles and allocates.
_TIMED_STEPS = 20


def epochs_in_time(
    config: TrainingParameters, network: TwoHeadNetwork, frames: Frames, split: Split, fabric: Fabric
) -> int:
    """Epochs, at least one, that fit into engine.minutes at the speed of a copy of the network.

    Steps, validation and the drawing of frames are timed; the time that this takes is taken off.
    """
    plan, started = BatchPlan(config, split), time.perf_counter()
    learner = Learner(config, copy.deepcopy(network), frames, fabric=fabric, num_steps=plan.steps)
    budget, steps = 60 * config.engine.minutes, []
    for number, batch in enumerate(
        plan.batches(0)[: _TIMED_STEPS + 1, plan.places(fabric.global_rank, fabric.world_size)]
    ):
        begun = time.perf_counter()
        # Reading a number waits for the device.
        float(learner.step(batch.to(fabric.device), frames.iq(batch), number).sum())
        steps.append(time.perf_counter() - begun)
        # All processes leave at the same step, though their clocks differ.
        if number and learner.any_rank(torch.tensor(sum(steps[1:]) > budget / 20)):
            break
    some = split.validation[:_EVALUATION_BATCH]
    # The first look compiles.
    for _ in range(2):
        begun = time.perf_counter()
        learner.evaluator.measure(some, "validation")
        look = (time.perf_counter() - begun) / len(some)
    begun = time.perf_counter()
    if config.fresh_frames:
        redraw_frames(frames, some, 0)
    draw = (time.perf_counter() - begun) / len(some)
    # Beside validation frames as many training frames are looked at.
    epoch = plan.steps * float(np.median(steps[1:] or steps))
    epoch += 2 * len(split.validation) * look + len(split.train) * draw
    left = budget - (time.perf_counter() - started)
    epochs = fabric.broadcast(max(int(left / epoch), 1))
    fabric.print(
        f"{config.batch_size * plan.steps / epoch:,.0f} images/s, validation included: an epoch takes "
        f"{epoch:.3g} s, {epochs} of them about {epochs * epoch / 60:.1f} minutes"
    )
    return epochs


def trained_network(path: Path) -> tuple[TwoHeadNetwork, TrainingParameters, dict[str, Any]]:
    """Network of a checkpoint in evaluation mode, the parameters of its training, and all else in it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or no checkpoint of this project.
    """
    stored = read_checkpoint(path)
    config = TrainingParameters.checked(stored["config"] | {"resume_from": "", "data_path": ""})
    network = untrained_network(config, pretrained=False)
    network.load_state_dict(stored["network"])
    return network.eval(), config, stored


@dataclass(frozen=True)
class Experiment:
    """A run that has a name but no results yet.

    Attributes:
        config: its parameters, "auto" replaced by what suits the device.
        notebook: name of the notebook that runs it.
        name: its name, unused so far.
        workspace: where it writes.
        started: when it began.
    """

    config: TrainingParameters
    notebook: str
    name: str
    workspace: Workspace
    started: datetime.datetime

    @classmethod
    def start(cls, config: TrainingParameters, notebook: str, *, study: str = "") -> Experiment:
        """Name a run, of a study if one is named; nothing is written before there is something to keep.

        Raises:
            ValueError: the wanted name belongs to a finished run.
        """
        # A process that was handed its parameters whole has not run these yet.
        load_plugins(config.plugins)
        workspace = Workspace.at(config.output_root, study)
        name = claim_run_name(config.run_name, workspace)
        while not config.run_name and (workspace.checkpoints / name).exists():
            name = new_run_name(workspace)
        begun = Checkpoints(workspace.checkpoints / name).newest()
        if not begun and config.resume_from:
            begun = config.resume_from, read_checkpoint(config.resume_from)
        can_compile = not missing_for_compiling()
        stored = begun[1]["config"] if begun else {}
        config = config.on_device(best_accelerator(), stored, can_compile=can_compile)
        now = datetime.datetime.now(datetime.UTC)
        return cls(config, notebook, name, workspace, now)

    @property
    def tag(self) -> str:
        """Network and images in a form that file names can hold."""
        return "_".join([self.config.network, *self.config.channels])

    @property
    def description(self) -> str:
        """Name and seed, and how the device is used."""
        engine = self.config.engine
        how = [self.config.precision, "compiled" * engine.compile, "fused AdamW" * engine.fused]
        used = ", ".join(word for word in how if word)
        return f"run {self.name}, seed {self.config.seed}, on {best_accelerator()}: {used}"

    def network(self) -> TwoHeadNetwork:
        """Untrained network that the parameters describe, its weights drawn by their seed."""
        return untrained_network(self.config)

    def fabric(self) -> Fabric:
        """Fabric on the best device there is, in the precision that the parameters ask for."""
        return best_fabric(self.config.precision)

    def frames(self, fabric: Fabric) -> Frames:
        """Frames that the parameters ask for; of several processes, those that this one works on."""
        config, engine = self.config, self.config.engine

        def shard(labelled: Frames) -> torch.Tensor | None:
            # Labels that cannot be split are refused before any samples are read.
            split = stratified_split(labelled, seed=config.seed)
            if fabric.world_size == 1:
                return None
            return share(config, split, fabric.global_rank, fabric.world_size)

        if config.data_path and not config.trust_file:
            require_passed_audit(config.data_path, config.label_order)
        options = {"device": fabric.device, "samples_in": self._place(fabric), "shard": shard}
        if config.data_path and engine.cache:
            frames = cached_radioml(**file_selection(config), trust_file=config.trust_file, **options)
        else:
            dtype = {16: torch.float16, 32: torch.float32}[engine.sample_bits]
            frames = load_frames(config, dtype=dtype, **options)
        if len(frames) < frames.num_classes * config.num_frames_per_cell:
            fabric.print(
                f"{frames.source['label']}: {len(frames) / frames.num_classes:.3g} for each class and "
                f"SNR, where {config.num_frames_per_cell} were asked for; few frames teach little"
            )
        return frames

    def _place(self, fabric: Fabric) -> str:
        """Where samples shall lie; on a GPU only if they fit beside network and images of a batch."""
        config, engine = self.config, self.config.engine
        if engine.samples_in != "auto" or fabric.device.type == "cpu":
            return engine.samples_in
        images = config.batch_size // engine.accumulate // fabric.world_size
        network = training_bytes(self.network(), images)
        num_frames = config.num_joint_classes * config.num_frames_per_cell // fabric.world_size
        width = 2 if config.data_path and engine.cache else engine.sample_bits // 8
        place = choose_place(num_frames * config.num_samples * 2 * width, fabric.device, beside=network)
        fabric.print(
            f"network and images of a batch take about {network / 1e9:.2g} GB of {fabric.device}"
        )
        return place

    def trainer(self, network: TwoHeadNetwork, frames: Frames, split: Split, fabric: Fabric) -> Trainer:
        """Trainer of the run, which goes on where a run of this name stopped, or from `resume_from`."""
        folder = self.workspace.checkpoints / self.name
        config = self.config
        if config.engine.minutes:
            begun = Checkpoints(folder).newest()
            # What the first process finds counts for all.
            epochs = fabric.broadcast(begun[1]["config"]["num_epochs"] if begun else 0)
            epochs = epochs or epochs_in_time(config, network, frames, split, fabric)
            config = config.model_copy(update={"num_epochs": epochs})
        trainer = Trainer(config, network, frames, split, fabric=fabric, folder=folder)
        try:
            if not trainer.resume_if_begun() and self.config.resume_from:
                trainer.resume(self.config.resume_from)
            tracked = self.workspace.outputs / "tracking" / self.name
            told = config.model_dump(exclude={"output_root", "data_path"})
            tracking.track(fabric, self.config.engine.tracker, tracked, told)
        except (ValueError, FileNotFoundError):
            trainer.checkpoints.abandon()
            raise
        return trainer

    def finish(self, trainer: Trainer) -> Run | None:
        """Measure the kept epoch on the test frames; the first process writes and returns the run."""
        trainer.load_best()
        predictions = trainer.evaluator.predict(trainer.split.test)
        test_loss = trainer.evaluator.measure(trainer.split.test, "test")["test_loss"]
        tracking.finish(trainer.fabric)
        if not trainer.fabric.is_global_zero:
            return None
        facts = self._facts(trainer) | {"test": {"loss": test_loss}}
        history = trainer.history_table
        return write_run(self.workspace, facts=facts, predictions=predictions, history=history)

    def _facts(self, trainer: Trainer) -> dict[str, Any]:
        config, frames = trainer.config, trainer.frames
        return {
            "run": self.name,
            "kind": "network",
            "notebook": self.notebook,
            "status": "completed",
            "started": self.started.isoformat(),
            "seconds": float(sum(trainer.epoch_seconds)),
            "epoch_seconds": trainer.epoch_seconds,
            "epochs": len(trainer.history),
            "best_epoch": trainer.best_row["epoch"],
            "kept": trainer.best_row,
            # Where files lay on this machine is nobody's business; their names are.
            "config": config.model_dump(exclude={"output_root", "plugins"})
            | {
                "data_path": Path(config.data_path).name,
                "resume_from": "/".join(Path(trainer.origin).parts[-2:]),
            },
            "plugins": [Path(file).name for file in config.plugins],
            # What a group of channels holds may change, so its members stand here by name.
            "pictures": list(expand_channels(config.channels)),
            "data": {
                "description": frames.description,
                "num_classes": frames.num_classes,
                "source": frames.source,
                "counts": trainer.split.counts,
                "test_sha256": split_fingerprint(frames, trainer.split),
            },
            "network": {
                "name": config.network,
                "options": config.network_options,
                "parameters": count_parameters(trainer.network),
                "flops_per_frame": count_flops(trainer.network),
                "activation_bytes_per_frame": count_activation_bytes(self.network()),
            },
            "engine": {
                "device": trainer.fabric.device.type,
                "processes": trainer.fabric.world_size,
                "steps_skipped": trainer.learner.skipped,
            },
            "environment": environment(),
        }


def train(
    config: TrainingParameters, notebook: str = "", study: str = "", *, record: bool = True
) -> Run | None:
    """Train, test and record a run on all devices; the first process returns it.

    Args:
        config: its parameters.
        notebook: what runs it, for the record.
        study: that it belongs to, if any.
        record: test and record it; otherwise checkpoints are all that it leaves.

    Raises:
        Stopped: by a signal; a checkpoint is written.
        ValueError: the wanted name belongs to a finished run, or to one that goes on elsewhere.
    """
    experiment = Experiment.start(config, notebook, study=study)
    fabric = experiment.fabric()
    # Without a wanted name, every process has chosen one.
    experiment = fabric.broadcast(experiment)
    # Before frames are read: a network that cannot be built is known in seconds.
    network = experiment.network()
    frames = experiment.frames(fabric)
    split = stratified_split(frames, seed=config.seed)
    if fabric.is_global_zero:
        processes = f"{fabric.world_size} processes" if fabric.world_size > 1 else "1 process"
        print(f"{experiment.description}, {processes}; {frames.description}")
        print(frames.memory_summary, flush=True)
    trainer = experiment.trainer(network, frames, split, fabric)
    for _ in trainer.fit():
        if fabric.is_global_zero:
            print(f"{experiment.name}: {trainer.describe_epoch()}", flush=True)
    run = experiment.finish(trainer) if record else None
    if fabric.world_size > 1:
        # All wait here for the last one, and none leaves threads of the exchange behind.
        fabric.barrier()
        torch.distributed.destroy_process_group()
    return run


def train_command(config: TrainingParameters) -> None:
    """Train a network, test it, and write its run folder, on any number of devices.

    On SIGTERM or Ctrl-C it saves and exits with status 75 (torchrun turns that into 1); the same
    command, with the same run_name, goes on from there.
    """
    if run := train(config):
        print(f"{accuracy_line(run.predictions)}\n{run.folder}")


_PARTS_TO_GO_ON = {"optimizer", "scheduler", "skipped", "epoch", "epoch_seconds", "kept", "origin"}


def check_same_run(
    path: Path, content: Mapping[str, Any], config: TrainingParameters, fingerprint: str, *, own: bool
) -> None:
    """Refuse a checkpoint that cannot be continued with these parameters on these frames.

    Args:
        path: the checkpoint.
        content: what it holds.
        config: parameters of the run that shall continue.
        fingerprint: of its frames and images.
        own: the checkpoint is the run's own, which may have no epoch left to train.

    Raises:
        ValueError: other parameters, other frames, or no epoch left.
    """
    if _PARTS_TO_GO_ON - content.keys():
        raise ValueError(
            f"{path} must be a last.ckpt or previous.ckpt to go on from, it has no optimiser"
        )
    done = len(content["history"])
    if done > config.num_epochs or (done == config.num_epochs and not own):
        raise ValueError(
            f"num_epochs must exceed the {done} epochs that {path} has behind it, "
            f"got {config.num_epochs}"
        )
    # A schedule that ends is made for its number of epochs; a constant one may go on.
    free = {"num_epochs"} if config.schedule == "constant" else set()
    mine, theirs = result_affecting(config.model_dump()), result_affecting(content["config"])
    for name in theirs.keys() - free:
        if mine[name] != theirs[name]:
            raise ValueError(
                f"{name} must stay {theirs[name]!r} to continue from {path}, got {mine[name]!r}; "
                f"a new run needs another run_name, and no resume_from"
            )
    if own and config.resume_from not in ("", content["origin"]) and not _inside(path, config):
        raise ValueError(
            f"resume_from must stay {content['origin']!r}, where the run {path.parent.name!r} began, "
            f"got {config.resume_from!r}; choose another run_name"
        )
    if content["frames"] != fingerprint:
        raise ValueError(
            f"{path} was trained on other frames or images; a run goes on with the same data and seed"
        )


def _inside(path: Path, config: TrainingParameters) -> bool:
    """Whether resume_from lies in the folder of `path`, the run's own."""
    return Path(config.resume_from).resolve().parent == path.resolve().parent

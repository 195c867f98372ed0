"""One step of learning, on one device or on many: forward, backward, clip, update."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

from amc_utils.config import TrainingParameters
from amc_utils.evaluation import Evaluator, tally
from amc_utils.frames import Frames
from amc_utils.losses import TaskWeighting
from amc_utils.models import TwoHeadNetwork, normalise_whole_batches
from amc_utils.optimisation import make_optimizer, make_scheduler


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
            network = normalise_whole_batches(network)
        if config.engine.compile:
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

    def step(self, batch: Tensor, iq: Tensor, number: int) -> Tensor:
        """Learn from one batch.

        Args:
            batch: int64 [B], this process's frames of the batch.
            iq: complex64 [B, num_samples], their samples.
            number: of the step, to be named if its loss is not finite.

        Returns:
            Sums over the frames, see amc_utils.evaluation.tally; zeros for a step that was left out.
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
        if skip and self._anywhere(bad):
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
        logits = self.network(self.evaluator.pictures(iq))
        losses, hits = self.evaluator.judge(logits, batch)
        self.fabric.backward(self.weighting(losses) / parts)
        return tally(losses.detach(), hits)

    def _gradient_norm(self) -> Tensor:
        """Norm of all gradients; 0 where losses are scaled, since the scaler itself skips bad ones."""
        if "scaler" in self._parts():
            return torch.zeros((), device=self.fabric.device)
        both = (self.network, self.weighting)
        gradients = [p.grad for part in both for p in part.parameters() if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def _anywhere(self, flag: Tensor) -> bool:
        """Whether the flag is up in any process."""
        return bool(self.fabric.all_reduce(flag.double(), reduce_op="max"))

    def _update(self) -> None:
        gradient = self.weighting.log_variance.grad
        if gradient is not None and self.fabric.world_size > 1:
            # DDP averages the gradients of the network; the weights of the tasks are no part of it.
            self.weighting.log_variance.grad = self.fabric.all_reduce(gradient, reduce_op="mean")
        if self.config.gradient_clip:
            self.fabric.clip_gradients(self.network, self.optimizer, max_norm=self.config.gradient_clip)
        self.optimizer.step()
        self.scheduler.step()

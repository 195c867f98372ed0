"""Losses of the two tasks and the ways to weigh them against each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from amc_utils.runtime.plugins import refuse_taken


def expected_distance(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of the expected distance in steps between predicted and true SNR level.

    The expectation is taken under the softmax, so the loss has a gradient; the distance of the
    argmax would have none.

    Args:
        logits: float [B, num_levels].
        target: int64 [B].
    """
    levels = torch.arange(logits.shape[1], device=logits.device)
    distance = (levels - target[:, None]).abs().to(torch.float32)
    return (logits.float().softmax(1) * distance).sum(1).mean()


def cumulative_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropies of "at most level k", summed over k, mean over the batch.

    The probabilities are sums of the softmax, so levels that are ordered are learnt as ordered.

    Args:
        logits: float [B, num_levels].
        target: int64 [B].

    Source: Frank, Hall, "A Simple Approach to Ordinal Classification", 2001, its binary tasks; here of
    one softmax instead of a classifier each.
    """
    log_share = torch.log_softmax(logits.float(), 1)
    at_most = torch.logcumsumexp(log_share, 1)[:, :-1]
    above = torch.logcumsumexp(log_share.flip(1), 1).flip(1)[:, 1:]
    levels = torch.arange(logits.shape[1] - 1, device=logits.device)
    return -torch.where(target[:, None] <= levels, at_most, above).sum(1).mean()


def earth_mover_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Squared differences of cumulative probabilities, summed over levels, mean over the batch.

    Args:
        logits: float [B, num_levels].
        target: int64 [B].

    Source: Hou, Yu, Samaras, "Squared Earth Mover's Distance-based Loss for Training Deep Neural
    Networks", 2016.
    """
    at_most = logits.float().softmax(1).cumsum(1)
    levels = torch.arange(logits.shape[1], device=logits.device)
    return (at_most - (target[:, None] <= levels).to(at_most.dtype)).square().sum(1).mean()


def regression_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Squared error in steps of the softmax's mean level, mean over the batch.

    Args:
        logits: float [B, num_levels].
        target: int64 [B].
    """
    return (_mean_level(logits) - target).square().mean()


def _mean_level(logits: Tensor) -> Tensor:
    levels = torch.arange(logits.shape[1], device=logits.device, dtype=torch.float32)
    return logits.float().softmax(1) @ levels


Loss = Callable[[Tensor, Tensor], Tensor]
SNR_LOSSES = {
    "cross_entropy": lambda logits, target: cross_entropy(logits.float(), target),
    "cumulative": cumulative_loss,
    "earth_mover": earth_mover_loss,
    "regression": regression_loss,
}


MODULATION_LOSSES = {"cross_entropy": lambda logits, target: cross_entropy(logits.float(), target)}


_OWN_NAMES = frozenset({*MODULATION_LOSSES, *SNR_LOSSES})


def register_loss(task: str, name: str) -> Callable[[Loss], Loss]:
    """Decorator that makes a function of logits, float [B, classes], and targets, int64 [B], a loss.

    Args:
        task: "modulation" or "snr".
        name: what modulation_loss or snr_loss call it.
    """
    refuse_taken(name, _OWN_NAMES, "a loss")

    def keep(loss: Loss) -> Loss:
        {"modulation": MODULATION_LOSSES, "snr": SNR_LOSSES}[task][name] = loss
        return loss

    return keep


def snr_loss(
    logits: Tensor, target: Tensor, *, weights: tuple[float, float], kind: str = "cross_entropy"
) -> Tensor:
    """weights[0] * loss of that kind, see SNR_LOSSES, + weights[1] * expected distance in steps."""
    alpha, beta = weights
    return alpha * SNR_LOSSES[kind](logits, target) + beta * expected_distance(logits, target)


def predict_snr_index(logits: Tensor, kind: str) -> Tensor:
    """SNR level decided for, int64 [B]: the likeliest, with "regression" that next to the mean."""
    return _mean_level(logits).round().long() if kind == "regression" else logits.argmax(1)


class TaskWeighting(nn.Module):
    """Total of two task losses: learned log-variances, their mean, or a sum with weights of choice.

    With "log_variance" the total is sum_i (exp(-s_i) L_i + s_i) / 2 with a learned s_i per task.
    At its optimum exp(s_i) = L_i: the weights are the normalised inverse losses and the total is
    sum_i (1 + ln L_i) / 2, whatever the tasks mean.

    Source: Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", 2018,
    equation 7, with the factor 1/2 for both tasks.
    """

    def __init__(
        self,
        kind: Literal["log_variance", "equal", "sum"],
        task_weights: Sequence[float] = (1.0, 1.0),
    ) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("task_weights", torch.tensor(task_weights).float(), persistent=False)
        learned = kind == "log_variance"
        self.log_variance = nn.Parameter(torch.zeros(len(task_weights)), requires_grad=learned)

    def forward(self, losses: Tensor) -> Tensor:
        """Scalar total of the losses [num_tasks]."""
        if self.kind == "log_variance":
            return 0.5 * (torch.exp(-self.log_variance) * losses + self.log_variance).sum()
        return losses.mean() if self.kind == "equal" else losses @ self.task_weights

    @property
    def weights(self) -> Tensor:
        """Share of each task, float32 [num_tasks], summing to 1."""
        return torch.softmax(self.task_weights.log() - self.log_variance.detach(), 0)

    @property
    def variances(self) -> Tensor:
        """exp(log_variance), float32 [num_tasks]; the training log calls these uncertainties."""
        return self.log_variance.detach().exp()

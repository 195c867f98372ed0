"""Losses of the two tasks and the ways to weigh them against each other."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


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


def snr_loss(logits: Tensor, target: Tensor, *, weights: tuple[float, float]) -> Tensor:
    """weights[0] * cross-entropy + weights[1] * expected distance in steps."""
    alpha, beta = weights
    return alpha * cross_entropy(logits.float(), target) + beta * expected_distance(logits, target)


class TaskWeighting(nn.Module):
    """Total of two task losses: learned log-variances, equal weights, or the plain sum.

    With "log_variance" the total is sum_i (exp(-s_i) L_i + s_i) / 2 with a learned s_i per task.
    At its optimum exp(s_i) = L_i: the weights are the normalised inverse losses and the total is
    sum_i (1 + ln L_i) / 2, whatever the tasks mean.

    Source: Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", 2018,
    equation 7, with the factor 1/2 for both tasks.
    """

    def __init__(self, kind: Literal["log_variance", "equal", "sum"], num_tasks: int = 2) -> None:
        super().__init__()
        self.kind = kind
        learned = kind == "log_variance"
        self.log_variance = nn.Parameter(torch.zeros(num_tasks), requires_grad=learned)

    def forward(self, losses: Tensor) -> Tensor:
        """Scalar total of the losses [num_tasks]."""
        if self.kind == "log_variance":
            return 0.5 * (torch.exp(-self.log_variance) * losses + self.log_variance).sum()
        return losses.mean() if self.kind == "equal" else losses.sum()

    @property
    def weights(self) -> Tensor:
        """Share of each task, float32 [num_tasks], summing to 1."""
        return torch.softmax(-self.log_variance.detach(), 0)

    @property
    def variances(self) -> Tensor:
        """exp(log_variance), float32 [num_tasks]; the training log calls these uncertainties."""
        return self.log_variance.detach().exp()

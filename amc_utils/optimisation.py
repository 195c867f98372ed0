"""Optimiser and learning-rate schedule of a training run."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import lr_scheduler

from amc_utils.config import TrainingParameters

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
    return torch.optim.AdamW(groups, lr=rate, fused=config.engine.fused)


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

"""Optimiser: rates of network and task weights, and what AdamW makes of a loss's scale."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from amc_utils.losses import TaskWeighting
from amc_utils.training import make_optimizer, make_scheduler


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_log_variances_have_their_multiple_of_the_rate_at_every_step(make_config, schedule):
    config = make_config(schedule=schedule, learning_rate=2e-3, log_variance_rate=30.0)
    optimizer = make_optimizer(nn.Linear(2, 2), TaskWeighting("log_variance"), config)
    scheduler = make_scheduler(optimizer, config, num_steps=10)
    for _ in range(9):
        network, weighting = (group["lr"] for group in optimizer.param_groups)
        assert network > 0
        assert weighting == pytest.approx(30 * network)
        optimizer.step()
        scheduler.step()


def test_rate_of_log_variances_that_are_not_learnt_is_refused(make_config):
    with pytest.raises(ValueError, match=r"log_variance_rate must stay 1.0 with task_weighting 'sum'"):
        make_config(task_weighting="sum", log_variance_rate=2.0)


def test_log_variances_settle_at_the_losses_in_a_short_run(make_config):
    config = make_config(schedule="one_cycle", learning_rate=1e-3, log_variance_rate=30.0)
    settled = settle(config)
    assert settled.tolist() == pytest.approx([2.0, 2.7], rel=0.02)
    assert settle(make_config(schedule="one_cycle", learning_rate=1e-3)).max() < 1.5


def settle(config):
    """Variances after 550 steps at losses of 2.0 and 2.7."""
    weighting = TaskWeighting("log_variance")
    optimizer = make_optimizer(nn.Linear(1, 1), weighting, config)
    scheduler = make_scheduler(optimizer, config, num_steps=550)
    for _ in range(550):
        optimizer.zero_grad()
        weighting(torch.tensor([2.0, 2.7])).backward()
        optimizer.step()
        scheduler.step()
    return weighting.variances


def test_sum_and_mean_of_losses_are_the_same_to_adamw(make_config):
    """Half the loss has half the gradient, by whose size AdamW divides."""
    ends = []
    for kind in ("sum", "equal"):
        config = make_config(task_weighting=kind, weight_decay=0.1, learning_rate=1e-2)
        torch.manual_seed(0)
        network, weighting = nn.Linear(4, 2), TaskWeighting(kind)
        start = network.weight.detach().clone()
        optimizer = make_optimizer(network, weighting, config)
        for step in range(30):
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            weighting((network(x) - x[:, :2]).square().mean(0)).backward()
            optimizer.step()
        ends.append(network.weight.detach())
        assert (ends[-1] - start).abs().max() > 0.1
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)

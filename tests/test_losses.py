"""Loss terms: published numbers, and gradients that are neither wrong nor zero."""

from __future__ import annotations

import math

import pytest
import torch

from amc_utils.losses import TaskWeighting, expected_distance, snr_loss

LOGGED_VARIANCES = torch.tensor([1.510, 2.456])


def test_logged_weights_are_inverse_variances():
    weighting = TaskWeighting("log_variance")
    weighting.log_variance.data = LOGGED_VARIANCES.log()
    assert weighting.weights.tolist() == pytest.approx([0.619, 0.381], abs=5e-4)
    torch.testing.assert_close(weighting.variances, LOGGED_VARIANCES)


def test_logged_total_is_the_one_at_equilibrium():
    """Descending on the log-variances alone ends at the losses, where the total is the log's 1.66."""
    weighting = TaskWeighting("log_variance")
    optimizer = torch.optim.SGD(weighting.parameters(), lr=0.5)
    for _ in range(500):
        optimizer.zero_grad()
        weighting(LOGGED_VARIANCES).backward()
        optimizer.step()
    torch.testing.assert_close(weighting.variances, LOGGED_VARIANCES, rtol=1e-4, atol=0)
    total = weighting(LOGGED_VARIANCES).item()
    assert total == pytest.approx(1 + (math.log(1.510) + math.log(2.456)) / 2, abs=1e-5)
    assert total == pytest.approx(1.655, abs=5e-4)


def test_fixed_weightings():
    losses = torch.tensor([1.0, 3.0])
    assert float(TaskWeighting("equal")(losses)) == 2
    assert float(TaskWeighting("sum")(losses)) == 4
    assert not any(p.requires_grad for p in TaskWeighting("sum").parameters())


def test_expected_distance_of_certain_and_of_uniform_predictions():
    certain = torch.full((1, 5), -1e4)
    certain[0, 4] = 0
    assert float(expected_distance(certain, torch.tensor([1]))) == pytest.approx(3)
    assert float(expected_distance(torch.zeros(1, 5), torch.tensor([0]))) == pytest.approx(2)


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (1.0, 0.1)])
def test_gradient_equals_finite_difference_and_is_not_zero(weights, rng):
    logits = torch.randn(4, 6, generator=rng).requires_grad_()
    target = torch.tensor([0, 5, 2, 3])
    snr_loss(logits, target, weights=weights).backward()
    assert logits.grad.abs().max() > 1e-3
    step = 1e-2
    for place in [(0, 0), (1, 3), (3, 5)]:
        nudge = torch.zeros_like(logits)
        nudge[place] = step
        with torch.no_grad():
            up, down = (snr_loss(logits + s * nudge, target, weights=weights) for s in (1, -1))
        assert float(logits.grad[place]) == pytest.approx(float(up - down) / (2 * step), abs=1e-4)


def test_snr_loss_weighs_cross_entropy_first_and_distance_second():
    """Uniform logits over 5 levels, true level 0: cross-entropy ln 5, expected distance 2."""
    logits, target = torch.zeros(1, 5), torch.tensor([0])
    for weights, expected in {
        (1.0, 0.0): math.log(5),
        (0.0, 1.0): 2,
        (2.0, 0.5): 2 * math.log(5) + 1,
    }.items():
        assert snr_loss(logits, target, weights=weights).item() == pytest.approx(expected)


def test_weighting_gradient_reaches_losses_and_log_variances():
    weighting = TaskWeighting("log_variance")
    losses = torch.tensor([2.0, 0.5], requires_grad=True)
    weighting(losses).backward()
    torch.testing.assert_close(losses.grad, torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(weighting.log_variance.grad, torch.tensor([-0.5, 0.25]))

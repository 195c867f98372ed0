"""Loss terms: published numbers, and gradients that are neither wrong nor zero."""

from __future__ import annotations

import math

import pytest
import torch

from amc_utils import losses
from amc_utils.config import TrainingParameters
from amc_utils.losses import (
    SNR_LOSSES,
    TaskWeighting,
    cumulative_loss,
    earth_mover_loss,
    expected_distance,
    predict_snr_index,
    register_loss,
    regression_loss,
    snr_loss,
)

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


def test_losses_of_ordered_levels_of_certain_and_of_uniform_predictions():
    """Uniform over 4 levels, true level 0: cumulative shares 1/4, 2/4, 3/4, 1 against 1, 1, 1, 1."""
    uniform, target = torch.zeros(1, 4), torch.tensor([0])
    expected = -(math.log(1 / 4) + math.log(2 / 4) + math.log(3 / 4))
    assert float(cumulative_loss(uniform, target)) == pytest.approx(expected)
    squares = (3 / 4) ** 2 + (2 / 4) ** 2 + (1 / 4) ** 2
    assert float(earth_mover_loss(uniform, target)) == pytest.approx(squares)
    assert float(regression_loss(uniform, target)) == pytest.approx(1.5**2)
    certain = torch.full((1, 4), -40.0)
    certain[0, 2] = 40
    for loss in (cumulative_loss, earth_mover_loss, regression_loss):
        assert float(loss(certain, torch.tensor([2]))) == pytest.approx(0, abs=1e-5)
        # Further off is worse, which a cross-entropy does not know.
        assert float(loss(certain, torch.tensor([0]))) > float(loss(certain, torch.tensor([1]))) > 0.5


def test_level_is_the_likeliest_or_next_to_the_mean():
    """Shares 0.5, 0, 0, 0.2, 0.3: the likeliest is 0, the mean 1.8."""
    logits = torch.tensor([[0.5, 1e-9, 1e-9, 0.2, 0.3]]).log()
    assert predict_snr_index(logits, "cross_entropy").tolist() == [0]
    assert predict_snr_index(logits, "regression").tolist() == [2]


def test_sum_of_tasks_has_the_weights_of_choice():
    weighting = TaskWeighting("sum", [0.5, 1.5])
    assert float(weighting(torch.tensor([2.0, 4.0]))) == pytest.approx(7)
    assert weighting.weights.tolist() == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize("kind", SNR_LOSSES)
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (1.0, 0.1)])
def test_gradient_equals_finite_difference_and_is_not_zero(weights, kind, rng):
    logits = torch.randn(4, 6, generator=rng).requires_grad_()
    target = torch.tensor([0, 5, 2, 3])
    snr_loss(logits, target, weights=weights, kind=kind).backward()
    assert logits.grad.abs().max() > 1e-3
    step = 1e-2
    for place in [(0, 0), (1, 3), (3, 5)]:
        nudge = torch.zeros_like(logits)
        nudge[place] = step
        with torch.no_grad():
            up, down = (
                snr_loss(logits + s * nudge, target, weights=weights, kind=kind) for s in (1, -1)
            )
        assert float(logits.grad[place]) == pytest.approx(
            float(up - down) / (2 * step), abs=1e-4, rel=1e-3
        )


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


def test_registered_losses_are_known_to_parameters_and_used(monkeypatch):
    monkeypatch.setattr(losses, "MODULATION_LOSSES", losses.MODULATION_LOSSES.copy())
    register_loss("modulation", "nothing")(lambda logits, target: logits.sum() * 0)
    assert losses.MODULATION_LOSSES["nothing"](torch.ones(2, 3), torch.zeros(2)) == 0
    with pytest.raises(ValueError, match=r"modulation_loss must be one of .*, got 'other'"):
        TrainingParameters.checked({"modulation_loss": "other"})

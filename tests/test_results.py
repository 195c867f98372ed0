"""What the committed results must fulfil, whoever made them."""

from __future__ import annotations

import pytest

from amc_utils.paths import REPOSITORY
from amc_utils.records import list_runs

RUNS = {run.name: run for run in list_runs(REPOSITORY / "results")}
BOUNDS = {run.label: run for run in RUNS.values() if run.kind == "bound"}
BOUND, TOLD = BOUNDS["genie-aided bound"], BOUNDS["genie-aided bound, SNR told"]
SAME_CLASSES = [name for name, run in RUNS.items() if run.kind != "bound" and run.scope == BOUND.scope]


def by_snr(run, task):
    rows = run.metrics[(run.metrics["group"] == "snr_label") & (run.metrics["metric"] == task)]
    return rows.assign(level=rows["level"].astype(int)).set_index("level").sort_index()


@pytest.mark.parametrize("name", SAME_CLASSES)
def test_nobody_beats_the_bound_on_average(name):
    ours, best = (run.facts["test"]["joint_accuracy"] for run in (RUNS[name], BOUND))
    assert ours["low"] <= best["high"]


@pytest.mark.parametrize("name", SAME_CLASSES)
def test_nobody_beats_the_bound_that_is_told_the_snr_at_any_snr(name):
    """Only the receiver that is told the SNR is a bound at every SNR by itself."""
    run, told = by_snr(RUNS[name], "joint_accuracy"), by_snr(TOLD, "joint_accuracy")
    assert run.index.equals(told.index)
    assert (run["low"] <= told["high"]).all()


def test_bound_is_of_full_size():
    for bound in (BOUND, TOLD):
        assert bound.facts["data"]["num_classes"] == 442
        assert len(bound.predictions) == 442 * 200
    assert {RUNS[name].kind for name in SAME_CLASSES} >= {"network", "receiver"}

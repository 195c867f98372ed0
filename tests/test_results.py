"""What the committed results must fulfil, whoever made them."""

from __future__ import annotations

import pytest

from amc_utils.paths import REPOSITORY
from amc_utils.records import list_runs

RUNS = {run.name: run for run in list_runs(REPOSITORY / "results")}
BOUND = next(run for run in RUNS.values() if run.kind == "bound")
SAME_CLASSES = [name for name, run in RUNS.items() if run.kind != "bound" and run.scope == BOUND.scope]


def by_snr(run, task):
    rows = run.metrics[(run.metrics["group"] == "snr_db") & (run.metrics["metric"] == task)]
    return rows.assign(level=rows["level"].astype(int)).set_index("level").sort_index()


@pytest.mark.parametrize("name", SAME_CLASSES)
def test_nobody_beats_the_bound_at_any_snr(name):
    run, bound = by_snr(RUNS[name], "joint_accuracy"), by_snr(BOUND, "joint_accuracy")
    assert run.index.equals(bound.index)
    assert (run["low"] <= bound["high"]).all()


def test_bound_is_of_full_size():
    assert BOUND.facts["data"]["num_classes"] == 442
    assert len(BOUND.predictions) == 442 * 200
    assert {RUNS[name].kind for name in SAME_CLASSES} >= {"network", "receiver"}

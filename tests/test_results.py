"""What the committed results must fulfil, whoever made them."""

from __future__ import annotations

import pytest

from amc_utils.results import kept_runs
from amc_utils.runtime.paths import REPOSITORY, Workspace
from amc_utils.studies.record import list_studies

RUNS = {run.name: run for run in kept_runs(Workspace(REPOSITORY))}
# The bounds of each set of classes and channel, by what the receiver knows.
BOUNDS = {(run.scope, run.label): run for run in RUNS.values() if run.kind == "bound"}
PLAIN, KNOWN = "genie-aided bound", "genie-aided bound, SNR known"
SCOPES = {scope for scope, label in BOUNDS if label == PLAIN}
BOUNDED = [name for name, run in RUNS.items() if run.kind != "bound" and run.scope in SCOPES]


def by_snr(run, task):
    rows = run.metrics[(run.metrics["group"] == "snr_label") & (run.metrics["metric"] == task)]
    return rows.assign(level=rows["level"].astype(int)).set_index("level").sort_index()


@pytest.mark.parametrize("name", BOUNDED)
def test_nobody_beats_the_bound_on_average(name):
    bound = BOUNDS[RUNS[name].scope, PLAIN]
    ours, best = (run.facts["test"]["joint_accuracy"] for run in (RUNS[name], bound))
    assert ours["low"] <= best["high"]


@pytest.mark.parametrize("name", [n for n in BOUNDED if (RUNS[n].scope, KNOWN) in BOUNDS])
def test_nobody_beats_the_bound_that_knows_the_snr_at_any_snr(name):
    """Only the receiver that knows the SNR is a bound at every SNR by itself."""
    bound = BOUNDS[RUNS[name].scope, KNOWN]
    run, best = (by_snr(some, "joint_accuracy") for some in (RUNS[name], bound))
    assert run.index.equals(best.index)
    assert (run["low"] <= best["high"]).all()


def test_bounds_are_of_full_size():
    assert len(SCOPES) == 2
    # On the open channel there is the bound with known SNR alone.
    assert {scope for scope, _ in BOUNDS if "(open)" not in scope} == SCOPES
    for bound in BOUNDS.values():
        assert bound.facts["data"]["num_classes"] == 442
        assert len(bound.predictions) >= 442 * 100
    for scope in SCOPES:
        kinds = {RUNS[name].kind for name in BOUNDED if RUNS[name].scope == scope}
        assert kinds >= {"network", "receiver"}


STUDIES = ["", *(study.name for study in list_studies(Workspace(REPOSITORY)))]


@pytest.mark.parametrize("study", STUDIES)
def test_scores_of_each_run_are_those_of_its_predictions(study):
    for run in kept_runs(Workspace(REPOSITORY, study)):
        overall = run.metrics[run.metrics["group"] == "all"].set_index("metric")
        for metric, row in overall.iterrows():
            stored = run.facts["test"][metric]
            assert [stored[end] for end in ("value", "low", "high")] == pytest.approx(
                [row["value"], row["low"], row["high"]], abs=1e-9
            ), (run.name, metric)

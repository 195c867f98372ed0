"""Claims of the training log: numbers, intervals, and a verdict by a rule that was fixed before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2

from amc_utils.metrics import half_interval
from amc_utils.results import Run, named_run
from amc_utils.runtime.paths import Workspace, atomic_write
from amc_utils.studies.claim_measures import MEASURES
from amc_utils.studies.claim_rules import Claim, ClaimTest, read_claims
from amc_utils.studies.pages import write_pages
from amc_utils.studies.record import StudyRecord, list_studies
from amc_utils.studies.runlog import update_runlog

_OPEN = "open"
# Fewer seeds give no interval worth a verdict.
_LEAST_RUNS = 3
_RANGES = ("support_low", "support_high", "refute_low", "refute_high")


def evaluate(claims: dict[str, Claim], workspace: Workspace) -> pd.DataFrame:
    """A row a test.

    Returns:
        Columns claim, what, measure, unit, scale (classes, data, network, frames, pixels), num_runs,
        statistic, number, low and high (see `interval`), values (of the runs); tflop and tflop_minus,
        the operations of a run of either variant, forward and backward; verdict; decides; and the
        ranges of the rule, support_low to refute_high. Numbers want three runs or more.
    """
    # Runs of a study are read once for all claims.
    studies = {study.name: study for study in list_studies(workspace)}
    rows = [
        {"claim": name, "unit": MEASURES[test.measure].unit}
        | test.model_dump(include={"what", "measure", "statistic", "decides"})
        | _measured(test, workspace, studies)
        for name, claim in claims.items()
        for test in claim.tests
    ]
    columns = ["claim", "what", "measure", "unit", "scale", "num_runs", "statistic", "number", "low"]
    columns += ["high", "values", "tflop", "tflop_minus", "verdict", "decides"]
    return pd.DataFrame(rows, columns=[*columns, *_RANGES])


def _measured(
    test: ClaimTest, workspace: Workspace, studies: Mapping[str, StudyRecord]
) -> dict[str, Any]:
    runs = _runs(test, test.variant, workspace, studies)
    others = _runs(test, test.minus, workspace, studies) if test.minus else []
    nothing = (None, None)
    bounds = [*(test.supported or nothing), *(test.refuted or nothing)]
    ranges = dict(zip(_RANGES, bounds, strict=True))
    if len(runs) < _LEAST_RUNS or (test.minus and not others):
        verdict = f"open until {test.awaits}" if test.awaits else "not run yet"
        return {"num_runs": len(runs), "verdict": verdict} | ranges
    values, frame_error = _values(test, runs, others)
    number, low, high = interval(values, test.statistic, frame_error)
    return {
        "scale": _scale(runs, others),
        "num_runs": len(runs),
        "number": number,
        "low": low,
        "high": high,
        "values": " ".join(f"{value:.4g}" for value in values),
        "tflop": _tflop(runs),
        "tflop_minus": _tflop(others),
        "verdict": _verdict(test, low, high),
    } | ranges


def _values(test: ClaimTest, runs: list[Run], others: list[Run]) -> tuple[list[float], float]:
    """Numbers of the runs, and the standard error that they have in common, of shared test frames."""
    seeds = [[run.trained.facts["config"]["seed"] for run in some] for some in (runs, others)]
    if others and seeds[0] != seeds[1]:
        raise ValueError(f"{test.what!r} compares runs by seed, and got {seeds[0]} against {seeds[1]}")
    measure = MEASURES[test.measure]
    if measure.takes == "pair":
        return [measure.of(*pair) for pair in zip(runs, others, strict=True)], 0.0
    if measure.takes == "run":
        values, minus = ([measure.of(run) for run in some] for some in (runs, others))
        return list(np.subtract(values, minus) if others else values), 0.0
    by_frame, minus = (
        [measure.of(run.predictions).to_numpy(float) for run in some] for some in (runs, others)
    )
    if others:
        by_frame = [one - other for one, other in zip(by_frame, minus, strict=True)]
    values = [float(frames.mean()) for frames in by_frame]
    first = runs[0].facts["data"]
    if any(run.facts["data"] != first for run in runs):
        return values, 0.0
    means = np.mean(by_frame, axis=0)
    return values, float(means.std(ddof=1) / np.sqrt(len(means)))


def _runs(
    test: ClaimTest, variant: str, workspace: Workspace, studies: Mapping[str, StudyRecord]
) -> list[Run]:
    """Runs of the test by seed; none as long as a seed of the study is missing."""
    if test.runs:
        return [named_run(workspace, name) for name in test.runs]
    if test.study not in studies:
        return []
    study = studies[test.study]
    table = study.table
    chosen = table[(table["variant"] == variant) & (table["tested_on"] == test.tested_on)]
    missing = set(study.plan["seeds"]) - set(chosen["seed"])
    return [] if missing else [study.runs[place] for place in chosen.sort_values("seed").index]


def interval(
    values: Sequence[float], statistic: str = "mean", frame_error: float = 0.0
) -> tuple[float, float, float]:
    """A number of several runs, and the ends of its interval.

    The 95 % interval of a mean is Student's, that of a standard deviation ("spread") is by chi-square;
    for "each" it is the mean and the extremes.

    Args:
        values: of the runs.
        statistic: see amc_utils.studies.claim_rules.ClaimTest.
        frame_error: standard error of a mean that all values share, since the frames are the same.
    """
    mean, deviation, free = float(np.mean(values)), float(np.std(values, ddof=1)), len(values) - 1
    if statistic == "each":
        return mean, float(min(values)), float(max(values))
    if statistic == "spread":
        low, high = deviation * np.sqrt(free / chi2.ppf([0.975, 0.025], free))
        return deviation, float(low), float(high)
    seed_half = half_interval(deviation / np.sqrt(len(values)), len(values))
    half = float(np.hypot(seed_half, half_interval(frame_error)))
    return mean, mean - half, mean + half


def _verdict(test: ClaimTest, low: float, high: float) -> str:
    ranges = {test.supports: test.supported, "not supported": test.refuted}
    verdicts = [
        verdict
        for verdict, bounds in ranges.items()
        if bounds is not None and bounds[0] <= low and high <= bounds[1]
    ]
    # An interval of no width may lie where both ranges meet.
    if len(verdicts) == 1:
        # A longer run on a GPU is planned, which may decide otherwise.
        return f"{verdicts[0]} at this scale" if test.awaits else verdicts[0]
    if test.supported and test.refuted:
        lower, upper = sorted([test.supported, test.refuted])
        if lower[1] < low and high < upper[0]:
            return "neither"
    return f"open until {test.awaits}" if test.awaits else _OPEN


def _scale(runs: Sequence[Run], others: Sequence[Run]) -> str:
    first = runs[0].trained.facts
    trained = dict.fromkeys(_training(some) for some in (runs, others) if some)
    about = f"{first['data']['num_classes']} classes, {first['data']['source']['label']}"
    return f"{about}; {' less '.join(trained)}; {first['config']['image_size']} px"


def _training(runs: Sequence[Run]) -> str:
    """Networks of the runs, and how many frames they have seen."""
    networks = sorted({run.facts["network"]["name"] for run in runs})
    frames = sorted({run.trained.frames_seen for run in runs})
    ends = dict.fromkeys(f"{count:,}" for count in (frames[0], frames[-1]))
    return f"{', '.join(networks)}, {' to '.join(ends)} frames"


def _tflop(runs: Sequence[Run]) -> float | None:
    """A backward pass costs two forward passes."""
    if not runs:
        return None
    costs = [3 * run.facts["network"]["flops_per_frame"] * run.trained.frames_seen for run in runs]
    return float(f"{np.mean(costs) / 1e12:.4g}")


def report(output_root: str = "") -> None:
    """Write RUNLOG.md from results/ and, of the repository, the generated parts of README.md and docs/.

    Args:
        output_root: workspace; empty is the repository.
    """
    claims = {} if output_root else read_claims()
    workspace = Workspace.at(output_root)
    print(update_runlog(workspace))
    if claims:
        rows = evaluate(claims, workspace)
        with atomic_write(workspace.results / "claims.csv") as temporary:
            rows.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
        # Of the digits that the file has, so that pages can be made from it again.
        write_pages(workspace, pd.read_csv(workspace.results / "claims.csv"))
        columns = ["claim", "what", "number", "low", "high", "verdict"]
        print(rows[columns].round(4).to_string(index=False))

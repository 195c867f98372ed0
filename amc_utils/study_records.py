"""Finished runs of studies, read: results/studies/<study>/."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import t as student_t

from amc_utils.metrics import TASKS
from amc_utils.records import Run, list_runs


@dataclass(frozen=True)
class StudyRecord:
    """What is finished of a study, read from its folder."""

    folder: Path

    @property
    def name(self) -> str:
        """Name of the study and of its folder."""
        return self.folder.name

    @cached_property
    def plan(self) -> dict[str, Any]:
        """The study file as last run, in terms of amc_utils.studies.study.Study."""
        return json.loads((self.folder / "study.json").read_text(encoding="utf8"))

    @cached_property
    def question(self) -> str:
        """What the study asks."""
        return self.plan["question"]

    @cached_property
    def runs(self) -> list[Run]:
        """Its finished runs in the order of its plan, those no longer planned last."""
        variants, tested_on = ([*self.plan["variants"]], ["", *self.plan["transfers"]])

        def place(run: Run) -> tuple[int, int, int]:
            variant, seed, transfer, *_ = _row(run)
            return _index(variants, variant), seed, _index(tested_on, transfer)

        return sorted(list_runs(self.folder), key=place)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Test accuracies, one row a run.

        Columns: variant, seed, tested_on (empty where tested on frames like those of training), number
        of frames_seen in training, and for each task its accuracy.
        """
        columns = ["variant", "seed", "tested_on", "frames_seen", *TASKS]
        return pd.DataFrame([_row(run) for run in self.runs], columns=columns)

    def means(self, task: str = "joint", *, minus: str = "") -> pd.DataFrame:
        """Mean over seeds, with the 95 % interval of Student's t where there are several.

        Args:
            task: a task of amc_utils.metrics.TASKS.
            minus: variant whose accuracy with the same seed, hence on the same test frames, is
                subtracted first; empty for none.

        Returns:
            Columns variant, tested_on, mean, low, high, num_seeds; low and high NaN for a single seed.
        """
        table = self.table
        if minus:
            keys = ["seed", "tested_on"]
            base = table[table["variant"] == minus].set_index(keys)[task]
            table = table.set_index(keys)
            table[task] = table[task] - base.reindex(table.index)
            table = table.reset_index().dropna(subset=task)
        groups = table.groupby(["variant", "tested_on"], sort=False)[task]
        means = groups.agg(mean="mean", error="sem", num_seeds="count").reset_index()
        half = means.pop("error") * student_t.ppf(0.975, means["num_seeds"] - 1)
        return means.assign(low=means["mean"] - half, high=means["mean"] + half)

    def by_snr(self, task: str = "joint") -> pd.DataFrame:
        """Accuracy on frames like those of training, mean over seeds: rows variants, columns dB."""
        tables = [
            run.metrics[
                (run.metrics["group"] == "snr_label") & (run.metrics["metric"] == f"{task}_accuracy")
            ].assign(variant=_row(run)[0])
            for run in self.runs
            if run.kind == "network"
        ]
        table = pd.concat(tables).astype({"level": int})
        return (
            table.groupby(["variant", "level"], sort=False)["value"].mean().unstack().sort_index(axis=1)
        )


def named_study(results: Path, name: str) -> StudyRecord:
    """The study of that name.

    Raises:
        FileNotFoundError: it has no record.
    """
    folder = results / "studies" / name
    if not (folder / "study.json").is_file():
        known = ", ".join(study.name for study in list_studies(results)) or "none"
        raise FileNotFoundError(
            f"no study named {name!r} in {results}, there are {known}; amc study runs one"
        )
    return StudyRecord(folder)


def list_studies(results: Path) -> list[StudyRecord]:
    """Studies with a record, by name."""
    return [StudyRecord(path.parent) for path in sorted(results.glob("studies/*/study.json"))]


def _index(names: list[str], name: str) -> int:
    return names.index(name) if name in names else len(names)


def _row(run: Run) -> tuple[str | int | float, ...]:
    variant, seed, tested_on = re.fullmatch(r"(.+?)-s(\d+)(?:-on-(.+))?", run.name).groups()
    scores = (run.facts["test"][f"{task}_accuracy"]["value"] for task in TASKS)
    return variant, int(seed), tested_on or "", run.frames_seen, *scores

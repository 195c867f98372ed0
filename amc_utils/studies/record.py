"""What is finished of a study: its plan, its runs, and means over seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from amc_utils.config import TrainingParameters, result_affecting
from amc_utils.images import expand_channels
from amc_utils.metrics import TASKS, half_interval
from amc_utils.results import Run, list_runs
from amc_utils.runtime.paths import Workspace
from amc_utils.runtime.yaml_text import read_yaml

PLAN = "study.yaml"


def plan_file(plan: Mapping[str, Any]) -> dict[str, str]:
    """Name and text of the file of a study's plan, for its folder."""
    return {PLAN: yaml.safe_dump(dict(plan), sort_keys=False, allow_unicode=True, width=100)}


@dataclass(frozen=True)
class StudyRecord:
    """What is finished of a study."""

    workspace: Workspace

    @property
    def name(self) -> str:
        """Name of the study and of its folders."""
        return self.workspace.study

    @property
    def folder(self) -> Path:
        """Where its plan lies: in outputs/runs/ as long as it goes on there, then in results/."""
        new, kept = self.workspace.runs, self.workspace.kept
        return new if (new / PLAN).is_file() else kept

    @cached_property
    def plan(self) -> dict[str, Any]:
        """The study file as last run, in terms of amc_utils.studies.study.Study."""
        path = self.folder / PLAN
        return read_yaml(path.read_text(encoding="utf8"), f"study {path}")

    @cached_property
    def question(self) -> str:
        """What the study asks."""
        return self.plan["question"]

    @cached_property
    def runs(self) -> list[Run]:
        """Its finished runs in the order of its plan, those no longer planned last."""
        variants = {name: number for number, name in enumerate(self.plan["variants"])}
        transfers = {name: number for number, name in enumerate(["", *self.plan["transfers"]])}

        def place(run: Run) -> tuple[int, int, int]:
            variant, seed, transfer, *_ = _row(run)
            last = len(variants), len(transfers)
            return variants.get(variant, last[0]), seed, transfers.get(transfer, last[1])

        return sorted(list_runs(self.workspace), key=place)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Test accuracies, one row a run.

        Columns: variant, seed, tested_on (empty where tested on frames like those of training), number
        of frames_seen in training, image_size in pixels a side, and for each task its accuracy.
        """
        columns = ["variant", "seed", "tested_on", "frames_seen", "image_size", *TASKS]
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
            base = table.loc[table["variant"] == minus, [*keys, task]]
            table = table.merge(base, on=keys, suffixes=("", "_less"))
            table[task] -= table[f"{task}_less"]
        groups = table.groupby(["variant", "tested_on"], sort=False)[task]
        means = groups.agg(mean="mean", error="sem", num_seeds="count").reset_index()
        half = half_interval(means.pop("error"), means["num_seeds"])
        return means.assign(low=means["mean"] - half, high=means["mean"] + half)

    def by_snr(self, task: str = "joint") -> pd.DataFrame:
        """Accuracy on frames like those of training, mean over seeds: rows variants, columns labels."""
        tables = [
            run.by_label(task).assign(variant=_row(run)[0])
            for run in self.runs
            if run.kind == "network"
        ]
        groups = pd.concat(tables).groupby(["variant", "level"], sort=False)["value"]
        return groups.mean().unstack().sort_index(axis=1)


def list_studies(workspace: Workspace) -> list[StudyRecord]:
    """Studies in results/, by name."""
    plans = sorted(workspace.results.glob(f"[!.]*/{PLAN}"))
    return [StudyRecord(replace(workspace, study=path.parent.name)) for path in plans]


def named_study(workspace: Workspace, name: str) -> StudyRecord:
    """The study of that name, kept or new.

    Raises:
        FileNotFoundError: it has no record.
    """
    study = StudyRecord(replace(workspace, study=name))
    if not (study.folder / PLAN).is_file():
        known = ", ".join(study.name for study in list_studies(workspace)) or "none"
        raise FileNotFoundError(
            f"no study named {name!r} in {workspace.results}, there are {known}; amc study runs one"
        )
    return study


def _row(run: Run) -> tuple[str | int | float, ...]:
    variant, seed, tested_on = re.fullmatch(r"(.+?)-s(\d+)(?:-on-(.+))?", run.name).groups()
    scores = (run.facts["test"][f"{task}_accuracy"]["value"] for task in TASKS)
    seen, image_size = run.frames_seen, run.facts["config"]["image_size"]
    return variant, int(seed), tested_on or "", seen, image_size, *scores


def differing_from_record(run: Run, config: TrainingParameters) -> dict[str, tuple[Any, Any]]:
    """Parameters in which a run is another than wanted, as far as they matter: wanted and recorded.

    What is wanted "auto", or follows from the time that training may take, may have any value.
    """
    free = config.automatic
    wanted = result_affecting(config.model_dump()) | {
        "pictures": list(expand_channels(config.channels))
    }
    # What a group of channels holds may have changed though its name has not.
    stored = result_affecting(TrainingParameters.with_defaults(run.facts["config"]))
    # Runs from before images were recorded say nothing of them.
    done = stored | {"pictures": run.facts.get("pictures", wanted["pictures"])}
    return {
        name: (wanted[name], done.get(name))
        for name in sorted(wanted)
        if done.get(name) != wanted[name] and name not in free
    }

"""Runs and studies in results/: written whole or not at all, read with their check sums."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import platform
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import coolname
import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student_t

from amc_utils.metrics import TASKS
from amc_utils.runtime.paths import REPOSITORY, Workspace
from amc_utils.signals import Channel, channel_from


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder."""

    folder: Path

    @property
    def name(self) -> str:
        """Name of the run and of its folder."""
        return self.folder.name

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Content of run.json.

        Raises:
            ValueError: the file is missing or damaged; so for the other files of the folder.
        """
        with self._explaining("run.json"):
            facts = json.loads((self.folder / "run.json").read_text(encoding="utf8"))
            if not {"run", "config", "data", "started"} <= facts.keys():
                raise ValueError("it lacks what every run says of itself")
            return facts

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch."""
        with self._explaining("history.csv"):
            return pd.read_csv(self._content("history.csv"))

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Tidy test metrics, see amc_utils.metrics.metrics_table."""
        with self._explaining("metrics.csv"):
            return pd.read_csv(self._content("metrics.csv"))

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """Test predictions, see amc_utils.metrics."""
        with (
            self._explaining("predictions.npz"),
            np.load(self._content("predictions.npz"), allow_pickle=False) as stored,
        ):
            names, grid = list(stored["modulations"]), stored["snr_grid_db"].astype(np.int64)
            return pd.DataFrame({
                "frame": stored["frame"],
                "modulation": pd.Categorical.from_codes(stored["modulation"], names, ordered=True),
                "snr_label": grid[stored["snr_index"]],
                "predicted_modulation": pd.Categorical.from_codes(
                    stored["predicted_modulation"], names, ordered=True
                ),
                "predicted_snr_label": grid[stored["predicted_snr_index"]],
                "modulation_confidence": stored["modulation_confidence"].astype(np.float32),
                "snr_confidence": stored["snr_confidence"].astype(np.float32),
            })  # fmt: skip

    def _content(self, name: str) -> io.BytesIO:
        content = (self.folder / name).read_bytes()
        # Runs from before their files were recorded say nothing of them.
        recorded = self.facts.get("files", {}).get(name)
        if recorded and recorded != hashlib.sha256(content).hexdigest():
            raise ValueError("it was changed after the run")
        return io.BytesIO(content)

    @contextmanager
    def _explaining(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            problem = "is missing"
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            problem = f"is damaged ({str(error).splitlines()[0] if str(error) else error!r})"
        else:
            return
        raise ValueError(
            f"run folder {self.folder} must be as it was written, its {name} {problem}; restore it, or "
            f"remove the folder"
        )

    @property
    def kind(self) -> str:
        """What was tested: "network", "bound", "receiver", or "transfer" to other frames."""
        return self.facts.get("kind", "network")

    @property
    def label(self) -> str:
        """Who decided, in a few words: network and pictures, or the name of the receiver."""
        if self.kind in ("bound", "receiver"):
            return self.facts["network"]["name"]
        return f"{self.facts['network']['name']}, {'+'.join(self.facts['config']['channels'])}"

    def by_label(self, task: str) -> pd.DataFrame:
        """Accuracy of a task ("joint", "modulation", "snr") with its interval, a row an SNR label."""
        rows = self.metrics.query(f"group == 'snr_label' and metric == '{task}_accuracy'")
        rows = rows.assign(level=rows["level"].astype(int))
        return rows.set_index(rows["level"].rename("snr_label")).sort_index()

    @property
    def frames_seen(self) -> int:
        """Frames that training went through, each time counted; none where nothing was trained."""
        return self.facts["epochs"] * self.facts["data"]["counts"].get("train", 0)

    @property
    def channel(self) -> Channel:
        """Channel of its frames: the generator's, or of a file that which its parameters name."""
        named = self.facts["config"].get("channel", {})
        return channel_from(self.facts["data"]["source"].get("generator", named))

    @property
    def scope(self) -> str:
        """Classes, SNR labels and source, to stand beside every number of the run."""
        return self.facts["data"]["description"]


def new_run_name(results: Path) -> str:
    """Unused name of the kind adjective-noun-number; the number counts the runs that exist."""
    return f"{coolname.generate_slug(2)}-{len(list_runs(results)) + 1}"


def claim_run_name(wanted: str, results: Path) -> str:
    """The wanted name if it is free, or a new one if none is wanted.

    Raises:
        ValueError: the name belongs to a finished run, which is never overwritten.
    """
    if wanted and (results / wanted).exists():
        raise ValueError(
            f"run_name must be new, got {wanted!r}, which names a finished run in {results}; "
            f"choose another, or leave run_name empty to be given one"
        )
    return wanted or new_run_name(results)


def is_run(folder: Path) -> bool:
    """Whether a folder holds a finished run."""
    return (folder / "run.json").is_file()


def list_runs(results: Path) -> list[Run]:
    """Finished runs, oldest first."""
    runs = [Run(path.parent) for path in results.glob("[!.]*/run.json")]
    return sorted(runs, key=lambda run: (run.facts["started"], run.name))


def named_run(results: Path, name: str) -> Run:
    """The run of that name.

    Raises:
        FileNotFoundError: there is none.
    """
    if not is_run(results / name):
        known = ", ".join(run.name for run in list_runs(results)) or "none"
        raise FileNotFoundError(f"no run named {name!r} in {results}; there are {known}")
    return Run(results / name)


def load_run(name: str, output_root: str = "") -> Run:
    """The run of that name below `output_root`, or of the repository.

    Raises:
        FileNotFoundError: there is none.
    """
    return named_run(Workspace.at(output_root).results, name)


def select_runs(results: Path, names: Sequence[str]) -> list[Run]:
    """The named runs, or the newest of each network and pictures tested like the newest trained run.

    Raises:
        FileNotFoundError: a name without a run, or no run at all.
        ValueError: named runs that were not tested on the same frames, so cannot be compared.
    """
    runs = list_runs(results)
    if names:
        chosen = [named_run(results, name) for name in names]
        if len({_test_frames(run) for run in chosen}) > 1:
            raise ValueError(f"runs must share their test frames to be compared, got {list(names)}")
        return chosen
    trained = [run for run in runs if run.kind == "network"]
    if not trained:
        raise FileNotFoundError(f"no finished run in {results}; run notebook 02 or 03 first")
    alike = [run for run in trained if _test_frames(run) == _test_frames(trained[-1])]
    newest = {run.label: run for run in alike}
    return sorted(newest.values(), key=lambda run: run.facts["network"]["flops_per_frame"])


def _test_frames(run: Run) -> str:
    return run.facts["data"].get("test_sha256", run.name)


def by_label(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by their label, or by their own name where two have the same."""
    labels = [run.label for run in runs]
    return {
        label if labels.count(label) == 1 else run.name: run
        for label, run in zip(labels, runs, strict=True)
    }


def differing_parameters(runs: Mapping[str, Run]) -> pd.DataFrame:
    """Parameters that are not the same in all runs, a row each; what a comparison compares."""
    table = pd.DataFrame({label: pd.Series(run.facts["config"]) for label, run in runs.items()})
    same = table.astype(str).nunique(axis=1) == 1
    return table[~same].drop(index=["run_name", "resume_from"], errors="ignore")


_PACKAGES = ("torch", "timm", "lightning", "numpy", "h5py", "pandas", "papermill")
# What a result depends on; figures and diary change while a run writes them and do not count.
_CODE = ("amc_utils", "notebooks", "profiles", "pyproject.toml", "requirements.lock")
_SPLIT_PARTS = ("train", "validation", "test")


def environment() -> dict[str, Any]:
    """Commit, whether code differs from it, versions and device names of this machine."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu_name()
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    status = _git("status", "--porcelain", "--", *_CODE)
    return {
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "dirty": None if status is None else bool(status),
        "device": device,
        "threads": torch.get_num_threads(),
        "versions": versions,
    }


def write_run(
    folder: Path,
    *,
    facts: Mapping[str, Any],
    metrics: pd.DataFrame,
    predictions: pd.DataFrame,
    history: pd.DataFrame | None = None,
    split: Mapping[str, np.ndarray] | None = None,
) -> Run:
    """Write a run folder; it appears whole or not at all, and never over another.

    Args:
        folder: results/<run name>.
        facts: content of run.json, which also gets the check sums of the other files.
        metrics: see amc_utils.metrics.metrics_table.
        predictions: see amc_utils.metrics; stored as codes and half-precision confidences.
        history: one row per epoch; None where nothing was trained.
        split: frame indices of the parts train, validation and test; None where all frames are tested.

    Raises:
        FileExistsError: the folder exists.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} holds a finished run, which is never overwritten")
    json.dumps(dict(facts), allow_nan=False)  # what cannot be written is refused at once
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        if history is not None:
            history.to_csv(temporary / "history.csv", index=False, lineterminator="\n")
        metrics.to_csv(temporary / "metrics.csv", index=False, lineterminator="\n")
        np.savez_compressed(temporary / "predictions.npz", **_codes(predictions, split))
        written = {path.name: path.read_bytes() for path in sorted(temporary.iterdir())}
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in written.items()}
        text = json.dumps({**facts, "files": sums}, indent=1, ensure_ascii=False, allow_nan=False)
        (temporary / "run.json").write_text(text + "\n", encoding="utf8")
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Run(folder)


def _codes(predictions: pd.DataFrame, split: Mapping[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    grid = np.unique(predictions[["snr_label", "predicted_snr_label"]])
    codes = {
        "frame": predictions["frame"].to_numpy(np.int64),
        "modulations": np.array(predictions["modulation"].cat.categories, dtype=str),
        "snr_grid_db": grid.astype(np.int16),
        "modulation": predictions["modulation"].cat.codes.to_numpy(np.uint8),
        "snr_index": np.searchsorted(grid, predictions["snr_label"]).astype(np.uint8),
        "predicted_modulation": predictions["predicted_modulation"].cat.codes.to_numpy(np.uint8),
        "predicted_snr_index": np.searchsorted(grid, predictions["predicted_snr_label"]).astype(
            np.uint8
        ),
        "modulation_confidence": predictions["modulation_confidence"].to_numpy(np.float16),
        "snr_confidence": predictions["snr_confidence"].to_numpy(np.float16),
    }
    if split is not None:
        # uint8 per frame of the set: 0 train, 1 validation, 2 test.
        codes["split"] = np.empty(sum(len(index) for index in split.values()), np.uint8)
        for code, name in enumerate(_SPLIT_PARTS):
            codes["split"][split[name]] = code
    return codes


def _git(*arguments: str) -> str | None:
    """Output of git in the repository; None where there is no git or no repository."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu_name() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf8"))
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


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

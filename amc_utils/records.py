"""Run folders results/<run>/: run.json, history.csv, metrics.csv and .json, predictions.npz."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import coolname
import numpy as np
import pandas as pd
import torch

from amc_utils.paths import REPOSITORY

_PACKAGES = ("torch", "timm", "lightning", "numpy", "h5py", "pandas", "papermill")
# What a result depends on; figures and diary change while a run writes them and do not count.
_CODE = ("amc_utils", "notebooks", "profiles", "pyproject.toml", "requirements.lock")
_SPLIT_PARTS = ("train", "validation", "test")


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
        """Content of run.json."""
        return json.loads((self.folder / "run.json").read_text(encoding="utf8"))

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch."""
        return pd.read_csv(self.folder / "history.csv")

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Tidy test metrics, see amc_utils.metrics.metrics_table."""
        return pd.read_csv(self.folder / "metrics.csv")

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """Test predictions, see amc_utils.metrics."""
        with np.load(self.folder / "predictions.npz", allow_pickle=False) as stored:
            names, grid = list(stored["modulations"]), stored["snr_grid_db"].astype(np.int64)
            return pd.DataFrame({
                "frame": stored["frame"],
                "modulation": pd.Categorical.from_codes(stored["modulation"], names, ordered=True),
                "snr_db": grid[stored["snr_index"]],
                "predicted_modulation": pd.Categorical.from_codes(
                    stored["predicted_modulation"], names, ordered=True
                ),
                "predicted_snr_db": grid[stored["predicted_snr_index"]],
                "modulation_confidence": stored["modulation_confidence"].astype(np.float32),
                "snr_confidence": stored["snr_confidence"].astype(np.float32),
            })  # fmt: skip

    @property
    def scope(self) -> str:
        """Classes, SNR range and source, to stand beside every number of the run."""
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


def list_runs(results: Path) -> list[Run]:
    """Finished runs, oldest first."""
    runs = [Run(path.parent) for path in results.glob("[!.]*/run.json")]
    return sorted(runs, key=lambda run: (run.facts["started"], run.name))


def select_runs(results: Path, names: Sequence[str]) -> list[Run]:
    """The named runs, or the newest run of each network among those tested like the newest run.

    Raises:
        FileNotFoundError: a name without a run, or no run at all.
        ValueError: named runs that were not tested on the same frames, so cannot be compared.
    """
    runs = list_runs(results)
    if names:
        known = {run.name: run for run in runs}
        missing = [name for name in names if name not in known]
        if missing:
            raise FileNotFoundError(
                f"no run named {missing[0]!r} in {results}; there are {list(known)}"
            )
        chosen = [known[name] for name in names]
        if len({_test_frames(run) for run in chosen}) > 1:
            raise ValueError(f"runs must share their test frames to be compared, got {list(names)}")
        return chosen
    if not runs:
        raise FileNotFoundError(f"no finished run in {results}; run notebook 02 or 03 first")
    alike = [run for run in runs if _test_frames(run) == _test_frames(runs[-1])]
    newest = {run.facts["network"]["name"]: run for run in alike}
    return sorted(newest.values(), key=lambda run: run.facts["network"]["flops_per_frame"])


def _test_frames(run: Run) -> str:
    return run.facts["data"]["test_sha256"]


def by_label(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by the name of their network, or by their own name where two share a network."""
    networks = [run.facts["network"]["name"] for run in runs]
    return {
        network if networks.count(network) == 1 else run.name: run
        for network, run in zip(networks, runs, strict=True)
    }


def differing_parameters(runs: Mapping[str, Run]) -> pd.DataFrame:
    """Parameters that are not the same in all runs, a row each; what a comparison compares."""
    table = pd.DataFrame({label: pd.Series(run.facts["config"]) for label, run in runs.items()})
    same = table.astype(str).nunique(axis=1) == 1
    return table[~same].drop(index=["run_name", "resume_from"], errors="ignore")


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
    history: pd.DataFrame,
    metrics: pd.DataFrame,
    predictions: pd.DataFrame,
    split: Mapping[str, np.ndarray],
) -> Run:
    """Write a run folder; it appears whole or not at all, and never over another.

    Args:
        folder: results/<run name>.
        facts: content of run.json.
        history: one row per epoch.
        metrics: see amc_utils.metrics.metrics_table.
        predictions: see amc_utils.metrics; stored as codes and half-precision confidences.
        split: frame indices of the parts train, validation and test.

    Raises:
        FileExistsError: the folder exists.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} holds a finished run, which is never overwritten")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        text = json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False)
        (temporary / "run.json").write_text(text + "\n", encoding="utf8")
        history.to_csv(temporary / "history.csv", index=False, lineterminator="\n")
        metrics.to_csv(temporary / "metrics.csv", index=False, lineterminator="\n")
        metrics.to_json(temporary / "metrics.json", orient="records", indent=1, double_precision=15)
        np.savez_compressed(temporary / "predictions.npz", **_codes(predictions, split))
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Run(folder)


def _codes(predictions: pd.DataFrame, split: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    grid = np.unique(predictions[["snr_db", "predicted_snr_db"]])
    part = np.empty(sum(len(index) for index in split.values()), np.uint8)
    for code, name in enumerate(_SPLIT_PARTS):
        part[split[name]] = code
    return {
        "frame": predictions["frame"].to_numpy(np.int64),
        "modulations": np.array(predictions["modulation"].cat.categories, dtype=str),
        "snr_grid_db": grid.astype(np.int16),
        "modulation": predictions["modulation"].cat.codes.to_numpy(np.uint8),
        "snr_index": np.searchsorted(grid, predictions["snr_db"]).astype(np.uint8),
        "predicted_modulation": predictions["predicted_modulation"].cat.codes.to_numpy(np.uint8),
        "predicted_snr_index": np.searchsorted(grid, predictions["predicted_snr_db"]).astype(np.uint8),
        "modulation_confidence": predictions["modulation_confidence"].to_numpy(np.float16),
        "snr_confidence": predictions["snr_confidence"].to_numpy(np.float16),
        "split": part,  # uint8 per frame of the set: 0 train, 1 validation, 2 test
    }


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

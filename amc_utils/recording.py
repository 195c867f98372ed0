"""Run folders results/<run>/, written: whole or not at all, with what made them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from amc_utils.records import Run
from amc_utils.runtime.paths import REPOSITORY

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

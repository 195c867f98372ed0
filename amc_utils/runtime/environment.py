"""What a run's numbers may depend on beside its parameters: commit, versions, device."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

from amc_utils.runtime.paths import IN_REPOSITORY, REPOSITORY

_PACKAGES = ("amc-utils", "torch", "timm", "lightning", "numpy", "h5py", "pandas", "papermill")
# What a result depends on; figures, diary and exported networks are written meanwhile and do not count.
_CODE = ("amc_utils", "notebooks", "profiles", "pyproject.toml", "requirements.lock")
_WRITTEN = ":!amc_utils/inference/shipped"


def environment() -> dict[str, Any]:
    """Commit, whether code differs from it, versions and device names of this machine."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu_name()
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    status = _git("status", "--porcelain", "--", *_CODE, _WRITTEN)
    return {
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "dirty": None if status is None else bool(status),
        "device": device,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | versions,
    }


def _git(*arguments: str) -> str | None:
    """Output of git in the repository; None where there is no git or no repository."""
    if not IN_REPOSITORY:
        return None
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

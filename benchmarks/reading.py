"""Reading 17 of 24 classes from an HDF5 file of over 4 GB, against the same bytes in file order."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from unittest.mock import patch

import h5py
import numpy as np
import pandas as pd
import torch
from timing import Task, take_turns

from amc_utils.data import allocate, cached_radioml, read_radioml
from amc_utils.radioml.writer import write_synthetic_file
from amc_utils.runtime.paths import cache_folder
from amc_utils.signals import DIGITAL_MODULATIONS, RADIOML_2018_MODULATIONS, SNR_LABELS

FRAMES_PER_CELL = 840
MEGABYTE = 1 << 20
SELECTION = {"modulations": DIGITAL_MODULATIONS, "snr_labels": SNR_LABELS, "seed": 1}


def measure() -> list[pd.DataFrame]:
    """Rates with the file in the page cache; peak memory of each way in a process of its own."""
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, AMC_CACHE=f"{folder}/cache"):
        path = Path(folder) / "frames.h5"
        write_synthetic_file(str(path), num_frames_per_cell=FRAMES_PER_CELL, seed=1)
        amount = len(wanted_rows()) * 8192 / 1e9
        # Both read into memory that this process has already: to get 3 GB of it anew takes a virtual
        # machine half a second or seven, as luck will have it.
        room = np.zeros((len(wanted_rows()), 1024, 2), np.float32)
        tasks = {
            "h5py, file order": Task(partial(plainly, path, room), amount),
            "ours": Task(partial(ours, path, room), amount),
        }
        size = f"{amount:.1f} of {path.stat().st_size / 1e9:.1f} GB"
        against = {"unit": "GB/s", "against": "h5py, file order"}
        speed = take_turns(f"reading {size}", tasks, **against, repeats=9)
        starts = {
            "first": Task(partial(first_start, path), amount),
            "second": Task(partial(start, path), amount),
        }
        starts = take_turns(f"starting on {size}", starts, unit="GB/s", against="first", repeats=3)
        size = amount * 1e9 / MEGABYTE
        ways = {
            "plainly": "h5py, file order",
            "ours": "ours",
            "first_start": "first start, frames on disk",
        }
        # Megabytes take the place of the amount, one second that of the time.
        rows = [("result", size), *((name, peak_memory(path, way)) for way, name in ways.items())]
        memory = pd.DataFrame(rows, columns=["task", "amount"])
        fixed = {"benchmark": "peak memory", "unit": "MB", "against": "result", "repeat": 1}
        return [speed, starts, memory.assign(seconds=1.0, **fixed)]


def wanted_rows() -> np.ndarray:
    """Rows of the digital classes, ascending."""
    rows = len(SNR_LABELS) * FRAMES_PER_CELL
    first = [RADIOML_2018_MODULATIONS.index(name) * rows for name in DIGITAL_MODULATIONS]
    return np.sort(np.concatenate([np.arange(start, start + rows) for start in first]))


def plainly(path: Path, room: np.ndarray | None = None) -> None:
    """The same bytes by h5py: all labels, and rows in stretches as long as they come, up to 4,096."""
    rows = wanted_rows()
    result = np.empty((len(rows), 1024, 2), np.float32) if room is None else room
    with h5py.File(path) as file:
        for start in range(0, len(file["Y"]), 4096):
            file["Y"][start : start + 4096]
        file["Z"][:]
        for stretch in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
            for start in range(0, len(stretch), 4096):
                part = stretch[start : start + 4096]
                source = np.s_[rows[part[0]] : rows[part[-1]] + 1]
                file["X"].read_direct(result, source, np.s_[part[0] : part[-1] + 1])


def ours(path: Path, room: np.ndarray | None = None) -> None:
    """The same rows, selected by label, as a training run does it."""
    reserve = allocate if room is None else lambda *_: torch.from_numpy(room)
    with patch("amc_utils.data.allocate", reserve):
        read_radioml(path=path, num_frames_per_cell=FRAMES_PER_CELL, **SELECTION)


def start(path: Path) -> None:
    """A training run finds its frames, which stay on disk."""
    cached_radioml(path=path, num_frames_per_cell=FRAMES_PER_CELL, samples_in="disk", **SELECTION)


def first_start(path: Path) -> None:
    """It has to select them."""
    shutil.rmtree(cache_folder(), ignore_errors=True)
    start(path)


def high_water() -> float:
    """Most memory that this process has held so far, in megabytes (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf8")
    return float(status.split("VmHWM:")[1].split()[0]) / 1024


def peak_memory(path: Path, way: str) -> float:
    """Megabytes that reading adds at most to a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, str(path), way, str(FRAMES_PER_CELL)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    FRAMES_PER_CELL = int(sys.argv[3])
    before = high_water()
    globals()[sys.argv[2]](Path(sys.argv[1]))
    print(high_water() - before)

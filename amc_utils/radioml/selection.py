"""Rows of a file by label."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from amc_utils.radioml.checks import explaining
from amc_utils.radioml.reader import RadioMLFile
from amc_utils.signals import RADIOML_2018_MODULATIONS


@dataclass(frozen=True)
class Selection:
    """Rows of a file.

    Attributes:
        rows: int64 [N], ascending.
        cell: joint class of each, int64 [N].
        source: what tells them from others, ready for a run record.
    """

    rows: np.ndarray
    cell: np.ndarray
    source: dict[str, Any]


def select(
    file: RadioMLFile,
    *,
    modulations: Sequence[str],
    snr_labels: Sequence[int],
    num_frames_per_cell: int,
    seed: int,
    label_order: str = "corrected",
) -> Selection:
    """Rows of each (modulation, SNR) cell, by label, at most `num_frames_per_cell`, drawn by `seed`.

    Raises:
        ValueError: bad labels, or a cell without frames.
    """
    num_cells = len(modulations) * len(snr_labels)
    cell = _joint_class(file.modulation(label_order), file.snr_label(), modulations, snr_labels)
    rows = _draw_rows(cell, num_cells, num_frames_per_cell, seed)
    missing = np.setdiff1d(np.arange(num_cells), cell[rows])
    if len(missing):
        name, level = divmod(int(missing[0]), len(snr_labels))
        raise ValueError(
            f"{file.path} has no frame of {modulations[name]} at label {snr_labels[level]} "
            f"({len(missing)} empty cells in all); choose modulations and snr_range_db it holds"
        )
    source = {"label": f"frames of {file.path.name}", "file_bytes": file.path.stat().st_size}
    source["label_sha256"] = hashlib.sha256(cell.tobytes()).hexdigest()
    # A look at a few frames tells files apart that differ in samples only.
    with explaining(file.path):
        few = [file.samples[row].tobytes() for row in rows[:: max(1, len(rows) // 16)]]
    source["samples_sha256"] = hashlib.sha256(b"".join(few)).hexdigest()
    return Selection(rows, cell[rows], source)


def _joint_class(
    modulation: np.ndarray, snr_label: np.ndarray, modulations: Sequence[str], snr_labels: Sequence[int]
) -> np.ndarray:
    """Joint class of every row, int64; -1 for rows of classes or levels that were not asked for."""
    numbers = pd.Index([RADIOML_2018_MODULATIONS.index(name) for name in modulations])
    row, level = numbers.get_indexer(modulation), pd.Index(snr_labels).get_indexer(snr_label)
    return np.where((row >= 0) & (level >= 0), row * len(snr_labels) + level, -1)


def _draw_rows(cell: np.ndarray, num_cells: int, num_frames_per_cell: int, seed: int) -> np.ndarray:
    """Ascending rows, at most `num_frames_per_cell` of each cell, drawn without replacement."""
    # By cell, at random within each.
    order = np.argsort(cell + np.random.default_rng([seed, 0xD4A]).random(len(cell)))
    sorted_cell = cell[order]
    first = np.searchsorted(sorted_cell, np.arange(num_cells))
    rank = np.arange(len(order)) - first[sorted_cell]
    return np.sort(order[(sorted_cell >= 0) & (rank < num_frames_per_cell)])

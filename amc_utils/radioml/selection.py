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

# Classes that RadioML 2016.10 and 2018.01A have under two names. AM-SSB, CPFSK and GFSK have no equal.
# How these differ all the same, docs/radioml_file.md says.
_NAMES_OF_ONE_CLASS = (
    ("QAM16", "16QAM"), ("QAM64", "64QAM"), ("PAM4", "4ASK"), ("AM-DSB", "AM-DSB-WC"), ("WBFM", "FM"),
)  # fmt: skip
OTHER_NAMES = {name: other for pair in _NAMES_OF_ONE_CLASS for name, other in (pair, pair[::-1])}


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
    only_shared: bool = False,
) -> Selection:
    """Rows of each (modulation, SNR) cell, by label, at most `num_frames_per_cell`, drawn by `seed`.

    A class that the file has under its other name only is taken by that, see OTHER_NAMES.

    Args:
        file: the open file.
        modulations: names.
        snr_labels: SNR labels.
        num_frames_per_cell: at most so many of each.
        seed: of the choice.
        label_order: see RadioMLFile.modulation.
        only_shared: leave out cells that the file does not have, and say so in the source.

    Raises:
        ValueError: bad labels, a cell without frames, or no frame at all.
    """
    num_cells = len(modulations) * len(snr_labels)
    numbers = _numbers_in(file, modulations)
    cell = _joint_class(file.modulation(label_order), file.snr_label(), numbers, snr_labels)
    rows = _draw_rows(cell, num_cells, num_frames_per_cell, seed)
    missing = np.setdiff1d(np.arange(num_cells), cell[rows])
    if len(missing) and not (only_shared and len(rows)):
        name, level = divmod(int(missing[0]), len(snr_labels))
        raise ValueError(
            f"{file.path} has no frame of {modulations[name]} at label {snr_labels[level]} "
            f"({len(missing)} empty cells in all); choose modulations and snr_range_db it holds, of "
            f"{', '.join(file.modulations)}"
        )
    source = {"label": f"frames of {file.path.name}", "file_bytes": file.path.stat().st_size}
    if len(missing):
        there = (len(np.unique(part)) for part in np.divmod(cell[rows], len(snr_labels)))
        source["label"] += ", which has {} of the modulations and {} of the labels".format(*there)
    source["label_sha256"] = hashlib.sha256(cell.tobytes()).hexdigest()
    # A look at a few frames tells files apart that differ in samples only.
    with explaining(file.path):
        few = [file.samples[row].tobytes() for row in rows[:: max(1, len(rows) // 16)]]
    source["samples_sha256"] = hashlib.sha256(b"".join(few)).hexdigest()
    return Selection(rows, cell[rows], source)


def _numbers_in(file: RadioMLFile, modulations: Sequence[str]) -> list[int]:
    """What the file numbers each modulation by; negative numbers of their own for those it lacks.

    Raises:
        ValueError: two names of one class.
    """
    own = [name if name in file.modulations else OTHER_NAMES.get(name) for name in modulations]
    twice = [name for name, other in zip(modulations, own, strict=True) if name != other in modulations]
    if twice:
        raise ValueError(
            f"modulations must name a class of {file.path} once, got {twice[0]} and "
            f"{OTHER_NAMES[twice[0]]}, which are the same there"
        )
    known = {name: number for number, name in enumerate(file.modulations)}
    return [known.get(name, -1 - place) for place, name in enumerate(own)]


def _joint_class(
    modulation: np.ndarray, snr_label: np.ndarray, numbers: Sequence[int], snr_labels: Sequence[int]
) -> np.ndarray:
    """Joint class of every row, int64; -1 for rows of classes or levels that were not asked for."""
    row, level = pd.Index(numbers).get_indexer(modulation), pd.Index(snr_labels).get_indexer(snr_label)
    return np.where((row >= 0) & (level >= 0), row * len(snr_labels) + level, -1)


def _draw_rows(cell: np.ndarray, num_cells: int, num_frames_per_cell: int, seed: int) -> np.ndarray:
    """Ascending rows, at most `num_frames_per_cell` of each cell, drawn without replacement."""
    # By cell, at random within each.
    order = np.argsort(cell + np.random.default_rng([seed, 0xD4A]).random(len(cell)))
    sorted_cell = cell[order]
    first = np.searchsorted(sorted_cell, np.arange(num_cells))
    rank = np.arange(len(order)) - first[sorted_cell]
    return np.sort(order[(sorted_cell >= 0) & (rank < num_frames_per_cell)])

"""Frames from where the parameters say: the generator, or an HDF5 file in RadioML 2018.01A's layout."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from amc_utils.config import DataParameters
from amc_utils.frames import Frames, Hold, labels_only, synthesise_frames
from amc_utils.labels import RADIOML_2018_MODULATIONS, SNR_LABELS
from amc_utils.radioml.checks import explaining
from amc_utils.radioml.reader import RadioMLFile, open_radioml
from amc_utils.runtime.paths import replacing
from amc_utils.runtime.progress import progress

# Rows written at once.
_CHUNK = 4096


def load_frames(
    config: DataParameters,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    samples_in: str = "auto",
    hold: Hold | None = None,
) -> Frames:
    """Frames that the parameters ask for, from the file if one is named, else from the generator.

    For samples_in and hold see Frames.with_room.
    """
    options = {"device": device, "dtype": dtype, "samples_in": samples_in, "hold": hold}
    if config.data_path:
        return read_radioml(**file_selection(config), **options)
    return synthesise_frames(
        modulations=config.modulation_names,
        snr_labels=config.snr_labels,
        num_frames_per_cell=config.num_frames_per_cell,
        seed=config.seed,
        channel=config.synthetic_channel,
        **options,
    )


def file_selection(config: DataParameters) -> dict[str, Any]:
    """The file that the parameters name and what they select of it, as read_radioml takes them."""
    return {
        "path": Path(config.data_path),
        "modulations": config.modulation_names,
        "snr_labels": config.snr_labels,
        "num_frames_per_cell": config.num_frames_per_cell,
        "seed": config.seed,
        "label_order": config.label_order,
    }


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
            f"{file.path} has no frame of {modulations[name]} at {snr_labels[level]} dB "
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
    row_of = np.full(len(RADIOML_2018_MODULATIONS), -1)
    row_of[[RADIOML_2018_MODULATIONS.index(name) for name in modulations]] = range(len(modulations))
    level_of = np.full(len(SNR_LABELS), -1)
    level_of[[SNR_LABELS.index(level) for level in snr_labels]] = range(len(snr_labels))
    row, level = row_of[modulation], level_of[(snr_label - SNR_LABELS[0]) // 2]
    return np.where((row >= 0) & (level >= 0), row * len(snr_labels) + level, -1)


def _draw_rows(cell: np.ndarray, num_cells: int, num_frames_per_cell: int, seed: int) -> np.ndarray:
    """Ascending rows, at most `num_frames_per_cell` of each cell, drawn without replacement."""
    # By cell, at random within each.
    order = np.argsort(cell + np.random.default_rng([seed, 0xD4A]).random(len(cell)))
    sorted_cell = cell[order]
    first = np.searchsorted(sorted_cell, np.arange(num_cells))
    rank = np.arange(len(order)) - first[sorted_cell]
    return np.sort(order[(sorted_cell >= 0) & (rank < num_frames_per_cell)])


def read_radioml(
    *,
    path: Path,
    modulations: Sequence[str],
    snr_labels: Sequence[int],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    samples_in: str = "auto",
    hold: Hold | None = None,
    **choice: Any,
) -> Frames:
    """Frames of a file in the layout of RadioML 2018.01A, selected by label, in file order.

    Args:
        path: the file, see amc_utils.radioml.reader.
        modulations: names.
        snr_labels: SNR levels in dB.
        device: where labels lie and computations run.
        dtype: of the samples kept.
        samples_in: see Frames.with_room.
        hold: see Frames.with_room; only the rows of held frames are read.
        choice: num_frames_per_cell, seed and label_order, see select.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be taken, or that lacks a cell that was asked for.
    """
    with open_radioml(path) as file:
        chosen = select(file, modulations=modulations, snr_labels=snr_labels, **choice)
        labels = torch.from_numpy(chosen.cell).to(device)
        frames = labels_only(labels, modulations, snr_labels, chosen.source)
        frames = frames.with_room(dtype, samples_in, hold)
        rows = chosen.rows if frames.held is None else chosen.rows[frames.held.cpu().numpy()]
        with progress(total=len(rows), desc=f"reading {path.name}", unit=" frames") as bar:
            for place in file.read(rows, frames.iq_pairs):
                bar.update(place.stop - place.start)
    return frames


def write_radioml(path: Path, frames: Frames) -> None:
    """Write frames in the layout of RadioML 2018.01A: X float32, Y one-hot int64 of 24, Z int64 dB."""
    columns = [RADIOML_2018_MODULATIONS.index(name) for name in frames.modulations]
    label = torch.tensor(columns)[frames.modulation.cpu()]
    grid = torch.tensor(frames.snr_labels)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        x = file.create_dataset("X", shape=frames.iq_pairs.shape, dtype="f4")
        for start in range(0, len(frames), _CHUNK):
            x[start : start + _CHUNK] = frames.iq_pairs[start : start + _CHUNK].float().cpu().numpy()
        one_hot = torch.nn.functional.one_hot(label, len(RADIOML_2018_MODULATIONS))
        file.create_dataset("Y", data=one_hot.numpy())
        file.create_dataset("Z", data=grid[frames.snr_index.cpu()][:, None].numpy())

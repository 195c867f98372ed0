"""Frames from where the parameters say: the generator, or an HDF5 file in RadioML 2018.01A's layout."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from amc_utils.config import DataParameters
from amc_utils.frames import Frames, labels_only, synthesise_frames
from amc_utils.labels import RADIOML_2018_MODULATIONS, SNR_GRID_DB
from amc_utils.paths import replacing
from amc_utils.signals import NUM_SAMPLES

# Rows read or written at once.
_CHUNK = 4096


def load_frames(
    config: DataParameters,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    samples_in: str = "auto",
    hold: Callable[[Frames], Tensor] | None = None,
) -> Frames:
    """Frames that the parameters ask for, from the file if one is named, else from the generator.

    For samples_in and hold see Frames.with_room.
    """
    options = {"device": device, "dtype": dtype, "samples_in": samples_in, "hold": hold}
    options["seed"] = config.seed
    if config.data_path:
        read = read_radioml
        options["path"] = Path(config.data_path)
    else:
        read = synthesise_frames
        options["channel"] = config.synthetic_channel
    return read(
        modulations=config.modulation_names,
        snr_grid_db=config.snr_grid_db,
        num_frames_per_cell=config.num_frames_per_cell,
        **options,
    )


def read_radioml(
    *,
    path: Path,
    modulations: Sequence[str],
    snr_grid_db: Sequence[int],
    num_frames_per_cell: int,
    seed: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    samples_in: str = "auto",
    hold: Callable[[Frames], Tensor] | None = None,
) -> Frames:
    """Frames of an HDF5 file in the layout of RadioML 2018.01A, selected by label, in file order.

    Of each (modulation, SNR) cell at most `num_frames_per_cell` frames are taken, drawn by `seed`;
    only their rows of X are read, a few thousand at a time, and of these only the held ones. For
    samples_in and hold see Frames.with_room.

    Raises:
        ValueError: the file lacks X, Y or Z of the published shapes, or a cell that was asked for.
    """
    try:
        file = h5py.File(path)
    except OSError as error:
        raise ValueError(f"{path} must be an HDF5 file like RadioML 2018.01A's ({error})") from None
    with file:
        _check_layout(file, path)
        cell = _read_cells(file, modulations, snr_grid_db)
        rows = _draw_rows(cell, len(modulations) * len(snr_grid_db), num_frames_per_cell, seed)
        missing = np.setdiff1d(np.arange(len(modulations) * len(snr_grid_db)), cell[rows])
        if len(missing):
            name, level = divmod(int(missing[0]), len(snr_grid_db))
            raise ValueError(
                f"{path} has no frame of {modulations[name]} at {snr_grid_db[level]} dB "
                f"({len(missing)} empty cells in all); choose modulations and snr_range_db it holds"
            )
        digest = hashlib.sha256(cell.tobytes()).hexdigest()
        source = {"label": f"frames of {path.name}", "file_bytes": path.stat().st_size}
        source["label_sha256"] = digest
        # A look at a few frames tells files apart that differ in samples only.
        few = [file["X"][row].tobytes() for row in rows[:: max(1, len(rows) // 16)]]
        source["samples_sha256"] = hashlib.sha256(b"".join(few)).hexdigest()
        labels = torch.from_numpy(cell[rows]).to(device)
        frames = labels_only(labels, modulations, snr_grid_db, source)
        frames = frames.with_room(dtype, samples_in, hold)
        if frames.held is not None:
            rows = rows[frames.held.cpu().numpy()]
        for start, stop, target in _runs(rows):
            _read_rows(file["X"], start, stop, frames.iq_pairs[target : target + stop - start])
    return frames


def write_radioml(path: Path, frames: Frames) -> None:
    """Write frames in the layout of RadioML 2018.01A: X float32, Y one-hot int64 of 24, Z int64 dB."""
    columns = [RADIOML_2018_MODULATIONS.index(name) for name in frames.modulations]
    label = torch.tensor(columns)[frames.modulation.cpu()]
    grid = torch.tensor(frames.snr_grid_db)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        x = file.create_dataset("X", shape=frames.iq_pairs.shape, dtype="f4")
        for start in range(0, len(frames), _CHUNK):
            x[start : start + _CHUNK] = frames.iq_pairs[start : start + _CHUNK].float().cpu().numpy()
        one_hot = torch.nn.functional.one_hot(label, len(RADIOML_2018_MODULATIONS))
        file.create_dataset("Y", data=one_hot.numpy())
        file.create_dataset("Z", data=grid[frames.snr_index.cpu()][:, None].numpy())


def _read_rows(samples: h5py.Dataset, start: int, stop: int, place: Tensor) -> None:
    """Rows of X to their place, without a copy in between where the place can take them as they are."""
    if place.device.type == "cpu" and place.dtype == torch.float32:
        samples.read_direct(place.numpy(), np.s_[start:stop])
    else:
        place.copy_(torch.from_numpy(samples[start:stop]))


def _check_layout(file: h5py.File, path: Path) -> None:
    missing = [name for name in "XYZ" if name not in file]
    if missing:
        raise ValueError(f"{path} must hold the datasets X, Y and Z, {missing[0]} is missing")
    num_frames = len(file["X"])
    wanted = {
        "X": (num_frames, NUM_SAMPLES, 2),
        "Y": (num_frames, len(RADIOML_2018_MODULATIONS)),
        "Z": (num_frames, 1),
    }
    for name, shape in wanted.items():
        if file[name].shape != shape:
            raise ValueError(
                f"dataset {name} of {path} must have the shape {shape} of RadioML 2018.01A's layout, "
                f"got {file[name].shape}"
            )


def _read_cells(file: h5py.File, modulations: Sequence[str], snr_grid_db: Sequence[int]) -> np.ndarray:
    """Joint class of every row, int64; -1 for rows of classes or levels that were not asked for."""
    place = np.full(len(RADIOML_2018_MODULATIONS), -1)
    place[[RADIOML_2018_MODULATIONS.index(name) for name in modulations]] = range(len(modulations))
    label = np.concatenate(
        [file["Y"][i : i + _CHUNK].argmax(1) for i in range(0, len(file["Y"]), _CHUNK)]
    )
    snr_db = file["Z"][:, 0]
    off_grid = snr_db[~np.isin(snr_db, SNR_GRID_DB)]
    if len(off_grid):
        raise ValueError(f"Z must hold even SNRs from -20 to 30 dB, got {off_grid[0]}")
    level_of = np.full(len(SNR_GRID_DB), -1)
    level_of[[SNR_GRID_DB.index(level) for level in snr_grid_db]] = range(len(snr_grid_db))
    level = level_of[(snr_db.astype(np.int64) - SNR_GRID_DB[0]) // 2]
    chosen = (place[label] >= 0) & (level >= 0)
    return np.where(chosen, place[label] * len(snr_grid_db) + level, -1)


def _draw_rows(cell: np.ndarray, num_cells: int, num_frames_per_cell: int, seed: int) -> np.ndarray:
    """Ascending rows, at most `num_frames_per_cell` of each cell, drawn without replacement."""
    # By cell, at random within each.
    order = np.argsort(cell + np.random.default_rng([seed, 0xD4A]).random(len(cell)))
    sorted_cell = cell[order]
    first = np.searchsorted(sorted_cell, np.arange(num_cells))
    rank = np.arange(len(order)) - first[sorted_cell]
    return np.sort(order[(sorted_cell >= 0) & (rank < num_frames_per_cell)])


def _runs(rows: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Stretches of consecutive rows as (first row, row after the last, position of the first)."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for target, stretch in zip(np.r_[0, breaks], np.split(rows, breaks), strict=True):
        for start in range(0, len(stretch), _CHUNK):
            part = stretch[start : start + _CHUNK]
            yield int(part[0]), int(part[-1]) + 1, int(target) + start

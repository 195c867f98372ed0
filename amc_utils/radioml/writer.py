"""Files in the layout of RadioML 2018.01A, written: any rows, or synthetic ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from amc_utils.runtime.interruption import Stopped
from amc_utils.runtime.paths import atomic_write
from amc_utils.runtime.progress import progress
from amc_utils.runtime.storage import free_disk_bytes
from amc_utils.signals import (
    CHANNEL_PRESETS,
    DEFAULT_PRESET,
    FRAMES_PER_BLOCK,
    NUM_SAMPLES,
    RADIOML_2018_MODULATIONS,
    SNR_LABELS,
    generate_frames,
)

_NUM_CLASSES = len(RADIOML_2018_MODULATIONS)
# A row of each dataset.
_ROW = {
    "X": np.dtype(("<f4", (NUM_SAMPLES, 2))),
    "Y": np.dtype(("<i8", (_NUM_CLASSES,))),
    "Z": np.dtype(("<i8", (1,))),
}


def write_rows(
    path: Path, num_rows: int, blocks: Iterable[tuple[Tensor, Tensor, Tensor]], **attributes: Any
) -> None:
    """Write a file as published: X float32 [N, 1024, 2], Y int64 one-hot [N, 24], Z int64 [N, 1].

    It is contiguous, and appears under its name when it is complete.

    Args:
        path: where to.
        num_rows: N.
        blocks: rows in order: samples [n, 1024, 2], modulation int64 [n], index into
            RADIOML_2018_MODULATIONS, and SNR labels int64 [n] in dB.
        attributes: of the file.
    """
    place = {}
    with atomic_write(path) as temporary:
        with h5py.File(temporary, "w") as file:
            file.attrs.update(attributes)
            for name, row in _ROW.items():
                allocated = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                allocated.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                dataset = file.create_dataset(name, (num_rows, *row.shape), row.base, dcpl=allocated)
                place[name] = dataset.id.get_offset()
        # HDF5 ends the process when the disk becomes full meanwhile; plain writing raises OSError.
        with temporary.open("rb+") as out:
            for iq_pairs, modulation, snr_label in blocks:
                one_hot = torch.nn.functional.one_hot(modulation, _NUM_CLASSES)
                values = {"X": iq_pairs, "Y": one_hot, "Z": snr_label}
                for name, value in values.items():
                    out.seek(place[name])
                    place[name] += out.write(value.cpu().numpy().astype(_ROW[name].base).tobytes())


def write_synthetic_file(
    path: str,
    num_frames_per_cell: int = 4096,
    seed: int = 1,
    preset: str = DEFAULT_PRESET,
    overwrite: bool = False,
) -> None:
    """Write synthetic frames of all 24 classes at all 26 SNRs in RadioML 2018.01A's layout.

    Rows are ordered by class, then SNR, as published; 4,096 frames of each make 21.4 GB. They are those
    of amc_utils.data.synthesise_frames with the same seed and channel. The file appears when it is
    complete.

        amc generate outputs/full_size.h5 --num_frames_per_cell 4096 --seed 1
        amc generate outputs/table_1.h5 --preset table_1 --overwrite

    Args:
        path: where to.
        num_frames_per_cell: frames of each class at each SNR.
        seed: of the generator, not negative.
        preset: channel, radioml_2018 or table_1.
        overwrite: replace a file that is there.

    Raises:
        FileExistsError: there is something at `path` already.
        ValueError: a number out of range, or no such channel.
        OSError: the disk has no room.
    """
    if num_frames_per_cell < 1 or seed < 0:
        got = f"got {num_frames_per_cell} and {seed}"
        raise ValueError(f"num_frames_per_cell must be at least 1 and seed not negative, {got}")
    if preset not in CHANNEL_PRESETS:
        raise ValueError(f"preset must be one of {', '.join(CHANNEL_PRESETS)}, got {preset!r}")
    num_rows = _NUM_CLASSES * len(SNR_LABELS) * num_frames_per_cell
    num_bytes = num_rows * sum(row.itemsize for row in _ROW.values())
    _check_place(Path(path), num_bytes, overwrite)
    size = f"{num_rows:,} frames ({num_bytes / 1e9:.3g} GB), {_NUM_CLASSES} classes"
    print(f"writing {size} at {len(SNR_LABELS)} SNRs, channel {preset}, to {path}", flush=True)
    blocks = _synthetic_blocks(num_frames_per_cell, seed, preset)
    try:
        # The attribute tells it from the real file, whatever it is called.
        source = "synthetic frames of amc_utils"
        write_rows(Path(path), num_rows, blocks, source=source, seed=seed, preset=preset)
    except KeyboardInterrupt:
        raise Stopped(f"stopped before {path} was complete, so none of it is left") from None
    print(f"written to {path}")


def _synthetic_blocks(
    num_frames_per_cell: int, seed: int, preset: str
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    levels = torch.tensor(SNR_LABELS)
    index = torch.arange(_NUM_CLASSES * len(levels) * num_frames_per_cell)
    with progress(total=len(index), desc="writing", unit=" frames") as bar:
        for some in index.split(FRAMES_PER_BLOCK["cpu"]):
            cell = some // num_frames_per_cell
            labels = cell // len(levels), levels[cell % len(levels)]
            made = generate_frames(
                some,
                *labels,
                modulations=RADIOML_2018_MODULATIONS,
                seed=seed,
                channel=CHANNEL_PRESETS[preset],
            )
            yield torch.view_as_real(made.iq), *labels
            bar.update(len(some))


def _check_place(path: Path, num_bytes: int, overwrite: bool) -> None:
    if path.is_dir():
        raise FileExistsError(f"{path} must be the name of a file, it is a folder; add a name")
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"{path} must be a new file, it is there; remove it, name another, or add --overwrite"
        )
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    free = free_disk_bytes(folder)
    if num_bytes > free:
        raise OSError(
            f"the disk of {folder} must have room for {num_bytes / 1e9:.1f} GB, it has "
            f"{free / 1e9:.1f}; give a path on another, or fewer frames"
        )

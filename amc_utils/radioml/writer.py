"""A file of synthetic frames in RadioML 2018.01A's layout, to try what the real one will meet.

    amc generate outputs/full_size.h5 --num-frames-per-cell 4096 --seed 1
    amc generate outputs/table_1.h5 --preset table_1

All 24 classes at all 26 SNRs, ordered by class, then SNR, as published: X float32 (rows, 1024, 2),
Y int64 one-hot (rows, 24), Z int64 (rows, 1) in dB, contiguous; 4,096 frames of each make 21.4 GB. They
are those of frames.synthesise_frames with the same seed and channel, written as they are made, so that
memory does not limit their number.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch

from amc_utils.runtime.interruption import stop_at_once
from amc_utils.runtime.paths import replacing
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
_NUM_CELLS = _NUM_CLASSES * len(SNR_LABELS)
# Shape of a row and type of each dataset.
_LAYOUT = {"X": ((NUM_SAMPLES, 2), "<f4"), "Y": ((_NUM_CLASSES,), "<i8"), "Z": ((1,), "<i8")}
_BYTES_PER_FRAME = NUM_SAMPLES * 2 * 4 + _NUM_CLASSES * 8 + 8


def write_synthetic_file(
    path: Path,
    *,
    num_frames_per_cell: int,
    seed: int,
    preset: str = DEFAULT_PRESET,
    overwrite: bool = False,
) -> None:
    """Write the file, which appears under its name when it is complete; says what it writes.

    Args:
        path: where to.
        num_frames_per_cell: frames of each class at each SNR, at least 1; 4,096 in RadioML 2018.01A.
        seed: of the generator, not negative.
        preset: name of the channel, one of signals.CHANNEL_PRESETS.
        overwrite: replace a file that is there.

    Raises:
        FileExistsError: there is something at `path` already.
        ValueError: a number out of range.
        OSError: the disk has no room.
    """
    if num_frames_per_cell < 1 or seed < 0:
        raise ValueError(
            f"num_frames_per_cell must be at least 1 and seed not negative, got {num_frames_per_cell} "
            f"and {seed}"
        )
    if preset not in CHANNEL_PRESETS:
        raise ValueError(f"preset must be one of {', '.join(CHANNEL_PRESETS)}, got {preset!r}")
    num_frames = _NUM_CELLS * num_frames_per_cell
    num_bytes = num_frames * _BYTES_PER_FRAME
    _check_place(path, num_bytes, overwrite)
    print(
        f"writing {num_frames:,} frames ({num_bytes / 1e9:.3g} GB), {_NUM_CLASSES} classes at "
        f"{len(SNR_LABELS)} SNRs, channel {preset}, to {path}",
        flush=True,
    )
    with replacing(path) as temporary:
        first_byte = _write_structure(temporary, num_frames, seed, preset)
        # HDF5 ends the process when the disk becomes full meanwhile, plain writing says so.
        with temporary.open("rb+") as file:
            for start, values in _batches(num_frames_per_cell, seed, preset):
                for name, rows in values.items():
                    file.seek(first_byte[name] + start * rows[0].nbytes)
                    file.write(rows.tobytes())


def _write_structure(path: Path, num_frames: int, seed: int, preset: str) -> dict[str, int]:
    """Write the file without its values; where each dataset's begin, in bytes from the start."""
    first_byte = {}
    with h5py.File(path, "w") as file:
        # Nobody should take it for the real file, whatever it is called.
        file.attrs.update(source="synthetic frames of amc_utils", seed=seed, preset=preset)
        for name, (row, kind) in _LAYOUT.items():
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            dataset = file.create_dataset(name, (num_frames, *row), kind, dcpl=properties)
            first_byte[name] = dataset.id.get_offset()
    return first_byte


def _batches(
    num_frames_per_cell: int, seed: int, preset: str
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """First row of each batch in turn, and the rows of each dataset, of the types in _LAYOUT."""
    snr_labels = torch.tensor(SNR_LABELS)
    num_frames = _NUM_CELLS * num_frames_per_cell
    with progress(total=num_frames, desc="writing", unit=" frames") as bar:
        for index in torch.arange(num_frames).split(FRAMES_PER_BLOCK):
            cell = index // num_frames_per_cell
            modulation, snr_label = cell // len(SNR_LABELS), snr_labels[cell % len(SNR_LABELS)]
            made = generate_frames(
                index,
                modulation,
                snr_label,
                modulations=RADIOML_2018_MODULATIONS,
                seed=seed,
                channel=CHANNEL_PRESETS[preset],
            )
            one_hot = torch.nn.functional.one_hot(modulation, _NUM_CLASSES)
            values = {"X": torch.view_as_real(made.iq), "Y": one_hot, "Z": snr_label[:, None]}
            yield int(index[0]), {n: v.numpy().astype(_LAYOUT[n][1]) for n, v in values.items()}
            bar.update(len(index))


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a file from the command line."""
    parser = argparse.ArgumentParser(
        prog="amc generate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("--num-frames-per-cell", type=int, default=4096, help="as published: 4096")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--preset", choices=CHANNEL_PRESETS, default=DEFAULT_PRESET, help="name of the channel"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    options = vars(parser.parse_args(arguments))
    path = options["path"]
    # Only an exception removes what is half written.
    signal.signal(signal.SIGTERM, stop_at_once)
    try:
        write_synthetic_file(**options)
    except KeyboardInterrupt:
        sys.exit(f"stopped before {path} was complete, so none of it is left")
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(f"written to {path}")

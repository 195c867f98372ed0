"""Samples selected from a file, kept for the next start: one .npy file of 16-bit numbers.

It lies in outputs/cache/, or where the environment variable AMC_CACHE says, and may be deleted. Which
rows of which file it holds, its name says; see RadioMLFile.identity for what counts as the same file.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch

from amc_utils.dsp.features import duplicate_pairs
from amc_utils.radioml.reader import RadioMLFile
from amc_utils.runtime.paths import atomic_write, cache_folder, one_at_a_time
from amc_utils.runtime.progress import progress
from amc_utils.runtime.storage import free_disk_bytes

# Samples of a frame that tell it from others, but for a few to be compared in full.
_HEAD = 8


def kept_samples(file: RadioMLFile, rows: np.ndarray, *, trust_file: bool = False) -> np.ndarray:
    """Samples of some rows, float16 [N, num_samples, 2], mapped from disk; changes stay in memory.

    Args:
        file: the open file.
        rows: int64 [N], ascending.
        trust_file: take frames that are there twice.

    Raises:
        ValueError: a frame is there twice or must not be read, or what was kept is damaged.
        OSError: the disk has no room.
    """
    known = json.dumps([file.identity, trust_file, file.num_samples], sort_keys=True)
    key = hashlib.sha256(known.encode() + rows.tobytes()).hexdigest()[:16]
    kept = cache_folder() / f"{key}.npy"
    # Of several processes that want the same rows the first one reads them.
    with one_at_a_time(kept.with_suffix(".lock"), f"reading {file.path.name}"):
        if kept.exists():
            print(f"taking {len(rows):,} frames of {file.path.name} from {kept}", flush=True)
        else:
            _keep(file, rows, kept, trust_file)
    try:
        samples = np.load(kept, mmap_mode="c")
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{kept} must be whole, it is damaged; delete it ({error})") from None
    if (samples.shape, samples.dtype) != ((len(rows), file.num_samples, 2), np.float16):
        raise ValueError(f"{kept} must be whole, it holds other numbers; delete it")
    return samples


def _keep(file: RadioMLFile, rows: np.ndarray, kept: Path, trust_file: bool) -> None:
    shape = (len(rows), file.num_samples, 2)
    num_bytes, free = 2 * int(np.prod(shape)), free_disk_bytes(kept.parent)
    if num_bytes > free:
        raise OSError(
            f"{kept.parent} must have room for {num_bytes / 1e9:.1f} GB of selected frames, the disk "
            f"has {free / 1e9:.1f}; let AMC_CACHE name another folder, or set engine: {{cache: false}}"
        )
    print(
        f"keeping {len(rows):,} frames of {file.path.name} ({num_bytes / 1e6:,.0f} MB) in {kept} for "
        f"the next start; it may be deleted at any time",
        flush=True,
    )
    # What a process left that was killed while it read; no other one reads these rows now.
    for leftover in kept.parent.glob(f".{kept.name}.*"):
        leftover.unlink()
    heads = np.empty((len(rows), _HEAD, 2), np.float16)
    with atomic_write(kept) as temporary:
        with (
            temporary.open("wb") as out,
            progress(total=len(rows), desc=f"reading {file.path.name}", unit=" frames") as bar,
        ):
            # Plain writing: the pages of a map would count as this process's memory.
            header = {"descr": "<f2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(out, header)
            for place, samples in file.blocks(rows):
                half = samples.to(torch.float16).numpy()
                heads[place] = half[:, :_HEAD]
                out.write(half)
                bar.update(len(half))
        twice = rows[duplicate_pairs(np.load(temporary, mmap_mode="r"), heads)]
        if len(twice) and not trust_file:
            raise ValueError(
                f"no frame of {file.path} may be there twice, once to train and once to test; got "
                f"{len(twice):,} pairs, the first in rows {twice[0][0]} and {twice[0][1]}; set "
                f"trust_file to take them all the same"
            )

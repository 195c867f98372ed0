"""Frames of a file, selected once and kept for the next start: 16 bits a number, mapped from disk.

    python -m amc_utils.cache            what is kept
    python -m amc_utils.cache --remove   remove it

A folder of the cache belongs to some rows of one file, known by its path, size and time of change. The
cache lies in outputs/cache/, or where the environment variable AMC_CACHE says.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from amc_utils.data import Selection, select
from amc_utils.features import duplicate_pairs
from amc_utils.frames import Frames, Hold, labels_only
from amc_utils.paths import cache_folder
from amc_utils.progress import progress
from amc_utils.radioml import RadioMLFile, open_radioml
from amc_utils.signals import NUM_SAMPLES
from amc_utils.storage import choose_place, free_disk_bytes

_BYTES_PER_FRAME = NUM_SAMPLES * 2 * 2
_ROWS_AT_ONCE = 4096
# Samples of a frame that tell it from others, but for a few to be compared in full.
_HEAD = 8


def cached_radioml(
    *,
    path: Path,
    device: torch.device | str = "cpu",
    samples_in: str = "auto",
    hold: Hold | None = None,
    trust_file: bool = False,
    **choice: Any,
) -> Frames:
    """Frames of a file as read_radioml gives them, but float16, from the cache; fills it if need be.

    Args:
        path: the file.
        device: where labels lie and computations run.
        samples_in: see Frames.with_room; "disk" is the cache itself.
        hold: see Frames.with_room.
        trust_file: take frames that are in the file twice.
        choice: modulations, snr_grid_db, num_frames_per_cell, seed and label_order, see select.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see read_radioml; or a frame is there twice, or the cache is damaged.
        OSError: the disk has no room.
    """
    with open_radioml(path) as file:
        chosen = select(file, **choice)
        cell = torch.from_numpy(chosen.cell).to(device)
        frames = labels_only(cell, choice["modulations"], choice["snr_grid_db"], chosen.source)
        held = hold(frames) if hold else None
        folder = _filled(file, chosen)
    samples, twice = _kept(folder, len(chosen.rows))
    if twice and not trust_file:
        raise ValueError(
            f"no frame of {path} may be there twice, once to train and once to test; got "
            f"{len(twice):,} pairs, the first in rows {twice[0][0]} and {twice[0][1]}; set trust_file "
            f"to take them all the same"
        )
    if choose_place(samples.nbytes, frames.device, samples_in) == "disk":
        return replace(frames, iq_pairs=torch.from_numpy(samples), place="disk")
    frames = frames.with_room(torch.float16, samples_in, lambda _: held)
    rows = np.arange(len(frames)) if frames.held is None else frames.held.cpu().numpy()
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        # A new map each time: what is mapped counts as memory until the map goes.
        some = _map(folder, len(frames))[rows[start : start + _ROWS_AT_ONCE]]
        frames.iq_pairs[start : start + _ROWS_AT_ONCE] = torch.from_numpy(some)
    return frames


def _filled(file: RadioMLFile, chosen: Selection) -> Path:
    """Folder of some rows; of several processes that want it the first fills it."""
    rows = chosen.rows
    # Size and time may stay where samples change, as after some ways of copying.
    known = [file.identity, chosen.source["samples_sha256"]]
    key = json.dumps(known, sort_keys=True).encode() + rows.tobytes()
    folder = cache_folder() / hashlib.sha256(key).hexdigest()[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / ".lock"):
        if not folder.exists():
            for leftover in folder.parent.glob(".filling-*"):
                shutil.rmtree(leftover)
            temporary = Path(tempfile.mkdtemp(prefix=".filling-", dir=folder.parent))
            try:
                _fill(temporary, folder, file, rows)
                temporary.chmod(0o755)
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _fill(temporary: Path, folder: Path, file: RadioMLFile, rows: np.ndarray) -> None:
    num_bytes = len(rows) * _BYTES_PER_FRAME
    free = free_disk_bytes(temporary)
    if num_bytes > free:
        raise OSError(
            f"{folder.parent} must have room for {num_bytes / 1e9:.1f} GB of selected frames, the disk "
            f"has {free / 1e9:.1f}; let AMC_CACHE name another folder, or set engine: {{cache: false}}"
        )
    print(
        f"keeping {len(rows):,} frames of {file.path.name} ({num_bytes / 1e9:.1f} GB) in {folder} for "
        f"the next start; python -m amc_utils.cache --remove removes them",
        flush=True,
    )
    heads = np.empty((len(rows), _HEAD, 2), np.float16)
    with (
        (temporary / "samples.f16").open("wb") as kept,
        progress(total=len(rows), desc=f"reading {file.path.name}", unit=" frames") as bar,
    ):
        # Plain writing: the pages of a map would count as this process's memory.
        for place, samples in file.blocks(rows):
            half = samples.to(torch.float16).numpy()
            heads[place] = half[:, :_HEAD]
            kept.write(half)
            bar.update(len(half))
    twice = rows[duplicate_pairs(_map(temporary, len(rows)), heads)].tolist()
    facts = {"file": file.identity, "twice": twice}
    (temporary / "facts.json").write_text(json.dumps(facts), encoding="utf8")


def _map(folder: Path, num_rows: int) -> np.ndarray:
    # Changes, which nobody means to make, would not reach the file.
    shape = (num_rows, NUM_SAMPLES, 2)
    return np.memmap(folder / "samples.f16", np.float16, mode="c", shape=shape)


def _kept(folder: Path, num_rows: int) -> tuple[np.ndarray, list]:
    try:
        facts = json.loads((folder / "facts.json").read_text(encoding="utf8"))
        samples, twice = _map(folder, num_rows), facts["twice"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} must be whole, it is damaged; python -m amc_utils.cache --remove ({error})"
        ) from None
    return samples, twice


def main() -> None:
    """List or remove the cache, from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m amc_utils.cache",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--remove", action="store_true", help="remove all that is kept")
    options = parser.parse_args()
    root = cache_folder()
    if options.remove:
        shutil.rmtree(root, ignore_errors=True)
        print(f"removed {root}" if not root.exists() else f"could not remove all of {root}")
        return
    for facts in sorted(root.glob("[!.]*/facts.json")):
        file = json.loads(facts.read_text(encoding="utf8"))["file"]
        size = (facts.parent / "samples.f16").stat().st_size
        print(f"{facts.parent}  {size / 1e9:.2f} GB of {file['path']}")


if __name__ == "__main__":
    main()

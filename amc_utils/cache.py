"""Frames of a file, selected once and kept for the next start: 16 bits a number, mapped from disk.

    python -m amc_utils.cache            what is kept
    python -m amc_utils.cache --remove   remove it

A folder of the cache belongs to some rows of one file, known by its path, size and time of change. It
has their samples and of each frame a sum over its bits, by which damage is noticed. The cache lies in
outputs/cache/, or where the environment variable AMC_CACHE says.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amc_utils.data import Selection, select
from amc_utils.features import duplicate_pairs
from amc_utils.frames import Frames, Hold, labels_only
from amc_utils.locking import one_at_a_time
from amc_utils.paths import cache_folder
from amc_utils.progress import progress
from amc_utils.radioml import RadioMLFile, open_radioml
from amc_utils.signals import NUM_SAMPLES
from amc_utils.storage import choose_place, free_disk_bytes

# Raise it when the layout of a folder changes.
_FORMAT = 2
_BYTES_PER_FRAME = NUM_SAMPLES * 2 * 2
_ROWS_AT_ONCE = 4096
# Samples of a frame that tell it from others, but for a few to be compared in full.
_HEAD = 8
# Frames whose sums are looked at where samples stay on the disk.
_PROBES = 256


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
    samples, sums, twice = _kept(folder, len(chosen.rows))
    if twice and not trust_file:
        raise ValueError(
            f"no frame of {path} may be there twice, once to train and once to test; got "
            f"{len(twice):,} pairs, the first in rows {twice[0][0]} and {twice[0][1]}; set trust_file "
            f"to take them all the same"
        )
    if choose_place(samples.nbytes, frames.device, samples_in) == "disk":
        probes = np.unique(np.linspace(0, len(samples) - 1, _PROBES).astype(np.int64))
        # By plain reading: what is touched of a map counts as memory, two megabytes at a time.
        some = [_read(folder, row) for row in probes.tolist()]
        _check(np.stack(some), sums[probes], folder)
        return replace(frames, iq_pairs=torch.from_numpy(samples), place="disk")
    frames = frames.with_room(torch.float16, samples_in, lambda _: held)
    rows = np.arange(len(frames)) if frames.held is None else frames.held.cpu().numpy()
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[start : start + _ROWS_AT_ONCE]
        # A new map each time: what is mapped counts as memory until the map goes.
        half = _map(folder, len(frames))[some]
        _check(half, sums[some], folder)
        frames.iq_pairs[start : start + _ROWS_AT_ONCE] = torch.from_numpy(half)
    return frames


def _filled(file: RadioMLFile, chosen: Selection) -> Path:
    """Folder of some rows; of several processes that want it the first fills it."""
    rows = chosen.rows
    # Size and time may stay where samples change, as after some ways of copying.
    known = [_FORMAT, file.identity, chosen.source["samples_sha256"]]
    key = json.dumps(known, sort_keys=True).encode() + rows.tobytes()
    folder = cache_folder() / hashlib.sha256(key).hexdigest()[:16]
    with one_at_a_time(_lock(folder), f"reading {file.path.name}"):
        if not folder.exists():
            _remove_leftovers(folder)
            temporary = Path(tempfile.mkdtemp(prefix=f".filling-{folder.name}-", dir=folder.parent))
            try:
                _fill(temporary, folder, file, rows)
                temporary.chmod(0o755)
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _lock(folder: Path) -> Path:
    return folder.parent / f".lock-{folder.name}"


def _remove_leftovers(folder: Path) -> None:
    """What a process left that was killed while it filled the folder."""
    for leftover in folder.parent.glob(f".filling-{folder.name}-*"):
        shutil.rmtree(leftover)


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
    sums = np.empty(len(rows), np.int64)
    with (
        (temporary / "samples.f16").open("wb") as kept,
        progress(total=len(rows), desc=f"reading {file.path.name}", unit=" frames") as bar,
    ):
        # Plain writing: the pages of a map would count as this process's memory.
        for place, samples in file.blocks(rows):
            half = samples.to(torch.float16).numpy()
            heads[place], sums[place] = half[:, :_HEAD], _sums(half)
            kept.write(half)
            bar.update(len(half))
    twice = rows[duplicate_pairs(_map(temporary, len(rows)), heads)].tolist()
    np.save(temporary / "sums.npy", sums)
    facts = {"file": file.identity, "twice": twice}
    (temporary / "facts.json").write_text(json.dumps(facts), encoding="utf8")


def _map(folder: Path, num_rows: int) -> np.ndarray:
    # Changes, which nobody means to make, would not reach the file.
    shape = (num_rows, NUM_SAMPLES, 2)
    return np.memmap(folder / "samples.f16", np.float16, mode="c", shape=shape)


def _read(folder: Path, row: int) -> np.ndarray:
    path, count = folder / "samples.f16", 2 * NUM_SAMPLES
    return np.fromfile(path, np.float16, count, offset=row * _BYTES_PER_FRAME).reshape(-1, 2)


def _sums(half: np.ndarray) -> np.ndarray:
    """Sum over the bits of each frame in words of 64, int64 [n], of samples [n, num_samples, 2]."""
    return np.ascontiguousarray(half).reshape(len(half), -1).view(np.int64).sum(1)


def _check(half: np.ndarray, sums: np.ndarray, folder: Path) -> None:
    if not (_sums(half) == sums).all():
        raise _damaged(folder, "samples are not what was kept")


def _damaged(folder: Path, why: object) -> ValueError:
    return ValueError(
        f"{folder} must be whole, it is damaged; python -m amc_utils.cache --remove ({why})"
    )


def _kept(folder: Path, num_rows: int) -> tuple[np.ndarray, np.ndarray, list]:
    """Samples, mapped from disk, the sums of frames, and pairs of rows that are equal."""
    try:
        facts = json.loads((folder / "facts.json").read_text(encoding="utf8"))
        samples, sums, twice = _map(folder, num_rows), np.load(folder / "sums.npy"), facts["twice"]
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        raise _damaged(folder, error) from None
    if sums.shape != (num_rows,) or not isinstance(twice, list):
        raise _damaged(folder, "it holds other frames")
    return samples, sums, twice


def _listed(folder: Path) -> str:
    """What a folder holds, in a line."""
    try:
        path = json.loads((folder / "facts.json").read_text(encoding="utf8"))["file"]["path"]
        size = (folder / "samples.f16").stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return f"{folder}  damaged"
    return f"{folder}  {size / 1e9:.2f} GB of {path}"


def _remove(root: Path) -> None:
    """All that is kept, when no process is filling it any more."""
    names = {path.name for path in root.glob("[!.]*") if path.name != "audits"}
    names |= {path.name.split("-")[1] for path in root.glob(".filling-*")}
    names |= {path.name.split("-")[1] for path in root.glob(".lock-*")}
    for folder in (root / name for name in sorted(names)):
        with one_at_a_time(_lock(folder), f"filling {folder}"):
            _remove_leftovers(folder)
            if folder.exists():
                shutil.rmtree(folder)
            _lock(folder).unlink()
    with one_at_a_time(root / "audits" / ".lock", "auditing a file"):
        shutil.rmtree(root / "audits")
    if not any(root.iterdir()):
        root.rmdir()


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
        try:
            _remove(root)
        except OSError as error:
            sys.exit(f"could not remove all of {root} ({error.strerror}: {error.filename})")
        print(f"removed what was kept in {root}")
        return
    for folder in sorted(root.glob("[!.]*/")):
        if folder.name != "audits":
            print(_listed(folder))


if __name__ == "__main__":
    main()

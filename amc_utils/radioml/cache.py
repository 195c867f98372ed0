"""Frames of a file, selected once and kept for the next start: 16 bits a number, mapped from disk.

    amc cache            what is kept
    amc cache --remove   remove it

A folder of the cache belongs to some rows of one file, known by its path, size and time of change. It
has their samples and of each frame a sum over its bits, by which damage is noticed: of every frame that
goes to memory, and of a few where samples stay on the disk. The cache lies in outputs/cache/, or where
the environment variable AMC_CACHE says.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amc_utils.data import Frames, Hold, Selection, labels_only, select
from amc_utils.radioml.kept_frames import BYTES_PER_FRAME, KeptFrames, keep
from amc_utils.radioml.reader import RadioMLFile, open_radioml
from amc_utils.runtime.locking import one_at_a_time
from amc_utils.runtime.paths import cache_folder
from amc_utils.runtime.storage import choose_place

# Raise it when the layout of a folder changes.
_FORMAT = 3
# Names of its folders, of those being filled, and of their locks.
_OURS = re.compile(r"(?:\.filling-|\.lock-)?([0-9a-f]{16})(?:-.*)?")
_ROWS_AT_ONCE = 4096


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
        choice: modulations, snr_labels, num_frames_per_cell, seed and label_order, see select.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see read_radioml; or a frame is there twice, or the cache is damaged.
        OSError: the disk has no room.
    """
    with open_radioml(path) as file:
        chosen = select(file, **choice)
        cell = torch.from_numpy(chosen.cell).to(device)
        frames = labels_only(cell, choice["modulations"], choice["snr_labels"], chosen.source)
        held = hold(frames) if hold else None
        kept = _kept_frames(file, chosen)
    with kept.samples:
        if kept.twice and not trust_file:
            raise ValueError(
                f"no frame of {path} may be there twice, once to train and once to test; got "
                f"{len(kept.twice):,} pairs, the first in rows {kept.twice[0][0]} and "
                f"{kept.twice[0][1]}; set trust_file to take them all the same"
            )
        num_bytes = len(frames) * BYTES_PER_FRAME
        if choose_place(num_bytes, frames.device, samples_in) == "disk":
            kept.check_some()
            return replace(frames, iq_pairs=torch.from_numpy(kept.map()), place="disk")
        frames = frames.with_room(torch.float16, samples_in, lambda _: held)
        rows = np.arange(len(frames)) if frames.held is None else frames.held.cpu().numpy()
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            half = kept.read(rows[start : start + _ROWS_AT_ONCE])
            frames.iq_pairs[start : start + _ROWS_AT_ONCE] = torch.from_numpy(half)
    return frames


def _kept_frames(file: RadioMLFile, chosen: Selection) -> KeptFrames:
    """Some rows of a file; of several processes that want them the first fills the cache."""
    rows = chosen.rows
    known = [_FORMAT, file.identity, chosen.source["samples_sha256"]]
    key = json.dumps(known, sort_keys=True).encode() + rows.tobytes()
    folder = cache_folder() / hashlib.sha256(key).hexdigest()[:16]
    with one_at_a_time(_lock(folder), f"reading {file.path.name}"):
        if folder.exists():
            print(f"taking {len(rows):,} frames of {file.path.name} from {folder.parent}", flush=True)
        else:
            _remove_leftovers(folder)
            temporary = Path(tempfile.mkdtemp(prefix=f".filling-{folder.name}-", dir=folder.parent))
            try:
                keep(temporary, folder, file, rows)
                temporary.chmod(0o755)
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return KeptFrames.opened(folder, len(rows))


def _lock(folder: Path) -> Path:
    return folder.parent / f".lock-{folder.name}"


def _remove_leftovers(folder: Path) -> None:
    """What a process left that was killed while it filled the folder."""
    for leftover in folder.parent.glob(f".filling-{folder.name}-*"):
        shutil.rmtree(leftover)


def _listed(folder: Path) -> str:
    """What a folder holds, in a line."""
    try:
        path = json.loads((folder / "facts.json").read_text(encoding="utf8"))["file"]["path"]
        size = (folder / "samples.f16").stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return f"{folder}  damaged"
    return f"{folder}  {size / 1e6:,.0f} MB of {path}"


def _remove(root: Path) -> None:
    """All that is kept, when no process is filling it any more."""
    names = {found[1] for path in root.glob("*") if (found := _OURS.fullmatch(path.name))}
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


def main(arguments: Sequence[str] | None = None) -> None:
    """List or remove the cache, from the command line."""
    parser = argparse.ArgumentParser(
        prog="amc cache",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--remove", action="store_true", help="remove all that is kept")
    options = parser.parse_args(arguments)
    root = cache_folder()
    if options.remove:
        try:
            _remove(root)
        except OSError as error:
            sys.exit(f"could not remove all of {root} ({error.strerror}: {error.filename})")
        print(f"removed what was kept in {root}")
        return
    lines = [_listed(folder) for folder in sorted(root.glob("[0-9a-f]" * 16))]
    audits = len(list(root.glob("audits/*.json")))
    print(*lines, f"verdicts on {audits} files or labellings in {root / 'audits'}", sep="\n")

"""Checkpoint files of a run: whole or not at all, one owner at a time, the last two kept."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning.fabric import Fabric

from amc_utils.runtime.paths import atomic_write

# Locks last as long as the process: a notebook may build its trainer again, another process may not.
_LOCKS: dict[Path, FileLock] = {}
_PARTS = {"history", "config", "frames", "network", "weighting"}


class Checkpoints:
    """The checkpoint folder of one run.

    Attributes:
        best: network and task weights of the epoch with the highest joint accuracy on the validation
            frames, for use elsewhere; a run goes on without it.
        last: the newest checkpoint.
        previous: the one before it, for the day when the last is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best, self.last, self.previous = (
            folder / f"{name}.ckpt" for name in ("best", "last", "previous")
        )

    def claim(self) -> None:
        """Keep other processes out of the folder until this one ends; what a killed one left half goes.

        Raises:
            ValueError: another process is at work there.
            OSError: the folder cannot be written.
        """
        key = self.folder.resolve()
        if key in _LOCKS:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock")
            lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"run_name must not be in use, and another process is training {self.folder.name!r}; "
                f"wait for it, or choose another name"
            ) from None
        except OSError as error:
            raise OSError(
                f"checkpoints must be written to {self.folder}, and cannot be ({error.strerror}); "
                f"choose another output_root"
            ) from error
        _LOCKS[key] = lock
        # Temporary files of writers that were killed; there is no other writer now.
        for leftover in self.folder.glob(".*.ckpt"):
            leftover.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Give a claimed folder back, and remove it if it holds nothing: the run cannot begin."""
        lock = _LOCKS.pop(self.folder.resolve(), None)
        if lock:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()
            with suppress(OSError):  # what holds checkpoints stays
                self.folder.rmdir()

    def write(self, path: Path, content: Mapping[str, Any], fabric: Fabric) -> None:
        """Write one of the run's checkpoints; every process calls this, the first one writes.

        Raises:
            OSError: the file cannot be written; what was there before is still there.
        """
        try:
            with atomic_write(path) if fabric.is_global_zero else nullcontext(path) as temporary:
                fabric.save(temporary, dict(content))
                if fabric.is_global_zero and path == self.last and path.exists():
                    path.replace(self.previous)
        # torch reports a full disk as a RuntimeError of its zip writer.
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"checkpoint {path} could not be written ({error}); make room and start the run again "
                f"under its name, {self.folder.name!r}: it goes on from the checkpoint before"
            ) from error

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that is whole, and its content; None where there is none.

        Raises:
            ValueError: there are checkpoints, and all are damaged.
        """
        damage = []
        for path in (self.last, self.previous):
            if path.is_file():
                try:
                    return path, read_checkpoint(path)
                except ValueError as error:
                    damage.append(str(error))
                    warnings.warn(f"{error}; the one before it is used", stacklevel=2)
        if damage:
            raise ValueError(f"{damage[0]}; remove {self.folder} to start the run afresh")
        return None


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """Content of a checkpoint, on the CPU; nothing in it is executed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one that this project did not write.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint not found: {path}; training leaves best.ckpt in outputs/")
    try:
        # torch.load ignores the checksums of the archive and would take flipped bits for weights.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"checkpoint {path} must be whole, its part {damaged} is damaged")
        content = torch.load(path, weights_only=True, map_location="cpu")
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, NotImplementedError) as error:
        raise ValueError(f"checkpoint {path} must be a whole file, it is damaged ({error})") from None
    except pickle.UnpicklingError:
        content = None
    if not isinstance(content, dict) or _PARTS - content.keys():
        raise ValueError(f"{path} must be a checkpoint that this project wrote, it is another file")
    return content

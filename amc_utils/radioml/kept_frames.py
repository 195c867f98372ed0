"""A folder of selected frames as the cache keeps it: samples, sums over their bits, facts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import torch

from amc_utils.dsp.features import duplicate_pairs
from amc_utils.radioml.reader import RadioMLFile
from amc_utils.runtime.progress import progress
from amc_utils.runtime.storage import free_disk_bytes
from amc_utils.signals import NUM_SAMPLES

BYTES_PER_FRAME = NUM_SAMPLES * 2 * 2
# Samples of a frame that tell it from others, but for a few to be compared in full.
_HEAD = 8
# Frames whose sums are looked at where samples stay on the disk.
_PROBES = 256


@dataclass(frozen=True)
class KeptFrames:
    """Frames in an open folder, which may be removed meanwhile.

    Attributes:
        folder: where it lies.
        samples: its open file of samples.
        sums: int64 [N], see _sums.
        twice: pairs of rows of the file that are equal.
    """

    folder: Path
    samples: BinaryIO
    sums: np.ndarray
    twice: list

    @classmethod
    def opened(cls, folder: Path, num_rows: int) -> Self:
        """The folder, checked as far as that takes no reading of samples."""
        try:
            facts = json.loads((folder / "facts.json").read_text(encoding="utf8"))
            sums, twice = np.load(folder / "sums.npy"), facts["twice"]
            whole = (folder / "samples.f16").stat().st_size == num_rows * BYTES_PER_FRAME
            samples = (folder / "samples.f16").open("rb")
        except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
            raise _damaged(folder, error) from None
        if not whole or sums.shape != (num_rows,) or not isinstance(twice, list):
            samples.close()
            raise _damaged(folder, "it is cut, or holds other frames")
        return cls(folder, samples, sums, twice)

    def map(self) -> np.ndarray:
        """All samples, float16 [N, num_samples, 2]; changes, which nobody means to make, stay here."""
        shape = (len(self.sums), NUM_SAMPLES, 2)
        return np.memmap(self.samples, np.float16, mode="c", shape=shape)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Samples of some frames, checked."""
        # A new map each time: what is mapped counts as memory until the map goes.
        half = self.map()[rows]
        if not (_sums(half) == self.sums[rows]).all():
            raise _damaged(self.folder, "samples are not what was kept")
        return half

    def check_some(self) -> None:
        """Look at the sums of a few frames."""
        rows = np.linspace(0, len(self.sums) - 1, _PROBES).astype(np.int64)
        for row in rows.tolist():
            # By plain reading: what is touched of a map counts as memory, two megabytes at a time.
            self.samples.seek(row * BYTES_PER_FRAME)
            half = np.frombuffer(self.samples.read(BYTES_PER_FRAME), np.float16)
            if _sums(half[None])[0] != self.sums[row]:
                raise _damaged(self.folder, "samples are not what was kept")


def keep(temporary: Path, folder: Path, file: RadioMLFile, rows: np.ndarray) -> None:
    """Write rows of a file into `temporary`, which will become `folder`; says what it does.

    Raises:
        OSError: the disk has no room.
        ValueError: a frame that must not be read, see radioml.
    """
    num_bytes = len(rows) * BYTES_PER_FRAME
    free = free_disk_bytes(temporary)
    if num_bytes > free:
        raise OSError(
            f"{folder.parent} must have room for {num_bytes / 1e9:.1f} GB of selected frames, the disk "
            f"has {free / 1e9:.1f}; let AMC_CACHE name another folder, or set engine: {{cache: false}}"
        )
    print(
        f"keeping {len(rows):,} frames of {file.path.name} ({num_bytes / 1e6:,.0f} MB) in {folder} for "
        f"the next start; amc cache --remove removes them",
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
    shape = (len(rows), NUM_SAMPLES, 2)
    kept = np.memmap(temporary / "samples.f16", np.float16, mode="r", shape=shape)
    twice = rows[duplicate_pairs(kept, heads)].tolist()
    np.save(temporary / "sums.npy", sums)
    facts = {"file": file.identity, "twice": twice}
    (temporary / "facts.json").write_text(json.dumps(facts), encoding="utf8")


def _sums(half: np.ndarray) -> np.ndarray:
    """Weighted sum over the bits of each frame in words of 64, int64 [n], of float16 [n, ...]."""
    words = np.ascontiguousarray(half).reshape(len(half), -1).view(np.int64)
    # Odd weights, all different, so that words that change places change the sum.
    return (words * np.arange(1, 2 * words.shape[1], 2)).sum(1)


def _damaged(folder: Path, why: object) -> ValueError:
    return ValueError(f"{folder} must be whole, it is damaged; amc cache --remove ({why})")

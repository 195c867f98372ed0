"""RadioML files: opened, checked, read row by row.

Taken are files in the layout of RadioML 2018.01A: X of shape (rows, 1024, 2) in floating point or small
integers, the labels Y one-hot (rows, 24) or as class numbers (rows,) or (rows, 1), the SNRs Z (rows, 1)
or (rows,); contiguous or in chunks, compressed or not, rows in any order. A file that would have
another file read is refused. Taken are also the dictionaries of RadioML 2016.10, see
amc_utils.radioml.pickled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from amc_utils.radioml.checks import PICKLE, checked_datasets, explaining, kind_of
from amc_utils.radioml.pickled import read_pickled
from amc_utils.runtime.storage import free_host_bytes
from amc_utils.signals import RADIOML_2018_MODULATIONS, SNR_LABELS

# The list in the classes.txt shipped with RadioML 2018.01A, kept to recognise files labelled by it.
SHIPPED_WRONG_MODULATIONS = (
    "32PSK", "16APSK", "32QAM", "FM", "GMSK", "32APSK", "OQPSK", "8ASK", "BPSK", "8PSK",
    "AM-SSB-SC", "4ASK", "16PSK", "64APSK", "128QAM", "128APSK", "AM-DSB-SC", "AM-SSB-WC", "64QAM",
    "QPSK", "256QAM", "AM-DSB-WC", "OOK", "16QAM",
)  # fmt: skip
LABEL_ORDERS = {"corrected": RADIOML_2018_MODULATIONS, "shipped": SHIPPED_WRONG_MODULATIONS}
# Rows read at once: 16 MB, still in a large cache when they are looked at.
_CHUNK = 2048
# Unwanted rows are read over, up to so many in a row: seeking past them takes longer.
_GAP = 8
# Chunks of compressed files are unpacked once and kept until the next rows are read.
_CHUNK_CACHE_BYTES = 1 << 26
_LABEL_ROWS = 1 << 14
# Mean powers of a frame that any arithmetic here bears.
_POWER_RANGE = (1e-6, 1e6)
# What reading needs beside the samples: classes, random numbers and their order, for every row.
_BYTES_PER_ROW = 64


@dataclass(frozen=True)
class RadioMLFile:
    """An open file whose structure is in order; see open_radioml.

    Attributes:
        path: where it lies.
        samples: its dataset X, [num_rows, at least num_samples, 2]; an array from a pickle.
        labels: its dataset Y; from a pickle class numbers.
        levels: its dataset Z.
        scale: what its samples are multiplied by; 1 for floating point in HDF5.
        num_samples: samples of a frame that are read, the first ones.
        modulations: its classes, by its own names.
    """

    path: Path
    samples: h5py.Dataset | np.ndarray
    labels: h5py.Dataset | np.ndarray
    levels: h5py.Dataset | np.ndarray
    scale: float
    num_samples: int
    modulations: tuple[str, ...] = RADIOML_2018_MODULATIONS

    @property
    def num_rows(self) -> int:
        """Number of frames."""
        return len(self.samples)

    @property
    def identity(self) -> dict[str, Any]:
        """What tells the file from others and from what it was before, without reading it.

        Every write moves the time of status change, also where the time of modification is set back. A
        write goes unnoticed where the file system keeps no such time, or in the same tick of its clock,
        some milliseconds, as the one before.
        """
        facts = self.path.stat()
        return {
            "path": str(self.path.resolve()),
            "inode": facts.st_ino,
            "bytes": facts.st_size,
            "changed": [facts.st_mtime_ns, facts.st_ctime_ns],
        }

    def modulation(self, label_order: str = "corrected") -> np.ndarray:
        """Class of every row, int64 [num_rows], index into `modulations`.

        Args:
            label_order: which list of names Y follows: "corrected", or "shipped" for the wrong one.

        Raises:
            ValueError: a row that names no class, or two; another order of classes that have names.
        """
        names = LABEL_ORDERS[label_order]
        if self.modulations != RADIOML_2018_MODULATIONS:
            if label_order != "corrected":
                raise ValueError(
                    f"label_order must be corrected for {self.path}, which names its classes itself, "
                    f"got {label_order!r}"
                )
            names = self.modulations
        number = np.array([self.modulations.index(name) for name in names])
        parts = [self._class_numbers(start) for start in range(0, self.num_rows, _LABEL_ROWS)]
        return number[np.concatenate(parts)]

    def _class_numbers(self, start: int) -> np.ndarray:
        with explaining(self.path):
            block = self.labels[start : start + _LABEL_ROWS]
        if self.labels.shape[1:] == (len(RADIOML_2018_MODULATIONS),):
            found = block.argmax(1)
            marked = np.take_along_axis(block, found[:, None], 1)[:, 0] == 1
            if np.count_nonzero(block) != len(block) or not marked.all():
                bad = (np.count_nonzero(block, axis=1) != 1) | ~marked
                rule = f"every row of Y in {self.path} must be one-hot, with a single 1"
                _refuse_first(bad, block, rule, start)
            return found
        numbers = block.reshape(-1)
        last = len(self.modulations) - 1
        rule = f"Y in {self.path} must hold class numbers from 0 to {last}"
        _refuse_first(~((numbers >= 0) & (numbers <= last)), numbers, rule, start)
        return numbers.astype(np.int64)

    def snr_label(self) -> np.ndarray:
        """SNR label of every row in dB, int64 [num_rows].

        Raises:
            ValueError: a label off RadioML's grid.
        """
        with explaining(self.path):
            levels = self.levels[:].reshape(-1)
        rule = f"Z in {self.path} must hold even SNRs from -20 to 30 dB"
        _refuse_first(~np.isin(levels, SNR_LABELS), levels, rule)
        return levels.astype(np.int64)

    def blocks(self, rows: np.ndarray, *, check: bool = True) -> Iterator[tuple[slice, Tensor]]:
        """Rows, a few hundred at a time.

        Args:
            rows: int64 [n], ascending.
            check: refuse frames that no network should see.

        Yields:
            Which rows, as a slice of 0 to n, and their samples, float32 [m, num_samples, 2], in memory
            that the next block overwrites.

        Raises:
            ValueError: a frame with samples that are not finite, or without power; a damaged file.
        """
        buffer = np.empty((_CHUNK, *self.samples.shape[1:]), np.float32)
        for place, start, stop in _stretches(rows):
            block = buffer[: stop - start]
            if isinstance(self.samples, np.ndarray):
                block[:] = self.samples[start:stop]
            else:
                with explaining(self.path):
                    self.samples.read_direct(block, np.s_[start:stop])
            samples = torch.from_numpy(block)[:, : self.num_samples]
            if len(samples) > place.stop - place.start:
                samples = samples[torch.from_numpy(rows[place] - start)]
            if self.scale != 1:
                samples.mul_(self.scale)
            if check:
                self._check(samples, rows[place])
            yield place, samples

    def _check(self, samples: Tensor, rows: np.ndarray) -> None:
        power = torch.linalg.vector_norm(samples.flatten(1), dim=1).square_() / self.num_samples
        low, high = torch.aminmax(power)
        if not (low >= _POWER_RANGE[0] and high <= _POWER_RANGE[1]):
            good = (power >= _POWER_RANGE[0]) & (power <= _POWER_RANGE[1])
            row = int(good.to(torch.int8).argmin())
            raise ValueError(
                f"every frame of {self.path} must be finite and of a power that is not extreme, row "
                f"{rows[row]} has a mean power of {float(power[row]):.2g}; amc audit "
                f"lists more of them, which must be removed"
            )


def _refuse_first(bad: np.ndarray, values: np.ndarray, rule: str, start: int = 0) -> None:
    """Raise for the first row that breaks a rule, if there is one."""
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"{rule}, got {values[row].tolist()} in row {start + row}")


def evenly_spaced(count: int, at_most: int) -> np.ndarray:
    """Numbers from 0 to count - 1, all over the range; int64 [min(count, at_most)].

    Raises:
        ValueError: none are wanted.
    """
    if at_most < 1:
        raise ValueError(f"num_frames must be at least 1, got {at_most}")
    return np.linspace(0, count - 1, min(count, at_most)).round().astype(np.int64)


def _stretches(rows: np.ndarray) -> Iterator[tuple[slice, int, int]]:
    """Which of the rows to read together, the first row, and the row after the last."""
    breaks = np.flatnonzero(np.diff(rows) > _GAP) + 1
    for begin, end in zip([0, *breaks], [*breaks, len(rows)], strict=True):
        while begin < end:
            first = rows[begin]
            after = begin + int(np.searchsorted(rows[begin:end], first + _CHUNK))
            yield slice(int(begin), after), int(first), int(rows[after - 1]) + 1
            begin = after


@contextmanager
def open_radioml(path: Path | str, num_samples: int = 0) -> Iterator[RadioMLFile]:
    """Open a file and check its structure: kind of file, links, filters, shapes, types, completeness.

    Args:
        path: the file.
        num_samples: samples of a frame to read; 0 for all.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be taken, see the module, or with shorter frames; says why.
    """
    path = Path(path)
    if kind_of(path) == PICKLE:
        content = read_pickled(path)
        samples = content.samples
        yield RadioMLFile(
            path,
            samples,
            content.class_number,
            content.snr_label,
            _unit_power_scale(samples),
            _enough_samples(path, samples, num_samples),
            content.modulations,
        )
        return
    with explaining(path):
        file = h5py.File(path, "r", rdcc_nbytes=_CHUNK_CACHE_BYTES)
    with file:
        with explaining(path):
            x, y, z = checked_datasets(file, path)
            if _BYTES_PER_ROW * len(x) > free_host_bytes():
                raise ValueError(
                    f"{path} must have no more rows than memory has room to sort, got {len(x):,}; "
                    f"cut the file into parts"
                )
            scale = 1.0 if x.dtype.kind == "f" else _unit_power_scale(x)
            opened = RadioMLFile(path, x, y, z, scale, _enough_samples(path, x, num_samples))
        yield opened


def _enough_samples(path: Path, samples: h5py.Dataset | np.ndarray, wanted: int) -> int:
    """Samples of a frame to read, all where none are asked for."""
    there = samples.shape[1]
    if wanted > there:
        raise ValueError(
            f"num_samples must be at most {there}, the samples of a frame in {path}, got {wanted:,}; "
            f"a network reads frames of the length that it was trained on"
        )
    return wanted or there


def _unit_power_scale(samples: h5py.Dataset | np.ndarray) -> float:
    """What gives sound rows from all over the file unit mean power; 1 where there are none."""
    some = np.stack([samples[row] for row in evenly_spaced(len(samples), 64)]).astype(np.float64)
    power = np.square(some).sum(-1).mean(1)
    # A broken frame must not take the others with it.
    sound = power[np.isfinite(power) & (power > 0)]
    return float(1 / np.sqrt(sound.mean())) if len(sound) else 1.0

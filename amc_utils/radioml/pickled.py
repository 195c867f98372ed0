"""The dictionaries of RadioML 2016.10a and 2016.10b, read without carrying out what a pickle asks for.

Each is a pickle of Python 2: {(modulation, SNR label): float32 array [frames, 2, 128]}. A pickle is a
program that may call anything. Here it can call nothing: of the names that an array refers to none is
looked up, and what each would be made from is kept instead; any other name is refused.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from amc_utils.radioml.checks import explaining
from amc_utils.runtime.storage import free_host_bytes
from amc_utils.signals import RADIOML_2016_MODULATIONS, SNR_LABELS

# Steps of a pickle, of which an array takes some sixty, and how deep tuples and objects may nest.
_MOST_STEPS, _DEEPEST = 200_000, 8
_NESTING = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "DICT", "REDUCE", "NEWOBJ"}
# What arrays of numpy refer to, and how Python 3 writes bytes for Python 2.
_KNOWN_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


@dataclass(frozen=True)
class PickledFrames:
    """Content of a dictionary, ordered by modulation, then SNR label.

    Attributes:
        samples: float32 [num_rows, num_samples, 2].
        class_number: int64 [num_rows], index into `modulations`.
        snr_label: int64 [num_rows].
        modulations: names of the classes, those of RADIOML_2016_MODULATIONS that are there.
    """

    samples: np.ndarray
    class_number: np.ndarray
    snr_label: np.ndarray
    modulations: tuple[str, ...]


class _Kept:
    """What a pickle would make an object from."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self.arguments, self.state = arguments, ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _HarmlessUnpickler(pickle.Unpickler):
    """Makes dictionaries, tuples, numbers and strings, and keeps what arrays would be made from."""

    def find_class(self, module: str, name: str) -> Callable[..., _Kept]:
        """A function that keeps its arguments, a new one each time, for pickles may change it."""
        if (module, name) not in _KNOWN_NAMES:
            raise _Refused(f"{module}.{name}")
        return lambda *arguments: _Kept(arguments)


class _WithoutStrings:
    """A pickle whose strings are empty: pickletools knows those of ASCII alone."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.read = file, file.read

    def readline(self) -> bytes:
        """The next line, an empty string in place of one in quotes."""
        line = self.file.readline()
        return b"''\n" if line[:1] in (b"'", b'"') else line


class _Refused(Exception):
    """A pickle asks for something that no array needs."""


def read_pickled(path: Path) -> PickledFrames:
    """Frames of a dictionary like that of RadioML 2016.10a.

    Raises:
        ValueError: a pickle that asks for anything but arrays, is damaged, or holds something else.
    """
    size = path.stat().st_size
    # At most: of Python 2's first protocol, which writes numbers as text, it is a third.
    if size > (free := free_host_bytes()):
        raise ValueError(
            f"{path} must fit into memory, it has {size / 1e9:.1f} GB and there is room for "
            f"{free / 1e9:.1f}; close what else takes memory"
        )
    try:
        with explaining(path, "pickle of arrays"), path.open("rb") as file:
            _check_size(file)
            file.seek(0)
            cells = _cells(_HarmlessUnpickler(file, encoding="bytes").load(), path)
    except _Refused as refused:
        if "_frombuffer" in str(refused):
            raise ValueError(
                f"{path} must have pickle protocol 4 or lower, write it again so"
            ) from None
        raise ValueError(
            f"{path} must be a pickle of arrays, and asks for {refused}, which they do not need; "
            f"nothing of it was carried out"
        ) from None
    return _in_order(cells, path)


def _check_size(file: BinaryIO) -> None:
    """Refuse a pickle of more steps, or nested deeper, than arrays need: few bytes may become many.

    Raises:
        _Refused: such a pickle.
    """
    stack: list[int | None] = []
    memo: dict[Any, int | None] = {}
    for number, (step, argument, _) in enumerate(pickletools.genops(_WithoutStrings(file))):
        taken = len(step.stack_before)
        if pickletools.markobject in step.stack_before:
            taken = len(stack) - max((n for n, depth in enumerate(stack) if depth is None), default=0)
            taken += step.stack_before.index(pickletools.markobject)
        parts = [depth for depth in stack[len(stack) - taken :] if depth is not None]
        del stack[len(stack) - taken :]
        depth = max(parts, default=0) + (step.name in _NESTING)
        if "PUT" in step.name or step.name == "MEMOIZE":
            memo[len(memo) if argument is None else argument] = stack[-1] if stack else 0
        if "GET" in step.name:
            depth = memo.get(argument, 0) or 0
        if number > _MOST_STEPS or depth > _DEEPEST or len(memo) > _MOST_STEPS:
            raise _Refused("more steps or deeper nesting")
        if "PUT" in step.name and isinstance(argument, int) and argument > _MOST_STEPS:
            raise _Refused("a place beyond all steps")
        stack += [None if some is pickletools.markobject else depth for some in step.stack_after]


def _cells(content: Any, path: Path) -> dict[tuple[str, int], np.ndarray]:
    """Arrays [frames, 2, num_samples] by modulation and SNR label; empties `content`."""
    layout = "{(modulation, SNR): array [frames, 2, samples]}, as RadioML 2016.10a"
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} must hold a dictionary {layout}, got {type(content).__name__}")
    cells = {}
    while content:
        key, value = content.popitem()
        if not (isinstance(key, tuple) and len(key) == 2 and isinstance(value, _Kept)):
            raise ValueError(f"{path} must hold a dictionary {layout}, it has the key {key!r:.60}")
        name = key[0].decode("ascii") if isinstance(key[0], bytes) else key[0]
        if name not in RADIOML_2016_MODULATIONS or key[1] not in SNR_LABELS:
            raise ValueError(
                f"{path} must hold classes of RadioML 2016.10a ({', '.join(RADIOML_2016_MODULATIONS)}) "
                f"at even SNRs from {SNR_LABELS[0]} dB, got {name!r} at {key[1]!r}"
            )
        cells[name, key[1]] = _array(value, path)
    shapes = {cell.shape[1:] for cell in cells.values()}
    shape = next(iter(shapes))
    if len(shapes) > 1 or len(shape) != 2 or shape[0] != 2:
        raise ValueError(f"{path} must hold arrays [frames, 2, samples], got {sorted(shapes)}")
    return cells


def _array(kept: _Kept, path: Path) -> np.ndarray:
    """The array of real numbers that a pickle describes.

    Raises:
        ValueError: another kind of array.
    """
    _, shape, dtype, is_fortran, data = kept.state
    if isinstance(data, _Kept):
        data = data.arguments[0].encode("latin1")
    kind, order = (
        text.decode("ascii") if isinstance(text, bytes) else text
        for text in (dtype.arguments[0], dtype.state[1])
    )
    if kind not in ("f4", "f8") or order not in ("<", ">"):
        raise ValueError(
            f"{path} must hold arrays of 32 or 64-bit floats, got {str(order)[:9]}{str(kind)[:9]}"
        )
    return np.frombuffer(data, order + kind).reshape(shape, order="F" if is_fortran else "C")


def _in_order(cells: dict[tuple[str, int], np.ndarray], path: Path) -> PickledFrames:
    """Frames of all cells in one array; empties `cells`, so that memory holds little twice."""
    there = {name for name, _ in cells}
    names = tuple(name for name in RADIOML_2016_MODULATIONS if name in there)
    keys = sorted(cells, key=lambda key: (names.index(key[0]), key[1]))
    counts = [len(cells[key]) for key in keys]
    if not sum(counts):
        raise ValueError(f"{path} must hold frames, all its arrays are empty")
    num_samples = cells[keys[0]].shape[2]
    samples = np.empty((sum(counts), num_samples, 2), np.float32)
    start = 0
    for key, count in zip(keys, counts, strict=True):
        samples[start : start + count] = cells.pop(key).transpose(0, 2, 1)
        start += count
    class_number = np.repeat([names.index(name) for name, _ in keys], counts)
    return PickledFrames(samples, class_number, np.repeat([level for _, level in keys], counts), names)

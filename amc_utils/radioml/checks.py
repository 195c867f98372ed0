"""What an HDF5 file must be before a row of it is read: a file of its own, whole, in a known layout."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from amc_utils.signals import NUM_SAMPLES, RADIOML_2018_MODULATIONS

_LAYOUT = "RadioML 2018.01A's layout is X (rows, 1024, 2), Y one-hot (rows, 24), Z (rows, 1)"
# Each chunk that a row is read from is unpacked as a whole.
_MAX_CHUNK_BYTES = 1 << 28
# How files begin that people take for RadioML's.
_PICKLE = "a Python pickle, perhaps the dictionary of RML2016.10a with its frames of 128 samples"
_ARCHIVE = "an archive; unpack it first"
_FOREIGN = {
    b"\x80": _PICKLE,
    b"(dp": _PICKLE,
    b"BZh": _ARCHIVE,
    b"\x1f\x8b": _ARCHIVE,
    b"PK": _ARCHIVE,
    b"\x93NUMPY": "an array of numpy",
    b"MATLAB 5.0": "a MATLAB file of a version before 7.3",
}


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Turn what the HDF5 library says of a damaged file into a sentence.

    Raises:
        ValueError: instead of the library's many errors.
    """
    try:
        yield
    except BlockingIOError:
        raise ValueError(
            f"{path} must not be in use, another process is writing it; wait until it is done"
        ) from None
    except (
        OSError,
        RuntimeError,
        LookupError,
        TypeError,
        ArithmeticError,
        MemoryError,
        ValueError,
    ) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise  # a sentence of our own
        first = str(error).strip("'\"").splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} must be a whole HDF5 file, it is damaged or cut ({first})") from None


def check_kind(path: Path) -> None:
    """Refuse what is no HDF5 file, by what the file system and its first bytes say.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or none that may be read.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"RadioML file not found: {path}") from None
    except OSError as error:
        raise ValueError(f"{path} must be a file that can be read ({error.strerror})") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file (a pipe or device)"
        raise ValueError(f"{path} must be an HDF5 file, it is {kind}")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path} must be a file that can be read, you have no permission to")
    with path.open("rb") as file:
        begin = file.read(16)
    for magic, what in _FOREIGN.items():
        if begin.startswith(magic):
            raise ValueError(f"{path} must be an HDF5 file, it is {what}")
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path} must be an HDF5 file, it is none, or cut")


def own_dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """A dataset that lies in the file itself and can be unpacked.

    Raises:
        ValueError: it is missing, or would be read from elsewhere, or by a filter that is not there.
    """
    link = file.get(name, getlink=True)
    if link is None:
        found = ", ".join(list(file)[:8]) or "nothing"
        raise ValueError(f"{path} must hold the datasets X, Y and Z, {name} is missing; it has {found}")
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"{name} in {path} must be in the file itself, it is a link to elsewhere")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise ValueError(f"{name} in {path} must be a dataset, it is a group or empty")
    if dataset.is_virtual or dataset.external:
        raise ValueError(
            f"{name} in {path} must be in the file itself, it would be read from another file; "
            f"copy the data into one file, for instance with h5repack"
        )
    filters = dataset.id.get_create_plist()
    for number in range(filters.get_nfilters()):
        code, _, _, label = filters.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            known = label.decode(errors="replace") or "no name"
            raise ValueError(
                f"{name} in {path} must be packed by a filter that is installed, it needs number "
                f"{code} ({known}); repack it (h5repack -f GZIP=4), "
                f"or let HDF5_PLUGIN_PATH name the folder of its plugin"
            )
    return dataset


def check_layout(x: h5py.Dataset, y: h5py.Dataset, z: h5py.Dataset, path: Path) -> None:
    """Refuse datasets of other shapes or types than the layout has, or of different lengths.

    Raises:
        ValueError: names the dataset, what it must be and what it is.
    """
    num_rows = x.shape[0] if x.shape else 0
    one_hot = (num_rows, len(RADIOML_2018_MODULATIONS))
    column = [(num_rows, 1), (num_rows,)]
    wanted = {
        "X": (x, [(num_rows, NUM_SAMPLES, 2)], "f2 f4 f8 i1 i2"),
        "Y": (y, [one_hot, *column], "numbers"),
        "Z": (z, column, "numbers"),
    }
    for name, (dataset, shapes, kinds) in wanted.items():
        if dataset.shape not in shapes or not num_rows:
            options = " or ".join(str(shape).replace(f"({num_rows},", "(rows,", 1) for shape in shapes)
            raise ValueError(
                f"{name} in {path} must have the shape {options}, with as many rows as X "
                f"({num_rows:,}), got {dataset.shape}; {_turned(x.shape, y.shape) or _LAYOUT}"
            )
        code = dataset.dtype.str[1:]
        good = dataset.dtype.kind in "iufb" if kinds == "numbers" else code in kinds.split()
        if name == "Y" and dataset.shape != one_hot:
            good = dataset.dtype.kind in "iu"
        if not good:
            raise ValueError(
                f"{name} in {path} must hold {'float or int8 or int16' if name == 'X' else 'numbers'}, "
                f"got {dataset.dtype}"
            )


def _turned(x: tuple[int, ...], y: tuple[int, ...]) -> str | None:
    """What to do about samples or labels whose axes come in another order; None where they do not."""
    num_classes = len(RADIOML_2018_MODULATIONS)
    if x[:2] == (2, NUM_SAMPLES) and len(x) == 3:
        what = "it is transposed, as MATLAB writes arrays"
        return f"{what}; reverse the axes of X, Y and Z, for instance X.transpose(2, 1, 0)"
    if x[1:] == (2, NUM_SAMPLES):
        return "its last two axes are transposed; write X.transpose(0, 2, 1)"
    if x[1:] == (NUM_SAMPLES, 2) and y == (num_classes, x[0]):
        return "it is transposed, as MATLAB writes arrays; reverse the axes of Y, for instance Y.T"
    return None


def check_complete(dataset: h5py.Dataset, path: Path) -> None:
    """Refuse a dataset that is not filled, as a claim of rows costs nothing, or whose chunks are huge.

    Raises:
        ValueError: says how much of it there is.
    """
    if dataset.chunks:
        size = int(np.prod(dataset.chunks, dtype=object)) * dataset.dtype.itemsize
        if size > _MAX_CHUNK_BYTES:
            raise ValueError(
                f"{dataset.name.lstrip('/')} in {path} must have chunks of at most "
                f"{_MAX_CHUNK_BYTES >> 20} MB, since each is unpacked whole, got {size >> 20:,} MB; "
                f"repack it (h5repack -l X:CHUNK=256x1024x2)"
            )
        per_axis = zip(dataset.shape, dataset.chunks, strict=True)
        wanted = int(np.prod([-(-length // step) for length, step in per_axis], dtype=object))
        found, unit = dataset.id.get_num_chunks(), "chunks"
    else:
        wanted, found, unit = dataset.nbytes, dataset.id.get_storage_size(), "bytes"
        offset = dataset.id.get_offset()
        if offset is not None:
            found = min(found, path.stat().st_size - offset)
    if found < wanted:
        name = dataset.name.lstrip("/")
        raise ValueError(
            f"{name} in {path} must be filled, it has {max(found, 0):,} of {wanted:,} {unit}; the file "
            f"was cut, or its writing did not end"
        )

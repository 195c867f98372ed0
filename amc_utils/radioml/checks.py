"""What an HDF5 file must be before a row of it is read: a file of its own, whole, in a known layout."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import h5py
import numpy as np

from amc_utils.signals import NUM_SAMPLES, RADIOML_2018_MODULATIONS

_NUM_CLASSES = len(RADIOML_2018_MODULATIONS)
_LAYOUT = "RadioML 2018.01A's layout is X (rows, 1024, 2), Y one-hot (rows, 24), Z (rows, 1)"
# Each chunk that a row is read from is unpacked as a whole.
_MAX_CHUNK_BYTES = 1 << 28
HDF5, PICKLE = "HDF5", "pickle"
# How a pickle begins, of a dictionary in Python 2's first protocol, or of any in a later one.
_PICKLE_BEGINS = (b"(dp", b"\x80")
# How other files begin that are taken for RadioML's.
_ARCHIVE = "an archive; unpack it first"
_OTHER_FILES = {
    b"BZh": _ARCHIVE,
    b"\x1f\x8b": _ARCHIVE,
    b"PK": _ARCHIVE,
    b"\x93NUMPY": "an array of numpy",
    b"MATLAB 5.0": "a MATLAB file of a version before 7.3",
}
# What h5py and pickle raise on damaged files.
_DAMAGE = (
    OSError, RuntimeError, LookupError, TypeError, ArithmeticError, MemoryError, ValueError, EOFError,
    AttributeError, UnpicklingError,
)  # fmt: skip


@contextmanager
def explaining(path: Path, kind: str = "HDF5 file") -> Iterator[None]:
    """Turn what a library says of a damaged file into a sentence.

    Raises:
        ValueError: instead of the library's many errors.
    """
    try:
        yield
    except BlockingIOError:
        raise ValueError(
            f"{path} must not be in use, another process is writing it; wait until it is done"
        ) from None
    except _DAMAGE as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise  # a sentence of our own
        first = str(error).strip("'\"").splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} must be a whole {kind}, it is damaged or cut ({first})") from None


def kind_of(path: Path) -> str:
    """HDF5 or PICKLE, by what the file system and the first bytes of a file say.

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
    if begin.startswith(_PICKLE_BEGINS):
        return PICKLE
    kinds = [what for magic, what in _OTHER_FILES.items() if begin.startswith(magic)]
    if kinds or not h5py.is_hdf5(path):
        raise ValueError(f"{path} must be an HDF5 file, it is {kinds[0] if kinds else 'none, or cut'}")
    return HDF5


def checked_datasets(file: h5py.File, path: Path) -> tuple[h5py.Dataset, h5py.Dataset, h5py.Dataset]:
    """X, Y and Z of an open file, each in the file itself, readable, of a known layout and filled.

    Raises:
        ValueError: names the dataset, what it must be and what it is.
    """
    for name in "XYZ":
        if file.get(name, getlink=True) is None:
            found = ", ".join(list(file)[:8]) or "nothing"
            raise ValueError(
                f"{path} must hold the datasets X, Y and Z, {name} is missing; it has {found}"
            )
    for problem_of in (_not_in_the_file, _filter_missing, _wrong_shape, _wrong_type, _not_filled):
        for name in "XYZ":
            if problem := problem_of(file, name):
                raise ValueError(f"{name} in {path} must {problem}")
    return file["X"], file["Y"], file["Z"]


def _not_in_the_file(file: h5py.File, name: str) -> str | None:
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return "be in the file itself, it is a link to elsewhere"
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        return "be a dataset, it is a group or empty"
    if dataset.is_virtual or dataset.external:
        way = "copy the data into one file, for instance with h5repack"
        return f"be in the file itself, it would be read from another file; {way}"
    return None


def _filter_missing(file: h5py.File, name: str) -> str | None:
    filters = file[name].id.get_create_plist()
    for number in range(filters.get_nfilters()):
        code, _, _, label = filters.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            known = label.decode(errors="replace") or "no name"
            return (
                f"be packed by a filter that is installed, it needs number {code} ({known}); repack it "
                f"(h5repack -f GZIP=4), or let HDF5_PLUGIN_PATH name the folder of its plugin"
            )
    return None


def _wrong_shape(file: h5py.File, name: str) -> str | None:
    x, y = file["X"].shape, file["Y"].shape
    num_rows = x[0] if x else 0
    column = [(num_rows, 1), (num_rows,)]
    wanted = {
        "X": [(num_rows, NUM_SAMPLES, 2)],
        "Y": [(num_rows, _NUM_CLASSES), *column],
        "Z": column,
    }
    if num_rows and file[name].shape in wanted[name]:
        return None
    options = " or ".join(str(shape).replace(f"({num_rows},", "(rows,", 1) for shape in wanted[name])
    way = _LAYOUT
    if len(x) == 3 and x[:2] == (2, NUM_SAMPLES):
        way = "it is transposed, as MATLAB writes arrays; reverse the axes of X, Y and Z, for instance "
        way += "X.transpose(2, 1, 0)"
    elif x[1:] == (2, NUM_SAMPLES):
        way = "its last two axes are transposed; write X.transpose(0, 2, 1)"
    elif x[1:] == (NUM_SAMPLES, 2) and y == (_NUM_CLASSES, num_rows):
        way = "it is transposed, as MATLAB writes arrays; reverse the axes of Y, for instance Y.T"
    rows = f"with as many rows as X ({num_rows:,})"
    return f"have the shape {options}, {rows}, got {file[name].shape}; {way}"


def _wrong_type(file: h5py.File, name: str) -> str | None:
    dtype = file[name].dtype
    if name == "X":
        good, wanted = dtype.str[1:] in ("f2", "f4", "f8", "i1", "i2"), "float or int8 or int16"
    else:
        is_class_number = name == "Y" and file["Y"].shape[1:] != (_NUM_CLASSES,)
        good, wanted = dtype.kind in ("iu" if is_class_number else "iufb"), "numbers"
    return None if good else f"hold {wanted}, got {dtype}"


def _not_filled(file: h5py.File, name: str) -> str | None:
    """A claim of rows costs nothing, and a chunk may unpack to more than memory holds."""
    dataset = file[name]
    if dataset.chunks:
        size = int(np.prod(dataset.chunks, dtype=object)) * dataset.dtype.itemsize
        if size > _MAX_CHUNK_BYTES:
            return (
                f"have chunks of at most {_MAX_CHUNK_BYTES >> 20} MB, since each is unpacked whole, "
                f"got {size >> 20:,} MB; repack it (h5repack -l X:CHUNK=256x1024x2)"
            )
        per_axis = zip(dataset.shape, dataset.chunks, strict=True)
        wanted = int(np.prod([-(-length // step) for length, step in per_axis], dtype=object))
        found, unit = dataset.id.get_num_chunks(), "chunks"
    else:
        wanted, found, unit = dataset.nbytes, dataset.id.get_storage_size(), "bytes"
        offset = dataset.id.get_offset()
        if offset is not None:
            found = min(found, os.path.getsize(file.filename) - offset)
    if found >= wanted:
        return None
    cut = "the file was cut, or its writing did not end"
    return f"be filled, it has {max(found, 0):,} of {wanted:,} {unit}; {cut}"

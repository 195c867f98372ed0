"""Files that must be refused: for each a maker and what the sentence must say."""

from __future__ import annotations

import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np


def parts_of(good):
    with h5py.File(good) as file:
        return {name: file[name][:] for name in "XYZ"}


def arrays(change):
    """Maker of a copy whose arrays are changed; those set to None are left out."""

    def make(good, path):
        parts = parts_of(good)
        change(parts)
        with h5py.File(path, "w") as file:
            for name, value in parts.items():
                if value is not None:
                    file[name] = value

    return make


def setting(name, value):
    """Maker of a copy with one array computed anew from itself."""
    return arrays(lambda parts: parts.update({name: value(parts[name])}))


def put(name, index, value):
    """Maker of a copy with some numbers overwritten."""

    def change(parts):
        array = (
            parts[name].astype(np.float64) if isinstance(value, float) and name != "X" else parts[name]
        )
        array[index] = value
        parts[name] = array

    return arrays(change)


def cut(share):
    """Maker of the first part of a file."""

    def make(good, path):
        content = Path(good).read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return make


def overwritten(start, stop):
    """Maker of a copy with a stretch of bytes, as shares of the file, set to one value."""

    def make(good, path):
        content = bytearray(Path(good).read_bytes())
        a, b = (int(share * len(content)) for share in (start, stop))
        content[a:b] = b"\xa5" * (b - a)
        path.write_bytes(content)

    return make


def content(data):
    return lambda good, path: path.write_bytes(data)


def archive(good, path):
    with tarfile.open(path, "w:bz2") as file:
        file.add(good)


def zipped(good, path):
    with zipfile.ZipFile(path, "w") as file:
        file.write(good)


class Calls:
    """Pickles as a call of os.mkdir."""

    def __reduce__(self):
        return os.mkdir, ("MARK",)


def rml2016(good, path):
    frames = np.random.default_rng(1).normal(size=(1000, 2, 128)).astype(np.float32)
    path.write_bytes(pickle.dumps({("QPSK", 2): frames}, protocol=2))


def with_x(make_x):
    """Maker of a copy whose X is made by a function of the file and the frames."""

    def make(good, path):
        parts = parts_of(good)
        with h5py.File(path, "w") as file:
            file["Y"], file["Z"] = parts["Y"], parts["Z"]
            make_x(file, parts["X"], path)

    return make


def external_link(file, x, path):
    with h5py.File(path.with_suffix(".other"), "w") as other:
        other["X"] = x
    file["X"] = h5py.ExternalLink(path.with_suffix(".other"), "/X")


def soft_link(file, x, path):
    file["elsewhere"] = x
    file["X"] = h5py.SoftLink("/elsewhere")


def external_storage(file, x, path):
    raw = path.with_suffix(".raw")
    raw.write_bytes(x.tobytes())
    file.create_dataset("X", x.shape, x.dtype, external=[(str(raw), 0, h5py.h5f.UNLIMITED)])


def virtual(file, x, path):
    with h5py.File(path.with_suffix(".other"), "w") as other:
        other["X"] = x
    layout = h5py.VirtualLayout(x.shape, x.dtype)
    layout[:] = h5py.VirtualSource(path.with_suffix(".other"), "X", x.shape)
    file.create_virtual_dataset("X", layout)


def unknown_filter(file, x, path):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((10, *x.shape[1:]))
    plist.set_filter(32999, h5py.h5z.FLAG_OPTIONAL, (1, 2))
    space = h5py.h5s.create_simple(x.shape)
    dataset = h5py.h5d.create(file.id, b"X", h5py.h5t.IEEE_F32LE, space, plist)
    for row in range(0, len(x), 10):
        dataset.write_direct_chunk((row, 0, 0), x[row : row + 10].tobytes())


def a_group(file, x, path):
    file.create_group("X")["data"] = x


def nothing_in_it(file, x, path):
    file.create_dataset("X", data=h5py.Empty("f4"))


def compound(file, x, path):
    file["X"] = np.zeros((len(x), 1024, 2), [("a", "f4")])


def strings(file, x, path):
    file.create_dataset("X", (len(x), 1024, 2), h5py.string_dtype())


def claimed(good, path):
    """A file of kilobytes that claims 10^12 frames."""
    with h5py.File(path, "w") as file:
        file.create_dataset("X", (10**12, 1024, 2), "f4", chunks=(1, 1024, 2))
        file.create_dataset("Y", (10**12, 24), "i1", chunks=(4096, 24))
        file.create_dataset("Z", (10**12, 1), "i1", chunks=(4096, 1))


def huge_chunks(file, x, path):
    """Chunks that unpack to 400 MB each, of a file of kilobytes."""
    shape = (len(x), *x.shape[1:])
    options = {"maxshape": (None, *shape[1:]), "chunks": (50_000, *shape[1:]), "compression": "gzip"}
    dataset = file.create_dataset("X", shape, "f4", **options)
    dataset[0] = x[0]


def claimed_in_one_piece(file, x, path):
    file.create_dataset("X", (120, 1024, 2), "f4")


def half_filled(file, x, path):
    dataset = file.create_dataset("X", x.shape, "f4", chunks=(10, 1024, 2), compression="gzip")
    dataset[:60] = x[:60]


def damaged_chunk(good, path):
    parts = parts_of(good)
    with h5py.File(path, "w") as file:
        file["Y"], file["Z"] = parts["Y"], parts["Z"]
        x = file.create_dataset("X", data=parts["X"], chunks=(40, 1024, 2), compression="gzip")
        place, size = x.id.get_chunk_info(1).byte_offset, x.id.get_chunk_info(1).size
    bad = bytearray(path.read_bytes())
    bad[place + size // 4 : place + size // 2] = bytes(size // 2 - size // 4)
    path.write_bytes(bad)


def two_ones(y):
    y[5, :2] = 1
    return y


def no_one(y):
    y[5] = 0
    return y


def twos(y):
    return 2 * y


def one_class_only(parts):
    keep = parts["Y"].argmax(1) == 3
    for name in parts:
        parts[name] = parts[name][keep]


def few_of_a_class(parts):
    """All of BPSK, but 2 frames of the others."""
    label = parts["Y"].argmax(1)
    keep = (label == 3) | np.isin(np.arange(len(label)), [40, 60, 80, 100])
    for name in parts:
        parts[name] = parts[name][keep]


DAMAGED = (
    "must be a whole HDF5 file, it is damaged or cut|must be filled|must be an HDF5 file, it is none"
)
# name: (maker of the file from a good one, what the sentence must say)
BAD_FILES = {
    "no file": (lambda good, path: None, "RadioML file not found"),
    "a folder": (lambda good, path: path.mkdir(), "must be an HDF5 file, it is a folder"),
    "a pipe": (lambda good, path: os.mkfifo(path), "no regular file"),
    "a link to nowhere": (lambda good, path: path.symlink_to("nowhere"), "RadioML file not found"),
    "empty": (content(b""), "must be an HDF5 file, it is none"),
    "text": (content(b"modulation,snr\n"), "must be an HDF5 file, it is none"),
    "a dictionary of short frames": (rml2016, "num_samples must be at most 128"),
    "a pickle that calls": (
        content(pickle.dumps({"a": Calls()}, 2)), "asks for .*mkdir, .* nothing of it was carried out"
    ),
    "an old pickle": (content(b"(dp0\nS'a'\n."), "must hold a dictionary .* got bytes"),
    "a tar archive": (archive, "an archive; unpack it first"),
    "a zip archive": (zipped, "an archive; unpack it first"),
    "a numpy array": (content(b"\x93NUMPY\x01\x00" + bytes(100)), "an array of numpy"),
    "an old MATLAB file": (content(b"MATLAB 5.0 MAT-file" + bytes(200)), "a MATLAB file"),
    "signature alone": (content(b"\x89HDF\r\n\x1a\n"), DAMAGED),
    "cut at a tenth": (cut(0.1), DAMAGED),
    "cut in half": (cut(0.5), DAMAGED),
    "cut before the end": (cut(0.999), DAMAGED),
    "damaged at the start": (overwritten(0.00002, 0.001), DAMAGED),
    "a damaged chunk": (damaged_chunk, DAMAGED),
    "no X": (arrays(lambda p: p.update(X=None)), "X, Y and Z, X is missing; it has Y, Z"),
    "no Y": (arrays(lambda p: p.update(Y=None)), "Y is missing"),
    "no Z": (arrays(lambda p: p.update(Z=None)), "Z is missing"),
    "other names": (
        arrays(lambda p: p.update(x=p["X"], X=None)), "X is missing; it has Y, Z, x"
    ),
    "frames of 512 samples": (setting("X", lambda x: x[:, :512]), r"X .* shape \(rows, 1024, 2\)"),
    "channels first": (
        setting("X", lambda x: x.transpose(0, 2, 1)),
        r"got \(120, 2, 1024\); its last two axes are transposed; write X.transpose\(0, 2, 1\)",
    ),
    "all axes reversed, as by MATLAB": (
        arrays(lambda p: p.update({n: v.T for n, v in p.items()})),
        r"got \(2, 1024, 120\); it is transposed, as MATLAB writes arrays; reverse the axes of X, Y",
    ),
    "labels in columns": (
        setting("Y", lambda y: y.T), r"got \(24, 120\); it is transposed, .*reverse the axes of Y"
    ),
    "frames silent in part": (
        put("X", (slice(70, 74), slice(0, 600)), 0), "silent in part: 4 of .* rows 70.*remove these"
    ),
    "flat frames": (setting("X", lambda x: x.reshape(120, 2048)), r"got \(120, 2048\)"),
    "one number": (setting("X", lambda x: 1.0), r"X .* must have the shape"),
    "no rows": (arrays(lambda p: p.update({n: v[:0] for n, v in p.items()})), "X .* shape"),
    "complex samples": (setting("X", lambda x: x.astype("c8")), "X .* must hold float or int8"),
    "samples of 32-bit integers": (setting("X", lambda x: x.astype("i4")), "got int32"),
    "compound samples": (with_x(compound), "X .* must hold float"),
    "samples as text": (with_x(strings), "X .* must hold float"),
    "11 classes": (setting("Y", lambda y: y[:, :11]), r"Y .* shape \(rows, 24\)"),
    "labels as text": (setting("Y", lambda y: np.array([b"BPSK"] * len(y))), "Y .* must hold numbers"),
    "class numbers as float": (setting("Y", lambda y: y.argmax(1) + 0.5), "Y .* must hold numbers"),
    "class number 24": (setting("Y", lambda y: y.argmax(1) + 21), "class numbers from 0 to 23, got 24"),
    "class number -1": (setting("Y", lambda y: y.argmax(1) - 4), "class numbers from 0 to 23, got -1"),
    "fewer labels than frames": (setting("Y", lambda y: y[:100]), r"with as many rows as X \(120\)"),
    "more levels than frames": (setting("Z", lambda z: np.r_[z, z]), r"with as many rows as X \(120\)"),
    "levels in two columns": (setting("Z", lambda z: np.c_[z, z]), "Z .* must have the shape"),
    "a row without class": (setting("Y", no_one), "one-hot, with a single 1, got .* in row 5"),
    "a row of two classes": (setting("Y", two_ones), "one-hot, with a single 1, got .* in row 5"),
    "twos for ones": (setting("Y", twos), "one-hot, with a single 1, got .* in row 0"),
    "SNR off the grid": (put("Z", 7, 7), "even SNRs from -20 to 30 dB, got 7 in row 7"),
    "SNR beyond the grid": (put("Z", 9, 32), "got 32 in row 9"),
    "SNR that is no number": (put("Z", 4, np.nan), "got nan in row 4"),
    "SNR between the levels": (put("Z", 4, 0.5), "got 0.5 in row 4"),
    "a sample that is no number": (put("X", (70, 3, 1), np.nan), "audit.*not finite: 1 of .* rows 70"),
    "an infinite sample": (put("X", (71, 0, 0), np.inf), "pass its audit.*not finite: 1 of .* rows 71"),
    "a frame of zeros": (put("X", 72, 0), "pass its audit.*without power: 1 of .* rows 72"),
    "a class that is not there": (arrays(one_class_only), "has no frame of QPSK at label 0"),
    "too few frames of a class": (arrays(few_of_a_class), "frames of QPSK"),
    "an external link": (with_x(external_link), "must be in the file itself, it is a link"),
    "a soft link": (with_x(soft_link), "must be in the file itself, it is a link"),
    "external storage": (with_x(external_storage), "would be read from another file"),
    "a virtual dataset": (with_x(virtual), "would be read from another file"),
    "a filter that is not installed": (with_x(unknown_filter), "needs number 32999"),
    "a group for X": (with_x(a_group), "must be a dataset, it is a group or empty"),
    "an empty X": (with_x(nothing_in_it), "must be a dataset, it is a group or empty"),
    "10^12 claimed rows": (claimed, "must be filled, it has 0 of 1,000,000,000,000 chunks"),
    "space that was never filled": (with_x(claimed_in_one_piece), "must be filled, it has 0 of"),
    "huge chunks": (with_x(huge_chunks), "chunks of at most 256 MB, since each .*, got 390"),
    "frames of extreme power": (put("X", 73, np.float32(1e5)), "of extreme power: 1 of .* rows 73"),
    "half filled": (with_x(half_filled), "must be filled, it has 6 of 12 chunks"),
}  # fmt: skip

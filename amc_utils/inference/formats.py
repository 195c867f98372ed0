"""Files of recordings: SigMF, WAV, NumPy, and samples of any type without a header."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.fft import next_fast_len
from scipy.io import wavfile
from scipy.signal import hilbert

from amc_utils.inference.recordings import Recording
from amc_utils.runtime.paths import atomic_write
from amc_utils.signals import NUM_SAMPLES

# Types of samples as SigMF names them, by what files of nothing but samples end in; and other names.
RAW_TYPES = {
    suffix: datatype
    for datatype, suffixes in {
        "cf32": ".complex64 .cf32 .fc32 .cfile .c64 .iq .raw .bin .dat",
        "cf64": ".complex128 .cf64 .fc64 .c128",
        "ci8": ".cs8 .ci8 .sc8",
        "cu8": ".cu8",
        "ci16": ".cs16 .ci16 .sc16",
        "ci32": ".cs32 .ci32 .sc32",
    }.items()
    for suffix in suffixes.split()
}
_SIGMF_SUFFIXES = (".sigmf-meta", ".sigmf-data", ".sigmf")
# What recordings in a folder end in, each once; and files with samples in RadioML's layout.
SUFFIXES = (".sigmf-meta", ".sigmf", ".wav", ".npy", ".npz", ".h5", ".hdf5", *RAW_TYPES)
# Complex or real, number, bits, byte order; little-endian where none is named.
_DATATYPE = re.compile("(?P<part>[cr])(?P<number>[fius])(?P<bits>8|16|32|64)(?P<order>_le|_be)?")
# Bytes up to which the check sum of a SigMF recording is looked at, which takes a second a gigabyte.
_LARGEST_CHECKED, _CHECKED_AT_ONCE = 2**30, 2**24
# Samples to each side that the analytic signal of real ones is made from: what is cut off is -70 dB.
_HILBERT_MARGIN = 4096
# Sample rates in names of files: gqrx's, in hertz; and the last number with a unit, as rtl_433's.
_RATES_IN_NAMES = (
    r"_\d+_(?P<rate>\d+)_fc$",
    r"_(?P<rate>\d+(?:\.\d+)?)(?P<unit>[kKM]?)sps$",
    r"_(?P<rate>\d+(?:\.\d+)?)(?P<unit>[kKM])S?$",
)
_GENERATOR = "amc_utils"
_UNITS = {"k": 1e3, "K": 1e3, "M": 1e6, "": 1.0, None: 1.0}


def open_recording(
    path: str | os.PathLike[str], sample_rate: float | None = None, datatype: str = ""
) -> Recording:
    """Recording in a SigMF pair or archive, a WAV or NumPy file, or samples alone (see RAW_TYPES).

    Real samples become their analytic signal. NumPy files hold complex numbers, or real ones with I and
    Q in a last axis of 2; rows of NUM_SAMPLES stay frames. Where the file does not say its sample rate,
    its name may, as in g001_433.92M_250k.cu8.

    Args:
        path: the file; of a SigMF pair either.
        sample_rate: samples per second, where the file does not say it or says it wrongly.
        datatype: of samples without a header, where the suffix does not say it or says it wrongly: c or
            r for complex or real, f, i or u for the number, bits, and _be for big-endian, as ci16_be.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, a damaged one, or an unknown type.
    """
    recordings = open_recordings(path, sample_rate, datatype)
    if len(recordings) > 1:
        names = ", ".join(some.name for some in recordings)
        raise ValueError(f"{path} must hold one recording, it holds {names}; open_recordings reads all")
    return recordings[0]


def open_recordings(
    path: str | os.PathLike[str], sample_rate: float | None = None, datatype: str = ""
) -> list[Recording]:
    """The same for a file that may hold several: a SigMF archive; others hold one."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"recording not found: {path}")
    recordings = _opened(path, sample_rate, datatype)
    rate = _rate_in(path.stem)
    told = {"sample_rate": rate, "notes": (f"sample rate {rate:g} from its name",)} if rate else {}
    return [some if some.sample_rate else replace(some, **told) for some in recordings]


def _opened(path: Path, sample_rate: float | None, datatype: str) -> list[Recording]:
    """Recordings in a file, as it says itself."""
    if datatype or path.suffix in RAW_TYPES:
        raw = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
        kind = _datatype(datatype or RAW_TYPES[path.suffix])
        return [_of_bytes(path.name, raw, kind, sample_rate, [(0, len(raw))])]
    if path.suffix in _SIGMF_SUFFIXES:
        return _open_sigmf(path, sample_rate)
    openers = {".wav": _open_wav, ".npy": _open_numpy, ".npz": _open_numpy}
    if path.suffix not in openers:
        known = ", ".join([*_SIGMF_SUFFIXES, *openers, *RAW_TYPES])
        raise ValueError(
            f"a recording must end in one of {known}, or have its datatype named, as ci16; got "
            f"{path.name}"
        )
    return [openers[path.suffix](path, sample_rate)]


def sample_width(datatype: str) -> int:
    """Bytes of a sample of that type."""
    is_complex, dtype = _datatype(datatype)
    return dtype.itemsize * (1 + is_complex)


def recording_of_bytes(
    name: str, content: bytes, datatype: str, sample_rate: float | None
) -> Recording:
    """Recording of samples without a header; see open_recording."""
    raw = np.frombuffer(content, np.uint8)
    return _of_bytes(name, raw, _datatype(datatype), sample_rate, [(0, len(raw))])


def write_annotations(path: Path, named: Sequence[Any]) -> None:
    """Write what was found in a SigMF recording into its metadata, in place of what stood there so.

    Args:
        path: of the metadata, or of the samples beside them.
        named: NamedSignal of that recording.

    Raises:
        ValueError: see annotated_file.
    """
    path = annotated_file(path)
    meta = json.loads(path.read_text(encoding="utf8"))
    others = [a for a in meta.get("annotations", []) if a.get("core:generator") != _GENERATOR]
    for some in named:
        half, middle = some.bandwidth_hz / 2, some.recording.middle_hz
        others.append({
            "core:sample_start": some.recording.first + some.stretch[0],
            "core:sample_count": some.stretch[1] - some.stretch[0],
            "core:freq_lower_edge": middle + some.carrier_hz - half,
            "core:freq_upper_edge": middle + some.carrier_hz + half,
            "core:label": some.modulation,
            "core:generator": _GENERATOR,
            "core:comment": f"probability {some.posterior.iloc[0]:.2f}, {some.symbol_rate:.1f} symbols "
            f"per second, Es/N0 {some.es_n0_db:.0f} dB"
            + (", unlike the training data" if some.is_foreign else ""),
        })  # fmt: skip
    meta["annotations"] = sorted(others, key=lambda a: a["core:sample_start"])
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(meta, indent=1) + "\n", encoding="utf8")


def annotated_file(path: Path) -> Path:
    """The metadata that annotations of a recording are written to.

    Raises:
        ValueError: no pair of SigMF files.
    """
    if path.suffix not in (".sigmf-meta", ".sigmf-data"):
        raise ValueError(f"annotations need a SigMF recording in two files, got {path.name}")
    return path.with_suffix(".sigmf-meta")


def _rate_in(name: str) -> float | None:
    """Samples per second that the name of a file tells."""
    for pattern in _RATES_IN_NAMES:
        if found := re.search(pattern, name):
            told = found.groupdict()
            return float(told["rate"]) * _UNITS[told.get("unit")]
    return None


def _datatype(text: str) -> tuple[bool, np.dtype]:
    """Whether samples are complex, and the type of their parts."""
    found = _DATATYPE.fullmatch(text)
    if not found or found["number"] + found["bits"] in ("f8", "f16"):
        raise ValueError(f"datatype must be like cf32, cu8 or ri16_be, got {text!r}")
    number = found["number"].replace("s", "i")
    order = ">" if found["order"] == "_be" else "<"
    return found["part"] == "c", np.dtype(f"{order}{number}{int(found['bits']) // 8}")


def _of_bytes(
    name: str,
    raw: np.ndarray,
    datatype: tuple[bool, np.dtype],
    sample_rate: float | None,
    pieces: Sequence[tuple[int, int]],
    **told: Any,
) -> Recording:
    """Recording of the samples in pieces of bytes, uint8, each from a first to before a last one."""
    is_complex, dtype = datatype
    width = dtype.itemsize * (1 + is_complex)
    counts = [(last - first) // width for first, last in pieces]
    if sum(counts) <= 0:
        raise ValueError(
            f"{name} must hold samples of {width} bytes, it has {sum(b - a for a, b in pieces):,} bytes"
        )
    starts, bytes_of = np.cumsum([0, *counts]), _rows(raw)

    def read(first: int, last: int) -> np.ndarray:
        there = range(np.searchsorted(starts, first, "right") - 1, np.searchsorted(starts, last))
        parts = []
        for number in there:
            begun = pieces[number][0] - starts[number] * width
            at = begun + max(first, starts[number]) * width
            parts.append(bytes_of(at, begun + min(last, starts[number + 1]) * width))
        numbers = np.concatenate(parts).view(dtype)
        return numbers.reshape(-1, 2) if is_complex else numbers

    if spare := sum((last - first) % width for first, last in pieces):
        told["notes"] = (*told.get("notes", ()), f"unfinished sample left out ({spare} bytes)")
    return _of_numbers(name, read, int(starts[-1]), sample_rate, dtype, **told)


def _of_numbers(
    name: str,
    read: Callable[[int, int], np.ndarray],
    length: int,
    sample_rate: float | None,
    dtype: np.dtype,
    **told: Any,
) -> Recording:
    """Recording of complex numbers, of I and Q in rows of 2, or of real ones, which become analytic."""
    middle = (2.0 ** (8 * dtype.itemsize) - 1) / 2 if dtype.kind == "u" else 0.0

    def read_complex(first: int, last: int) -> np.ndarray:
        part = read(first, last)
        if np.iscomplexobj(part):
            return part
        if part.dtype.kind == "f":
            return np.ascontiguousarray(part, np.float32).view(np.complex64)[:, 0]
        return ((part - middle) @ np.array([1, 1j])).astype(np.complex64)

    def read_real(first: int, last: int) -> np.ndarray:
        low, high = max(first - _HILBERT_MARGIN, 0), min(last + _HILBERT_MARGIN, length)
        part = read(low, high) - middle
        analytic = hilbert(part, next_fast_len(len(part)))
        return analytic[first - low : last - low].astype(np.complex64)

    is_real = dtype.kind != "c" and np.ndim(read(0, 1)) == 1
    if is_real:
        told["notes"] = (*told.get("notes", ()), "real samples made analytic")
    return Recording(name, length, sample_rate, read_real if is_real else read_complex, **told)


def _of_array(name: str, array: np.ndarray, sample_rate: float | None, **told: Any) -> Recording:
    return _of_numbers(name, _rows(array), len(array), sample_rate, array.dtype, **told)


def _rows(array: np.ndarray) -> Callable[[int, int], np.ndarray]:
    """Rows from a first to before a last one, of a mapped file read, as maps count as memory."""
    if getattr(array, "filename", None) is None or not array.flags.c_contiguous:
        return lambda first, last: array[first:last]
    width = array.dtype.itemsize * math.prod(array.shape[1:])

    def read(first: int, last: int) -> np.ndarray:
        count = max(last - first, 0) * width // array.dtype.itemsize
        numbers = np.fromfile(array.filename, array.dtype, count, offset=array.offset + first * width)
        return numbers.reshape(-1, *array.shape[1:])

    return read


def _check_sum(raw: np.ndarray) -> str:
    """SHA-512 of bytes, in hexadecimal digits."""
    digest, rows = hashlib.sha512(), _rows(raw)
    for first in range(0, len(raw), _CHECKED_AT_ONCE):
        digest.update(rows(first, min(first + _CHECKED_AT_ONCE, len(raw))))
    return digest.hexdigest()


def _open_sigmf(path: Path, sample_rate: float | None) -> list[Recording]:
    """Recordings of one channel each, of a pair of files or an archive."""
    try:
        there = (_sigmf_archive if path.suffix == ".sigmf" else _sigmf_pair)(path)
    except (ValueError, KeyError, TypeError, AttributeError, tarfile.TarError) as error:
        raise ValueError(f"{path.name} must be a whole SigMF recording: {error!r}") from error
    if not there:
        raise ValueError(f"{path.name} must hold a SigMF recording, it has no .sigmf-meta")
    return [_of_sigmf(*one, sample_rate) for one in there]


def _of_sigmf(
    name: str, meta: Mapping[str, Any], raw: np.ndarray, sample_rate: float | None
) -> Recording:
    """Recording of metadata and bytes of samples.

    Read here, since the library of that name takes over a second to import, most of it for its
    validation. Captures in other formats' files may each have a header; what lies before the first
    capture is none of the recording.
    Source: SigMF Specification 1.2, sections "Global Object" and "Captures Array".
    """
    try:
        told, captures = meta["global"], meta["captures"]
        captures = [captures] if isinstance(captures, Mapping) else captures
        datatype = _datatype(told["core:datatype"])
        wanted = told.get("core:sha512") if len(raw) <= _LARGEST_CHECKED else None
        if wanted is not None and wanted != _check_sum(raw):
            raise ValueError("its samples are not those of core:sha512")
        rate = sample_rate or (float(told["core:sample_rate"]) if "core:sample_rate" in told else None)
        starts = [int(capture.get("core:sample_start", 0)) for capture in captures] or [0]
        headers = [int(capture.get("core:header_bytes", 0)) for capture in captures] or [0]
        if rate is not None and not 0 < rate < math.inf:
            raise ValueError(f"core:sample_rate must be above 0 and finite, got {rate}")
        annotations = tuple(meta.get("annotations", ()))
        if not all("core:sample_start" in one for one in annotations):
            raise ValueError("every annotation must have core:sample_start")
        places = {capture.get("core:frequency", 0.0) for capture in captures}
        middle = float(captures[0].get("core:frequency", 0.0)) if captures else 0.0
        end = len(raw) - int(told.get("core:trailing_bytes", 0))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{name} must be a whole SigMF recording: {error!r}") from error
    if told.get("core:num_channels", 1) != 1:
        raise ValueError(f"{name} must be a SigMF recording of one channel")
    width = datatype[1].itemsize * (1 + datatype[0])
    begun = [s * width + sum(headers[: k + 1]) for k, s in enumerate(starts)]
    ends = [s * width + sum(headers[: k + 1]) for k, s in enumerate(starts[1:])] + [end]
    pieces = list(zip(begun, ends, strict=True))
    if not any(headers[1:]):
        pieces = [(begun[0], end)]
    told = {"first": starts[0], "annotations": annotations, "middle_hz": middle}
    if len(places) > 1:
        told["notes"] = (f"captures at {len(places)} frequencies, taken as at the first",)
    return _of_bytes(name, raw, datatype, rate, pieces, **told)


def _sigmf_pair(path: Path) -> list[tuple[str, dict, np.ndarray]]:
    """Name, metadata and bytes of samples, uint8; metadata may name another file of these beside it."""
    meta = json.loads(path.with_suffix(".sigmf-meta").read_text(encoding="utf8"))
    named = meta["global"].get("core:dataset")
    data = path.with_name(named) if named else path.with_suffix(".sigmf-data")
    if not data.is_file():
        raise FileNotFoundError(f"samples of {path.name} not found: {data}")
    return [(path.name, meta, np.memmap(data, np.uint8, "r"))]


def _sigmf_archive(path: Path) -> list[tuple[str, dict, np.ndarray]]:
    """The same of all that an archive holds, in place."""
    with tarfile.open(path, "r:") as archive:
        files, found = {member.name: member for member in archive}, []
        names = [name for name in files if name.endswith(".sigmf-meta")]
        for name in names:
            meta = json.load(archive.extractfile(files[name]))
            data = files[name.removesuffix("-meta") + "-data"]
            raw = np.memmap(path, np.uint8, "r", data.offset_data, (data.size,))
            shown = f"{path.name}/{name.removesuffix('.sigmf-meta')}"
            shown = shown if len(names) > 1 else path.name
            found.append((shown, meta, raw))
    return found


def _open_wav(path: Path, sample_rate: float | None) -> Recording:
    """Two channels are I and Q, one is a real signal."""
    try:
        with warnings.catch_warnings():
            # Chunks that are no samples, and a length that a receiver did not get to write.
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            try:
                rate, array = wavfile.read(path, mmap=True)
            except ValueError:
                # Samples of three bytes cannot be mapped.
                rate, array = wavfile.read(path)
    except Exception as error:
        # Of damaged files SciPy raises whatever its reader stumbles over.
        raise ValueError(f"{path.name} must be a whole WAV file: {error!r}") from error
    if array.ndim > 1 and array.shape[1] != 2:
        raise ValueError(f"{path.name} must have one channel or I and Q, it has {array.shape[1]}")
    return _of_array(path.name, array, sample_rate or float(rate))


def _open_numpy(path: Path, sample_rate: float | None) -> Recording:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if path.suffix == ".npz":
            (name,) = array.files
            array = array[name]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path.name} must be a whole NumPy file of one array: {error}") from None
    rows = array if np.iscomplexobj(array) else array[..., 0] if array.ndim > 1 else array
    if not np.iscomplexobj(array) and (
        array.ndim < 2 or array.shape[-1] != 2 or array.dtype.kind not in "fiu"
    ):
        raise ValueError(
            f"{path.name} must hold complex samples, or I and Q in a last axis of 2, it has "
            f"{array.dtype} of shape {array.shape}"
        )
    if rows.size != rows.shape[-1] and rows.shape[-1] != NUM_SAMPLES:
        raise ValueError(
            f"{path.name} must hold one recording or rows of {NUM_SAMPLES:,} samples, it has shape "
            f"{array.shape}; save one row"
        )
    # Of columns a copy, since those that are mapped would be read as rows.
    array = np.ascontiguousarray(array) if not array.flags.c_contiguous else array
    flat = array.reshape(-1) if np.iscomplexobj(array) else array.reshape(-1, 2)
    is_frames = rows.ndim > 1 and rows.shape[-1] == NUM_SAMPLES
    return _of_array(path.name, flat, sample_rate, is_frames=is_frames)

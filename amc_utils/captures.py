"""Recordings of any length and rate, cut into frames of eight samples a symbol."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import sigmf
import torch
from scipy.signal import resample_poly
from torch import Tensor

from amc_utils.signals import NUM_SAMPLES, SAMPLES_PER_SYMBOL

# Names of files that hold nothing but complex64 samples, little-endian, I before Q.
RAW_SUFFIXES = (".complex64", ".cf32", ".fc32", ".cfile", ".c64", ".iq", ".raw", ".bin", ".dat")
_SIGMF_SUFFIXES = (".sigmf-meta", ".sigmf-data", ".sigmf")
# Samples a symbol that can be brought to eight: fewer hold no shaped symbol whole.
_SAMPLES_PER_SYMBOL = (2, 4096)
# Rates are brought into each other by fractions whose terms are no larger: to 1e-6 of a sample.
_LARGEST_TERM = 1000


@dataclass(frozen=True)
class FrameCut:
    """Frames cut from a recording.

    Attributes:
        iq: complex64 [B, NUM_SAMPLES], unit mean power per frame.
        start: int64 [B], first sample of each in the recording.
        num_silent: frames that were left out, since all their samples are zero.
    """

    iq: Tensor
    start: np.ndarray
    num_silent: int


@dataclass(frozen=True)
class Capture:
    """A recording; samples are read when they are asked for.

    Attributes:
        name: of its file.
        length: number of complex samples.
        sample_rate: samples per second; None where nobody said.
        read: complex samples from a first to before a last one.
    """

    name: str
    length: int
    sample_rate: float | None
    read: Callable[[int, int], np.ndarray]

    def frames(
        self, *, symbol_rate: float | None = None, offset_hz: float = 0.0, num_frames: int = 256
    ) -> FrameCut:
        """Frames from all over the recording, at eight samples a symbol.

        Args:
            symbol_rate: symbols per second; None where the recording has eight samples a symbol.
            offset_hz: carrier to be taken out first.
            num_frames: frames at most, evenly spread.

        Raises:
            ValueError: rates that are missing or out of range, or a recording that is too short,
                silent, or holds samples that are not finite.
        """
        up, down = self._resampling(symbol_rate)
        if offset_hz and not self.sample_rate:
            raise ValueError(f"sample_rate must be given for an offset in Hz, {self.name} has none")
        # The filter of resample_poly reaches so many of its output samples to either side.
        margin = 0 if up == down else 10 * max(up, down) // down + 2
        span = -(-(NUM_SAMPLES + 2 * margin) * down // up) + 1 if margin else NUM_SAMPLES
        hop = NUM_SAMPLES * down // up
        if self.length < span:
            raise ValueError(
                f"{self.name} must hold the {span:,} samples of a frame, it has {self.length:,}"
            )
        num_there = (self.length - span) // hop + 1
        chosen = np.linspace(0, num_there - 1, min(num_frames, num_there)).round().astype(np.int64)
        parts = np.stack([self._part(start, span) for start in chosen * hop])
        if offset_hz:
            time = chosen[:, None] * hop + np.arange(span)
            parts = parts * np.exp(-2j * np.pi * (offset_hz / self.sample_rate * time % 1))
        if margin:
            parts = resample_poly(parts, up, down, axis=1)[:, margin : margin + NUM_SAMPLES]
        return self._normalised(parts.astype(np.complex64), chosen * hop + margin * down // up)

    def _resampling(self, symbol_rate: float | None) -> tuple[int, int]:
        if symbol_rate is None:
            return 1, 1
        if not self.sample_rate:
            raise ValueError(
                f"sample_rate must be given with symbol_rate, {self.name} does not say its own"
            )
        given, (fewest, most) = self.sample_rate / symbol_rate, _SAMPLES_PER_SYMBOL
        if not fewest <= given <= most:
            raise ValueError(
                f"a symbol must have {fewest} to {most} samples, a sample_rate of {self.sample_rate:g} "
                f"and a symbol_rate of {symbol_rate:g} make it {given:.3g}"
            )
        ratio = Fraction(SAMPLES_PER_SYMBOL / given).limit_denominator(_LARGEST_TERM)
        return ratio.numerator, ratio.denominator

    def _part(self, start: int, length: int) -> np.ndarray:
        part = np.asarray(self.read(int(start), int(start) + length))
        if not np.isfinite(part).all():
            raise ValueError(f"samples of {self.name} must be finite, those from {start:,} on are not")
        return part

    def _normalised(self, parts: np.ndarray, start: np.ndarray) -> FrameCut:
        root_power = np.linalg.norm(parts, axis=1) / NUM_SAMPLES**0.5
        loud = root_power > 0
        if not loud.any():
            raise ValueError(f"{self.name} must hold a signal, all its samples are zero")
        iq = torch.from_numpy(parts[loud] / root_power[loud, None])
        return FrameCut(iq, start[loud], int((~loud).sum()))


def open_capture(path: str | os.PathLike[str], sample_rate: float | None = None) -> Capture:
    """Recording in a SigMF pair or archive, a .npy file, or a file of complex64 (see RAW_SUFFIXES).

    NumPy files hold complex numbers, or real ones with I and Q in a last axis of 2; rows follow each
    other, so rows of NUM_SAMPLES stay frames.

    Args:
        path: the file; of a SigMF pair either.
        sample_rate: samples per second, where the file does not say it or says it wrongly.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, a damaged one, or samples that are not complex.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"recording not found: {path}")
    if path.suffix in _SIGMF_SUFFIXES:
        return _open_sigmf(path, sample_rate)
    if path.suffix == ".npy":
        return _open_numpy(path, sample_rate)
    if path.suffix not in RAW_SUFFIXES:
        known = ", ".join([*_SIGMF_SUFFIXES, ".npy", *RAW_SUFFIXES])
        raise ValueError(f"a recording must end in one of {known}, got {path.name}")
    size = path.stat().st_size
    if not size or size % 8:
        raise ValueError(f"{path.name} must hold complex64 samples of 8 bytes, it has {size:,} bytes")
    return _of_array(path.name, np.memmap(path, "<c8", mode="r"), sample_rate)


def _open_sigmf(path: Path, sample_rate: float | None) -> Capture:
    try:
        recording = sigmf.fromfile(path)
    except Exception as error:  # of its own, of JSON, of the schema: any says that the file is bad
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path.name} must be a whole SigMF recording: {problem}") from error
    if not isinstance(recording, sigmf.SigMFFile) or recording.num_channels != 1:
        raise ValueError(f"{path.name} must be a SigMF recording of one channel, it holds several")
    if not recording.is_complex_data:
        raise ValueError(f"{path.name} must hold complex samples, its datatype is real")
    rate = sample_rate or recording.get_global_field("core:sample_rate")
    length = recording.sample_count
    return Capture(path.name, length, rate, lambda first, last: recording[first:last])


def _open_numpy(path: Path, sample_rate: float | None) -> Capture:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path.name} must be a whole NumPy file of numbers: {error}") from None
    if np.iscomplexobj(array):
        return _of_array(path.name, array.reshape(-1), sample_rate)
    if array.ndim < 2 or array.shape[-1] != 2 or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{path.name} must hold complex samples, or I and Q in a last axis of 2, it has "
            f"{array.dtype} of shape {array.shape}"
        )
    return _of_array(path.name, array.reshape(-1, 2), sample_rate)


def _of_array(name: str, array: np.ndarray, sample_rate: float | None) -> Capture:
    def read(first: int, last: int) -> np.ndarray:
        part = array[first:last]
        return part if np.iscomplexobj(part) else part[:, 0] + 1j * part[:, 1].astype(np.float32)

    return Capture(name, len(array), sample_rate, read)

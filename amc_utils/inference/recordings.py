"""Recordings of any length and rate, cut into frames of eight samples a symbol."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from scipy.signal import firwin, freqz, resample_poly
from torch import Tensor

from amc_utils.dsp.features import power_spectrum
from amc_utils.radioml.reader import evenly_spaced
from amc_utils.signals import NUM_SAMPLES, SAMPLES_PER_SYMBOL, to_unit_power

# Names of files that hold nothing but complex64 samples, little-endian, I before Q.
RAW_SUFFIXES = (".complex64", ".cf32", ".fc32", ".cfile", ".c64", ".iq", ".raw", ".bin", ".dat")
_SIGMF_SUFFIXES = (".sigmf-meta", ".sigmf-data", ".sigmf")
# SigMF's names of sample types: complex or real, number, bits, byte order.
_SIGMF_DATATYPE = re.compile("([cr])([fiu])(8|16|32|64)(_le|_be)?")
# Samples a symbol that can be brought to eight: fewer leave no band beside the signal to hear noise in.
_SAMPLES_PER_SYMBOL = (2.5, 4096)
# Rates are brought into each other by a fraction this close, a fifth of the clocks' spread in training;
# terms up to the last of these always come so close.
_CLOSE, _LARGEST_TERMS = 2e-5, (1_000, 10_000, 50_000)
# Cycles per sample beyond which no signal of roll-off 1 and of the largest offset reaches, at eight
# samples a symbol; and none of roll-off 0.6, for recordings whose band ends below the last number.
_SIGNAL_EDGE, _NARROW_SIGNAL_EDGE, _WIDE_BAND = 0.146, 0.11, 0.2
# Samples that are resampled at once.
_AT_ONCE = 2**23


@dataclass(frozen=True)
class FrameCut:
    """Frames cut from a recording.

    Attributes:
        iq: complex64 [B, NUM_SAMPLES], unit mean power per frame.
        start: int64 [B], first sample of each in the recording.
        root_power: float32 [B], root of the mean power that each frame had.
        num_silent: frames that were left out, since all their samples are zero.
    """

    iq: Tensor
    start: np.ndarray
    root_power: Tensor
    num_silent: int


@dataclass(frozen=True)
class Recording:
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

        A recording of fewer samples a symbol holds no noise beyond its own band, and any filter takes
        some at its edge. That is filled up with white noise as dense as beside the signal, so that
        the SNR is that of the symbol rate's band.

        Args:
            symbol_rate: symbols per second; None where the recording has eight samples a symbol.
            offset_hz: carrier to be taken out first.
            num_frames: frames at most, evenly spread.

        Raises:
            ValueError: rates that are missing or out of range, or a recording that is too short,
                silent, or holds samples that are not finite.
        """
        if offset_hz and not (self.sample_rate and abs(offset_hz) <= self.sample_rate / 2):
            rate = f"{self.sample_rate:g}" if self.sample_rate else "none"
            raise ValueError(f"offset_hz must lie within half a sample_rate, got {offset_hz} of {rate}")
        up, down = self._resampling(symbol_rate)
        # The filter of resample_poly reaches so many of its output samples to either side.
        margin = 0 if up == down else 10 * max(up, down) // down + 2
        span = -(-(NUM_SAMPLES + 2 * margin) * down // up) + 1 if margin else NUM_SAMPLES
        hop = NUM_SAMPLES * down // up
        if self.length < span:
            raise ValueError(
                f"{self.name} must hold the {span:,} samples of a frame, it has {self.length:,}"
            )
        num_there = (self.length - span) // hop + 1
        chosen = evenly_spaced(num_there, num_frames)
        parts = [
            self._resampled(some * hop, span, margin, (up, down), offset_hz)
            for some in np.array_split(chosen, -(-len(chosen) * span // _AT_ONCE))
        ]
        cut = self._normalised(np.concatenate(parts), chosen * hop + margin * down // up)
        return replace(cut, iq=_filled(cut.iq, min(down / up, 1) / 2)) if margin else cut

    def _resampling(self, symbol_rate: float | None) -> tuple[int, int]:
        """Factors to go up and down by; 1, 1 where the recording stays as it is."""
        for name, rate in (("symbol_rate", symbol_rate), ("sample_rate", self.sample_rate)):
            if rate is not None and not 0 < rate < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, got {rate}")
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
        wanted = SAMPLES_PER_SYMBOL / given
        fractions = (Fraction(wanted).limit_denominator(terms) for terms in _LARGEST_TERMS)
        ratio = next(f for f in fractions if abs(f - wanted) <= _CLOSE * wanted)
        return ratio.numerator, ratio.denominator

    def _resampled(
        self, starts: np.ndarray, span: int, margin: int, factors: tuple[int, int], offset_hz: float
    ) -> np.ndarray:
        """Samples from each start on, complex128 [B, NUM_SAMPLES], without the carrier."""
        parts = np.stack([self.read(int(start), int(start) + span) for start in starts])
        parts = parts.astype(np.complex128)
        if not np.isfinite(parts).all():
            row = int(np.flatnonzero(~np.isfinite(parts).all(1))[0])
            raise ValueError(
                f"samples of {self.name} must be finite, some of those from {starts[row]:,} on are not"
            )
        if offset_hz:
            cycles = offset_hz / self.sample_rate * (starts[:, None] + np.arange(span))
            parts *= np.exp(-2j * np.pi * (cycles % 1))
        if margin:
            parts = resample_poly(parts, *factors, axis=1)[:, margin : margin + NUM_SAMPLES]
        return parts

    def _normalised(self, parts: np.ndarray, start: np.ndarray) -> FrameCut:
        root_power = np.linalg.norm(parts, axis=1) / NUM_SAMPLES**0.5
        loud = root_power > 0
        if not loud.any():
            raise ValueError(f"{self.name} must hold a signal, all its samples are zero")
        iq = torch.from_numpy((parts[loud] / root_power[loud, None]).astype(np.complex64))
        kept = torch.from_numpy(root_power[loud].astype(np.float32))
        return FrameCut(iq, start[loud], kept, int((~loud).sum()))


def _filled(iq: Tensor, band: float) -> Tensor:
    """Resampled frames, with white noise where the filter took it; unit mean power each.

    Args:
        iq: complex64 [B, NUM_SAMPLES].
        band: half the recording's sample rate, in cycles per sample of `iq`, or 1/2 if that is less.
    """
    frequency, power = power_spectrum(iq)
    edge = _SIGNAL_EDGE if band > _WIDE_BAND else _NARROW_SIGNAL_EDGE
    beside = (frequency.abs() > edge) & (frequency.abs() < edge + 0.02)
    # The response of resample_poly's filter depends on the frequency over the band alone.
    taps = firwin(2 * 10 * 16 + 1, 1 / 16, window=("kaiser", 5.0))
    _, response = freqz(taps, worN=np.pi / 16 * frequency.abs().numpy() / band)
    lacking = torch.from_numpy(1 - np.abs(response) ** 2).clamp_min(0)
    lacking = torch.where(frequency.abs() > edge, lacking, 0)
    noise = torch.randn(iq.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    root = torch.fft.ifftshift((power[:, beside].mean() * lacking).sqrt())
    filled = iq + torch.fft.ifft(torch.fft.fft(noise) * root)
    return to_unit_power(filled).to(torch.complex64)


def open_recording(path: str | os.PathLike[str], sample_rate: float | None = None) -> Recording:
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


def _open_sigmf(path: Path, sample_rate: float | None) -> Recording:
    """Recording of one channel, a pair of files or an archive.

    Read here, since the library of that name takes over a second to import, most of it for its
    validation.
    Source: SigMF Specification 1.2, sections "Global Object" and "Captures Array".
    """
    try:
        meta, raw = (_sigmf_archive if path.suffix == ".sigmf" else _sigmf_pair)(path)
        told = meta["global"]
        part, number, bits, order = _SIGMF_DATATYPE.fullmatch(told["core:datatype"]).groups()
        if told.get("core:sha512") not in (None, hashlib.sha512(raw).hexdigest()):
            raise ValueError("its samples are not those of core:sha512")
        headers = [capture.get("core:header_bytes", 0) for capture in meta["captures"]]
        samples = raw[sum(headers[:1]) : len(raw) - told.get("core:trailing_bytes", 0)]
        dtype = np.dtype(f"{'>' if order == '_be' else '<'}{number}{int(bits) // 8}")
        pairs = samples[: len(samples) // (2 * dtype.itemsize) * 2 * dtype.itemsize].view(dtype)
    except (ValueError, KeyError, TypeError, AttributeError, tarfile.TarError) as error:
        raise ValueError(f"{path.name} must be a whole SigMF recording: {error!r}") from error
    if told.get("core:num_channels", 1) != 1 or any(headers[1:]):
        raise ValueError(f"{path.name} must be a SigMF recording of one channel in one piece")
    if part == "r":
        raise ValueError(f"{path.name} must hold complex samples, its datatype is real")
    rate = sample_rate or told.get("core:sample_rate")
    middle = 2.0 ** (int(bits) - 1) if number == "u" else 0.0
    return _of_array(path.name, pairs.reshape(-1, 2), rate, middle)


def _sigmf_pair(path: Path) -> tuple[dict, np.ndarray]:
    """Metadata and bytes of samples, uint8; metadata may name another file of samples beside it."""
    meta = json.loads(path.with_suffix(".sigmf-meta").read_text(encoding="utf8"))
    named = meta["global"].get("core:dataset")
    data = path.with_name(named) if named else path.with_suffix(".sigmf-data")
    if not data.is_file():
        raise FileNotFoundError(f"samples of {path.name} not found: {data}")
    return meta, np.memmap(data, np.uint8, "r")


def _sigmf_archive(path: Path) -> tuple[dict, np.ndarray]:
    """The same of an archive, in place."""
    with tarfile.open(path, "r:") as archive:
        files = {Path(member.name).suffix: member for member in archive}
        meta = json.load(archive.extractfile(files[".sigmf-meta"]))
        data = files[".sigmf-data"]
    return meta, np.memmap(path, np.uint8, "r", data.offset_data, (data.size,))


def _open_numpy(path: Path, sample_rate: float | None) -> Recording:
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


def _of_array(
    name: str, array: np.ndarray, sample_rate: float | None, middle: float = 0.0
) -> Recording:
    """Recording of complex numbers, or of I and Q in rows of 2, zero being at `middle`."""

    def read(first: int, last: int) -> np.ndarray:
        part = array[first:last]
        return part if np.iscomplexobj(part) else (part - middle) @ np.array([1, 1j], np.complex64)

    return Recording(name, len(array), sample_rate, read)

"""Recordings of any length and rate, cut into frames of eight samples a symbol."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from scipy.signal import firwin, freqz, resample_poly
from torch import Tensor

from amc_utils.dsp.features import mean_power, power_spectrum
from amc_utils.dsp.survey import Signal, find_signals
from amc_utils.radioml.reader import evenly_spaced
from amc_utils.signals import NUM_SAMPLES, SAMPLES_PER_SYMBOL, to_unit_power

# Samples a symbol that can be brought to eight: fewer leave no band beside the signal to hear noise in.
_SAMPLES_PER_SYMBOL = (1.9, 4096)
# Rates are brought into each other by a fraction this close, a fifth of the clocks' spread in training;
# terms up to the last of these always come so close.
_CLOSE, _LARGEST_TERMS = 2e-5, (1_000, 10_000, 50_000)
# Cycles per sample beyond which no signal of roll-off 1 and of the largest offset reaches, at eight
# samples a symbol; and none of roll-off 0.6, for recordings whose band ends below the last number.
_SIGNAL_EDGE, _NARROW_SIGNAL_EDGE, _WIDE_BAND = 0.146, 0.11, 0.2
# Samples to either side of those asked for, in which a filter of bands is not at rest.
_SETTLING = 512
# Samples that are searched for signals at once, and in how many places.
_STRETCHES, _NUM_STRETCHES = (2**16, 2**20), 12
# So many of the long ones where short ones have shown a signal.
_NUM_LONG = 2
# Samples that are resampled at once.
_AT_ONCE = 2**18


def can_be_cut(symbol_rate: float) -> bool:
    """Whether frames can be cut from a recording of so many symbols a sample."""
    fewest, most = _SAMPLES_PER_SYMBOL
    return fewest <= 1 / symbol_rate <= most


@dataclass(frozen=True)
class FrameCut:
    """Frames cut from a recording.

    Attributes:
        iq: complex64 [B, NUM_SAMPLES], unit mean power per frame.
        start: int64 [B], first sample of each in the recording.
        root_power: float32 [B], root of the mean power that each frame had.
        num_silent, num_broken: frames that were left out, since all their samples are zero, or some
            are not finite.
    """

    iq: Tensor
    start: np.ndarray
    root_power: Tensor
    num_silent: int
    num_broken: int

    def at_record_scale(self) -> Tensor:
        """Frames over the standard deviation of all, their means kept; complex64 [B, NUM_SAMPLES]."""
        iq = self.iq * self.root_power[:, None]
        # Phases differ from frame to frame, so the mean that is kept is that of each.
        varying = mean_power(iq) - iq.mean(1).abs().square()
        return iq / varying.mean().sqrt()


@dataclass(frozen=True)
class Recording:
    """A recording; samples are read when they are asked for.

    Attributes:
        name: of its file.
        length: number of complex samples.
        sample_rate: samples per second; None where nobody said.
        read: complex samples from a first to before a last one.
        notes: what was left out or made of what the file holds, for those who read the answer.
        first: number that the file gives to the first sample.
        annotations: of a SigMF recording, as they stand there.
        middle_hz: frequency on the air that zero stands for, where a SigMF recording says it.
        band: from where to where in hertz, or per sample, a carrier is wanted; None for anywhere.
        is_frames: whether it is rows of NUM_SAMPLES, which need not follow each other.
    """

    name: str
    length: int
    sample_rate: float | None
    read: Callable[[int, int], np.ndarray]
    notes: tuple[str, ...] = ()
    first: int = 0
    annotations: tuple[dict[str, Any], ...] = ()
    middle_hz: float = 0.0
    band: tuple[float, float] | None = None
    is_frames: bool = False

    def stretch(self, start: float = 0.0, stop: float = math.inf, annotation: int = -1) -> Recording:
        """A part of the recording, from one time to another in seconds; in samples without a rate.

        Args:
            start: where it begins.
            stop: where it ends.
            annotation: number of a SigMF annotation that says both, from 0, and the band of carriers if
                it has frequency edges; -1 for none.

        Raises:
            ValueError: no such annotation, or nothing there.
        """
        rate = self.sample_rate or 1.0
        first, last, band = start * rate, min(stop * rate, self.length), self.band
        if annotation >= 0:
            if annotation >= len(self.annotations):
                raise ValueError(
                    f"annotation must be one of the {len(self.annotations)} of {self.name}, from 0, "
                    f"got {annotation}"
                )
            told = self.annotations[annotation]
            first = int(told["core:sample_start"]) - self.first
            last = min(first + int(told.get("core:sample_count", self.length)), self.length)
            edges = [told.get(f"core:freq_{end}_edge") for end in ("lower", "upper")]
            band = None if None in edges else tuple(float(edge) - self.middle_hz for edge in edges)
        first, last = int(first), int(last)
        if not 0 <= first < last:
            whole = f"{self.length / rate:g} s" if self.sample_rate else f"{self.length:,} samples"
            end = f"{stop:g}" if stop < math.inf else "the end"
            raise ValueError(
                f"a stretch of {self.name} must lie within its {whole}, got {start:g} to {end}"
            )
        read = self.read
        return replace(
            self,
            length=last - first,
            read=lambda a, b: read(first + a, first + b),
            first=self.first + first,
            band=band,
        )

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
            ValueError: rates that are missing or out of range, or a recording that is too short or
                has no frame with finite samples that are not all zero.
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

    def without(self, others: Sequence[Signal], wanted: Signal) -> Recording:
        """The recording with noise in the bands of other signals, as dense as beside them all.

        At eight samples a symbol they would lie beside the wanted one, and count as noise.
        """

        def read(first: int, last: int) -> np.ndarray:
            low, high = max(first - _SETTLING, 0), min(last + _SETTLING, self.length)
            # In double precision, or the power of large samples is none.
            spectrum = np.fft.fft(self.read(low, high).astype(np.complex128))
            frequency = np.fft.fftfreq(high - low)
            own = wanted.covers(frequency)
            taken = np.any([other.covers(frequency) for other in others], axis=0) & ~own
            free = ~(taken | own)
            # The median of exponential variables is ln 2 of their mean.
            power = np.median(np.abs(spectrum[free]) ** 2) / np.log(2) if free.any() else 0.0
            parts = np.random.default_rng(first).standard_normal((2, high - low))
            noise = (parts[0] + 1j * parts[1]) * np.sqrt(power / 2)
            return np.fft.ifft(np.where(taken, noise, spectrum))[first - low : last - low]

        return replace(self, read=read) if others else self

    def signals(self, most: int = 8) -> list[Signal]:
        """Signals of one carrier in the recording, the strongest first; frequencies per sample.

        Stretches from all over it are searched, short ones, since a signal may be there for a while,
        and long ones, since it may be slow.

        Raises:
            ValueError: nothing but zeros and samples that are not finite, all of it being searched.
        """
        found: list[Signal] = []
        is_empty = True
        for length in sorted({min(length, self.length) for length in _STRETCHES}):
            known = tuple(found)
            most_stretches = _NUM_LONG if found else _NUM_STRETCHES
            number = min(most_stretches, -(-self.length // length))
            for start in np.linspace(0, self.length - length, number).astype(int):
                samples = np.nan_to_num(self.read(start, start + length), posinf=0.0, neginf=0.0)
                largest = float(max(np.abs(samples.real).max(), np.abs(samples.imag).max()))
                if largest > 0:
                    is_empty = False
                    there = find_signals(samples / largest, most, known)
                    found += [replace(some, density=some.density * largest**2) for some in there]
        # Of a longer recording what was not searched may hold a signal.
        if is_empty and number * length >= self.length:
            raise ValueError(_nothing_there(self.name))
        found.sort(key=lambda some: some.line, reverse=True)
        kept: list[Signal] = []
        for some in found:
            is_lobe = any(some.is_side_lobe_of(other) for other in found)
            if not is_lobe and not any(some.overlaps(other) for other in kept):
                kept.append(some)
        return kept[:most]

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
        if not can_be_cut(1 / given):
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
        # Their frames are left out; the others of the batch stay as they are.
        parts[~np.isfinite(parts).all(1)] = np.nan
        if offset_hz:
            cycles = offset_hz / self.sample_rate * (starts[:, None] + np.arange(span))
            parts *= np.exp(-2j * np.pi * (cycles % 1))
        if margin:
            parts = resample_poly(parts, *factors, axis=1)[:, margin : margin + NUM_SAMPLES]
        return parts

    def _normalised(self, parts: np.ndarray, start: np.ndarray) -> FrameCut:
        root_power = np.linalg.norm(parts, axis=1) / NUM_SAMPLES**0.5
        broken, silent = ~np.isfinite(root_power), root_power == 0
        kept = ~(broken | silent)
        if not kept.any():
            raise ValueError(_nothing_there(self.name))
        iq = torch.from_numpy((parts[kept] / root_power[kept, None]).astype(np.complex64))
        power = torch.from_numpy(root_power[kept].astype(np.float32))
        return FrameCut(iq, start[kept], power, int(silent.sum()), int(broken.sum()))


def _nothing_there(name: str) -> str:
    return (
        f"{name} must hold a signal, all its samples are zero or some of every frame are not finite; "
        f"samples of another type than the suffix says need datatype, as ci16"
    )


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
    # Of each frame by itself, since a packet may begin in one and end in the next.
    density = power[:, beside].mean(1, keepdim=True)
    root = torch.fft.ifftshift((density * lacking).sqrt(), dim=1)
    filled = iq + torch.fft.ifft(torch.fft.fft(noise) * root)
    return to_unit_power(filled).to(torch.complex64)

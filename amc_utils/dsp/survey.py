"""Signals of one carrier in a stretch of samples: where they lie, and at what symbol rate.

The squared magnitude of such a signal has a line at its symbol rate, as long as its band is wider than
that; so has its square, at twice the carrier and the symbol rate to either side, if symbols are real or
their parts are staggered. Frequencies a symbol rate apart hold the same symbols: a line is the sum of
their products. It is looked for in several bands about each peak of the spectrum, since where a band
ends cannot be told before.

Source: Gardner, "Exploitation of Spectral Redundancy in Cyclostationary Signals", 1991.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.fft import fft, ifft, next_fast_len
from scipy.ndimage import uniform_filter1d

# Levels below a peak of the spectrum at which bands about it may end, in decibels.
_LEVELS_DB = (3, 5, 7, 10, 13, 16, 20, 25, 30)
# Bins of the spectrum over one of its averages: so many averages at least, and bins in these limits.
_NUM_AVERAGES, _NUM_BINS = 40, (256, 8192)
# Bins below a level that do not end a band.
_GAP = 2
# Symbol rates that are looked for, in bandwidths; and how far from the band's middle that of two lines
# of the square may be, in bandwidths.
_LOWEST_RATE, _REACH = 0.45, 0.1
# Density of side lobes, of which bands may hold several and noise, over that of a rectangular pulse's
# at most; and how far from each other rates that are one may be.
_LOBES, _SAME_RATE = 4.0, 1e-3
# Lines of either side that are paired.
_NUM_LINES = 30
# A line is one if it is that far, in units of what chance gives, above what chance gives of as many,
# and so many times the next.
LEAST_LINE, _LEAST_RATIO = 10.0, 2.0
# A peak of the spectrum below so many times the noise is none; what is below so much of the highest
# peak was never heard, as negative frequencies of a real signal.
_LEAST_PEAK, _LEAST_POWER = 2.0, 1e-8


@dataclass(frozen=True)
class Signal:
    """A signal of one carrier; frequencies in cycles per sample.

    Attributes:
        carrier: middle of its band, or of its lines.
        bandwidth: between the ends of its band.
        density: its mean power density there, in the unit of the samples.
        symbol_rate: the likeliest.
        line: the line's strength in units of what chance gives, less what it gives of as many.
        runner_up: the next strongest line's.
        is_staggered: whether its lines are those of the square, as of OQPSK.
    """

    carrier: float
    bandwidth: float
    density: float
    symbol_rate: float
    line: float
    runner_up: float
    is_staggered: bool = False

    @property
    def is_certain(self) -> bool:
        """Whether the line is no chance, and clearly the strongest."""
        return self.line > max(LEAST_LINE, _LEAST_RATIO * self.runner_up)

    def covers(self, frequency: np.ndarray) -> np.ndarray:
        """Which frequencies lie in its band, a little wider."""
        return np.abs((frequency - self.carrier + 0.5) % 1 - 0.5) < 0.55 * self.bandwidth

    def is_side_lobe_of(self, other: Signal) -> bool:
        """Whether it has that one's symbol rate or a multiple, and is no denser than its lobes can be.

        Those of a rectangular pulse, which has the strongest, fall with the square of the distance.
        """
        distance = abs((self.carrier - other.carrier + 0.5) % 1 - 0.5) / other.symbol_rate
        multiple = self.symbol_rate / other.symbol_rate
        is_lobe = distance > 0.5 and self.density * (np.pi * distance) ** 2 < _LOBES * other.density
        return is_lobe and round(multiple) > 0 and abs(multiple / round(multiple) - 1) < _SAME_RATE

    def overlaps(self, other: Signal) -> bool:
        """Whether the bands of both have a quarter of the narrower one in common."""
        distance = abs((self.carrier - other.carrier + 0.5) % 1 - 0.5)
        common = (self.bandwidth + other.bandwidth) / 2 - distance
        return common > min(self.bandwidth, other.bandwidth) / 4


def find_signals(samples: np.ndarray, most: int = 8, known: Sequence[Signal] = ()) -> list[Signal]:
    """Signals of one carrier in complex samples [N], the strongest first; none where there is no line.

    Args:
        samples: complex numbers, finite.
        most: how many at most.
        known: others, whose bands are left out.
    """
    spectrum = fft(samples, workers=1)
    power = average_spectrum(samples)
    found: list[Signal] = []
    free = np.ones(len(power), bool)
    for other in known:
        free &= ~other.covers(np.fft.fftfreq(len(power)))
    floor = noise_floor(power)
    for _ in range(2 * most):
        bands = _bands(np.where(free, power, 0.0))
        if len(found) == most or not free.any() or power[free].max() < _LEAST_PEAK * floor:
            break
        tried = [_strongest_line(spectrum, power, *band) for band in bands]
        certain = [some for some in tried if some is not None and some.is_certain]
        best = max(certain, key=lambda some: some.line, default=None)
        if best is not None and not any(best.overlaps(other) for other in found):
            found.append(best)
        # Another signal lies beyond this one; where none was found, beyond the narrowest band.
        middle, width = (best.carrier, best.bandwidth) if best is not None else bands[0]
        distance = np.abs((np.fft.fftfreq(len(power)) - middle + 0.5) % 1 - 0.5)
        free &= distance > width / 2 + 1 / len(power)
    return found


def average_spectrum(samples: np.ndarray) -> np.ndarray:
    """Power density at frequencies from 0 up, [F], averaged over windows that overlap by a half."""
    low, high = _NUM_BINS
    length = int(np.clip(2 ** int(np.log2(max(len(samples) / _NUM_AVERAGES, 1))), low, high))
    length = min(length, len(samples))
    # Without the zeros at its ends, which would be all of the shortest one.
    window = np.hanning(length + 2)[1:-1]
    parts = np.lib.stride_tricks.sliding_window_view(samples, length)[:: max(length // 2, 1)]
    total = sum(
        (np.abs(fft(part * window)) ** 2).sum(0)
        for part in np.array_split(parts, max(1, len(parts) // 256))
    )
    return total / len(parts) / (window**2).sum()


def noise_floor(power: np.ndarray) -> float:
    """Density below which a tenth of the frequencies with any power lies."""
    return float(np.quantile(power[power > _LEAST_POWER * power.max()], 0.1))


def _bands(power: np.ndarray) -> list[tuple[float, float]]:
    """Middles and widths of bands about the highest peak, narrow ones first, each once."""
    size = len(power)
    smooth = uniform_filter1d(power, 3, mode="wrap")
    peak = int(np.argmax(uniform_filter1d(power, 9, mode="wrap")))
    bands = []
    for level in smooth[peak] * 10.0 ** (-np.array(_LEVELS_DB) / 10):
        above = np.roll(smooth > level, size // 2 - peak)
        low, high = (_end(above[part]) for part in (slice(size // 2, None, -1), slice(size // 2, None)))
        if low + high >= size - 3:
            bands.append((0.0, 1.0))
            break
        middle = (peak + (high - low) / 2) / size
        bands.append(((middle + 0.5) % 1 - 0.5, (low + high + 1) / size))
    return [band for band, _ in itertools.groupby(bands)]


def _end(above: np.ndarray) -> int:
    """How many bins from the first on a band reaches, gaps included that do not end it."""
    there = np.flatnonzero(above)
    steps = np.flatnonzero(np.diff(there) > _GAP + 1)
    return int(there[steps[0]] if len(steps) else there[-1]) if len(there) else 0


def line_spectrum(samples: np.ndarray, signal: Signal) -> tuple[np.ndarray, np.ndarray]:
    """Symbol rates in cycles per sample, and the strength of their lines in units of chance, [rates].

    Lines of the squared magnitude, or if these show nothing the weaker of each pair of the square's.
    """
    lines = _lines(fft(samples), signal.carrier, signal.bandwidth)
    rates = (lines.low + np.arange(len(lines.magnitude))) / len(samples)
    pair = 2 * np.minimum(lines.above, lines.below)
    return rates, lines.magnitude if lines.magnitude.max() > pair.max() else pair


@dataclass(frozen=True)
class _Lines:
    """Lines of a band of 2 `half` bins about `center`.

    Strengths at bins from `low` up: of the squared magnitude, and of the square above and below twice
    the middle.
    """

    center: int
    half: int
    low: int
    magnitude: np.ndarray
    above: np.ndarray
    below: np.ndarray


def _lines(spectrum: np.ndarray, middle: float, width: float) -> _Lines | None:
    """Lines of what lies in a band; None if the band is too narrow to have one."""
    size = len(spectrum)
    half, center = int(min(1.05 * width, 1.0) * size) // 2, round(middle * size)
    if half < 32:
        return None
    inside = spectrum[np.arange(center - half, center + half) % size]
    # Of equal weight at all frequencies, whatever the pulse.
    smooth = uniform_filter1d(np.abs(inside) ** 2, max(half // 20, 5), mode="nearest")
    padded = np.zeros(next_fast_len(4 * half), complex)
    padded[np.arange(-half, half)] = inside / np.sqrt(np.maximum(smooth, 1e-30))
    signal = ifft(padded) * len(padded)
    of_magnitude, of_square = (fft(some) / len(padded) for some in (np.abs(signal) ** 2, signal**2))
    low, high = int(2 * _LOWEST_RATE * half), 2 * half - max(4, half // 20)
    bins = np.arange(low, high)
    pairs = 2 * half - bins
    magnitude = np.abs(of_magnitude[bins]) ** 2 / pairs
    above, below = (np.abs(of_square[sign * bins]) ** 2 / (2 * pairs) for sign in (1, -1))
    return _Lines(center, half, low, magnitude, above, below)


def _strongest_line(
    spectrum: np.ndarray, power: np.ndarray, middle: float, width: float
) -> Signal | None:
    """The likeliest symbol rate of what lies in a band; None if the band is too narrow to have one.

    Args:
        spectrum: of the samples, complex [N].
        power: see average_spectrum.
        middle: of the band.
        width: of the band.
    """
    lines = _lines(spectrum, middle, width)
    if lines is None:
        return None
    size, low, carrier = len(spectrum), lines.low, middle
    line, runner_up, place = _strongest(lines.magnitude)
    rate = (low + place) / size
    pair = _pair_of_lines(lines.above, lines.below, 2 * _REACH * lines.half)
    is_staggered = pair is not None and pair[0] > line
    if is_staggered:
        line, runner_up, up, down = pair
        rate, carrier = (low + (up + down) / 2) / size, (lines.center + (up - down) / 4) / size
    distance = np.abs((np.fft.fftfreq(len(power)) - middle + 0.5) % 1 - 0.5)
    density = float(power[distance <= width / 2].mean())
    return Signal((carrier + 0.5) % 1 - 0.5, width, density, rate, line, runner_up, is_staggered)


def _strongest(strength: np.ndarray) -> tuple[float, float, float]:
    """Of lines: the strongest's strength and the next one's, less what chance gives; and its place."""
    best, chance = int(np.argmax(strength)), np.log(len(strength))
    others = np.abs(np.arange(len(strength)) - best) > 3
    rest = float(strength[others].max(initial=0.0))
    return float(strength[best] - chance), rest - chance, _between(strength, best)


def _pair_of_lines(
    above: np.ndarray, below: np.ndarray, reach: float
) -> tuple[float, float, float, float] | None:
    """The strongest pair of lines as far above the middle as below, as _strongest; and both places."""
    places = [_peaks(part) for part in (above, below)]
    if not all(len(some) for some in places):
        return None
    weaker = np.minimum(above[places[0]][:, None], below[places[1]])
    near = np.abs(places[0][:, None] - places[1]) < reach
    both = np.where(near, 2 * weaker, 0.0)
    chance = np.log(len(above) * max(reach, 1.0))
    row, column = np.unravel_index(np.argmax(both), both.shape)
    up, down = places[0][row], places[1][column]
    far = np.abs((places[0][:, None] + places[1]) - (up + down)) > 6
    line, rest = both[row, column] - chance, np.where(far, both, 0.0).max() - chance
    return float(line), float(rest), _between(above, up), _between(below, down)


def _peaks(strength: np.ndarray) -> np.ndarray:
    """Places of the strongest local maxima."""
    middle = strength[1:-1]
    there = np.flatnonzero((middle >= strength[:-2]) & (middle > strength[2:])) + 1
    return there[np.argsort(strength[there])[::-1][:_NUM_LINES]]


def _between(strength: np.ndarray, place: int) -> float:
    """Place of a maximum between bins, by the parabola through its root and those beside it."""
    if not 0 < place < len(strength) - 1:
        return float(place)
    left, middle, right = np.sqrt(strength[place - 1 : place + 2])
    bend = 2 * middle - left - right
    return float(place + (0.5 * (right - left) / bend if bend > 0 else 0.0))

"""Numbers that a frame tells about itself without any label: power, noise floor, lines, envelope."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from amc_utils.signals import SAMPLES_PER_SYMBOL, unit_phasor

# Half the sampled band lies beyond this frequency, in cycles per sample, and no signal of 8 samples
# per symbol reaches it: the widest roll-off, 1, ends at 1/8.
OUT_OF_BAND = 0.25
# Variance of the mean power of noise in n bins of a Hann-windowed spectrum, times n: neighbouring bins
# correlate with 4/9, the next ones with 1/36.
_HANN_VARIANCE = 1 + 2 * (4 / 9 + 1 / 36)
# Thresholds of `signature`, explained there.
SPECTRAL_LINE = 0.25
CONSTANT_ENVELOPE = 0.1


def mean_power(iq: Tensor) -> Tensor:
    """Mean |iq|^2 of each frame, float32 [B]."""
    return iq.abs().square().mean(-1)


def power_spectrum(iq: Tensor, window: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Frequency in cycles per sample, ascending, float32 [N], and power [B, N], N samples.

    White noise of unit power has unit power in every bin on average.

    Args:
        iq: complex [B, N].
        window: [N]; left out a Hann window, which keeps the leakage of the ends of 1,024 samples below
            the noise of every SNR level.
    """
    num_samples = iq.shape[-1]
    window = torch.hann_window(num_samples, device=iq.device) if window is None else window
    spectrum = torch.fft.fftshift(torch.fft.fft(iq * window), dim=-1)
    frequency = torch.fft.fftshift(torch.fft.fftfreq(num_samples, device=iq.device))
    return frequency, spectrum.abs().square() / window.square().sum()


def one_sided(values: Tensor) -> Tensor:
    """Mean of the values at f and -f, [..., N // 2 + 1] from zero up, of N values of ascending f."""
    values = torch.fft.ifftshift(values, dim=-1)
    both = (values + values.flip(-1).roll(1, -1)) / 2
    return both[..., : values.shape[-1] // 2 + 1]


def noise_density(frequency: Tensor, power: Tensor) -> Tensor:
    """Mean power in the bins that no signal reaches, [...] of power [..., bins]: that of the noise."""
    return power[..., frequency.abs() > OUT_OF_BAND].mean(-1)


def circular_mean(position: Tensor, period: float) -> tuple[float, float]:
    """Mean on a circle, in [0, period), and how alike positions are: 1 for equal, 0 for all around."""
    mean = unit_phasor(position * (2 * torch.pi / period)).mean()
    return float(mean.angle() / (2 * torch.pi) % 1) * period, float(mean.abs())


def snr_ratio(iq: Tensor) -> Tensor:
    """Signal-to-noise power ratio per sample of each frame, from its own spectrum, float32 [B].

    Noise fills the whole band and the signal an eighth of it, so the floor beyond the signal's reach
    is the noise, and what exceeds it is the signal. Linear, and below zero where chance makes the
    floor exceed the whole, so that averages over frames are unbiased.
    """
    frequency, power = power_spectrum(iq)
    beyond = frequency.abs() > OUT_OF_BAND
    # The mean of an inverse exceeds the inverse of the mean by the relative variance.
    inverse = (1 - _HANN_VARIANCE / int(beyond.sum())) / noise_density(frequency, power)
    share = beyond.to(power.dtype).mean()
    return power[:, ~beyond].sum(-1) / len(frequency) * inverse + share - 1


def carrier_share(iq: Tensor) -> Tensor:
    """Share of the power in the strongest line of the spectrum, float32 [B]."""
    power = power_spectrum(iq)[1]
    # The window spreads a line over three bins.
    return torch.nn.functional.avg_pool1d(power[:, None], 3, 1)[:, 0].amax(1) * 3 / power.sum(1)


def squared_line(iq: Tensor) -> Tensor:
    """Share of the power of iq^2 that lies in its strongest spectral line, float32 [B], in [0, 1].

    Real-valued modulations (OOK, ASK, BPSK, AM-DSB) square to a line at twice the carrier offset.
    """
    power = torch.fft.fft(iq.square()).abs().square()
    # An offset between two bins spreads the line over both.
    pairs = power + power.roll(1, -1)
    return pairs.amax(-1) / power.sum(-1)


def envelope_std(iq: Tensor) -> Tensor:
    """Standard deviation of |iq| over its mean, float32 [B]; near zero for FM and GMSK."""
    envelope = iq.abs()
    return envelope.std(-1) / envelope.mean(-1)


def signature(iq: Tensor) -> tuple[str, float, float]:
    """What some frames of one class at high SNR look like, whatever their label says.

    Returns:
        "spectral line", "constant envelope" or "neither", the median of squared_line, and that of
        envelope_std. The line's threshold lies halfway between the synthetic classes with one and
        without; noise of 20 dB alone spreads a constant envelope by 0.07, and the threshold is 0.1.
    """
    line, spread = float(squared_line(iq).median()), float(envelope_std(iq).median())
    if spread < CONSTANT_ENVELOPE:
        return "constant envelope", line, spread
    return ("spectral line" if line > SPECTRAL_LINE else "neither"), line, spread


def duplicate_pairs(samples: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """Neighbours in each group of equal frames, int64 [P, 2], as numbers of frames.

    Args:
        samples: [N, num_samples, 2]; may be mapped from disk, only suspects are read.
        heads: [N, h, 2], the first samples of each, which suspects have in common.
    """
    words = np.ascontiguousarray(heads).reshape(len(heads), -1).view(np.uint64)
    order = np.lexsort(words.T)
    same = (words[order[1:]] == words[order[:-1]]).all(1)
    suspects = np.sort(order[np.r_[False, same] | np.r_[same, False]])
    digests = [hashlib.sha256(samples[frame].tobytes()).digest() for frame in suspects]
    equal = pd.Series(suspects).groupby(digests)
    pairs = [(a, b) for _, group in equal for a, b in pairwise(group.tolist())]
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def eye_traces(iq: Tensor, span_in_symbols: int = 2) -> Tensor:
    """Stretches of `span_in_symbols` symbols of one frame [num_samples], complex64 [traces, samples].

    Neighbouring traces share their end sample, so the eye closes at its edges.
    """
    length = span_in_symbols * SAMPLES_PER_SYMBOL
    return iq.unfold(-1, length + 1, length)


def level_table(frames: pd.DataFrame) -> pd.DataFrame:
    """Power and measured SNR of each SNR label, from frames' columns level, power, snr_ratio, digital.

    Returns:
        Columns level: the label; power, power_low, power_high: median and 5 to 95 % range; measured_db,
        measured_db_low, measured_db_high: SNR of the level's mean ratio over digital frames, and the
        5 to 95 % range of single frames; -30 where chance makes the ratio smaller or negative;
        error_db: standard error of measured_db, infinite where fewer than two frames tell.
    """
    rows = []
    for level, group in frames.groupby("level"):
        low, median, high = group["power"].quantile([0.05, 0.5, 0.95])
        ratio = group.loc[group["digital"], "snr_ratio"]
        ratios = np.array([ratio.mean(), ratio.quantile(0.05), ratio.quantile(0.95)])
        in_db = 10 * np.log10(ratios.clip(1e-3))
        relative = ratio.sem() / max(ratios[0], 1e-3)
        error_db = 10 / math.log(10) * relative if math.isfinite(relative) else math.inf
        rows.append((level, median, low, high, *in_db, error_db))
    names = [f"{name}{end}" for name in ("power", "measured_db") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["level", *names, "error_db"])


@dataclass(frozen=True)
class SnrLine:
    """How the SNR per sample of a file's frames follows from their labels.

    Attributes:
        convention: a name of SNR_CONVENTIONS, "undecided" where none fits, "cannot tell" where too
            little was measured.
        slope: decibels of SNR per sample for a decibel of the label: the convention's, or the measured
            one where none fits.
        offset_db: SNR per sample at label 0, the median over labels.
        measured_slope: median of the slopes between all pairs of labels.
        labels: those whose measured SNR was sure enough to tell.
    """

    convention: str
    slope: float
    offset_db: float
    measured_slope: float
    labels: tuple[int, ...]

    @property
    def is_known(self) -> bool:
        """Whether there is a line at all."""
        return self.convention != "cannot tell"

    def snr_db(self, snr_label: Any) -> Any:
        """SNR per sample in dB of an SNR label, a number or an array: of label 6, say, 12 dB."""
        return self.slope * snr_label + self.offset_db


# Slope of the SNR per sample against the label, and the lowest and highest SNR at label 0, by each
# convention. Labels are two dB apart, so half of that decides. In RadioML 2018.01A noise has the
# standard deviation 10^(-label / 10), and classes have up to 2 dB of SNR beyond that.
# Source: docs/radioml_2018_as_measured.md.
SNR_CONVENTIONS = {
    "SNR per sample": (1.0, -1.0, 1.0),
    "Es/N0": (1.0, -10 * math.log10(SAMPLES_PER_SYMBOL) - 1, -10 * math.log10(SAMPLES_PER_SYMBOL) + 1),
    "noise standard deviation": (2.0, -1.0, 2.5),
}
# How far a measured slope may be off beside its error, and how sure a label's SNR must be, in dB.
_SLOPE_ROOM, _SURE_DB = 0.1, 0.5


def snr_line(levels: pd.DataFrame) -> SnrLine:
    """Convention that SNR labels follow, from columns level, measured_db, error_db of level_table."""
    seen = levels[levels["error_db"] < _SURE_DB].dropna(subset="measured_db").sort_values("level")
    label, measured = (seen[name].to_numpy(float) for name in ("level", "measured_db"))
    labels = tuple(seen["level"].tolist())
    if seen.empty:
        return SnrLine("cannot tell", math.nan, math.nan, math.nan, labels)
    slope, room = math.nan, math.inf
    if len(seen) > 1:
        one, other = np.triu_indices(len(seen), 1)
        slope = float(np.median((measured[other] - measured[one]) / (label[other] - label[one])))
        room = _SLOPE_ROOM + 3 * 2**0.5 * float(seen["error_db"].median()) / (label[-1] - label[0])
    fits = {}
    for name, (nominal, low, high) in SNR_CONVENTIONS.items():
        offset_db = float(np.median(measured - nominal * label))
        if low < offset_db < high and not abs(slope - nominal) > room:
            fits[name] = nominal, offset_db
    if len(fits) == 1:
        return SnrLine(*fits.keys(), *next(iter(fits.values())), slope, labels)
    if fits or math.isnan(slope):
        return SnrLine("cannot tell" if fits else "undecided", slope, math.nan, slope, labels)
    return SnrLine("undecided", slope, float(np.median(measured - slope * label)), slope, labels)

"""Numbers that a frame tells about itself without any label: power, noise floor, lines, envelope."""

from __future__ import annotations

import hashlib
from itertools import pairwise

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
# Share of a frame's power beyond which its noise tells nothing of the signal.
_LARGEST_NOISE = 0.9


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


def envelope_kurtosis(iq: Tensor, noise: Tensor) -> Tensor:
    """Mean |s|^4 over the square of mean |s|^2 of what frames hold beside noise, float32 [B].

    1 for a constant envelope, 2 for Gaussian samples; linear modulations have 1.03 and more.

    Args:
        iq: complex64 [B, num_samples].
        noise: float32 [B], its variance per sample, Gaussian and circular.
    """
    squared = iq.real.square() + iq.imag.square()
    power = squared.mean(-1)
    noise = (noise / power).clamp(max=_LARGEST_NOISE)
    fourth = squared.square().mean(-1) / power.square()
    return (fourth - 4 * noise + 2 * noise.square()) / (1 - noise).square()


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

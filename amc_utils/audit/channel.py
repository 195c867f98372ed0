"""What a sample of a file's frames tells about their channel: pulse, timing, carrier, ASK and scale."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import scipy.optimize
import torch
from torch import Tensor

from amc_utils.dsp.carrier import estimate_cfo
from amc_utils.dsp.features import OUT_OF_BAND, power_spectrum
from amc_utils.dsp.synchronisation import synchronise
from amc_utils.signals import (
    FAMILY_OF_MODULATION,
    SAMPLES_PER_SYMBOL,
    ReceiverSettings,
    raised_cosine,
    unit_phasor,
)

_AT_ONCE = 256
# A pulse is fitted beyond this frequency, in symbol rates, for carriers lie below, and beyond as many
# bins; down to this density under the largest, and this far above the noise.
_BESIDE_CARRIER, _BINS_BESIDE_CARRIER, _DEPTH_DB, _OVER_NOISE = 0.04, 2.5, 25.0, 10.0
# Power of a frame that was scaled by itself lies this close to 1.
_UNIT_ROOM = 0.01
# Share of the power in the strongest line from which on it is a carrier: OOK has 0.4 and more, others
# up to 0.25 by chance.
_LEAST_CARRIER = 0.3


def mean_density(iq: Tensor, label: np.ndarray) -> tuple[Tensor, float]:
    """Power density of a typical class, float32 [num_samples], at frequencies of power_spectrum.

    With it the density of the noise, which was taken off. Median over classes of their mean spectra: a
    class or two that labels name wrongly leave it alone. All is scaled to unit mean of what is left.

    Args:
        iq: complex64 [N, num_samples].
        label: [N], anything that tells classes apart.
    """
    classes, floors = [], []
    for one in np.unique(label):
        rows = torch.from_numpy(np.flatnonzero(label == one))
        total = torch.zeros(iq.shape[1])
        for part in rows.split(_AT_ONCE):
            frequency, power = power_spectrum(iq[part])
            total += power.sum(0)
        floor = total[frequency.abs() > OUT_OF_BAND].mean()
        signal = (total - floor).mean().clamp_min(1e-12)
        classes.append((total - floor) / signal)
        floors.append(float(floor / signal))
    return torch.stack(classes).median(0).values, float(np.median(floors))


def fit_pulse(density: Tensor, noise: float = 0.0) -> dict[str, float] | None:
    """Exponent and roll-off of the raised-cosine spectra that a density shows, and the misfit in dB.

    Roll-offs may be uniform over a range: narrow and wide spectra add to none of a single roll-off. The
    Hann window smears the spectrum of a frame of few samples; the same is done to the model.

    Args:
        density: float32 [num_samples], see mean_density.
        noise: density of what noise was taken off, in the same units.

    Returns:
        exponent; rolloff: the mean; rolloff_width: half the range; misfit_db: root mean square over the
        frequencies that were fitted. None where too few lie above the noise.
    """
    num_samples = len(density)
    shifted = torch.fft.ifftshift(density.double()).numpy()
    folded = (shifted + np.roll(shifted[::-1], 1))[: num_samples // 2] / 2
    frequency = np.arange(num_samples // 2) * SAMPLES_PER_SYMBOL / num_samples
    first = max(_BESIDE_CARRIER, _BINS_BESIDE_CARRIER * SAMPLES_PER_SYMBOL / num_samples)
    floor = max(folded.max() * 10 ** (-_DEPTH_DB / 10), _OVER_NOISE * noise)
    seen = (frequency >= first) & (frequency <= 1) & (folded > floor)
    # From the carrier on without a gap: beyond the first that is too weak, chance decides.
    seen &= np.cumsum((frequency >= first) & ~seen) == 0
    if seen.sum() < 5:
        return None
    measured_db = 10 * np.log10(folded[seen])

    def misfit(parameters: np.ndarray) -> np.ndarray:
        model = _smeared(*parameters, num_samples)[seen]
        error = measured_db - 10 * np.log10(np.maximum(model, 1e-12))
        return error - error.mean()

    starts = ((0.5, 0.25, 0.8), (1.5, 0.4, 0.1))
    limits = ((0.1, 0.02, 0.0), (4.0, 0.9, 1.0))
    fits = [
        scipy.optimize.least_squares(misfit, start, bounds=limits, diff_step=1e-3) for start in starts
    ]
    best = min(fits, key=lambda fit: fit.cost)
    exponent, rolloff, share = best.x.tolist()
    return {
        "exponent": exponent,
        "rolloff": rolloff,
        "rolloff_width": share * rolloff,
        "misfit_db": float(np.sqrt(np.mean(best.fun**2))),
    }


def _smeared(exponent: float, rolloff: float, share: float, num_samples: int) -> np.ndarray:
    """Expected Hann periodogram of white symbols of a pulse, float64 [num_samples // 2].

    The roll-off is uniform in `rolloff` times 1 - share to 1 + share.
    """
    waves, frequency, window = _lag_waves(num_samples)
    places = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    response = raised_cosine(frequency, rolloff * (1 + share * places)).numpy().clip(0)
    power = (response ** (2 * exponent)).mean(0)
    correlation = (waves @ power) * window
    correlation[1:] += correlation[1:][::-1].copy()
    return np.fft.fft(correlation).real[: num_samples // 2]


@cache
def _lag_waves(num_samples: int) -> tuple[np.ndarray, Tensor, np.ndarray]:
    """Cosines [lags, frequencies], these frequencies in symbol rates, the window's autocorrelation."""
    frequency = torch.linspace(0, 1, 257, dtype=torch.float64)
    lags = np.arange(num_samples)[:, None] / SAMPLES_PER_SYMBOL
    waves = np.cos(2 * np.pi * lags * frequency.numpy())
    window = torch.hann_window(num_samples, dtype=torch.float64).numpy()
    spectrum = np.abs(np.fft.fft(window, 2 * num_samples)) ** 2
    return waves, frequency, np.fft.ifft(spectrum).real[:num_samples]


def samples_per_symbol(iq: Tensor) -> float:
    """From the line that the power of linear modulations has at the symbol rate.

    Args:
        iq: complex64 [N, num_samples], frames of linear modulations at high SNR.
    """
    spectrum = torch.fft.rfft(iq.abs().square()).abs().square().mean(0)
    # The slow part of the power is no line, and the background falls off: each bin against its
    # neighbourhood.
    first = spectrum.shape[0] // 32
    around = torch.nn.functional.avg_pool1d(spectrum[None], 33, 1, 16, count_include_pad=False)[0]
    peak = first + int((spectrum / around)[first:].argmax())
    near = torch.arange(max(peak - 1, first), min(peak + 2, len(spectrum)))
    centre = (near * spectrum[near]).sum() / spectrum[near].sum()
    return float(iq.shape[1] / centre)


def channel_spread(iq: Tensor, receiver: ReceiverSettings) -> dict[str, Any]:
    """How timing, carrier offset and, where it is estimated, roll-off spread over frames at high SNR.

    Args:
        iq: complex64 [N, num_samples], of linear modulations.
        receiver: says which roll-offs and carrier offsets are looked for.
    """
    parts = [synchronise(part, receiver) for part in iq.split(_AT_ONCE)]
    timing = torch.cat([part.timing for part in parts])
    cfo = torch.cat([estimate_cfo(part) for part in parts])
    turns = unit_phasor(timing * (2 * torch.pi / SAMPLES_PER_SYMBOL)).mean().abs()
    fraction = unit_phasor(timing * (2 * torch.pi)).mean()
    spread = {
        "timing_samples": _quantiles(timing),
        # 0 for timing all around the symbol, 1 for the same in every frame.
        "timing_concentration": float(turns),
        # The same of what is left over whole samples, and what that is.
        "fraction_concentration": float(fraction.abs()),
        "timing_fraction": float(fraction.angle() / (2 * torch.pi) % 1),
        "cfo": _quantiles(cfo),
        "cfo_std": float(cfo.std()),
        "largest_cfo": receiver.max_cfo,
    }
    if len(receiver.rolloffs) > 1:
        spread["rolloff"] = _quantiles(torch.cat([part.rolloff for part in parts]))
        spread["rolloffs"] = [receiver.rolloffs[0], receiver.rolloffs[-1]]
    return spread


def scale_measures(frames: pd.DataFrame, chosen: np.ndarray) -> dict[str, Any]:
    """What the scale of frames is: each of unit power, or that of a long record.

    A record is divided by its standard deviation with the mean kept, so that a frame has unit power but
    for chance without its carrier, and more with it.

    Args:
        frames: columns name, power, carrier_share.
        chosen: bool [N], those whose classes are compared, of high SNR if there are any.

    Returns:
        unit_share: of all frames whose own power is 1; and medians of each class: carrier: share of the
        power in the carrier; power; varying: power without the carrier.
    """
    some = frames[chosen]
    classes = some.assign(varying=_varying(some)).groupby("name")[["power", "varying", "carrier_share"]]
    medians = classes.median().rename(columns={"carrier_share": "carrier"}).astype(float).round(4)
    return {
        "unit_share": float((frames["power"] - 1).abs().lt(_UNIT_ROOM).mean()),
        **medians.to_dict(),
    }


def with_varying(levels: pd.DataFrame, frames: pd.DataFrame) -> pd.DataFrame:
    """Levels with the column varying: the median power of their frames without carriers."""
    medians = _varying(frames).groupby(frames["level"]).median()
    return levels.assign(varying=medians.reindex(levels["level"]).to_numpy())


def _varying(frames: pd.DataFrame) -> pd.Series:
    """Power without the carrier; a share that chance may give to a signal without one is none."""
    share = frames["carrier_share"].where(frames["carrier_share"] > _LEAST_CARRIER, 0)
    return frames["power"] * (1 - share)


def shows_pulse(name: str) -> bool:
    """Whether a class is a linear modulation whose symbols have no mean in either preset."""
    return FAMILY_OF_MODULATION[name] in ("PSK", "APSK", "QAM", "OQPSK")


def _quantiles(values: Tensor) -> list[float]:
    """The 5, 50 and 95 % quantiles."""
    return torch.quantile(values, torch.tensor([0.05, 0.5, 0.95])).tolist()

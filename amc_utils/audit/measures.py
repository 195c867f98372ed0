"""What a sample of a file's frames measures: faults, scale and channel, whatever labels say."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import scipy.optimize
import torch
from torch import Tensor

from amc_utils.dsp.carrier import estimate_cfo
from amc_utils.dsp.features import (
    carrier_share,
    circular_mean,
    duplicate_pairs,
    mean_power,
    noise_density,
    one_sided,
    power_spectrum,
    snr_ratio,
)
from amc_utils.dsp.receiver_settings import ReceiverSettings
from amc_utils.dsp.synchronisation import synchronise
from amc_utils.signals import (
    DIGITAL_MODULATIONS,
    FAMILY_OF_MODULATION,
    RADIOML_2018_MODULATIONS,
    SAMPLES_PER_SYMBOL,
    raised_cosine,
)

FRAME_FAULTS = ("not finite", "without power", "silent in part", "of extreme power")
# Powers of a frame that are taken for sound.
_POWER_RANGE = (1e-2, 1e2)
# Share of samples that are exactly zero from which on a frame is silent in part: OOK whose low symbols
# are rounded away has less.
_SILENT_SHARE = 0.4
# Frames that say whether most have the same extremes, and how closely, in units of their range.
_LEAST_FRAMES, _SAME_EXTREME = 10, 1e-3
_AT_ONCE = 256
# A pulse is fitted beyond this frequency, in symbol rates, for carriers lie below, and beyond as many
# bins; down to this density under the largest, and this far above the noise.
_BESIDE_CARRIER, _BINS_BESIDE_CARRIER, _DEPTH_DB, _OVER_NOISE = 0.04, 2.5, 25.0, 10.0
# Power of a frame that was scaled by itself lies this close to 1.
_UNIT_ROOM = 0.01
# Share of the power in the strongest line from which on it is a carrier: OOK has 0.4 and more, others
# up to 0.25 by chance.
_LEAST_CARRIER = 0.3


def sound_frames(samples: Tensor) -> tuple[Tensor, dict[str, list[int]]]:
    """Index of the frames that can be measured, int64, and of those that cannot, by what is wrong."""
    norm = torch.linalg.vector_norm(samples.flatten(1), dim=1)
    power, usable = norm.square() / samples.shape[1], norm.isfinite() & (norm > 0)
    silent = usable & ((samples == 0).all(2).float().mean(1) >= _SILENT_SHARE)
    extreme = usable & ((power < _POWER_RANGE[0]) | (power > _POWER_RANGE[1]))
    bad = dict(zip(FRAME_FAULTS, (~norm.isfinite(), norm == 0, silent, extreme), strict=True))
    found = {what: torch.nonzero(flag)[:, 0].tolist() for what, flag in bad.items()}
    return torch.nonzero(usable & ~silent)[:, 0], found


def common_extremes(samples: Tensor) -> dict[str, float] | None:
    """The smallest and the largest value that most frames share, and how many do; None where few do.

    They do where each frame was scaled by its own minimum and maximum.

    Args:
        samples: float32 [N, num_samples, 2].
    """
    if len(samples) < _LEAST_FRAMES:
        return None
    low, high = samples.flatten(1).aminmax(dim=1)
    room = _SAME_EXTREME * (high.median() - low.median())
    same = ((low - low.median()).abs() <= room) & ((high - high.median()).abs() <= room)
    share = float(same.float().mean())
    if share <= 0.5:
        return None
    return {"share": share, "lowest": float(low.median()), "highest": float(high.median())}


def duplicates(samples: Tensor, cell: np.ndarray) -> dict[str, list[list[int]]]:
    """Pairs of equal frames, within cells and across them, as numbers of frames."""
    pairs = duplicate_pairs(samples.numpy(), samples[:, :8].numpy())
    across = cell[pairs[:, 0]] != cell[pairs[:, 1]]
    return {"within cells": pairs[~across].tolist(), "across cells": pairs[across].tolist()}


def frame_measures(iq: Tensor, modulation: np.ndarray, snr_label: np.ndarray) -> pd.DataFrame:
    """What is measured of each frame, with its labels.

    Returns:
        Columns name; level: the SNR label; digital, where there is no such class OOK and GMSK stand for
        them; power; snr_ratio; carrier_share; varying: power without the carrier.
    """
    name = np.array(RADIOML_2018_MODULATIONS)[modulation]
    digital = np.isin(name, DIGITAL_MODULATIONS)
    if not digital.any():
        digital = np.isin(name, ("OOK", "GMSK"))
    table = {"name": name, "level": snr_label, "digital": digital}
    columns = {"power": mean_power, "snr_ratio": snr_ratio, "carrier_share": carrier_share}
    for column, measure in columns.items():
        table[column] = torch.cat([measure(part) for part in iq.split(_AT_ONCE)]).numpy()
    # A share that chance may give to a signal without a carrier is none.
    share = np.where(table["carrier_share"] > _LEAST_CARRIER, table["carrier_share"], 0)
    return pd.DataFrame(table | {"varying": table["power"] * (1 - share)})


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
        floor = noise_density(frequency, total)
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
    folded = one_sided(density.double()).numpy()[:-1]
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
    # What is left over whole samples.
    fraction, fraction_concentration = circular_mean(timing, 1.0)
    spread = {
        "timing_samples": _quantiles(timing),
        "timing_concentration": circular_mean(timing, SAMPLES_PER_SYMBOL)[1],
        "fraction_concentration": fraction_concentration,
        "timing_fraction": fraction,
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
        frames: see frame_measures.
        chosen: bool [N], those whose classes are compared, of high SNR if there are any.

    Returns:
        unit_share: of all frames whose own power is 1; and medians of each class: carrier: share of the
        power in the carrier; power; varying: power without the carrier.
    """
    medians = frames[chosen].groupby("name")[["power", "varying", "carrier_share"]].median()
    medians = medians.rename(columns={"carrier_share": "carrier"}).astype(float).round(4)
    unit_share = float((frames["power"] - 1).abs().lt(_UNIT_ROOM).mean())
    return {"unit_share": unit_share, **medians.to_dict()}


def shows_pulse(name: str) -> bool:
    """Whether a class is a linear modulation whose symbols have no mean in either preset."""
    return FAMILY_OF_MODULATION[name] in ("PSK", "APSK", "QAM", "OQPSK")


def _quantiles(values: Tensor) -> list[float]:
    """The 5, 50 and 95 % quantiles."""
    return torch.quantile(values, torch.tensor([0.05, 0.5, 0.95])).tolist()

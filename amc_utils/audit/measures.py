"""What a sample of a file's frames tells about the file, whatever its labels and documents say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from amc_utils.audit.recognition import (
    Known,
    carrier_share,
    foreign,
    likeliest_linear,
    name_frames,
    sidedness,
)
from amc_utils.dsp.features import duplicate_pairs, mean_power, signature, snr_ratio
from amc_utils.modulation.constellations import LINEAR_MODULATIONS
from amc_utils.radioml.reader import LABEL_ORDERS
from amc_utils.signals import (
    DIGITAL_MODULATIONS,
    NUM_SAMPLES,
    RADIOML_2018_MODULATIONS,
    magnitude_excess_db,
)

# From here on a frame shows its class, and synchronisation finds what there is to find.
HIGH_SNR_DB = 19.5
# From here on the likelihood receiver tells kinds of linear modulations apart, if not all orders.
MIDDLE_SNR_DB = 9.5
# Frames of a class that are named; the receiver takes some milliseconds each.
_FRAMES_PER_CLASS = 64
# How often a class that is right is taken for another, as on frames of makers other than ours.
_ERROR_RATE = 0.05
_MIDDLE_FRAMES_PER_CLASS = 12
# Powers that 16-bit numbers keep.
_POWER_RANGE = (1e-2, 1e2)
# Share of samples that are exactly zero from which on a frame is silent in part: OOK whose low symbols
# are rounded away has less.
_SILENT_SHARE = 0.4
# Frames that say whether most have the same extremes, and how closely, in units of their range.
_LEAST_FRAMES, _SAME_EXTREME = 10, 1e-3
_AT_ONCE = 256


def sound_frames(samples: Tensor) -> tuple[Tensor, dict[str, list[int]]]:
    """Index of the frames that can be measured, int64, and of those that cannot, by what is wrong."""
    norm = torch.linalg.vector_norm(samples.flatten(1), dim=1)
    power, usable = norm.square() / NUM_SAMPLES, norm.isfinite() & (norm > 0)
    silent = usable & ((samples == 0).all(2).float().mean(1) >= _SILENT_SHARE)
    extreme = usable & ((power < _POWER_RANGE[0]) | (power > _POWER_RANGE[1]))
    bad = {
        "not finite": ~norm.isfinite(),
        "without power": norm == 0,
        "silent in part": silent,
        "of extreme power": extreme,
    }
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
    """Columns name, level: the SNR label, digital, power, snr_ratio and carrier_share of each frame.

    Where there is no digital class, OOK and GMSK stand for them.
    """
    parts = iq.split(_AT_ONCE)
    name = np.array(RADIOML_2018_MODULATIONS)[modulation]
    digital = np.isin(name, DIGITAL_MODULATIONS)
    if not digital.any():
        digital = np.isin(name, ("OOK", "GMSK"))
    table = {"name": name, "level": snr_label, "digital": digital}
    for column, measure in (
        ("power", mean_power), ("snr_ratio", snr_ratio), ("carrier_share", carrier_share)
    ):  # fmt: skip
        table[column] = torch.cat([measure(part) for part in parts]).numpy()
    return pd.DataFrame(table)


def mean_excess_db(frames: pd.DataFrame, known: Known) -> float:
    """SNR of a level beyond that of the frames, in dB, from what its classes have, see Known."""
    names = sorted(set(frames.loc[frames["digital"], "name"]))
    if not names:
        return 0.0
    excess = np.array(magnitude_excess_db(names, known.channel))
    return float(10 * np.log10(np.mean(10 ** (excess / 10))))


def by_single_snr(frames: pd.DataFrame, known: Known) -> tuple[Known, np.ndarray]:
    """What is known, and the SNR in dB of each frame, where every frame has one of its own.

    What its class has beyond others is part of it. To half a decibel, as names need it, since frames of
    the same SNR are named together.
    """
    single_db = 10 * np.log10(frames["snr_ratio"].clip(lower=1e-3).to_numpy())
    channel = replace(known.channel, unit_mean_magnitude=False)
    return replace(known, channel=channel), np.round(2 * single_db) / 2


def foreign_in_the_middle(
    iq: Tensor, modulation: np.ndarray, snr_db: np.ndarray, known: Known | None = None
) -> dict[str, Any]:
    """How many frames of linear classes look like another kind of signal.

    Arguments are those of class_evidence.

    Returns:
        frames: how many were looked at; share: of those, see recognition.foreign.
    """
    linear = [RADIOML_2018_MODULATIONS.index(name) for name in LINEAR_MODULATIONS]
    chosen = [_spread(np.flatnonzero(modulation == n), _MIDDLE_FRAMES_PER_CLASS) for n in linear]
    index = np.concatenate(chosen)
    named = likeliest_linear(iq[torch.from_numpy(index)], snr_db[index], known)
    other = foreign(named, modulation[index])
    return {"frames": len(index), "share": float(other.mean()) if len(index) else 0.0}


def class_evidence(
    iq: Tensor, modulation: np.ndarray, snr_db: np.ndarray, known: Known | None = None
) -> tuple[pd.DataFrame, float | None]:
    """What the frames of each class look like at high SNR.

    Args:
        iq: complex64 [N, num_samples], frames of high SNR.
        modulation: int64 [N], class that the labels say, index into RADIOML_2018_MODULATIONS.
        snr_db: float [N], measured, see recognition.name_frames.
        known: what is known about their channel, see there.

    Returns:
        A row a class: name; squared_line, envelope_std and what they show, see features.signature,
        medians; looks_like: the class that
        recognition.name_frames names most, and the share of frames it names so; own_share: of those
        named as the label says; foreign_share: of those of another kind, see recognition.foreign. And
        the median sidedness of frames that look like a single sideband; None without any.
    """
    # All over the levels and rows of a class, however they are ordered.
    numbers = np.unique(modulation)
    chosen = [_spread(np.flatnonzero(modulation == n), _FRAMES_PER_CLASS) for n in numbers]
    index = np.concatenate(chosen)
    iq, labels = iq[torch.from_numpy(index)], modulation[index]
    named = name_frames(iq, snr_db[index], known)
    frames = pd.DataFrame({
        "label": labels, "named": named, "own": named == labels, "other": foreign(named, labels),
        "row": np.arange(len(iq)),
    })  # fmt: skip
    rows = []
    for label, some in frames.groupby("label"):
        votes = some["named"].value_counts()
        looks_like, share = RADIOML_2018_MODULATIONS[votes.index[0]], votes.iloc[0] / len(some)
        name, shares = RADIOML_2018_MODULATIONS[label], some[["own", "other"]].mean()
        seen = signature(iq[torch.from_numpy(some["row"].to_numpy(copy=True))])
        rows.append((name, *seen, looks_like, share, *shares, len(some)))
    columns = ["name", "signature", "squared_line", "envelope_std", "looks_like", "share", "own_share"]
    single = [RADIOML_2018_MODULATIONS.index(name) for name in ("AM-SSB-WC", "AM-SSB-SC")]
    sides = sidedness(iq)[torch.from_numpy(np.isin(named, single))]
    table = pd.DataFrame(rows, columns=[*columns, "foreign_share", "frames"])
    return table, float(sides.median()) if len(sides) else None


def _spread(index: np.ndarray, at_most: int) -> np.ndarray:
    places = np.linspace(0, len(index) - 1, min(len(index), at_most))
    return index[places.round().astype(int)]


def label_order_confidence(evidence: pd.DataFrame, names: tuple[str, ...]) -> dict[str, float]:
    """Probability of each list of names, and of neither, given what the classes look like.

    All are as likely beforehand. A class looks like its name but for an error rate; where the labels
    follow neither list, it does so by chance alone.

    Args:
        evidence: see class_evidence.
        names: the list by which it was read.
    """
    column = [names.index(name) for name in evidence["name"]]
    num_classes = len(RADIOML_2018_MODULATIONS)
    hits = {
        order: int((np.array(listed)[column] == evidence["looks_like"]).sum())
        for order, listed in LABEL_ORDERS.items()
    }
    log_likelihood = {
        order: hit * np.log(1 - _ERROR_RATE) + (len(evidence) - hit) * np.log(_ERROR_RATE)
        for order, hit in hits.items()
    }
    most = max(hits.values())
    log_likelihood["neither"] = most * np.log(1 / num_classes) + (len(evidence) - most) * np.log(
        1 - 1 / num_classes
    )
    values = np.exp(np.array(list(log_likelihood.values())) - max(log_likelihood.values()))
    return dict(zip(log_likelihood, (values / values.sum()).tolist(), strict=True))

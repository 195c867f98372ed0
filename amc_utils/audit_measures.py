"""What a sample of a file's frames tells about the file, whatever its labels and documents say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from amc_utils.carrier import estimate_cfo
from amc_utils.features import (
    duplicate_pairs,
    level_table,
    mean_power,
    signature,
    snr_ratio,
)
from amc_utils.labels import DIGITAL_MODULATIONS, RADIOML_2018_MODULATIONS
from amc_utils.radioml import LABEL_ORDERS
from amc_utils.recognition import foreign, likeliest_linear, name_frames, sidedness
from amc_utils.signals import NUM_SAMPLES, SAMPLES_PER_SYMBOL, unit_phasor
from amc_utils.symbol_maps import LINEAR_MODULATIONS
from amc_utils.synchronisation import synchronise

# From here on a frame shows its class, and synchronisation finds what there is to find.
HIGH_SNR_DB = 19.5
# From here on the likelihood receiver tells kinds of linear modulations apart, if not all orders.
MIDDLE_SNR_DB = 9.5
# Frames of a class that are named; the receiver takes some milliseconds each.
_FRAMES_PER_CLASS = 64
# How often a class that is right is taken for another, as on frames of makers other than ours.
_ERROR_RATE = 0.05
_MIDDLE_FRAMES_PER_CLASS = 12
# Of the SNR that a single frame's spectrum gives, at high SNR, and what symbols of one frame add.
_FLOOR_DB, _SYMBOLS_DB = 0.27, 0.4
_LOWEST_CELL_DB = -10
# Single frames of a level spread by less than that where all have its SNR.
WIDE_SPREAD_DB = 0.7
# Powers that 16-bit numbers keep.
_POWER_RANGE = (1e-2, 1e2)
_AT_ONCE = 256


def sound_frames(samples: Tensor) -> tuple[Tensor, dict[str, list[int]]]:
    """Index of the frames that can be measured, int64, and of those that cannot, by what is wrong."""
    norm = torch.linalg.vector_norm(samples.flatten(1), dim=1)
    power, usable = norm.square() / NUM_SAMPLES, norm.isfinite() & (norm > 0)
    extreme = usable & ((power < _POWER_RANGE[0]) | (power > _POWER_RANGE[1]))
    bad = {"not finite": ~norm.isfinite(), "without power": norm == 0, "of extreme power": extreme}
    found = {what: torch.nonzero(flag)[:, 0].tolist() for what, flag in bad.items()}
    return torch.nonzero(usable)[:, 0], found


def duplicates(samples: Tensor, cell: np.ndarray) -> dict[str, list[list[int]]]:
    """Pairs of equal frames, within cells and across them, as numbers of frames."""
    pairs = duplicate_pairs(samples.numpy(), samples[:, :8].numpy())
    across = cell[pairs[:, 0]] != cell[pairs[:, 1]]
    return {"within cells": pairs[~across].tolist(), "across cells": pairs[across].tolist()}


def frame_measures(iq: Tensor, modulation: np.ndarray, snr_db: np.ndarray) -> pd.DataFrame:
    """Columns name, level (dB), digital, power and snr_ratio of each frame."""
    parts = iq.split(_AT_ONCE)
    name = np.array(RADIOML_2018_MODULATIONS)[modulation]
    table = {"name": name, "level": snr_db, "digital": np.isin(name, DIGITAL_MODULATIONS)}
    for column, measure in (("power", mean_power), ("snr_ratio", snr_ratio)):
        table[column] = torch.cat([measure(part) for part in parts]).numpy()
    return pd.DataFrame(table)


def level_measures(frames: pd.DataFrame) -> pd.DataFrame:
    """Power and measured SNR of each level, see features.level_table, and its error_db.

    The error is the standard error of the measured SNR, in dB.
    """
    levels = level_table(frames)
    ratio = frames[frames["digital"]].groupby("level")["snr_ratio"]
    relative = (ratio.sem() / ratio.mean().clip(lower=1e-3)).reindex(levels["level"])
    # A single frame gives a mean of unknown error.
    levels["error_db"] = 10 / np.log(10) * relative.fillna(np.inf).to_numpy()
    return levels


def snr_spread(frames: pd.DataFrame) -> float | None:
    """Standard deviation in dB of single frames' SNR within a level, of linear classes at 8 to 20 dB.

    Where every frame has its level's SNR it is 0.3 to 0.5. None for too few frames.
    """
    wanted = frames[frames["name"].isin(LINEAR_MODULATIONS) & frames["level"].between(8, 20)]
    single = (10 * np.log10(wanted["snr_ratio"].clip(lower=1e-3))).groupby(wanted["level"])
    deviations = single.std()[single.count() >= 10]
    return float(deviations.median()) if len(deviations) else None


def cell_measures(frames: pd.DataFrame, levels: pd.DataFrame) -> pd.DataFrame:
    """Measured SNR of each (modulation, level) cell of linear classes and GMSK.

    Args:
        frames: see frame_measures.
        levels: see level_measures; what noise there is decides how sure a cell is.

    Returns:
        Columns name, level, measured_db, deviation_db: measured less label, and error_db: standard
        error of the mean over the cell's frames.
    """
    known = frames["name"].isin((*LINEAR_MODULATIONS, "GMSK"))
    groups = frames[known & (frames["level"] >= _LOWEST_CELL_DB)].groupby(["name", "level"])
    cells = groups["snr_ratio"].agg(ratio="mean", frames="count").reset_index()
    cells["measured_db"] = 10 * np.log10(cells.pop("ratio").clip(lower=1e-3))
    level_db = levels.set_index("level")["measured_db"][cells["level"]].to_numpy()
    ratio = 10 ** (np.where(np.isnan(level_db), cells["level"], level_db) / 10)
    single = np.hypot(_SYMBOLS_DB, _FLOOR_DB * (1 + ratio) / ratio)
    cells["error_db"] = single / np.sqrt(cells.pop("frames"))
    return cells.assign(deviation_db=cells["measured_db"] - cells["level"])


def foreign_in_the_middle(iq: Tensor, modulation: np.ndarray, snr_db: np.ndarray) -> dict[str, Any]:
    """How many frames of linear classes look like another kind of signal.

    Arguments are those of class_evidence.

    Returns:
        frames: how many were looked at; share: of those, see recognition.foreign.
    """
    linear = [RADIOML_2018_MODULATIONS.index(name) for name in LINEAR_MODULATIONS]
    chosen = [_spread(np.flatnonzero(modulation == n), _MIDDLE_FRAMES_PER_CLASS) for n in linear]
    index = np.concatenate(chosen)
    named = likeliest_linear(iq[torch.from_numpy(index)], snr_db[index])
    other = foreign(named, modulation[index])
    return {"frames": len(index), "share": float(other.mean()) if len(index) else 0.0}


def class_evidence(
    iq: Tensor, modulation: np.ndarray, snr_db: np.ndarray
) -> tuple[pd.DataFrame, float | None]:
    """What the frames of each class look like at high SNR.

    Args:
        iq: complex64 [N, num_samples], frames of high SNR.
        modulation: int64 [N], class that the labels say, index into RADIOML_2018_MODULATIONS.
        snr_db: float [N], measured, see recognition.name_frames.

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
    named = name_frames(iq, snr_db[index])
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


def channel_spread(iq: Tensor) -> dict[str, Any]:
    """How roll-off, timing and carrier offset spread over frames of linear modulations at high SNR.

    Timing and roll-off are found between 0.1 and 0.4, offsets up to 3.75e-4 cycles per sample.
    """
    parts = [synchronise(part) for part in iq.split(_AT_ONCE)]
    rolloff = torch.cat([part.rolloff for part in parts])
    timing = torch.cat([part.timing for part in parts])
    cfo = torch.cat([estimate_cfo(part) for part in parts])
    turn = unit_phasor(timing * (2 * torch.pi / SAMPLES_PER_SYMBOL)).mean().abs()
    return {
        "rolloff": _quantiles(rolloff),
        "timing_samples": _quantiles(timing),
        # 0 for timing all around the symbol, 1 for the same in every frame.
        "timing_concentration": float(turn),
        "cfo": _quantiles(cfo),
        "cfo_std": float(cfo.std()),
    }


def _quantiles(values: Tensor) -> list[float]:
    """The 5, 50 and 95 % quantiles."""
    return torch.quantile(values, torch.tensor([0.05, 0.5, 0.95])).tolist()

"""What a sample of a file's frames tells about the file, whatever its labels and documents say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from amc_utils.carrier import estimate_cfo
from amc_utils.channel import Channel
from amc_utils.features import duplicate_pairs, level_table, mean_power, signature, snr_ratio
from amc_utils.labels import DIGITAL_MODULATIONS, RADIOML_2018_MODULATIONS, SIGNATURE_OF_MODULATION
from amc_utils.radioml import LABEL_ORDERS
from amc_utils.receiver import receiver_log_likelihoods
from amc_utils.signals import SAMPLES_PER_SYMBOL, unit_phasor
from amc_utils.symbol_maps import LINEAR_MODULATIONS
from amc_utils.synchronisation import synchronise

# From here on a frame shows its class, and synchronisation finds what there is to find.
HIGH_SNR_DB = 16
# Frames of a class that the receiver decides on; it takes some milliseconds each.
_FRAMES_PER_CLASS = 24
# How often a class that is right is taken for another, as on frames of makers other than ours.
_ERROR_RATE = 0.05
_AT_ONCE = 256


def sound_frames(samples: Tensor) -> tuple[Tensor, dict[str, list[int]]]:
    """Index of the frames that can be measured, int64, and of those that cannot, by what is wrong."""
    norm = torch.linalg.vector_norm(samples.flatten(1), dim=1)
    bad = {"not finite": ~norm.isfinite(), "without power": norm == 0}
    found = {what: torch.nonzero(flag)[:, 0].tolist() for what, flag in bad.items()}
    return torch.nonzero(norm.isfinite() & (norm > 0))[:, 0], found


def duplicates(samples: Tensor, cell: np.ndarray) -> dict[str, list[list[int]]]:
    """Pairs of equal frames, within cells and across them, as numbers of frames."""
    pairs = duplicate_pairs(samples.numpy(), samples[:, :8].numpy())
    across = cell[pairs[:, 0]] != cell[pairs[:, 1]]
    return {"within cells": pairs[~across].tolist(), "across cells": pairs[across].tolist()}


def level_measures(iq: Tensor, modulation: np.ndarray, snr_db: np.ndarray) -> pd.DataFrame:
    """Power and measured SNR of each level, see amc_utils.features.level_table."""
    parts = iq.split(_AT_ONCE)
    digital = [RADIOML_2018_MODULATIONS.index(name) for name in DIGITAL_MODULATIONS]
    table = {"level": snr_db, "digital": np.isin(modulation, digital)}
    for name, measure in (("power", mean_power), ("snr_ratio", snr_ratio)):
        table[name] = torch.cat([measure(part) for part in parts]).numpy()
    return level_table(pd.DataFrame(table))


def class_evidence(iq: Tensor, label: np.ndarray) -> pd.DataFrame:
    """What the frames of each label look like at high SNR.

    Args:
        iq: complex64 [N, num_samples], frames of high SNR.
        label: int64 [N], column of Y that is set.

    Returns:
        A row a label: label; signature with squared_line and envelope_std, see features.signature;
        looks_like: the linear modulation that a likelihood receiver names most, and the share of
        frames it names so.
    """
    chosen = {n: np.flatnonzero(label == n)[:_FRAMES_PER_CLASS] for n in np.unique(label)}
    likelihood = receiver_log_likelihoods(
        iq[torch.from_numpy(np.concatenate(list(chosen.values())))],
        modulations=LINEAR_MODULATIONS,
        snr_grid_db=range(4, 31, 2),
        channel=Channel(),
    )
    named = likelihood.amax(2).argmax(1).split([len(index) for index in chosen.values()])
    rows = []
    for (number, index), names in zip(chosen.items(), named, strict=True):
        votes = torch.bincount(names, minlength=len(LINEAR_MODULATIONS))
        looks_like, share = LINEAR_MODULATIONS[int(votes.argmax())], int(votes.max()) / len(index)
        seen = signature(iq[torch.from_numpy(index)])
        rows.append((int(number), *seen, looks_like, share, len(index)))
    columns = ["label", "signature", "squared_line", "envelope_std", "looks_like", "share", "frames"]
    return pd.DataFrame(rows, columns=columns)


def agrees(evidence: pd.DataFrame, names: tuple[str, ...]) -> np.ndarray:
    """Whether each row of class_evidence looks like what a list of names promises, bool."""
    promised = [names[label] for label in evidence["label"]]
    return np.array([
        row.signature == SIGNATURE_OF_MODULATION[name]
        and (row.looks_like == name or name not in LINEAR_MODULATIONS)
        for row, name in zip(evidence.itertuples(), promised, strict=True)
    ])  # fmt: skip


def label_order_confidence(evidence: pd.DataFrame) -> dict[str, float]:
    """Probability of each list of names, and of neither, given what the classes look like.

    All are as likely beforehand. A class looks like its name but for an error rate; where the labels
    follow neither list, it does so by chance alone.
    """
    num_classes = len(RADIOML_2018_MODULATIONS)
    hits = {order: int(agrees(evidence, names).sum()) for order, names in LABEL_ORDERS.items()}
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


def exchanged(evidence: pd.DataFrame, names: tuple[str, ...]) -> list[str]:
    """Classes that look like another one which looks like itself nowhere: labels that are exchanged."""
    of_name = {names[row.label]: row for row in evidence.itertuples()}
    like_themselves = {name for name, row in of_name.items() if row.looks_like == name}
    return [
        f"{name} looks like {row.looks_like}"
        for name, row in of_name.items()
        if name in LINEAR_MODULATIONS and row.share >= 0.9
        and row.looks_like not in {name, *like_themselves}
    ]  # fmt: skip


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

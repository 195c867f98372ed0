"""How a network for the open channel does beside what it was to reach, and what impairments cost it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from amc_utils.inference.classifier import SHIPPED
from amc_utils.metrics import correct, half_interval, wilson_interval
from amc_utils.results import Run
from amc_utils.signals import DIGITAL_MODULATIONS

# Labels from here on are clear enough that noise costs next to nothing.
CLEAR_LABEL = 10
# Kinds of frames on which both networks were tried, and in this order the runs of record of the one for
# the open channel, of the one for the paper's, and of the bound that a receiver with known SNR sets.
TESTED_ON = ("open", "open, receiver with faults", "table_1", "GNU Radio")
WIDE = ("open-24", "open-24-on-faults", "open-24-on-table_1", "open-24-on-gnuradio")
NARROW = ("table_1-24-on-open", "table_1-24-on-faults", "table_1-24", "table_1-24-on-gnuradio")
BOUNDS = ("genie-bound-open-snr-known",) * 2 + ("genie-bound-snr-known",) * 2


def digital_modulation(predictions: pd.DataFrame) -> pd.DataFrame:
    """Predictions of the frames of the 17 linear classes, which the bound knows too."""
    return predictions[predictions["modulation"].isin(DIGITAL_MODULATIONS)]


def clear(predictions: pd.DataFrame) -> pd.DataFrame:
    """Predictions of the frames whose label is CLEAR_LABEL or more."""
    return predictions[predictions["snr_label"] >= CLEAR_LABEL]


def targets(runs: Mapping[str, Sequence[Run]], record: dict[str, Any]) -> pd.DataFrame:
    """What was to be reached: columns what, wanted, value, low, high (95 % interval), is_met.

    Args:
        runs: for each of TESTED_ON that of the wide network, that of the narrow one, and the bound.
        record: see shipped_record.
    """
    predictions = {name: [run.predictions for run in some] for name, some in runs.items()}
    on_open, _, on_paper, on_radio = (predictions[name] for name in TESTED_ON)
    own, _, bound = (_share(clear(digital_modulation(part))) for part in on_open)
    wide, narrow = (_share(part, "joint") for part in on_paper[:2])
    lost = 100 * (narrow["value"] - wide["value"])
    half = 100 * float(half_interval((narrow["variance"] + wide["variance"]) ** 0.5))
    radio = _share(clear(on_radio[0]))
    foreign = pd.DataFrame(record["ood_signals"][1:]).query("snr_db == 20 and signal != 'noise alone'")
    worst = foreign.loc[foreign["flagged"].idxmin()]
    flagged = record["ood_signals"][0]
    low, high = wilson_interval(flagged["flagged"] * flagged["num_frames"], flagged["num_frames"])
    rows = [
        (f"open channel, labels from {CLEAR_LABEL}, 17 linear classes: modulation, to the bound's",
         "at least 0.92", own["value"] / bound["value"], own["low"] / bound["value"],
         own["high"] / bound["value"], own["value"] >= 0.92 * bound["value"]),
        ("paper's channel, all labels: points of joint accuracy lost to a network trained there",
         "at most 2", lost, lost - half, lost + half, lost <= 2),
        (f"GNU Radio's frames, labels from {CLEAR_LABEL}, 24 classes: modulation",
         "at least 0.85", radio["value"], radio["low"], radio["high"], radio["value"] >= 0.85),
        ("known signals called out of distribution", "at most 0.01", flagged["flagged"],
         float(low), float(high), flagged["flagged"] <= 0.01),
        (f"others that are, at 20 dB, the worst: {worst['signal']}", "at least 0.90",
         worst["flagged"], *map(float, wilson_interval(
             worst["flagged"] * worst["num_frames"], worst["num_frames"])), worst["flagged"] >= 0.9),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["what", "wanted", "value", "low", "high", "is_met"])


def shipped_record() -> dict[str, Any]:
    """What `amc export` measured of the network that ships for recordings."""
    return json.loads(SHIPPED.with_name("model.json").read_text(encoding="utf8"))


def impairment_tables(record: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Modulation accuracy of the 17 linear classes, and sizes as text: a row an impairment."""
    table = pd.DataFrame(record["impairments"])
    table["step"] = table.groupby("impairment", sort=False).cumcount() + 1
    table["text"] = table["size"].map("{:g}".format)
    wide = table.pivot(index="impairment", columns="step").loc[table["impairment"].unique()]
    return wide["modulation_digital"], wide["text"].fillna("")


def _share(predictions: pd.DataFrame, task: str = "modulation") -> dict[str, float]:
    right = correct(predictions)[task]
    low, high = wilson_interval(right.sum(), len(right))
    value = float(right.mean())
    variance = value * (1 - value) / len(right)
    return {"value": value, "low": float(low), "high": float(high), "variance": variance}

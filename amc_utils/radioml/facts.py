"""RadioML 2018.01A as measured beside what is simulated: tables, and the command that makes them.

    amc facts EXCERPTS_FOLDER

Writes results/radioml_2018_facts/ (measured.csv, published.csv, simulated.csv; 20 minutes on a core, or
with --keep-simulated seconds) and the table of numbers in docs/radioml_2018_as_measured.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from amc_utils.radioml.measures import (
    clipping_percent,
    fact,
    measured_facts,
    of_stretches,
    published_results,
)
from amc_utils.runtime.pages import markdown_table, with_table
from amc_utils.runtime.paths import REPOSITORY, replacing
from amc_utils.signals import CHANNEL_PRESETS, SNR_LABELS, Channel, generate_frames

FOLDER = REPOSITORY / "results" / "radioml_2018_facts"
PAGE = REPOSITORY / "docs" / "radioml_2018_as_measured.md"
# The twin, the paper's table, and the twin with what labels mean in textbooks.
SIMULATED = {
    **CHANNEL_PRESETS,
    "per_sample": replace(Channel(), snr_slope=1.0),
    "es_n0": replace(Channel(), snr_slope=1.0, snr_offset_db=-9.03),
}
CLIPPED = ("8ASK", "BPSK", "QPSK", "8PSK", "16PSK")
# The excerpts hold the first samples of each frame, so many.
STRETCH = 128
NUM_EXCERPTS = 256
# The real clipping shares count all frames of a cell.
NUM_COUNTED = 4096
BATCH = 512
# In symbol rates: what three root-raised-cosine filters of roll-off 0.4 leave.
OCCUPIED = 0.7
# Of each quantity what a row says, its unit, and whether it is a curve.
WHAT = {
    "clipping": ("values beyond ±2, rms difference", "percentage points", True),
    "spectrum": (f"spectrum up to {OCCUPIED} symbol rates, rms difference", "dB", True),
    "noise_floor": ("noise floor at label 30", "dB", False),
    "mean_power": ("mean power", "", False),
    "timing_fraction": ("timing within a sample, mean", "samples", False),
    "timing_spread": ("spread of timing within a sample", "samples", False),
    "power_std": (f"spread of the power over {STRETCH} samples", "", False),
    "carrier_std": ("spread of the carrier offset", "cycles per sample", False),
    "carrier_kurtosis": ("kurtosis of the carrier offset", "", False),
}


def simulate(
    channel: Channel, modulation: str, snr_label: int, num_frames: int
) -> Iterator[np.ndarray]:
    """Whole simulated frames, complex64, BATCH at a time, the same at every call."""
    for start in range(0, num_frames, BATCH):
        index = torch.arange(start, min(start + BATCH, num_frames))
        level = torch.full_like(index, snr_label)
        names, zero = (modulation,), torch.zeros_like(index)
        made = generate_frames(index, zero, level, modulations=names, seed=2018, channel=channel)
        yield made.iq.numpy()


def simulated_stretches(channel: Channel, num_frames: int = 4096) -> pd.DataFrame:
    """What measured_facts says of stretches and mean powers, of simulated frames.

    The column chance is the standard deviation of the value in sets of as many frames as the excerpts
    have: by so much the real value may differ from that of its own channel.
    """
    tables = []
    for name in ("QPSK", "BPSK"):
        batches = [iq[:, :STRETCH] for iq in simulate(channel, name, 30, num_frames)]
        iq = np.concatenate(batches).astype(complex)
        sets = [of_stretches(some, name, 30) for some in np.split(iq, max(len(iq) // NUM_EXCERPTS, 1))]
        values = np.array([[row["value"] for row in rows] for rows in sets])
        tables.append(pd.DataFrame(of_stretches(iq, name, 30)).assign(chance=values.std(0)))
    rows = []
    for name, labels in (("8ASK", (30,)), ("4ASK", SNR_LABELS)):
        few = max(num_frames // len(labels), 1)
        power = [np.mean(np.abs(iq) ** 2) for at in labels for iq in simulate(channel, name, at, few)]
        at = labels[0] if len(labels) == 1 else pd.NA
        rows.append(fact("mean_power", name, at, np.nan, np.mean(power), "", few * len(labels)))
    tables.append(pd.DataFrame(rows))
    return pd.concat(tables, ignore_index=True).astype({"snr_label": "Int64"})


def simulated_clipping(channel: Channel, num_frames: int) -> pd.DataFrame:
    """Clipping shares of five classes at every label, with their chance in NUM_COUNTED frames."""
    rows = []
    for name in CLIPPED:
        for at in SNR_LABELS:
            shares = [clipping_percent(iq) for iq in simulate(channel, name, at, num_frames)]
            row = fact("clipping", name, at, np.nan, np.mean(shares), "percent", num_frames)
            rows.append(row | {"chance": np.std(shares) * np.sqrt(BATCH / NUM_COUNTED)})
    return pd.DataFrame(rows)


def simulated_facts(num_frames: int, others: int = 4096) -> pd.DataFrame:
    """All simulated facts with the column channel; the twin clips `num_frames` a cell, others fewer."""
    tables = []
    for name, channel in SIMULATED.items():
        of_cell = num_frames if name == "radioml_2018" else min(others, num_frames)
        table = pd.concat([simulated_clipping(channel, of_cell), simulated_stretches(channel)])
        table.insert(0, "channel", name)
        tables.append(table)
        print(f"{name}: done", file=sys.stderr)
    return pd.concat(tables, ignore_index=True).astype({"snr_label": "Int64"})


def comparison(measured: pd.DataFrame, simulated: pd.DataFrame) -> pd.DataFrame:
    """The real file beside each channel, a row a quantity and class.

    Of curves (clipping against label, spectrum against frequency) the rms difference from the real one,
    else the value. The column chance says by how much excerpts of the twin would differ from it.
    """
    joined = measured.merge(simulated, on=["quantity", "modulation", "snr_label", "x"])
    joined = joined[~(joined["x"] > OCCUPIED)]
    rows = []
    for (quantity, modulation), group in joined.groupby(["quantity", "modulation"], sort=False):
        what, unit, is_curve = WHAT[quantity]
        error, chance = group["value_y"] - group["value_x"], group["chance"]
        if (quantity, modulation) == ("clipping", "8ASK"):
            # Its shares are 35 times the others, so differences are told in percent of them.
            unit, error, chance = "%", *(100 * part / group["value_x"] for part in (error, chance))
        shown = error.pow(2) if is_curve else group["value_y"]
        of_channel = shown.groupby(group["channel"], sort=False).mean()
        is_twin = group["channel"] == "radioml_2018"
        row = {
            "what": f"{modulation}: {what}",
            "unit": unit,
            "num_frames": group["num_frames_x"].iloc[0],
        }
        row["real"] = np.nan if is_curve else group["value_x"].iloc[0]
        row |= (of_channel.pow(0.5) if is_curve else of_channel).to_dict()
        rows.append(row | {"chance": chance[is_twin].pow(2).mean() ** 0.5})
    return pd.DataFrame(rows).set_index("what")


def facts_table(table: pd.DataFrame) -> str:
    """What `comparison` gives, in Markdown."""
    columns = {"real": "real file", "radioml_2018": "twin", "chance": "by chance", "table_1": "Table I"}
    columns |= {"per_sample": "labels per sample", "es_n0": "labels Es/N0"}
    rows = []
    for what, row in table.iterrows():
        numbers = ["" if np.isnan(row[name]) else f"{row[name]:#.3g}" for name in columns]
        rows.append([what, row["unit"], *numbers, f"{row['num_frames']:,}"])
    return markdown_table(["what", "unit", *columns.values(), "real frames"], rows)


def read_facts(name: str) -> pd.DataFrame:
    """Stored facts: of "measured", "simulated" or "published"."""
    return pd.read_csv(FOLDER / f"{name}.csv", dtype={"snr_label": "Int64"})


def main(arguments: list[str] | None = None) -> None:
    """Measure the excerpts, simulate, and write the tables."""
    parser = argparse.ArgumentParser(prog="amc facts")
    parser.add_argument("excerpts", type=Path, help="folder of the excerpts")
    parser.add_argument("--num-frames", type=int, default=16384, help="simulated, per class and label")
    parser.add_argument("--keep-simulated", action="store_true", help="leave simulated.csv as it is")
    options = parser.parse_args(arguments)
    tables = {
        "measured": measured_facts(options.excerpts),
        "published": published_results(options.excerpts),
    }
    if not options.keep_simulated:
        tables["simulated"] = simulated_facts(options.num_frames)
    for name, table in tables.items():
        with replacing(FOLDER / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    page = PAGE.read_text(encoding="utf8")
    table = facts_table(comparison(read_facts("measured"), read_facts("simulated")))
    with replacing(PAGE) as temporary:
        temporary.write_text(with_table(page, "facts", table), encoding="utf8")

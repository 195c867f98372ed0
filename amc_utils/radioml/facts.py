"""RadioML 2018.01A as measured on public excerpts, beside simulations of it.

The excerpts are small genuine pieces of the licensed file, found in public repositories. Only numbers
leave this module: the samples are under DeepSig's licence.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.interpolate import PchipInterpolator
from scipy.stats import kurtosis
from torch import Tensor

from amc_utils.dsp.features import circular_mean, noise_density, one_sided, power_spectrum
from amc_utils.runtime.pages import markdown_table, with_table
from amc_utils.runtime.paths import REPOSITORY, atomic_write, repository_file
from amc_utils.signals import (
    FILE_CHANNELS,
    SAMPLES_PER_SYMBOL,
    SNR_LABELS,
    Channel,
    generate_frames,
    raised_cosine,
)

FOLDER = REPOSITORY / "results" / "radioml_2018_facts"
PAGE = "docs/radioml_2018_as_measured.md"
# The twin, the paper's table, and the twin with what labels mean in textbooks.
SIMULATED = {
    **FILE_CHANNELS,
    "per_sample": replace(Channel(), snr_slope=1.0),
    "es_n0": replace(Channel(), snr_slope=1.0, snr_offset_db=-9.03),
}
PSKS = ("BPSK", "QPSK", "8PSK", "16PSK")
# The excerpts hold the first samples of each frame, so many.
STRETCH = 128
NUM_EXCERPTS = 256
# The real clipping shares count all frames of a cell.
NUM_COUNTED = 4096
BATCH = 512
# In symbol rates: what three root-raised-cosine filters of roll-off 0.4 leave.
OCCUPIED = 0.7
# Labels where clipping changes fastest.
_TELLING_LABELS = (-2, 0, 2, 4, 6)
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
_COLUMNS = ("quantity", "modulation", "snr_label", "x", "value", "unit", "num_frames")
_TIMING_STEP = 0.05  # samples
_FINN_COMMIT = "commit 36f25b8"
_ORIGIN = "github.com/shamoons/modulation-explainability"
_QUANTISED = "github.com/da-steve101/radio_modulation"
_UNNAMED = "outputs of public notebooks on the file; which ones is not recorded"
# Labels 0 to 30 in steps of two, as the repository states them.
_ORIGIN_JOINT = (0.293, 0.418, 0.534, 0.595, 0.668, 0.707, 0.735, 0.762, 0.745, 0.663, 0.513, 0.306,
                 0.249, 0.288, 0.329, 0.398)  # fmt: skip


def write_facts(excerpts: str, num_frames: int = 16384, keep_simulated: bool = False) -> None:
    """Measure excerpts of RadioML 2018.01A beside simulated frames.

    Writes results/radioml_2018_facts/ (measured.csv, published.csv, simulated.csv) and the table of
    numbers in docs/radioml_2018_as_measured.md. Takes 20 minutes on a core, with --keep_simulated
    seconds.

        amc facts EXCERPTS_FOLDER --keep_simulated

    Args:
        excerpts: folder of the excerpts.
        num_frames: frames simulated of each class and label.
        keep_simulated: leave simulated.csv as it is.

    Raises:
        FileNotFoundError: an excerpt, or the page, is not there.
    """
    path = repository_file(PAGE)
    tables = {
        "measured": measured_facts(Path(excerpts)),
        "published": published_results(Path(excerpts)),
    }
    if not keep_simulated:
        tables["simulated"] = simulated_facts(num_frames)
    for name, table in tables.items():
        with atomic_write(FOLDER / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    table = facts_table(comparison(read_facts("measured"), read_facts("simulated")))
    page = with_table(path.read_text(encoding="utf8"), "facts", table)
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf8")


def read_facts(name: str) -> pd.DataFrame:
    """Stored facts: of "measured", "simulated" or "published"."""
    return pd.read_csv(FOLDER / f"{name}.csv", dtype={"snr_label": "Int64"})


def clipping_percent(iq: np.ndarray) -> float:
    """Share of I and Q values beyond -2 and 2, in percent."""
    return 100 * float(np.mean([np.abs(iq.real) > 2, np.abs(iq.imag) > 2]))


def power_density(iq: np.ndarray) -> tuple[Tensor, Tensor]:
    """Frequency in cycles per sample, from 0 up, float32 [F], and power density, float64 [B, F].

    White noise of unit power has unit density. The window is Kaiser's with beta 14, whose leakage lies
    below the noise of every label, in frames of 128 samples too.
    """
    window = torch.kaiser_window(iq.shape[-1], periodic=False, beta=14, dtype=torch.float64)
    frequency, power = power_spectrum(torch.from_numpy(iq), window)
    return one_sided(frequency.abs()), one_sided(power)


def noise_floor_db(iq: np.ndarray) -> float:
    """Density of the noise in dB: the median over frames, which broken frames leave alone."""
    return float(10 * np.log10(np.median(noise_density(*power_density(iq)))))


def squared_carrier(iq: np.ndarray) -> np.ndarray:
    """Carrier offset of BPSK frames in cycles per sample, float64 [B], from the line of iq^2.

    The square of a real-valued signal is positive but for its carrier, so that its phase is a straight
    line; the strongest of its spectral lines says where to look.
    """
    line = iq.astype(complex) ** 2
    time = np.arange(line.shape[1])
    spectrum = np.abs(np.fft.fft(line, 8 * len(time)))
    offset = np.fft.fftfreq(8 * len(time))[spectrum.argmax(1)]
    weight = np.abs(line) ** 2 / np.sum(np.abs(line) ** 2, 1, keepdims=True)
    centred = time - (weight * time).sum(1, keepdims=True)
    for _ in range(2):
        rest = line * np.exp(-2j * np.pi * offset[:, None] * time)
        angle = np.angle(rest * rest.sum(1, keepdims=True).conj())
        slope = (weight * centred * angle).sum(1) / (weight * centred**2).sum(1)
        offset = offset + slope / (2 * np.pi)
    return offset / 2


def symbol_timing(iq: np.ndarray) -> np.ndarray:
    """Timing of each frame in samples, float64 [B] from 0 to 7.95 in steps of 0.05.

    Symbols of any alphabet span a space that moves with their timing; the space that holds most of a
    frame's power tells it. The pulse is three root-raised-cosine filters in a row, roll-off 0.41.
    """
    held = [np.sum(np.abs(iq @ space) ** 2, 1) for space in _symbol_spaces(iq.shape[1])]
    return np.argmax(held, 0) * _TIMING_STEP


@cache
def _symbol_spaces(num_samples: int) -> list[np.ndarray]:
    """Orthonormal bases of what symbols of each timing can send, float64 [num_samples, dimensions]."""
    frequency = np.linspace(-0.705, 0.705, 129)
    rolloff = torch.tensor(0.41, dtype=torch.float64)
    shape = raised_cosine(torch.from_numpy(frequency), rolloff).numpy().clip(0) ** 1.5
    time = np.arange(num_samples)[:, None, None] / SAMPLES_PER_SYMBOL
    symbol = np.arange(-7, num_samples // SAMPLES_PER_SYMBOL + 8)[:, None]
    spaces = []
    for offset in np.arange(0, SAMPLES_PER_SYMBOL, _TIMING_STEP):
        place = time - symbol - offset / SAMPLES_PER_SYMBOL
        pulses = np.cos(2 * np.pi * frequency * place) @ shape
        space, strength, _ = np.linalg.svd(pulses, full_matrices=False)
        spaces.append(space[:, strength > 0.01 * strength[0]])
    return spaces


def of_stretches(iq: np.ndarray, modulation: str, snr_label: int) -> list[tuple]:
    """Rows of _COLUMNS on frames complex128 [B, STRETCH] of one class and label."""
    power = np.mean(np.abs(iq) ** 2, 1)
    frequency, density = power_density(iq)
    # What is left over whole samples lies on a circle; mean and spread are the circle's.
    fraction, alike = circular_mean(torch.from_numpy(symbol_timing(iq)), 1.0)
    curve = zip((SAMPLES_PER_SYMBOL * frequency).tolist(), density.mean(0).tolist(), strict=True)
    rows = [("spectrum", x, 10 * np.log10(mean), "dB") for x, mean in curve]
    rows += [
        ("noise_floor", np.nan, noise_floor_db(iq), "dB"),
        ("mean_power", np.nan, power.mean(), ""),
        ("timing_fraction", np.nan, fraction, "samples"),
        ("timing_spread", np.nan, np.sqrt(-2 * np.log(alike)) / (2 * np.pi), "samples"),
        ("power_std", np.nan, power.std(), ""),
    ]
    if modulation == "BPSK":
        offset = squared_carrier(iq)
        rows.append(("carrier_std", np.nan, offset.std(), "cycles per sample"))
        rows.append(("carrier_kurtosis", np.nan, kurtosis(offset, fisher=False), ""))
    return [(what, modulation, snr_label, x, value, unit, len(iq)) for what, x, value, unit in rows]


def measured_facts(excerpts: Path) -> pd.DataFrame:
    """What the excerpts say, rows of of_stretches with the columns how and source."""
    return _table(_rows_of_excerpts(excerpts), "how", "source")


def _table(rows: Iterator[tuple] | list[tuple], *more: str) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=[*_COLUMNS, *more])
    return table.astype({"snr_label": "Int64", "value": float})


def _rows_of_excerpts(excerpts: Path) -> Iterator[tuple]:
    with np.load(excerpts / "clipping_curves_all_labels.npz") as curves:
        origin = "stated by the source", f"{curves['source']}, {_FINN_COMMIT}"
        # One value of the 4,096 frames is 1.2e-5 percent; the plot puts none at 3.6e-9.
        curve = np.where(curves["percent_over_2"] > 1e-6, curves["percent_over_2"], 0.0)
        for name, shares in zip(curves["modulation"], curve, strict=True):
            for at, share in zip(curves["snr_db"], shares, strict=True):
                yield "clipping", str(name), at, np.nan, share, "percent", NUM_COUNTED, *origin
    with np.load(excerpts / "bpsk_qpsk_label30_first128.npz") as short:
        origin = "measured", f"{short['source']}, {_FINN_COMMIT}"
        for name in ("QPSK", "BPSK"):
            frames = short["iq"][short["modulation"] == name].astype(complex)
            yield from ((*row, *origin) for row in of_stretches(frames, name, 30))
    for file in ("16qam_label30_from_svg_256", "8psk_label30_every_8th"):
        with np.load(excerpts / f"{file}.npz") as few:
            origin = "measured", f"{few['source']}, {_FINN_COMMIT}"
            power, name = np.mean(np.abs(few["iq"]) ** 2), str(few["modulation"][0])
            yield "mean_power", name, 30, np.nan, power, "", len(few["iq"]), *origin
    origin = "stated in public notebook outputs (see source)", _UNNAMED
    yield "mean_power", "8ASK", 30, np.nan, 3.68, "", 4096, *origin
    yield "mean_power", "4ASK", pd.NA, np.nan, 2.168, "", 26 * 4096, *origin
    # Of the four whole frames the number stands in x.
    with np.load(excerpts / "four_whole_frames.npz") as whole:
        origin, snr_db = ("inferred", str(whole["source"])), whole["snr_per_sample_measured_db"]
        for number, iq in enumerate(whole["iq"].astype(complex)):
            name = str(whole["modulation"][number]).removesuffix(" (inferred)")
            for quantity, value, unit in (
                ("snr", snr_db[number], "dB per sample"),
                ("noise_floor", noise_floor_db(iq[None]), "dB"),
                ("power", np.mean(np.abs(iq) ** 2), ""),
                ("direct_power", abs(iq.mean()) ** 2, ""),
                ("clipping", clipping_percent(iq), "percent"),
            ):
                at = name, whole["snr_db"][number], number
                yield f"whole_frame_{quantity}", *at, value, unit, 1, *origin


def published_results(excerpts: Path) -> pd.DataFrame:
    """Accuracies of others on the real file, a row a network, task and SNR label."""
    folder, even = excerpts / "published_confusions", np.arange(0, 31, 2)
    with np.load(folder / "shamoons_origin_272.npz") as origin:
        # Rows of a confusion are true classes; both tasks saw the same frames.
        frames = origin["snr"].sum(1)
        right = origin["snr"].diagonal(), origin["modulation_by_snr"].diagonal(0, 1, 2).sum(1)
    curves = [
        (_ORIGIN, "ResNet50", 272, "snr", even, right[0] / frames, frames),
        (_ORIGIN, "ResNet50", 272, "modulation", even, right[1] / frames, frames),
        (f"{_ORIGIN}, as it states", "ResNet50", 272, "joint", even, _ORIGIN_JOINT, frames),
    ]
    with np.load(folder / "da-steve101_radio_modulation.npz") as other:
        frames = other["confusion"].sum((2, 3))
        accuracy = other["confusion"].diagonal(0, 2, 3).sum(2) / frames
        names, labels = [str(name) for name in other["models"]], other["snr_db"]
    resnet = names.index("resnet")
    best = max((i for i in range(len(names)) if i != resnet), key=lambda i: accuracy[i].mean())
    curves += [
        (_QUANTISED, names[model], 24, "modulation", labels, accuracy[model], frames[model])
        for model in (resnet, best)
    ]
    columns = ["source", "network", "num_classes", "task", "snr_label", "value", "num_frames"]
    tables = [pd.DataFrame(dict(zip(columns, curve, strict=True))) for curve in curves]
    return pd.concat(tables, ignore_index=True)


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
    rows = []
    for name in ("QPSK", "BPSK"):
        batches = [iq[:, :STRETCH] for iq in simulate(channel, name, 30, num_frames)]
        iq = np.concatenate(batches).astype(complex)
        sets = np.split(iq, max(len(iq) // NUM_EXCERPTS, 1))
        values = [[row[4] for row in of_stretches(some, name, 30)] for some in sets]
        whole = of_stretches(iq, name, 30)
        rows += [(*row, chance) for row, chance in zip(whole, np.std(values, 0), strict=True)]
    for name, labels in (("8ASK", (30,)), ("4ASK", SNR_LABELS)):
        few = max(num_frames // len(labels), 1)
        power = [np.mean(np.abs(iq) ** 2) for at in labels for iq in simulate(channel, name, at, few)]
        at = labels[0] if len(labels) == 1 else pd.NA
        rows.append(("mean_power", name, at, np.nan, np.mean(power), "", few * len(labels), np.nan))
    return _table(rows, "chance")


def simulated_clipping(channel: Channel, num_frames: int) -> pd.DataFrame:
    """Clipping shares of five classes at every label, with their chance in NUM_COUNTED frames."""
    rows = []
    for name in ("8ASK", *PSKS):
        for at in SNR_LABELS:
            shares = [clipping_percent(iq) for iq in simulate(channel, name, at, num_frames)]
            chance = np.std(shares) * np.sqrt(BATCH / NUM_COUNTED)
            rows.append(("clipping", name, at, np.nan, np.mean(shares), "percent", num_frames, chance))
    return _table(rows, "chance")


def simulated_facts(num_frames: int) -> pd.DataFrame:
    """All simulated facts with the column channel; the twin clips `num_frames` a cell, others fewer."""
    tables = []
    for name, channel in SIMULATED.items():
        of_cell = num_frames if name == "radioml_2018" else min(NUM_COUNTED, num_frames)
        table = pd.concat([simulated_clipping(channel, of_cell), simulated_stretches(channel)])
        table.insert(0, "channel", name)
        tables.append(table)
        print(f"{name}: done", file=sys.stderr)
    return pd.concat(tables, ignore_index=True)


def comparison(measured: pd.DataFrame, simulated: pd.DataFrame) -> pd.DataFrame:
    """The real file beside each channel, a row a quantity and class.

    Of curves (clipping against label, spectrum against frequency) the rms difference from the real one,
    else the value. The column chance says by how much excerpts of the twin would differ from it. Last
    comes the slope of the SNR against the label, see label_slopes, and the standard error of its mean.
    """
    joined = measured.merge(simulated, on=["quantity", "modulation", "snr_label", "x"])
    joined = joined[~(joined["x"] > OCCUPIED)]
    rows = []
    for (quantity, modulation), group in joined.groupby(["quantity", "modulation"], sort=False):
        what, unit, is_curve = WHAT[quantity]
        error, chance = group["value_y"] - group["value_x"], group["chance"]
        if (quantity, modulation) == ("clipping", "8ASK"):
            # Its shares are 35 times the others, so differences are in percent of them.
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
    slopes = label_slopes(measured, simulated)
    row = {"what": "four PSKs: SNR for a decibel of the label", "unit": "dB", "num_frames": NUM_COUNTED}
    row |= {"real": slopes.mean(), "chance": slopes.sem()}
    rows.append(row | {name: channel.snr_slope for name, channel in SIMULATED.items()})
    return pd.DataFrame(rows).set_index("what")


def label_slopes(measured: pd.DataFrame, simulated: pd.DataFrame) -> pd.Series:
    """Decibels of SNR for a decibel of the real file's label, by PSK, from what it clips.

    At the twin's label the twin clips as the file does at its own; of the twin the slope is known.
    """
    twin = simulated[simulated["channel"] == "radioml_2018"]
    real, twin = (
        table[table["quantity"] == "clipping"].pivot(index="snr_label", columns="modulation")["value"]
        for table in (measured, twin)
    )
    fine = np.linspace(-4, 8, 1201)
    slopes = {}
    for name in PSKS:
        curve = PchipInterpolator(twin.index.astype(float), np.log(twin[name].clip(lower=1e-6)))
        off = curve(fine)[:, None] - np.log(real.loc[list(_TELLING_LABELS), name].to_numpy())
        alike = fine[np.abs(off).argmin(0)]
        slopes[name] = SIMULATED["radioml_2018"].snr_slope * np.polyfit(_TELLING_LABELS, alike, 1)[0]
    return pd.Series(slopes)


def facts_table(table: pd.DataFrame) -> str:
    """What `comparison` gives, in Markdown."""
    columns = {"real": "real file", "radioml_2018": "twin", "chance": "by chance", "table_1": "Table I"}
    columns |= {"per_sample": "labels per sample", "es_n0": "labels Es/N0"}
    rows = []
    for what, row in table.iterrows():
        numbers = ["" if np.isnan(row[name]) else f"{row[name]:#.3g}" for name in columns]
        rows.append([what, row["unit"], *numbers, f"{row['num_frames']:,}"])
    return markdown_table(["what", "unit", *columns.values(), "real frames"], rows)

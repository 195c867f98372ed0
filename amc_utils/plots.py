"""Figures of results and of signals: every function takes axes and a table and returns the axes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from amc_utils.images import WINDOW, constellation_images
from amc_utils.results import list_runs
from amc_utils.runtime.paths import ABOVE_PACKAGE, REPOSITORY, SINGLE, Workspace, atomic_write
from amc_utils.signals import FAMILY_OF_MODULATION, SAMPLES_PER_SYMBOL, Channel

WIDTH_INCHES = {"column": 3.5, "page": 7.16}

# Okabe and Ito's colours, which readers with any colour vision tell apart.
COLOUR_OF_FAMILY = {
    "ASK": "#E69F00", "PSK": "#0072B2", "OQPSK": "#56B4E9", "APSK": "#009E73", "QAM": "#D55E00",
    "GMSK": "#CC79A7", "analogue": "#777777",
}  # fmt: skip
COLOUR_OF_TASK = {"joint": "#000000", "modulation": "#0072B2", "snr": "#D55E00"}
LABEL_OF_TASK = {"joint": "joint", "modulation": "modulation", "snr": "SNR"}
# Runs side by side differ by marker and line as well, for prints without colour.
_RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_RUN_MARKERS = "os^Dv<>P"
_RUN_LINES = ("-", "--", "-.", ":")
# What takes accuracy away, from the top of a waterfall down; pale, since no run has these colours.
_STEP_COLOURS = ("#D5D5D5", "#8FA9BF", "#7A5C46", "#DDBE6E", "#A8788C", "#EFE8C8")


def run_style(number: int) -> dict[str, str]:
    """Colour, marker and line of the run of that number among several."""
    return {
        "color": _RUN_COLOURS[number % len(_RUN_COLOURS)],
        "marker": _RUN_MARKERS[number % len(_RUN_MARKERS)],
        "linestyle": _RUN_LINES[number % len(_RUN_LINES)],
    }


def use_style() -> None:
    """Set the paper's style for all figures that follow: dark on opaque white, whatever was set."""
    plt.style.use(["default", Path(__file__).with_name("style.mplstyle")])


def figure(
    width: str = "column", height: float = 2.4, rows: int = 1, columns: int = 1, **options
) -> tuple[Figure, np.ndarray | Axes]:
    """Figure of the paper's column or page width, `height` inches high, with its axes."""
    return plt.subplots(rows, columns, figsize=(WIDTH_INCHES[width], height), **options)


def save(fig: Figure, name: str, folder: Path, note: str, sources: Sequence[Path] = ()) -> Figure:
    """Write fig_<name>.pdf and .png: `note` in small print, and inside whose results they show.

    Inside are also the seeds of these runs and the version of this package. What else numbers depend on
    stands in the record of each run; of the machine that draws nothing is told.
    """
    # At this size about 26 letters of the note fit into an inch.
    lines = textwrap.wrap(note, int(26 * fig.get_figwidth()), break_on_hyphens=False)
    fig.supxlabel("\n".join(lines), x=0.995, ha="right", fontsize=5.5, color="0.35")
    # What the project measured stays in its own results/ or in the package, wherever the runs are.
    roots = (folder.parent, REPOSITORY, ABOVE_PACKAGE)
    shown = [(path, next(filter(path.is_relative_to, roots))) for path in sources]
    places = ", ".join(path.relative_to(root).as_posix() for path, root in shown) or None
    found = sorted({seed for path, root in shown for seed in _seeds(path, root)})
    seeds = f"seeds {', '.join(map(str, found))}" if found else None
    maker = f"amc_utils {version('amc-utils')}"
    # Without a date or the version of matplotlib in it, the same figure is the same file.
    pdf = {"CreationDate": None, "Producer": None, "Creator": maker}
    pdf |= {"Subject": places, "Keywords": seeds}
    png = {"Software": maker, "Source": places, "Comment": seeds}
    for suffix, told in {".pdf": pdf, ".png": png}.items():
        with atomic_write(folder / f"fig_{name}{suffix}") as temporary:
            fig.savefig(temporary, metadata=told)
    return fig


def _seeds(source: Path, root: Path) -> set[int]:
    """Seeds of a run, or of all runs of a study, by its place in results/; none of other files."""
    study, *name = source.relative_to(root).parts[1:]
    runs = list_runs(Workspace(root, "" if study == SINGLE else study))
    return {run.facts["config"]["seed"] for run in runs if name in ([], [run.name])}


def accuracy_against_snr(ax: Axes, table: pd.DataFrame, *, label: str, **style) -> Axes:
    """Accuracy against SNR with its 95 % Wilson band, from columns level, value, low, high."""
    table = table.assign(level=table["level"].astype(float)).sort_values("level")
    (line,) = ax.plot(table["level"], table["value"], label=label, **style)
    ax.fill_between(
        table["level"], table["low"], table["high"], alpha=0.15, color=line.get_color(), lw=0
    )
    ax.set(xlabel="SNR label", ylabel="accuracy", ylim=(0, 1))
    return ax


def true_db_axis(ax: Axes, channel: Channel, labels: Sequence[float] | None = None) -> Axes:
    """Second axis, on top of one over SNR labels: the SNR per sample in dB, see Channel.snr_db.

    Where the label is the SNR per sample, the one axis says so.

    Args:
        ax: axes over SNR labels.
        channel: relates the two.
        labels: evenly spaced labels of a heat map's columns; None where the axis counts in labels.
    """
    slope, offset_db = channel.snr_slope, channel.snr_offset_db
    if (slope, offset_db) == (1, 0):
        ax.set_xlabel("SNR label, that is SNR per sample (dB)")
        return ax
    first, step, shift = (labels[0], labels[1] - labels[0], 0.5) if labels is not None else (0, 1, 0)

    def to_db(place: np.ndarray) -> np.ndarray:
        return channel.snr_db(first + step * (np.asarray(place) - shift))

    def to_place(snr_db: np.ndarray) -> np.ndarray:
        return ((np.asarray(snr_db) - offset_db) / slope - first) / step + shift

    top = ax.secondary_xaxis("top", functions=(to_db, to_place))
    top.set_xlabel("SNR per sample (dB)")
    return top


def learning_curves(ax: Axes, history: pd.DataFrame, task: str) -> Axes:
    """Accuracy of a task against epoch: training with dropout, both parts in evaluation mode."""
    curves = {
        "train": ("train, dropout on", {"ls": ":", "marker": "."}),
        "train_eval": ("train, evaluation mode", {"ls": "--", "marker": "s"}),
        "validation": ("validation, evaluation mode", {"ls": "-", "marker": "o"}),
    }
    for part, (label, style) in curves.items():
        column = history[f"{part}_{task}_accuracy"]
        ax.plot(history["epoch"], column, label=label, color=COLOUR_OF_TASK[task], **style)
    ax.set(xlabel="epoch", ylabel=f"{LABEL_OF_TASK[task]} accuracy", ylim=(0, None))
    ax.xaxis.get_major_locator().set_params(integer=True)
    return ax


def task_weights(ax: Axes, history: pd.DataFrame) -> Axes:
    """Share of each task against epoch, and the share that inverse losses would give."""
    inverse = 1 / history[["train_modulation_loss", "train_snr_loss"]].to_numpy()
    predicted = inverse / inverse.sum(1, keepdims=True)
    for number, task in enumerate(("modulation", "snr")):
        style, label = {"color": COLOUR_OF_TASK[task]}, LABEL_OF_TASK[task]
        ax.plot(history["epoch"], history[f"weight_{task}"], "o-", label=f"{label}, used", **style)
        ax.plot(history["epoch"], predicted[:, number], "x:", label=f"{label}, inverse loss", **style)
    ax.set(xlabel="epoch", ylabel="task weight", ylim=(0, 1))
    ax.xaxis.get_major_locator().set_params(integer=True)
    return ax


def waterfall(ax: Axes, steps: pd.Series) -> Axes:
    """Shares of all frames from the top down, each bar beginning where the one before ended.

    Args:
        ax: where to draw.
        steps: fractions that sum to one; what is lost, cause by cause, and last what is left.
    """
    bottom = 1 - steps.cumsum()
    colours = [_STEP_COLOURS[number % len(_STEP_COLOURS)] for number in range(len(steps) - 1)]
    ax.bar(range(len(steps)), steps, bottom=bottom.clip(lower=0), color=[*colours, "0.35"], width=0.7)
    for place, (height, base) in enumerate(zip(steps, bottom, strict=True)):
        ax.text(place, max(base, 0) + height + 0.015, f"{100 * height:.1f}%", ha="center", fontsize=6.5)
    ax.plot(np.arange(len(steps)).repeat(2)[1:-1], bottom[:-1].repeat(2), color="0.6", lw=0.6, zorder=0)
    ax.set_xticks(range(len(steps)), steps.index, rotation=30, ha="right", rotation_mode="anchor")
    ax.set(ylabel="share of frames", ylim=(0, 1.08))
    return ax


def stacked_shares(ax: Axes, shares: pd.DataFrame) -> Axes:
    """Shares of frames against SNR, one area a column, that fill the axes from the bottom up."""
    colours = ["0.35", *_STEP_COLOURS[: shares.shape[1] - 1][::-1]]
    edges = {"lw": 0.8, "edgecolor": "white"}
    ax.stackplot(shares.index, shares.to_numpy().T, labels=shares.columns, colors=colours, **edges)
    ax.set(xlabel="SNR label", ylabel="share of frames", ylim=(0, 1))
    ax.set_xlim(shares.index.min(), shares.index.max())
    return ax


def interval_dots(ax: Axes, means: pd.DataFrame) -> Axes:
    """Means with their intervals, one row of the axes each, the first on top.

    The columns are mean, low and high, NaN where there is no interval; the index names the rows.
    """
    error = np.nan_to_num([means["mean"] - means["low"], means["high"] - means["mean"]])
    ax.errorbar(means["mean"], range(len(means)), xerr=error, fmt="o", color="#0072B2", capsize=2)
    ax.set_yticks(range(len(means)), means.index)
    ax.set_ylim(len(means) - 0.5, -0.5)
    ax.grid(axis="x", lw=0.4, color="0.9")
    return ax


def claimed_band(ax: Axes, band: tuple[float, float], label: str) -> Axes:
    """Shade a range of accuracies that somebody reports."""
    ax.axhspan(*band, color="0.85", lw=0, label=label, zorder=0)
    ax.set_ylim(top=max(ax.get_ylim()[1], 1.1 * band[1]))
    return ax


def modulation_bars(ax: Axes, tables: dict[str, pd.DataFrame], metric: str) -> Axes:
    """A metric of each modulation for several runs, coloured by family, runs apart by marker."""
    names = next(iter(tables.values()))["level"].tolist()
    for number, (run, table) in enumerate(tables.items()):
        place = np.arange(len(names)) + (number - (len(tables) - 1) / 2) * 0.66 / len(tables)
        marker = run_style(number)["marker"]
        # An empty series carries the legend entry, so that it has no family's colour.
        ax.plot([], [], marker, color="0.3", label=run)
        for x, (_, row) in zip(place, table.iterrows(), strict=True):
            colour = COLOUR_OF_FAMILY[FAMILY_OF_MODULATION[row["level"]]]
            error = [[max(row["value"] - row["low"], 0)], [max(row["high"] - row["value"], 0)]]
            ax.errorbar(x, row["value"], yerr=error, fmt=marker, color=colour, capsize=1.5)
    ax.set(ylabel=metric.replace("_", " "), ylim=(0, 1))
    ax.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
    return ax


def confusion_heat_map(ax: Axes, rates: pd.DataFrame) -> Axes:
    """Confusion rates in percent, rows true; the darker the more often, with numbers from 5 % on."""
    percent = 100 * rates
    numbers = percent.map("{:.0f}".format).where(percent >= 5, "")
    bar = {"label": "share of the true class (%)", "shrink": 0.8}
    options = {"vmax": 100, "cmap": "Blues", "square": True, "annot": numbers, "fmt": ""}
    _heat_map(ax, percent, **options, cbar_kws=bar).set(xlabel="predicted", ylabel="true")
    return ax


def cell_heat_map(
    ax: Axes, accuracy: pd.DataFrame, label: str = "joint accuracy", *, every: int = 1, **options
) -> Axes:
    """Accuracy of every cell, rows modulations or variants, columns SNR in dB, one in `every` named."""
    options = {"cbar_kws": {"label": label}, "xticklabels": every} | options
    _heat_map(ax, accuracy, **options).set(xlabel="SNR label", ylabel="")
    return ax


def percent_heat_map(ax: Axes, accuracy: pd.DataFrame, notes: pd.DataFrame | None = None) -> Axes:
    """Accuracy as numbers in percent on a coloured table, for a few cells worth reading one by one.

    Notes, strings of the same cells, stand below the numbers.
    """
    numbers = (100 * accuracy).map("{:.0f}".format)
    numbers = numbers if notes is None else numbers + "\n" + notes
    options = {"vmax": 100, "cbar": False, "annot": numbers, "fmt": ""}
    _heat_map(ax, 100 * accuracy, **options).set(xlabel="", ylabel="")
    return ax


def _heat_map(ax: Axes, table: pd.DataFrame, **options) -> Axes:
    """Table from 0 to 1, or to `vmax`, with every row and, but for other options, column named."""
    common = {"vmin": 0, "vmax": 1, "cmap": "cividis", "annot_kws": {"size": 6}}
    common |= {"xticklabels": True, "yticklabels": True}
    sns.heatmap(table, ax=ax, **common | options)
    ax.tick_params(length=0)
    return ax


def calibration(ax: Axes, table: pd.DataFrame, *, label: str, **style) -> Axes:
    """Accuracy against confidence with 95 % intervals; the diagonal is perfect calibration."""
    error = np.abs(table[["low", "high"]].to_numpy().T - table["accuracy"].to_numpy())
    ax.errorbar(table["confidence"], table["accuracy"], yerr=error, label=label, capsize=1.5, **style)
    ax.plot([0, 1], [0, 1], color="0.6", lw=0.8)
    ax.set(xlabel="mean confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    return ax


def time_series(ax: Axes, iq: np.ndarray, num_shown: int = 128) -> Axes:
    """In-phase and quadrature parts of the first samples of a frame, complex64 [num_samples]."""
    ax.plot(iq.real[:num_shown], color="#0072B2", label="in-phase")
    ax.plot(iq.imag[:num_shown], color="#D55E00", ls="--", label="quadrature")
    ax.set(xlabel="time (samples)", ylabel="amplitude")
    return ax


def spectrum(ax: Axes, frequency: np.ndarray, power: np.ndarray, **style) -> Axes:
    """Power spectrum [num_samples] in dB against frequency in cycles per sample."""
    ax.plot(frequency, 10 * np.log10(power), **style)
    ax.set(xlabel="frequency (cycles per sample)", ylabel="power density (dB)", xlim=(-0.5, 0.5))
    return ax


def eye_diagram(ax: Axes, traces: np.ndarray) -> Axes:
    """In-phase part of stretches of a few symbols laid over each other, complex64 [traces, samples]."""
    time = np.arange(traces.shape[1]) / SAMPLES_PER_SYMBOL
    ax.plot(time, traces.real.T, color="#0072B2", alpha=0.25, lw=0.5)
    ax.set(xlabel="time (symbols)", ylabel="in-phase amplitude", xlim=(0, time[-1]))
    return ax


def image(ax: Axes, image: np.ndarray, *, ticks: bool = True) -> Axes:
    """One channel of a constellation image, float [H, W], quadrature upwards."""
    ax.imshow(image, origin="lower", extent=(-WINDOW, WINDOW) * 2, cmap="cividis", vmin=0)
    if ticks:
        ax.set(xlabel="in-phase", ylabel="quadrature")
    else:
        ax.set(xticks=[], yticks=[])
    return ax


def by_level(ax: Axes, table: pd.DataFrame, name: str, ylabel: str) -> Axes:
    """A column of audit.snr.level_table against the SNR label, with its range."""
    ax.plot(table["level"], table[name], "o-", color="#0072B2")
    low, high = table[f"{name}_low"], table[f"{name}_high"]
    ax.fill_between(table["level"], low, high, color="#0072B2", alpha=0.15, lw=0)
    ax.set(xlabel="SNR label", ylabel=ylabel)
    return ax


def gallery(images: np.ndarray, names: Sequence[str], channels: Sequence[str] = ("",)) -> Figure:
    """Page-wide figure of images, float [N, C, H, W], under their names.

    Of one channel all images are shown, nine a row; of several the first nine, a row a channel. Raw
    samples, float [N, 2, num_samples], are shown as their plain image would be.
    """
    if images.ndim == 3:
        iq = torch.complex(*torch.from_numpy(images).unbind(1))
        images, channels = constellation_images(iq, ["raw"], 64).numpy(), ("",)
    if len(channels) > 1:
        shown = images[:9].swapaxes(0, 1).reshape(-1, *images.shape[2:])
    else:
        shown = images[:, 0]
    columns = min(len(images), 9)
    num_rows = -(-len(shown) // columns)
    fig, axes = figure("page", 0.85 * num_rows + 0.35, num_rows, columns, squeeze=False)
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    for number, (ax, tile) in enumerate(zip(axes.flat, shown, strict=False)):
        image(ax, tile, ticks=False)
        if number < len(names) and (len(channels) == 1 or number < columns):
            ax.set_title(names[number])
    for ax, name in zip(axes[:, 0], channels, strict=False):
        ax.set_ylabel(name)
    return fig


def glance(
    images: np.ndarray, names: Sequence[str], levels: Sequence[int], channels: Sequence[str]
) -> Figure:
    """Page-wide figure of images, float [N, L, C, H, W]: N classes down, L levels across a channel.

    Every tile is as bright as its brightest pixel allows, since channels differ in scale.
    """
    peak = images.max(axis=(3, 4), keepdims=True)
    tiles = images / np.where(peak > 0, peak, 1)
    # A blank pixel between tiles; quadrature upwards in each.
    tiles = np.pad(tiles[..., ::-1, :], [(0, 0)] * 3 + [(1, 1)] * 2, constant_values=np.nan)
    side = tiles.shape[-1]
    fig, axes = figure("page", 0.4 + 7.0 * len(names) / (4 * len(levels)), 1, len(channels))
    for number, (ax, channel) in enumerate(zip(np.atleast_1d(axes), channels, strict=True)):
        block = tiles[:, :, number].transpose(0, 2, 1, 3).reshape(len(names) * side, -1)
        ax.imshow(block, cmap="cividis", interpolation="none")
        ax.set_xticks((np.arange(len(levels)) + 0.5) * side, levels)
        ax.set_yticks((np.arange(len(names)) + 0.5) * side, names if number == 0 else [])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set(title=channel, xlabel="SNR label")
    return fig

"""Figures of frames: time, spectrum, eye, constellation image, and statistics against SNR."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from amc_utils.constellation import WINDOW, constellation_images
from amc_utils.dsp.features import CONSTANT_ENVELOPE, SPECTRAL_LINE
from amc_utils.labels import FAMILY_OF_MODULATION
from amc_utils.plots import COLOUR_OF_FAMILY, figure, run_style
from amc_utils.signals import SAMPLES_PER_SYMBOL


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


def image(ax: Axes, picture: np.ndarray, *, ticks: bool = True) -> Axes:
    """One channel of a constellation image, float [H, W], quadrature upwards."""
    ax.imshow(picture, origin="lower", extent=(-WINDOW, WINDOW) * 2, cmap="cividis", vmin=0)
    if ticks:
        ax.set(xlabel="in-phase", ylabel="quadrature")
    else:
        ax.set(xticks=[], yticks=[])
    return ax


def by_level(ax: Axes, table: pd.DataFrame, name: str, ylabel: str) -> Axes:
    """A column of features.level_table against the SNR label, with its range."""
    ax.plot(table["level"], table[name], "o-", color="#0072B2")
    low, high = table[f"{name}_low"], table[f"{name}_high"]
    ax.fill_between(table["level"], low, high, color="#0072B2", alpha=0.15, lw=0)
    ax.set(xlabel="SNR label", ylabel=ylabel)
    return ax


def signatures(ax: Axes, table: pd.DataFrame) -> Axes:
    """Spectral line of iq^2 against envelope spread, one point a class, coloured by family.

    Classes that show something (a line, a constant envelope) carry their names.

    Args:
        ax: where to draw.
        table: columns name, signature, squared_line, envelope_std, see audit_measures.class_evidence.
    """
    families = table["name"].map(FAMILY_OF_MODULATION)
    for family in dict.fromkeys(families):
        rows = table[families == family]
        ax.plot(
            rows["squared_line"],
            rows["envelope_std"],
            "o",
            color=COLOUR_OF_FAMILY[family],
            label=family,
        )
    named = table[table["signature"] != "neither"].sort_values("squared_line")
    for number, (_, row) in enumerate(named.iterrows()):
        # Names of neighbours go to either side of their points.
        side, aim = ((-4, -2), "right") if number % 2 == 0 else ((4, -2), "left")
        place = (row["squared_line"], row["envelope_std"])
        ax.annotate(row["name"], place, side, textcoords="offset points", fontsize=6, ha=aim)
    ax.axvline(SPECTRAL_LINE, color="0.6", lw=0.8, ls=":")
    ax.axhline(CONSTANT_ENVELOPE, color="0.6", lw=0.8, ls=":")
    ax.set(xlabel="share of the strongest line of iq²", ylabel="envelope std / mean")
    ax.set(xlim=(0, 1), ylim=(0, None))
    return ax


def gallery(pictures: np.ndarray, names: Sequence[str], channels: Sequence[str] = ("",)) -> Figure:
    """Page-wide figure of pictures, float [N, C, H, W], under their names.

    Of one channel all pictures are shown, nine a row; of several the first nine, a row a channel. Raw
    samples, float [N, 2, num_samples], are shown as their plain picture would be.
    """
    if pictures.ndim == 3:
        iq = torch.complex(*torch.from_numpy(pictures).unbind(1))
        pictures, channels = constellation_images(iq, ["raw"], 64).numpy(), ("",)
    if len(channels) > 1:
        shown = pictures[:9].swapaxes(0, 1).reshape(-1, *pictures.shape[2:])
    else:
        shown = pictures[:, 0]
    columns = min(len(pictures), 9)
    num_rows = -(-len(shown) // columns)
    fig, axes = figure("page", 0.85 * num_rows + 0.35, num_rows, columns, squeeze=False)
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    for number, (ax, picture) in enumerate(zip(axes.flat, shown, strict=False)):
        image(ax, picture, ticks=False)
        if number < len(names) and (len(channels) == 1 or number < columns):
            ax.set_title(names[number])
    for ax, name in zip(axes[:, 0], channels, strict=False):
        ax.set_ylabel(name)
    return fig


def glance(
    pictures: np.ndarray, names: Sequence[str], levels: Sequence[int], channels: Sequence[str]
) -> Figure:
    """Page-wide figure of pictures, float [N, L, C, H, W]: N classes down, L levels across a channel.

    Every tile is as bright as its brightest pixel allows, since channels differ in scale.
    """
    peak = pictures.max(axis=(3, 4), keepdims=True)
    tiles = pictures / np.where(peak > 0, peak, 1)
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
        ax.set(title=channel, xlabel="SNR label (dB)")
    return fig


def clipping(ax: Axes, measured: pd.DataFrame, simulated: pd.DataFrame) -> Axes:
    """Share of values beyond 2 against the SNR label: points real, lines twin, broken lines textbooks.

    Args:
        ax: where to draw.
        measured: of file_facts.read_facts.
        simulated: the same, channels apart by the column channel.
    """
    real = measured[measured["quantity"] == "clipping"]
    drawn = simulated[simulated["quantity"] == "clipping"]
    for number, (name, points) in enumerate(real.groupby("modulation", sort=False)):
        style = run_style(number)
        seen = points[points["value"] > 0]
        look = {"color": style["color"], "marker": style["marker"], "ls": ""}
        ax.plot(seen["snr_label"], seen["value"], label=name, mfc="none", **look)
        of_class = drawn[drawn["modulation"] == name]
        for channel, line in {"radioml_2018": "-", "per_sample": "--", "es_n0": ":"}.items():
            # One class of each kind shows where the textbooks' labels would lie.
            if channel == "radioml_2018" or name in ("8ASK", "QPSK"):
                curve = of_class[of_class["channel"] == channel]
                ax.plot(curve["snr_label"], curve["value"], line, color=style["color"], lw=0.8)
    for line, label in {"-": "twin", "--": "label per sample", ":": "label Es/N0"}.items():
        ax.plot([], [], line, color="0.3", lw=0.8, label=label)
    ax.set(xlabel="SNR label", ylabel="I and Q beyond ±2 (%)", yscale="log", ylim=(5e-6, 40))
    # Powers of ten would be printed too small to read.
    ax.yaxis.set_major_formatter("{x:g}")
    return ax


def clipping_residual(ax: Axes, measured: pd.DataFrame, simulated: pd.DataFrame) -> Axes:
    """Real minus simulated share of values beyond 2 of the PSKs; grey is the twin's 95 % by chance."""
    keys = ["quantity", "modulation", "snr_label", "x"]
    both = measured.merge(simulated, on=keys)
    both = both[(both["quantity"] == "clipping") & (both["modulation"] != "8ASK")]
    both["residual"] = both["value_x"] - both["value_y"]
    for channel, colour, label in (
        ("table_1", "#D55E00", "Table I"),
        ("radioml_2018", "#000000", "twin"),
    ):
        rows = both[both["channel"] == channel]
        for number, (_, curve) in enumerate(rows.groupby("modulation", sort=False)):
            style = {"color": colour, "marker": run_style(number + 1)["marker"], "ms": 2.5, "lw": 0.6}
            style["label"] = f"{label}, four PSKs" if number == 0 else None
            ax.plot(curve["snr_label"], curve["residual"], **style)
    wide = 1.96 * rows.groupby("snr_label")["chance"].mean()
    ax.fill_between(wide.index, -wide, wide, color="0.7", lw=0, zorder=0, label="95 % by chance")
    ax.set(xlabel="SNR label", ylabel="real minus simulated (% points)")
    return ax


def file_spectrum(ax: Axes, measured: pd.DataFrame, simulated: pd.DataFrame, modulation: str) -> Axes:
    """Power density against frequency: points real, lines simulated, floors in words."""
    lines = {"real": (measured, {"color": "#000000", "marker": "o", "ls": "", "ms": 2.2})}
    for channel, colour, label in (
        ("radioml_2018", "#0072B2", "twin"),
        ("table_1", "#D55E00", "Table I"),
    ):
        lines[label] = (simulated[simulated["channel"] == channel], {"color": colour})
    for label, (table, style) in lines.items():
        rows = table[table["modulation"] == modulation]
        curve = rows[rows["quantity"] == "spectrum"]
        floor = rows.loc[rows["quantity"] == "noise_floor", "value"].iloc[0]
        ax.plot(curve["x"], curve["value"], label=f"{label}, floor {floor:.1f} dB", **style)
    ax.set(xlabel="frequency (symbol rates)", ylabel="power density (dB)", xlim=(0, 4))
    return ax


def ratios_to_file(ax: Axes, table: pd.DataFrame) -> Axes:
    """Simulated over real value, a row each, from some rows of file_facts.comparison."""
    for channel, colour, marker, label in (
        ("radioml_2018", "#0072B2", "o", "twin"),
        ("table_1", "#D55E00", "s", "Table I"),
    ):
        ratio = table[channel] / table["real"]
        ax.plot(ratio, range(len(ratio)), marker, color=colour, label=label)
    spread = 1.96 * (table["chance"] / table["real"]).fillna(0)
    ax.errorbar(np.ones(len(table)), range(len(table)), xerr=spread, fmt="none", color="0.5", capsize=2)
    ax.axvline(1, color="0.6", lw=0.6)
    ax.set_yticks(range(len(table)), [textwrap.fill(what, 24) for what in table.index])
    ax.set(xlabel="simulated over real", xscale="log", ylim=(len(table) - 0.5, -0.5), xlim=(0.18, 4))
    ax.set_xticks([0.2, 0.5, 1, 2], ["0.2", "0.5", "1", "2"])
    ax.minorticks_off()
    return ax

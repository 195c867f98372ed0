"""Figures of files: what tells their classes, and the real file beside simulations.

Every function takes axes and a table and returns the axes.
"""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from amc_utils.dsp.features import CONSTANT_ENVELOPE, SPECTRAL_LINE
from amc_utils.plots import COLOUR_OF_FAMILY, run_style
from amc_utils.signals import FAMILY_OF_MODULATION

# Simulations beside the real file: name, colour and marker of each channel.
_SIMULATIONS = {"radioml_2018": ("twin", "#0072B2", "o"), "table_1": ("Table I", "#D55E00", "s")}


def signatures(ax: Axes, table: pd.DataFrame) -> Axes:
    """Spectral line of iq^2 against envelope spread, one point a class, coloured by family.

    Classes that show something (a line, a constant envelope) carry their names.

    Args:
        ax: where to draw.
        table: columns name, signature, squared_line, envelope_std, see identify.class_evidence.
    """
    families = table["name"].map(FAMILY_OF_MODULATION)
    for family in dict.fromkeys(families):
        rows = table[families == family]
        colour = COLOUR_OF_FAMILY[family]
        ax.plot(rows["squared_line"], rows["envelope_std"], "o", color=colour, label=family)
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


def clipping(ax: Axes, measured: pd.DataFrame, simulated: pd.DataFrame) -> Axes:
    """Share of values beyond 2 against the SNR label: points real, lines twin, broken lines textbooks.

    Args:
        ax: where to draw.
        measured: of radioml.facts.read_facts.
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
    for channel, colour in {"table_1": "#D55E00", "radioml_2018": "#000000"}.items():
        label = _SIMULATIONS[channel][0]
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
    for channel, (label, colour, _) in _SIMULATIONS.items():
        lines[label] = (simulated[simulated["channel"] == channel], {"color": colour})
    for label, (table, style) in lines.items():
        rows = table[table["modulation"] == modulation]
        curve = rows[rows["quantity"] == "spectrum"]
        floor = rows.loc[rows["quantity"] == "noise_floor", "value"].iloc[0]
        ax.plot(curve["x"], curve["value"], label=f"{label}, floor {floor:.1f} dB", **style)
    ax.set(xlabel="frequency (symbol rates)", ylabel="power density (dB)", xlim=(0, 4))
    return ax


def ratios_to_file(ax: Axes, table: pd.DataFrame) -> Axes:
    """Simulated over real value, a row each, from some rows of radioml.facts.comparison."""
    for channel, (label, colour, marker) in _SIMULATIONS.items():
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

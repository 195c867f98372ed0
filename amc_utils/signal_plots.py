"""Figures of frames: time, spectrum, eye, constellation image, and statistics against SNR."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from amc_utils.constellation import WINDOW
from amc_utils.labels import FAMILY_OF_MODULATION
from amc_utils.plots import COLOUR_OF_FAMILY
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


def by_level(ax: Axes, table: pd.DataFrame, ylabel: str) -> Axes:
    """Median and 5 to 95 % range of a statistic against the SNR label (level, median, low, high)."""
    ax.plot(table["level"], table["median"], "o-", color="#0072B2")
    ax.fill_between(table["level"], table["low"], table["high"], color="#0072B2", alpha=0.15, lw=0)
    ax.set(xlabel="SNR label (dB)", ylabel=ylabel)
    return ax


def signatures(ax: Axes, table: pd.DataFrame) -> Axes:
    """Spectral line of iq^2 against envelope spread, one named point a class, coloured by family."""
    for _, row in table.iterrows():
        colour = COLOUR_OF_FAMILY[FAMILY_OF_MODULATION[row["modulation"]]]
        ax.plot(row["squared_line"], row["envelope_std"], "o", color=colour)
    ax.axvline(0.25, color="0.6", lw=0.8, ls=":")
    ax.axhline(0.1, color="0.6", lw=0.8, ls=":")
    ax.set(
        xlabel="share of the strongest line of iq²",
        ylabel="envelope std / mean",
        xlim=(0, 1),
        ylim=(0, None),
    )
    return ax

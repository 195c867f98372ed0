"""One page on a signal of a recording: where it was found, how it looks, and what it is called."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from amc_utils import plots
from amc_utils.dsp.survey import LEAST_LINE, average_spectrum, line_spectrum, noise_floor
from amc_utils.inference.naming import NamedSignal, at_rate
from amc_utils.signals import SAMPLES_PER_SYMBOL

# Samples of the stretch whose spectra are drawn, at least and at most, and how often its bandwidth goes
# into it; rows and columns of the waterfall.
_STRETCHES, _SYMBOLS, _ROWS, _COLUMNS = (2**16, 2**20), 1000, 128, 256
_COLOUR = "#D55E00"
# Probabilities that are drawn, and how many.
_LEAST_SHOWN, _NUM_SHOWN = 1e-3, (3, 6)


def recording_page(named: NamedSignal) -> Figure:
    """Spectrum, waterfall, lines of symbol rates, symbols, eye and probabilities of a signal."""
    fig, axes = plots.figure("page", 4.6, 2, 3)
    recording = named.recording
    samples = _around(named, _STRETCHES[0])
    rate, unit = (recording.sample_rate / 1e3, "kHz") if recording.sample_rate else (1.0, "per sample")
    _spectrum(axes[0, 0], named, samples, rate, unit)
    _waterfall(axes[0, 1], named, rate, unit)
    _lines(axes[0, 2], named, rate, unit)
    points = named.symbols[:16].ravel()
    axes[1, 0].scatter(points.real, points.imag, s=1, alpha=0.3, color="#0072B2", lw=0)
    axes[1, 0].set(xlabel="in-phase", ylabel="quadrature", xlim=(-2, 2), ylim=(-2, 2), aspect="equal")
    if named.traces.size:
        period = 2 * SAMPLES_PER_SYMBOL
        traces = named.traces[:4, : named.traces.shape[1] // period * period].reshape(-1, period)
        plots.eye_diagram(axes[1, 1], traces)
    count = np.clip((named.posterior > _LEAST_SHOWN).sum(), *_NUM_SHOWN)
    best = named.posterior.head(count)[::-1]
    axes[1, 2].barh(best.index, best.to_numpy(), color="#0072B2")
    axes[1, 2].set(xlabel="probability of the recording", xlim=(0, 1))
    titles = ("spectrum", "waterfall", "lines of symbol rates", "symbols", "eye", "modulation")
    for ax, title in zip(axes.flat, titles, strict=True):
        ax.set_title(title)
    foreign = "; UNLIKE THE TRAINING DATA" if named.is_foreign else ""
    fig.suptitle(
        f"{named.title}: {named.modulation}, probability {named.posterior.iloc[0]:.2f}{foreign}\n"
        f"{at_rate(named)}, Es/N0 {named.es_n0_db:.0f} dB"
    )
    return fig


def _around(named: NamedSignal, length: int) -> np.ndarray:
    """So many samples of the recording about the middle of the signal, if it has them."""
    recording = named.recording
    length = min(length, recording.length)
    start = int(np.clip(named.frames["start"].median() - length // 2, 0, recording.length - length))
    return np.nan_to_num(recording.read(start, start + length))


def _spectrum(ax: Axes, named: NamedSignal, samples: np.ndarray, rate: float, unit: str) -> None:
    power = np.fft.fftshift(average_spectrum(samples))
    frequency = (np.arange(len(power)) / len(power) - 0.5) * rate
    ax.plot(frequency, 10 * np.log10(np.maximum(power, 1e-30)), color="0.3", lw=0.6)
    ax.set(xlabel=f"frequency ({unit})", ylabel="density (dB)", xlim=frequency[[0, -1]])
    ax.set_ylim(bottom=10 * np.log10(noise_floor(power)) - 6)
    scale = 1e3 if named.recording.sample_rate else 1.0
    carrier = named.carrier_hz / scale
    width = named.bandwidth_hz / scale
    ax.axvspan(carrier - width / 2, carrier + width / 2, color=_COLOUR, alpha=0.15, lw=0)
    ax.axvline(carrier, color=_COLOUR, lw=0.8)


def _waterfall(ax: Axes, named: NamedSignal, rate: float, unit: str) -> None:
    recording = named.recording
    starts = np.linspace(0, max(recording.length - _COLUMNS, 0), _ROWS).astype(int)
    parts = np.stack([
        np.nan_to_num(recording.read(start, min(start + _COLUMNS, recording.length)))[:_COLUMNS]
        for start in starts
    ])  # fmt: skip
    power = np.abs(np.fft.fftshift(np.fft.fft(parts * np.hanning(parts.shape[1])), 1)) ** 2
    seconds = recording.length / (recording.sample_rate or 1.0)
    image = ax.imshow(
        10 * np.log10(np.maximum(power, power.max() * 1e-9)),
        extent=(-rate / 2, rate / 2, seconds, 0),
        aspect="auto",
        cmap="cividis",
        vmin=10 * np.log10(noise_floor(power.mean(0))),
    )
    ax.figure.colorbar(image, ax=ax, label="power (dB)")
    ax.set(
        xlabel=f"frequency ({unit})", ylabel="time (s)" if recording.sample_rate else "time (samples)"
    )


def _lines(ax: Axes, named: NamedSignal, rate: float, unit: str) -> None:
    if named.found is not None:
        # A slow signal has lines in a long stretch alone.
        samples = _around(named, int(np.clip(_SYMBOLS / named.found.bandwidth, *_STRETCHES)))
        rates, strength = line_spectrum(samples, named.found)
        ax.plot(rates * rate, np.maximum(strength, 0.1), color="0.3", lw=0.6)
        ax.set_yscale("log")
        ax.axhline(LEAST_LINE + np.log(len(strength)), color="0.6", lw=0.8)
    ax.axvline(named.symbol_rate / (1e3 if unit == "kHz" else 1.0), color=_COLOUR, lw=2.0, alpha=0.4)
    ax.set(xlabel=f"symbol rate ({'kBd' if unit == 'kHz' else unit})", ylabel="strength (of noise: 1)")

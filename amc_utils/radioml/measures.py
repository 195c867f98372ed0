"""Measures of frames of any origin, and what they say of public excerpts of RadioML 2018.01A.

The excerpts are small genuine pieces of the licensed file, found in public repositories. Only numbers
leave this module: the samples are under DeepSig's licence.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from amc_utils.signals import SAMPLES_PER_SYMBOL

# In symbol rates: beyond this there is only noise, whatever the pulse.
BEYOND = 2.0
_TIMING_STEP = 0.05  # samples
_FINN_COMMIT = "commit 36f25b8"
_ORIGIN = "github.com/shamoons/modulation-explainability"
_QUANTISED = "github.com/da-steve101/radio_modulation"
_UNNAMED = "outputs of public notebooks on the file; which ones is not recorded"
# Labels 0 to 30 in steps of two, as the repository states them.
_ORIGIN_JOINT = (0.293, 0.418, 0.534, 0.595, 0.668, 0.707, 0.735, 0.762, 0.745, 0.663, 0.513, 0.306,
                 0.249, 0.288, 0.329, 0.398)  # fmt: skip


def clipping_percent(iq: np.ndarray) -> float:
    """Share of I and Q values beyond -2 and 2, in percent."""
    return 100 * float(np.mean([np.abs(iq.real) > 2, np.abs(iq.imag) > 2]))


def power_density(iq: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequency in symbol rates, float64 [F] from 0 up, and power density of each frame [B, F].

    White noise of unit power has unit density. The window is Kaiser's with beta 14, whose leakage lies
    below the noise of every label; densities at f and -f are averaged.
    """
    num_samples = iq.shape[-1]
    window = np.kaiser(num_samples, 14)
    density = np.abs(np.fft.fft(iq * window)) ** 2 / np.sum(window**2)
    both = (density + np.roll(density[:, ::-1], 1, 1)) / 2
    half = num_samples // 2 + 1
    return np.arange(half) * SAMPLES_PER_SYMBOL / num_samples, both[:, :half]


def noise_floor_db(iq: np.ndarray) -> float:
    """Density of the noise in dB: the median over frames, which broken frames leave alone."""
    frequency, density = power_density(iq)
    return float(10 * np.log10(np.median(density[:, frequency > BEYOND].mean(1))))


def squared_carrier(iq: np.ndarray) -> np.ndarray:
    """Carrier offset of BPSK frames in cycles per sample, float64 [B], from the line of iq^2.

    The square of a real-valued signal is positive but for its carrier, so that its phase is a straight
    line; the strongest of its spectral lines says where to look.
    """
    line = iq.astype(complex) ** 2
    time = np.arange(line.shape[1])
    spectrum = np.abs(np.fft.fft(line, 8 * len(time)))
    offset = np.fft.fftfreq(8 * len(time))[spectrum.argmax(1)]
    for _ in range(2):
        rest = line * np.exp(-2j * np.pi * offset[:, None] * time)
        angle = np.angle(rest * rest.sum(1, keepdims=True).conj())
        weight = np.abs(rest) ** 2 / np.sum(np.abs(rest) ** 2, 1, keepdims=True)
        centred = time - (weight * time).sum(1, keepdims=True)
        slope = (weight * centred * angle).sum(1) / (weight * centred**2).sum(1)
        offset = offset + slope / (2 * np.pi)
    return offset / 2


def kurtosis(values: np.ndarray) -> float:
    """Fourth central moment over the squared variance; 3 for a normal distribution."""
    centred = values - values.mean()
    return float(np.mean(centred**4) / np.mean(centred**2) ** 2)


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
    slope = np.clip((np.abs(frequency) - 0.295) / 0.41, 0, 1)
    shape = (0.5 * (1 + np.cos(np.pi * slope))) ** 1.5
    time = np.arange(num_samples)[:, None, None] / SAMPLES_PER_SYMBOL
    symbol = np.arange(-7, num_samples // SAMPLES_PER_SYMBOL + 8)[:, None]
    spaces = []
    for offset in np.arange(0, SAMPLES_PER_SYMBOL, _TIMING_STEP):
        place = time - symbol - offset / SAMPLES_PER_SYMBOL
        pulses = np.cos(2 * np.pi * frequency * place) @ shape
        space, strength, _ = np.linalg.svd(pulses, full_matrices=False)
        spaces.append(space[:, strength > 0.01 * strength[0]])
    return spaces


def fact(
    quantity: str, modulation: str, snr_label: Any, x: Any, value: float, unit: str, num_frames: Any
) -> dict[str, Any]:
    """One row of a table of facts; what does not apply is NaN or NA."""
    return {
        "quantity": quantity,
        "modulation": modulation,
        "snr_label": snr_label,
        "x": x,
        "value": float(value),
        "unit": unit,
        "num_frames": num_frames,
    }


def of_stretches(iq: np.ndarray, modulation: str, snr_label: int) -> list[dict[str, Any]]:
    """Rows quantity, modulation, snr_label, x, value, unit, num_frames of frames complex [B, 128]."""
    power = np.mean(np.abs(iq) ** 2, 1)
    frequency, density = power_density(iq)
    # What is left over whole samples lies on a circle; mean and spread are the circle's.
    fraction = np.mean(np.exp(2j * np.pi * symbol_timing(iq)))
    rows = [
        ("spectrum", x, 10 * np.log10(p), "dB") for x, p in zip(frequency, density.mean(0), strict=True)
    ]
    rows += [
        ("noise_floor", np.nan, noise_floor_db(iq), "dB"),
        ("mean_power", np.nan, power.mean(), ""),
        ("timing_fraction", np.nan, np.angle(fraction) / (2 * np.pi) % 1, "samples"),
        ("timing_spread", np.nan, np.sqrt(-2 * np.log(np.abs(fraction))) / (2 * np.pi), "samples"),
        ("power_std", np.nan, power.std(), ""),
    ]
    if modulation == "BPSK":
        offset = squared_carrier(iq)
        rows.append(("carrier_std", np.nan, offset.std(), "cycles per sample"))
        rows.append(("carrier_kurtosis", np.nan, kurtosis(offset), ""))
    return [fact(what, modulation, snr_label, x, value, unit, len(iq)) for what, x, value, unit in rows]


def measured_facts(excerpts: Path) -> pd.DataFrame:
    """What the excerpts say, rows of of_stretches with the columns how and source."""
    rows = []
    with np.load(excerpts / "clipping_curves_all_labels.npz") as curves:
        told = {"how": "stated by the source", "source": f"{curves['source']}, {_FINN_COMMIT}"}
        for name, shares in zip(curves["modulation"], curves["percent_over_2"], strict=True):
            for snr_label, share in zip(curves["snr_db"], shares, strict=True):
                # One value of the 4,096 frames is 1.2e-5 percent; the plot puts none at 3.6e-9.
                share = share if share > 1e-6 else 0.0
                rows.append(
                    fact("clipping", str(name), snr_label, np.nan, share, "percent", 4096) | told
                )
    with np.load(excerpts / "bpsk_qpsk_label30_first128.npz") as short:
        told = {"how": "measured", "source": f"{short['source']}, {_FINN_COMMIT}"}
        for name in ("QPSK", "BPSK"):
            frames = short["iq"][short["modulation"] == name]
            rows += [row | told for row in of_stretches(frames.astype(complex), name, 30)]
    for file in ("16qam_label30_from_svg_256", "8psk_label30_every_8th"):
        with np.load(excerpts / f"{file}.npz") as few:
            told = {"how": "measured", "source": f"{few['source']}, {_FINN_COMMIT}"}
            power, name = np.mean(np.abs(few["iq"]) ** 2), str(few["modulation"][0])
            rows.append(fact("mean_power", name, 30, np.nan, power, "", len(few["iq"])) | told)
    told = {"how": "stated in public notebook outputs (see source)", "source": _UNNAMED}
    rows.append(fact("mean_power", "8ASK", 30, np.nan, 3.68, "", 4096) | told)
    rows.append(fact("mean_power", "4ASK", pd.NA, np.nan, 2.168, "", 26 * 4096) | told)
    return pd.DataFrame(rows + list(_whole_frames(excerpts))).astype({"snr_label": "Int64"})


def _whole_frames(excerpts: Path) -> Iterator[dict[str, Any]]:
    """Rows of the four whole frames, whose number stands in x."""
    with np.load(excerpts / "four_whole_frames.npz") as whole:
        told = {"how": "inferred", "source": str(whole["source"])}
        names = [str(name).removesuffix(" (inferred)") for name in whole["modulation"]]
        labels, snr_db = whole["snr_db"], whole["snr_per_sample_measured_db"]
        for number, iq in enumerate(whole["iq"].astype(complex)):
            at = (names[number], labels[number], number)
            direct = abs(iq.mean()) ** 2
            for quantity, value, unit in (
                ("whole_frame_snr", snr_db[number], "dB per sample"),
                ("whole_frame_noise_floor", noise_floor_db(iq[None]), "dB"),
                ("whole_frame_power", np.mean(np.abs(iq) ** 2), ""),
                ("whole_frame_direct_power", direct, ""),
                ("whole_frame_clipping", clipping_percent(iq), "percent"),
            ):
                yield fact(quantity, *at, value, unit, 1) | told


def published_results(excerpts: Path) -> pd.DataFrame:
    """Accuracies of others on the real file: source, network, num_classes, task, snr_label, ...

    The remaining columns are value and num_frames.
    """
    rows, folder = [], excerpts / "published_confusions"
    with np.load(folder / "shamoons_origin_272.npz") as origin:
        for task, confusions in (
            ("snr", origin["snr"][:, None, :]),
            ("modulation", origin["modulation_by_snr"]),
        ):
            frames = confusions.sum((1, 2))
            right = (
                confusions.diagonal(0, 1, 2) if task == "modulation" else confusions[:, 0].diagonal()
            )
            right = right.reshape(len(frames), -1).sum(1)
            rows += [
                (_ORIGIN, "ResNet50", 272, task, 2 * place, hits / count, count)
                for place, (hits, count) in enumerate(zip(right, frames, strict=True))
            ]
        joint = zip(_ORIGIN_JOINT, frames, strict=True)
        told = f"{_ORIGIN}, as it states"
        rows += [(told, "ResNet50", 272, "joint", 2 * i, v, n) for i, (v, n) in enumerate(joint)]
    with np.load(folder / "da-steve101_radio_modulation.npz") as other:
        frames = other["confusion"].sum((2, 3))
        accuracy = other["confusion"].diagonal(0, 2, 3).sum(2) / frames
        names, labels = [str(name) for name in other["models"]], other["snr_db"]
    resnet = names.index("resnet")
    best = max((i for i in range(len(names)) if i != resnet), key=lambda i: accuracy[i].mean())
    for model in (resnet, best):
        for snr_label, value, count in zip(labels, accuracy[model], frames[model], strict=True):
            rows.append((_QUANTISED, names[model], 24, "modulation", snr_label, value, count))
    names = ["source", "network", "num_classes", "task", "snr_label", "value", "num_frames"]
    return pd.DataFrame(rows, columns=names)

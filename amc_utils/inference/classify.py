"""Modulation and SNR of a recording, or of the frames of a file in RadioML 2018.01A's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from amc_utils.dsp.features import mean_power
from amc_utils.inference.classifier import SHIPPED, SHIPPED_FOR_RADIOML, Classifier, load_classifier
from amc_utils.inference.formats import open_recording
from amc_utils.inference.ood import SIGNIFICANCE, is_out_of_distribution
from amc_utils.inference.recordings import FrameCut
from amc_utils.radioml.reader import evenly_spaced, open_radioml
from amc_utils.runtime.paths import REPOSITORY, atomic_write
from amc_utils.runtime.plugins import load_plugins
from amc_utils.signals import (
    NUM_SAMPLES,
    RADIOML_2018_MODULATIONS,
    SAMPLES_PER_SYMBOL,
    to_unit_power,
)

# 16QAM, ten samples a symbol, 16 dB, made by GNU Radio; see the README beside it.
EXAMPLE_SYMBOL_RATE = 100e3
EXAMPLE = REPOSITORY / "tests" / "data" / "gnuradio_16qam.sigmf-meta"
MODELS = {path.parent.name: path for path in (SHIPPED, SHIPPED_FOR_RADIOML)}
_FILE_SUFFIXES = (".h5", ".hdf5")
# With more than this share of flagged frames, though it may be chance, no recording is called like the
# training data.
_MANY = 0.05
# Mean power of frames at the scale of a record: PSK has 1, 8ASK 3.8.
_RECORD_POWER = (0.5, 5.0)


def classify_command(
    recording: str,
    sample_rate: float = 0.0,
    symbol_rate: float = 0.0,
    offset_hz: float = 0.0,
    num_frames: int = 256,
    model: str = "",
    plugins: list[str] = [],  # noqa: B006 - read only, and its type is that of the option
    csv: str = "",
) -> None:
    """Name the modulation and SNR of a recording, or of a file's frames.

    Files in the layout of RadioML 2018.01A are read by the network trained for them, recordings by the
    other one.

        amc classify recording.sigmf-meta --symbol_rate 125e3
        amc classify samples.cf32 --sample_rate 1e6 --symbol_rate 125e3 --csv frames.csv
        amc classify GOLD_XYZ_OSC.0001_1024.hdf5
        amc classify frames.npy --model radioml_2018-likelihoods

    Args:
        recording: SigMF, .npy or complex64 file, or HDF5 in RadioML's layout.
        sample_rate: samples per second, if the file does not say it; 0 takes the file's.
        symbol_rate: symbols per second; 0 means eight samples a symbol.
        offset_hz: carrier to take out, as --offset_hz=-12e3.
        num_frames: frames at most, evenly spread.
        model: open-24, radioml_2018-likelihoods, or an exported file; empty chooses by the input.
        plugins: Python files that the model needs, as "[my_network.py]".
        csv: file to write, a row a frame.
    """
    load_plugins(plugins)
    default = SHIPPED_FOR_RADIOML if Path(recording).suffix in _FILE_SUFFIXES else SHIPPED
    classifier = load_classifier(MODELS.get(model, model) or default)
    table = classify(
        recording,
        classifier,
        sample_rate=sample_rate or None,
        symbol_rate=symbol_rate or None,
        offset_hz=offset_hz,
        num_frames=num_frames,
    )
    print(f"{_frames_read(Path(recording), table, symbol_rate)}, read by {classifier.run}")
    print(summary(table))
    if csv:
        with atomic_write(Path(csv)) as temporary:
            table.to_csv(temporary, index=False, float_format="%.4f", lineterminator="\n")


def _frames_read(path: Path, table: pd.DataFrame, symbol_rate: float) -> str:
    """How many frames of what were read, and what was assumed or left out."""
    text = f"{path.name}: {len(table)} frames of 1,024 samples"
    if not symbol_rate and path.suffix not in _FILE_SUFFIXES:
        text += ", eight samples a symbol assumed"
    num_silent = table.attrs.get("num_silent", 0)
    return text + (f", {num_silent} silent ones left out" if num_silent else "")


def classify(
    path: Path | str,
    classifier: Classifier,
    *,
    sample_rate: float | None = None,
    symbol_rate: float | None = None,
    offset_hz: float = 0.0,
    num_frames: int = 256,
) -> pd.DataFrame:
    """What a classifier makes of a recording, or of frames of a file in RadioML 2018.01A's layout.

    One row a frame; `start` is its first sample, or its row in a file. For the arguments see
    open_recording and Recording.frames, for the other columns Classifier.table. A file has only its
    frames of classes that the network knows, and true_modulation and true_snr_label of its labels.

    Raises:
        FileNotFoundError: no such recording or file.
        ValueError: see open_recording, Recording.frames and open_radioml; frames of another scale than
            that of training.
    """
    if Path(path).suffix in _FILE_SUFFIXES:
        return _classify_file(Path(path), classifier, num_frames)
    recording = open_recording(path, sample_rate)
    cut = recording.frames(symbol_rate=symbol_rate, offset_hz=offset_hz, num_frames=num_frames)
    iq = _at_scale(cut, kept=Path(path).suffix == ".npy") if classifier.keeps_scale else cut.iq
    table = classifier.table(classifier(iq))
    table.insert(0, "start", cut.start)
    table.attrs["num_silent"] = cut.num_silent
    return table


def _classify_file(path: Path, classifier: Classifier, num_frames: int) -> pd.DataFrame:
    known = classifier.config.modulation_names
    with open_radioml(path) as file:
        names = np.array(RADIOML_2018_MODULATIONS)[file.modulation()]
        labels = file.snr_label()
        there = np.flatnonzero(np.isin(names, known) & np.isin(labels, classifier.config.snr_labels))
        if not len(there):
            raise ValueError(f"{path} must hold frames of {', '.join(known)}, it has none")
        rows = there[evenly_spaced(len(there), num_frames)]
        samples = torch.empty(len(rows), NUM_SAMPLES, 2)
        for part, some in file.blocks(rows):
            samples[part] = some
    iq = torch.view_as_complex(samples)
    if classifier.keeps_scale:
        _check_scale(iq, path.name)
    else:
        iq = to_unit_power(iq)
    table = classifier.table(classifier(iq))
    table.insert(0, "start", rows)
    return table.assign(true_modulation=names[rows], true_snr_label=labels[rows])


def _at_scale(cut: FrameCut, *, kept: bool) -> Tensor:
    """Frames at the scale of a record: as they are, or over their standard deviation, mean kept."""
    iq = cut.iq * cut.root_power[:, None]
    if kept:
        _check_scale(iq, "the array")
        return iq
    # Phases differ from frame to frame, so the mean that is kept is that of each.
    varying = mean_power(iq) - iq.mean(1).abs().square()
    return iq / varying.mean().sqrt()


def _check_scale(iq: Tensor, name: str) -> None:
    power, (low, high) = float(mean_power(iq).mean()), _RECORD_POWER
    if not low <= power <= high:
        raise ValueError(
            f"frames of {name} must have the scale of RadioML 2018.01A, a mean power from {low} to "
            f"{high}, got {power:.3g}; divide them by their standard deviation, "
            f"or take --model open-24"
        )


def summary(table: pd.DataFrame) -> str:
    """A few lines on a recording or file, from the frames of classify or Classifier.table."""
    lines = _scores(table) if "true_modulation" in table else _names(table)
    count, flagged = len(table), int((table["p_value"] < SIGNIFICANCE).sum())
    level = f"{SIGNIFICANCE:.0%}"
    seen = f"{flagged} of {count} frames have a p-value below {level} (expected: {level})"
    if is_out_of_distribution(flagged, count):
        lines.append(f"  UNLIKE THE TRAINING DATA: {seen}; do not trust modulation and SNR of these")
    elif flagged > _MANY * count:
        lines.append(f"  too few frames to tell whether this is like the training data: {seen}")
    else:
        lines.append(f"  like the training data: {seen}")
    return "\n".join(lines)


def _names(table: pd.DataFrame) -> list[str]:
    names = table["modulation"].value_counts(normalize=True)
    sure = table.groupby("modulation")["modulation_confidence"].mean()
    lines = [
        f"  {name:<10} {share:>4.0%} of frames, mean confidence {sure[name]:.2f}"
        for name, share in names.head(3).items()
    ]
    low, middle, high = table["snr_db"].quantile([0.1, 0.5, 0.9])
    es_n0 = 10 * np.log10(SAMPLES_PER_SYMBOL)
    label = ""
    if (table["snr_db"] != table["snr_label"]).any():
        label = f"SNR label {table['snr_label'].median():.0f}, that is "
    lines.append(
        f"  {label}SNR per sample {middle:.0f} dB (8 of 10 frames from {low:.0f} to {high:.0f} dB), "
        f"Es/N0 {middle + es_n0:.0f} dB"
    )
    return lines


def _scores(table: pd.DataFrame) -> list[str]:
    """How often the frames of a labelled file are named as their labels say."""
    right = pd.DataFrame({
        "modulation": table["modulation"] == table["true_modulation"],
        "SNR label": table["snr_label"] == table["true_snr_label"],
    })  # fmt: skip
    right["both"] = right.all(axis=1)
    parts = {"all labels": slice(None), "labels of 0 and more": table["true_snr_label"] >= 0}
    return [
        f"  {what}: {len(some):,} frames; as labelled: "
        + ", ".join(f"{name} {share:.1%}" for name, share in some.mean().items())
        for what, some in ((what, right.loc[part]) for what, part in parts.items())
        if len(some)
    ]

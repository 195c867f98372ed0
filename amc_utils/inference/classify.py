"""Modulation and SNR of a recording, or of the frames of a file in RadioML 2018.01A's layout."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import Field, field_validator
from torch import Tensor

from amc_utils.dsp.features import mean_power
from amc_utils.inference import naming
from amc_utils.inference.classifier import SHIPPED, SHIPPED_FOR_RADIOML, Classifier, load_classifier
from amc_utils.inference.formats import (
    SUFFIXES,
    annotated_file,
    open_recording,
    open_recordings,
    recording_of_bytes,
    sample_width,
    write_annotations,
)
from amc_utils.inference.naming import NamedSignal, classify_recording
from amc_utils.inference.ood import SIGNIFICANCE, is_out_of_distribution
from amc_utils.inference.recordings import Recording
from amc_utils.radioml.reader import evenly_spaced, open_radioml
from amc_utils.runtime.parameters import Parameters
from amc_utils.runtime.paths import REPOSITORY, atomic_write
from amc_utils.runtime.plugins import load_plugins
from amc_utils.signals import (
    SAMPLES_PER_SYMBOL,
    to_unit_power,
)

# 16QAM, ten samples a symbol, 16 dB, made by GNU Radio; see the README beside it.
EXAMPLE = REPOSITORY / "tests" / "data" / "gnuradio_16qam.sigmf-meta"
MODELS = {path.parent.name: path for path in (SHIPPED, SHIPPED_FOR_RADIOML)}
_FILE_SUFFIXES = (".h5", ".hdf5")
_FIGURE_SUFFIXES = (".pdf", ".png", ".svg", ".jpg")
# Samples of a stream that are named at once, at least.
_LEAST_STREAMED = 2**16
# With more than this share of flagged frames, though it may be chance, no recording is called like the
# training data.
_MANY = 0.05
# Mean power of frames at the scale of a record: PSK has 1, 8ASK 3.8.
_RECORD_POWER = (0.5, 5.0)


class ClassificationParameters(Parameters):
    """What to name, what is told of it, and what to write.

    Attributes:
        recordings: files (SigMF, WAV, NumPy, raw samples, HDF5 in RadioML's layout), folders of such,
            or - for standard input, of which every second is named as it comes.
        sample_rate: samples per second, if the file does not say it; 0 takes the file's.
        symbol_rate: symbols per second; 0 finds it.
        offset_hz: carrier, as --offset_hz=-12e3; left out it is found.
        start: seconds from the beginning; samples, if nobody knows the sample rate.
        stop: the same of the end; 0 for the end itself.
        annotation: number of the SigMF annotation, from 0, that names the stretch; -1 for none.
        datatype: of raw samples, as cu8 or ci16; empty takes what the suffix says.
        num_frames: frames of each signal at most, evenly spread.
        num_signals: signals of a recording at most, those with the strongest lines.
        model: open-24, radioml_2018-likelihoods, or an exported file; empty chooses by the input.
        plugins: Python files that the model needs, as "[my_network.py]".
        figure: PDF to draw, a page a signal; or an image, several with _1, _2 and so on in their names.
        csv: file to write, a row a frame.
        json_: file to write, a list of what was found of each signal, or said of a file without any.
        annotate: write what was found into the SigMF recordings, as annotations.
    """

    recordings: list[str] = Field(min_length=1)
    sample_rate: float = Field(0.0, ge=0, allow_inf_nan=False)
    symbol_rate: float = Field(0.0, ge=0, allow_inf_nan=False)
    offset_hz: float | None = Field(None, allow_inf_nan=False)
    start: float = Field(0.0, ge=0, allow_inf_nan=False)
    stop: float = Field(0.0, ge=0, allow_inf_nan=False)
    annotation: int = Field(-1, ge=-1)
    datatype: str = ""
    num_frames: int = Field(256, ge=1)
    num_signals: int = Field(8, ge=1)
    model: str = ""
    plugins: list[str] = Field([])
    figure: str = ""
    csv: str = ""
    json_: str = Field("", alias="json")
    annotate: bool = False

    @field_validator("figure")
    @classmethod
    def _known_format(cls, name: str) -> str:
        if name and Path(name).suffix not in _FIGURE_SUFFIXES:
            raise ValueError(f"figure must end in one of {', '.join(_FIGURE_SUFFIXES)}, got {name}")
        return name

    @property
    def options(self) -> dict[str, Any]:
        """What classify_recording takes of it."""
        told = {"symbol_rate": self.symbol_rate or None, "offset_hz": self.offset_hz}
        return told | {"num_frames": self.num_frames, "most": self.num_signals}

    def classifier(self, default: Path) -> Classifier:
        """The one that is named, or that of a path; each is read once.

        Raises:
            FileNotFoundError: no such model.
        """
        model = Path(MODELS.get(self.model, self.model) or default)
        if not model.is_file():
            raise FileNotFoundError(
                f"model must be {', '.join(MODELS)} or a file that amc export wrote, got {self.model}"
            )
        return _loaded(model)


@cache
def _loaded(model: Path | str) -> Classifier:
    return load_classifier(model)


def classify_command(config: ClassificationParameters) -> None:
    """Name the signals of recordings with nothing told, or the frames of a file.

    Band, symbol rate and carrier of each signal are found; what is told stands above it. Frames of
    files in the layout of RadioML 2018.01A, and arrays of frames, are named as they are.

        amc classify satellite.wav --figure page.pdf
        amc classify recordings/ --json names.json
        amc classify dongle.cu8 --sample_rate 2.4e6 --start 1.5 --stop 2
        rtl_sdr -f 433.92M -s 1e6 - | amc classify - --datatype cu8 --sample_rate 1e6
        amc classify GOLD_XYZ_OSC.0001_1024.hdf5
    """
    load_plugins(config.plugins)
    if config.recordings == ["-"]:
        _classify_stream(config)
        return
    answers = _Answers([], [], [])
    files, failures = list(_files(config.recordings)), []
    for path in files:
        try:
            _classify_path(path, config, answers)
        except (ValueError, OSError) as error:
            answers.facts.append({"file": str(path), "modulation": None, "error": str(error)})
            failures.append(error)
            if len(files) > 1:
                print(f"{path}: {error}", file=sys.stderr, flush=True)
    answers.write(config)
    if failures and len(files) == 1:
        raise failures[0]
    if failures:
        raise ValueError(f"{len(failures)} of {len(files)} recordings could not be read, see above")


@dataclass(frozen=True)
class _Answers:
    """What was found in files: a table of frames a signal, the signals, and what is said of all."""

    tables: list[pd.DataFrame]
    signals: list[NamedSignal]
    facts: list[dict[str, Any]]

    def add(self, path: Path, recording: Recording, named: list[NamedSignal]) -> None:
        """Those of a recording."""
        file, name = {"file": str(path)}, recording.name
        rows = [some.frames.assign(recording=name, signal=some.number) for some in named]
        self.tables.extend(table.assign(start=table["start"] + recording.first) for table in rows)
        self.signals.extend(named)
        nothing = [{"recording": name, "modulation": None, "notes": list(recording.notes)}]
        self.facts.extend(file | facts for facts in [some.facts() for some in named] or nothing)

    def add_frames(self, path: Path, table: pd.DataFrame) -> None:
        """Those of a file of frames."""
        self.tables.append(table.assign(recording=path.name, signal=0))
        shares = table["modulation"].value_counts(normalize=True)
        flagged = float((table["p_value"] < SIGNIFICANCE).mean())
        said = {"frames_named": shares.to_dict(), "num_frames": len(table), "flagged": flagged}
        self.facts.append({"file": str(path), "modulation": shares.index[0]} | said)

    def write(self, config: ClassificationParameters) -> None:
        """The files that were asked for."""
        if config.figure and self.signals:
            _draw(Path(config.figure), self.signals)
        elif config.figure:
            print(f"{config.figure} is not drawn, since nothing was found")
        if config.csv and self.tables:
            with atomic_write(Path(config.csv)) as temporary:
                table = pd.concat(self.tables)
                table.to_csv(temporary, index=False, float_format="%.4f", lineterminator="\n")
        if config.json_:
            with atomic_write(Path(config.json_)) as temporary:
                temporary.write_text(json.dumps(self.facts, indent=1) + "\n", encoding="utf8")


def _classify_path(path: Path, config: ClassificationParameters, answers: _Answers) -> None:
    """Print what a file holds, and add it to the answers."""
    if config.annotate:
        annotated_file(path)
    if path.is_dir():
        raise ValueError(f"folder {path} must hold recordings, of {', '.join(SUFFIXES)}; it has none")
    is_radioml = path.suffix in _FILE_SUFFIXES
    told = config.sample_rate or None, config.datatype
    recordings = [] if is_radioml else open_recordings(path, *told)
    if is_radioml or recordings[0].is_frames:
        classifier = config.classifier(SHIPPED_FOR_RADIOML if is_radioml else SHIPPED)
        table = classify(path, classifier, num_frames=config.num_frames)
        print(f"{_frames_read(path, table)}, read by {classifier.run}\n{summary(table)}")
        answers.add_frames(path, table)
        return
    classifier = config.classifier(SHIPPED)
    for recording in recordings:
        part = recording.stretch(config.start, config.stop or math.inf, config.annotation)
        named = classify_recording(part, classifier, **config.options)
        print(_described(part, named, classifier.run), flush=True)
        answers.add(path, part, named)
        if config.annotate:
            write_annotations(path, named)


def _files(words: list[str]) -> Iterator[Path]:
    """Files that are named, and those of folders that are recordings; folders without any."""
    for word in words:
        path = Path(word)
        if not path.is_dir():
            yield path
            continue
        there = [some for some in sorted(path.iterdir()) if some.suffix in SUFFIXES]
        yield from there or [path]


def _described(recording: Recording, named: list[NamedSignal], run: str) -> str:
    """What a recording holds, a few lines a signal."""
    notes = "".join(f", {note}" for note in recording.notes)
    if not named:
        return (
            f"{recording.name}: no signal with a symbol rate found{notes}; if there is one, tell "
            f"--symbol_rate and --offset_hz"
        )
    texts = [f"{some.title}, read by {run}{notes}:\n{naming.summary(some)}" for some in named]
    return "\n".join(texts)


def _draw(path: Path, found: list[NamedSignal]) -> None:
    """A page a signal, in one PDF, or in images that are numbered where there are several."""
    # Here, since nothing else needs the second that it takes.
    from amc_utils import plots
    from amc_utils.inference.page import recording_page

    plots.use_style()
    if path.suffix == ".pdf":
        from matplotlib.backends.backend_pdf import PdfPages

        with atomic_write(path) as temporary, PdfPages(temporary) as pages:
            for some in found:
                pages.savefig(recording_page(some))
        return
    for number, some in enumerate(found, 1):
        name = path if len(found) == 1 else path.with_stem(f"{path.stem}_{number}")
        with atomic_write(name) as temporary:
            recording_page(some).savefig(temporary)
        print(f"{name} shows {some.title}")


def _classify_stream(config: ClassificationParameters) -> None:
    """A line for each second, or so many samples, of what comes from standard input."""
    if not (config.datatype and config.sample_rate):
        raise ValueError("datatype and sample_rate must be told for standard input, as cu8 and 1e6")
    datatype, clock = config.datatype, 0.0
    count = max(int(config.sample_rate), _LEAST_STREAMED)
    while block := sys.stdin.buffer.read(count * sample_width(datatype)):
        recording = recording_of_bytes("stream", block, datatype, config.sample_rate)
        named = classify_recording(recording, config.classifier(SHIPPED), **config.options)
        said = "; ".join(
            f"{some.modulation} {some.posterior.iloc[0]:.2f}, {naming.at_rate(some)}, "
            f"Es/N0 {some.es_n0_db:.0f} dB" + (", unlike the training data" if some.is_foreign else "")
            for some in named
        )
        print(f"{clock:.1f} s: {said or 'no signal with a symbol rate'}", flush=True)
        clock += recording.length / config.sample_rate


def _frames_read(path: Path, table: pd.DataFrame) -> str:
    """How many frames were read, and what was left out."""
    text = f"{path.name}: {len(table)} frames of 1,024 samples"
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
    iq = cut.iq
    if classifier.keeps_scale and recording.is_frames:
        iq = cut.iq * cut.root_power[:, None]
        _check_scale(iq, "the array")
    elif classifier.keeps_scale:
        iq = cut.at_record_scale()
    table = classifier.table(classifier(iq))
    table.insert(0, "start", cut.start)
    table.attrs["num_silent"] = cut.num_silent
    return table


def _classify_file(path: Path, classifier: Classifier, num_frames: int) -> pd.DataFrame:
    known = classifier.config.modulation_names
    with open_radioml(path, classifier.config.num_samples) as file:
        names = np.array(file.modulations)[file.modulation()]
        labels = file.snr_label()
        there = np.flatnonzero(np.isin(names, known) & np.isin(labels, classifier.config.snr_labels))
        if not len(there):
            raise ValueError(f"{path} must hold frames of {', '.join(known)}, it has none")
        rows = there[evenly_spaced(len(there), num_frames)]
        samples = torch.empty(len(rows), file.num_samples, 2)
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

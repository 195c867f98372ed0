"""Whether a RadioML-like file is what its labels say, decided from a sample of its frames.

    amc audit FILE
    amc audit FILE --label-order shipped --json report.json

Prints a page; exits with status 2 where a check fails, on which no network should be trained.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amc_utils.audit import channel, measures, snr
from amc_utils.audit.recognition import Known, known_preset, known_pulse
from amc_utils.audit.report import page
from amc_utils.audit.verdicts import judge
from amc_utils.dsp.features import SnrLine, level_table, snr_line
from amc_utils.radioml.reader import LABEL_ORDERS, RadioMLFile, open_radioml
from amc_utils.runtime.paths import replacing
from amc_utils.runtime.progress import progress
from amc_utils.signals import NUM_SAMPLES, SNR_LABELS

# Frames looked at; raise the version when a check changes.
NUM_FRAMES = 20_000
VERSION = 4
# Pieces of a cell that are read.
_STRETCHES = 3
# Classes are looked for this far below the highest SNR, which counts as no more than the second.
_REACH_DB, _ENOUGH_DB = 8.5, 38.0


def audit(path: Path | str, *, label_order: str = "corrected", num_frames: int = NUM_FRAMES) -> dict:
    """Report on a file, ready for JSON: facts, and verdicts with whether the file passed.

    Args:
        path: the file, see amc_utils.radioml.reader.
        label_order: list of names that its labels are taken to follow, "corrected" or "shipped".
        num_frames: frames to look at, as many of each (modulation, SNR) cell.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read.
    """
    started = time.perf_counter()
    with open_radioml(path) as file:
        modulation, snr_label = file.modulation(label_order), file.snr_label()
        cell = modulation * len(SNR_LABELS) + (snr_label - SNR_LABELS[0]) // 2
        rows = _sample(cell, num_frames)
        samples = torch.empty(len(rows), NUM_SAMPLES, 2)
        with progress(total=len(rows), desc=f"reading {file.path.name}", unit=" frames") as bar:
            for place, _ in file.blocks(rows, samples, check=False):
                bar.update(place.stop - place.start)
        report = {"file": file.path.name, "layout": _layout(file, cell), "label_order": label_order}
    report["frames"] = len(rows)
    usable, bad = measures.sound_frames(samples)
    report["bad_frames"] = {what: rows[found].tolist() for what, found in bad.items()}
    pairs = measures.duplicates(samples, cell[rows])
    report["duplicates"] = {kind: [rows[p].tolist() for p in found] for kind, found in pairs.items()}
    sound = usable.numpy()
    extremes = measures.common_extremes(samples)
    if extremes:
        # Nothing that frames measure outlives it.
        report["extremes"] = extremes
    elif len(sound):
        iq = torch.view_as_complex(samples)
        # As a rule all are, and need no copy.
        iq = iq if len(sound) == len(rows) else iq[usable]
        report |= _measure(iq, modulation[rows][sound], snr_label[rows][sound], label_order)
    report = _plain(report)
    report["verdicts"] = judge(report)
    report["passed"] = all(verdict["result"] != "failed" for verdict in report["verdicts"])
    report["seconds"] = round(time.perf_counter() - started, 1)
    return report


def _plain(value: Any) -> Any:
    """The same content, with None for numbers that are none or infinite, which JSON cannot write."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sample(cell: np.ndarray, num_frames: int) -> np.ndarray:
    """Ascending rows: the same ranks of every cell, so that copies of whole cells meet their originals.

    They lie together at the begin, in the middle and at the end of a cell: a disk reads hundreds of
    frames in the time it takes to seek.
    """
    order = np.argsort(cell, kind="stable")
    first, counts = np.unique(cell[order], return_index=True, return_counts=True)[1:]
    per_cell = max(num_frames // len(first), 1)
    rows = []
    for begin, count in zip(first, counts, strict=True):
        taken = min(per_cell, count)
        for number, part in enumerate(np.array_split(np.arange(taken), _STRETCHES)):
            gap = (count - taken) * number // (_STRETCHES - 1)
            rows.append(order[begin + gap + part])
    return np.unique(np.concatenate(rows))


def _layout(file: RadioMLFile, cell: np.ndarray) -> dict[str, Any]:
    counts = np.unique(cell, return_counts=True)[1]
    return {
        "bytes": file.path.stat().st_size,
        "rows": file.num_rows,
        "X": f"{file.samples.dtype} {file.samples.shape}, {_storage(file)}",
        "Y": f"{file.labels.dtype} {file.labels.shape}",
        "Z": f"{file.levels.dtype} {file.levels.shape}",
        "scale": file.scale,
        "cells": len(counts),
        "frames_per_cell": [int(counts.min()), int(counts.max())],
    }


def _storage(file: RadioMLFile) -> str:
    if not file.samples.chunks:
        return "contiguous"
    packed = file.samples.compression or "not compressed"
    return f"chunks of {file.samples.chunks[0]} rows, {packed}"


def _measure(
    iq: torch.Tensor, modulation: np.ndarray, snr_label: np.ndarray, label_order: str
) -> dict[str, Any]:
    frames = measures.frame_measures(iq, modulation, snr_label)
    levels = level_table(frames)
    line = snr_line(levels)
    result: dict[str, Any] = {"snr_spread_db": None, "cells": []}
    if line.is_told:
        result["snr"] = vars(line) | {"labels": list(line.labels)}
    if np.isfinite(line.offset_db):
        result["cells"] = snr.cell_measures(frames, levels, line).round(4).to_dict("records")
        result["snr_spread_db"] = snr.snr_spread(frames, line)
    true_db = snr.frame_snr_db(frames, levels, line)
    high = true_db >= max(measures.HIGH_SNR_DB, min(true_db.max(), _ENOUGH_DB) - _REACH_DB)
    middle = ~high & (true_db >= measures.MIDDLE_SNR_DB)
    scale = channel.scale_measures(frames, high if high.any() else np.ones_like(high))
    result |= {"levels": channel.with_varying(levels, frames).round(4).to_dict("records")}
    shown = frames["name"].map(channel.shows_pulse).to_numpy() & (high if high.any() else middle)
    result |= {"scale": scale, "channel": None}
    known = known_preset("radioml_2018" if line.slope > 1.5 else "table_1")
    if shown.any():
        known, result["channel"] = _channel(iq[torch.from_numpy(shown)], modulation[shown], line)
        if high.any():
            result["samples_per_symbol"] = channel.samples_per_symbol(iq[torch.from_numpy(shown)])
    base_db = true_db - measures.mean_excess_db(frames, known)
    if (result["snr_spread_db"] or 0) > snr.WIDE_SPREAD_DB:
        known, base_db = measures.by_single_snr(frames, known)
    if middle.any():
        some = torch.from_numpy(middle)
        found = measures.foreign_in_the_middle(iq[some], modulation[middle], base_db[middle], known)
        found["levels"] = [int(snr_label[middle].min()), int(snr_label[middle].max())]
        result["middle"] = found
    if high.any():
        result["class_levels"] = [int(snr_label[high].min()), int(snr_label[high].max())]
        names = LABEL_ORDERS[label_order]
        some = torch.from_numpy(high)
        result |= _classes(iq[some], modulation[high], base_db[high], known, names)
    return result


def _channel(iq: torch.Tensor, modulation: np.ndarray, line: SnrLine) -> tuple[Known, dict[str, Any]]:
    """What to know when frames are named, and how the channel of linear modulations spreads."""
    preset = "radioml_2018" if line.slope > 1.5 else "table_1"
    pulse = channel.fit_pulse(*channel.mean_density(iq, modulation))
    known = known_preset(preset)
    if pulse:
        by_magnitude = known.channel.unit_mean_magnitude
        known = known_pulse(pulse["exponent"], pulse["rolloff"], unit_mean_magnitude=by_magnitude)
    return known, {"pulse": pulse, **channel.channel_spread(iq, known.receiver)}


def _classes(
    iq: torch.Tensor,
    modulation: np.ndarray,
    snr_db: np.ndarray,
    known: Known,
    names: tuple[str, ...],
) -> dict[str, Any]:
    """What frames of high SNR look like, class by class, and which list of names that fits."""
    evidence, sideband = measures.class_evidence(iq, modulation, snr_db, known)
    evidence.insert(1, "column", [names.index(name) for name in evidence["name"]])
    evidence = evidence.sort_values("column")
    return {
        "sideband": sideband,
        "classes": evidence.round(4).to_dict("records"),
        "order": measures.label_order_confidence(evidence, names),
    }


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write a report as JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf8")


def main(arguments: list[str] | None = None) -> None:
    """Audit a file from the command line."""
    parser = argparse.ArgumentParser(
        prog="amc audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--label-order",
        choices=LABEL_ORDERS,
        default="corrected",
        help="list of names that the labels follow, the corrected or the wrong one that is shipped",
    )
    parser.add_argument("--num-frames", type=int, default=NUM_FRAMES, help="frames to look at")
    parser.add_argument("--json", type=Path, help="write the report there as well")
    options = parser.parse_args(arguments)
    if options.num_frames < 1:
        parser.error(f"--num-frames must be at least 1, got {options.num_frames}")
    try:
        report = audit(options.file, label_order=options.label_order, num_frames=options.num_frames)
        if options.json:
            write_report(options.json, report)
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(page(report))
    sys.exit(0 if report["passed"] else 2)

"""Whether a RadioML-like file is what its labels say, decided from a sample of its frames."""

from __future__ import annotations

import hashlib
import json
import math
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from amc_utils.audit import identify, measures, radioml_2016, snr
from amc_utils.audit.checks import judge
from amc_utils.audit.report import page
from amc_utils.radioml.reader import LABEL_ORDERS, RadioMLFile, open_radioml
from amc_utils.runtime.paths import atomic_write, cache_folder, one_at_a_time
from amc_utils.runtime.progress import progress
from amc_utils.signals import RADIOML_2018_MODULATIONS, SNR_LABELS

# Frames looked at; raise the version when a check changes.
NUM_FRAMES = 20_000
VERSION = 5
# Pieces of a cell that are read.
_STRETCHES = 3
# Classes are looked for this far below the highest SNR, which counts as no more than the second.
_REACH_DB, _ENOUGH_DB = 8.5, 38.0


def audit_file(
    file: str,
    label_order: Literal["corrected", "shipped"] = "corrected",
    num_frames: int = NUM_FRAMES,
    json: str = "",
) -> int:
    """Say whether a RadioML file is what its labels say; of 2016.10a and b, what can be told.

    Prints a page; exits with status 2 where a check fails, on which no network should be trained.

        amc audit FILE
        amc audit FILE --label_order shipped --json report.json

    Args:
        file: the file.
        label_order: list of names that the labels follow, the corrected or the wrong one that is
            shipped with RadioML 2018.01A.
        num_frames: frames to look at.
        json: file to which the report is written as well.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read, or num_frames below 1.
    """
    report = audit(file, label_order=label_order, num_frames=num_frames)
    if json:
        _write(Path(json), report)
    print(page(report))
    return 0 if report["passed"] else 2


def require_passed_audit(path: Path | str, label_order: str) -> None:
    """Refuse a file that fails its audit; what an audit found is kept for the next time.

    Raises:
        FileNotFoundError: no such file.
        ValueError: says what failed.
    """
    path = Path(path)
    verdicts = _kept_report(path, label_order)["verdicts"]
    failed = {v["check"]: v["what"] for v in verdicts if v["result"] == "failed"}
    if failed:
        first, *others = failed
        more = f"; and {', '.join(others)}" if others else ""
        damage = ("not finite", "without power", "silent in part")
        broken = {f"frames {what}" for what in damage} & failed.keys()
        way = "remove these frames" if broken else "trust_file: true trains on it all the same"
        raise ValueError(
            f"{path} must pass its audit to be trained on: {first}: {failed[first]}{more}; "
            f"amc audit says more, {way}"
        )
    for verdict in verdicts:
        if verdict["result"] == "cannot tell":
            print(f"audit of {path.name}: {verdict['check']} cannot be decided, {verdict['what']}")


def _kept_report(path: Path, label_order: str) -> dict[str, Any]:
    """Report of a file's audit, made once and kept."""
    with open_radioml(path) as file:
        key = json.dumps([VERSION, file.identity, label_order], sort_keys=True).encode()
    kept = cache_folder() / "audits" / f"{hashlib.sha256(key).hexdigest()[:16]}.json"
    # Of several processes the first one does it.
    with one_at_a_time(kept.parent / ".lock", f"auditing {path.name}"):
        if kept.exists():
            try:
                report = json.loads(kept.read_text(encoding="utf8"))
                parts = {"check", "result", "what"}
                if report["verdicts"] and all(parts <= set(v) for v in report["verdicts"]):
                    return report
                raise ValueError("a verdict lacks a part")
            except (ValueError, KeyError, TypeError) as error:
                print(f"{kept} was damaged ({error})")
        print(f"auditing {path.name}, once, which takes some seconds", flush=True)
        report = audit(path, label_order=label_order)
        _write(kept, report)
    return report


def _write(path: Path, report: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf8")


def audit(path: Path | str, *, label_order: str = "corrected", num_frames: int = NUM_FRAMES) -> dict:
    """Report on a file, ready for JSON: facts, and verdicts with whether the file passed.

    Args:
        path: the file, see amc_utils.radioml.reader.
        label_order: list of names that its labels are taken to follow, "corrected" or "shipped".
        num_frames: frames to look at, as many of each (modulation, SNR) cell.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read, or num_frames below 1.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")
    started = time.perf_counter()
    with open_radioml(path) as file:
        modulation, snr_label = file.modulation(label_order), file.snr_label()
        cell = modulation * len(SNR_LABELS) + (snr_label - SNR_LABELS[0]) // 2
        rows = _sample(cell, num_frames)
        samples = torch.empty(len(rows), file.num_samples, 2)
        with progress(total=len(rows), desc=f"reading {file.path.name}", unit=" frames") as bar:
            for place, some in file.blocks(rows, check=False):
                samples[place] = some
                bar.update(len(some))
        report = {"file": file.path.name, "layout": _layout(file, cell), "label_order": label_order}
        scale, names = file.scale, file.modulations
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
    elif len(sound) and names == RADIOML_2018_MODULATIONS:
        iq = torch.view_as_complex(samples)
        # As a rule all are, and need no copy.
        iq = iq if len(sound) == len(rows) else iq[usable]
        report |= _measure(iq, modulation[rows][sound], snr_label[rows][sound], label_order)
    if names != RADIOML_2018_MODULATIONS:
        labels = np.unique(snr_label).tolist()
        report["radioml_2016"] = radioml_2016.facts_of(samples[usable], scale, names, labels)
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
    storage = "contiguous"
    if isinstance(file.samples, np.ndarray):
        storage = "pickled"
    elif file.samples.chunks:
        packed = file.samples.compression or "not compressed"
        storage = f"chunks of {file.samples.chunks[0]} rows, {packed}"
    return {
        "bytes": file.path.stat().st_size,
        "rows": file.num_rows,
        "X": f"{file.samples.dtype} {file.samples.shape}, {storage}",
        "Y": f"{file.labels.dtype} {file.labels.shape}",
        "Z": f"{file.levels.dtype} {file.levels.shape}",
        "scale": file.scale,
        "cells": len(counts),
        "frames_per_cell": [int(counts.min()), int(counts.max())],
    }


def _measure(
    iq: torch.Tensor, modulation: np.ndarray, snr_label: np.ndarray, label_order: str
) -> dict[str, Any]:
    """What sound frames tell of SNR, scale, channel and classes."""
    frames = measures.frame_measures(iq, modulation, snr_label)
    levels = snr.level_table(frames)
    line = snr.snr_line(levels)
    result: dict[str, Any] = {"snr_spread_db": None, "cells": [], "channel": None}
    if line.convention != "cannot tell":
        result["snr"] = vars(line) | {"labels": list(line.labels)}
    if np.isfinite(line.offset_db):
        result["cells"] = snr.cell_measures(frames, levels, line).round(4).to_dict("records")
        result["snr_spread_db"] = snr.snr_spread(frames, line)
    true_db = snr.frame_snr_db(frames, levels, line)
    high = true_db >= max(identify.HIGH_SNR_DB, min(true_db.max(), _ENOUGH_DB) - _REACH_DB)
    middle = ~high & (true_db >= identify.MIDDLE_SNR_DB)
    levels["varying"] = frames.groupby("level")["varying"].median().to_numpy()
    result["levels"] = levels.round(4).to_dict("records")
    result["scale"] = measures.scale_measures(frames, high if high.any() else np.ones_like(high))
    shown = frames["name"].map(measures.shows_pulse).to_numpy() & (high if high.any() else middle)
    known = identify.known_preset("radioml_2018" if line.slope > 1.5 else "table_1")
    # A single frame has no spread.
    if shown.sum() > 1:
        some = iq[torch.from_numpy(shown)]
        pulse = measures.fit_pulse(*measures.mean_density(some, modulation[shown]))
        known = identify.with_pulse(known, pulse)
        result["channel"] = {"pulse": pulse, **measures.channel_spread(some, known.receiver)}
        if high.any():
            result["samples_per_symbol"] = measures.samples_per_symbol(some)
    base_db = true_db - identify.mean_excess_db(frames, known)
    if (result["snr_spread_db"] or 0) > snr.WIDE_SPREAD_DB:
        known, base_db = identify.by_single_snr(frames, known)
    if middle.any():
        some = iq[torch.from_numpy(middle)]
        found = identify.mismatch_at_lower_snr(some, modulation[middle], base_db[middle], known)
        found["levels"] = [int(snr_label[middle].min()), int(snr_label[middle].max())]
        result["middle"] = found
    if high.any():
        result["class_levels"] = [int(snr_label[high].min()), int(snr_label[high].max())]
        some, names = iq[torch.from_numpy(high)], LABEL_ORDERS[label_order]
        table, sideband = identify.class_evidence(some, modulation[high], base_db[high], known)
        table.insert(1, "column", [names.index(name) for name in table["name"]])
        result["classes"] = table.sort_values("column").round(4).to_dict("records")
        result["order"] = identify.label_order_confidence(table, names)
        result["sideband"] = sideband
    return result

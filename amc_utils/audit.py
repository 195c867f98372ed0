"""Whether a RadioML-like file is what its labels say, decided from a sample of its frames.

    python -m amc_utils.audit FILE
    python -m amc_utils.audit FILE --label-order shipped --json report.json

Prints a page; exits with status 2 where a check fails, on which no network should be trained.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amc_utils import audit_measures as measures
from amc_utils.audit_report import judge, page
from amc_utils.features import snr_convention
from amc_utils.labels import RADIOML_2018_MODULATIONS, SNR_GRID_DB
from amc_utils.locking import one_at_a_time
from amc_utils.paths import cache_folder, replacing
from amc_utils.progress import progress
from amc_utils.radioml import LABEL_ORDERS, RadioMLFile, open_radioml
from amc_utils.signals import NUM_SAMPLES
from amc_utils.symbol_maps import LINEAR_MODULATIONS

# Frames looked at; raise the version when a check changes.
NUM_FRAMES = 20_000
_VERSION = 2
# Pieces of a cell that are read.
_STRETCHES = 3


def audit(path: Path | str, *, label_order: str = "corrected", num_frames: int = NUM_FRAMES) -> dict:
    """Report on a file, ready for JSON: facts, and verdicts with whether the file passed.

    Args:
        path: the file, see amc_utils.radioml.
        label_order: list of names that its labels are taken to follow, "corrected" or "shipped".
        num_frames: frames to look at, as many of each (modulation, SNR) cell.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read.
    """
    started = time.perf_counter()
    with open_radioml(path) as file:
        modulation, snr_db = file.modulation(label_order), file.snr_db()
        cell = modulation * len(SNR_GRID_DB) + (snr_db - SNR_GRID_DB[0]) // 2
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
    if len(sound):
        iq = torch.view_as_complex(samples)
        # As a rule all are, and need no copy.
        iq = iq if len(sound) == len(rows) else iq[usable]
        report |= _measure(iq, modulation[rows][sound], snr_db[rows][sound], label_order)
    report["verdicts"] = judge(report)
    report["passed"] = all(verdict["result"] != "failed" for verdict in report["verdicts"])
    report["seconds"] = round(time.perf_counter() - started, 1)
    return report


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
    iq: torch.Tensor, modulation: np.ndarray, snr_db: np.ndarray, label_order: str
) -> dict[str, Any]:
    frames = measures.frame_measures(iq, modulation, snr_db)
    levels, cells = measures.level_measures(frames), measures.cell_measures(frames)
    powers = frames.groupby("name")["power"].median()
    worst = cells.loc[cells["deviation_db"].abs().sort_values(ascending=False).index[:5]]
    result = {
        "levels": levels.round(4).to_dict("records"),
        "powers": powers.round(4).to_dict(),
        "worst_cells": worst.round(4).to_dict("records"),
    }
    # Of no use where no digital class is there.
    if levels["measured_db"].notna().any():
        convention, offset_db = snr_convention(levels)
        result["snr"] = {"convention": convention, "offset_db": offset_db}
    high = snr_db >= max(measures.HIGH_SNR_DB, snr_db.max() - 8)
    if not high.any():
        return result
    names = LABEL_ORDERS[label_order]
    some = torch.from_numpy(np.flatnonzero(high))
    # What the labels say may be another SNR, and no measure is there for analogue classes alone.
    measured = levels.set_index("level")["measured_db"]
    snr_of = measured.fillna(measured.index.to_series())[snr_db[high]].to_numpy()
    evidence, result["sideband"] = measures.class_evidence(iq[some], modulation[high], snr_of)
    evidence.insert(1, "column", [names.index(name) for name in evidence["name"]])
    evidence = evidence.sort_values("column")
    result["classes"] = evidence.round(4).to_dict("records")
    result["order"] = measures.label_order_confidence(evidence, names)
    # OQPSK has no symbol instants that both parts share, OOK a carrier of its own.
    linear = [
        RADIOML_2018_MODULATIONS.index(m) for m in LINEAR_MODULATIONS if m not in ("OQPSK", "OOK")
    ]
    regular = iq[some[torch.from_numpy(np.isin(modulation[high], linear))]]
    if len(regular):
        result["samples_per_symbol"] = measures.samples_per_symbol(regular)
        result["channel"] = measures.channel_spread(regular)
    return result


def require_sound(path: Path | str, label_order: str) -> None:
    """Refuse a file that fails its audit; what an audit found is kept for the next time.

    Raises:
        FileNotFoundError: no such file.
        ValueError: says what failed.
    """
    path = Path(path)
    with open_radioml(path) as file:
        key = json.dumps([_VERSION, file.identity, label_order], sort_keys=True).encode()
    kept = cache_folder() / "audits" / f"{hashlib.sha256(key).hexdigest()[:16]}.json"
    # Of several processes the first one does it.
    with one_at_a_time(kept.parent / ".lock", f"auditing {path.name}"):
        verdicts = _kept_verdicts(kept)
        if verdicts is None:
            print(f"auditing {path.name}, about 15 seconds, once", flush=True)
            report = audit(path, label_order=label_order)
            _write(kept, report)
            verdicts = report["verdicts"]
    failed = [verdict for verdict in verdicts if verdict["result"] == "failed"]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise ValueError(
            f"{path} must pass its audit to be trained on: {failed[0]['check']}: "
            f"{failed[0]['what']}{more}; "
            f"python -m amc_utils.audit says more, trust_file trains on it all the same"
        )
    for verdict in verdicts:
        if verdict["result"] == "cannot tell":
            print(f"audit of {path.name}: {verdict['check']} cannot be told, {verdict['what']}")


def _kept_verdicts(kept: Path) -> list[dict[str, str]] | None:
    """Verdicts of an audit before; None where there is none, or it was damaged and is done again."""
    if not kept.exists():
        return None
    try:
        verdicts = json.loads(kept.read_text(encoding="utf8"))["verdicts"]
        return [{name: verdict[name] for name in ("check", "result", "what")} for verdict in verdicts]
    except (ValueError, KeyError, TypeError) as error:
        print(f"{kept} was damaged ({error})")
        return None


def _write(path: Path, report: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf8")


def main(arguments: list[str] | None = None) -> None:
    """Audit a file from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m amc_utils.audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--label-order", choices=LABEL_ORDERS, default="corrected")
    parser.add_argument("--num-frames", type=int, default=NUM_FRAMES, help="frames to look at")
    parser.add_argument("--json", type=Path, help="write the report there as well")
    options = parser.parse_args(arguments)
    if options.num_frames < 1:
        parser.error(f"--num-frames must be at least 1, got {options.num_frames}")
    try:
        report = audit(options.file, label_order=options.label_order, num_frames=options.num_frames)
        if options.json:
            _write(options.json, report)
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(page(report))
    sys.exit(0 if report["passed"] else 2)


if __name__ == "__main__":
    main()

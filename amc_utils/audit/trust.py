"""Whether a file may be trained on: it passed its audit, now or before."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from amc_utils.audit.audit import VERSION, audit, write_report
from amc_utils.dsp.features import SnrLine
from amc_utils.radioml.reader import open_radioml
from amc_utils.runtime.locking import one_at_a_time
from amc_utils.runtime.paths import cache_folder


def require_sound(path: Path | str, label_order: str) -> None:
    """Refuse a file that fails its audit; what an audit found is kept for the next time.

    Raises:
        FileNotFoundError: no such file.
        ValueError: says what failed.
    """
    path = Path(path)
    verdicts = kept_audit(path, label_order)["verdicts"]
    failed = {
        verdict["check"]: verdict["what"] for verdict in verdicts if verdict["result"] == "failed"
    }
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
            print(f"audit of {path.name}: {verdict['check']} cannot be told, {verdict['what']}")


def snr_of_labels(path: Path | str, label_order: str) -> SnrLine | None:
    """How the SNR per sample of a file follows from its labels, by its audit: of label 6, say, 12.7 dB.

    None where the audit could not tell.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read.
    """
    snr = kept_audit(Path(path), label_order).get("snr")
    if not snr or snr["offset_db"] is None:
        return None
    slope = snr["measured_slope"]
    told = {name: snr[name] for name in ("convention", "slope", "offset_db")}
    measured_slope = float("nan") if slope is None else slope
    return SnrLine(**told, measured_slope=measured_slope, labels=tuple(snr["labels"]))


def kept_audit(path: Path, label_order: str) -> dict[str, Any]:
    """Report of a file's audit, as amc_utils.audit.audit gives it; made once and kept.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read.
    """
    with open_radioml(path) as file:
        key = json.dumps([VERSION, file.identity, label_order], sort_keys=True).encode()
    kept = cache_folder() / "audits" / f"{hashlib.sha256(key).hexdigest()[:16]}.json"
    # Of several processes the first one does it.
    with one_at_a_time(kept.parent / ".lock", f"auditing {path.name}"):
        report = _read(kept)
        if report is None:
            print(f"auditing {path.name}, once, which takes some seconds", flush=True)
            report = audit(path, label_order=label_order)
            write_report(kept, report)
    return report


def _read(kept: Path) -> dict[str, Any] | None:
    """Report of an audit before; None where there is none, or it was damaged and is done again."""
    if not kept.exists():
        return None
    try:
        report = json.loads(kept.read_text(encoding="utf8"))
        if not report["verdicts"]:
            raise ValueError("no verdicts")
        if not all({"check", "result", "what"} <= set(verdict) for verdict in report["verdicts"]):
            raise ValueError("a verdict lacks a part")
        return report
    except (ValueError, KeyError, TypeError) as error:
        print(f"{kept} was damaged ({error})")
        return None

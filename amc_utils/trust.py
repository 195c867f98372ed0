"""Whether a file may be trained on: it passed its audit, now or before."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from amc_utils.audit import VERSION, audit, write_report
from amc_utils.locking import one_at_a_time
from amc_utils.paths import cache_folder
from amc_utils.radioml import open_radioml


def require_sound(path: Path | str, label_order: str) -> None:
    """Refuse a file that fails its audit; what an audit found is kept for the next time.

    Raises:
        FileNotFoundError: no such file.
        ValueError: says what failed.
    """
    path = Path(path)
    with open_radioml(path) as file:
        key = json.dumps([VERSION, file.identity, label_order], sort_keys=True).encode()
    kept = cache_folder() / "audits" / f"{hashlib.sha256(key).hexdigest()[:16]}.json"
    # Of several processes the first one does it.
    with one_at_a_time(kept.parent / ".lock", f"auditing {path.name}"):
        verdicts = _kept_verdicts(kept)
        if verdicts is None:
            print(f"auditing {path.name}, once, which takes some seconds", flush=True)
            report = audit(path, label_order=label_order)
            write_report(kept, report)
            verdicts = report["verdicts"]
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
            f"python -m amc_utils.audit says more, {way}"
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
        if not verdicts:
            raise ValueError("no verdicts")
        return [{name: verdict[name] for name in ("check", "result", "what")} for verdict in verdicts]
    except (ValueError, KeyError, TypeError) as error:
        print(f"{kept} was damaged ({error})")
        return None

"""Verdicts on what an audit found, and the page that a person reads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.stats import binom

from amc_utils.signals import SAMPLES_PER_SYMBOL

# Check, result ("ok", "remark", "failed" or "cannot tell"), and what was found.
Verdict = tuple[str, str, str]

# An order of labels is believed from this probability on.
_SURE = 0.99
# Least share of a class's frames that look like it, and largest share, in all and of a class, that look
# like another kind of signal: those of sound files of two makers, with some room. A file
# fails where chance brings what was found less often than _CHANCE.
_OWN, _FOREIGN, _FOREIGN_IN_CLASS, _CHANCE = 0.8, 0.01, 0.03, 1e-4
# Beyond these errors of a level's SNR label, in dB, a file is remarked upon, or refused; and beyond the
# third where a maker's filters may lift the noise floor, above 20 dB, or where it is that of one class.
_REMARKABLE_DB, _REFUSED_DB, _REFUSED_FAR_DB = 0.5, 1.5, 3.0
# Levels are judged whose measured mean is as sure as this.
_SURE_DB = 0.3
_SHOWN = 5


def judge(report: dict[str, Any]) -> list[dict[str, str]]:
    """Verdicts with check, result ("ok", "remark", "failed" or "cannot tell") and what was found."""
    parts = (_frames(report), _labels(report), _snr(report), _power(report), _signal(report))
    return [
        {"check": check, "result": result, "what": what}
        for verdicts in parts
        for check, result, what in verdicts
    ]


def _frames(report: dict[str, Any]) -> Iterator[Verdict]:
    for what, rows in report["bad_frames"].items():
        result = "failed" if rows else "ok"
        found = f"{len(rows)} of {report['frames']:,} frames{_few(rows)}"
        yield f"frames {what}", result, found
    for kind, pairs in report["duplicates"].items():
        result = "failed" if pairs else "ok"
        yield f"duplicates {kind}", result, f"{len(pairs)} pairs of equal frames{_few(pairs)}"
    low, high = report["layout"]["frames_per_cell"]
    result = "ok" if low == high else "remark"
    yield "balance", result, f"{low:,} to {high:,} frames in each of {report['layout']['cells']} cells"


def _labels(report: dict[str, Any]) -> Iterator[Verdict]:
    if "order" not in report:
        yield "label order", "cannot tell", "no frames of high SNR show what class they are"
        return
    told = report["label_order"]
    order, sure = max(report["order"].items(), key=lambda item: item[1])
    agree = [row["looks_like"] == row["name"] for row in report["classes"]]
    seen = f"{sum(agree)} of {len(agree)} classes look like their names"
    if sure < _SURE:
        yield "label order", "cannot tell", f"{seen}, too few to tell which list the labels follow"
    elif order == told:
        yield "label order", "ok", f"labels follow the {order} list, confidence {sure:.4f}"
    elif order == "neither":
        what = f"labels follow neither the corrected nor the shipped list; {seen}"
        yield "label order", "failed", what
    else:
        advice = f"read the file with label_order {order}"
        yield "label order", "failed", f"labels follow the {order} list, not the {told} one; {advice}"
    # Under the wrong list most classes are wrong, which has been said.
    if order == told or sure < _SURE:
        yield from _classes(report["classes"])
    side = report["sideband"]
    if side is not None and side < 0:
        yield "I and Q", "remark", "AM-SSB lies below its carrier: I and Q may be exchanged"


def _classes(classes: list[dict[str, Any]]) -> Iterator[Verdict]:
    unlike = {
        row["name"]: row
        for row in classes
        if binom.cdf(round(row["own_share"] * row["frames"]), row["frames"], _OWN) < _CHANCE
    }
    wrong = [row for name, row in unlike.items() if _is_wrong(name, unlike)]
    odd = wrong or list(unlike.values())
    if odd:
        named = [f"{r['name']} looks like {r['looks_like']} ({r['share']:.0%})" for r in odd]
        yield "each class", "failed" if wrong else "remark", ", ".join(named)
    else:
        least = min(classes, key=lambda row: row["own_share"])
        what = f"at least {least['own_share']:.0%} of a class ({least['name']}) look like its name"
        yield "each class", "ok", what
    # What makers call AM differs; and a class that is wholly another has been named.
    rows = [r for r in classes if not r["name"].startswith("AM-") and r["name"] not in unlike]
    if not rows:
        return
    frames = np.array([row["frames"] for row in rows])
    others = np.round([row["foreign_share"] for row in rows] * frames)
    by_class = binom.sf(others - 1, frames, _FOREIGN_IN_CLASS)
    bad = min(by_class.min(), binom.sf(others.sum() - 1, frames.sum(), _FOREIGN)) < _CHANCE
    what = f"{others.sum() / frames.sum():.1%} look like another kind of signal than their label says"
    if bad:
        worst = rows[int(by_class.argmin())]
        what += f", of {worst['name']} {worst['foreign_share']:.0%}"
    yield "each frame", "failed" if bad else "ok", what


def _is_wrong(name: str, unlike: dict[str, dict]) -> bool:
    """Makers differ in what they call AM: there, only names that are exchanged are wrong for sure."""
    return not name.startswith("AM-") or unlike[name]["looks_like"] in unlike


def _snr(report: dict[str, Any]) -> Iterator[Verdict]:
    levels, snr = report.get("levels", ()), report.get("snr")
    levels = [row for row in levels if row["measured_db"] is not None]
    if not snr or not any(-10 <= row["level"] <= 20 for row in levels):
        yield "SNR convention", "cannot tell", "no digital class from -10 to 20 dB to measure it on"
        return
    offset = f"measured less label: {snr['offset_db']:+.2f} dB"
    if snr["convention"] == "SNR per sample":
        yield "SNR convention", "ok", f"labels are the SNR per sample; {offset}"
    elif snr["convention"] == "Es/N0":
        yield "SNR convention", "failed", f"labels are Es/N0, not the SNR per sample; {offset}"
    else:
        yield "SNR convention", "failed", f"labels are neither the SNR per sample nor Es/N0; {offset}"
    yield _calibration(levels, snr["offset_db"])
    cells = [row | {"off": row["deviation_db"] - snr["offset_db"]} for row in report["worst_cells"]]
    if cells:
        cell = max(cells, key=lambda row: abs(row["off"]))
        what = f"largest deviation of a class: {cell['off']:+.2f} dB, {cell['name']} at"
        result = "failed" if abs(cell["off"]) > _REFUSED_FAR_DB else "ok"
        yield "SNR of each class", result, f"{what} {cell['level']} dB"


def _calibration(levels: list[dict[str, Any]], offset_db: float) -> Verdict:
    """How far measured SNRs lie from their labels, for levels where enough frames tell."""
    sure = [row for row in levels if row["error_db"] < _SURE_DB]
    if not sure:
        return "SNR calibration", "cannot tell", "too few frames at each level"
    for lower, upper in pairwise(sure):
        if upper["measured_db"] < lower["measured_db"] - _REMARKABLE_DB:
            what = f"frames of {upper['level']} dB are noisier than those of {lower['level']} dB"
            return "SNR calibration", "failed", what
    off = {row["level"]: row["measured_db"] - row["level"] - offset_db for row in sure}
    # What chance may do to a mean over some frames is no error.
    excess = {row["level"]: abs(off[row["level"]]) - 3 * row["error_db"] for row in sure}
    refused = any(e > (_REFUSED_DB if n <= 20 else _REFUSED_FAR_DB) for n, e in excess.items())
    worst = max(excess, key=excess.get)
    result = "failed" if refused else "remark" if excess[worst] > _REMARKABLE_DB else "ok"
    what = (
        f"largest deviation from that, {min(off)} to {max(off)} dB: {off[worst]:+.2f} dB at {worst} dB"
    )
    return "SNR calibration", result, what


def _power(report: dict[str, Any]) -> Iterator[Verdict]:
    if "levels" not in report:
        return
    for what, powers in (
        ("level", {f"{row['level']} dB": row["power"] for row in report["levels"]}),
        ("class", report["powers"]),
    ):
        low, high = min(powers, key=powers.get), max(powers, key=powers.get)
        near_one, far = powers[low] > 0.9 and powers[high] < 1.1, powers[low] < 0.5 or powers[high] > 2
        found = f"medians {powers[low]:.3f} to {powers[high]:.3f}; pictures are made for 1"
        if not near_one:
            found += f"; lowest {low}, highest {high}"
        yield f"power of each {what}", "ok" if near_one else "failed" if far else "remark", found


def _signal(report: dict[str, Any]) -> Iterator[Verdict]:
    if "samples_per_symbol" not in report:
        return
    rate, spread = report["samples_per_symbol"], report["channel"]
    right = abs(rate - SAMPLES_PER_SYMBOL) < 0.05
    yield (
        "symbol rate",
        "ok" if right else "failed",
        f"{rate:.2f} samples per symbol, {SAMPLES_PER_SYMBOL} wanted",
    )
    low, middle, high = spread["rolloff"]
    result = "ok" if high - low > 0.05 else "remark"
    yield "roll-off", result, f"{low:.2f} to {high:.2f} (90 % of frames), median {middle:.2f}"
    low, _, high = (1e4 * value for value in spread["cfo"])
    deviation = 1e4 * spread["cfo_std"]
    what = f"{low:.1f} to {high:.1f}, standard deviation {deviation:.2f}, all in 1e-4 cycles per sample"
    yield "carrier offset", "ok" if deviation < 2 else "remark", what
    low, _, high = spread["timing_samples"]
    alike = spread["timing_concentration"]
    what = f"{low:.1f} to {high:.1f} samples; concentration {alike:.2f}, 0 for all alike likely"
    yield "timing", "ok" if alike < 0.3 else "remark", what


def _few(found: list) -> str:
    if not found:
        return ""
    more = ", ..." if len(found) > _SHOWN else ""
    return f": rows {', '.join(map(str, found[:_SHOWN]))}{more}"


def page(report: dict[str, Any]) -> str:
    """The report as text, a page of some 100 columns."""
    layout = report["layout"]
    lines = [
        f"{report['file']}: {layout['rows']:,} frames, {layout['bytes'] / 1e9:.2f} GB",
        *(f"  {name}  {layout[name]}" for name in "XYZ"),
        f"looked at {report['frames']:,} frames, read by the {report['label_order']} list",
        "",
        *(f"{v['result']:12}{v['check']:25}{v['what']}" for v in report["verdicts"]),
    ]
    if "classes" in report:
        lines += [
            "",
            "class      column  line  envelope   looks like      share   other kind of signal",
        ]
        lines += [
            f"{row['name']:12}{row['column']:5}{row['squared_line']:6.2f}{row['envelope_std']:10.2f}   "
            f"{row['looks_like']:14}{row['share']:6.0%}{row['foreign_share']:9.0%}"
            + ("" if row["looks_like"] == row["name"] else "   unlike its name")
            for row in report["classes"]
        ]
    if "levels" in report:
        lines += ["", "SNR label (dB), and what the spectrum says:"]
        pairs = [f"{row['level']:4} {row['measured_db']:6.1f}" for row in report["levels"]]
        lines += ["   ".join(pairs[start : start + 7]) for start in range(0, len(pairs), 7)]
    open_checks = sum(verdict["result"] == "cannot tell" for verdict in report["verdicts"])
    ending = f"passed, but {open_checks} could not be told" if open_checks else "passed"
    lines += ["", ending if report["passed"] else "FAILED", f"{report['seconds']:.0f} s"]
    return "\n".join(lines)

"""Verdicts on what an audit found: on frames and labels here, on SNR and signal beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.stats import binom

from amc_utils.audit.presets import channel_verdicts
from amc_utils.audit.signals import Verdict, signal_verdicts
from amc_utils.signals import SIGNATURE_OF_MODULATION

# An order of labels is believed from this probability on.
_SURE = 0.99
# Least shares of frames that look like their class: of a class, of one whose points makers place
# differently, and of all. Then the largest shares that look like another kind of signal: of all, of a
# class, and at lower SNRs. Sound files of two makers keep some room to each. A
# file fails where chance would bring what was found less often than _CHANCE.
_OWN, _OWN_LOOSE, _OWN_OF_ALL = 0.9, 0.75, 0.95
_LOOSE = ("16APSK", "32APSK", "64APSK", "128APSK")
_FOREIGN, _FOREIGN_IN_CLASS, _FOREIGN_IN_THE_MIDDLE, _CHANCE = 0.01, 0.03, 0.03, 1e-4
# Share of a class's frames that look like the one it was exchanged with.
_EXCHANGED = 0.7
_SHOWN = 5


def judge(report: dict[str, Any]) -> list[dict[str, str]]:
    """Verdicts with check, result and what was found, see Verdict."""
    labels = list(_labels(report))
    labels_hold = all(result != "failed" for _, result, _ in labels)
    signal = (verdicts(report, labels_hold) for verdicts in (signal_verdicts, channel_verdicts))
    parts = (_frames(report), labels, *signal)
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
    extremes = report.get("extremes")
    if extremes:
        reach = f"from {extremes['lowest']:.4g} to {extremes['highest']:.4g}"
        what = (
            f"{extremes['share']:.0%} of frames reach {reach}: each was scaled by its own minimum and "
        )
        yield "scale of each frame", "failed", f"{what}maximum, or cut off; take them as they were"
    for kind, pairs in report["duplicates"].items():
        result = "failed" if pairs else "ok"
        yield f"duplicates {kind}", result, f"{len(pairs)} pairs that agree to the bit{_few(pairs)}"
    low, high = report["layout"]["frames_per_cell"]
    counts = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    result = "ok" if low == high else "remark"
    yield (
        "balance",
        result,
        f"{counts} frames in each of {report['layout']['cells']} classes and levels",
    )


def _few(found: list) -> str:
    if not found:
        return ""
    more = ", ..." if len(found) > _SHOWN else ""
    return f": rows {', '.join(map(str, found[:_SHOWN]))}{more}"


def _labels(report: dict[str, Any]) -> Iterator[Verdict]:
    told = report["label_order"]
    order, holds = told, True
    if "extremes" in report:
        yield "label order", "cannot tell", "frames that were scaled one by one do not show their class"
    elif "order" not in report:
        what = "no sound frames of 20 dB or more show what class they are"
        yield "label order", "cannot tell", what
    else:
        order, sure = max(report["order"].items(), key=lambda item: item[1])
        holds = order == told or sure < _SURE
        yield _order(report, order, sure)
        # Under the wrong list most classes are wrong, which has been said.
        if holds:
            yield from _classes(report["classes"], report["class_levels"])
    middle = report.get("middle")
    if holds and middle and middle["frames"]:
        others = round(middle["share"] * middle["frames"])
        bad = binom.sf(others - 1, middle["frames"], _FOREIGN_IN_THE_MIDDLE) < _CHANCE
        low, high = middle["levels"]
        what = f"{middle['share']:.1%} at labels {low} to {high} look like another kind of signal"
        yield "frames at lower SNR", "failed" if bad else "ok", f"{what}; nothing below"
    side = report.get("sideband")
    if side is not None and side < 0:
        yield "I and Q", "remark", "AM-SSB lies below its carrier: I and Q may be exchanged"


def _order(report: dict[str, Any], order: str, sure: float) -> Verdict:
    classes, told = report["classes"], report["label_order"]
    agree = sum(row["looks_like"] == row["name"] for row in classes)
    seen = f"{agree} of {len(classes)} classes look like their names"
    if sure < _SURE:
        return "label order", "cannot tell", f"{seen}, too few to tell which list the labels follow"
    if order == told:
        return "label order", "ok", f"labels follow the {order} list, confidence {sure:.4f}"
    if order != "neither":
        advice = f"read the file with label_order {order}"
        return "label order", "failed", f"labels follow the {order} list, not the {told} one; {advice}"
    # Symbols that the receiver cannot find, for their channel is another, look like few things and
    # hardly like one; spectrum and envelope are what their names promise all the same.
    kinds_hold = all(row["signature"] == SIGNATURE_OF_MODULATION[row["name"]] for row in classes)
    clear = np.median([row["share"] for row in classes]) > 0.7
    distinct = len({row["looks_like"] for row in classes}) > 0.7 * len(classes)
    if kinds_hold and not (clear and distinct):
        what = f"{seen}, spectra and envelopes of all do: a channel or symbols unlike those known here"
        return "label order", "cannot tell", what
    what = "labels follow neither the corrected nor the shipped list"
    return "label order", "failed", f"{what}; {seen}; below, what each column looks like"


def _least_own(name: str) -> float:
    return _OWN_LOOSE if name in _LOOSE else _OWN


def _classes(classes: list[dict[str, Any]], levels: list[int]) -> Iterator[Verdict]:
    unlike = {
        row["name"]: row
        for row in classes
        if binom.cdf(round(row["own_share"] * row["frames"]), row["frames"], _least_own(row["name"]))
        < _CHANCE
    }
    wrong = [row for name, row in unlike.items() if _is_wrong(name, unlike)]
    least = min(classes, key=lambda row: row["own_share"])
    at = f"at labels {levels[0]} to {levels[1]}"
    # What makers call AM differs, and a class that is wholly another is named by itself.
    rest = [r for r in classes if not r["name"].startswith("AM-") and r["name"] not in unlike]
    frames = np.array([row["frames"] for row in rest], int)
    own = np.round([row["own_share"] for row in rest] * frames)
    too_few = len(rest) and binom.cdf(own.sum(), frames.sum(), _OWN_OF_ALL) < _CHANCE
    if wrong or unlike:
        named = [
            f"{r['name']} looks like {r['looks_like']} ({r['share']:.0%})"
            for r in wrong or unlike.values()
        ]
        yield "each class", "failed" if wrong else "remark", f"{at}, {', '.join(named)}"
    elif too_few:
        what = f"{own.sum() / frames.sum():.0%} of all frames look like their class, {at}"
        yield "each class", "failed", f"{what}, of {least['name']} {least['own_share']:.0%}"
    elif least["own_share"] < 0.5:
        yield "each class", "cannot tell", f"{least['frames']} frames of a class are too few, {at}"
    else:
        what = f"least share that looks like its name: {least['own_share']:.0%} ({least['name']})"
        yield "each class", "ok", f"{at}, {what}"
    if len(rest):
        yield _kinds(rest, frames)


def _kinds(classes: list[dict[str, Any]], frames: np.ndarray) -> Verdict:
    others = np.round([row["foreign_share"] for row in classes] * frames)
    by_class = binom.sf(others - 1, frames, _FOREIGN_IN_CLASS)
    bad = min(by_class.min(), binom.sf(others.sum() - 1, frames.sum(), _FOREIGN)) < _CHANCE
    what = f"{others.sum() / frames.sum():.1%} look like another kind of signal than their label says"
    if bad:
        worst = classes[int(by_class.argmin())]
        what += f", of {worst['name']} {worst['foreign_share']:.0%}"
    return "each frame", "failed" if bad else "ok", what


def _is_wrong(name: str, unlike: dict[str, dict]) -> bool:
    """Whether a class's name is wrong: of AM and APSK, only where it was exchanged, for makers differ.

    Names are exchanged where most frames of one class look like a second, which in turn looks like
    another, and so on back to the first.
    """
    if not (name.startswith("AM-") or name in _LOOSE):
        return True
    seen, now = [name], unlike[name]
    while now["share"] > _EXCHANGED and now["looks_like"] in unlike:
        if now["looks_like"] in seen:
            return now["looks_like"] == name and len(seen) > 1
        seen.append(now["looks_like"])
        now = unlike[seen[-1]]
    return False

"""Verdicts of an audit on SNR labels, power and symbol rate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from amc_utils.audit.snr import WIDE_SPREAD_DB
from amc_utils.dsp.features import SNR_CONVENTIONS
from amc_utils.signals import FAMILY_OF_MODULATION, SAMPLES_PER_SYMBOL

# Check, result ("ok", "remark", "failed" or "cannot tell"), and what was found.
Verdict = tuple[str, str, str]

# Beyond these errors of a level's SNR label, in dB, a file is remarked upon, or refused; beyond the
# third above 20 dB, where a maker's filters may lift the noise floor.
_REMARKABLE_DB, _REFUSED_DB, _REFUSED_FAR_DB = 0.5, 1.5, 3.0
# Levels are judged whose measured mean is as sure as this; of a class at a level this much is allowed
# beyond five standard errors.
_SURE_DB, _ALLOWED_IN_CELL_DB = 0.3, 1.0
# Of RadioML 2018.01A, what SNR a class may have beyond twice the label, in dB, and OOK; of all, what
# makes no remark. Excerpts show 0.3 dB that nobody explains, see docs/radioml_2018_as_measured.md.
_EXCESS_DB, _OOK_EXCESS_DB, _UNREMARKED_DB = (0.0, 1.6), (0.0, 2.3), (-0.3, 2.0)
_TWICE = "noise standard deviation"


def signal_verdicts(report: dict[str, Any], labels_hold: bool) -> Iterator[Verdict]:
    """Verdicts on an audit's report, and whether its labels name the classes rightly."""
    yield from _snr(report, labels_hold)
    yield from _power(report)
    if "samples_per_symbol" in report:
        rate = report["samples_per_symbol"]
        right = abs(rate - SAMPLES_PER_SYMBOL) < 0.05
        what = f"{rate:.2f} samples per symbol, {SAMPLES_PER_SYMBOL} wanted"
        yield "symbol rate", "ok" if right else "failed", what


def _snr(report: dict[str, Any], labels_hold: bool) -> Iterator[Verdict]:
    levels = [row for row in report.get("levels", ()) if row["measured_db"] is not None]
    snr = report.get("snr")
    if not snr:
        yield "SNR convention", "cannot tell", "too few frames of digital classes to measure it on"
        return
    yield _convention(snr)
    if snr["offset_db"] is None:
        return
    yield _calibration(levels, snr)
    spread = report["snr_spread_db"]
    if spread is not None:
        result = "remark" if spread > WIDE_SPREAD_DB else "ok"
        what = f"single frames of a level differ by {spread:.2f} dB (standard deviation)"
        yield "SNR within levels", result, what
    # Under wrong labels a class at a level is a mixture.
    if report["cells"] and labels_hold:
        yield _cells(report["cells"], snr)


def _convention(snr: dict[str, Any]) -> Verdict:
    low, high = snr["labels"][0], snr["labels"][-1]
    number = len(snr["labels"])
    found = f"{number} labels from {low} to {high}" if number > 1 else f"label {low} alone"
    if snr["offset_db"] is not None:
        found = f"{snr['offset_db']:+.2f} dB at label 0, on {found}"
    if snr["measured_slope"] is not None:
        found = f"slope {snr['measured_slope']:.2f}, {found}"
    lowest, highest = -_REMARKABLE_DB, _REMARKABLE_DB
    if snr["convention"] == _TWICE:
        lowest, highest = _UNREMARKED_DB
        what = "as in RadioML 2018.01A: true SNR is twice the label"
    elif snr["convention"] == "SNR per sample":
        what = "labels are the SNR per sample"
    elif snr["convention"] == "Es/N0":
        what = f"labels are Es/N0, not the SNR per sample; {found}; take 10 log10(8) off, on the grid"
        return "SNR convention", "failed", what
    else:
        return "SNR convention", "failed", f"labels fit no convention ({_known()}); {found}"
    result = "ok" if lowest <= snr["offset_db"] <= highest else "remark"
    return "SNR convention", result, f"{what}; {found}"


def _known() -> str:
    return ", ".join("twice the label" if name == _TWICE else name for name in SNR_CONVENTIONS)


def _cells(cells: list[dict[str, Any]], snr: dict[str, Any]) -> Verdict:
    off, excess = [], []
    for row in cells:
        low = high = snr["offset_db"]
        if snr["convention"] == _TWICE:
            low, high = _OOK_EXCESS_DB if row["name"] == "OOK" else _EXCESS_DB
        beyond = max(row["deviation_db"] - high, low - row["deviation_db"], 0.0)
        off.append(row["deviation_db"] - (low + high) / 2)
        excess.append(beyond - 5 * row["error_db"])
    # Where no class is beyond what it may have, the one farthest from the middle.
    worst = int(np.argmax(excess if max(excess) > 0 else np.abs(off)))
    cell, result = cells[worst], "failed" if excess[worst] > _ALLOWED_IN_CELL_DB else "ok"
    against = "twice its label" if snr["convention"] == _TWICE else "that"
    deviation = cell["deviation_db"] - (0 if snr["convention"] == _TWICE else snr["offset_db"])
    what = f"{cell['name']} at label {cell['level']} is most off, {deviation:+.2f} dB from {against}"
    return "SNR of each class", result, what


def _calibration(levels: list[dict[str, Any]], snr: dict[str, Any]) -> Verdict:
    """How far measured SNRs lie from the convention's, for levels where enough frames tell."""
    sure = [row for row in levels if row["error_db"] is not None and row["error_db"] < _SURE_DB]
    if not sure:
        return "SNR calibration", "cannot tell", "too few frames at each level"
    for lower, upper in pairwise(sure):
        if upper["measured_db"] < lower["measured_db"] - _REMARKABLE_DB:
            what = f"frames of label {upper['level']} are noisier than those of label {lower['level']}"
            return "SNR calibration", "failed", what
    said = {row["level"]: snr["slope"] * row["level"] + snr["offset_db"] for row in sure}
    off = {row["level"]: row["measured_db"] - said[row["level"]] for row in sure}
    # What chance may do to a mean over some frames is no error.
    excess = {row["level"]: abs(off[row["level"]]) - 3 * row["error_db"] for row in sure}
    refused = any(e > (_REFUSED_DB if said[n] <= 20 else _REFUSED_FAR_DB) for n, e in excess.items())
    worst = max(excess, key=excess.get)
    result = "failed" if refused else "remark" if excess[worst] > _REMARKABLE_DB else "ok"
    seen = f"labels {min(off)} to {max(off)}"
    what = f"largest deviation from that, {seen}: {off[worst]:+.2f} dB at label {worst}"
    return "SNR calibration", result, what


def _is_analogue(name: str) -> bool:
    return FAMILY_OF_MODULATION.get(name) == "analogue"


def _power(report: dict[str, Any]) -> Iterator[Verdict]:
    if "levels" not in report:
        return
    levels, scale = report["levels"], report["scale"]
    by_level = ({f"label {row['level']}": row[key] for row in levels} for key in ("power", "varying"))
    by_class = (scale["power"], scale["varying"])
    for what, (powers, varying) in (("level", by_level), ("class", by_class)):
        # A record has unit power without its carriers; frames by themselves have it with them.
        nearest = {
            name: min(power, varying[name], key=lambda value: abs(math.log(max(value, 1e-9))))
            for name, power in powers.items()
        }
        low, high = min(nearest, key=nearest.get), max(nearest, key=nearest.get)
        far = nearest[low] < 0.5 or nearest[high] > 2
        # Which part of an analogue signal makers count as its carrier differs.
        near_one = not far and all(0.9 < v < 1.1 for n, v in nearest.items() if not _is_analogue(n))
        found = f"medians {nearest[low]:.3f} to {nearest[high]:.3f}, carriers apart; networks expect 1"
        if not near_one:
            found += f"; lowest {low}, highest {high}"
        yield f"power of each {what}", "ok" if near_one else "failed" if far else "remark", found

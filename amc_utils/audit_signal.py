"""Verdicts of an audit on SNR labels, power, symbol rate and channel."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from amc_utils.audit_measures import WIDE_SPREAD_DB
from amc_utils.signals import SAMPLES_PER_SYMBOL
from amc_utils.synchronisation import RECEIVERS
ROLLOFFS, MAX_CFO = RECEIVERS['table_1'].rolloffs, RECEIVERS['table_1'].max_cfo

# Check, result ("ok", "remark", "failed" or "cannot tell"), and what was found.
Verdict = tuple[str, str, str]

# Beyond these errors of a level's SNR label, in dB, a file is remarked upon, or refused; beyond the
# third above 20 dB, where a maker's filters may lift the noise floor.
_REMARKABLE_DB, _REFUSED_DB, _REFUSED_FAR_DB = 0.5, 1.5, 3.0
# Levels are judged whose measured mean is as sure as this; of a class at a level this much is allowed
# beyond five standard errors.
_SURE_DB, _ALLOWED_IN_CELL_DB = 0.3, 1.0


def signal_verdicts(report: dict[str, Any], labels_hold: bool) -> Iterator[Verdict]:
    """Verdicts on a report of amc_utils.audit, and whether its labels name the classes rightly."""
    yield from _snr(report, labels_hold)
    yield from _power(report)
    yield from _signal(report)


def _snr(report: dict[str, Any], labels_hold: bool) -> Iterator[Verdict]:
    levels = [row for row in report.get("levels", ()) if row["measured_db"] is not None]
    snr = report.get("snr")
    if not snr:
        yield "SNR convention", "cannot tell", "no digital class from -10 to 20 dB to measure it on"
        return
    offset = f"measured less label: {snr['offset_db']:+.2f} dB"
    if snr["convention"] == "SNR per sample":
        result = "remark" if abs(snr["offset_db"]) > _REMARKABLE_DB else "ok"
        yield "SNR convention", result, f"labels are the SNR per sample; {offset}"
    elif snr["convention"] == "Es/N0":
        what = f"labels are Es/N0, not the SNR per sample; {offset}; take 10 log10(8) off, on the grid"
        yield "SNR convention", "failed", what
    else:
        what = f"labels are neither the SNR per sample nor Es/N0; {offset}"
        yield "SNR convention", "failed", what
    yield _calibration(levels, snr["offset_db"])
    spread = report["snr_spread_db"]
    if spread is not None:
        result = "remark" if spread > WIDE_SPREAD_DB else "ok"
        what = f"single frames of a level differ by {spread:.2f} dB (standard deviation)"
        yield "SNR within levels", result, what
    # Under wrong labels a class at a level is a mixture.
    if report["cells"] and labels_hold:
        yield _cells(report["cells"], snr["offset_db"])


def _cells(cells: list[dict[str, Any]], offset_db: float) -> Verdict:
    off = [row["deviation_db"] - offset_db for row in cells]
    excess = [abs(e) - 5 * row["error_db"] for e, row in zip(off, cells, strict=True)]
    worst = int(np.argmax(excess))
    cell, result = cells[worst], "failed" if excess[worst] > _ALLOWED_IN_CELL_DB else "ok"
    what = f"largest deviation of a class: {off[worst]:+.2f} dB, {cell['name']} at {cell['level']} dB"
    return "SNR of each class", result, what


def _calibration(levels: list[dict[str, Any]], offset_db: float) -> Verdict:
    """How far measured SNRs lie from their labels, for levels where enough frames tell."""
    sure = [row for row in levels if row["error_db"] is not None and row["error_db"] < _SURE_DB]
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
    seen = f"{min(off)} to {max(off)} dB"
    what = f"largest deviation from that, {seen}: {off[worst]:+.2f} dB at {worst} dB"
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
        found = f"medians {powers[low]:.3f} to {powers[high]:.3f}; networks are used to 1"
        if not near_one:
            found += f"; lowest {low}, highest {high}"
        yield f"power of each {what}", "ok" if near_one else "failed" if far else "remark", found


def _signal(report: dict[str, Any]) -> Iterator[Verdict]:
    if "samples_per_symbol" not in report:
        return
    rate, spread = report["samples_per_symbol"], report["channel"]
    right = abs(rate - SAMPLES_PER_SYMBOL) < 0.05
    what = f"{rate:.2f} samples per symbol, {SAMPLES_PER_SYMBOL} wanted"
    yield "symbol rate", "ok" if right else "failed", what
    low, middle, high = spread["rolloff"]
    what = f"{low:.2f} to {high:.2f} (90 % of frames), median {middle:.2f}"
    at_an_end = middle in (ROLLOFFS[0], ROLLOFFS[-1]) or not ROLLOFFS[0] < middle < ROLLOFFS[-1]
    if at_an_end:
        what += f"; from {ROLLOFFS[0]} to {ROLLOFFS[-1]} is looked for, there may be others"
    yield "roll-off", "ok" if high - low > 0.05 and not at_an_end else "remark", what
    low, _, high = (1e4 * value for value in spread["cfo"])
    deviation = 1e4 * spread["cfo_std"]
    what = f"{low:.1f} to {high:.1f}, standard deviation {deviation:.2f}, in 1e-4 cycles per sample"
    if deviation >= 2:
        what += f"; up to {1e4 * MAX_CFO:.2f} is looked for"
    yield "carrier offset", "ok" if deviation < 2 else "remark", what
    low, _, high = spread["timing_samples"]
    alike = spread["timing_concentration"]
    what = f"{low:.1f} to {high:.1f} samples after a symbol; sameness {alike:.2f} of 1"
    yield "timing", "ok" if alike < 0.3 else "remark", what

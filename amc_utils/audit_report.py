"""Verdicts on what an audit found, and the page that a person reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from amc_utils.signals import SAMPLES_PER_SYMBOL
from amc_utils.symbol_maps import LINEAR_MODULATIONS

# An order of labels is believed from this probability on.
_SURE = 0.99
# Beyond these errors of a level's SNR label, in dB, a file is remarked upon, or refused.
_REMARKABLE_DB, _REFUSED_DB = 0.5, 1.5
# Levels where the spectrum measures the SNR well.
_MEASURABLE_DB = (-10, 20)
_SHOWN = 5


def judge(report: dict[str, Any]) -> list[dict[str, str]]:
    """Verdicts with check, result ("ok", "remark", "failed" or "cannot tell") and what was found."""
    parts = (_frames(report), _labels(report), _snr(report), _signal(report))
    return [
        {"check": check, "result": result, "what": what}
        for verdicts in parts
        for check, result, what in verdicts
    ]


def _frames(report: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
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


def _labels(report: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    if "order" not in report:
        yield "label order", "cannot tell", "no frames of high SNR show what class they are"
        return
    told = report["label_order"]
    order, sure = max(report["order"].items(), key=lambda item: item[1])
    agree = [row["agrees"] for row in report["classes"]]
    seen = f"{sum(agree)} of {len(agree)} classes look like their names"
    if sure < _SURE:
        yield "label order", "cannot tell", f"{seen}, too few to tell which list the labels follow"
    elif order == told:
        yield "label order", "ok", f"labels follow the {order} list, confidence {sure:.4f}"
    elif order == "neither":
        yield (
            "label order",
            "failed",
            f"labels follow neither the corrected nor the shipped list; {seen}",
        )
    else:
        advice = f"read the file with label_order {order}"
        yield "label order", "failed", f"labels follow the {order} list, not the {told} one; {advice}"
    if order == told:
        odd = [row["name"] for row in report["classes"] if not row["agrees"]]
        if report["exchanged"]:
            yield "each class", "failed", f"labels are exchanged: {', '.join(report['exchanged'])}"
        elif odd:
            yield "each class", "remark", f"classes that do not look like their names: {', '.join(odd)}"
        else:
            yield "each class", "ok", seen


def _snr(report: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    measured = [
        row
        for row in report.get("levels", ())
        if _MEASURABLE_DB[0] <= row["level"] <= _MEASURABLE_DB[1]
    ]
    snr = report.get("snr")
    if not snr or not measured:
        yield "SNR convention", "cannot tell", "no digital class from -10 to 20 dB to measure it on"
        return
    offset = f"measured less label: {snr['offset_db']:+.2f} dB"
    if snr["convention"] == "SNR per sample":
        yield "SNR convention", "ok", f"labels are the SNR per sample; {offset}"
    elif snr["convention"] == "Es/N0":
        yield "SNR convention", "failed", f"labels are Es/N0, not the SNR per sample; {offset}"
    else:
        yield "SNR convention", "failed", f"labels are neither the SNR per sample nor Es/N0; {offset}"
    errors = {row["level"]: row["measured_db"] - row["level"] - snr["offset_db"] for row in measured}
    worst = max(errors, key=lambda level: abs(errors[level]))
    size = abs(errors[worst])
    result = "failed" if size > _REFUSED_DB else "remark" if size > _REMARKABLE_DB else "ok"
    what = f"largest deviation from that, -10 to 20 dB: {errors[worst]:+.2f} dB at {worst} dB"
    yield "SNR calibration", result, what
    powers = [row["power"] for row in report["levels"]]
    low, high = min(powers), max(powers)
    near_one, far = low > 0.9 and high < 1.1, low < 0.5 or high > 2
    what = f"median power of the levels is {low:.3f} to {high:.3f}; pictures are made for 1"
    yield "power", "ok" if near_one else "failed" if far else "remark", what


def _signal(report: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
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


def _named(row: dict[str, Any]) -> str:
    """The receiver knows the linear modulations alone, and takes others for what they are not."""
    known = row["name"] in LINEAR_MODULATIONS
    return f"{row['looks_like']:14}{row['share']:6.0%}" if known else f"{'':20}"


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
        lines += ["", "class      column  signature          line  envelope  receiver names  share"]
        lines += [
            f"{row['name']:12}{row['label']:5}  {row['signature']:18}{row['squared_line']:5.2f}"
            f"{row['envelope_std']:10.2f}  {_named(row)}"
            + ("" if row["agrees"] else "  unlike its name")
            for row in report["classes"]
        ]
    if "levels" in report:
        lines += ["", "SNR label (dB), and what the spectrum says:"]
        pairs = [f"{row['level']:4} {row['measured_db']:6.1f}" for row in report["levels"]]
        lines += ["   ".join(pairs[start : start + 7]) for start in range(0, len(pairs), 7)]
    lines += ["", "passed" if report["passed"] else "FAILED", f"{report['seconds']:.0f} s"]
    return "\n".join(lines)

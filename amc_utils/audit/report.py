"""The page that a person reads of an audit."""

from __future__ import annotations

import textwrap
from typing import Any

_WIDTH, _INDENT = 110, 37


def page(report: dict[str, Any]) -> str:
    """The report as text, a page of some 110 columns."""
    layout = report["layout"]
    read_by = "their names" if "radioml_2016" in report else f"the {report['label_order']} list"
    lines = [
        f"{report['file']}: {layout['rows']:,} frames, {layout['bytes'] / 1e9:.2f} GB",
        *(f"  {name}  {layout[name]}" for name in "XYZ"),
        f"looked at {report['frames']:,} frames, read by {read_by}, in {report['seconds']:.0f} s",
        "",
        *(line for verdict in report["verdicts"] for line in _verdict(verdict)),
        *_classes(report),
        *_levels(report),
        "",
        _ending(report),
    ]
    return "\n".join(lines)


def _verdict(verdict: dict[str, str]) -> list[str]:
    line = f"{verdict['result']:12}{verdict['check']:25}{verdict['what']}"
    return textwrap.wrap(line, _WIDTH, subsequent_indent=" " * _INDENT, break_on_hyphens=False)


def _classes(report: dict[str, Any]) -> list[str]:
    if "classes" not in report:
        return []
    low, high = report["class_levels"]
    lines = [
        "",
        f"Frames of labels {low} to {high}. line: share of the power of iq^2 in its strongest line;",
        "envelope: its standard deviation over its mean; then the class that most frames look like,",
        "the share that does, and that which looks like another kind of signal than its label says.",
        "",
        "class      column  line  envelope   looks like     share  other kind",
    ]
    return lines + [
        f"{row['name']:12}{row['column']:5}{row['squared_line']:6.2f}{row['envelope_std']:10.2f}   "
        f"{row['looks_like']:14}{row['share']:6.0%}{row['mismatch_share']:12.0%}"
        + ("" if row["looks_like"] == row["name"] else "   unlike its name")
        for row in report["classes"]
    ]


def _levels(report: dict[str, Any]) -> list[str]:
    pairs = [
        f"{row['level']:4} {row['measured_db']:6.1f}"
        for row in report.get("levels", ())
        if row["measured_db"] is not None
    ]
    if not pairs:
        return []
    rows = ["   ".join(pairs[start : start + 7]) for start in range(0, len(pairs), 7)]
    return [
        "",
        "SNR label, and the SNR per sample in dB that the spectrum shows (off by chance below -12 dB):",
        *rows,
    ]


def _ending(report: dict[str, Any]) -> str:
    checks = {
        kind: [v["check"] for v in report["verdicts"] if v["result"] == kind]
        for kind in ("failed", "cannot tell")
    }
    if checks["failed"]:
        return f"FAILED: {', '.join(checks['failed'])}"
    open_checks = ", ".join(checks["cannot tell"])
    return f"passed, but cannot tell: {open_checks}" if open_checks else "passed"

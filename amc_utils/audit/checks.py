"""Verdicts on what an audit measured, one check a function, in the order of the page.

A check takes the report and returns a result with what was found, or None where nothing was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binom

from amc_utils.audit import radioml_2016
from amc_utils.audit.measures import FRAME_FAULTS
from amc_utils.audit.snr import SNR_CONVENTIONS, WIDE_SPREAD_DB
from amc_utils.signals import (
    FAMILY_OF_MODULATION,
    FILE_CHANNELS,
    RADIOML_2018_MODULATIONS,
    SAMPLES_PER_SYMBOL,
)

Report = dict[str, Any]
# Result ("ok", "remark", "failed" or "cannot tell"), and what was found.
Finding = tuple[str, str]

# What the signal itself shows at high SNR, whatever the label says: a real-valued signal squares to a
# spectral line, a transmitted carrier is one, FM and GMSK have a constant envelope.
SIGNATURE_OF_MODULATION = dict.fromkeys(RADIOML_2018_MODULATIONS, "neither") | {
    "OOK": "spectral line", "4ASK": "spectral line", "8ASK": "spectral line",
    "BPSK": "spectral line", "AM-SSB-WC": "spectral line", "AM-DSB-WC": "spectral line",
    "AM-DSB-SC": "spectral line", "FM": "constant envelope", "GMSK": "constant envelope",
}  # fmt: skip

# An order of labels is believed from this probability on.
_SURE = 0.99
# Least shares of frames that look like their class: of a class, of one whose points makers place
# differently, and of all. Then the largest shares that look like another kind of signal: of all, of a
# class, and at lower SNRs. Sound files of two makers keep some room to each. A file fails where chance
# would bring what was found less often than _CHANCE.
_OWN, _OWN_LOOSE, _OWN_OF_ALL = 0.9, 0.75, 0.95
_LOOSE = ("16APSK", "32APSK", "64APSK", "128APSK")
_MISMATCH, _MISMATCH_IN_CLASS, _MISMATCH_AT_LOWER_SNR, _CHANCE = 0.01, 0.03, 0.03, 1e-4
# Share of a class's frames that look like the one it was exchanged with.
_EXCHANGED = 0.7
_SHOWN = 5
# Beyond these errors of a level's SNR label, in dB, a file is remarked upon, or refused; beyond the
# third above 20 dB, where a maker's filters may lift the noise floor.
_REMARKABLE_DB, _REFUSED_DB, _REFUSED_FAR_DB = 0.5, 1.5, 3.0
# Levels are judged whose measured mean is as sure as this; of a class at a level this much is allowed
# beyond five standard errors.
_SURE_DB, _ALLOWED_IN_CELL_DB = 0.3, 1.0
# Of RadioML 2018.01A, what SNR a class may have beyond twice the label, in dB, and OOK; of all, what
# makes no remark. Excerpts show 0.3 dB without known cause, see docs/radioml_2018_as_measured.md.
_EXCESS_DB, _OOK_EXCESS_DB, _UNREMARKED_DB = (0.0, 1.6), (0.0, 2.3), (-0.3, 2.0)
_TWICE = "noise standard deviation"
# Classes whose power stands on the page, for it tells the scale.
_POWER_SHOWN = ("QPSK", "64QAM", "OOK", "4ASK", "8ASK")
# From here on ASK sends a carrier: 0.65 to 0.73 of its power where levels begin at zero, else to 0.15.
_CARRIER = 0.4
# Timing is in whole samples where its fractions agree like this; alike in all frames where it does.
_WHOLE, _ALIKE = 0.5, 0.3
# Exponents, mean roll-offs and deviations of carrier offsets that are taken for those of a preset: of
# the real file a roll-off of 0.38 to 0.44 with some room for chance.
_EXPONENT_ROOM = 0.2
_ROLLOFFS = {"radioml_2018": (0.365, 0.455), "table_1": (0.1, 0.4)}
_CFO_STDS = {"radioml_2018": (1e-5, 6e-5), "table_1": (6e-5, 2e-4)}
_CONVENTIONS = {"radioml_2018": _TWICE, "table_1": "SNR per sample"}


def judge(report: Report) -> list[dict[str, str]]:
    """Verdicts with check, result and what was found, in the order of the checks."""
    verdicts, labels_hold = [], True
    checks = _OF_ANY_FILE | radioml_2016.CHECKS if "radioml_2016" in report else CHECKS
    for check, (needed, finding_of) in checks.items():
        if needed and not report.get(needed):
            continue
        if check in NEED_ORDER and not _order_holds(report):
            continue
        if check in NEED_LABELS and not labels_hold:
            continue
        if finding := finding_of(report):
            result, what = finding
            verdicts.append({"check": check, "result": result, "what": what})
            labels_hold &= check not in ("label order", *NEED_ORDER) or result != "failed"
    return verdicts


def _result(*, failed: bool = False, remark: bool = False) -> str:
    return "failed" if failed else "remark" if remark else "ok"


def _few(found: list) -> str:
    more = ", ..." if len(found) > _SHOWN else ""
    return f": rows {', '.join(map(str, found[:_SHOWN]))}{more}" if found else ""


def _bad_frames(report: Report, *, what: str) -> Finding:
    rows = report["bad_frames"][what]
    return _result(failed=bool(rows)), f"{len(rows)} of {report['frames']:,} frames{_few(rows)}"


def _extremes(report: Report) -> Finding:
    share, low, high = (report["extremes"][name] for name in ("share", "lowest", "highest"))
    return "failed", (
        f"{share:.0%} of frames reach from {low:.4g} to {high:.4g}: each was scaled by its own minimum "
        f"and maximum, or cut off; take them as they were"
    )


def _duplicates(report: Report, *, where: str) -> Finding:
    pairs = report["duplicates"][where]
    return _result(failed=bool(pairs)), f"{len(pairs)} pairs that agree to the bit{_few(pairs)}"


def _balance(report: Report) -> Finding:
    low, high = report["layout"]["frames_per_cell"]
    counts = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    what = f"{counts} frames in each of {report['layout']['cells']} classes and levels"
    return _result(remark=low != high), what


def _label_order(report: Report) -> Finding:
    if "extremes" in report:
        return "cannot tell", "frames that were scaled one by one do not show their class"
    if "order" not in report:
        return "cannot tell", "no sound frames of 20 dB or more show what class they are"
    classes, read_by = pd.DataFrame(report["classes"]), report["label_order"]
    order, sure = _likeliest_order(report)
    agree = (classes["looks_like"] == classes["name"]).sum()
    seen = f"{agree} of {len(classes)} classes look like their names"
    if sure < _SURE:
        return "cannot tell", f"{seen}, too few to tell which list the labels follow"
    if order == read_by:
        return "ok", f"labels follow the {order} list, confidence {sure:.4f}"
    if order != "neither":
        advice = f"read the file with label_order {order}"
        return "failed", f"labels follow the {order} list, not the {read_by} one; {advice}"
    # Symbols that the receiver cannot find, for their channel is another, look like few things and
    # hardly like one; spectrum and envelope are what their names promise all the same.
    kinds_hold = (classes["signature"] == classes["name"].map(SIGNATURE_OF_MODULATION)).all()
    clear = classes["share"].median() > 0.7
    distinct = classes["looks_like"].nunique() > 0.7 * len(classes)
    if kinds_hold and not (clear and distinct):
        what = f"{seen}, spectra and envelopes of all do: a channel or symbols unlike those known here"
        return "cannot tell", what
    what = "labels follow neither the corrected nor the shipped list"
    return "failed", f"{what}; {seen}; below, what each column looks like"


def _likeliest_order(report: Report) -> tuple[str, float]:
    return max(report["order"].items(), key=lambda item: item[1])


def _order_holds(report: Report) -> bool:
    order, sure = _likeliest_order(report) if "order" in report else ("", 0.0)
    return order == report["label_order"] or sure < _SURE


def _classes(report: Report) -> pd.DataFrame:
    """Classes by name, with own: frames that look like it, and unlike: whether these are too few."""
    classes = pd.DataFrame(report["classes"]).set_index("name")
    least = np.where(classes.index.isin(_LOOSE), _OWN_LOOSE, _OWN)
    own = (classes["own_share"] * classes["frames"]).round()
    return classes.assign(own=own, unlike=binom.cdf(own, classes["frames"], least) < _CHANCE)


def _like_their_names(classes: pd.DataFrame) -> pd.DataFrame:
    """Without AM, which differs between makers, and classes that are wholly another."""
    return classes[~classes.index.str.startswith("AM-") & ~classes["unlike"]]


def _each_class(report: Report) -> Finding:
    classes, at = _classes(report), "at labels {} to {}".format(*report["class_levels"])
    unlike = classes[classes["unlike"]]
    if len(unlike):
        wrong = unlike[[_is_wrong(name, unlike) for name in unlike.index]]
        named = (
            f"{row.Index} looks like {row.looks_like} ({row.share:.0%})"
            for row in (wrong if len(wrong) else unlike).itertuples()
        )
        return _result(failed=len(wrong) > 0, remark=True), f"{at}, {', '.join(named)}"
    name, rest = classes["own_share"].idxmin(), _like_their_names(classes)
    least, own, frames = classes.loc[name], rest["own"].sum(), rest["frames"].sum()
    if binom.cdf(own, frames, _OWN_OF_ALL) < _CHANCE:
        what = f"{own / frames:.0%} of all frames look like their class, {at}"
        return "failed", f"{what}, of {name} {least['own_share']:.0%}"
    if least["own_share"] < 0.5:
        return "cannot tell", f"{least['frames']} frames of a class are too few, {at}"
    return "ok", f"{at}, least share that looks like its name: {least['own_share']:.0%} ({name})"


def _is_wrong(name: str, unlike: pd.DataFrame) -> bool:
    """Whether a class's name is wrong: of AM and APSK, only where it was exchanged, for makers differ.

    Names are exchanged where most frames of one class look like a second, which in turn looks like
    another, and so on back to the first.
    """
    if not (name.startswith("AM-") or name in _LOOSE):
        return True
    now = name
    for _ in range(len(unlike)):
        if now not in unlike.index or unlike.at[now, "share"] <= _EXCHANGED:
            return False
        before, now = now, unlike.at[now, "looks_like"]
        if now in (name, before):
            return now != before
    return False


def _each_frame(report: Report) -> Finding | None:
    rest = _like_their_names(_classes(report))
    if rest.empty:
        return None
    frames, others = rest["frames"], (rest["mismatch_share"] * rest["frames"]).round()
    by_class = binom.sf(others - 1, frames, _MISMATCH_IN_CLASS)
    bad = min(by_class.min(), binom.sf(others.sum() - 1, frames.sum(), _MISMATCH)) < _CHANCE
    what = f"{others.sum() / frames.sum():.1%} look like another kind of signal than their label says"
    if bad:
        worst = rest.iloc[by_class.argmin()]
        what += f", of {worst.name} {worst['mismatch_share']:.0%}"
    return _result(failed=bad), what


def _lower_snr(report: Report) -> Finding | None:
    middle = report["middle"]
    if not middle["frames"]:
        return None
    others = round(middle["share"] * middle["frames"])
    bad = binom.sf(others - 1, middle["frames"], _MISMATCH_AT_LOWER_SNR) < _CHANCE
    low, high = middle["levels"]
    what = f"{middle['share']:.1%} at labels {low} to {high} look like another kind of signal"
    return _result(failed=bad), f"{what}; nothing below"


def _sideband(report: Report) -> Finding | None:
    if report["sideband"] >= 0:
        return None
    return "remark", "AM-SSB lies below its carrier: I and Q may be exchanged"


def _snr_convention(report: Report) -> Finding:
    snr = report.get("snr")
    if not snr:
        return "cannot tell", "too few frames of digital classes to measure it on"
    labels, offset_db, slope = snr["labels"], snr["offset_db"], snr["measured_slope"]
    several = f"{len(labels)} labels from {labels[0]} to {labels[-1]}"
    found = several if len(labels) > 1 else f"label {labels[0]} alone"
    if offset_db is not None:
        found = f"{offset_db:+.2f} dB at label 0, on {found}"
    if slope is not None:
        found = f"slope {slope:.2f}, {found}"
    if snr["convention"] == "Es/N0":
        what = f"labels are Es/N0, not the SNR per sample; {found}; take 10 log10(8) off, on the grid"
        return "failed", what
    if snr["convention"] not in _CONVENTIONS.values():
        known = ", ".join("twice the label" if name == _TWICE else name for name in SNR_CONVENTIONS)
        return "failed", f"labels fit no convention ({known}); {found}"
    is_twice = snr["convention"] == _TWICE
    low, high = _UNREMARKED_DB if is_twice else (-_REMARKABLE_DB, _REMARKABLE_DB)
    what = "as in RadioML 2018.01A: true SNR is twice the label"
    what = what if is_twice else "labels are the SNR per sample"
    return _result(remark=not low <= offset_db <= high), f"{what}; {found}"


def _snr_calibration(report: Report) -> Finding | None:
    """How far measured SNRs lie from the convention's, for levels where enough frames tell."""
    if report["snr"]["offset_db"] is None:
        return None
    levels = pd.DataFrame(report["levels"]).set_index("level")[["measured_db", "error_db"]].dropna()
    levels = levels[levels["error_db"] < _SURE_DB]
    if levels.empty:
        return "cannot tell", "too few frames at each level"
    falls = levels["measured_db"].diff() < -_REMARKABLE_DB
    if falls.any():
        place = int(falls.argmax())
        lower, upper = levels.index[[place - 1, place]]
        return "failed", f"frames of label {upper} are noisier than those of label {lower}"
    expected = report["snr"]["slope"] * levels.index.to_series() + report["snr"]["offset_db"]
    off = levels["measured_db"] - expected
    # What chance may do to a mean over some frames is no error.
    excess = off.abs() - 3 * levels["error_db"]
    refused = (excess > np.where(expected <= 20, _REFUSED_DB, _REFUSED_FAR_DB)).any()
    worst = excess.idxmax()
    seen = f"labels {off.index.min()} to {off.index.max()}"
    what = f"largest deviation from that, {seen}: {off[worst]:+.2f} dB at label {worst}"
    return _result(failed=refused, remark=excess[worst] > _REMARKABLE_DB), what


def _snr_within_levels(report: Report) -> Finding | None:
    spread = report["snr_spread_db"]
    if spread is None:
        return None
    what = f"single frames of a level differ by {spread:.2f} dB (standard deviation)"
    return _result(remark=spread > WIDE_SPREAD_DB), what


def _snr_of_each_class(report: Report) -> Finding:
    snr, cells = report["snr"], pd.DataFrame(report["cells"])
    low = high = np.full(len(cells), snr["offset_db"])
    if snr["convention"] == _TWICE:
        is_ook = (cells["name"] == "OOK").to_numpy()[:, None]
        low, high = np.where(is_ook, _OOK_EXCESS_DB, _EXCESS_DB).T
    off = cells["deviation_db"]
    excess = np.maximum(off - high, low - off).clip(lower=0) - 5 * cells["error_db"]
    # Where no class is beyond what it may have, the one farthest from the middle.
    worst = int((excess if excess.max() > 0 else (off - (low + high) / 2).abs()).argmax())
    cell = report["cells"][worst]
    against = "twice its label" if snr["convention"] == _TWICE else "that"
    deviation = cell["deviation_db"] - (0 if snr["convention"] == _TWICE else snr["offset_db"])
    what = f"{cell['name']} at label {cell['level']} is most off, {deviation:+.2f} dB from {against}"
    return _result(failed=excess[worst] > _ALLOWED_IN_CELL_DB), what


def _power(report: Report, *, of: str) -> Finding:
    if of == "level":
        both = pd.DataFrame(report["levels"]).set_index("level").rename("label {}".format)
    else:
        both = pd.DataFrame({column: report["scale"][column] for column in ("power", "varying")})
    # A record has unit power without its carriers; frames by themselves have it with them.
    off = np.log(both[["power", "varying"]].clip(lower=1e-9)).abs()
    nearest = both["power"].where(off["power"] <= off["varying"], both["varying"])
    low, high = nearest.idxmin(), nearest.idxmax()
    far = nearest[low] < 0.5 or nearest[high] > 2
    # Which part of an analogue signal makers count as its carrier differs.
    judged = nearest[nearest.index.map(FAMILY_OF_MODULATION.get) != "analogue"]
    near_one = not far and judged.between(0.9, 1.1, inclusive="neither").all()
    found = f"medians {nearest[low]:.3f} to {nearest[high]:.3f}, carriers apart; networks expect 1"
    found += "" if near_one else f"; lowest {low}, highest {high}"
    return _result(failed=far, remark=not near_one), found


def _symbol_rate(report: Report) -> Finding:
    rate = report["samples_per_symbol"]
    what = f"{rate:.2f} samples per symbol, {SAMPLES_PER_SYMBOL} wanted"
    return _result(failed=not abs(rate - SAMPLES_PER_SYMBOL) < 0.05), what


def _pulse(report: Report) -> Finding | None:
    pulse = report["channel"]["pulse"]
    if not pulse:
        return None
    known = any(_fits_pulse(pulse, preset) for preset in FILE_CHANNELS)
    what = f"power {pulse['exponent']:.2f} of a raised cosine, roll-off {pulse['rolloff']:.2f} +- "
    what += f"{pulse['rolloff_width']:.2f}; misfit {pulse['misfit_db']:.2f} dB"
    return _result(remark=not known), what


def _fits_pulse(pulse: dict[str, float], preset: str) -> bool:
    low, high = _ROLLOFFS[preset]
    near = abs(pulse["exponent"] - FILE_CHANNELS[preset].pulse_exponent) < _EXPONENT_ROOM
    return near and low <= pulse["rolloff"] <= high


def _rolloff(report: Report) -> Finding | None:
    channel = report["channel"]
    if "rolloff" not in channel:
        return None
    low, middle, high = channel["rolloff"]
    first, last = channel["rolloffs"]
    what = f"{low:.2f} to {high:.2f} (90 % of frames), median {middle:.2f}"
    at_an_end = middle in (first, last) or not first < middle < last
    if at_an_end:
        what += f"; from {first} to {last} is looked for, there may be others"
    return _result(remark=at_an_end or high - low <= 0.05), what


def _carrier_offset(report: Report) -> Finding:
    channel = report["channel"]
    low, _, high = (1e4 * value for value in channel["cfo"])
    deviation = 1e4 * channel["cfo_std"]
    what = f"{low:.1f} to {high:.1f}, standard deviation {deviation:.2f}, in 1e-4 cycles per sample"
    if deviation >= 2:
        what += f"; up to {1e4 * channel['largest_cfo']:.2f} is looked for"
    return _result(remark=deviation >= 2), what


def _timing(report: Report) -> Finding:
    channel = report["channel"]
    low, _, high = channel["timing_samples"]
    alike = channel["timing_concentration"]
    of = "any fraction of a sample"
    if channel["fraction_concentration"] > _WHOLE:
        of = f"whole samples and {channel['timing_fraction']:.2f}"
    what = f"{low:.1f} to {high:.1f} samples, {of}; sameness {alike:.2f} of 1"
    return _result(remark=alike >= _ALIKE), what


def _ask_carrier(report: Report) -> float | None:
    """Share of the power that 4ASK and 8ASK have in their carrier, in the mean of those there."""
    carrier = report["scale"]["carrier"]
    shares = [carrier[name] for name in ("4ASK", "8ASK") if carrier.get(name) is not None]
    return sum(shares) / len(shares) if shares else None


def _ask_levels(report: Report) -> Finding | None:
    carrier = _ask_carrier(report)
    if carrier is None:
        return None
    levels = "begin at zero" if carrier > _CARRIER else "lie about zero"
    return "ok", f"{levels}: {carrier:.0%} of the power in the carrier"


def _scale(report: Report) -> Finding | None:
    scale = report["scale"]
    if scale["unit_share"] > 0.5:
        return "ok", f"{scale['unit_share']:.0%} of frames have unit power by themselves"
    shown = [name for name in _POWER_SHOWN if name in scale["power"]]
    if not shown or not all(0.9 < scale["varying"][name] < 1.1 for name in shown):
        return None
    powers = ", ".join(f"{name} {scale['power'][name]:.2f}" for name in shown)
    return "ok", f"of a long record; power: {powers}"


def _preset(report: Report) -> Finding:
    unlike = {preset: _unlike_preset(report, preset) for preset in FILE_CHANNELS}
    nearest = min(unlike, key=lambda preset: len(unlike[preset]))
    if not unlike[nearest]:
        return "ok", f"{nearest} simulates these frames: use channel: {{preset: {nearest}}}"
    what = f"none simulates these frames; {nearest} does but for {', '.join(unlike[nearest])}"
    return "remark", what


def _unlike_preset(report: Report, preset: str) -> list[str]:
    """What of a file's channel a preset does not have; what was not measured is not counted."""
    channel, found, carrier = FILE_CHANNELS[preset], report["channel"], _ask_carrier(report)
    low, high = _CFO_STDS[preset]
    snr, pulse = report.get("snr"), found["pulse"]
    fits = {
        "SNR labels": not snr or snr["convention"] == _CONVENTIONS[preset],
        "pulse": not pulse or _fits_pulse(pulse, preset),
        "timing": (found["fraction_concentration"] > _WHOLE) == channel.whole_sample_timing,
        "carrier offset": low <= found["cfo_std"] < high,
        "levels of ASK": carrier is None or (carrier > _CARRIER) == channel.unipolar_ask,
        "scale": (report["scale"]["unit_share"] < 0.5) == channel.record_scale,
    }
    return [aspect for aspect, fit in fits.items() if not fit]


# What must be there of the report for a check, if anything, and the check: of frames of any file.
_OF_ANY_FILE: dict[str, tuple[str | None, Callable[[Report], Finding | None]]] = {
    **{f"frames {what}": (None, partial(_bad_frames, what=what)) for what in FRAME_FAULTS},
    "scale of each frame": ("extremes", _extremes),
    "duplicates within cells": (None, partial(_duplicates, where="within cells")),
    "duplicates across cells": (None, partial(_duplicates, where="across cells")),
    "balance": (None, _balance),
}
# Of a file in the layout of RadioML 2018.01A.
CHECKS = _OF_ANY_FILE | {
    "label order": (None, _label_order),
    "each class": ("classes", _each_class),
    "each frame": ("classes", _each_frame),
    "frames at lower SNR": ("middle", _lower_snr),
    "I and Q": ("sideband", _sideband),
    "SNR convention": (None, _snr_convention),
    "SNR calibration": ("snr", _snr_calibration),
    "SNR within levels": ("snr", _snr_within_levels),
    "SNR of each class": ("cells", _snr_of_each_class),
    "power of each level": ("levels", partial(_power, of="level")),
    "power of each class": ("levels", partial(_power, of="class")),
    "symbol rate": ("samples_per_symbol", _symbol_rate),
    "pulse": ("channel", _pulse),
    "roll-off": ("channel", _rolloff),
    "carrier offset": ("channel", _carrier_offset),
    "timing": ("channel", _timing),
    "levels of ASK": ("channel", _ask_levels),
    "scale of frames": ("channel", _scale),
    "channel preset": ("channel", _preset),
}
# Under the wrong list most classes are wrong, which the check of the order says.
NEED_ORDER = ("each class", "each frame", "frames at lower SNR")
# Under wrong labels a class at a level is a mixture.
NEED_LABELS = ("SNR of each class", "levels of ASK", "scale of frames", "channel preset")

"""Verdicts of an audit on the channel: what it is, and which preset simulates it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from amc_utils.audit.signals import Verdict
from amc_utils.signals import CHANNEL_PRESETS

# Classes whose power stands on the page, for it tells the scale.
_WITH_CARRIER, _WITHOUT = ("OOK", "4ASK", "8ASK"), ("QPSK", "64QAM")
# From here on ASK sends a carrier: 0.65 to 0.73 of its power where levels begin at zero, else to 0.15.
_CARRIER = 0.4
# Timing is in whole samples where its fractions agree like this; alike in all frames where it does.
_WHOLE, _ALIKE = 0.5, 0.3
# Exponents, mean roll-offs and deviations of carrier offsets that are taken for those of a preset: of
# the real file a roll-off of 0.38 to 0.44 with some room for chance.
_EXPONENT_ROOM = 0.2
_ROLLOFFS = {"radioml_2018": (0.365, 0.455), "table_1": (0.1, 0.4)}
_CFO_STDS = {"radioml_2018": (1e-5, 6e-5), "table_1": (6e-5, 2e-4)}
_CONVENTIONS = {"radioml_2018": "noise standard deviation", "table_1": "SNR per sample"}


def channel_verdicts(report: dict[str, Any], labels_hold: bool) -> Iterator[Verdict]:
    """Verdicts on an audit's report, and whether its labels name the classes rightly."""
    found = report.get("channel")
    if not found:
        return
    if found["pulse"]:
        yield _pulse(found["pulse"])
    if "rolloff" in found:
        yield _rolloff(found)
    yield _carrier_offset(found)
    yield _timing(found)
    if not labels_hold:
        return
    carrier = _ask_carrier(report)
    if carrier is not None:
        levels = "begin at zero" if carrier > _CARRIER else "lie about zero"
        yield "levels of ASK", "ok", f"{levels}: {carrier:.0%} of the power in the carrier"
    scale = _scale(report["scale"])
    if scale:
        yield scale
    yield _preset(report)


def _pulse(pulse: dict[str, float]) -> Verdict:
    known = any(_fits_pulse(pulse, preset) for preset in CHANNEL_PRESETS)
    what = f"power {pulse['exponent']:.2f} of a raised cosine, roll-off {pulse['rolloff']:.2f} +- "
    what += f"{pulse['rolloff_width']:.2f}; misfit {pulse['misfit_db']:.2f} dB"
    return "pulse", "ok" if known else "remark", what


def _fits_pulse(pulse: dict[str, float], preset: str) -> bool:
    low, high = _ROLLOFFS[preset]
    near = abs(pulse["exponent"] - CHANNEL_PRESETS[preset].pulse_exponent) < _EXPONENT_ROOM
    return near and low <= pulse["rolloff"] <= high


def _rolloff(found: dict[str, Any]) -> Verdict:
    low, middle, high = found["rolloff"]
    first, last = found["rolloffs"]
    what = f"{low:.2f} to {high:.2f} (90 % of frames), median {middle:.2f}"
    at_an_end = middle in (first, last) or not first < middle < last
    if at_an_end:
        what += f"; from {first} to {last} is looked for, there may be others"
    return "roll-off", "ok" if high - low > 0.05 and not at_an_end else "remark", what


def _carrier_offset(found: dict[str, Any]) -> Verdict:
    low, _, high = (1e4 * value for value in found["cfo"])
    deviation = 1e4 * found["cfo_std"]
    what = f"{low:.1f} to {high:.1f}, standard deviation {deviation:.2f}, in 1e-4 cycles per sample"
    if deviation >= 2:
        what += f"; up to {1e4 * found['largest_cfo']:.2f} is looked for"
    return "carrier offset", "ok" if deviation < 2 else "remark", what


def _timing(found: dict[str, Any]) -> Verdict:
    low, _, high = found["timing_samples"]
    alike = found["timing_concentration"]
    whole = found["fraction_concentration"] > _WHOLE
    of = f"whole samples and {found['timing_fraction']:.2f}" if whole else "any fraction of a sample"
    what = f"{low:.1f} to {high:.1f} samples, {of}; sameness {alike:.2f} of 1"
    return "timing", "ok" if alike < _ALIKE else "remark", what


def _ask_carrier(report: dict[str, Any]) -> float | None:
    shares = [report["scale"]["carrier"].get(name) for name in ("4ASK", "8ASK")]
    shares = [share for share in shares if share is not None]
    return sum(shares) / len(shares) if shares else None


def _scale(scale: dict[str, Any]) -> Verdict | None:
    if scale["unit_share"] > 0.5:
        what = f"{scale['unit_share']:.0%} of frames have unit power by themselves"
        return "scale of frames", "ok", what
    shown = [n for n in (*_WITHOUT, *_WITH_CARRIER) if n in scale["power"]]
    if not shown or not all(0.9 < scale["varying"][name] < 1.1 for name in shown):
        return None
    powers = ", ".join(f"{name} {scale['power'][name]:.2f}" for name in shown)
    return "scale of frames", "ok", f"of a long record; power: {powers}"


def _preset(report: dict[str, Any]) -> Verdict:
    unlike = {preset: _unlike(report, preset) for preset in CHANNEL_PRESETS}
    for preset, aspects in unlike.items():
        if not aspects:
            what = f"{preset} simulates these frames: use channel: {{preset: {preset}}}"
            return "channel preset", "ok", what
    nearest = min(unlike, key=lambda preset: len(unlike[preset]))
    what = f"none simulates these frames; {nearest} does but for {', '.join(unlike[nearest])}"
    return "channel preset", "remark", what


def _unlike(report: dict[str, Any], preset: str) -> list[str]:
    """What of a file's channel a preset does not have; what was not measured is not counted."""
    channel, found, carrier = CHANNEL_PRESETS[preset], report["channel"], _ask_carrier(report)
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

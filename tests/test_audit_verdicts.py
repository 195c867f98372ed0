"""Where verdicts turn, on reports made by hand."""

from __future__ import annotations

import copy

import pytest

from amc_utils.audit.checks import SIGNATURE_OF_MODULATION, judge
from amc_utils.audit.measures import FRAME_FAULTS
from amc_utils.signals import RADIOML_2018_MODULATIONS

LEVELS = range(-20, 31, 2)


def classes():
    return [
        {
            "name": name, "column": column, "signature": SIGNATURE_OF_MODULATION[name],
            "looks_like": name, "share": 1.0, "own_share": 1.0, "mismatch_share": 0.0, "frames": 64,
        }
        for column, name in enumerate(RADIOML_2018_MODULATIONS)
    ]  # fmt: skip


def levels():
    sound = {"power": 1.0, "varying": 1.0}
    return [
        {"level": n, "measured_db": float(n), "error_db": 0.1 if n > -12 else 0.5} | sound
        for n in LEVELS
    ]


def cells():
    sound = {"name": "QPSK", "deviation_db": 0.0, "error_db": 0.1}
    return [sound | {"level": n, "measured_db": n} for n in LEVELS]


# What needs no row for each class or level.
SOUND = {
    "frames": 1000,
    "bad_frames": {what: [] for what in FRAME_FAULTS},
    "duplicates": {"within cells": [], "across cells": []},
    "layout": {"frames_per_cell": [32, 32], "cells": 624},
    "label_order": "corrected",
    "order": {"corrected": 1.0, "shipped": 0.0, "neither": 0.0},
    "class_levels": [22, 30],
    "middle": {"frames": 200, "share": 0.02, "levels": [8, 20]},
    "sideband": 0.9,
    "scale": {
        "unit_share": 1.0,
        "power": dict.fromkeys(RADIOML_2018_MODULATIONS, 1.0),
        "varying": dict.fromkeys(RADIOML_2018_MODULATIONS, 0.95),
        "carrier": dict.fromkeys(RADIOML_2018_MODULATIONS, 0.1),
    },
    "snr": {
        "convention": "SNR per sample", "slope": 1.0, "offset_db": 0.0, "measured_slope": 1.0,
        "labels": [-12, 0, 30],
    },
    "snr_spread_db": 0.4,
    "samples_per_symbol": 8.0,
    "channel": {
        "pulse": {"exponent": 0.5, "rolloff": 0.25, "rolloff_width": 0.15, "misfit_db": 0.1},
        "rolloff": [0.12, 0.25, 0.38],
        "rolloffs": [0.1, 0.4],
        "cfo": [-1.6e-4, 0.0, 1.6e-4],
        "cfo_std": 1e-4,
        "largest_cfo": 3.75e-4,
        "timing_samples": [0.4, 4.0, 7.6],
        "timing_concentration": 0.05,
        "fraction_concentration": 0.05,
        "timing_fraction": 0.3,
    },
}  # fmt: skip


def sound_report():
    return copy.deepcopy(SOUND) | {"classes": classes(), "levels": levels(), "cells": cells()}


def twin_report():
    """The report on a file of the other channel that is known."""
    report = sound_report()
    for row in report["levels"]:
        row["measured_db"] = 2.0 * row["level"] + 0.7
    for row in report["cells"]:
        row.update(measured_db=2.0 * row["level"] + 0.4, deviation_db=0.4)
    report["snr"].update(
        convention="noise standard deviation", slope=2.0, offset_db=0.7, measured_slope=2.0
    )
    report["scale"]["unit_share"] = 0.1
    for name, carrier in {"OOK": 0.54, "4ASK": 0.68, "8ASK": 0.73}.items():
        report["scale"]["carrier"][name] = carrier
        report["scale"]["power"][name] = 1 / (1 - carrier)
    found = report["channel"]
    del found["rolloff"]
    found["pulse"].update(exponent=1.5, rolloff=0.41, rolloff_width=0.02)
    found.update(cfo_std=3.3e-5, fraction_concentration=0.95, timing_fraction=0.5)
    return report


def put(path, value):
    """Change of a report: the value at a path of names and numbers."""

    def change(report):
        *way, last = path
        for step in way:
            report = report[step]
        report[last] = value

    return change


def both_powers(name, value):
    """Change of a report: the power of a class, with its carrier and without."""

    def change(report):
        report["scale"]["power"][name] = report["scale"]["varying"][name] = value

    return change


def level_powers(value):
    """Change of a report: the power of a level, with carriers and without."""
    return lambda report: report["levels"][3].update(power=value, varying=value)


def looking_like(place, name):
    """Change of a report: a class whose frames all look like another one."""
    return lambda report: report["classes"][place].update(looks_like=name, own_share=0.0)


def verdict(change, check, report=sound_report):
    report = report()
    change(report)
    return {v["check"]: v["result"] for v in judge(report)}[check]


QPSK, QAM64, APSK128, AM = (
    RADIOML_2018_MODULATIONS.index(n) for n in ("QPSK", "64QAM", "128APSK", "AM-DSB-WC")
)
at = {level: place for place, level in enumerate(LEVELS)}
# check, change, verdict: on either side of each threshold.
TURNS = [
    ("balance", put(["layout", "frames_per_cell"], [31, 32]), "remark"),
    ("frames of extreme power", put(["bad_frames", "of extreme power"], [3]), "failed"),
    ("duplicates across cells", put(["duplicates", "across cells"], [[1, 2]]), "failed"),
    ("label order", put(["order"], {"corrected": 0.991, "shipped": 0.009, "neither": 0.0}), "ok"),
    (
        "label order",
        put(["order"], {"corrected": 0.98, "shipped": 0.02, "neither": 0.0}),
        "cannot tell",
    ),
    ("each class", put(["classes", QPSK, "own_share"], 0.80), "ok"),
    ("each class", put(["classes", QPSK, "own_share"], 0.70), "failed"),
    ("each class", put(["classes", APSK128, "own_share"], 0.60), "ok"),
    ("each class", put(["classes", APSK128, "own_share"], 0.50), "remark"),
    ("each class", looking_like(APSK128, "256QAM"), "remark"),
    ("each class", looking_like(AM, "AM-DSB-SC"), "remark"),
    ("each class", looking_like(QPSK, "8PSK"), "failed"),
    ("each frame", put(["classes", QPSK, "mismatch_share"], 0.12), "ok"),
    ("each frame", put(["classes", QPSK, "mismatch_share"], 0.20), "failed"),
    ("frames at lower SNR", put(["middle", "share"], 0.06), "ok"),
    ("frames at lower SNR", put(["middle", "share"], 0.10), "failed"),
    ("I and Q", put(["sideband"], -0.5), "remark"),
    ("SNR convention", put(["snr", "offset_db"], 0.45), "ok"),
    ("SNR convention", put(["snr", "offset_db"], 0.55), "remark"),
    ("scale of each frame", put(["extremes"], {"share": 0.9, "lowest": 0, "highest": 1}), "failed"),
    ("SNR convention", put(["snr", "convention"], "Es/N0"), "failed"),
    ("SNR convention", put(["snr", "convention"], "undecided"), "failed"),
    ("SNR calibration", put(["levels", at[8], "measured_db"], 8.75), "ok"),
    ("SNR calibration", put(["levels", at[8], "measured_db"], 8.85), "remark"),
    ("SNR calibration", put(["levels", at[8], "measured_db"], 9.75), "remark"),
    ("SNR calibration", put(["levels", at[8], "measured_db"], 9.85), "failed"),
    ("SNR calibration", put(["levels", at[30], "measured_db"], 33.25), "remark"),
    ("SNR calibration", put(["levels", at[30], "measured_db"], 33.35), "failed"),
    ("SNR calibration", put(["levels", at[30], "measured_db"], 27.55), "remark"),
    ("SNR calibration", put(["levels", at[30], "measured_db"], 27.45), "failed"),
    ("SNR calibration", put(["levels", at[-18], "measured_db"], -13.0), "ok"),
    ("SNR within levels", put(["snr_spread_db"], 0.69), "ok"),
    ("SNR within levels", put(["snr_spread_db"], 0.71), "remark"),
    ("SNR of each class", put(["cells", 3, "deviation_db"], 1.45), "ok"),
    ("SNR of each class", put(["cells", 3, "deviation_db"], -1.55), "failed"),
    ("power of each class", both_powers("QPSK", 0.91), "ok"),
    ("power of each class", both_powers("QPSK", 0.89), "remark"),
    ("power of each class", both_powers("QPSK", 0.51), "remark"),
    ("power of each class", both_powers("QPSK", 0.49), "failed"),
    ("power of each level", level_powers(1.11), "remark"),
    ("power of each level", level_powers(1.99), "remark"),
    ("power of each level", level_powers(2.01), "failed"),
    ("symbol rate", put(["samples_per_symbol"], 8.04), "ok"),
    ("symbol rate", put(["samples_per_symbol"], 7.94), "failed"),
    ("roll-off", put(["channel", "rolloff"], [0.22, 0.25, 0.28]), "ok"),
    ("roll-off", put(["channel", "rolloff"], [0.23, 0.25, 0.27]), "remark"),
    ("roll-off", put(["channel", "rolloff"], [0.3, 0.4, 0.4]), "remark"),
    ("carrier offset", put(["channel", "cfo_std"], 1.9e-4), "ok"),
    ("carrier offset", put(["channel", "cfo_std"], 2.1e-4), "remark"),
    ("timing", put(["channel", "timing_concentration"], 0.29), "ok"),
    ("timing", put(["channel", "timing_concentration"], 0.31), "remark"),
]


@pytest.mark.parametrize(("check", "change", "result"), TURNS)
def test_verdict_turns_where_it_should(check, change, result):
    assert verdict(change, check) == result


@pytest.mark.parametrize("report", [sound_report, twin_report])
def test_sound_report_has_no_other_verdict_than_ok(report):
    assert {v["check"]: v["result"] for v in judge(report()) if v["result"] != "ok"} == {}


# The same of the twin of the real file, whose classes have SNRs of their own.
TWIN_TURNS = [
    ("SNR convention", put(["snr", "offset_db"], 1.9), "ok"),
    ("SNR convention", put(["snr", "offset_db"], 2.1), "remark"),
    ("SNR convention", put(["snr", "offset_db"], -0.4), "remark"),
    ("SNR of each class", put(["cells", at[8], "deviation_db"], 3.0), "ok"),
    ("SNR of each class", put(["cells", at[8], "deviation_db"], 3.2), "failed"),
    ("SNR of each class", put(["cells", at[8], "deviation_db"], -1.4), "ok"),
    ("SNR of each class", put(["cells", at[8], "deviation_db"], -1.6), "failed"),
    ("pulse", put(["channel", "pulse", "exponent"], 1.69), "ok"),
    ("pulse", put(["channel", "pulse", "exponent"], 1.71), "remark"),
    ("pulse", put(["channel", "pulse", "rolloff"], 0.37), "ok"),
    ("pulse", put(["channel", "pulse", "rolloff"], 0.36), "remark"),
    ("pulse", put(["channel", "pulse", "rolloff"], 0.45), "ok"),
    ("pulse", put(["channel", "pulse", "rolloff"], 0.46), "remark"),
    ("power of each class", both_powers("AM-SSB-WC", 1.9), "ok"),
    ("power of each class", both_powers("AM-SSB-WC", 2.1), "failed"),
    ("channel preset", put(["channel", "cfo_std"], 5.9e-5), "ok"),
    ("channel preset", put(["channel", "cfo_std"], 6.1e-5), "remark"),
    ("channel preset", put(["channel", "fraction_concentration"], 0.6), "ok"),
    ("channel preset", put(["channel", "fraction_concentration"], 0.4), "remark"),
    ("channel preset", put(["scale", "unit_share"], 0.6), "remark"),
    ("channel preset", put(["snr", "convention"], "SNR per sample"), "remark"),
]


@pytest.mark.parametrize(("check", "change", "result"), TWIN_TURNS)
def test_verdict_on_the_twin_turns_where_it_should(check, change, result):
    assert verdict(change, check, twin_report) == result


def test_preset_that_does_not_fit_is_named_with_what_is_unlike():
    report = twin_report()
    report["channel"]["pulse"]["exponent"] = 1.0
    found = {v["check"]: v["what"] for v in judge(report)}["channel preset"]
    assert found == "none simulates these frames; radioml_2018 does but for pulse"


def neither(report):
    report["order"] = {"corrected": 0.0, "shipped": 0.0, "neither": 1.0}


def seen_as(report, names, share):
    for row, name in zip(report["classes"], names, strict=True):
        row.update(looks_like=name, share=share, own_share=0.0)


@pytest.mark.parametrize(
    ("looks_like", "share", "kinds_hold", "result"),
    [
        # Every class is clearly another, as under permuted labels.
        ((*RADIOML_2018_MODULATIONS[1:], "OOK"), 1.0, True, "failed"),
        # The receiver finds no symbols and calls all the same, or this and that.
        (["256QAM"] * 24, 1.0, True, "cannot tell"),
        ((*RADIOML_2018_MODULATIONS[1:], "OOK"), 0.4, True, "cannot tell"),
        # So it does with labels at random, but then no class has its spectrum and envelope.
        (["256QAM"] * 24, 1.0, False, "failed"),
    ],
)
def test_labels_follow_no_list_only_where_classes_are_clearly_others(
    looks_like, share, kinds_hold, result
):
    def change(report):
        neither(report)
        seen_as(report, looks_like, share)
        if not kinds_hold:
            report["classes"][3]["signature"] = "neither"

    assert verdict(change, "label order") == result


def test_class_of_few_frames_is_not_called_right():
    def change(report):
        for row in report["classes"]:
            row["frames"] = 4
        report["classes"][QPSK]["own_share"] = 0.25

    assert verdict(change, "each class") == "cannot tell"


def test_frames_of_similar_classes_exchanged_in_part_fail():
    """Four in five of every QAM and APSK are right, which no single class makes sure."""

    def change(report):
        for row in report["classes"]:
            if row["name"].endswith(("QAM", "APSK")):
                row["own_share"] = 0.8

    assert verdict(change, "each class") == "failed"

"""The audit of files: what is in order passes; labels of classes that are not are named."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from audited import (
    TABLE_1,
    altered,
    both_presets,
    failures,
    of_all_classes,
    shipped,
    simulated,
    verdicts,
)

from amc_utils.audit.audit import audit
from amc_utils.audit.report import page
from amc_utils.signals import FILE_CHANNELS, RADIOML_2018_MODULATIONS, Channel

MAKERS = (*FILE_CHANNELS, "gnuradio")
MEANING = {
    "radioml_2018": "as in RadioML 2018.01A: true SNR is twice the label",
    "table_1": "labels are the SNR per sample",
    "gnuradio": "labels are the SNR per sample",
}


@pytest.fixture(params=["radioml_2018", "gnuradio"])
def sound(request, gnuradio_slice):
    """A file in order, of two makers and two channels."""
    return gnuradio_slice if request.param == "gnuradio" else simulated(request.param)


@pytest.mark.parametrize("maker", MAKERS)
def test_sound_file_passes_all_checks(maker, gnuradio_slice):
    report = audit(gnuradio_slice if maker == "gnuradio" else simulated(maker))
    assert report["passed"], page(report)
    found = verdicts(report)
    assert found["label order"]["result"] == "ok"
    assert found["each class"]["result"] == "ok"
    assert found["SNR convention"]["what"].startswith(MEANING[maker])
    assert found["channel preset"]["result"] == "ok"
    preset = "table_1" if maker == "gnuradio" else maker
    assert found["channel preset"]["what"].endswith(f"use channel: {{preset: {preset}}}")
    assert report["samples_per_symbol"] == pytest.approx(8, abs=0.03)
    assert len(page(report).splitlines()) < 72
    assert max(map(len, page(report).splitlines())) <= 110
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize("maker", MAKERS)
def test_all_24_classes_are_recognised_by_their_signal_alone(maker, gnuradio_slice):
    report = audit(gnuradio_slice if maker == "gnuradio" else of_all_classes(maker))
    assert report["passed"], page(report)
    assert len(report["classes"]) == 24
    assert all(row["looks_like"] == row["name"] for row in report["classes"])
    assert report["order"]["corrected"] > 0.999
    assert report["sideband"] > 0.9


def exchange(*names):
    """Swap the labels of classes in a ring."""
    number = np.arange(24)
    places = [RADIOML_2018_MODULATIONS.index(name) for name in names]
    number[places] = np.roll(places, 1)

    def change(parts):
        parts["Y"] = np.eye(24, dtype=np.int64)[number[parts["Y"].argmax(1)]]

    return change


def permute(parts):
    order = np.random.default_rng(1).permutation(24)
    parts["Y"] = parts["Y"][:, order]


def test_file_labelled_by_the_wrong_list_is_told_and_read_by_it(sound, tmp_path):
    path = altered(sound, tmp_path / "shipped.h5", shipped)
    report = audit(path)
    assert failures(report) >= {"label order"}
    assert "labels follow the shipped list" in verdicts(report)["label order"]["what"]
    assert "read the file with label_order shipped" in verdicts(report)["label order"]["what"]
    assert audit(path, label_order="shipped")["passed"]
    assert "labels follow the corrected list" in str(audit(sound, label_order="shipped")["verdicts"])


def test_file_in_neither_order_fails(sound, tmp_path):
    report = audit(altered(sound, tmp_path / "permuted.h5", permute))
    assert "neither" in verdicts(report)["label order"]["what"]
    assert not report["passed"]


@pytest.mark.parametrize("names", [("16QAM", "64QAM"), ("8PSK", "16PSK", "32PSK"), ("4ASK", "8ASK")])
def test_classes_exchanged_within_a_family_are_named(sound, tmp_path, names):
    """The signatures that tell the two lists apart do not see these; the receiver does."""
    report = audit(altered(sound, tmp_path / "exchanged.h5", exchange(*names)))
    assert failures(report) == {"each class"}
    for name in names:
        assert f"{name} looks like" in verdicts(report)["each class"]["what"]


@pytest.mark.parametrize(
    "names",
    [("QPSK", "AM-SSB-SC"), ("8ASK", "AM-DSB-SC"), ("8ASK", "AM-DSB-WC"), ("OOK", "AM-DSB-WC"),
     ("FM", "GMSK"), ("AM-SSB-WC", "AM-DSB-WC"), ("64QAM", "FM"), ("OQPSK", "GMSK"),
     ("128APSK", "256QAM"), ("16APSK", "32APSK")],
)  # fmt: skip
def test_classes_exchanged_with_any_other_fail(tmp_path, names):
    check_exchange("radioml_2018", tmp_path, names)


@pytest.mark.parametrize("names", [("8ASK", "AM-DSB-SC"), ("OOK", "AM-DSB-WC"), ("128APSK", "256QAM")])
def test_classes_exchanged_with_any_other_fail_in_the_other_channel(tmp_path, names):
    check_exchange("table_1", tmp_path, names)


def check_exchange(preset, tmp_path, names):
    report = audit(altered(of_all_classes(preset), tmp_path / "exchanged.h5", exchange(*names)))
    assert failures(report) == {"each class"}
    assert all(f"{name} looks like" in verdicts(report)["each class"]["what"] for name in names)


def test_am_of_another_kind_alone_is_only_remarked(tmp_path):
    """What makers mean by it differs, and nothing here is exchanged."""

    def relabel(parts):
        keep = parts["Y"].argmax(1) != RADIOML_2018_MODULATIONS.index("AM-DSB-WC")
        for name in parts:
            parts[name] = parts[name][keep]
        label = parts["Y"].argmax(1)
        label[label == RADIOML_2018_MODULATIONS.index("AM-DSB-SC")] -= 1
        parts["Y"] = np.eye(24, dtype=np.int64)[label]

    report = audit(altered(of_all_classes("radioml_2018"), tmp_path / "am.h5", relabel))
    assert report["passed"]
    found = verdicts(report)["each class"]
    assert found["result"] == "remark"
    assert "AM-DSB-WC looks like AM-DSB-SC" in found["what"]


def test_class_that_is_wholly_another_fails_where_that_is_there_too(tmp_path):
    """All that is called 16QAM is 64QAM, beside the 64QAM itself."""

    def relabel(parts):
        label = parts["Y"].argmax(1)
        of_64, of_16 = (np.flatnonzero(label == n) for n in (14, 12))
        parts["X"][of_16] = 1.001 * parts["X"][of_64]

    report = audit(altered(of_all_classes("radioml_2018"), tmp_path / "wrong.h5", relabel))
    assert failures(report) == {"each class"}
    assert verdicts(report)["each class"]["what"].endswith("16QAM looks like 64QAM (100%)")


def test_class_that_is_wholly_another_fails_where_it_is_alone(tmp_path):
    """One class does not decide the order of labels."""

    def relabel(parts):
        keep = parts["Y"].argmax(1) == RADIOML_2018_MODULATIONS.index("64QAM")
        for name in parts:
            parts[name] = parts[name][keep]
        parts["Y"] = np.roll(parts["Y"], -2, 1)

    report = audit(altered(of_all_classes("radioml_2018"), tmp_path / "wrong.h5", relabel))
    assert verdicts(report)["label order"]["result"] == "cannot tell"
    assert failures(report) == {"each class"}


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_labels_at_random_below_the_levels_that_show_classes_are_noticed(tmp_path, share):
    path = simulated("radioml_2018", snr_labels=(6, 8, 14, 22, 26, 30), num_frames_per_cell=5, seed=4)

    def scatter(parts):
        rng = np.random.default_rng(0)
        hit = np.flatnonzero((parts["Z"][:, 0] < 20) & (rng.random(len(parts["Z"])) < share))
        parts["Y"][hit] = parts["Y"][rng.permutation(hit)]

    assert audit(path)["passed"]
    report = audit(altered(path, tmp_path / "low.h5", scatter))
    assert "frames at lower SNR" in failures(report)


def test_exchange_in_a_file_of_one_frame_a_cell_is_noticed(tmp_path):
    """Too few of a class to judge it, enough of all."""
    grid = tuple(range(-20, 31, 2))
    path = simulated("radioml_2018", snr_labels=grid, num_frames_per_cell=1, seed=6)
    report = audit(path)
    assert report["passed"], page(report)
    change = exchange("16QAM", "64QAM", "4ASK", "8ASK")
    report = audit(altered(path, tmp_path / "exchanged.h5", change))
    assert "each class" in failures(report)


@pytest.mark.parametrize("rolloff", [0.05, 0.6])
@both_presets
def test_another_roll_off_is_not_called_wrong_labels(preset, rolloff):
    channel = Channel(**vars(FILE_CHANNELS[preset]) | {"rolloff_range": (rolloff, rolloff)})
    report = audit(simulated(channel, snr_labels=(0, 8, 30), num_frames_per_cell=6))
    assert "label order" not in failures(report), page(report)
    assert verdicts(report)["pulse"]["result"] == "remark"
    assert report["channel"]["pulse"]["rolloff"] == pytest.approx(rolloff, abs=0.04)
    # The narrow one leaves no timing to be found, and then classes are not what they are called.
    if rolloff == 0.6:
        assert report["passed"], page(report)
        assert verdicts(report)["channel preset"]["result"] == "remark"
        assert verdicts(report)["channel preset"]["what"].endswith(f"{preset} does but for pulse")


@both_presets
def test_single_frames_with_an_snr_of_their_own_are_remarked(preset, tmp_path):
    """Labels rounded to the grid: classes are recognised all the same."""
    content = {"X": [], "Y": [], "Z": []}
    for seed, offset in ((1, -1.0), (2, 0.0), (3, 1.0)):
        channel = Channel(**vars(FILE_CHANNELS[preset]) | {"snr_offset_db": offset})
        path = simulated(channel, snr_labels=(0, 4, 8, 10, 30), seed=seed)
        with h5py.File(path) as file:
            for name, values in content.items():
                values.append(file[name][:])
    with h5py.File(tmp_path / "rounded.h5", "w") as file:
        for name, values in content.items():
            file[name] = np.concatenate(values)
    report = audit(tmp_path / "rounded.h5")
    assert report["passed"], page(report)
    assert verdicts(report)["SNR within levels"]["result"] == "remark"


@pytest.mark.parametrize(("share", "of"), [(0.3, "one class"), (0.05, "all classes")])
def test_frames_with_labels_at_random_are_noticed(tmp_path, share, of):
    """Each class still looks like its name for the most part."""
    path = simulated("radioml_2018", snr_labels=(22, 26, 30), num_frames_per_cell=22, seed=4)

    def scatter(parts):
        rng = np.random.default_rng(0)
        label = parts["Y"].argmax(1)
        hit = rng.random(len(label)) < share
        if of == "one class":
            hit &= label == RADIOML_2018_MODULATIONS.index("QPSK")
        # The signals move, and the labels stay: no class gains frames.
        places = np.flatnonzero(hit)
        parts["X"][places] = parts["X"][rng.permutation(len(label))[: len(places)]] * np.float32(1.001)

    report = audit(altered(path, tmp_path / "scattered.h5", scatter))
    assert failures(report) & {"each class", "each frame"}
    assert verdicts(report)["label order"]["result"] == "ok"


def test_exchanged_i_and_q_are_remarked(tmp_path):
    def swap(parts):
        parts["X"] = parts["X"][:, :, ::-1]

    path = of_all_classes(TABLE_1)
    report = audit(altered(path, tmp_path / "swapped.h5", swap))
    assert report["passed"]
    assert verdicts(report)["I and Q"]["result"] == "remark"
    assert "I and Q" not in verdicts(audit(path))

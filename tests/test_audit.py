"""The audit of files: what is in order passes; labels of classes that are not are named."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from audited import altered, failures, shipped, verdicts

from amc_utils.audit import audit
from amc_utils.audit_report import page
from amc_utils.channel import Channel
from amc_utils.data import write_radioml
from amc_utils.frames import synthesise_frames
from amc_utils.labels import (
    DIGITAL_MODULATIONS,
    RADIOML_2018_MODULATIONS,
)


def test_sound_file_passes_all_checks(sound):
    report = audit(sound)
    assert report["passed"], page(report)
    found = verdicts(report)
    assert found["label order"]["result"] == "ok"
    assert found["each class"]["result"] == "ok"
    assert found["SNR convention"]["what"].startswith("labels are the SNR per sample")
    assert report["samples_per_symbol"] == pytest.approx(8, abs=0.03)
    assert len(page(report).splitlines()) < 66
    assert max(map(len, page(report).splitlines())) <= 110
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize("maker", ["all_classes", "gnuradio_slice"])
def test_all_24_classes_are_recognised_by_their_signal_alone(maker, request):
    report = audit(request.getfixturevalue(maker))
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
    [("QPSK", "AM-SSB-SC"), ("8ASK", "AM-DSB-SC"), ("OOK", "AM-DSB-WC"), ("FM", "GMSK"),
     ("AM-SSB-WC", "AM-DSB-WC"), ("64QAM", "FM"), ("OQPSK", "GMSK"), ("128APSK", "256QAM")],
)  # fmt: skip
def test_classes_exchanged_with_any_other_fail(all_classes, tmp_path, names):
    report = audit(altered(all_classes, tmp_path / "exchanged.h5", exchange(*names)))
    assert failures(report) == {"each class"}
    assert all(f"{name} looks like" in verdicts(report)["each class"]["what"] for name in names)


def test_am_of_another_kind_alone_is_only_remarked(all_classes, tmp_path):
    """What makers mean by it differs, and nothing here is exchanged."""

    def relabel(parts):
        keep = parts["Y"].argmax(1) != RADIOML_2018_MODULATIONS.index("AM-DSB-WC")
        for name in parts:
            parts[name] = parts[name][keep]
        label = parts["Y"].argmax(1)
        label[label == RADIOML_2018_MODULATIONS.index("AM-DSB-SC")] -= 1
        parts["Y"] = np.eye(24, dtype=np.int64)[label]

    report = audit(altered(all_classes, tmp_path / "am.h5", relabel))
    assert report["passed"]
    found = verdicts(report)["each class"]
    assert found["result"] == "remark"
    assert "AM-DSB-WC looks like AM-DSB-SC" in found["what"]


def test_class_that_is_wholly_another_fails_where_that_is_there_too(all_classes, tmp_path):
    """All that is called 16QAM is 64QAM, beside the 64QAM itself."""

    def relabel(parts):
        label = parts["Y"].argmax(1)
        of_64, of_16 = (np.flatnonzero(label == n) for n in (14, 12))
        parts["X"][of_16] = 1.001 * parts["X"][of_64]

    report = audit(altered(all_classes, tmp_path / "wrong.h5", relabel))
    assert failures(report) == {"each class"}
    assert verdicts(report)["each class"]["what"].endswith("16QAM looks like 64QAM (100%)")


def test_class_that_is_wholly_another_fails_where_it_is_alone(all_classes, tmp_path):
    """The order of labels cannot be told from one class."""

    def relabel(parts):
        keep = parts["Y"].argmax(1) == RADIOML_2018_MODULATIONS.index("64QAM")
        for name in parts:
            parts[name] = parts[name][keep]
        parts["Y"] = np.roll(parts["Y"], -2, 1)

    report = audit(altered(all_classes, tmp_path / "wrong.h5", relabel))
    assert verdicts(report)["label order"]["result"] == "cannot tell"
    assert failures(report) == {"each class"}


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_labels_at_random_below_the_levels_that_show_classes_are_noticed(tmp_path, share):
    frames = synthesise_frames(
        modulations=DIGITAL_MODULATIONS,
        snr_labels=(8, 10, 14, 22, 26, 30),
        num_frames_per_cell=5,
        seed=4,
    )
    write_radioml(tmp_path / "right.h5", frames)

    def scatter(parts):
        rng = np.random.default_rng(0)
        hit = np.flatnonzero((parts["Z"][:, 0] < 20) & (rng.random(len(parts["Z"])) < share))
        parts["Y"][hit] = parts["Y"][rng.permutation(hit)]

    assert audit(tmp_path / "right.h5")["passed"]
    report = audit(altered(tmp_path / "right.h5", tmp_path / "low.h5", scatter))
    assert "frames at lower SNR" in failures(report)


def test_exchange_in_a_file_of_one_frame_a_cell_is_noticed(tmp_path):
    """Too few of a class to judge it, enough of all."""
    grid = tuple(range(-20, 31, 2))
    frames = synthesise_frames(
        modulations=DIGITAL_MODULATIONS, snr_labels=grid, num_frames_per_cell=1, seed=6
    )
    write_radioml(tmp_path / "right.h5", frames)
    report = audit(tmp_path / "right.h5")
    assert report["passed"], page(report)
    change = exchange("16QAM", "64QAM", "4ASK", "8ASK")
    report = audit(altered(tmp_path / "right.h5", tmp_path / "exchanged.h5", change))
    assert "each class" in failures(report)


@pytest.mark.parametrize("rolloff", [0.05, 0.6])
def test_another_channel_is_not_called_wrong_labels(tmp_path, rolloff):
    channel = Channel(rolloff_range=(rolloff, rolloff))
    frames = synthesise_frames(
        modulations=DIGITAL_MODULATIONS, snr_labels=(0, 8, 30), num_frames_per_cell=12, seed=3,
        channel=channel,
    )  # fmt: skip
    write_radioml(tmp_path / "other.h5", frames)
    report = audit(tmp_path / "other.h5")
    assert "label order" not in failures(report), page(report)
    assert verdicts(report)["roll-off"]["result"] == "remark"


def test_single_frames_with_an_snr_of_their_own_are_remarked(tmp_path):
    """Labels rounded to the grid: classes are told all the same."""
    parts = [
        synthesise_frames(
            modulations=DIGITAL_MODULATIONS, snr_labels=(0, 8, 10, 30), num_frames_per_cell=6,
            seed=seed, snr_offset_db=offset,
        )
        for seed, offset in ((1, -1.0), (2, 0.0), (3, 1.0))
    ]  # fmt: skip
    for number, frames in enumerate(parts):
        write_radioml(tmp_path / f"{number}.h5", frames)
    content = {"X": [], "Y": [], "Z": []}
    for number in range(3):
        with h5py.File(tmp_path / f"{number}.h5") as file:
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
    frames = synthesise_frames(
        modulations=DIGITAL_MODULATIONS, snr_labels=(22, 26, 30), num_frames_per_cell=22, seed=4
    )
    write_radioml(tmp_path / "right.h5", frames)

    def scatter(parts):
        rng = np.random.default_rng(0)
        label = parts["Y"].argmax(1)
        hit = rng.random(len(label)) < share
        if of == "one class":
            hit &= label == RADIOML_2018_MODULATIONS.index("QPSK")
        # The signals move, and the labels stay: no class gains frames.
        places = np.flatnonzero(hit)
        parts["X"][places] = parts["X"][rng.permutation(len(label))[: len(places)]] * np.float32(1.001)

    report = audit(altered(tmp_path / "right.h5", tmp_path / "scattered.h5", scatter))
    assert failures(report) & {"each class", "each frame"}
    assert verdicts(report)["label order"]["result"] == "ok"


def test_exchanged_i_and_q_are_remarked(all_classes, tmp_path):
    def swap(parts):
        parts["X"] = parts["X"][:, :, ::-1]

    report = audit(altered(all_classes, tmp_path / "swapped.h5", swap))
    assert report["passed"]
    assert verdicts(report)["I and Q"]["result"] == "remark"
    assert "I and Q" not in verdicts(audit(all_classes))

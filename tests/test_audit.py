"""The audit of files: what is in order passes, what is not is named."""

from __future__ import annotations

import json
import os
import re

import h5py
import numpy as np
import pytest
import torch

from amc_utils import audit as audit_module
from amc_utils import trust as trust_module
from amc_utils.audit import audit, main
from amc_utils.audit_measures import samples_per_symbol
from amc_utils.audit_report import page
from amc_utils.channel import Channel
from amc_utils.data import write_radioml
from amc_utils.frames import synthesise_frames
from amc_utils.labels import (
    DIGITAL_MODULATIONS,
    RADIOML_2018_MODULATIONS,
    SHIPPED_WRONG_MODULATIONS,
)
from amc_utils.trust import require_sound


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """Frames of our own generator, all digital classes."""
    path = tmp_path_factory.mktemp("audit") / "synthetic.h5"
    grid = (-4, 0, 4, 8, 12, 26, 28, 30)
    frames = synthesise_frames(
        modulations=DIGITAL_MODULATIONS, snr_grid_db=grid, num_frames_per_cell=6, seed=3
    )
    write_radioml(path, frames)
    return path


@pytest.fixture(scope="module")
def all_classes(tmp_path_factory):
    """Frames of our own generator, all 24 classes at the highest levels."""
    path = tmp_path_factory.mktemp("audit") / "all.h5"
    frames = synthesise_frames(
        modulations=RADIOML_2018_MODULATIONS, snr_grid_db=(22, 24, 30), num_frames_per_cell=4, seed=4
    )
    write_radioml(path, frames)
    return path


@pytest.fixture(params=["synthetic", "gnuradio"])
def sound(request, synthetic, gnuradio_slice):
    """A file in order, by one maker and by the other."""
    return synthetic if request.param == "synthetic" else gnuradio_slice


def altered(source, target, change):
    """Copy of a file after `change` of its arrays X, Y, Z."""
    with h5py.File(source) as file:
        parts = {name: file[name][:] for name in "XYZ"}
    change(parts)
    with h5py.File(target, "w") as file:
        for name, value in parts.items():
            file[name] = value
    return target


def verdicts(report):
    return {verdict["check"]: verdict for verdict in report["verdicts"]}


def failures(report):
    return {verdict["check"] for verdict in report["verdicts"] if verdict["result"] == "failed"}


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


def shipped(parts):
    number = [SHIPPED_WRONG_MODULATIONS.index(name) for name in RADIOML_2018_MODULATIONS]
    parts["Y"] = np.eye(24, dtype=np.int64)[np.array(number)[parts["Y"].argmax(1)]]


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
        snr_grid_db=(8, 10, 14, 22, 26, 30),
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
        modulations=DIGITAL_MODULATIONS, snr_grid_db=grid, num_frames_per_cell=1, seed=6
    )
    write_radioml(tmp_path / "right.h5", frames)
    report = audit(tmp_path / "right.h5")
    assert report["passed"], page(report)
    change = exchange("16QAM", "64QAM", "4ASK", "8ASK")
    report = audit(altered(tmp_path / "right.h5", tmp_path / "exchanged.h5", change))
    assert "each class" in failures(report)


@pytest.mark.parametrize(
    ("modulations", "grid"),
    [(DIGITAL_MODULATIONS, (22, 26, 30)), (DIGITAL_MODULATIONS, (-20, -18)), (("QPSK",), (30,)),
     (("AM-SSB-WC", "AM-DSB-SC", "FM"), (0, 20, 30)), (("GMSK", "OOK"), (-20, 30))],
)  # fmt: skip
def test_report_on_any_choice_of_classes_and_levels_can_be_written(
    tmp_path, modulations, grid, own_cache
):
    """Where nothing is there to measure, nothing is said, in JSON as well."""
    frames = synthesise_frames(modulations=modulations, snr_grid_db=grid, num_frames_per_cell=4, seed=4)
    write_radioml(tmp_path / "some.h5", frames)
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "some.h5"), "--json", str(tmp_path / "report.json")])
    assert ended.value.code == 0
    assert json.loads((tmp_path / "report.json").read_text())["passed"]
    require_sound(tmp_path / "some.h5", "corrected")


@pytest.mark.parametrize("rolloff", [0.05, 0.6])
def test_another_channel_is_not_called_wrong_labels(tmp_path, rolloff):
    channel = Channel(rolloff_range=(rolloff, rolloff))
    frames = synthesise_frames(
        modulations=DIGITAL_MODULATIONS, snr_grid_db=(0, 8, 30), num_frames_per_cell=12, seed=3,
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
            modulations=DIGITAL_MODULATIONS, snr_grid_db=(0, 8, 10, 30), num_frames_per_cell=6,
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
        modulations=DIGITAL_MODULATIONS, snr_grid_db=(22, 26, 30), num_frames_per_cell=22, seed=4
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


def es_n0(parts):
    """Labels 10 dB, that is nearly 10 log10(8), above the SNR per sample."""
    keep = parts["Z"][:, 0] <= 20
    for name in parts:
        parts[name] = parts[name][keep]
    parts["Z"] = parts["Z"] + 10


def test_es_n0_labels_are_told(tmp_path):
    frames = synthesise_frames(
        modulations=DIGITAL_MODULATIONS,
        snr_grid_db=(-4, 0, 4, 8, 12, 16, 20, 30),
        num_frames_per_cell=4,
        seed=3,
        snr_offset_db=-10 * np.log10(8),
    )
    write_radioml(tmp_path / "es_n0.h5", frames)
    report = audit(tmp_path / "es_n0.h5")
    assert failures(report) == {"SNR convention"}
    assert "labels are Es/N0" in verdicts(report)["SNR convention"]["what"]


def test_labels_off_by_less_than_that_are_neither(sound, tmp_path):
    def change(parts):
        keep = parts["Z"][:, 0] <= 26
        for name in parts:
            parts[name] = parts[name][keep]
        parts["Z"] = parts["Z"] + 4

    report = audit(altered(sound, tmp_path / "shifted.h5", change))
    assert "neither the SNR per sample nor Es/N0" in verdicts(report)["SNR convention"]["what"]


def test_level_with_another_error_is_a_calibration_error(synthetic, tmp_path):
    def change(parts):
        parts["Z"][parts["Z"] == 8] = 10

    report = audit(altered(synthetic, tmp_path / "level.h5", change))
    assert verdicts(report)["SNR calibration"]["result"] == "failed"
    assert "at 10 dB" in verdicts(report)["SNR calibration"]["what"]


@pytest.mark.parametrize("levels", [(24, 30), (28, 30), (4, 8)])
def test_levels_that_are_exchanged_fail(tmp_path, levels):
    """Their mean deviation is none, and 28 and 30 dB differ by less than a level may be wrong."""
    frames = synthesise_frames(
        modulations=("QPSK", "16QAM", "8PSK"), snr_grid_db=(0, 4, 8, 12, 24, 28, 30),
        num_frames_per_cell=8, seed=3,
    )  # fmt: skip
    write_radioml(tmp_path / "right.h5", frames)

    def change(parts):
        a, b = (parts["Z"] == level for level in levels)
        parts["Z"][a], parts["Z"][b] = levels[1], levels[0]

    assert audit(tmp_path / "right.h5")["passed"]
    report = audit(altered(tmp_path / "right.h5", tmp_path / "levels.h5", change))
    assert "SNR calibration" in failures(report)


def test_levels_that_are_exchanged_in_one_class_fail(synthetic, tmp_path):
    """In the mean over 17 classes they are next to nothing."""

    def change(parts):
        mine = parts["Y"].argmax(1)[:, None] == RADIOML_2018_MODULATIONS.index("8PSK")
        a, b = (mine & (parts["Z"] == level) for level in (8, 12))
        parts["Z"][a], parts["Z"][b] = 12, 8

    report = audit(altered(synthetic, tmp_path / "levels.h5", change))
    assert failures(report) == {"SNR of each class"}
    assert "8PSK at" in verdicts(report)["SNR of each class"]["what"]


def test_levels_are_judged_as_far_down_as_frames_tell(tmp_path):
    """A wrong label at -12 dB shows with hundreds of frames; at -20 dB chance is larger than it."""
    frames = synthesise_frames(
        modulations=("QPSK", "16QAM", "8PSK"), snr_grid_db=(-20, -12, 0, 10, 20),
        num_frames_per_cell=150, seed=3,
    )  # fmt: skip
    write_radioml(tmp_path / "right.h5", frames)
    report = audit(tmp_path / "right.h5")
    assert report["passed"]
    assert "-12 to 20 dB" in verdicts(report)["SNR calibration"]["what"]

    def change(parts):
        parts["Z"][parts["Z"] == -12] = -14

    report = audit(altered(tmp_path / "right.h5", tmp_path / "low.h5", change))
    assert failures(report) == {"SNR calibration"}
    assert "at -14 dB" in verdicts(report)["SNR calibration"]["what"]


def test_carrier_offsets_wider_than_the_channel_of_record_are_remarked(tmp_path):
    frames = synthesise_frames(
        modulations=DIGITAL_MODULATIONS, snr_grid_db=(0, 30), num_frames_per_cell=8, seed=3,
        channel=Channel(cfo_std=2.5e-4),
    )  # fmt: skip
    write_radioml(tmp_path / "wide.h5", frames)
    report = audit(tmp_path / "wide.h5")
    assert verdicts(report)["carrier offset"]["result"] == "remark"


def damage(what):
    def change(parts):
        x = parts["X"]
        if what == "not finite":
            x[7, 3, 0], x[8, 5, 1] = np.nan, np.inf
        elif what == "without power":
            x[9] = 0
        elif what == "duplicates within cells":
            x[1] = x[0]
        else:
            x[-1] = x[0]

    return change


@pytest.mark.parametrize(
    ("what", "check", "rows"),
    [
        ("not finite", "frames not finite", "2 of .* rows 7, 8"),
        ("without power", "frames without power", "1 of .* rows 9"),
        ("duplicates within cells", "duplicates within cells", r"1 pairs that agree .* rows \[0, 1\]"),
        ("duplicates across cells", "duplicates across cells", "1 pairs"),
    ],
)
def test_damaged_frames_fail_and_are_listed(sound, tmp_path, what, check, rows):
    report = audit(altered(sound, tmp_path / "damaged.h5", damage(what)))
    # A frame of another cell is of another SNR as well.
    assert {check} <= failures(report) <= {check, "SNR of each class"}
    assert re.search(rows, verdicts(report)[check]["what"])


def test_another_symbol_rate_fails(synthetic, tmp_path):
    def change(parts):
        """Every other sample: 4 samples per symbol, the frame filled by its own repetition."""
        parts["X"] = np.concatenate([parts["X"][:, ::2], parts["X"][:, 1::2]], 1)

    report = audit(altered(synthetic, tmp_path / "rate.h5", change))
    assert "symbol rate" in failures(report)
    assert report["samples_per_symbol"] == pytest.approx(4, abs=0.05)


def test_symbol_rate_is_measured_whatever_it_is():
    """Resampled noiselessly by 9/8 in the frequency domain."""
    frames = synthesise_frames(
        modulations=("QPSK", "16QAM"), snr_grid_db=(30,), num_frames_per_cell=40, seed=1
    )
    iq = frames.iq(torch.arange(80))
    spectrum = torch.fft.fftshift(torch.fft.fft(iq), dim=1)
    longer = torch.nn.functional.pad(torch.view_as_real(spectrum), (0, 0, 64, 64))
    resampled = torch.fft.ifft(torch.fft.ifftshift(torch.view_as_complex(longer), dim=1))
    assert samples_per_symbol(resampled) == pytest.approx(9, abs=0.05)


@pytest.mark.parametrize(("factor", "result"), [(3.0, "failed"), (1.1, "remark"), (1.0, "ok")])
@pytest.mark.parametrize(("of", "column", "number"), [("class", "Y", 5), ("level", "Z", 8)])
def test_power_that_no_picture_is_made_for_fails(
    synthetic, tmp_path, factor, result, of, column, number
):
    def change(parts):
        values = parts[column].argmax(1) if column == "Y" else parts[column][:, 0]
        parts["X"][values == number] *= np.float32(factor)

    report = audit(altered(synthetic, tmp_path / "power.h5", change))
    check = f"power of each {of}"
    assert verdicts(report)[check]["result"] == result
    assert failures(report) <= {check}


def test_channel_that_does_not_vary_is_remarked(tmp_path):
    channel = Channel(rolloff_range=(0.35, 0.35), timing_range=(2.0, 2.0), cfo_std=0.0)
    frames = synthesise_frames(
        modulations=DIGITAL_MODULATIONS, snr_grid_db=(0, 30), num_frames_per_cell=8, seed=3,
        channel=channel,
    )  # fmt: skip
    write_radioml(tmp_path / "fixed.h5", frames)
    report = audit(tmp_path / "fixed.h5")
    assert report["passed"]
    assert verdicts(report)["timing"]["result"] == "remark"
    assert report["channel"]["rolloff"][1] == pytest.approx(0.35, abs=0.03)
    assert report["channel"]["cfo_std"] < 2e-5


def test_too_little_to_tell_is_not_called_sound_or_wrong(tmp_path):
    frames = synthesise_frames(
        modulations=("BPSK", "QPSK", "16QAM"), snr_grid_db=(0, 12), num_frames_per_cell=4, seed=5
    )
    write_radioml(tmp_path / "low.h5", frames)
    report = audit(tmp_path / "low.h5")
    assert verdicts(report)["label order"]["result"] == "cannot tell"
    assert page(report).endswith("passed, but cannot tell: label order")


def test_sample_is_bounded_and_meets_copies_of_cells(synthetic, tmp_path):
    def copy_a_cell(parts):
        parts["X"][-6:] = parts["X"][:6]

    path = altered(synthetic, tmp_path / "copied.h5", copy_a_cell)
    report = audit(path, num_frames=17 * 8 * 2)
    assert report["frames"] == 17 * 8 * 2
    assert len(report["duplicates"]["across cells"]) == 2


@pytest.mark.parametrize(
    ("count", "per_cell"), [(4096, 32), (40, 32), (33, 32), (32, 32), (2, 32), (1, 1)]
)
def test_sample_reads_each_cell_in_at_most_three_pieces(count, per_cell):
    rows = audit_module._sample(np.repeat([5, 7], count), 2 * per_cell)
    assert len(rows) == len(np.unique(rows)) == 2 * min(count, per_cell)
    assert (np.diff(rows) > 1).sum() <= 2 * 2
    assert {0, count} <= set(rows)
    assert per_cell == 1 or {count - 1, 2 * count - 1} <= set(rows)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Folder of kept audits, and how many audits were made."""
    monkeypatch.setenv("AMC_CACHE", str(tmp_path / "cache"))
    made = []

    def counted(*arguments, **options):
        made.append(arguments)
        return audit(*arguments, **options)

    monkeypatch.setattr(trust_module, "audit", counted)
    return tmp_path / "cache" / "amc_utils" / "audits", made


def test_training_on_a_failed_file_needs_a_word_and_a_verdict_is_kept(synthetic, tmp_path, own_cache):
    path = altered(synthetic, tmp_path / "shipped.h5", shipped)
    for _ in range(2):
        require_sound(synthetic, "corrected")
        with pytest.raises(ValueError, match=r"must pass its audit .* the shipped list.*trust_file"):
            require_sound(path, "corrected")
        require_sound(path, "shipped")
    assert len(own_cache[1]) == 3, "one for each file and list, and none a second time"
    altered(synthetic, path, lambda parts: None)
    require_sound(path, "corrected")
    assert len(own_cache[1]) == 4, "the file has changed"


def test_damaged_verdict_is_found_anew(synthetic, own_cache, capsys):
    require_sound(synthetic, "corrected")
    (kept,) = own_cache[0].glob("*.json")
    for damage in (
        "",
        "[]",
        '{"verdicts": []}',
        '{"verdicts": {}}',
        '{"verdicts": [{}]}',
        kept.read_text()[:100],
    ):
        kept.write_text(damage)
        require_sound(synthetic, "corrected")
        assert "was damaged" in capsys.readouterr().out
    assert len(own_cache[1]) == 7


def test_verdict_does_not_outlive_labels_that_changed_in_place(synthetic, tmp_path, own_cache):
    path = altered(synthetic, tmp_path / "same.h5", lambda parts: None)
    require_sound(path, "corrected")
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    with h5py.File(path, "r+") as file:
        file["Y"][:] = np.roll(file["Y"][:], 3, 1)
    os.utime(path, ns=times)
    with pytest.raises(ValueError, match="must pass its audit"):
        require_sound(path, "corrected")


def test_what_cannot_be_told_is_said_before_training(small_frames, tmp_path, own_cache, capsys):
    write_radioml(tmp_path / "more.h5", small_frames)

    def one_class(parts):
        for name in parts:
            parts[name] = parts[name][:40]

    altered(tmp_path / "more.h5", tmp_path / "few.h5", one_class)
    require_sound(tmp_path / "few.h5", "corrected")
    assert "audit of few.h5: label order cannot be told" in capsys.readouterr().out


def test_command_line_prints_a_page_and_says_by_its_status(synthetic, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main([str(synthetic), "--json", str(tmp_path / "report.json")])
    assert ended.value.code == 0
    assert "passed" in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text())["passed"]
    path = altered(synthetic, tmp_path / "shipped.h5", shipped)
    with pytest.raises(SystemExit) as ended:
        main([str(path)])
    assert ended.value.code == 2
    assert "FAILED" in capsys.readouterr().out

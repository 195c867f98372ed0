"""The audit of files: what is in order passes, what is not is named."""

from __future__ import annotations

import json
import re

import h5py
import numpy as np
import pytest
import torch

from amc_utils import audit as audit_module
from amc_utils.audit import audit, main, require_sound
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
    assert len(page(report).splitlines()) < 60
    assert max(map(len, page(report).splitlines())) <= 110
    json.dumps(report, allow_nan=False)


def test_all_classes_are_recognised_on_independent_frames(gnuradio_slice):
    report = audit(gnuradio_slice)
    assert len(report["classes"]) == 24
    assert all(row["agrees"] for row in report["classes"])
    assert report["order"]["corrected"] > 0.999


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
        ("duplicates within cells", "duplicates within cells", r"1 pairs .* rows \[0, 1\]"),
        ("duplicates across cells", "duplicates across cells", "1 pairs"),
    ],
)
def test_damaged_frames_fail_and_are_listed(sound, tmp_path, what, check, rows):
    report = audit(altered(sound, tmp_path / "damaged.h5", damage(what)))
    assert failures(report) == {check}
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
def test_power_that_no_picture_is_made_for_fails(synthetic, tmp_path, factor, result):
    def change(parts):
        parts["X"] *= np.float32(factor)

    report = audit(altered(synthetic, tmp_path / "power.h5", change))
    assert verdicts(report)["power"]["result"] == result


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


def test_too_little_to_tell_is_not_called_sound_or_wrong(small_frames, tmp_path):
    write_radioml(tmp_path / "few.h5", small_frames)

    def low_levels(parts):
        parts["Z"] = np.where(parts["Z"] == 20, 10, parts["Z"])

    report = audit(altered(tmp_path / "few.h5", tmp_path / "low.h5", low_levels))
    assert verdicts(report)["label order"]["result"] == "cannot tell"


def test_sample_is_bounded_and_meets_copies_of_cells(synthetic, tmp_path, monkeypatch):
    def copy_a_cell(parts):
        parts["X"][-6:] = parts["X"][:6]

    path = altered(synthetic, tmp_path / "copied.h5", copy_a_cell)
    report = audit(path, num_frames=17 * 8 * 2)
    assert report["frames"] == 17 * 8 * 2
    assert len(report["duplicates"]["across cells"]) == 2


def test_training_on_a_failed_file_needs_a_word_and_a_verdict_is_kept(synthetic, tmp_path, monkeypatch):
    monkeypatch.setenv("AMC_CACHE", str(tmp_path / "cache"))
    require_sound(synthetic, "corrected")
    path = altered(synthetic, tmp_path / "shipped.h5", shipped)
    with pytest.raises(ValueError, match=r"must pass its audit .* follow the shipped list.*trust_file"):
        require_sound(path, "corrected")
    monkeypatch.setattr(audit_module, "audit", lambda *_, **__: pytest.fail("audited twice"))
    require_sound(synthetic, "corrected")
    with pytest.raises(ValueError, match="must pass its audit"):
        require_sound(path, "corrected")


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

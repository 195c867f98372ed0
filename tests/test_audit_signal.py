"""The audit of files: SNR labels, power, damage, symbol rate and channel."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from audited import altered, failures, verdicts

from amc_utils import audit as audit_module
from amc_utils.audit import audit
from amc_utils.audit_measures import samples_per_symbol
from amc_utils.audit_report import page
from amc_utils.channel import Channel
from amc_utils.data import write_radioml
from amc_utils.frames import synthesise_frames
from amc_utils.labels import (
    DIGITAL_MODULATIONS,
    RADIOML_2018_MODULATIONS,
)


def es_n0(parts):
    """Labels 10 dB, that is nearly 10 log10(8), above the SNR per sample."""
    keep = parts["Z"][:, 0] <= 20
    for name in parts:
        parts[name] = parts[name][keep]
    parts["Z"] = parts["Z"] + 10


def test_es_n0_labels_are_told(tmp_path):
    frames = synthesise_frames(
        modulations=DIGITAL_MODULATIONS,
        snr_labels=(-4, 0, 4, 8, 12, 16, 20, 30),
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
        modulations=("QPSK", "16QAM", "8PSK"), snr_labels=(0, 4, 8, 12, 24, 28, 30),
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
        modulations=("QPSK", "16QAM", "8PSK"), snr_labels=(-20, -12, 0, 10, 20),
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
        modulations=DIGITAL_MODULATIONS, snr_labels=(0, 30), num_frames_per_cell=8, seed=3,
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
        modulations=("QPSK", "16QAM"), snr_labels=(30,), num_frames_per_cell=40, seed=1
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
        modulations=DIGITAL_MODULATIONS, snr_labels=(0, 30), num_frames_per_cell=8, seed=3,
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
        modulations=("BPSK", "QPSK", "16QAM"), snr_labels=(0, 12), num_frames_per_cell=4, seed=5
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

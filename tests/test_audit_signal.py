"""The audit of files: SNR labels, power, damage, symbol rate and channel."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from audited import TABLE_1, altered, both_presets, failures, simulated, verdicts

from amc_utils.audit import audit as audit_module
from amc_utils.audit.audit import audit
from amc_utils.audit.measures import samples_per_symbol
from amc_utils.audit.report import page
from amc_utils.data import synthesise_frames
from amc_utils.signals import FILE_CHANNELS, RADIOML_2018_MODULATIONS

FEW_CLASSES = ("QPSK", "16QAM", "8PSK")


def test_es_n0_labels_are_told():
    channel = replace(TABLE_1, snr_offset_db=-10 * np.log10(8))
    report = audit(simulated(channel, snr_labels=(-4, 0, 4, 8, 12, 16, 20, 30), num_frames_per_cell=4))
    assert failures(report) == {"SNR convention"}
    assert "labels are Es/N0" in verdicts(report)["SNR convention"]["what"]


@pytest.mark.parametrize("maker", [*FILE_CHANNELS, "gnuradio"])
def test_labels_off_by_less_than_that_fit_nothing(maker, gnuradio_slice, tmp_path):
    sound = gnuradio_slice if maker == "gnuradio" else simulated(maker)

    def change(parts):
        keep = parts["Z"][:, 0] <= 26
        for name in parts:
            parts[name] = parts[name][keep]
        parts["Z"] = parts["Z"] + 4

    report = audit(altered(sound, tmp_path / "shifted.h5", change))
    assert failures(report) == {"SNR convention"}
    assert "labels fit no convention" in verdicts(report)["SNR convention"]["what"]


@both_presets
def test_level_with_another_error_is_a_calibration_error(preset, tmp_path):
    def change(parts):
        parts["Z"][parts["Z"] == 8] = 10

    report = audit(altered(simulated(preset), tmp_path / "level.h5", change))
    assert verdicts(report)["SNR calibration"]["result"] == "failed"
    assert "at label 10" in verdicts(report)["SNR calibration"]["what"]


@pytest.mark.parametrize(
    ("preset", "levels"),
    [("radioml_2018", (24, 30)), ("radioml_2018", (28, 30)), ("radioml_2018", (4, 8)),
     ("table_1", (24, 30)), ("table_1", (28, 30))],
)  # fmt: skip
def test_levels_that_are_exchanged_fail(preset, tmp_path, levels):
    """Their mean deviation is none, and 28 and 30 dB differ by less than a level may be wrong."""
    path = simulated(
        preset, modulations=FEW_CLASSES, snr_labels=(0, 4, 8, 12, 24, 28, 30), num_frames_per_cell=8
    )

    def change(parts):
        a, b = (parts["Z"] == level for level in levels)
        parts["Z"][a], parts["Z"][b] = levels[1], levels[0]

    report = audit(altered(path, tmp_path / "levels.h5", change))
    assert "SNR calibration" in failures(report)


@both_presets
def test_file_of_three_classes_passes(preset):
    """The one whose levels are exchanged above."""
    path = simulated(
        preset, modulations=FEW_CLASSES, snr_labels=(0, 4, 8, 12, 24, 28, 30), num_frames_per_cell=8
    )
    assert audit(path)["passed"]


@both_presets
def test_levels_that_are_exchanged_in_one_class_fail(preset, tmp_path):
    """In the mean over 17 classes they are next to nothing."""

    def change(parts):
        mine = parts["Y"].argmax(1)[:, None] == RADIOML_2018_MODULATIONS.index("8PSK")
        a, b = (mine & (parts["Z"] == level) for level in (8, 12))
        parts["Z"][a], parts["Z"][b] = 12, 8

    report = audit(altered(simulated(preset), tmp_path / "levels.h5", change))
    assert failures(report) == {"SNR of each class"}
    assert "8PSK at" in verdicts(report)["SNR of each class"]["what"]


@pytest.mark.parametrize(("preset", "low"), [("radioml_2018", -6), ("table_1", -12)])
def test_levels_are_judged_as_far_down_as_frames_tell(preset, low, tmp_path):
    """A wrong label shows at -12 dB of SNR with hundreds of frames; at -20 chance is larger than it."""
    path = simulated(
        preset, modulations=FEW_CLASSES, snr_labels=(-20, low, 0, 10, 20), num_frames_per_cell=150
    )
    report = audit(path)
    assert report["passed"]
    assert f"labels {low} to 20" in verdicts(report)["SNR calibration"]["what"]

    def change(parts):
        parts["Z"][parts["Z"] == low] = low - 2

    report = audit(altered(path, tmp_path / "low.h5", change))
    assert failures(report) == {"SNR calibration"}
    assert f"at label {low - 2}" in verdicts(report)["SNR calibration"]["what"]


@both_presets
def test_carrier_offsets_wider_than_the_channel_of_record_are_remarked(preset):
    channel = replace(FILE_CHANNELS[preset], cfo_std=2.5e-4)
    report = audit(simulated(channel, snr_labels=(0, 30), num_frames_per_cell=8))
    assert report["passed"], page(report)
    assert verdicts(report)["carrier offset"]["result"] == "remark"
    assert verdicts(report)["channel preset"]["what"].endswith(f"{preset} does but for carrier offset")


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
def test_damaged_frames_fail_and_are_listed(gnuradio_slice, tmp_path, what, check, rows):
    report = audit(altered(gnuradio_slice, tmp_path / "damaged.h5", damage(what)))
    # A frame of another cell is of another SNR as well.
    assert {check} <= failures(report) <= {check, "SNR of each class"}
    assert re.search(rows, verdicts(report)[check]["what"])


@both_presets
def test_another_symbol_rate_fails(preset, tmp_path):
    def change(parts):
        """Every other sample: 4 samples per symbol, the frame filled by its own repetition."""
        parts["X"] = np.concatenate([parts["X"][:, ::2], parts["X"][:, 1::2]], 1)

    report = audit(altered(simulated(preset), tmp_path / "rate.h5", change))
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


@pytest.mark.parametrize(("factor", "result"), [(3.0, "failed"), (1.1, "remark")])
@pytest.mark.parametrize(
    ("preset", "of", "column", "number"),
    [("radioml_2018", "class", "Y", 5), ("radioml_2018", "class", "Y", 2),
     ("radioml_2018", "level", "Z", 8), ("table_1", "class", "Y", 5)],
)  # fmt: skip
def test_power_that_no_image_is_made_for_fails(preset, tmp_path, factor, result, of, column, number):
    def change(parts):
        values = parts[column].argmax(1) if column == "Y" else parts[column][:, 0]
        parts["X"][values == number] *= np.float32(factor)

    report = audit(altered(simulated(preset), tmp_path / "power.h5", change))
    check = f"power of each {of}"
    assert verdicts(report)[check]["result"] == result
    assert failures(report) <= {check}


@both_presets
def test_channel_that_does_not_vary_is_remarked(preset):
    fixed = {"rolloff_range": (0.38, 0.38), "timing_range": (2.0, 2.0), "cfo_std": 0.0}
    channel = replace(FILE_CHANNELS[preset], **fixed)
    report = audit(simulated(channel, snr_labels=(0, 30), num_frames_per_cell=8))
    assert report["passed"]
    assert verdicts(report)["timing"]["result"] == "remark"
    assert report["channel"]["pulse"]["rolloff"] == pytest.approx(0.38, abs=0.03)
    assert report["channel"]["cfo_std"] < 2e-5


@pytest.mark.parametrize(("preset", "level"), [("radioml_2018", 6), ("table_1", 12)])
def test_too_little_to_tell_is_not_called_sound_or_wrong(preset, level):
    report = audit(
        simulated(
            preset, modulations=("BPSK", "QPSK", "16QAM"), snr_labels=(0, level), num_frames_per_cell=4
        )
    )
    assert verdicts(report)["label order"]["result"] == "cannot tell"
    assert page(report).endswith("passed, but cannot tell: label order")


@pytest.mark.parametrize("modulations", [("QPSK",), ("QPSK", "OOK"), ("FM",)])
def test_file_of_a_single_frame_of_a_class_is_judged(modulations):
    """Of one frame nothing spreads, and nothing is said about a channel."""
    report = audit(
        simulated("table_1", modulations=modulations, snr_labels=(30,), num_frames_per_cell=1)
    )
    assert report["passed"]
    assert report["channel"] is None
    assert "carrier offset" not in verdicts(report)


def test_sample_is_bounded_and_meets_copies_of_cells(tmp_path):
    def copy_a_cell(parts):
        parts["X"][-4:] = parts["X"][:4]

    path = altered(simulated("table_1"), tmp_path / "copied.h5", copy_a_cell)
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

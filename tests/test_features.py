"""Labels, and what the signals themselves say about them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from amc_utils.features import duplicate_pairs, level_table, snr_convention, snr_ratio
from amc_utils.frames import (
    synthesise_frames,
)
from amc_utils.labels import (
    DIGITAL_MODULATIONS,
    RADIOML_2018_MODULATIONS,
    SHIPPED_WRONG_MODULATIONS,
    expand_modulations,
    snr_grid,
)


def test_label_order_is_the_one_the_data_follow():
    """Typed out, so that no slip in the module goes unnoticed [radioML/dataset, issue 25]."""
    order = (
        "OOK 4ASK 8ASK BPSK QPSK 8PSK 16PSK 32PSK 16APSK 32APSK 64APSK 128APSK 16QAM 32QAM 64QAM "
        "128QAM 256QAM AM-SSB-WC AM-SSB-SC AM-DSB-WC AM-DSB-SC FM GMSK OQPSK"
    )
    assert tuple(order.split()) == RADIOML_2018_MODULATIONS


def levels_of(frames, shift_db=0.0):
    index = torch.arange(len(frames))
    level = torch.tensor(frames.snr_labels)[frames.snr_index] + shift_db
    ratio = snr_ratio(frames.iq(index))
    return level_table(
        pd.DataFrame({"level": level, "power": 1.0, "snr_ratio": ratio, "digital": True})
    )


def test_measured_snr_has_no_bias_where_there_is_hardly_a_signal(rng):
    """Of 20,000 frames of noise, whose mean is known to 0.0004: -34 dB."""
    noise = torch.randn(20_000, 1024, dtype=torch.complex64, generator=rng)
    assert float(snr_ratio(noise).mean()) == pytest.approx(0, abs=0.0012)


def test_snr_convention_is_told_apart():
    frames = synthesise_frames(
        modulations=("QPSK", "16QAM"), snr_labels=(0, 4, 8), num_frames_per_cell=30, seed=1
    )
    verdict, offset = snr_convention(levels_of(frames))
    assert (verdict, offset) == ("SNR per sample", pytest.approx(0, abs=0.3))
    # The same frames under labels that are Es/N0 of 8 samples per symbol.
    mislabelled = synthesise_frames(
        modulations=("QPSK", "16QAM"),
        snr_labels=(8, 12, 16),
        num_frames_per_cell=20,
        seed=1,
        snr_offset_db=-9.03,
    )
    assert snr_convention(levels_of(mislabelled))[0] == "Es/N0"
    verdict, offset = snr_convention(levels_of(frames, 9.03))
    assert (verdict, offset) == ("Es/N0", pytest.approx(-9.03, abs=0.3))
    assert snr_convention(levels_of(frames, 5.0))[0] == "undecided"
    assert snr_convention(levels_of(frames, 11.0))[0] == "undecided"


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [(0.9, "SNR per sample"), (1.1, "undecided"), (-2.0, "undecided"), (8.0, "undecided"),
     (8.2, "Es/N0"), (9.9, "Es/N0"), (10.1, "undecided")],
)  # fmt: skip
def test_snr_convention_is_decided_to_a_decibel(shift, verdict):
    """Labels are two decibels apart, so a shift by one level must not pass."""
    levels = pd.DataFrame({"level": [0, 2, 4], "measured_db": [0 - shift, 2 - shift, 4 - shift]})
    assert snr_convention(levels) == (verdict, pytest.approx(-shift))


def test_snr_convention_of_nothing_cannot_be_told():
    levels = pd.DataFrame({"level": [22, 24], "measured_db": [22.0, 24.0]})
    assert snr_convention(levels)[0] == "cannot tell"
    assert snr_convention(levels.assign(level=[0, 2], measured_db=np.nan))[0] == "cannot tell"


def test_labels_are_the_published_counts():
    assert len(set(RADIOML_2018_MODULATIONS)) == 24
    assert set(SHIPPED_WRONG_MODULATIONS) == set(RADIOML_2018_MODULATIONS)
    assert len(DIGITAL_MODULATIONS) == 17
    assert len(DIGITAL_MODULATIONS) * len(snr_grid([-20, 30, 2])) == 442
    assert expand_modulations(["all"]) == RADIOML_2018_MODULATIONS
    assert expand_modulations(["OQPSK", "BPSK", "BPSK"]) == ("BPSK", "OQPSK")


@pytest.mark.parametrize(
    "wrong", [[], [0, 10], [0, 11, 2], [10, 0, 2], [-22, 0, 2], [0, 10, -2], [1, 3, 2]]
)
def test_snr_range_off_the_grid_is_refused(wrong):
    with pytest.raises(ValueError, match=r"snr_range_db must be \[first, last, step\]"):
        snr_grid(wrong)


def test_equal_frames_are_found_among_others_with_the_same_begin(rng):
    """Frames 2, 5 and 9 are equal; 4 and 7 begin like them and go on otherwise."""
    samples = torch.randn(12, 64, 2, generator=rng).numpy()
    for frame in (4, 5, 7, 9):
        samples[frame, :8] = samples[2, :8]
    samples[5] = samples[9] = samples[2]
    assert duplicate_pairs(samples, samples[:, :8]).tolist() == [[2, 5], [5, 9]]
    assert duplicate_pairs(samples[:5], samples[:5, :8]).shape == (0, 2)
    assert duplicate_pairs(np.zeros((3, 64, 2)), np.zeros((3, 8, 2))).tolist() == [[0, 1], [1, 2]]

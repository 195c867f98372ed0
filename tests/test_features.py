"""Labels, and what the signals themselves say about them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from audited import both_presets

from amc_utils.audit.snr import level_table, snr_line
from amc_utils.data import (
    synthesise_frames,
)
from amc_utils.dsp.features import duplicate_pairs, envelope_kurtosis, snr_ratio
from amc_utils.radioml.reader import SHIPPED_WRONG_MODULATIONS
from amc_utils.signals import (
    CHANNEL_PRESETS,
    DIGITAL_MODULATIONS,
    RADIOML_2018_MODULATIONS,
    Channel,
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


def levels_of(frames, shift=0.0):
    index = torch.arange(len(frames))
    level = torch.tensor(frames.snr_labels)[frames.snr_index] + shift
    ratio = snr_ratio(frames.iq(index))
    return level_table(
        pd.DataFrame({"level": level, "power": 1.0, "snr_ratio": ratio, "digital": True})
    )


def test_measured_snr_has_no_bias_where_there_is_hardly_a_signal(rng):
    """Of 20,000 frames of noise, whose mean is known to 0.0004: -34 dB."""
    noise = torch.randn(20_000, 1024, dtype=torch.complex64, generator=rng)
    assert float(snr_ratio(noise).mean()) == pytest.approx(0, abs=0.0012)


@both_presets
@pytest.mark.parametrize(("num_samples", "least_db"), [(1024, 95), (128, 75)])
def test_no_signal_leaks_into_the_noise_beside_it(preset, num_samples, least_db):
    """Frames without noise: what is measured there is leakage, far below the noise at 60 dB."""
    frames = synthesise_frames(
        modulations=DIGITAL_MODULATIONS, snr_labels=(200,), num_frames_per_cell=4, seed=1,
        channel=CHANNEL_PRESETS[preset],
    )  # fmt: skip
    ratio = snr_ratio(frames.iq(torch.arange(len(frames)))[:, :num_samples])
    assert 10 * float(ratio.min().log10()) > least_db


def snr_of_labels(**settings):
    """The line found in 15 frames at each of three labels of the twin but for some settings."""
    frames = synthesise_frames(
        modulations=("QPSK", "16QAM"), snr_labels=(0, 8, 30), num_frames_per_cell=15, seed=1,
        channel=replace(Channel(), **settings),
    )  # fmt: skip
    return snr_line(levels_of(frames))


@pytest.mark.parametrize(
    ("settings", "convention"),
    [({}, "noise standard deviation"), ({"snr_slope": 1.0}, "SNR per sample"),
     ({"snr_slope": 1.0, "snr_offset_db": -9.03}, "Es/N0"), ({"snr_slope": 1.5}, "undecided"),
     ({"snr_slope": 3.0}, "undecided"), ({"snr_offset_db": 8.0}, "undecided"),
     ({"snr_offset_db": -8.0}, "undecided"), ({"snr_slope": 1.0, "snr_offset_db": 4.0}, "undecided")],
)  # fmt: skip
def test_snr_convention_is_known_apart_from_30_frames_a_label(settings, convention):
    line, channel = snr_of_labels(**settings), replace(Channel(), **settings)
    assert line.convention == convention
    assert line.measured_slope == pytest.approx(channel.snr_slope, abs=0.03)
    # QPSK and 16QAM have half a decibel more, see signals.magnitude_excess_db.
    assert line.snr_db(8) == pytest.approx(channel.snr_db(8) + 0.5, abs=0.4)
    assert line.labels == (0, 8, 30)


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [(0.9, "SNR per sample"), (1.1, "undecided"), (-2.0, "undecided"), (8.0, "undecided"),
     (8.2, "Es/N0"), (9.9, "Es/N0"), (10.1, "undecided")],
)  # fmt: skip
def test_snr_convention_is_decided_to_a_decibel(shift, verdict):
    """Labels are two decibels apart, so a shift by one level must not pass."""
    measured = {"level": [0, 2, 4], "measured_db": [0 - shift, 2 - shift, 4 - shift], "error_db": 0.1}
    line = snr_line(pd.DataFrame(measured))
    assert (line.convention, line.offset_db) == (verdict, pytest.approx(-shift))


@pytest.mark.parametrize(
    ("offset", "verdict"),
    [(-1.1, "undecided"), (-0.9, "noise standard deviation"), (2.4, "noise standard deviation"),
     (2.6, "undecided"), (-4.0, "undecided"), (4.7, "undecided")],
)  # fmt: skip
def test_twice_the_label_may_be_exceeded_by_what_classes_do(offset, verdict):
    """A shift of labels by 2 moves the SNR by 4 dB, and must not pass."""
    measured = {"level": [0, 2, 4], "measured_db": [offset, 4 + offset, 8 + offset], "error_db": 0.1}
    line = snr_line(pd.DataFrame(measured))
    assert (line.convention, line.offset_db) == (verdict, pytest.approx(offset))


@pytest.mark.parametrize(
    ("slope", "verdict"),
    [(0.85, "undecided"), (0.95, "SNR per sample"), (1.05, "SNR per sample"), (1.15, "undecided"),
     (1.85, "undecided"), (1.95, "noise standard deviation"), (2.15, "undecided")],
)  # fmt: skip
def test_snr_convention_is_decided_by_the_slope(slope, verdict):
    label = np.arange(-10, 31, 2)
    levels = pd.DataFrame({"level": label, "measured_db": slope * label, "error_db": 0.01})
    line = snr_line(levels)
    assert line.measured_slope == pytest.approx(slope)
    # What a slope does to the SNR of labels of 10 on average is no offset.
    assert line.convention == verdict


@pytest.mark.parametrize(
    ("level", "measured_db", "verdict"),
    [(30, 30.2, "SNR per sample"), (30, 60.5, "noise standard deviation"), (30, 21.0, "Es/N0"),
     (0, 0.5, "cannot tell"), (30, 45.0, "undecided")],
)  # fmt: skip
def test_a_single_label_tells_its_convention_where_only_one_fits(level, measured_db, verdict):
    levels = pd.DataFrame({"level": [level], "measured_db": [measured_db], "error_db": [0.1]})
    assert snr_line(levels).convention == verdict


def test_levels_exchanged_or_too_unsure_leave_the_slope_alone():
    label = np.arange(-20, 31, 2)
    levels = pd.DataFrame({"level": label, "measured_db": 2.0 * label, "error_db": 0.1})
    levels.loc[label < -8, ["measured_db", "error_db"]] = -30, 3.0
    levels.loc[label == 30, "measured_db"] = 8.0
    levels.loc[label == 4, "measured_db"] = 60.0
    line = snr_line(levels)
    assert (line.convention, line.measured_slope) == ("noise standard deviation", pytest.approx(2))
    assert min(line.labels) == -8


def test_snr_convention_of_nothing_cannot_be_told():
    levels = pd.DataFrame({"level": [0, 2], "measured_db": [np.nan, np.nan], "error_db": np.inf})
    for some in (levels, levels.assign(measured_db=[0.0, 2.0])):
        assert snr_line(some).convention == "cannot tell"


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


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.5])
def test_kurtosis_of_an_envelope_is_that_without_noise(noise, rng):
    """1 of a constant envelope, 2 of Gaussian samples, 1.32 of 16QAM."""
    grid = torch.cartesian_prod(*2 * [torch.tensor([-3.0, -1.0, 1.0, 3.0]) / 10**0.5])
    kinds = {
        1.0: torch.exp(2j * torch.pi * torch.rand(200_000, generator=rng)),
        2.0: torch.randn(200_000, dtype=torch.complex64, generator=rng),
        1.32: torch.view_as_complex(grid[torch.randint(16, (200_000,), generator=rng)]),
    }
    added = torch.randn(200_000, dtype=torch.complex64, generator=rng) * noise**0.5
    for expected, clean in kinds.items():
        measured = envelope_kurtosis(3 * (clean + added)[None], torch.tensor([9 * noise]))
        assert float(measured) == pytest.approx(expected, abs=0.04)


def test_equal_frames_are_found_among_others_with_the_same_begin(rng):
    """Frames 2, 5 and 9 are equal; 4 and 7 begin like them and go on otherwise."""
    samples = torch.randn(12, 64, 2, generator=rng).numpy()
    for frame in (4, 5, 7, 9):
        samples[frame, :8] = samples[2, :8]
    samples[5] = samples[9] = samples[2]
    assert duplicate_pairs(samples, samples[:, :8]).tolist() == [[2, 5], [5, 9]]
    assert duplicate_pairs(samples[:5], samples[:5, :8]).shape == (0, 2)
    assert duplicate_pairs(np.zeros((3, 64, 2)), np.zeros((3, 8, 2))).tolist() == [[0, 1], [1, 2]]

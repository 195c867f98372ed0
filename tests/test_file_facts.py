"""The real file beside the twin: stored facts are those of the excerpts, and the measures are right."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from files import EXCERPTS, needs_excerpts

from amc_utils.radioml import facts
from amc_utils.radioml.facts import PSKS, SIMULATED, comparison, read_facts, simulate
from amc_utils.runtime.pages import with_table
from amc_utils.runtime.paths import REPOSITORY
from amc_utils.signals import Channel, generate_frames


@pytest.fixture(scope="module")
def table():
    return comparison(read_facts("measured"), read_facts("simulated"))


def row(table, modulation, beginning):
    (found,) = [what for what in table.index if what.startswith(f"{modulation}: {beginning}")]
    return table.loc[found]


@needs_excerpts
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("measured", facts.measured_facts),
        ("published", facts.published_results),
    ],
)
def test_stored_facts_are_those_of_the_excerpts(name, make, tmp_path):
    make(EXCERPTS).to_csv(tmp_path / "made.csv", index=False, float_format="%.6g")
    made = pd.read_csv(tmp_path / "made.csv", dtype={"snr_label": "Int64"})
    pd.testing.assert_frame_equal(made, read_facts(name), rtol=1e-4, atol=1e-9)


def test_facts_say_where_they_come_from():
    measured = read_facts("measured")
    assert not measured[["how", "source", "num_frames"]].isna().any(axis=None)
    assert set(measured["how"]) == {
        "stated by the source",
        "measured",
        "inferred",
        "stated in public notebook outputs (see source)",
    }
    clipped = measured[measured["quantity"] == "clipping"]
    assert (clipped.groupby("modulation").size() == 26).all()
    assert set(clipped["modulation"]) == {*PSKS, "8ASK"}


def test_published_accuracies_are_those_told():
    """Labels 0 to 30, as the origin's own page rounds them."""
    published = read_facts("published")
    origin = published[published["num_classes"] == 272].set_index("snr_label")
    snr, modulation, joint = (
        origin.loc[origin["task"] == task, "value"] for task in ("snr", "modulation", "joint")
    )
    stated = [93, 87, 89, 88, 87, 89, 91, 91, 85, 74, 56, 33, 26, 30, 37, 42]
    np.testing.assert_allclose(100 * snr, stated, atol=0.51)
    # Right in both is at most right in one, and at least what both errors leave.
    assert (joint <= np.minimum(snr, modulation) + 5e-4).all()
    assert (joint >= snr + modulation - 1 - 5e-4).all()
    assert origin.loc[origin["task"] == "snr", "num_frames"].sum() == 111_412


def test_twin_is_within_reach_of_the_file(table):
    twin = table["radioml_2018"]
    for name in PSKS:
        assert row(table, name, "values beyond")["radioml_2018"] <= 0.003
    assert row(table, "8ASK", "values beyond")["radioml_2018"] <= 5
    assert row(table, "QPSK", "spectrum")["radioml_2018"] <= 0.25
    assert row(table, "BPSK", "spectrum")["radioml_2018"] <= 0.25
    apart = (twin - table["real"]).abs()
    for name in ("QPSK", "BPSK"):
        assert apart[row(table, name, "noise floor").name] < 0.5
    ratio = twin / table["real"]
    assert ratio[row(table, "BPSK", "spread of the carrier").name] == pytest.approx(1, abs=0.1)
    for name in ("QPSK", "BPSK"):
        assert ratio[row(table, name, "spread of the power").name] == pytest.approx(1, abs=0.15)
    assert apart["8ASK: mean power"] < 0.1


def test_slope_of_the_labels_is_two(table):
    """The label at which the twin clips as the file does, against the file's own, where it shows."""
    slopes = facts.label_slopes(read_facts("measured"), read_facts("simulated"))
    assert set(slopes.index) == set(PSKS)
    assert slopes.mean() == pytest.approx(2, abs=0.03)
    assert slopes.std(ddof=0) < 0.05
    assert row(table, "four PSKs", "SNR for")["real"] == slopes.mean()


@pytest.mark.parametrize("slope", [1.5, 2.0])
def test_slope_of_labels_of_known_meaning_is_found(slope):
    """A file that clips as the twin does at 2 / slope times the label."""
    record = read_facts("simulated")
    twin = record[(record["channel"] == "radioml_2018") & (record["quantity"] == "clipping")]
    made = twin.assign(value=0.0)
    for name in PSKS:
        of_class = twin[twin["modulation"] == name]
        at = of_class["snr_label"].astype(float)
        share = np.exp(np.interp(slope / 2 * at, at, np.log(of_class["value"].clip(lower=1e-6))))
        made.loc[of_class.index, "value"] = share
    np.testing.assert_allclose(facts.label_slopes(made, record), slope, atol=0.05)


def test_textbooks_and_table_1_are_far_off(table):
    for channel in ("table_1", "per_sample", "es_n0"):
        for name in PSKS:
            difference = row(table, name, "values beyond")
            assert difference[channel] > 0.02
            assert difference[channel] > 10 * difference["radioml_2018"]
        for name in ("QPSK", "BPSK"):
            floor = row(table, name, "noise floor")
            assert floor[channel] - floor["real"] > 29
    assert row(table, "QPSK", "spectrum")["table_1"] > 3
    assert row(table, "BPSK", "spread of the carrier")["table_1"] > 8e-5
    assert table.loc["8ASK: mean power", "table_1"] < 1.1


@pytest.mark.parametrize("channel", SIMULATED)
def test_record_of_the_simulation_is_what_is_simulated(channel):
    """Fewer frames than the record's, so within what chance does to them."""
    record = read_facts("simulated")
    record = record[record["channel"] == channel].drop(columns="channel")
    made = facts.simulated_stretches(SIMULATED[channel], 512)
    both = made.merge(record, on=["quantity", "modulation", "snr_label", "x"])
    assert len(both) == len(made)
    both = both[both["chance_y"].notna()]
    off = (both["value_x"] - both["value_y"]).abs() / (both["chance_y"] + 1e-9)
    assert off[both["quantity"] == "spectrum"].pow(2).mean() < 2
    assert off[both["quantity"].isin(["noise_floor", "power_std", "carrier_std"])].max() < 4
    for name, label in (("8PSK", 2), ("BPSK", -4)):
        share = np.mean(
            [facts.clipping_percent(iq) for iq in simulate(SIMULATED[channel], name, label, 1024)]
        )
        stated = record[(record["modulation"] == name) & (record["snr_label"] == label)].iloc[0]
        # A quarter of the frames that the chance is given for.
        assert share == pytest.approx(stated["value"], abs=4 * 2 * stated["chance"])


def test_page_shows_the_stored_numbers(table):
    page = (REPOSITORY / facts.PAGE).read_text(encoding="utf8")
    assert with_table(page, "facts", facts.facts_table(table)) == page, "amc facts writes it"


def noise(shape, seed=1):
    parts = np.random.default_rng(seed).normal(size=(2, *shape))
    return (parts[0] + 1j * parts[1]) / math.sqrt(2)


def test_clipping_of_noise_is_what_gauss_says():
    expected = 100 * math.erfc(2)  # each part has variance one half
    assert facts.clipping_percent(noise((2000, 1024))) == pytest.approx(expected, rel=0.02)


def test_floor_of_noise_is_its_power_beside_a_strong_tone():
    tone = np.exp(2j * np.pi * 0.0437 * np.arange(128))
    floor = facts.noise_floor_db(1e-3 * noise((4000, 128)) + tone)
    # The median of a mean of squares lies a little below it.
    assert floor == pytest.approx(-60, abs=0.2)
    frequency, density = facts.power_density(noise((4000, 128)))
    assert (frequency[0], frequency[-1]) == (0, 0.5)
    np.testing.assert_allclose(density.mean(0), 1, atol=0.1)


@pytest.mark.parametrize("offset", [-1.3e-4, 0.0, 3.3e-5, 2e-3])
def test_carrier_of_real_valued_signals_is_found_with_its_sign(offset):
    real = np.convolve(np.random.default_rng(2).normal(size=64 * 128 + 7), np.ones(8) / 8, "valid")
    signal = real.reshape(64, 128) * np.exp(1j * (0.7 + 2 * np.pi * offset * np.arange(128)))
    np.testing.assert_allclose(facts.squared_carrier(signal), offset, atol=1e-9)


@pytest.mark.parametrize("whole", [True, False])
def test_timing_is_that_of_the_generator(whole):
    index = torch.arange(128)
    made = generate_frames(
        index,
        torch.zeros_like(index),
        torch.full_like(index, 30),
        modulations=("QPSK",),
        seed=4,
        channel=Channel(whole_sample_timing=whole),
    )
    timing = facts.symbol_timing(made.iq.numpy()[:, :128])
    # Symbols peak a timing offset early, and repeat every 8 samples.
    off = (timing + made.state.timing_offset.numpy() + 4) % 8 - 4
    assert np.abs(off).max() < 0.2
    assert abs(off.mean()) < 0.01

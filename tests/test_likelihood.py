"""Average likelihood ratios against their definition."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from amc_utils.dsp import likelihood
from amc_utils.dsp.likelihood import COARSE, FINE, blind_label, likelihood_ratios
from amc_utils.dsp.receiver_settings import DEFAULT_RECEIVER, RECEIVERS, class_es_n0_db
from amc_utils.dsp.synchronisation import ReceivedBatch
from amc_utils.images import network_input
from amc_utils.modulation.constellations import LINEAR_MODULATIONS, symbol_map
from amc_utils.signals import CHANNEL_PRESETS, SNR_LABELS, generate_frames

CPU = torch.device("cpu")


def ratio_by_definition(z, points, snr):
    """Of noisy symbols of unit mean power, numpy complex [...]."""
    noise = 1 / (1 + snr)
    distance = np.abs(z[..., None] - np.sqrt(snr * noise) * points) ** 2
    mean = np.exp(-distance / noise).mean(-1) / noise
    return np.log(mean) + np.abs(z) ** 2


@pytest.mark.parametrize("name", ["BPSK", "16PSK", "32APSK", "64QAM", "8ASK"])
def test_ratio_of_a_symbol(name):
    rng = np.random.default_rng(1)
    z = rng.normal(size=50) + 1j * rng.normal(size=50)
    found = likelihood._symbol_ratio(
        torch.from_numpy(np.stack([z.real, z.imag], 1)).float(), name, 5.0, DEFAULT_RECEIVER
    )
    expected = ratio_by_definition(z, symbol_map(name, unipolar_ask=True), 5.0)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_ratio_of_a_part_of_oqpsk_is_half_of_qpsk():
    """The two parts of QPSK are independent, and each has the ratio of a part of OQPSK."""
    rng = np.random.default_rng(2)
    z = rng.normal(size=50) + 1j * rng.normal(size=50)
    parts = [
        torch.from_numpy(np.stack(part, 1)).float() for part in ((z.real, z.imag), (z.imag, z.real))
    ]
    found = sum(likelihood._symbol_ratio(part, "OQPSK", 5.0, DEFAULT_RECEIVER) for part in parts)
    np.testing.assert_allclose(found, ratio_by_definition(z, symbol_map("QPSK"), 5.0), atol=1e-4)


@pytest.mark.parametrize("unipolar", [True, False])
def test_symmetry_of_the_maps(unipolar):
    receiver = RECEIVERS["radioml_2018" if unipolar else "table_1"]
    found = {turns: names for names, turns, _ in likelihood._by_symmetry(receiver, CPU)}
    assert found[2] == (("BPSK",) if unipolar else ("4ASK", "8ASK", "BPSK"))
    assert found[1] == (("OOK", "4ASK", "8ASK") if unipolar else ("OOK",))
    assert sorted(sum(found.values(), ("OQPSK",))) == sorted(LINEAR_MODULATIONS)


@pytest.mark.parametrize(
    ("name", "snr_db"), [("QPSK", 3), ("16QAM", 12), ("8PSK", 15), ("BPSK", -3), ("4ASK", 9)]
)
@pytest.mark.parametrize("resolution", [COARSE, FINE])
def test_average_is_the_sum_over_the_grid(name, snr_db, resolution):
    """The same sum, written out: every phase and offset, every symbol, every point of the map."""
    snr, points = 10 ** (snr_db / 10), symbol_map(name, unipolar_ask=True)
    rng = np.random.default_rng(3)
    receiver, count = DEFAULT_RECEIVER, 120
    number = np.arange(count) - (count - 1) / 2
    turn = np.exp(1j * (0.4 + 2 * np.pi * 8 * 2e-5 * number))
    noise = (rng.normal(size=count) + 1j * rng.normal(size=count)) / np.sqrt(2)
    z = np.sqrt(snr) * rng.choice(points, count) * turn + noise
    z /= np.sqrt(np.mean(np.abs(z) ** 2))
    cfos = likelihood._cfos(resolution, receiver, CPU)[0].numpy()
    weights = -((cfos / receiver.channel.cfo_std) ** 2) / 2
    weights = weights - np.logaddexp.reduce(weights)
    terms = []
    for cfo, weight in zip(cfos, weights, strict=True):
        for phase in np.arange(256) * 2 * np.pi / 256:
            still = z * np.exp(-1j * (2 * np.pi * 8 * cfo * number + phase))
            terms.append(ratio_by_definition(still, points, snr).sum() + weight)
    expected = np.logaddexp.reduce(terms) - math.log(256)
    turns = next(t for names, t, _ in likelihood._by_symmetry(receiver, CPU) if name in names)
    # Of the genie-aided bound, whose symbols have the Es/N0 that was sent; that of this modulation.
    sent_db = snr_db - float(class_es_n0_db((name,), (0,), receiver.channel))
    known = replace(receiver, pulse_exponent=0.5, snr_labels=(0, sent_db / receiver.channel.snr_slope))
    series = likelihood._angle_series((name,), turns, resolution, known, CPU)
    # The symbols come at another amplitude, and are brought to theirs.
    symbols, amplitude = torch.from_numpy(z / 3).to(torch.complex64)[None, None], torch.tensor([[3.0]])
    second = torch.tensor([1])
    found = likelihood._by_carrier(symbols, amplitude, second, series, turns, resolution, receiver)
    found = likelihood._average(found, torch.zeros(1, 1), resolution, receiver)
    # Rings, stretches and harmonics round off the sharpest structure.
    assert float(found) == pytest.approx(expected, abs=max(0.5, 0.012 * abs(expected)))


def made(names, label, count, seed=5, preset="radioml_2018"):
    modulation = torch.arange(len(names)).repeat_interleave(count)
    index = torch.arange(len(modulation))
    labels = torch.full_like(index, label)
    options = {"modulations": names, "seed": seed, "channel": CHANNEL_PRESETS[preset]}
    return modulation, generate_frames(index, modulation, labels, **options).iq


def rated(iq, preset="radioml_2018", resolution=COARSE):
    frames = ReceivedBatch(iq, RECEIVERS[preset])
    return likelihood_ratios(frames, blind_label(frames), resolution)


@pytest.mark.parametrize(("preset", "label"), [("radioml_2018", 4), ("table_1", 10)])
def test_the_modulation_that_was_sent_is_the_likeliest(preset, label):
    names = tuple(name for name in LINEAR_MODULATIONS if name != "32PSK")
    modulation, iq = made(names, label, 20, preset=preset)
    columns = [LINEAR_MODULATIONS.index(name) for name in names]
    right = rated(iq, preset)[:, columns].argmax(1) == modulation
    by_name = right.float().view(len(names), -1).mean(1)
    assert by_name.mean() > 0.85
    assert by_name[names.index("OQPSK")] > 0.85


def test_noise_is_no_modulation_and_carrier_and_scale_change_little():
    _, noise = made(("QPSK",), -20, 30)
    assert rated(noise).abs().mean() < 2
    _, iq = made(("8PSK", "16QAM"), 2, 20)
    turned = 3 * iq * torch.polar(torch.ones(1), torch.tensor([0.3]))
    assert (rated(turned).argmax(1) == rated(iq).argmax(1)).float().mean() > 0.9


@pytest.mark.parametrize(("preset", "labels"), [("radioml_2018", (0, 2, 28)), ("table_1", (2, 12))])
def test_blind_label_is_that_of_the_frame(preset, labels):
    for label in labels:
        _, iq = made(("16QAM", "8PSK"), label, 50, preset=preset)
        found = blind_label(ReceivedBatch(iq, RECEIVERS[preset]))
        assert (found == SNR_LABELS.index(label)).float().mean() > 0.97


def test_frames_of_more_power_than_their_modulation_has_are_rated_at_its_amplitude():
    """Of OOK, half of the symbols are sent on average; a frame of many has a louder carrier."""
    _, iq = made(("OOK",), 8, 100, preset="table_1")
    frames = ReceivedBatch(iq, RECEIVERS["table_1"])
    ratio = likelihood_ratios(frames, blind_label(frames), COARSE)[:, LINEAR_MODULATIONS.index("OOK")]
    power = 1 / frames.timed.noise_power
    far = (power.log() - power.log().mean()).abs()
    loud_or_low = far > far.quantile(0.7)
    # At unit power it is 0.96.
    assert ratio[loud_or_low].mean() > 0.97 * ratio[~loud_or_low].mean()


@pytest.mark.parametrize(
    ("preset", "label"), [("radioml_2018", 5), ("radioml_2018", 33), ("table_1", 11), ("table_1", 40)]
)
def test_frames_between_labels_and_above_them_are_still_named(preset, label):
    """At the amplitude of the nearest label 0.75 of them are named, or 0.06 where the SNR is high."""
    modulation, iq = made(LINEAR_MODULATIONS, label, 6, preset=preset)
    assert (rated(iq, preset).argmax(1) == modulation).float().mean() > 0.8


def test_timing_likelihood_is_that_of_the_symbols_energies():
    """For Gaussian symbols, on average: the frame's ends differ from timing to timing."""
    _, iq = made(("64QAM",), 10, 200, preset="table_1")
    frames = ReceivedBatch(iq, RECEIVERS["table_1"])
    best, far = frames.timed, frames.symbols_at(frames.timed.timing + 4)
    lost = (1 / best.noise_power - 1 / far.noise_power) / (1 + frames.ratio) * best.symbols.shape[1]
    # 124 of 128 symbols, and a window whose mean square is 0.96.
    expected = 2 * frames.timing_likelihood * (124 / 128 / 0.96)
    assert float(lost.mean()) == pytest.approx(float(expected.mean()), rel=0.05)


def test_timings_count_by_their_likelihood():
    """With that of the estimated one far above the mean, the three others take no part."""
    _, iq = made(("QPSK", "16QAM"), 10, 4, preset="table_1")
    found = {}
    for what, value in {"none": 0.0, "own": None, "all": 1e4}.items():
        frames = ReceivedBatch(iq, RECEIVERS["table_1"])
        if value is not None:
            frames.timing_likelihood = torch.full((len(iq),), value)
        found[what] = likelihood_ratios(frames, blind_label(frames), COARSE)
    assert (found["all"] <= found["own"] + 1e-3).all()
    assert (found["own"] <= found["none"] + 1e-3).all()
    assert (found["none"] - found["own"] > 1e-3).any()


def test_known_offset_needs_no_average():
    known = replace(DEFAULT_RECEIVER, channel=replace(DEFAULT_RECEIVER.channel, cfo_std=0.0))
    cfos, weights = likelihood._cfos(FINE, known, CPU)
    assert cfos.tolist() == [0.0]
    assert weights.tolist() == [0.0]


def test_settings_beside_the_preset_reach_the_images(make_config):
    """Another spread of carrier offsets gives other ratios."""
    _, iq = made(("16QAM",), 0, 8)
    drawn = {}
    for cfo_std in (0.0, 5e-4):
        config = make_config(channels=["likelihoods"], image_size=64, channel={"cfo_std": cfo_std})
        assert config.receiver.channel.cfo_std == cfo_std
        drawn[cfo_std] = network_input(iq, **config.image_options)
    assert not torch.equal(*drawn.values())

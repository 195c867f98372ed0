"""The likelihood receiver against its definition, and against the bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from amc_utils.baselines.receiver import (
    _NUM_RADII,
    _angle_series,
    _largest_radius,
    _shape_likelihood,
    receiver_log_likelihoods,
)
from amc_utils.data import synthesise_frames
from amc_utils.dsp.receiver_settings import RECEIVERS
from amc_utils.dsp.synchronisation import NUM_CFOS, cfo_grid
from amc_utils.modulation.constellations import symbol_map
from amc_utils.signals import CHANNEL_PRESETS

TABLE_1 = {"channel": CHANNEL_PRESETS["table_1"], "receiver": RECEIVERS["table_1"]}
NAMES = ("BPSK", "QPSK", "16PSK", "16APSK", "16QAM", "64QAM", "OQPSK")


@pytest.mark.parametrize(("name", "order"), [("4ASK", 2), ("16PSK", 16), ("64APSK", 4), ("128QAM", 4)])
def test_series_is_the_likelihood_of_a_symbol(name, order, rng):
    points = symbol_map(name).astype(complex)
    es_n0_db = 10 * math.log10(8 * 10**0.6)
    series, found = _angle_series(tuple(points.tolist()), es_n0_db, torch.device("cpu"))
    assert found == order
    snr = 8 * 10**0.6
    for row in (14, 84, 168):
        radius = (row + 0.5) * _largest_radius(es_n0_db) / _NUM_RADII
        for angle in torch.rand(5, generator=rng).mul(2 * math.pi).tolist():
            z = radius * np.exp(1j * angle)
            direct = np.log(np.mean(np.exp(snr * (2 * (z * points.conj()).real - abs(points) ** 2))))
            harmonics = np.exp(1j * order * angle * np.arange(series.shape[1]))
            # 32 harmonics round off the sharpest valleys of the logarithm.
            assert (series[row].numpy() * harmonics).sum().real == pytest.approx(direct, abs=0.6)


def test_low_snr_tells_maps_as_the_definition_does():
    """Noise throws symbols far beyond the map; they count with their true distance."""
    snr = 8 * 10**-1.4
    rng = np.random.default_rng(5)
    noise = (rng.normal(size=(40, 124)) + 1j * rng.normal(size=(40, 124))) / np.sqrt(2)
    symbols = np.sqrt(snr) * rng.choice(symbol_map("BPSK").astype(complex), (40, 124)) + noise
    turns = np.exp(-2j * np.pi * np.arange(64) / 64)
    found, expected = [], []
    for name in ("BPSK", "16QAM"):
        points = symbol_map(name).astype(complex)
        turned = (symbols[:, None, :, None] * turns[:, None, None] * points.conj()).real
        exponent = 2 * np.sqrt(snr) * turned - snr * np.abs(points) ** 2
        each = np.log(np.exp(exponent).mean(-1)).sum(-1)
        expected.append(np.logaddexp.reduce(each, 1) - np.log(64))
        # The only offset that counts is none.
        prior = torch.full((NUM_CFOS,), -1e9)
        prior[NUM_CFOS // 2] = 0
        frames = torch.from_numpy(symbols).to(torch.complex64)
        cfos = cfo_grid(RECEIVERS["table_1"], torch.device("cpu"))
        found.append(_shape_likelihood(frames, points, 10 * math.log10(snr), prior, cfos).numpy())
    np.testing.assert_allclose(found[0] - found[1], expected[0] - expected[1], atol=0.15)


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_frames_without_a_signal_name_no_modulation(value):
    iq = torch.full((2, 1024), value, dtype=torch.complex64)
    found = receiver_log_likelihoods(iq, modulations=("QPSK", "OQPSK"), snr_labels=(0, 10), **TABLE_1)
    assert found.shape == (2, 2, 2)
    assert found.isfinite().all()
    assert torch.equal(found[:, 0], found[:, 1])


def test_average_over_phase_and_offset_is_the_sum_over_the_grid():
    """The same sum, written out: every phase and offset, every symbol, every point of the map."""
    snr = 8 * 10**0.4
    rng = np.random.default_rng(3)
    points = symbol_map("QPSK").astype(complex)
    turn = np.exp(1j * (0.4 + 2 * np.pi * 8 * 1e-4 * np.arange(124)))
    noise = (rng.normal(size=124) + 1j * rng.normal(size=124)) / np.sqrt(2)
    symbols = np.sqrt(snr) * rng.choice(points, 124) * turn + noise
    grid = cfo_grid(RECEIVERS["table_1"], torch.device("cpu"))
    cfos = grid.numpy()
    prior = -0.5 * (cfos / 1e-4) ** 2
    number = np.arange(124) - 123 / 2
    terms = []
    for cfo, weight in zip(cfos, prior, strict=True):
        for phase in np.arange(64) * 2 * np.pi / 64 / 4:
            still = symbols * np.exp(-1j * (2 * np.pi * 8 * cfo * number + phase))
            inner = (still[:, None] * points.conj()).real
            terms.append(np.log(np.exp(2 * np.sqrt(snr) * inner - snr).mean(1)).sum() + weight)
    expected = np.logaddexp.reduce(terms) - np.logaddexp.reduce(prior) - np.log(64)
    found = _shape_likelihood(
        torch.from_numpy(symbols).to(torch.complex64)[None],
        points,
        10 * math.log10(snr),
        torch.from_numpy(prior).float(),
        grid,
    )
    assert float(found) == pytest.approx(expected, abs=0.15)  # radii are binned


@pytest.mark.parametrize("preset", CHANNEL_PRESETS)
def test_receiver_names_clear_frames_and_guesses_in_noise(preset):
    channel, receiver = CHANNEL_PRESETS[preset], RECEIVERS[preset]
    frames = synthesise_frames(
        modulations=NAMES, snr_labels=(-20, 16), num_frames_per_cell=20, seed=4, channel=channel
    )
    found = receiver_log_likelihoods(
        frames.iq(torch.arange(len(frames))),
        modulations=NAMES,
        snr_labels=(-20, 16),
        channel=channel,
        receiver=receiver,
    )
    right = found.flatten(1).argmax(1) == frames.joint_class
    assert right[frames.snr_index == 1].float().mean() > 0.97
    assert right[frames.snr_index == 0].float().mean() < 0.5


def test_receiver_of_radioml_2018_knows_unipolar_levels_and_all_labels_up_to_30():
    names = ("OOK", "4ASK", "8ASK", "BPSK", "16QAM")
    options = {"modulations": names, "snr_labels": (6, 16, 26, 28, 30)}
    frames = synthesise_frames(**options, num_frames_per_cell=10, seed=4)
    channel = CHANNEL_PRESETS["radioml_2018"]
    iq = frames.iq(torch.arange(len(frames)))
    found = receiver_log_likelihoods(iq, **options, channel=channel).flatten(1).argmax(1)
    assert (found == frames.joint_class).float().mean() > 0.95
    # The scale of a frame says nothing.
    scaled = receiver_log_likelihoods(iq * 3, **options, channel=channel).flatten(1).argmax(1)
    assert (scaled == found).float().mean() > 0.99


def test_order_of_the_hypotheses_changes_nothing():
    frames = synthesise_frames(modulations=NAMES, snr_labels=(2,), num_frames_per_cell=3, seed=4)
    iq = frames.iq(torch.arange(len(frames)))
    options = {"snr_labels": (0, 2, 4), "channel": CHANNEL_PRESETS["radioml_2018"]}
    straight = receiver_log_likelihoods(iq, modulations=NAMES, **options)
    permuted = receiver_log_likelihoods(iq, modulations=NAMES[::-1], **options)
    torch.testing.assert_close(permuted, straight.flip(1), rtol=0, atol=1e-2)

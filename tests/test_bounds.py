"""The bound against brute force, the Cramér-Rao bound and what must hold for any best receiver."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from amc_utils.baselines import bounds
from amc_utils.baselines.bounds import (
    MatchedFilterOutput,
    genie_frames,
    log_likelihoods,
    matched_filter,
)
from amc_utils.dsp.receiver_settings import class_es_n0_db, class_snr_db
from amc_utils.modulation.constellations import symbol_map
from amc_utils.signals import CHANNEL_PRESETS, DIGITAL_MODULATIONS, SNR_LABELS

TABLE_1, RADIOML_2018 = CHANNEL_PRESETS["table_1"], CHANNEL_PRESETS["radioml_2018"]


def observe(modulations, snr_label, num_frames, *, num_symbols=128, seed=0, channel=TABLE_1):
    """The same number of frames of each modulation at one label; their modulation and what is seen."""
    modulation = torch.arange(len(modulations)).repeat_interleave(num_frames)
    output = genie_frames(
        modulation,
        torch.zeros_like(modulation),
        snr_labels=[float(snr_label)],
        modulations=modulations,
        generator=torch.Generator().manual_seed(seed),
        channel=channel,
        num_symbols=num_symbols,
    )
    return modulation, output


def brute_force(output, modulation, snr_db):
    """Log-likelihood in float64, summed over very many noise levels, from the definition."""
    points = symbol_map(modulation).astype(complex)
    gain = 8 * 10 ** (snr_db / 10)
    result = []
    for symbols, energy in zip(output.aligned.numpy().astype(complex), output.energy, strict=True):
        noise_energy = float(energy) - np.sum(np.abs(symbols) ** 2)
        guess = noise_energy / (output.num_dimensions - len(symbols))
        levels = []
        for v in guess * np.exp(np.linspace(-0.25, 0.25, 2001)):
            distance = np.abs(symbols[:, None] - np.sqrt(gain * v) * points) ** 2 / v
            inside = np.log(np.exp(-distance).mean(1) + 1e-300).sum()
            levels.append(inside - output.num_dimensions * np.log(v) - noise_energy / v)
        result.append(np.logaddexp.reduce(levels))
    return np.array(result)


@pytest.mark.parametrize(("names", "snr_db"), [(["BPSK", "QPSK"], -8), (["64QAM", "256QAM"], 8)])
def test_likelihood_equals_brute_force_over_levels(names, snr_db):
    _, output = observe(names, snr_db, 4)
    found = log_likelihoods(output, channel=TABLE_1, modulations=names, snr_labels=[snr_db])[:, :, 0]
    expected = np.stack([brute_force(output, name, snr_db) for name in names], 1)
    np.testing.assert_allclose(found[:, 0] - found[:, 1], expected[:, 0] - expected[:, 1], atol=0.1)


def test_bpsk_against_qpsk_has_the_error_rate_of_the_known_level_receiver():
    """128 symbols tell the two apart as often as an independent float64 receiver told the level."""
    modulation, output = observe(["BPSK", "QPSK"], -16, 2000)
    found = log_likelihoods(output, channel=TABLE_1, modulations=["BPSK", "QPSK"], snr_labels=[-16])[
        :, :, 0
    ]
    error = (found.argmax(1) != modulation).double().mean()
    rng = np.random.default_rng(1)
    gain, v = 8 * 10**-1.6, 1.0
    wrong = []
    for truth, points in enumerate(map(symbol_map, ("BPSK", "QPSK"))):
        sent = rng.choice(points, (4000, 128)) * np.sqrt(gain)
        noise = rng.normal(size=(2, 4000, 128)) / np.sqrt(2)
        z = sent + noise[0] + 1j * noise[1]
        scores = [
            np.log(np.exp(-(np.abs(z[..., None] - np.sqrt(gain) * p) ** 2) / v).mean(-1)).sum(-1)
            for p in map(symbol_map, ("BPSK", "QPSK"))
        ]
        wrong.append(np.argmax(scores, 0) != truth)
    known = np.mean(wrong)
    assert 0.05 < known < 0.45, "the test must be at an SNR where there are errors"
    assert float(error) == pytest.approx(known, abs=4 * np.sqrt(known / 4000))


@pytest.mark.parametrize("snr_db", [0, 15])
def test_snr_estimate_has_the_variance_of_the_cramer_rao_bound(snr_db):
    """Known symbols: var(ln SNR) >= 2 / (K Es/N0) + 1 / N, attained when K Es/N0 is large."""
    grid = [snr_db + 0.02 * step for step in range(-45, 46)]
    _, output = observe(["QPSK"], snr_db, 1500)
    best = log_likelihoods(
        output, channel=TABLE_1, modulations=["QPSK"], snr_labels=grid, num_candidates=91
    )[:, 0]
    estimate = torch.tensor(grid)[best.argmax(1)] * np.log(10) / 10
    bound = 2 / (128 * 8 * 10 ** (snr_db / 10)) + 1 / 1024
    # Four standard errors of a variance over 1,500 frames are 15 %.
    assert float(estimate.var()) == pytest.approx(bound, rel=0.15)
    assert float(estimate.mean()) * 10 / np.log(10) == pytest.approx(snr_db, abs=0.03)


def test_order_of_the_hypotheses_changes_nothing():
    names, grid = ["4ASK", "QPSK", "16QAM", "OQPSK"], [-4, 0, 4, 8]
    _, output = observe(names, 2, 20)
    straight = log_likelihoods(output, channel=TABLE_1, modulations=names, snr_labels=grid)
    permuted = log_likelihoods(
        output,
        channel=TABLE_1,
        modulations=[names[k] for k in (2, 0, 3, 1)],
        snr_labels=[grid[k] for k in (3, 1, 0, 2)],
    )
    torch.testing.assert_close(
        permuted, straight[:, (2, 0, 3, 1)][:, :, (3, 1, 0, 2)], rtol=0, atol=0.02
    )


def test_more_symbols_never_hurt():
    names = ["BPSK", "QPSK", "8PSK", "16QAM"]
    accuracy = []
    for num_symbols in (32, 64, 128, 256):
        modulation, output = observe(names, -7, 400, num_symbols=num_symbols)
        found = log_likelihoods(output, channel=TABLE_1, modulations=names, snr_labels=[-7])[:, :, 0]
        accuracy.append(float((found.argmax(1) == modulation).float().mean()))
    assert accuracy == sorted(accuracy)
    assert accuracy[-1] > accuracy[0] + 0.1


@pytest.mark.parametrize(
    ("channel", "levels", "num_frames"),
    [(TABLE_1, (-20, -6, 6, 18), 1), (RADIOML_2018, (-12, -10, -8), 4)],
)
def test_candidates_and_steps_that_are_spared_change_no_decision(
    monkeypatch, channel, levels, num_frames
):
    """Nor where carriers that unipolar ASK sends make energies mislead."""
    options = {"modulations": DIGITAL_MODULATIONS, "snr_labels": SNR_LABELS, "channel": channel}
    for level in levels:
        _, output = observe(DIGITAL_MODULATIONS, level, num_frames, seed=level + 50, channel=channel)
        quick = log_likelihoods(output, **options).flatten(1).argmax(1)
        monkeypatch.setattr(bounds, "_NUM_STEPS", 8)
        full = log_likelihoods(output, num_candidates=len(SNR_LABELS), **options).flatten(1).argmax(1)
        monkeypatch.undo()
        assert torch.equal(quick, full)


@pytest.mark.parametrize("name", ["QPSK", "64QAM", "OQPSK"])
def test_matched_filter_returns_the_symbols_and_all_their_energy(name):
    _, output = observe([name], 200, 5)
    symbols = output.offset if name == "OQPSK" else output.aligned
    points = torch.from_numpy(symbol_map(name).copy()) * 8**0.5
    assert (symbols[..., None] - points).abs().amin(-1).max() < 1e-3
    inside = torch.view_as_real(symbols).square().sum((1, 2))
    torch.testing.assert_close(inside, output.energy, rtol=1e-4, atol=0)


def test_noise_alone_fills_all_dimensions_evenly(rng):
    noise = torch.randn(400, 1024, dtype=torch.complex64, generator=rng)
    output = matched_filter(noise, torch.full((400,), 0.3))
    for symbols in (output.aligned, output.offset):
        assert float(symbols.abs().square().mean()) == pytest.approx(1, abs=0.02)
    assert float(output.energy.mean()) == pytest.approx(1024, rel=0.01)


def test_bound_knows_everything_without_noise_and_next_to_nothing_in_it():
    names, grid = DIGITAL_MODULATIONS, SNR_LABELS
    for snr_db, num_frames, low, high in ((20, 10, 1, 1), (-20, 50, 0.02, 0.08)):
        modulation, output = observe(names, snr_db, num_frames)
        best = (
            log_likelihoods(output, channel=TABLE_1, modulations=names, snr_labels=grid)
            .flatten(1)
            .argmax(1)
        )
        right = (best == modulation * len(grid) + grid.index(snr_db)).float().mean()
        assert low <= right <= high


def test_memory_is_bounded_by_chunks_that_change_nothing(monkeypatch):
    names = ["QPSK", "256QAM"]
    _, output = observe(names, 5, 9)
    whole = log_likelihoods(output, channel=TABLE_1, modulations=names, snr_labels=SNR_LABELS)
    monkeypatch.setattr(bounds, "_ELEMENTS_AT_ONCE", {"cpu": 1})
    single = log_likelihoods(output, channel=TABLE_1, modulations=names, snr_labels=SNR_LABELS)
    torch.testing.assert_close(whole, single, rtol=1e-6, atol=0.02)


def test_output_type_holds_what_it_says(rng):
    output = matched_filter(
        torch.randn(3, 64, dtype=torch.complex64, generator=rng), torch.full((3,), 0.2)
    )
    assert isinstance(output, MatchedFilterOutput)
    assert output.aligned.shape == output.offset.shape == (3, 8)
    assert output.num_dimensions == 64


def test_known_level_is_the_likelihood_of_its_definition():
    """At the scale of a record, with unipolar ASK, against the Gaussian density written out."""
    names, label = ["8ASK", "QPSK"], 2
    _, output = observe(names, label, 3, channel=RADIOML_2018)
    options = {"modulations": names, "snr_labels": [label], "channel": RADIOML_2018}
    found = log_likelihoods(output, **options)[:, :, 0].numpy()
    snr_db = class_snr_db(names, [label], RADIOML_2018).numpy()[:, 0]
    expected = np.empty_like(found)
    for number, name in enumerate(names):
        points = symbol_map(name, unipolar_ask=True)
        noise = 10 ** (-snr_db[number] / 10)
        # Of a signal of unit power, the carrier has mean^2 and symbols their pulse's energy of 0.844;
        # a record's standard deviation leaves the carrier out.
        mean = abs(points.mean()) ** 2
        total = mean + (1 - mean) * 0.844375
        v = noise / ((1 - mean) * 0.844375 / total + noise)
        amplitude = np.sqrt(8 * 0.844375 / total / noise * v)
        symbols = output.aligned.numpy()
        distance = np.abs(symbols[..., None] - amplitude * points) ** 2 / v
        outside = output.energy.numpy() - np.sum(np.abs(symbols) ** 2, 1)
        inside = np.log(np.exp(-distance).mean(-1)).sum(1)
        expected[:, number] = inside - outside / v - 1024 * np.log(v)
    np.testing.assert_allclose(found[:, 0] - found[:, 1], expected[:, 0] - expected[:, 1], atol=1e-6)


def test_level_says_next_to_nothing_of_the_class():
    """Unit power costs the best receiver nothing that a thousand frames would show."""
    names, right = DIGITAL_MODULATIONS, []
    for channel in (RADIOML_2018, replace(RADIOML_2018, record_scale=False)):
        modulation, output = observe(names, 1, 60, channel=channel)
        options = {"modulations": names, "snr_labels": [-1, 1, 3], "channel": channel}
        best = log_likelihoods(output, **options).flatten(1).argmax(1)
        right.append(float((best == modulation * 3 + 1).float().mean()))
    assert right[0] == pytest.approx(right[1], abs=0.01)
    assert 0.4 < right[0] < 0.9


def test_labels_of_radioml_2018_are_told_at_60_db():
    """Noise is a millionth of the signal there, and the labels 28 and 30 differ by 4 dB of it."""
    names = ("QPSK", "8ASK", "256QAM")
    modulation, output = observe(names, 30, 20, channel=RADIOML_2018)
    options = {"modulations": names, "snr_labels": (26, 28, 30), "channel": RADIOML_2018}
    assert torch.equal(log_likelihoods(output, **options).flatten(1).argmax(1), modulation * 3 + 2)


def without_phase(output, name, label):
    """Log-likelihood averaged over 360 phases, from the definition; the noise level is known."""
    points = symbol_map(name, unipolar_ask=True).astype(complex)
    snr = float(10 ** (class_es_n0_db((name,), (label,), RADIOML_2018)[0, 0] / 10))
    level = float(bounds.noise_levels((name,), (label,), RADIOML_2018)[0, 0])
    found = []
    for aligned, late, energy in zip(output.aligned, output.late, output.energy, strict=True):
        terms = []
        for turn in np.exp(-2j * np.pi * np.arange(360) / 360):
            z, half_later = (part.numpy() * turn / level**0.5 for part in (aligned, late))
            z = z.real + 1j * half_later.imag if name == "OQPSK" else z
            inner = 2 * snr**0.5 * (z[:, None] * points.conj()).real - snr * np.abs(points) ** 2
            terms.append(np.log(np.exp(inner).mean(1)).sum())
        mean = np.logaddexp.reduce(terms) - np.log(360)
        found.append(mean - float(energy) / level - output.num_dimensions * np.log(level))
    return np.array(found)


@pytest.mark.parametrize("label", [-2, 2])
def test_likelihood_without_the_phase_equals_the_sum_over_phases(label):
    names = ("BPSK", "QPSK", "8PSK", "16QAM", "4ASK", "OQPSK")
    _, output = observe(names, label, 1, channel=RADIOML_2018)
    options = {"modulations": names, "snr_labels": [label], "channel": RADIOML_2018}
    found = log_likelihoods(output, **options, phase_known=False)[:, :, 0]
    for number, name in enumerate(names):
        expected = without_phase(output, name, label)
        near = expected > expected.max() - 50
        np.testing.assert_allclose(found[near, number], expected[near], atol=1.0)


def test_without_the_phase_clear_frames_are_still_named_and_unclear_ones_less_often():
    names = ("QPSK", "8PSK", "16QAM", "64QAM", "OQPSK", "4ASK")
    options = {"modulations": names, "channel": RADIOML_2018}
    right = {}
    for label in (0, 8, 28):
        modulation, output = observe(names, label, 40, channel=RADIOML_2018)
        joint_class = modulation * len(SNR_LABELS) + SNR_LABELS.index(label)
        for known in (True, False):
            found = log_likelihoods(output, snr_labels=SNR_LABELS, phase_known=known, **options)
            right[label, known] = float((found.flatten(1).argmax(1) == joint_class).double().mean())
    assert right[8, False] > 0.99
    assert right[28, False] > 0.99
    assert right[0, False] < right[0, True] + 0.02


def test_bound_without_the_phase_needs_the_scale():
    _, output = observe(("QPSK",), 4, 1)
    with pytest.raises(ValueError, match="phase_known must be true for channels without record_scale"):
        log_likelihoods(
            output, modulations=["QPSK"], snr_labels=[4], channel=TABLE_1, phase_known=False
        )

"""Signals are found where they are: band, symbol rate and carrier against the truth of trials."""

from __future__ import annotations

import numpy as np
import pytest

from amc_utils.dsp.survey import Signal, average_spectrum, find_signals, line_spectrum, noise_floor
from amc_utils.inference.trials import trial


def noise(length, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((length, 2)) @ np.array([1, 1j])


def pulses(symbols, per_symbol, rolloff=0.4):
    """Root-raised-cosine pulses around the middle of each symbol, by their formula in time."""
    time = np.arange(-8 * per_symbol, 8 * per_symbol + 1) / per_symbol + 1e-9
    root = np.sin(np.pi * time * (1 - rolloff)) + 4 * rolloff * time * np.cos(
        np.pi * time * (1 + rolloff)
    )
    root /= np.pi * time * (1 - (4 * rolloff * time) ** 2)
    up = np.zeros(len(symbols) * per_symbol, complex)
    up[::per_symbol] = symbols
    return np.convolve(up, root, "same")


def test_symbol_rates_and_carriers_are_found_with_nothing_told():
    """All linear modulations, 2 to 50 samples a symbol, roll-off 0.1 to 1, carriers anywhere."""
    rates, carriers = [], []
    for number in range(68):
        truth = trial(number, seed=11)
        found = find_signals(truth.samples)
        assert len(found) <= 1, (truth, found)
        rates.append(bool(found) and abs(found[0].symbol_rate / truth.symbol_rate - 1) < 0.005)
        if rates[-1]:
            distance = (found[0].carrier - truth.carrier + 0.5) % 1 - 0.5
            carriers.append(abs(distance) / truth.symbol_rate)
    assert np.mean(rates) >= 0.98
    assert np.quantile(carriers, 0.98) < 0.08, "the front end looks no farther"


@pytest.mark.parametrize("seed", range(10))
def test_noise_holds_no_signal(seed):
    assert find_signals(noise(20_000, seed)) == []


def test_a_carrier_alone_has_no_symbol_rate():
    tone = 10 * np.exp(2j * np.pi * 0.1 * np.arange(20_000))
    assert find_signals(tone + noise(20_000)) == []


def test_signals_side_by_side_are_found_each():
    rng = np.random.default_rng(5)
    time = np.arange(40_000)
    slow = pulses(rng.choice([1, -1], 2_000), 20) * np.exp(-2j * np.pi * 0.2 * time)
    fast = pulses(rng.choice([1, -1, 1j, -1j], 5_000), 8) * np.exp(2j * np.pi * 0.23 * time)
    found = find_signals(slow + 0.7 * fast + 0.02 * noise(40_000))
    assert len(found) == 2
    for signal, (rate, carrier) in zip(
        sorted(found, key=lambda s: s.carrier), ((1 / 20, -0.2), (1 / 8, 0.23)), strict=True
    ):
        assert signal.symbol_rate == pytest.approx(rate, rel=1e-3)
        assert signal.carrier == pytest.approx(carrier, abs=0.05 * rate)


def test_negative_frequencies_that_were_never_recorded_do_not_count_as_noise():
    """As of a real signal made analytic: the floor is that of the other half."""
    spectrum = np.fft.fft(noise(2**15))
    spectrum[2**14 :] *= 1e-9
    power = average_spectrum(np.fft.ifft(spectrum))
    assert 1 < noise_floor(power) < 2.2


def test_line_spectrum_peaks_at_the_symbol_rate():
    for number in (0, 16):
        truth = trial(number, seed=3)
        (found,) = find_signals(truth.samples)
        rates, strength = line_spectrum(truth.samples, found)
        assert rates[strength.argmax()] == pytest.approx(truth.symbol_rate, rel=2e-3)


def test_bands_overlap_across_the_edge_of_the_recorded_band():
    one, other = Signal(0.49, 0.1, 1, 0.05, 50, 1), Signal(-0.49, 0.1, 1, 0.05, 50, 1)
    assert one.overlaps(other)
    assert not one.overlaps(Signal(0.3, 0.1, 1, 0.05, 50, 1))

"""The blind front end: what it finds of pulse, carrier and multipath, against what was made."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy.signal import resample_poly

from amc_utils.dsp.equalisation import (
    _NUM_DENSE,
    _VARIANCES,
    MODULUS_ALPHABETS,
    PART_ALPHABETS,
    _expected,
    _likelihoods,
    _magnitude_tables,
    _part_tables,
    _predictor,
    equalise,
    line_incoherence,
)
from amc_utils.dsp.receiver_settings import RECEIVERS
from amc_utils.dsp.synchronisation import ReceivedBatch
from amc_utils.images import IMAGE_CHANNELS, constellation_images
from amc_utils.modulation.constellations import symbol_map
from amc_utils.signals import (
    CHANNEL_PRESETS,
    MARGIN_IN_SYMBOLS,
    SAMPLES_PER_SYMBOL,
    generate_frames,
    to_unit_power,
    unit_phasor,
)

OPEN = CHANNEL_PRESETS["open"]
STILL = replace(OPEN, delay_spread=0.0, clock_max=0.0)


def make(modulation, snr_label, channel=OPEN, num_frames=60):
    return generate_frames(
        torch.arange(num_frames),
        torch.zeros(num_frames, dtype=torch.int64),
        torch.full((num_frames,), float(snr_label)),
        modulations=[modulation],
        seed=3,
        channel=channel,
    )


def received(made):
    return ReceivedBatch(made.iq, RECEIVERS["open"])


def signal_to_interference_db(made, frames):
    """Of the symbols, [B], fitted to those sent by one complex factor, with the true carrier."""
    symbols = to_unit_power(frames.timed.symbols)
    number = torch.arange(symbols.shape[1])
    left = (made.state.cfo - frames.blind.cfo) * SAMPLES_PER_SYMBOL
    symbols = symbols * unit_phasor(-2 * torch.pi * left[:, None] * number)
    found = []
    for shift in range(-6, 7):
        first = MARGIN_IN_SYMBOLS + frames.receiver.guard_symbols + shift
        sent = made.symbols[:, first : first + len(number)]
        factor = (symbols * sent.conj()).sum(1) / sent.abs().square().sum(1)
        error = (symbols / factor[:, None] - sent).abs().square().mean(1)
        found.append(-10 * (error / sent.abs().square().mean(1)).log10())
    return torch.stack(found).amax(0)


@pytest.mark.parametrize("modulation", ["BPSK", "16APSK", "64QAM"])
@pytest.mark.parametrize("exponent", OPEN.pulse_exponents)
def test_pulse_and_band_are_found_without_multipath(modulation, exponent):
    made = make(modulation, 20, replace(STILL, pulse_exponents=(exponent,)))
    found = received(made).blind
    assert (found.rolloff - made.state.rolloff).abs().median() < 0.06
    assert (found.exponent == exponent).float().mean() > 0.7
    period = SAMPLES_PER_SYMBOL
    error = (found.timing + made.state.timing_offset + period / 2) % period - period / 2
    assert error.abs().median() < 0.1


@pytest.mark.parametrize(("label", "least"), [(-6, 0.6), (0, 0.7), (20, 0.7)])
def test_pulse_is_found_in_any_noise(label, least):
    """Of frames of a root-raised cosine, none too wide or narrow a one by much."""
    channel = replace(STILL, pulse_exponents=(0.5,), rolloff_range=(0.1, 0.4))
    made = make("16QAM", label, channel)
    found = received(made).blind
    assert (found.exponent == 0.5).float().mean() > least
    assert (found.rolloff - made.state.rolloff).mean().abs() < 0.08


@pytest.mark.parametrize(
    ("modulation", "turns"), [("OOK", 1), ("BPSK", 2), ("QPSK", 4), ("8PSK", 8), ("16QAM", 4)]
)
def test_carrier_is_found_over_the_whole_range(modulation, turns):
    """Up to what the symmetry of the modulation hides; a quarter turn in the whole frame is allowed."""
    made = make(modulation, 16, STILL)
    assert made.state.cfo.abs().max() > 0.009
    error = (received(made).blind.cfo - made.state.cfo) * SAMPLES_PER_SYMBOL
    hidden = 1 / turns
    error = (error + hidden / 2) % hidden - hidden / 2
    assert (error.abs() < 1 / 512).float().mean() > 0.9


@pytest.mark.parametrize(
    ("modulation", "least"), [("QPSK", 6), ("16APSK", 6), ("16QAM", 6), ("64QAM", 3)]
)
def test_equaliser_undoes_multipath(modulation, least):
    """In decibels of signal to interference, the median of frames, over that of the pulse's filter."""
    channel = replace(STILL, delay_spread=1.5, random_delay_spread=False)
    frames = received(make(modulation, 24, channel))
    gained = signal_to_interference_db(make(modulation, 24, channel), frames)
    plain = received(make(modulation, 24, channel))
    plain.blind = equalise_without_taps(plain)
    gained = gained - signal_to_interference_db(make(modulation, 24, channel), plain)
    assert gained.median() > least


@pytest.mark.parametrize(
    ("modulation", "least"), [("8PSK", 21), ("16APSK", 21), ("32APSK", 17), ("4ASK", 21)]
)
def test_equaliser_undoes_multipath_of_half_a_symbol(modulation, least):
    """Median signal to interference in decibels; taps that begin at a single one leave 3 less."""
    made = make(modulation, 20, replace(STILL, delay_spread=4.0, random_delay_spread=False))
    assert signal_to_interference_db(made, received(made)).median() > least


def test_what_earlier_symbols_foretell_is_taken_out():
    """A second path half as strong as the first, one symbol later: 6 dB before."""
    generator = torch.Generator().manual_seed(4)
    sent = unit_phasor(torch.pi / 2 * torch.randint(4, (40, 160), generator=generator))
    mixed = sent + 0.5j * sent.roll(1, 1)
    seen = torch.zeros(40, 160 - 12, 13, dtype=torch.complex64)
    seen[:, :, ::2] = mixed.unfold(1, 7, 1)[:, : 160 - 12]
    found = (seen @ _predictor(seen)[..., None])[..., 0]
    error = found - sent[:, 3 : 3 + found.shape[1]]
    assert 10 * error.abs().square().mean().log10() < -15


def test_dense_alphabets_are_the_last():
    dense = {"64QAM", "128QAM", "256QAM"}
    for names in (MODULUS_ALPHABETS, PART_ALPHABETS):
        assert set(names[-_NUM_DENSE:]) == dense
        assert not set(names[:-_NUM_DENSE]) & dense


def equalise_without_taps(frames):
    """What the front end gives if no equaliser ever gains enough to be used."""
    return equalise(frames.iq, frames.noise, (torch.inf, torch.inf))


@pytest.mark.parametrize("modulation", ["QPSK", "16QAM", "256QAM", "128APSK"])
def test_equaliser_leaves_frames_without_multipath_alone(modulation):
    made = make(modulation, 20, STILL)
    frames, plain = received(made), received(made)
    plain.blind = equalise_without_taps(plain)
    lost = signal_to_interference_db(made, plain) - signal_to_interference_db(made, frames)
    assert lost.median() < 0.3
    assert (lost > 3).float().mean() < 0.1


def test_alphabet_of_the_modulation_is_the_likeliest():
    """Mostly: sums of two QPSK symbols, whose magnitudes are those of OOK, may be found."""
    channel = replace(STILL, delay_spread=0.5, random_delay_spread=False)
    for modulation in ("QPSK", "4ASK", "16APSK", "16QAM"):
        likelihoods = received(make(modulation, 24, channel)).blind.likelihoods[
            :, 1, : len(MODULUS_ALPHABETS)
        ]
        best = likelihoods.argmax(1) == MODULUS_ALPHABETS.index(modulation)
        assert best.float().mean() > 0.8, modulation


@pytest.mark.parametrize("name", ["4ASK", "16QAM"])
@pytest.mark.parametrize("kind", ["magnitudes", "parts"])
def test_tables_are_those_of_noisy_symbols(name, kind):
    """The expected symbol, and the density of noisy symbols, from a million draws."""
    generator, level = torch.Generator().manual_seed(1), 6
    variance = _VARIANCES[level]
    points = torch.from_numpy(symbol_map(name).copy()).to(torch.complex64)
    choice = torch.randint(len(points), (1_000_000,), generator=generator)
    sent = points[choice]
    if kind == "magnitudes":
        sent = sent * unit_phasor(2 * torch.pi * torch.rand(choice.shape, generator=generator))
    noise = torch.randn(choice.shape, dtype=torch.complex64, generator=generator) * variance**0.5
    symbols = sent + noise
    names = MODULUS_ALPHABETS if kind == "magnitudes" else PART_ALPHABETS
    tables = (_magnitude_tables if kind == "magnitudes" else _part_tables)(torch.device("cpu"))
    factors, densities = ([t[names.index(name)][None] for t in part] for part in tables)
    expected = _expected(symbols[None, :, None], torch.full((1, 1, 1), level), factors)[0, :, 0]
    # Errors of what is expected correlate with nothing that is seen.
    assert ((sent - expected) * symbols.conj()).mean().abs() < 3e-3
    assert (sent - expected).abs().square().mean() < noise.abs().square().mean()
    # The mean log-density is less under any other variance, and integrates to one.
    _, best = _likelihoods(to_unit_power(symbols[None])[..., None], densities)
    assert float(best) == pytest.approx(variance)
    width = 2.4 / densities[0].shape[2]
    place = (torch.arange(densities[0].shape[2]) + 0.5) * width
    measure = 2 * torch.pi * place if kind == "magnitudes" else 2.0
    for density in densities:
        assert float((density[0, level].exp() * measure).sum() * width) == pytest.approx(1, abs=0.02)


def test_line_is_coherent_at_its_own_symbol_rate_alone():
    channel = replace(STILL, rolloff_range=(0.3, 0.8))
    iq = make("16QAM", 20, channel).iq
    other = torch.from_numpy(resample_poly(iq.numpy(), 5, 4, axis=1)[:, :1024]).to(iq.dtype)
    lacks, lacks_other = (
        line_incoherence(some, ReceivedBatch(some, RECEIVERS["open"]).noise) for some in (iq, other)
    )
    assert lacks.quantile(0.95) < lacks_other.median() / 3


def test_frames_do_not_depend_on_their_neighbours():
    iq = make("16QAM", 10).iq
    noise = ReceivedBatch(iq, RECEIVERS["open"]).noise
    whole, part = equalise(iq, noise), equalise(iq[10:13], noise[10:13])
    for name, value in vars(part).items():
        torch.testing.assert_close(getattr(whole, name)[10:13], value, rtol=1e-3, atol=1e-3)


def test_bad_frames_spoil_no_others_and_give_images():
    iq = make("QPSK", 10).iq[:4]
    bad = iq.clone()
    bad[1], bad[2, 5] = 0, complex("nan")
    receiver = RECEIVERS["open"]
    for name in IMAGE_CHANNELS:
        right = constellation_images(iq, [name], 32, receiver=receiver)
        found = constellation_images(bad, [name], 32, receiver=receiver)
        assert found.isfinite().all(), name
        torch.testing.assert_close(found[[0, 3]], right[[0, 3]])

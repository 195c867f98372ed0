"""AM, FM and GMSK against independent truths, and beside the linear classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.signal import hilbert
from scipy.special import erf
from scipy.stats import binomtest, kstest

from amc_utils.audit.checks import SIGNATURE_OF_MODULATION
from amc_utils.dsp.features import envelope_std, mean_power, power_spectrum, signature, snr_ratio
from amc_utils.modulation.analogue import (
    AM_INDEX,
    ANALOGUE_MODULATIONS,
    FM_BAND,
    FM_DEVIATION,
    analogue_kind,
    with_analogue_spectra,
    with_messages,
)
from amc_utils.modulation.constellations import LINEAR_MODULATIONS
from amc_utils.signals import (
    FILE_CHANNELS,
    FRAMES_PER_BLOCK,
    MARGIN_IN_SYMBOLS,
    RADIOML_2018_MODULATIONS,
    SAMPLES_PER_SYMBOL,
    ChannelState,
    generate_frames,
    modulate,
)

TABLE_1 = FILE_CHANNELS["table_1"]
STILL = replace(
    TABLE_1,
    rolloff_range=(0.25, 0.25),
    timing_range=(0.0, 0.0),
    cfo_std=0.0,
    clock_std=0.0,
    random_phase=False,
)


def make(name, num_frames=128, snr_db=300.0, channel=STILL, **options):
    index = torch.arange(num_frames)
    return generate_frames(
        index,
        torch.zeros_like(index),
        torch.full((num_frames,), snr_db),
        modulations=(name,),
        seed=1,
        channel=channel,
        **options,
    )


def send(name, message):
    """Noiseless frames of messages [B, num_symbols], before any scaling, through the still channel."""
    state = ChannelState(torch.full((len(message),), 0.25), *torch.zeros(4, len(message)))
    kind = analogue_kind((name,), message.device).expand(len(message))
    is_offset = torch.zeros(len(message), dtype=torch.bool)
    return modulate(message.to(torch.complex64), state, is_offset=is_offset, kind=kind)


def lines(iq, reach=2):
    """Share of the power within `reach` bins of zero frequency, and at negative frequencies beyond."""
    frequency, power = power_spectrum(iq)
    near = frequency.abs() * iq.shape[1] < reach + 0.5
    total = power.sum()
    return float(power[:, near].sum() / total), float(power[:, ~near & (frequency < 0)].sum() / total)


def test_the_generator_makes_all_classes():
    assert {*ANALOGUE_MODULATIONS, *LINEAR_MODULATIONS} == set(RADIOML_2018_MODULATIONS)


@pytest.mark.parametrize("name", ANALOGUE_MODULATIONS)
def test_power_is_one_before_and_after_noise(name):
    sent = send(name, make(name, 512).symbols)
    assert float(mean_power(sent).mean()) == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(mean_power(make(name, snr_db=0.0).iq), torch.ones(128))


@pytest.mark.parametrize("name", ANALOGUE_MODULATIONS)
@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_noise_has_the_power_that_the_label_says(name, snr_db):
    measured = 10 * torch.log10(snr_ratio(make(name, 256, snr_db, TABLE_1).iq).mean())
    assert float(measured) == pytest.approx(snr_db, abs=0.25)


@pytest.mark.parametrize("preset", FILE_CHANNELS)
@pytest.mark.parametrize("name", RADIOML_2018_MODULATIONS)
def test_every_class_looks_as_its_label_promises(name, preset):
    found = signature(make(name, snr_db=30.0, channel=FILE_CHANNELS[preset]).iq)[0]
    assert found == SIGNATURE_OF_MODULATION[name]


@pytest.mark.parametrize("name", ANALOGUE_MODULATIONS[:4])
def test_am_has_the_sidebands_and_the_carrier_of_its_name(name):
    near, negative = lines(make(name, 256).iq)
    carrier = 1 / (1 + AM_INDEX**2) if name.endswith("WC") else 0
    # Of the message itself a few bins lie as near; half of the rest is at negative frequencies.
    assert near == pytest.approx(carrier, abs=0.07)
    half = 0 if "SSB" in name else (1 - near) / 2
    assert negative == pytest.approx(half, abs=0.01)


def test_double_sideband_is_real_and_carries_the_message():
    frames = make("AM-DSB-SC")
    assert frames.iq.imag.abs().max() < 1e-4
    assert kstest(frames.symbols.real.flatten().numpy(), "norm").pvalue > 1e-4
    # Without a matched filter neighbours interfere, but not much.
    sampled = frames.iq.real[:, ::SAMPLES_PER_SYMBOL]
    sent = frames.symbols.real[:, MARGIN_IN_SYMBOLS:-MARGIN_IN_SYMBOLS]
    assert torch.corrcoef(torch.stack([sampled.flatten(), sent.flatten()]))[0, 1] > 0.95


def test_single_sideband_is_the_analytic_signal_of_the_message():
    double, single = (make(name).iq.numpy() for name in ("AM-DSB-SC", "AM-SSB-SC"))
    # Beyond the frame the transform knows nothing, so its ends are left out.
    middle = slice(200, -200)
    expected = hilbert(double.real)[:, middle].ravel()
    for part in (np.real, np.imag):
        pair = part(single[:, middle]).ravel(), part(expected)
        assert np.corrcoef(*pair)[0, 1] > 0.99


def test_overmodulation_is_rare():
    """Where the message outweighs the carrier, the envelope no longer shows it."""
    iq = make("AM-DSB-WC", 512).iq
    assert 0 < float((iq.real < 0).float().mean()) < 0.003


@pytest.mark.parametrize("name", ANALOGUE_MODULATIONS)
def test_fm_and_gmsk_alone_have_a_constant_envelope(name):
    spread = envelope_std(make(name).iq)
    assert (spread.max() < 0.01) if name in ("FM", "GMSK") else (spread.median() > 0.1)


@pytest.mark.parametrize("num_samples", [72, 80, 88])
def test_gmsk_phase_closes_whatever_the_number_of_symbols(num_samples):
    """A jump of the periodic phase would ring into the frame, which is short here."""
    assert envelope_std(make("GMSK", num_samples=num_samples).iq).max() < 0.01


def test_gmsk_sends_either_bit_equally_often():
    bits = make("GMSK").symbols
    assert set(bits.real.unique().tolist()) == {-1.0, 1.0}
    assert bits.imag.abs().max() == 0
    assert binomtest(int((bits.real > 0).sum()), bits.numel()).pvalue > 1e-4


@pytest.mark.parametrize("sign", [-1, 1])
def test_gmsk_turns_a_quarter_in_every_bit_of_a_run(sign):
    message = make("GMSK", 16).symbols.real.clone()
    message[:, 40:72] = sign
    iq = send("GMSK", message)[:, (42 - MARGIN_IN_SYMBOLS) * SAMPLES_PER_SYMBOL :]
    turns = (iq[:, SAMPLES_PER_SYMBOL:] * iq[:, :-SAMPLES_PER_SYMBOL].conj()).angle()
    run = turns[:, : (72 - 2 - 43) * SAMPLES_PER_SYMBOL]
    assert (run - sign * np.pi / 2).abs().max() < 0.03


def test_gmsk_is_that_of_the_standard():
    """3GPP TS 45.004, section 2, bit by bit in the time domain, at the receiver's instants."""
    frames = make("GMSK", 4, channel=replace(TABLE_1, clock_std=1e-3, cfo_std=1e-3))
    fine = np.linspace(-6, 6, 12001)
    # A rectangle of one symbol, filtered: the difference of two error functions.
    width = np.sqrt(np.log(2)) / (2 * np.pi * 0.3)
    pulse = (erf((fine + 0.5) / width / 2**0.5) - erf((fine - 0.5) / width / 2**0.5)) / 2
    integral = np.concatenate([[0], np.cumsum((pulse[1:] + pulse[:-1]) / 2) * (fine[1] - fine[0])])
    assert integral[-1] == pytest.approx(1)
    sample = np.arange(1024)
    for row in range(4):
        state = {k: float(v[row]) for k, v in vars(frames.state).items() if v is not None}
        time = state["timing_offset"] + sample * (1 + state["clock_offset"])
        time = MARGIN_IN_SYMBOLS + time / SAMPLES_PER_SYMBOL
        bits = frames.symbols[row].real.numpy()
        since = time[:, None] - np.arange(len(bits))
        phase = np.pi * 0.5 * np.interp(since, fine, integral) @ bits
        expected = np.exp(1j * (phase + 2 * np.pi * state["cfo"] * sample))
        ratio = frames.iq[row].numpy() / expected
        assert np.abs(ratio - ratio.mean()).max() < 0.02


def test_fm_frequency_is_the_message():
    frames = make("FM")
    turns = (frames.iq[:, 1:] * frames.iq[:, :-1].conj()).angle() / (2 * np.pi)
    assert float(turns.std()) == pytest.approx(FM_DEVIATION / SAMPLES_PER_SYMBOL, rel=0.05)
    message = np.fft.fft(frames.symbols.real.numpy())
    frequency = np.abs(np.fft.fftfreq(message.shape[1]))
    message[:, (frequency > FM_BAND + 1e-9) | (frequency == 0)] = 0
    limited = np.fft.ifft(message).real
    # Between two samples lies half of either, and a symbol begins at a sample.
    at_symbols = (turns[:, SAMPLES_PER_SYMBOL::SAMPLES_PER_SYMBOL] + turns[:, 7:-1:8]) / 2
    sent = limited[:, MARGIN_IN_SYMBOLS + 1 :][:, : at_symbols.shape[1]]
    assert np.corrcoef(at_symbols.numpy().ravel(), sent.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("name", ANALOGUE_MODULATIONS)
def test_multipath_is_a_filter(name):
    frames = make(name, 4)
    taps = make(name, 4, channel=replace(TABLE_1, delay_spread=1.0)).state.multipath
    is_offset, kind = torch.zeros(4, dtype=torch.bool), analogue_kind((name,), taps.device).expand(4)
    plain, filtered = (
        modulate(frames.symbols, state, is_offset=is_offset, kind=kind)
        for state in (frames.state, ChannelState(**{**vars(frames.state), "multipath": taps}))
    )
    for row in range(4):
        expected = np.convolve(plain[row].numpy(), taps[row].numpy(), "valid")
        np.testing.assert_allclose(filtered[row, taps.shape[1] - 1 :].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("name", ANALOGUE_MODULATIONS)
def test_the_last_bin_stays_empty(name):
    symbols = make(name, 4).symbols
    nothing = torch.zeros(4, 2 * symbols.shape[1], dtype=torch.complex64)
    spectrum = with_analogue_spectra(nothing, analogue_kind((name,), symbols.device).expand(4), symbols)
    assert (spectrum[:, -1] == 0).all()


def test_no_draw_makes_a_message_infinite():
    ends = torch.tensor([[0.0, 0.5, 1 - 2**-24, 0.25]])
    for name in ANALOGUE_MODULATIONS:
        kind = analogue_kind((name,), ends.device)
        message = with_messages(torch.zeros(1, 4, dtype=torch.complex64), kind, ends)
        assert message.abs().max() < 6


def test_frame_depends_on_seed_and_index_alone():
    index = torch.arange(2 * FRAMES_PER_BLOCK["cpu"] + 50)
    modulation, snr_db = index % 24, (index % 5).float()

    def draw(which, modulation=modulation, modulations=RADIOML_2018_MODULATIONS):
        options = {"modulations": modulations, "seed": 3, "channel": TABLE_1}
        return generate_frames(which, modulation[which], snr_db[which], **options).iq

    whole = draw(index)
    shuffled = torch.randperm(len(index), generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw(shuffled), whole[shuffled])
    for row in index[modulation >= 17].tolist():
        assert torch.equal(draw(index[row : row + 1]), whole[row : row + 1])
    # Linear frames are what they are in a set of linear classes alone, in which nothing has changed.
    place = {name: number for number, name in enumerate(LINEAR_MODULATIONS)}
    number = torch.tensor([place.get(name, -1) for name in RADIOML_2018_MODULATIONS])[modulation]
    linear = index[number >= 0]
    assert torch.equal(draw(linear, number, LINEAR_MODULATIONS), whole[linear])

"""Symbol maps, channel and generator against independent truths."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest, norm

from amc_utils.dsp.receiver_settings import class_snr_db
from amc_utils.modulation.constellations import LINEAR_MODULATIONS, symbol_map
from amc_utils.signals import (
    CHANNEL_PRESETS,
    DIGITAL_MODULATIONS,
    FRAMES_PER_BLOCK,
    MARGIN_IN_SYMBOLS,
    SAMPLES_PER_SYMBOL,
    Channel,
    ChannelState,
    channel_from,
    generate_frames,
    magnitude_excess_db,
    modulate,
    pulse_energy,
    raised_cosine,
)

ORDERS = {"OOK": 2, "BPSK": 2, "QPSK": 4, "OQPSK": 4}
TABLE_1, RADIOML_2018 = CHANNEL_PRESETS["table_1"], CHANNEL_PRESETS["radioml_2018"]
STILL = replace(
    TABLE_1,
    rolloff_range=(0.25, 0.25),
    timing_range=(0.0, 0.0),
    cfo_std=0.0,
    clock_std=0.0,
    random_phase=False,
)

# Samples 0, 500 and 1023 of two frames of 8ASK at 10 dB, seed 7.
GOLDEN = [
    [1.034689 + 1.268374j, 0.67785 + 0.93521j, -0.97584 - 1.063509j],
    [0.282718 + 0.460432j, -0.116065 - 0.765582j, -0.459647 - 0.392527j],
]


def make(num_frames, modulation="QPSK", snr_db=300.0, channel=STILL, seed=1, **options):
    index = torch.arange(num_frames)
    return generate_frames(
        index,
        torch.zeros_like(index),
        torch.full((num_frames,), snr_db),
        modulations=(modulation,),
        seed=seed,
        channel=channel,
        **options,
    )


def symbol_instants(frames, num_symbols=120):
    """Samples at the symbols after an ideal matched filter, and the symbols sent, both [B, n]."""
    num_samples = frames.iq.shape[1]
    frequency = torch.fft.fftfreq(num_samples) * SAMPLES_PER_SYMBOL
    matched = raised_cosine(frequency, torch.tensor(0.25)).sqrt()
    filtered = torch.fft.ifft(torch.fft.fft(frames.iq) * matched)
    # The ends are left out: the filter sees no samples beyond the frame.
    middle = slice(4, num_symbols - 4)
    received = filtered[:, ::SAMPLES_PER_SYMBOL][:, middle]
    sent = frames.symbols[:, MARGIN_IN_SYMBOLS:][:, middle]
    return received, sent


@pytest.mark.parametrize("name", LINEAR_MODULATIONS)
def test_symbol_maps_have_distinct_points_of_unit_power(name):
    points = symbol_map(name)
    order = ORDERS.get(name) or int("".join(c for c in name if c.isdigit()))
    assert len(points) == order
    assert np.mean(np.abs(points) ** 2) == pytest.approx(1)
    distances = np.abs(points[:, None] - points) + 10 * np.eye(order)
    assert distances.min() > 0.01
    if name != "OOK":
        assert abs(points.mean()) < 1e-12


@pytest.mark.parametrize(
    ("name", "ratios"),
    [
        ("16APSK", [1, 2.57]),
        ("32APSK", [1, 2.53, 4.30]),
        ("64APSK", [1, 2.4, 4.3, 7.0]),
        ("128APSK", [1, 1.715, 2.118, 2.681, 2.75, 3.819]),
    ],
)
def test_apsk_rings_are_those_of_the_standard(name, ratios):
    radii = np.unique(np.abs(symbol_map(name)).round(6))
    np.testing.assert_allclose(radii / radii[0], ratios, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "ring", "first_degree", "step_degree"),
    [
        ("16APSK", 0, 45, 90),
        ("16APSK", 1, 15, 30),
        ("32APSK", 1, 15, 30),
        ("32APSK", 2, 0, 22.5),
        ("64APSK", 2, 9, 18),
        ("64APSK", 3, 180 / 28, 360 / 28),
        ("128APSK", 0, 332 / 28, None),
    ],
)
def test_apsk_phases_are_those_of_the_standard(name, ring, first_degree, step_degree):
    points = symbol_map(name)
    radii = np.unique(np.abs(points).round(6))
    on_ring = points[np.abs(points).round(6) == radii[ring]]
    degrees = np.sort(np.rad2deg(np.angle(on_ring)) % 360).round(6) % 360
    assert np.sort(degrees)[0] == pytest.approx(first_degree, abs=1e-4)
    if step_degree:
        np.testing.assert_allclose(np.diff(np.sort(degrees)), step_degree, atol=1e-4)


@pytest.mark.parametrize("name", DIGITAL_MODULATIONS)
def test_every_symbol_is_sent_equally_often(name):
    sent = make(256, name).symbols.flatten().numpy()
    nearest = np.abs(sent[:, None] - symbol_map(name)).argmin(1)
    counts = np.bincount(nearest, minlength=len(symbol_map(name)))
    assert chisquare(counts).pvalue > 1e-4


def test_analogue_modulation_has_no_symbol_map():
    with pytest.raises(ValueError, match="'FM' has no symbol map"):
        symbol_map("FM")


@pytest.mark.parametrize("rolloff", [0.1, 0.25, 0.4, 1.0])
def test_pulse_meets_nyquist_criterion(rolloff):
    """The spectrum's replicas at the symbol rate add up to one, so symbols do not interfere."""
    frequency = torch.linspace(-0.5, 0.5, 201, dtype=torch.float64)
    replicas = [
        raised_cosine(frequency + k, torch.tensor(rolloff, dtype=torch.float64))
        for k in (-2, -1, 0, 1, 2)
    ]
    torch.testing.assert_close(sum(replicas), torch.ones_like(frequency))


def test_matched_filter_gives_the_symbols_back():
    received, sent = symbol_instants(make(16))
    scale = (received * sent.conj()).mean() / sent.abs().square().mean()
    assert (received / scale - sent).abs().max() < 0.02


@pytest.mark.parametrize("preset", CHANNEL_PRESETS)
def test_generator_equals_the_direct_sum(preset):
    """Every channel effect at once, against a plain evaluation of the trigonometric polynomial."""
    varied = {"clock_std": 1e-3, "cfo_std": 1e-3, "delay_spread": 2.0, "record_scale": False}
    channel = replace(CHANNEL_PRESETS[preset], **varied)
    frames = make(3, "OQPSK", channel=channel)
    num_symbols, sample = frames.symbols.shape[1], np.arange(1024)
    period = num_symbols * SAMPLES_PER_SYMBOL
    bins = np.arange(1 - num_symbols, num_symbols)
    for row in range(3):
        known = {k: v for k, v in vars(frames.state).items() if v is not None}
        state = {k: v[row].numpy().astype(complex) for k, v in known.items()}
        symbols = frames.symbols[row].numpy().astype(complex)
        half = np.exp(-1j * np.pi * bins / num_symbols)
        spectrum = np.fft.fft(symbols.real)[bins] + 1j * np.fft.fft(symbols.imag)[bins] * half
        rolloff = torch.tensor(state["rolloff"].real)
        shape = raised_cosine(torch.tensor(bins / num_symbols), rolloff).numpy()
        shape = shape ** state.get("pulse_exponent", channel.pulse_exponent).real
        taps = np.arange(len(state["multipath"]))
        response = np.exp(-2j * np.pi * np.outer(bins, taps) / period) @ state["multipath"]
        time = MARGIN_IN_SYMBOLS * SAMPLES_PER_SYMBOL + state["timing_offset"].real
        time = time + sample * (1 + state["clock_offset"].real)
        waves = np.exp(2j * np.pi * np.outer(time, bins) / period)
        turn = np.exp(1j * (2 * np.pi * state["cfo"] * sample + state["phase_rad"]))
        expected = waves @ (spectrum * shape * response) * turn
        expected /= np.sqrt(np.mean(np.abs(expected) ** 2))
        np.testing.assert_allclose(frames.iq[row].numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("snr_db", [-10, 0, 15])
def test_noise_has_the_power_that_the_label_says(snr_db):
    """Noise is what is left of a noisy frame after subtracting the same frame without noise."""
    noisy, clean = make(512, snr_db=float(snr_db)), make(512)
    ratio = (noisy.iq * clean.iq.conj()).mean(1).real
    # Unit-power frames: noisy = ratio * clean + noise, so the noise has power 1 - ratio^2.
    measured = 10 * torch.log10((ratio**2).mean() / (1 - ratio**2).mean())
    assert float(measured) == pytest.approx(snr_db, abs=0.15)


def test_qpsk_bit_errors_follow_theory():
    snr_db = -4.0
    received, sent = symbol_instants(make(512, snr_db=snr_db))
    errors = (received.real.sign() != sent.real.sign()).double().mean()
    es_n0 = 10 ** (snr_db / 10) * SAMPLES_PER_SYMBOL
    assert float(errors) == pytest.approx(norm.sf(np.sqrt(es_n0)), rel=0.1)


@pytest.mark.parametrize("cfo", [0.05, -0.02])
def test_positive_carrier_offset_turns_counter_clockwise(cfo):
    """A constant symbol sequence is a bare carrier, so its FFT peak lies at the offset."""
    zero = torch.zeros(1)
    state = ChannelState(torch.full((1,), 0.25), zero, zero, torch.full((1,), cfo), zero)
    iq = modulate(torch.ones(1, 144, dtype=torch.complex64), state, is_offset=torch.tensor([False]))
    peak = torch.fft.fftfreq(1024)[torch.fft.fft(iq).abs().argmax()]
    assert float(peak) == pytest.approx(cfo, abs=1 / 1024)


def test_oqpsk_quadrature_is_half_a_symbol_late():
    symbols = torch.ones(1, 144, dtype=torch.complex64) * (1 + 1j)
    symbols[0, 72] = -1 - 1j
    zero = torch.zeros(1)
    state = ChannelState(torch.full((1,), 0.25), zero, zero, zero, zero)
    iq = modulate(symbols, state, is_offset=torch.tensor([True]))[0]
    in_phase, quadrature = int(iq.real.argmin()), int(iq.imag.argmin())
    assert in_phase == (72 - MARGIN_IN_SYMBOLS) * SAMPLES_PER_SYMBOL
    assert quadrature - in_phase == SAMPLES_PER_SYMBOL // 2


def test_timing_offset_moves_the_symbols_earlier():
    early, late = (
        ChannelState(torch.full((1,), 0.25), torch.full((1,), t), *torch.zeros(3, 1))
        for t in (3.0, 0.0)
    )
    symbols = make(1).symbols
    flags = torch.tensor([False])
    moved, still = (modulate(symbols, s, is_offset=flags)[0] for s in (early, late))
    torch.testing.assert_close(moved[:-3], still[3:], atol=1e-4, rtol=0)


def test_frames_have_unit_power_and_channel_spread():
    frames = make(2048, "64QAM", 10.0, TABLE_1)
    torch.testing.assert_close(frames.iq.abs().square().mean(1), torch.ones(2048))
    state = frames.state
    assert 0.1 <= float(state.rolloff.min()) < 0.11
    assert 0.39 < float(state.rolloff.max()) <= 0.4
    assert 15.9 < float(state.timing_offset.max()) < 16
    assert float(state.phase_rad.max()) > 6.2
    for spread in (state.cfo, state.clock_offset):
        assert float(spread.std()) == pytest.approx(1e-4, rel=0.1)


@pytest.mark.parametrize("preset", CHANNEL_PRESETS)
@pytest.mark.parametrize("spread", [0.5, 4.0])
def test_label_of_a_faded_frame_is_the_snr_that_is_received(preset, spread):
    """In every frame, however deep its fade; unless fades change its power."""
    errors_db = {}
    for fades_power in (False, True):
        channel = replace(CHANNEL_PRESETS[preset], delay_spread=spread, fades_power=fades_power)
        noisy, clean = (make(200, snr_db=label, channel=channel) for label in (8.0, 100.0))
        factor = (noisy.iq * clean.iq.conj()).sum(1) / clean.iq.abs().square().sum(1)
        signal = factor[:, None] * clean.iq
        received = signal.abs().square().mean(1) / (noisy.iq - signal).abs().square().mean(1)
        wanted_db = channel.snr_db(8.0) + magnitude_excess_db(["QPSK"], channel)[0]
        errors_db[fades_power] = float((10 * received.log10() - wanted_db).square().mean().sqrt())
    assert errors_db[False] < 0.3
    assert errors_db[True] > 1.5


def test_multipath_has_unit_energy():
    taps = make(300, channel=replace(TABLE_1, delay_spread=1.5)).state.multipath
    torch.testing.assert_close(taps.abs().square().sum(1), torch.ones(300))
    decay = taps.abs().square().mean(0)
    assert float(decay[0] / decay[3]) == pytest.approx(np.exp(2), rel=0.35)


@pytest.mark.parametrize("preset", CHANNEL_PRESETS)
def test_frame_depends_on_seed_and_index_alone(preset):
    index = torch.arange(2 * FRAMES_PER_BLOCK["cpu"] + 50)
    modulation, snr_db = index % 17, (index % 5).float()

    def draw(which, seed=3):
        return generate_frames(
            which,
            modulation[which],
            snr_db[which],
            modulations=DIGITAL_MODULATIONS,
            seed=seed,
            channel=CHANNEL_PRESETS[preset],
        ).iq

    whole = draw(index)
    shuffled = torch.randperm(len(index), generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw(shuffled), whole[shuffled])
    some = torch.tensor([300, 7, 555])
    assert torch.equal(draw(some), whole[some])
    assert torch.equal(draw(some[1:2]), whole[some[1:2]])
    assert (draw(some, seed=4) - whole[some]).abs().max() > 0.1


@pytest.mark.parametrize(
    "wrong",
    [
        {"rolloff_range": (0.0, 0.4)},
        {"cfo_std": -1.0},
        {"pulse_exponents": (0.0,)},
        {"pulse_exponents": ()},
        {"tilt_std": -0.1},
        {"snr_slope": 0.0},
    ],
)
def test_impossible_channel_is_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        Channel(**wrong)


def test_presets_are_named_and_changed_by_settings():
    assert channel_from({}) == Channel() == RADIOML_2018
    assert channel_from({"preset": "table_1"}) == TABLE_1
    changed = channel_from({"preset": "table_1", "rolloff_range": [0.2, 0.3]})
    assert changed == replace(TABLE_1, rolloff_range=(0.2, 0.3))
    with pytest.raises(ValueError, match="preset of radioml_2018, table_1, open, got 'paper'"):
        channel_from({"preset": "paper"})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"dc_std": "large"}, "channel cannot set dc_std to 'large': input should be a valid number"),
        ({"dc_std": math.nan}, "channel cannot set dc_std to nan: input should be a finite number"),
        ({"dc_std": -1}, "channel must have a dc_std that is not negative, got -1"),
        ({"rolloff_range": 0.3}, "channel cannot set rolloff_range to 0.3"),
        ({"rolloff_range": [0.3, 0.2]}, "rolloff_range must lie in .* in order"),
        ({"random_phase": "perhaps"}, "channel cannot set random_phase to 'perhaps'"),
        ({"pulse_exponents": []}, "pulse_exponents must be positive ones"),
        ({"preset": ["open"]}, "channel must have a preset of"),
        ({"rolloff": 0.3}, "channel must set some of .*, got 'rolloff'"),
    ],
)
def test_settings_that_make_no_channel_are_named(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        channel_from(settings)


def test_frames_of_table_1_are_those_of_stored_runs():
    """Samples written down before the other preset was there."""
    iq = make(2, "8ASK", 10.0, TABLE_1, seed=7).iq[:, [0, 500, 1023]]
    expected = torch.tensor(GOLDEN, dtype=torch.complex64)
    torch.testing.assert_close(iq, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
def test_pulse_has_the_energy_of_its_spectrum(exponent):
    frequency = np.linspace(-1, 1, 200_001)
    rolloff = torch.tensor([0.2, 0.41])
    for alpha, energy in zip(rolloff, pulse_energy(rolloff, exponent), strict=True):
        shape = raised_cosine(torch.from_numpy(frequency), alpha.double()).numpy() ** (2 * exponent)
        assert float(energy) == pytest.approx(np.trapezoid(shape, frequency), abs=1e-4)


def test_pulse_of_radioml_2018_is_three_root_raised_cosine_filters_in_a_row():
    """Against the textbook's impulse response, convolved with itself in time."""
    state = ChannelState(torch.full((1,), 0.41), *torch.zeros(4, 1))
    impulse = torch.zeros(1, 144, dtype=torch.complex64)
    impulse[0, 72] = 1
    options = {"is_offset": torch.tensor([False]), "pulse_exponent": 1.5}
    sent = modulate(impulse, state, **options)[0].real.numpy()
    t = np.arange(-40 * 8, 40 * 8 + 1) / 8 + 1e-9
    cosine, sine = 4 * 0.41 * t * np.cos(np.pi * t * 1.41), np.sin(np.pi * t * 0.59)
    filtered = (sine + cosine) / (np.pi * t * (1 - (4 * 0.41 * t) ** 2)) / 8
    cascade = np.convolve(np.convolve(filtered, filtered), filtered) * 8
    middle, peak = len(cascade) // 2, (72 - MARGIN_IN_SYMBOLS) * SAMPLES_PER_SYMBOL
    around = np.arange(-160, 161)
    np.testing.assert_allclose(sent[peak + around], cascade[middle + around], atol=2e-4)


@pytest.mark.parametrize("name", ["OOK", "8ASK", "BPSK", "QPSK", "64QAM", "FM"])
@pytest.mark.parametrize("snr_label", [-4.0, 6.0])
def test_noise_of_radioml_2018_is_that_of_twice_the_label(name, snr_label):
    """Its standard deviation is 10^(-label / 10) of a signal of unit mean magnitude."""
    noisy, clean = (make(1024, name, label, RADIOML_2018).iq for label in (snr_label, 200.0))
    gain = (noisy * clean.conj()).mean().real / clean.abs().square().mean()
    noise = (noisy - gain * clean).abs().square().mean().sqrt() / (gain * clean.abs().mean())
    assert 20 * float(noise.log10()) == pytest.approx(-2 * snr_label, abs=0.1)
    snr_db = float(class_snr_db((name,), (snr_label,), RADIOML_2018))
    excess_db = 20 * float((clean.abs().square().mean().sqrt() / clean.abs().mean()).log10())
    assert snr_db == pytest.approx(2 * snr_label + excess_db, abs=0.06)


def test_snr_of_a_constant_envelope_has_no_excess_and_that_of_table_1_none_at_all():
    assert magnitude_excess_db(("FM",), RADIOML_2018)[0] == pytest.approx(0, abs=1e-3)
    assert magnitude_excess_db(("8ASK", "QPSK"), TABLE_1) == (0, 0)
    assert class_snr_db(("8ASK",), (4, 6), TABLE_1).tolist() == [[4, 6]]


@pytest.mark.parametrize("name", ["4ASK", "8ASK", "OOK", "QPSK", "256QAM"])
def test_record_of_radioml_2018_keeps_mean_and_chance(name):
    """Its standard deviation is one; the carrier of ASK comes on top, and frames differ by chance."""
    power = make(2048, name, 30.0, RADIOML_2018).iq.abs().square().mean(1)
    points = symbol_map(name, unipolar_ask=True)
    mean, energy = abs(points.mean()) ** 2, float(pulse_energy(torch.tensor(0.415), 1.5))
    assert float(power.mean()) == pytest.approx(1 + mean / ((1 - mean) * energy), rel=0.02)
    assert float(power.std()) > 0.02


def test_timing_of_radioml_2018_is_whole_samples_and_a_half():
    state = make(2048, channel=RADIOML_2018).state
    eighths = np.bincount((state.timing_offset - 0.5).long().numpy())
    assert torch.equal(state.timing_offset % 1, torch.full((2048,), 0.5))
    assert len(eighths) == 8
    assert chisquare(eighths).pvalue > 1e-4
    assert float(state.cfo.std()) == pytest.approx(3.3e-5, rel=0.1)


def test_unipolar_levels_begin_at_zero():
    for name, order in (("4ASK", 4), ("8ASK", 8)):
        points = symbol_map(name, unipolar_ask=True)
        np.testing.assert_allclose(points / points[1], np.arange(order), atol=1e-12)
        assert np.mean(np.abs(points) ** 2) == pytest.approx(1)


WIDE = {
    "cfo_max": 0.01, "clock_max": 1e-3, "delay_spread": 4.0, "random_delay_spread": True,
    "pulse_exponents": (0.5, 1.0, 1.5),
}  # fmt: skip


def test_wide_channels_spread_uniformly():
    made = make(512, snr_db=20.0, channel=replace(TABLE_1, cfo_std=0.0, clock_std=0.0, **WIDE))
    state = made.state
    for offset, largest in ((state.cfo, 0.01), (state.clock_offset, 1e-3)):
        assert kstest(offset.numpy() / largest, "uniform", (-1, 2)).pvalue > 1e-3
    assert set(state.pulse_exponent.tolist()) == {0.5, 1.0, 1.5}
    # Of a short delay the first tap has it all.
    assert float(state.multipath[:, 0].abs().max()) > 0.99
    assert float(state.multipath[:, 8:].abs().square().sum(1).max()) > 0.2


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
def test_pulse_of_a_frame_is_that_of_its_exponent(exponent):
    """Frames of a channel of one exponent, and those of several that have the same."""
    several = make(64, channel=replace(STILL, pulse_exponents=(0.5, 1.0, 1.5)))
    rows = several.state.pulse_exponent == exponent
    alone = make(64, channel=replace(STILL, pulse_exponents=(exponent,)))
    torch.testing.assert_close(several.iq[rows], alone.iq[rows], atol=1e-5, rtol=0)


def test_impairments_are_those_of_their_definitions():
    settings = {"iq_gain_db": 1.0, "iq_phase_rad": 0.1, "dc_std": 0.1, "tilt_std": 0.3}
    settings |= {"phase_noise_rad": 0.01}
    clean, made = make(64), make(64, channel=replace(STILL, **settings))
    state, expected = made.state, clean.iq.numpy() * np.exp(1j * made.state.phase_noise.numpy())
    taps = state.tilt.numpy()[:, None] / 2j
    inner = expected[:, 1:-1] + taps * (expected[:, 2:] - expected[:, :-2])
    inner = inner.real + inner.imag * state.quadrature.numpy()[:, None] + state.dc.numpy()[:, None]
    scale = np.linalg.norm(inner, axis=1) / np.linalg.norm(made.iq[:, 1:-1].numpy(), axis=1)
    np.testing.assert_allclose(made.iq[:, 1:-1].numpy() * scale[:, None], inner, atol=1e-4)
    gain_db = 20 * state.quadrature.abs().log10()
    assert float(gain_db.std()) == pytest.approx(1.0, rel=0.3)
    assert float((state.quadrature.angle() - torch.pi / 2).std()) == pytest.approx(0.1, rel=0.3)
    assert float(state.dc.real.std()) == pytest.approx(0.1, rel=0.3)
    steps = state.phase_noise.diff(dim=1)
    assert float(steps.std()) == pytest.approx(0.01, rel=0.05)

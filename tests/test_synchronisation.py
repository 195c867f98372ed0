"""Synchronisation and views: what comes out against what the generator put in."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from amc_utils.data import read_radioml
from amc_utils.dsp.carrier import (
    SYMMETRIES,
    estimate_cfo,
    estimate_phase,
    power_lines,
    recover_carrier,
)
from amc_utils.dsp.receiver_settings import RECEIVERS, ReceiverSettings, class_es_n0_db
from amc_utils.dsp.synchronisation import (
    ReceivedBatch,
    _at_symbols,
    cfo_grid,
    equalised_powers,
    equaliser,
    offset_lines,
    synchronise,
    synchronise_offset,
)
from amc_utils.images import (
    WINDOW,
    SynchronizedBatch,
    band_levels,
    constellation_images,
    differential_symbols,
    polar_symbols,
    power_line_map,
)
from amc_utils.modulation.constellations import symbol_map
from amc_utils.signals import (
    CHANNEL_PRESETS,
    DIGITAL_MODULATIONS,
    FILE_CHANNELS,
    MARGIN_IN_SYMBOLS,
    SAMPLES_PER_SYMBOL,
    generate_frames,
    raised_cosine,
)

NOISELESS = 200.0
PRESETS = tuple(FILE_CHANNELS)
TABLE_1 = RECEIVERS["table_1"]


def make(modulation, snr_label, num_frames=40, preset="table_1", **channel):
    return generate_frames(
        torch.arange(num_frames),
        torch.zeros(num_frames, dtype=torch.int64),
        torch.full((num_frames,), float(snr_label)),
        modulations=[modulation],
        seed=11,
        channel=replace(CHANNEL_PRESETS[preset], **channel),
    )


def four_clusters(symbols):
    """How far the fourth powers of symbols agree: 1 for four tight clusters, near 0 for none."""
    unit = symbols / symbols.abs().square().mean(1, keepdim=True).sqrt()
    return (unit**4).mean(1).abs()


def distance_to_map(symbols, modulation, unipolar_ask=False):
    """Mean distance of symbols to the nearest points of the map, in the best rotation of each frame."""
    points = torch.from_numpy(symbol_map(modulation, unipolar_ask=unipolar_ask).copy())
    points = points.to(torch.complex64)
    turns = torch.polar(torch.ones(64), torch.arange(64) * (math.pi / 128))
    apart = (symbols[:, None, :, None] * turns[:, None, None] - points).abs().amin(-1)
    return apart.mean(-1).amin(1)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("modulation", ["QPSK", "16APSK", "64QAM", "256QAM", "32PSK"])
def test_timing_and_rolloff_are_those_of_the_channel(modulation, preset):
    made = make(modulation, 30, preset=preset, clock_std=0.0)
    found = synchronise(made.iq, RECEIVERS[preset])
    period = SAMPLES_PER_SYMBOL
    error = (found.timing + made.state.timing_offset + period / 2) % period - period / 2
    assert error.abs().max() < 0.12
    assert error.square().mean().sqrt() < 0.05
    assert (found.rolloff - made.state.rolloff).abs().max() < 0.05


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("snr_label", [-10, 0, 10, 30])
def test_noise_power_is_that_of_the_label(snr_label, preset):
    """In equalised symbols; with the matched filter that is 8 samples' energy of signal to noise."""
    made = make("16QAM", snr_label, 200, preset)
    ratio = 1 / synchronise(made.iq, RECEIVERS[preset]).noise_power - 1
    es_n0_db = class_es_n0_db(("16QAM",), (snr_label,), CHANNEL_PRESETS[preset])
    if preset == "table_1":
        expected = SAMPLES_PER_SYMBOL * 10 ** (snr_label / 10)
    else:
        expected = float(sum(equalised_powers(es_n0_db, RECEIVERS[preset])))
    assert float(ratio.median()) == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize("snr_db", [-20.0, 10.0, 60.0])
def test_noise_beside_the_signal_is_found_without_leakage(snr_db):
    """The strongest signal there is, and noise a millionth of it."""
    made = make("8ASK", snr_db / 2, 200, "radioml_2018", unit_mean_magnitude=False)
    clean = make("8ASK", NOISELESS, 200, "radioml_2018", unit_mean_magnitude=False).iq
    gain = (made.iq * clean.conj()).mean(1).real / clean.abs().square().mean(1)
    noise = (made.iq - gain[:, None] * clean).abs().square().mean(1)
    error_db = 10 * (ReceivedBatch(made.iq).noise.mean() / noise.mean()).log10()
    assert abs(float(error_db)) < 0.1
    leaked = 10 * (ReceivedBatch(clean).noise / clean.abs().square().mean(1)).log10()
    assert float(leaked.max()) < -75


def test_equaliser_is_the_matched_filter_where_that_leaves_no_interference():
    upper, ratio = torch.linspace(0, 1, 161), torch.tensor([1e-3, 0.1, 3.0])
    matched = raised_cosine(torch.stack([upper, upper - 1]), torch.tensor(0.25)).sqrt()
    found = equaliser(matched[None], ratio)
    torch.testing.assert_close(found * (1 + ratio[:, None, None]), matched.expand(3, -1, -1))


def test_equalised_pulse_meets_nyquist_criterion_and_costs_noise():
    receiver = RECEIVERS["radioml_2018"]
    upper = torch.linspace(0, 1, 101, dtype=torch.float64)
    pulses = raised_cosine(torch.stack([upper, upper - 1]), torch.tensor(0.415)) ** 1.5
    folded = (pulses * equaliser(pulses[None], torch.full((1,), 1e-9))[0]).sum(0)
    torch.testing.assert_close(folded, torch.ones(101).double(), atol=1e-6, rtol=0)
    signal, interference = equalised_powers(torch.tensor([0.0, 69.0], dtype=torch.float64), receiver)
    # Noise is enhanced at high SNR; in noise it is the matched filter, which costs nothing.
    assert 0.7 * 8e6 < float(signal[1]) < 0.95 * 8e6
    assert float(interference[1] / signal[1]) < 1e-6
    low = torch.tensor(-11.0, dtype=torch.float64)
    assert float(equalised_powers(low, receiver)[0]) == pytest.approx(10**-1.1, rel=0.02)
    signal, interference = equalised_powers(low + 31, TABLE_1)
    assert float(signal) == pytest.approx(100)
    assert abs(float(interference)) < 1e-9


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(
    ("preset", "cfo", "error"), [("table_1", 2.3e-4, 1.3e-5), ("radioml_2018", 8e-5, 5e-6)]
)
def test_carrier_offset_is_found_with_its_sign(sign, preset, cfo, error):
    made = make("16QAM", 25, preset=preset, cfo_std=0.0)
    turn = torch.polar(torch.ones(1024), 2 * torch.pi * sign * cfo * torch.arange(1024))
    found = estimate_cfo(synchronise(made.iq * turn, RECEIVERS[preset]))
    # Less than a step of the search, 1.6e-5 and 5.2e-6.
    assert (found - sign * cfo).abs().max() < error


@pytest.mark.parametrize("modulation", ["QPSK", "8PSK", "16APSK", "16QAM", "32QAM", "64QAM", "256QAM"])
def test_noiseless_symbols_lie_on_the_points_of_their_map(modulation):
    """Unknown phase, timing, roll-off, clock and carrier offset."""
    made = make(modulation, NOISELESS)
    apart = distance_to_map(recover_carrier(synchronise(made.iq, TABLE_1)), modulation)
    points = torch.from_numpy(symbol_map(modulation).copy())
    spacing = torch.pdist(torch.view_as_real(points).float()).min()
    assert apart.median() < 0.2 * spacing
    assert apart.max() < 0.45 * spacing


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("modulation", DIGITAL_MODULATIONS)
def test_equalised_noiseless_symbols_are_the_symbols_sent(modulation, preset):
    """Within 2 % of the distance between neighbours (rms); carrier, timing, roll-off are known."""
    receiver = RECEIVERS[preset]
    middle = {"cfo_std": 0.0, "clock_std": 0.0, "random_phase": False, "rolloff_range": (0.25, 0.25)}
    if preset == "radioml_2018":
        middle["rolloff_range"] = (0.415, 0.415)
    made = make(modulation, NOISELESS, preset=preset, **middle)
    timing = -made.state.timing_offset % SAMPLES_PER_SYMBOL
    frames = ReceivedBatch(made.iq, receiver)
    frames.ratio = torch.full((40,), 1e-7)
    bands = frames.filtered[0]
    late = SAMPLES_PER_SYMBOL / 2 * (modulation == "OQPSK")
    parts = [_at_symbols(bands, timing + shift, 1024, receiver) for shift in (0.0, late)]
    # The filter's transient at the ends of a frame is longer than what the images leave out.
    symbols = torch.complex(parts[0].real, parts[1].imag)[:, 8:-8]
    first = MARGIN_IN_SYMBOLS + receiver.guard_symbols + 8
    first = first + ((made.state.timing_offset + timing) / SAMPLES_PER_SYMBOL).round().long()
    number = first[:, None] + torch.arange(symbols.shape[1])
    sent = made.symbols.gather(1, number)
    gain = (symbols * sent.conj()).sum(1).real / sent.abs().square().sum(1)
    error = (symbols / gain[:, None] - sent).abs().square().mean().sqrt()
    points = torch.from_numpy(symbol_map(modulation, unipolar_ask=preset == "radioml_2018").copy())
    spacing = torch.pdist(torch.view_as_real(points).float()).min()
    assert float(error / spacing) < 0.02


@pytest.mark.parametrize(("snr_label", "largest_db"), [(6, -19), (12, -30), (30, -37)])
@pytest.mark.parametrize("modulation", ["QPSK", "16PSK", "16QAM"])
def test_error_vector_of_radioml_2018_by_label(modulation, snr_label, largest_db):
    """Blind, in the best rotation and scale: noise at low labels, steps of the search at high ones."""
    symbols = recover_carrier(synchronise(make(modulation, snr_label, 10, "radioml_2018").iq))
    scales = torch.linspace(0.94, 1.06, 13)
    apart = torch.stack([distance_to_map(symbols * k, modulation, True) for k in scales]).amin(0)
    assert 20 * float(apart.mean().log10()) < largest_db


def test_receiver_of_several_rolloffs_needs_a_pulse_without_interference():
    with pytest.raises(ValueError, match="rolloffs must be a single one"):
        ReceiverSettings(rolloffs=(0.3, 0.4))


def as_oqpsk(iq):
    return synchronise_offset(iq, TABLE_1).symbols


def test_qpsk_gives_four_clusters_and_oqpsk_only_on_its_own_lines():
    for name, own, other in (
        ("QPSK", lambda iq: synchronise(iq, TABLE_1).symbols, as_oqpsk),
        ("OQPSK", as_oqpsk, lambda iq: synchronise(iq, TABLE_1).symbols),
    ):
        # Without carrier offset, which only one of the two ways removes.
        iq = make(name, NOISELESS, cfo_std=0.0).iq
        assert four_clusters(own(iq)).min() > 0.9
        assert four_clusters(other(iq)).median() < 0.8


def test_oqpsk_is_found_with_carrier_offset_in_noise():
    assert four_clusters(as_oqpsk(make("OQPSK", 6).iq)).median() > 0.85
    assert four_clusters(as_oqpsk(make("QPSK", 6).iq)).median() < 0.5


@pytest.mark.parametrize("order", [4, 8, 16, 32])
def test_strongest_line_is_that_of_the_symmetry(order):
    name = "QPSK" if order == 4 else f"{order}PSK"
    made = make(name, 30)
    lines = power_lines(synchronise(made.iq, TABLE_1)).abs() / 124**0.5
    rows = lines.amax(2)
    lowest = next(number for number in SYMMETRIES if number % order == 0)
    assert (rows[:, SYMMETRIES.index(lowest)] > 0.8).all()
    assert rows[:, [number % order != 0 for number in SYMMETRIES]].max() < 0.5
    # It stands at the carrier offset, to within a step of the search.
    found = cfo_grid(TABLE_1, lines.device)[lines[:, SYMMETRIES.index(lowest)].argmax(1)]
    assert (found - made.state.cfo).abs().max() < 1.6e-5


@pytest.mark.parametrize("preset", PRESETS)
def test_lines_between_the_few_offsets_are_those_of_the_sum(preset):
    """Interpolated lines against the square of the filtered frame times each conjugate line."""
    frames = ReceivedBatch(make("OQPSK", 10, preset=preset).iq, RECEIVERS[preset])
    bands = frames.filtered[0].to(torch.complex128)
    spectrum = torch.zeros(len(bands), 576, dtype=torch.complex128)
    spectrum[:, :144], spectrum[:, -144:] = bands.unbind(1)
    square = torch.fft.ifft(spectrum)[:, :512].square()
    instants = 2 * torch.arange(512.0).double() - 512
    sides = torch.tensor([1, -1])[:, None] / SAMPLES_PER_SYMBOL
    frequency = (2 * cfo_grid(frames.receiver, square.real.device) + sides).flatten().double()
    waves = torch.polar(torch.ones(()).double(), -2 * torch.pi * torch.outer(instants, frequency))
    expected = (square @ waves / square.abs().sum(1, keepdim=True)).unflatten(1, (2, -1))
    torch.testing.assert_close(offset_lines(frames).to(expected), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("modulation", ["QPSK", "16QAM", "64QAM", "16APSK"])
def test_phase_is_found_to_half_a_step_of_the_search(modulation):
    """Of turned points with little noise; a step is 1.4 degrees."""
    points = torch.from_numpy(symbol_map(modulation).copy()).to(torch.complex64)
    rng = torch.Generator().manual_seed(3)
    sent = points[torch.randint(len(points), (200, 120), generator=rng)]
    noise = 0.01 * torch.randn(200, 120, dtype=torch.complex64, generator=rng)
    turn = torch.rand(200, generator=rng) * (math.pi / 2)
    found = estimate_phase((sent + noise) * torch.polar(torch.ones(200), turn)[:, None])
    error = (found - turn + math.pi / 4) % (math.pi / 2) - math.pi / 4
    assert error.abs().max() < 0.6 * math.pi / 2 / 64
    assert abs(error.mean()) < 0.002


def test_lines_of_noise_have_unit_power():
    noise = torch.randn(200, 1024, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    assert power_lines(synchronise(noise, TABLE_1)).abs().square().mean() == pytest.approx(1, rel=0.05)


def test_image_of_lines_tells_oqpsk_from_qpsk():
    """The topmost tenth of the points is OQPSK's; small roll-offs, which weaken its lines, overlap."""
    level = {
        name: power_line_map(SynchronizedBatch(make(name, 4, 200).iq, TABLE_1))
        .real.unflatten(1, (10, -1))[:, -1]
        .mean(1)
        for name in ("OQPSK", "QPSK")
    }
    middle = (level["OQPSK"].median() + level["QPSK"].median()) / 2
    right = (level["OQPSK"] > middle).float().mean() + (level["QPSK"] < middle).float().mean()
    assert right / 2 > 0.8


@pytest.mark.parametrize(("name", "power"), [("BPSK", 2), ("QPSK", 4), ("8PSK", 8)])
def test_differential_points_of_phase_keying_lie_on_turns_of_its_order(name, power):
    """At half the window's radius, unit magnitude, and at every turn, not at one."""
    points = differential_symbols(SynchronizedBatch(make(name, NOISELESS).iq, TABLE_1)) / (WINDOW / 2)
    assert (points.abs() - 1).abs().mean() < 0.1
    turned = points / points.abs()
    assert (turned**power).real.mean(1).min() > 0.9
    assert (turned ** (power // 2)).real.mean(1).abs().max() < 0.4


@pytest.mark.parametrize(("name", "radii"), [("QPSK", [1.0]), ("16QAM", [0.447, 1.0, 1.342])])
def test_polar_points_lie_at_the_radii_of_the_map(name, radii):
    """Across the angle inside a quarter turn, up the magnitude, 0 to 2 over the window."""
    points = polar_symbols(SynchronizedBatch(make(name, NOISELESS).iq, TABLE_1)) / WINDOW
    magnitude, angle = points.imag + 1, (points.real + 1) * 45
    assert angle.min() >= 0
    assert angle.max() <= 90
    distance = (magnitude[..., None] - torch.tensor(radii)).abs().amin(-1)
    assert distance.mean() < 0.06
    for radius in radii:
        assert ((magnitude - radius).abs() < 0.15).float().mean() > 0.15
    if name == "QPSK":
        # One cluster a frame; it may lie at the seam of the quarter turn.
        turned = torch.polar(torch.ones_like(angle), angle * (2 * math.pi / 90))
        assert turned.mean(1).abs().min() > 0.9


def test_gnu_radio_s_frames_synchronise_as_well(gnuradio_slice):
    """Timing, roll-off and carrier of frames that share no code with the generator."""
    frames = read_radioml(
        path=gnuradio_slice,
        modulations=("QPSK", "16QAM"),
        snr_labels=(30,),
        num_frames_per_cell=10,
        seed=0,
    )
    for name in ("QPSK", "16QAM"):
        symbols = recover_carrier(synchronise(frames.iq(frames.select(name, 30)), TABLE_1))
        assert distance_to_map(symbols, name).max() < 0.12


def test_noise_image_moves_linearly_in_db():
    """The height of the cloud is the noise level: minus the SNR while the signal dominates."""
    grid = torch.arange(-10, 31, 5)
    height, expected = [], []
    for snr_db in grid.tolist():
        points = band_levels(SynchronizedBatch(make("16QAM", snr_db).iq, TABLE_1))
        height.append(float(points.imag.mean()) * 12.0)
        expected.append(-10 * math.log10(1 + 10 ** (snr_db / 10)))
    shift = [h - e for h, e in zip(height, expected, strict=True)]
    # A line of slope one in dB; the constant is the mean of the logarithm of exponential power.
    assert max(shift) - min(shift) < 0.3


@pytest.mark.parametrize("channel", ["differential", "lines", "noise"])
def test_images_without_phase_ignore_a_rotation(channel):
    iq = make("16APSK", 15).iq
    turned = iq * torch.polar(torch.ones(()), torch.tensor(0.7))
    straight, rotated = (constellation_images(x, [channel], 64, receiver=TABLE_1) for x in (iq, turned))
    # Points on an edge between pixels may fall to either side.
    assert (straight != rotated).float().mean() < 0.002


def test_raw_image_turns_with_the_input():
    iq = make("16APSK", 15).iq
    straight, turned = (constellation_images(x, ["raw"], 64) for x in (iq, iq * 1j))
    assert torch.equal(torch.rot90(straight, -1, (2, 3)), turned)


@pytest.mark.parametrize("channel", ["synchronised", "polar"])
def test_synchronised_images_ignore_a_quarter_turn(channel):
    iq = make("64QAM", 20).iq
    straight, turned = (constellation_images(x, [channel], 64, receiver=TABLE_1) for x in (iq, iq * 1j))
    same = [
        any((torch.rot90(b, k, (1, 2)) - a).abs().mean() < 2e-3 for k in range(4))
        for a, b in zip(straight, turned, strict=True)
    ]
    assert sum(same) >= 38


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_frames_without_a_signal_give_an_image_all_the_same(value):
    iq = torch.full((2, 1024), value, dtype=torch.complex64)
    images = constellation_images(iq, ["stack"], 32)
    assert torch.isfinite(images).all()

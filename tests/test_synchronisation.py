"""Synchronisation and views: what comes out against what the generator put in."""

from __future__ import annotations

import math

import pytest
import torch

from amc_utils.carrier import SYMMETRIES, estimate_cfo, power_lines, recover_carrier
from amc_utils.channel import Channel
from amc_utils.constellation import constellation_images
from amc_utils.data import read_radioml
from amc_utils.signals import SAMPLES_PER_SYMBOL, generate_frames
from amc_utils.symbol_maps import symbol_map
from amc_utils.synchronisation import cfo_grid, synchronise, synchronise_offset
from amc_utils.views import (
    WINDOW,
    Views,
    differential_symbols,
    levels,
    line_strengths,
    polar_symbols,
)

NOISELESS = 200.0


def make(modulation, snr_db, num_frames=40, **channel):
    return generate_frames(
        torch.arange(num_frames),
        torch.zeros(num_frames, dtype=torch.int64),
        torch.full((num_frames,), float(snr_db)),
        modulations=[modulation],
        seed=11,
        channel=Channel(**channel),
    )


def four_clusters(symbols):
    """How far the fourth powers of symbols agree: 1 for four tight clusters, near 0 for none."""
    unit = symbols / symbols.abs().square().mean(1, keepdim=True).sqrt()
    return (unit**4).mean(1).abs()


def distance_to_map(symbols, modulation):
    """Mean distance of symbols to the nearest points of the map, in the best rotation of each frame."""
    points = torch.from_numpy(symbol_map(modulation).copy()).to(torch.complex64)
    turns = torch.polar(torch.ones(64), torch.arange(64) * (math.pi / 128))
    apart = (symbols[:, None, :, None] * turns[:, None, None] - points).abs().amin(-1)
    return apart.mean(-1).amin(1)


@pytest.mark.parametrize("modulation", ["QPSK", "16APSK", "64QAM", "256QAM", "32PSK"])
def test_timing_and_rolloff_are_those_of_the_channel(modulation):
    made = make(modulation, 30, clock_std=0.0)
    found = synchronise(made.iq)
    period = SAMPLES_PER_SYMBOL
    error = (found.timing + made.state.timing_offset + period / 2) % period - period / 2
    assert error.abs().max() < 0.12
    assert error.square().mean().sqrt() < 0.05
    assert (found.rolloff - made.state.rolloff).abs().max() < 0.05


@pytest.mark.parametrize("snr_db", [-10, 0, 10, 30])
def test_noise_power_is_that_of_the_label(snr_db):
    """Per symbol the noise keeps its variance, and the signal has 8 samples' energy."""
    made = make("16QAM", snr_db, 200)
    ratio = 1 / synchronise(made.iq).noise_power - 1
    expected = SAMPLES_PER_SYMBOL * 10 ** (snr_db / 10)
    assert float(ratio.median()) == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize("sign", [-1, 1])
def test_carrier_offset_is_found_with_its_sign(sign):
    cfo = sign * 2.3e-4
    made = make("16QAM", 25, cfo_std=0.0)
    turn = torch.polar(torch.ones(1024), 2 * torch.pi * cfo * torch.arange(1024))
    found = estimate_cfo(synchronise(made.iq * turn))
    # The step of the search is 1.6e-5, so the nearest two are within this.
    assert (found - cfo).abs().max() < 1.3e-5


@pytest.mark.parametrize("modulation", ["QPSK", "8PSK", "16APSK", "16QAM", "32QAM", "64QAM", "256QAM"])
def test_noiseless_symbols_lie_on_the_points_of_their_map(modulation):
    """Unknown phase, timing, roll-off, clock and carrier offset."""
    made = make(modulation, NOISELESS)
    apart = distance_to_map(recover_carrier(synchronise(made.iq)), modulation)
    points = torch.from_numpy(symbol_map(modulation).copy())
    spacing = torch.pdist(torch.view_as_real(points).float()).min()
    assert apart.median() < 0.2 * spacing
    assert apart.max() < 0.45 * spacing


def test_qpsk_gives_four_clusters_and_oqpsk_only_on_its_own_lines():
    for name, own, other in (
        ("QPSK", lambda iq: synchronise(iq).symbols, synchronise_offset),
        ("OQPSK", synchronise_offset, lambda iq: synchronise(iq).symbols),
    ):
        # Without carrier offset, which only one of the two ways removes.
        iq = make(name, NOISELESS, cfo_std=0.0).iq
        assert four_clusters(own(iq)).min() > 0.9
        assert four_clusters(other(iq)).median() < 0.8


def test_oqpsk_is_found_with_carrier_offset_in_noise():
    assert four_clusters(synchronise_offset(make("OQPSK", 6).iq)).median() > 0.85
    assert four_clusters(synchronise_offset(make("QPSK", 6).iq)).median() < 0.5


@pytest.mark.parametrize("order", [4, 8, 16, 32])
def test_strongest_line_is_that_of_the_symmetry(order):
    name = "QPSK" if order == 4 else f"{order}PSK"
    made = make(name, 30)
    lines = power_lines(synchronise(made.iq)).abs() / 124**0.5
    rows = lines.amax(2)
    lowest = next(number for number in SYMMETRIES if number % order == 0)
    assert (rows[:, SYMMETRIES.index(lowest)] > 0.8).all()
    assert rows[:, [number % order != 0 for number in SYMMETRIES]].max() < 0.5
    # It stands at the carrier offset, to within a step of the search.
    found = cfo_grid(lines.device)[lines[:, SYMMETRIES.index(lowest)].argmax(1)]
    assert (found - made.state.cfo).abs().max() < 1.6e-5


def test_lines_of_noise_have_unit_power():
    noise = torch.randn(200, 1024, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    assert power_lines(synchronise(noise)).abs().square().mean() == pytest.approx(1, rel=0.05)


def test_picture_of_lines_tells_oqpsk_from_qpsk():
    """The topmost tenth of the points is OQPSK's; small roll-offs, which weaken its lines, overlap."""
    level = {
        name: line_strengths(Views(make(name, 4, 200).iq)).real.unflatten(1, (10, -1))[:, -1].mean(1)
        for name in ("OQPSK", "QPSK")
    }
    middle = (level["OQPSK"].median() + level["QPSK"].median()) / 2
    right = (level["OQPSK"] > middle).float().mean() + (level["QPSK"] < middle).float().mean()
    assert right / 2 > 0.8


@pytest.mark.parametrize(("name", "power"), [("BPSK", 2), ("QPSK", 4), ("8PSK", 8)])
def test_differential_points_of_phase_keying_lie_on_turns_of_its_order(name, power):
    """At half the window's radius, unit magnitude, and at every turn, not at one."""
    points = differential_symbols(Views(make(name, NOISELESS).iq)) / (WINDOW / 2)
    assert (points.abs() - 1).abs().mean() < 0.1
    turned = points / points.abs()
    assert (turned**power).real.mean(1).min() > 0.9
    assert (turned ** (power // 2)).real.mean(1).abs().max() < 0.4


@pytest.mark.parametrize(("name", "radii"), [("QPSK", [1.0]), ("16QAM", [0.447, 1.0, 1.342])])
def test_polar_points_lie_at_the_radii_of_the_map(name, radii):
    """Across the angle inside a quarter turn, up the magnitude, 0 to 2 over the window."""
    points = polar_symbols(Views(make(name, NOISELESS).iq)) / WINDOW
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
        symbols = recover_carrier(synchronise(frames.iq(frames.select(name, 30))))
        assert distance_to_map(symbols, name).max() < 0.12


def test_noise_picture_moves_linearly_in_db():
    """The height of the cloud is the noise level: minus the SNR while the signal dominates."""
    grid = torch.arange(-10, 31, 5)
    height, expected = [], []
    for snr_db in grid.tolist():
        points = levels(Views(make("16QAM", snr_db).iq))
        height.append(float(points.imag.mean()) * 12.0)
        expected.append(-10 * math.log10(1 + 10 ** (snr_db / 10)))
    shift = [h - e for h, e in zip(height, expected, strict=True)]
    # A line of slope one in dB; the constant is the mean of the logarithm of exponential power.
    # The ends of a frame leak some signal out of the band, which tells above 25 dB.
    assert max(shift) - min(shift) < 1.0


@pytest.mark.parametrize("channel", ["differential", "lines", "noise"])
def test_pictures_without_phase_ignore_a_rotation(channel):
    iq = make("16APSK", 15).iq
    turned = iq * torch.polar(torch.ones(()), torch.tensor(0.7))
    straight, rotated = (constellation_images(x, [channel], 64) for x in (iq, turned))
    # Points on an edge between pixels may fall to either side.
    assert (straight != rotated).float().mean() < 0.002


def test_raw_picture_turns_with_the_input():
    iq = make("16APSK", 15).iq
    straight, turned = (constellation_images(x, ["raw"], 64) for x in (iq, iq * 1j))
    assert torch.equal(torch.rot90(straight, -1, (2, 3)), turned)


@pytest.mark.parametrize("channel", ["synchronised", "polar"])
def test_synchronised_pictures_ignore_a_quarter_turn(channel):
    iq = make("64QAM", 20).iq
    straight, turned = (constellation_images(x, [channel], 64) for x in (iq, iq * 1j))
    same = [
        any((torch.rot90(b, k, (1, 2)) - a).abs().mean() < 2e-3 for k in range(4))
        for a, b in zip(straight, turned, strict=True)
    ]
    assert sum(same) >= 38


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_frames_without_a_signal_give_a_picture_all_the_same(value):
    iq = torch.full((2, 1024), value, dtype=torch.complex64)
    pictures = constellation_images(iq, ["stack"], 32)
    assert torch.isfinite(pictures).all()

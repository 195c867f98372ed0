"""What the symbol maps say of frames whose carrier and timing are not known: average likelihood ratios.

The logarithm of a symbol's likelihood under a modulation depends on its magnitude and, periodically, on
its angle. As a Fourier series in the angle, its sum over a stretch of a frame is found for all carrier
phases at once, and a carrier offset turns the stretches against each other: the average over phase and
offset needs two small Fourier transforms. The ratio is that to Gaussian symbols of the same power, of
which energies alone tell the likelihood, see amc_utils.baselines.bounds.energy_fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from amc_utils.dsp.receiver_settings import DEFAULT_RECEIVER, ReceiverSettings
from amc_utils.dsp.synchronisation import ReceivedBatch, equalised_powers, offset_carrier
from amc_utils.modulation.constellations import LINEAR_MODULATIONS, symbol_map
from amc_utils.signals import SAMPLES_PER_SYMBOL, unit_phasor

# Magnitude of the outermost ring, in units of the root mean square.
_LARGEST = 2.4
# Carrier offsets are averaged over so many standard deviations to each side.
_CFO_DEVIATIONS = 2.5
# Timings, evenly spaced over a symbol from the estimated one on.
_NUM_TIMINGS = 4


@dataclass(frozen=True)
class Resolution:
    """How finely symbols are looked at.

    Attributes:
        es_n0_db: what Es/N0 is rounded to, ascending; frames with more are judged as if they had no
            more than the last, since finer structure would not be resolved.
        num_rings: magnitude rings.
        num_stretches: stretches of a frame within which a carrier offset is taken to turn nothing.
        num_harmonics: terms of the Fourier series of a map over what its symmetry leaves of a turn.
        num_phases: carrier phases to a quarter turn.
        cfo_step: most from one carrier offset to the next, in cycles per sample.
    """

    es_n0_db: tuple[float, ...]
    num_rings: int
    num_stretches: int
    num_harmonics: int
    num_phases: int
    cfo_step: float


# For images, of which others show what lies above 18 dB; and for a receiver that has nothing else.
# Below -14 dB no map shows.
COARSE = Resolution(tuple(range(-14, 19)), 40, 6, 9, 24, 4.2e-5)
FINE = Resolution(tuple(range(-14, 21)), 64, 20, 26, 48, 1.4e-5)


def likelihood_ratios(frames: ReceivedBatch, es_n0_db: Tensor, resolution: Resolution) -> Tensor:
    """Log-likelihood of each of LINEAR_MODULATIONS over that of Gaussian symbols, float32 [B, M].

    Averaged over carrier phase, over the offset with the spread that the channel gives it, and over the
    estimated timing and three others, a quarter of a symbol apart. OQPSK has a timing of its own, and
    its quadrature part half a symbol later.

    Args:
        frames: the frames.
        es_n0_db: Es/N0 of equalised symbols, interference as noise; float32 [B, M], or [B, 1].
        resolution: how finely symbols are looked at.
    """
    receiver, options = frames.receiver, (resolution, frames.receiver)
    grid = _grid(resolution, es_n0_db.device)
    level = torch.searchsorted((grid[1:] + grid[:-1]) / 2, es_n0_db.contiguous())
    level = level.expand(-1, len(LINEAR_MODULATIONS))
    # What the likelihood of a timing grows by with the power of its symbols.
    gain = frames.timed.symbols.shape[1] * 10 ** (grid[level] / 10)
    symbols, power = _at_timings(frames, frames.timed.timing)
    ratios = []
    for names, turns, columns in _by_symmetry(receiver.unipolar_ask, symbols.device):
        found = _by_carrier(symbols, level[:, columns], names, turns, *options)
        ratios.append(_average(found, power[..., None] * gain[:, columns], *options))
    number = LINEAR_MODULATIONS.index("OQPSK")
    symbols, power = _at_timings(frames, offset_carrier(frames)[2] % SAMPLES_PER_SYMBOL)
    found = _by_carrier(symbols, level[:, number, None], ("OQPSK",), 2, *options)
    # Half a symbol later the quadrature part, which a quarter turn puts in phase.
    later = _NUM_TIMINGS // 2
    found = found + found.roll((-later, -resolution.num_phases), (0, 4))
    power = (power + power.roll(-later, 0)) / 2
    ratios.append(_average(found, power[..., None] * gain[:, number, None], *options))
    return torch.cat(ratios, 1)[:, _order(receiver.unipolar_ask, symbols.device)]


def phase_averaged_ratio(
    name: str,
    symbols: Tensor,
    late: Tensor,
    level: Tensor,
    resolution: Resolution,
    unipolar_ask: bool,
) -> Tensor:
    """Log-likelihood ratio of symbols of which the carrier phase alone is not known, float64 [B].

    Args:
        name: the modulation.
        symbols: complex [B, K], of unit mean power where the modulation is right.
        late: the same half a symbol later, for OQPSK.
        level: int64 [B], index into the resolution's Es/N0.
        resolution: how finely symbols are looked at.
        unipolar_ask: see Channel.
    """
    known = replace(DEFAULT_RECEIVER, cfo_std=0.0, unipolar_ask=unipolar_ask)
    turns = {n: t for names, t, _ in _by_symmetry(unipolar_ask, level.device) for n in names}
    turns = turns.get(name, 2)  # the parts of OQPSK are those of BPSK
    options = level[:, None], (name,), turns, resolution, known
    found = _by_carrier(symbols.to(torch.complex64)[None], *options)
    if name == "OQPSK":
        quadrature = _by_carrier(late.to(torch.complex64)[None], *options)
        found = found + quadrature.roll(-resolution.num_phases, 4)
    timing = found.new_zeros(1, len(level), 1)
    return _average(found.double(), timing, resolution, known)[:, 0]


def phaseless_resolution(es_n0_db: tuple[float, ...]) -> Resolution:
    """As fine as float32 allows, for symbols without carrier offset, at the Es/N0 given in dB."""
    return Resolution(es_n0_db, 160, 1, 48, 48, 1.0)


def blind_es_n0_db(frames: ReceivedBatch) -> Tensor:
    """Es/N0 of equalised symbols in dB, by the noise beside the signal, float32 [B]."""
    es_n0_db, total = _es_n0_table(frames.receiver, frames.iq.device)
    place = torch.searchsorted(total, 1 / frames.timed.noise_power.clamp_min(1e-9))
    return es_n0_db[place.clamp_(0, len(es_n0_db) - 1)]


def effective_es_n0_db(es_n0_db: Tensor, receiver: ReceiverSettings) -> Tensor:
    """Es/N0 of equalised symbols, interference as noise, float64, from that of the signal."""
    signal, interference = equalised_powers(es_n0_db.double(), receiver)
    return 10 * (signal / (1 + interference)).log10()


@cache
def _es_n0_table(receiver: ReceiverSettings, device: torch.device) -> tuple[Tensor, Tensor]:
    """What blind_es_n0_db finds, and the power of the symbols over their noise, ascending."""
    es_n0_db = torch.arange(-20.0, 60.0, 0.25, dtype=torch.float64)
    total = 1 + sum(equalised_powers(es_n0_db, receiver))
    return effective_es_n0_db(es_n0_db, receiver).float().to(device), total.float().to(device)


def _at_timings(frames: ReceivedBatch, timing: Tensor) -> tuple[Tensor, Tensor]:
    """Symbols at every timing, complex64 [T, B, K], and by how much more power they have.

    By what share of the estimated timing's, float32 [T, B].
    """
    steps = torch.arange(_NUM_TIMINGS) * (SAMPLES_PER_SYMBOL / _NUM_TIMINGS)
    parts = [frames.symbols_at(timing + step) for step in steps.tolist()]
    power = torch.stack([frames.timed.noise_power / part.noise_power for part in parts])
    return torch.stack([part.symbols for part in parts]), power - 1


def _by_carrier(
    symbols: Tensor,
    level: Tensor,
    names: tuple[str, ...],
    turns: int,
    resolution: Resolution,
    receiver: ReceiverSettings,
) -> Tensor:
    """Log-likelihood ratios for every carrier offset and phase, float32 [T, B, M, W, P].

    Args:
        symbols: complex64 [T, B, K], unit mean power.
        level: int64 [B, M], index of the Es/N0 that each modulation would have.
        names: modulations of the same symmetry.
        turns: as many turns of a whole one leave their maps as they are.
        resolution: how finely symbols are looked at.
        receiver: what is known about the channel.
    """
    num_timings, _, num_symbols = symbols.shape
    symbols, level = symbols.flatten(0, 1), level.repeat(num_timings, 1)
    magnitude = symbols.abs()
    angle = symbols.angle()[..., None, None] * _orders(turns, resolution, symbols.device)
    # Real and imaginary parts each by themselves: products of them are far faster.
    waves = angle.cos(), angle.sin()
    ring = (magnitude * (resolution.num_rings / _LARGEST)).to(torch.int32)
    ring = ring.clamp_(0, resolution.num_rings - 1)[..., None]
    series = _angle_series(names, turns, resolution, receiver.unipolar_ask, symbols.device)
    first = level + torch.arange(len(names), device=level.device) * len(resolution.es_n0_db)
    series = series[first[:, None] * resolution.num_rings + ring]
    # Of the series of each symbol, [T B, K, M, harmonics], the sum over each stretch.
    starts = _stretches(num_symbols, resolution)
    ends = [*starts[1:], num_symbols]
    sums = [
        torch.stack([
            (series[:, a:b] * part[:, a:b]).sum(1) for a, b in zip(starts, ends, strict=True)
        ])
        for part in waves
    ]  # fmt: skip
    offset, phase = _carriers(turns, num_symbols, resolution, receiver, symbols.device)
    by_offset = torch.einsum("sbmh,swh->bmwh", torch.complex(*sums), offset)
    found = by_offset.real @ phase.real + by_offset.imag @ phase.imag
    return found.unflatten(0, (num_timings, -1))


def _average(
    by_carrier: Tensor, by_timing: Tensor, resolution: Resolution, receiver: ReceiverSettings
) -> Tensor:
    """Logarithm of the mean likelihood over timings, offsets and phases, [B, M].

    Args:
        by_carrier: float32 [T, B, M, W, P].
        by_timing: log-likelihood of the timing itself, float32 [T, B, M].
        resolution: how finely symbols are looked at.
        receiver: says how likely an offset is.
    """
    weight = _cfos(resolution, receiver, by_carrier.device)[1]
    table = by_carrier + weight[:, None] + by_timing[..., None, None]
    table = table.permute(1, 2, 0, 3, 4).flatten(2)
    largest = table.amax(2, keepdim=True)
    # Numbers too small for normal floats slow the exponential down by far.
    total = (table - largest).clamp_(min=-60).exp_().sum(2)
    return total.log() + largest[..., 0] - math.log(by_carrier.shape[0] * by_carrier.shape[4])


@cache
def _by_symmetry(unipolar_ask: bool, device: torch.device) -> list[tuple[tuple[str, ...], int, Tensor]]:
    """Modulations whose map 4 turns, 2 or 1 leave as it is: names, turns, and index int64.

    Without OQPSK, whose parts differ.
    """
    groups = []
    for turns in (4, 2, 1):
        known = [name for names, _, _ in groups for name in names]
        names = tuple(
            name
            for name in LINEAR_MODULATIONS
            if name not in (*known, "OQPSK")
            and _is_symmetric(
                torch.from_numpy(symbol_map(name, unipolar_ask=unipolar_ask).copy()), turns
            )
        )
        index = [LINEAR_MODULATIONS.index(name) for name in names]
        groups.append((names, turns, torch.tensor(index, device=device)))
    return groups


@cache
def _order(unipolar_ask: bool, device: torch.device) -> Tensor:
    """Where each of LINEAR_MODULATIONS is in the groups with OQPSK after them, int64 [M]."""
    names = [name for group, _, _ in _by_symmetry(unipolar_ask, device) for name in group]
    return torch.tensor([[*names, "OQPSK"].index(name) for name in LINEAR_MODULATIONS], device=device)


def _is_symmetric(points: Tensor, turns: int) -> bool:
    """Whether a turn by 1 / turns maps the points onto themselves."""
    turned = points * unit_phasor(torch.tensor(2 * torch.pi / turns))
    return bool((turned[:, None] - points).abs().amin(1).max() < 1e-3)


@cache
def _cfos(
    resolution: Resolution, receiver: ReceiverSettings, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Carrier offsets, in cycles per sample, and the logarithms of their weights."""
    reach = _CFO_DEVIATIONS * receiver.cfo_std
    cfos = torch.linspace(-reach, reach, 1 + 2 * math.ceil(reach / resolution.cfo_step), device=device)
    deviations = cfos / max(receiver.cfo_std, 1e-12)
    return cfos, torch.log_softmax(-deviations.square() / 2, 0)


def _stretches(num_symbols: int, resolution: Resolution) -> list[int]:
    """First symbol of each stretch of a frame."""
    count = resolution.num_stretches
    return [num_symbols * number // count for number in range(count)]


def _orders(turns: int, resolution: Resolution, device: torch.device) -> Tensor:
    """Multiples of the angle that a map of such symmetry has waves of, int64 [harmonics]."""
    return turns * torch.arange(resolution.num_harmonics, device=device)


@cache
def _grid(resolution: Resolution, device: torch.device) -> Tensor:
    return torch.tensor(resolution.es_n0_db, dtype=torch.float32, device=device)


@cache
def _carriers(
    turns: int,
    num_symbols: int,
    resolution: Resolution,
    receiver: ReceiverSettings,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Conjugate turns by each offset, [stretches, offsets, harmonics]; phases [harmonics, phases]."""
    starts = torch.tensor([*_stretches(num_symbols, resolution), num_symbols], device=device)
    middle = (starts[:-1] + starts[1:] - num_symbols) / 2
    harmonic = _orders(turns, resolution, device)
    turn = SAMPLES_PER_SYMBOL * middle[:, None] * _cfos(resolution, receiver, device)[0]
    phases = torch.arange(resolution.num_phases * 4 // turns, device=device) / (
        4 * resolution.num_phases
    )
    return (
        unit_phasor(-2 * torch.pi * turn[..., None] * harmonic),
        unit_phasor(2 * torch.pi * harmonic[:, None] * phases),
    )


@cache
def _angle_series(
    names: tuple[str, ...],
    turns: int,
    resolution: Resolution,
    unipolar_ask: bool,
    device: torch.device,
) -> Tensor:
    """Cosine series in the angle of a symbol's log-likelihood ratio, [M * levels * rings, harmonics].

    Every map mirrors itself, so the series has no sines. A ring has the mean of two magnitudes.
    """
    num_angles = 2 * max(resolution.num_harmonics, 32)
    radius = (torch.arange(2 * resolution.num_rings) + 0.5) * (_LARGEST / (2 * resolution.num_rings))
    angle = (torch.arange(num_angles) + 0.5) * (torch.pi / turns / num_angles)
    places = torch.view_as_real(radius[:, None] * unit_phasor(angle))
    cosines = torch.cos(_orders(turns, resolution, angle.device) * angle[:, None]) * (2 / num_angles)
    cosines[:, 0] /= 2
    series = [
        _symbol_ratio(places, name, 10 ** (db / 10), unipolar_ask) @ cosines
        for name in names
        for db in resolution.es_n0_db
    ]
    return torch.cat(series).unflatten(0, (-1, 2)).mean(1).to(device)


def _symbol_ratio(places: Tensor, name: str, snr: float, unipolar_ask: bool) -> Tensor:
    """Log-likelihood ratio to a Gaussian symbol at places of the plane, float32 [..., 2] to [...].

    The noisy symbol has unit mean power, so the noise has 1 / (1 + snr). Of OQPSK it is the share of
    the real part: what is subtracted must not depend on the phase over which is averaged.
    """
    points = torch.view_as_real(torch.from_numpy(symbol_map(name, unipolar_ask=unipolar_ask).copy()))
    parts = 1 if name == "OQPSK" else 2
    points = points.float()[:, :parts] * (snr / (1 + snr)) ** 0.5
    exponent = 2 * places[..., :parts] @ points.T - points.square().sum(1)
    mean = (exponent * (1 + snr)).logsumexp(-1) - math.log(len(points))
    return mean - parts / 2 * (snr * places.square().sum(-1) - math.log(1 + snr))

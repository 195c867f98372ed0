"""What the symbol maps say of frames whose carrier and timing are not known: average likelihood ratios.

The logarithm of a symbol's likelihood under a modulation depends on its magnitude and, periodically, on
its angle. As a Fourier series in the angle, its sum over a stretch of a frame is found for all carrier
phases at once, and a carrier offset turns the stretches against each other: the average over phase and
offset needs two small Fourier transforms. The ratio is that to Gaussian symbols of the same power, of
which energies alone tell the likelihood, see amc_utils.baselines.bounds.energy_fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from amc_utils.dsp.receiver_settings import ReceiverSettings, class_es_n0_db
from amc_utils.dsp.synchronisation import (
    ReceivedBatch,
    equalised_powers,
    offset_carrier,
    squared_magnitude,
)
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
        es_n0_range_db: frames with more Es/N0 are judged as if they had no more, since finer structure
            would not be resolved; with less, as if they had that, where no map shows.
        num_rings: magnitude rings.
        num_stretches: stretches of a frame within which a carrier offset is taken to turn nothing.
        num_harmonics: terms of the Fourier series of a map over what its symmetry leaves of a turn.
        num_phases: carrier phases to a quarter turn.
        cfo_step: most from one carrier offset to the next, in cycles per sample.
        label_reach: of a label's step; frames whose power over noise is further off keep their own.
    """

    es_n0_range_db: tuple[float, float]
    num_rings: int
    num_stretches: int
    num_harmonics: int
    num_phases: int
    cfo_step: float
    label_reach: float = math.inf


# For images, of which others show what lies above 18 dB; and for a receiver that has nothing else.
COARSE = Resolution((-14.0, 18.0), 40, 6, 9, 24, 4.2e-5, label_reach=0.65)
FINE = Resolution((-14.0, 20.0), 64, 20, 26, 48, 1.4e-5)
# As fine as float32 allows, for symbols without carrier offset. With more than 22 dB nearly all are
# decided rightly, and the grid of phases would be too coarse.
PHASE_ALONE = Resolution((-math.inf, 22.0), 160, 1, 48, 48, 1.0)


def likelihood_ratios(frames: ReceivedBatch, label: Tensor, resolution: Resolution) -> Tensor:
    """Log-likelihood of each of LINEAR_MODULATIONS over that of Gaussian symbols, float32 [B, M].

    Averaged over carrier phase, over the offset with the spread that the channel gives it, and over the
    estimated timing and three others, a quarter of a symbol apart. The amplitude is that of the SNR
    label: few symbols have more power or less than their map. OQPSK has a timing of its own, and its
    quadrature part half a symbol later.

    Args:
        frames: the frames.
        label: int64 [B], index into the receiver's snr_labels.
        resolution: how finely symbols are looked at.
    """
    receiver, device, options = frames.receiver, label.device, (resolution, frames.receiver)
    es_n0_db, total_power = label_powers(receiver, device)
    snr = 10 ** (es_n0_db.T[label].clamp(*resolution.es_n0_range_db) / 10)
    power_ratio = total_power.T[label] * frames.timed.noise_power[:, None]
    far = 10 * power_ratio.log10().abs() > resolution.label_reach * receiver.channel.snr_slope
    gain = torch.where(far, 1, power_ratio.reciprocal())

    def by_carrier(symbols: Tensor, names: tuple[str, ...], turns: int, columns: Tensor) -> Tensor:
        series = _angle_series(names, turns, *options, device)
        return _by_carrier(symbols, gain[:, columns].sqrt(), label, series, turns, *options)

    # The energy of other timings' symbols, from the whole frame: their first and last ones differ.
    turn = torch.arange(_NUM_TIMINGS, device=device) * (2 * torch.pi / _NUM_TIMINGS)
    by_timing = (turn.cos() - 1)[:, None] * frames.timing_likelihood
    symbols = _at_timings(frames, frames.timed.timing)
    ratios = torch.empty_like(snr)
    for group in _by_symmetry(receiver, device):
        ratios[:, group[2]] = _average(by_carrier(symbols, *group), by_timing, *options)
    symbols = _at_timings(frames, offset_carrier(frames)[2] % SAMPLES_PER_SYMBOL)
    number = torch.full((1,), LINEAR_MODULATIONS.index("OQPSK"), device=device)
    found = by_carrier(symbols, ("OQPSK",), 2, number)
    # Half a symbol later the quadrature part, which a quarter turn puts in phase.
    later = _NUM_TIMINGS // 2
    found = found + found.roll((-later, -resolution.num_phases), (0, 4))
    # What a part's ratio has subtracted is the energy of exactly these symbols; for the frame's.
    own = gain[:, number]
    energy = (squared_magnitude(symbols) * own).clamp(max=_LARGEST**2).mean(2)
    excess = ((energy + energy.roll(-later, 0)) / 2 - own.T) * symbols.shape[2] * snr[:, number].T
    ratios[:, number] = _average(found, excess, *options)
    return ratios


def phase_averaged_ratio(
    name: str, symbols: Tensor, late: Tensor, label: Tensor, receiver: ReceiverSettings
) -> Tensor:
    """Log-likelihood ratio of symbols of which the carrier phase alone is not known, float64 [B].

    Args:
        name: the modulation.
        symbols: complex [B, K], of unit mean power where the modulation is right.
        late: the same half a symbol later, for OQPSK.
        label: int64 [B], index into the receiver's snr_labels.
        receiver: of a channel without carrier offset.
    """
    turns = {n: t for names, t, _ in _by_symmetry(receiver, label.device) for n in names}
    turns = turns.get(name, 2)  # the parts of OQPSK are those of BPSK
    options = turns, PHASE_ALONE, receiver
    known = torch.ones_like(label[:, None]), label, _angle_series((name,), *options, label.device)
    found = _by_carrier(symbols.to(torch.complex64)[None], *known, *options)
    if name == "OQPSK":
        quadrature = _by_carrier(late.to(torch.complex64)[None], *known, *options)
        found = found + quadrature.roll(-PHASE_ALONE.num_phases, 4)
    return _average(found.double(), found.new_zeros(1, len(label)), PHASE_ALONE, receiver)[:, 0]


def blind_label(frames: ReceivedBatch) -> Tensor:
    """Index of the SNR label whose noise the frame has beside its signal, int64 [B]."""
    log_power = label_powers(frames.receiver, frames.iq.device)[1].log().mean(0)
    between = (log_power[1:] + log_power[:-1]) / 2
    return torch.searchsorted(between, -frames.timed.noise_power.clamp_min(1e-9).log())


@cache
def label_powers(receiver: ReceiverSettings, device: torch.device) -> tuple[Tensor, Tensor]:
    """What equalised symbols of each of LINEAR_MODULATIONS have at each label, float32 [M, labels].

    Es/N0 in dB, interference as noise; and the power of all in units of the noise.
    """
    sent = class_es_n0_db(LINEAR_MODULATIONS, receiver.snr_labels, receiver.channel)
    # The interference at high SNR is a small difference, which float32 would not show.
    signal, interference = equalised_powers(sent, receiver)
    es_n0_db = 10 * (signal / (1 + interference)).log10()
    return es_n0_db.float().to(device), (1 + signal + interference).float().to(device)


def _at_timings(frames: ReceivedBatch, timing: Tensor) -> Tensor:
    """Symbols at every timing, complex64 [T, B, K]; unit mean power at the estimated one."""
    steps = torch.arange(_NUM_TIMINGS) * (SAMPLES_PER_SYMBOL / _NUM_TIMINGS)
    parts = [frames.symbols_at(timing + step) for step in steps.tolist()]
    scale = torch.stack([frames.timed.noise_power / part.noise_power for part in parts]).sqrt()
    return torch.stack([part.symbols for part in parts]) * scale[..., None]


def _by_carrier(
    symbols: Tensor,
    amplitude: Tensor,
    label: Tensor,
    series: Tensor,
    turns: int,
    resolution: Resolution,
    receiver: ReceiverSettings,
) -> Tensor:
    """Log-likelihood ratios for every carrier offset and phase, float32 [T, B, M, W, P].

    Args:
        symbols: complex64 [T, B, K], unit mean power.
        amplitude: what each modulation's symbols are brought to; float32 [B, M].
        label: int64 [B], index of the SNR label.
        series: of modulations of the same symmetry, see _angle_series.
        turns: as many turns of a whole one leave their maps as they are.
        resolution: how finely symbols are looked at.
        receiver: what is known about the channel.
    """
    num_timings, _, num_symbols = symbols.shape
    symbols, label = symbols.flatten(0, 1), label.repeat(num_timings)
    magnitude = symbols.abs()[..., None] * amplitude.repeat(num_timings, 1)[:, None]
    harmonic = turns * torch.arange(resolution.num_harmonics, device=symbols.device)
    angle = symbols.angle()[..., None, None] * harmonic
    # Real and imaginary parts each by themselves: products of them are far faster.
    waves = angle.cos(), angle.sin()
    ring = (magnitude * (resolution.num_rings / _LARGEST)).to(torch.int32)
    ring = ring.clamp_(0, resolution.num_rings - 1)
    number = torch.arange(series.shape[0], device=label.device)
    first = (label[:, None] + number * series.shape[1]) * resolution.num_rings
    series = series.flatten(0, 2)[first[:, None] + ring]
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
        by_timing: log-likelihood of the timing itself, float32 [T, B].
        resolution: how finely symbols are looked at.
        receiver: says how likely an offset is.
    """
    weight = _cfos(resolution, receiver, by_carrier.device)[1]
    table = by_carrier + weight[:, None] + by_timing[..., None, None, None]
    table = table.permute(1, 2, 0, 3, 4).flatten(2)
    largest = table.amax(2, keepdim=True)
    # Numbers too small for normal floats slow the exponential down by far.
    total = (table - largest).clamp_(min=-60).exp_().sum(2)
    return total.log() + largest[..., 0] - math.log(by_carrier.shape[0] * by_carrier.shape[4])


@cache
def _by_symmetry(
    receiver: ReceiverSettings, device: torch.device
) -> list[tuple[tuple[str, ...], int, Tensor]]:
    """Modulations whose map 4 turns, 2 or 1 leave as it is: names, turns, and index int64.

    Without OQPSK, whose parts differ.
    """
    left, groups = [name for name in LINEAR_MODULATIONS if name != "OQPSK"], []
    for turns in (4, 2, 1):
        names = tuple(name for name in left if _is_symmetric(_points(name, receiver), turns))
        left = [name for name in left if name not in names]
        index = [LINEAR_MODULATIONS.index(name) for name in names]
        groups.append((names, turns, torch.tensor(index, device=device)))
    return groups


def _points(name: str, receiver: ReceiverSettings) -> Tensor:
    """Symbol map, complex64 [points]."""
    points = symbol_map(name, unipolar_ask=receiver.channel.unipolar_ask)
    return torch.tensor(points, dtype=torch.complex64)


def _is_symmetric(points: Tensor, turns: int) -> bool:
    """Whether a turn by 1 / turns maps the points onto themselves."""
    turned = points * unit_phasor(torch.tensor(2 * torch.pi / turns))
    return bool((turned[:, None] - points).abs().amin(1).max() < 1e-3)


@cache
def _cfos(
    resolution: Resolution, receiver: ReceiverSettings, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Carrier offsets, in cycles per sample, and the logarithms of their weights."""
    spread = receiver.cfo_std
    reach = _CFO_DEVIATIONS * spread
    cfos = torch.linspace(-reach, reach, 1 + 2 * math.ceil(reach / resolution.cfo_step), device=device)
    deviations = cfos / max(spread, 1e-12)
    return cfos, torch.log_softmax(-deviations.square() / 2, 0)


def _stretches(num_symbols: int, resolution: Resolution) -> list[int]:
    """First symbol of each stretch of a frame."""
    count = resolution.num_stretches
    return [num_symbols * number // count for number in range(count)]


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
    harmonic = turns * torch.arange(resolution.num_harmonics, device=device)
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
    receiver: ReceiverSettings,
    device: torch.device,
) -> Tensor:
    """Cosine series in the angle of a symbol's log-likelihood ratio, [M, labels, rings, harmonics].

    Every map mirrors itself, so the series has no sines. A ring has the mean of two magnitudes.
    """
    num_angles = 3 * resolution.num_harmonics
    radius = (torch.arange(2 * resolution.num_rings) + 0.5) * (_LARGEST / (2 * resolution.num_rings))
    angle = (torch.arange(num_angles) + 0.5) * (torch.pi / turns / num_angles)
    places = torch.view_as_real(radius[:, None] * unit_phasor(angle))
    harmonic = turns * torch.arange(resolution.num_harmonics)
    cosines = torch.cos(harmonic * angle[:, None]) * (2 / num_angles)
    cosines[:, 0] /= 2
    es_n0_db = label_powers(receiver, angle.device)[0].clamp(*resolution.es_n0_range_db)
    series = []
    for name in names:
        # Many labels lie beyond the range, where all are alike.
        levels, of_label = es_n0_db[LINEAR_MODULATIONS.index(name)].unique(return_inverse=True)
        snrs = (10 ** (levels / 10)).tolist()
        made = torch.stack([_symbol_ratio(places, name, snr, receiver) @ cosines for snr in snrs])
        series.append(made.unflatten(1, (-1, 2)).mean(2)[of_label])
    return torch.stack(series).to(device)


def _symbol_ratio(places: Tensor, name: str, snr: float, receiver: ReceiverSettings) -> Tensor:
    """Log-likelihood ratio to a Gaussian symbol at places of the plane, float32 [..., 2] to [...].

    The noisy symbol has unit mean power, so the noise has 1 / (1 + snr). Of OQPSK it is the share of
    the real part: what is subtracted must not depend on the phase over which is averaged.
    """
    parts = 1 if name == "OQPSK" else 2
    points = torch.view_as_real(_points(name, receiver))[:, :parts] * (snr / (1 + snr)) ** 0.5
    exponent = 2 * places[..., :parts] @ points.T - points.square().sum(1)
    mean = (exponent * (1 + snr)).logsumexp(-1) - math.log(len(points))
    return mean - parts / 2 * (snr * places.square().sum(-1) - math.log(1 + snr))

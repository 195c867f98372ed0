"""Synthetic frames: modulations and labels of RadioML 2018.01A, its channel, and the generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from scipy.fft import next_fast_len
from torch import Tensor

from amc_utils.modulation.analogue import (
    ANALOGUE_MODULATIONS,
    FIRST_ANGLE_MODULATION,
    analogue_kind,
    with_analogue_spectra,
    with_messages,
)
from amc_utils.modulation.constellations import symbol_map

# The order that the data of RadioML 2018.01A follow. The classes.txt shipped with the file is in
# another, wrong order. Source: issue 25 of the repository radioML/dataset.
RADIOML_2018_MODULATIONS = (
    "OOK", "4ASK", "8ASK", "BPSK", "QPSK", "8PSK", "16PSK", "32PSK", "16APSK", "32APSK", "64APSK",
    "128APSK", "16QAM", "32QAM", "64QAM", "128QAM", "256QAM", "AM-SSB-WC", "AM-SSB-SC",
    "AM-DSB-WC", "AM-DSB-SC", "FM", "GMSK", "OQPSK",
)  # fmt: skip
# The classes of RadioML 2016.10a by that file's names; 2016.10b has all but AM-SSB.
RADIOML_2016_MODULATIONS = (
    "8PSK", "AM-DSB", "AM-SSB", "BPSK", "CPFSK", "GFSK", "PAM4", "QAM16", "QAM64", "QPSK", "WBFM",
)  # fmt: skip

FAMILY_OF_MODULATION = {
    "OOK": "ASK", "4ASK": "ASK", "8ASK": "ASK", "BPSK": "PSK", "QPSK": "PSK", "8PSK": "PSK",
    "16PSK": "PSK", "32PSK": "PSK", "OQPSK": "OQPSK", "16APSK": "APSK", "32APSK": "APSK",
    "64APSK": "APSK", "128APSK": "APSK", "16QAM": "QAM", "32QAM": "QAM", "64QAM": "QAM",
    "128QAM": "QAM", "256QAM": "QAM", "AM-SSB-WC": "analogue", "AM-SSB-SC": "analogue",
    "AM-DSB-WC": "analogue", "AM-DSB-SC": "analogue", "FM": "analogue", "GMSK": "GMSK",
    # Those of RadioML 2016.10a under other names; GMSK is continuous-phase FSK as well.
    "PAM4": "ASK", "QAM16": "QAM", "QAM64": "QAM", "AM-DSB": "analogue", "AM-SSB": "analogue",
    "WBFM": "analogue", "CPFSK": "GMSK", "GFSK": "GMSK",
}  # fmt: skip


# All but the analogue classes, GMSK and OOK: the selection of the training log under test.
DIGITAL_MODULATIONS = tuple(
    name
    for name in RADIOML_2018_MODULATIONS
    if FAMILY_OF_MODULATION[name] not in ("analogue", "GMSK") and name != "OOK"
)

MODULATION_GROUPS = {
    "digital": DIGITAL_MODULATIONS,
    "all": RADIOML_2018_MODULATIONS,
    "2016.10a": RADIOML_2016_MODULATIONS,
    "2016.10b": tuple(name for name in RADIOML_2016_MODULATIONS if name != "AM-SSB"),
}
# In this order classes are numbered.
_MODULATIONS = tuple(dict.fromkeys(RADIOML_2018_MODULATIONS + RADIOML_2016_MODULATIONS))

SNR_LABELS = tuple(range(-20, 31, 2))


def expand_modulations(names: Sequence[str]) -> tuple[str, ...]:
    """Modulation names in RadioML order, with the groups of MODULATION_GROUPS expanded.

    Raises:
        ValueError: no name given, or a name that is neither a modulation nor a group.
    """
    unknown = [name for name in names if name not in (*_MODULATIONS, *MODULATION_GROUPS)]
    if unknown or not names:
        got = repr(unknown[0]) if unknown else "an empty list"
        raise ValueError(
            f"modulations must name classes of RadioML or the groups {', '.join(MODULATION_GROUPS)}, "
            f"got {got}; known are {', '.join(_MODULATIONS)}"
        )
    wanted = {member for name in names for member in MODULATION_GROUPS.get(name, (name,))}
    return tuple(name for name in _MODULATIONS if name in wanted)


def snr_grid(snr_range_db: Sequence[int]) -> tuple[int, ...]:
    """SNR labels from [first, last, step], all on RadioML's grid of -20 to 30 dB.

    Raises:
        ValueError: not three numbers, an empty range, or a level off the grid.
    """
    grid = ()
    if len(snr_range_db) == 3 and snr_range_db[2] > 0:
        first, last, step = snr_range_db
        grid = tuple(range(first, last + 1, step))
    if not grid or grid[-1] != snr_range_db[1] or not set(grid) <= set(SNR_LABELS):
        raise ValueError(
            f"snr_range_db must be [first, last, step] in even dB from -20 to 30 and end on last, "
            f"got {list(snr_range_db)}; the whole grid is [-20, 30, 2]"
        )
    return grid


# Random numbers are drawn for whole blocks of frames, so a frame is the same however it is asked for.
# A GPU needs large ones: it spends as long on starting the operations of a small one.
FRAMES_PER_BLOCK = {"cpu": 256, "cuda": 4096}


# Fields of Channel that say what the receiver itself does to frames.
_IMPAIRMENTS = ("iq_gain_db", "iq_phase_rad", "dc_std", "phase_noise_rad", "tilt_std")


@dataclass(frozen=True)
class Channel:
    """Spread of the channel of a frame; the defaults are the preset `radioml_2018`.

    Attributes:
        rolloff_range: smallest and largest roll-off, drawn uniformly.
        timing_range: smallest and largest timing offset in samples, drawn uniformly.
        cfo_std, cfo_max: standard deviation of the carrier offset in cycles per sample; and the largest
            of a further one, drawn uniformly.
        clock_std, clock_max: the same of the relative symbol-rate offset.
        random_phase: whether the carrier phase is uniform in (0, 2 pi), else zero.
        delay_spread: decay time in samples of Rayleigh multipath with an exponential power delay
            profile; 0 for none.
        random_delay_spread: whether that is the largest of decay times that are drawn uniformly.
        fades_power: whether multipath changes the power of a frame too, so that labels mean the SNR
            that is sent; else each keeps its power, and labels mean the SNR that is received.
        pulse_exponents: power of the raised-cosine spectrum that shapes the pulse: 0.5 is one
            root-raised-cosine filter, 1.5 three in a row. Of several, each frame has one.
        whole_sample_timing: whether timing offsets are whole samples and a half.
        snr_slope: decibels of SNR per sample for a decibel of the SNR label.
        snr_offset_db: SNR per sample at label 0; -9.03 with slope 1 where labels mean Es/N0.
        unit_mean_magnitude: whether a signal has unit mean magnitude, not unit power, before noise is
            added, which gives each class a little more SNR; see signals.magnitude_excess_db.
        unipolar_ask: whether the levels of ASK are 0 to M - 1, as OOK's, so that a carrier is sent.
        iq_gain_db, iq_phase_rad: standard deviations of gain and angle by which the receiver's
            quadrature part is off.
        dc_std: standard deviation of a constant added to either part, in units of the frame's scale.
        phase_noise_rad: standard deviation of the carrier phase's random step from sample to sample.
        tilt_std: standard deviation of a, where the receiver's filter is 1 + a sin(2 pi f), f in cycles
            per sample: 0.3 makes 1 dB at half the symbol rate.
        record_scale: whether frames keep the scale of a long record, divided by its standard deviation
            with the mean kept, so that power varies; else every frame has unit power.

    Source: excerpts of RadioML 2018.01A, see docs/radioml_2018_as_measured.md; what no excerpt shows
    (APSK geometries, analogue classes) is as in `table_1`.
    """

    rolloff_range: tuple[float, float] = (0.4, 0.43)
    timing_range: tuple[float, float] = (0.0, 8.0)
    cfo_std: float = 3.3e-5
    cfo_max: float = 0.0
    clock_std: float = 0.0
    clock_max: float = 0.0
    random_phase: bool = True
    delay_spread: float = 0.0
    random_delay_spread: bool = False
    fades_power: bool = False
    pulse_exponents: tuple[float, ...] = (1.5,)
    whole_sample_timing: bool = True
    snr_slope: float = 2.0
    snr_offset_db: float = 0.0
    unit_mean_magnitude: bool = True
    unipolar_ask: bool = True
    record_scale: bool = True
    iq_gain_db: float = 0.0
    iq_phase_rad: float = 0.0
    dc_std: float = 0.0
    phase_noise_rad: float = 0.0
    tilt_std: float = 0.0

    # Not a field; pydantic reads it where channel_from checks settings.
    __pydantic_config__: ClassVar = {"allow_inf_nan": False}

    def __post_init__(self) -> None:
        low, high = self.rolloff_range
        if not 0 < low <= high <= 1:
            raise ValueError(f"rolloff_range must lie in (0, 1] in order, got {self.rolloff_range}")
        spreads = ("cfo_std", "cfo_max", "clock_std", "clock_max", "delay_spread", *_IMPAIRMENTS)
        for name in spreads:
            if (spread := getattr(self, name)) < 0:
                raise ValueError(f"channel must have a {name} that is not negative, got {spread}")
        if min(self.pulse_exponents, default=0) <= 0:
            raise ValueError(f"pulse_exponents must be positive ones, got {self.pulse_exponents}")
        if self.snr_slope <= 0:
            raise ValueError(f"snr_slope must be positive, got {self.snr_slope}")

    @property
    def is_impaired(self) -> bool:
        """Whether the receiver itself distorts frames."""
        return any(getattr(self, name) for name in _IMPAIRMENTS)

    @property
    def pulse_exponent(self) -> float:
        """The one pulse exponent, or that in the middle of several."""
        return sorted(self.pulse_exponents)[len(self.pulse_exponents) // 2]

    def snr_db(self, snr_label: Any) -> Any:
        """SNR per sample in dB of an SNR label, a number, array or tensor; see unit_mean_magnitude."""
        return snr_label * self.snr_slope + self.snr_offset_db


# Source of table_1: O'Shea, Roy, Clancy, "Over-the-Air Deep Learning Based Radio Signal
# Classification", 2018, Table I, without fading.
FILE_CHANNELS = {
    "radioml_2018": Channel(),
    "table_1": Channel(
        rolloff_range=(0.1, 0.4),
        timing_range=(0.0, 16.0),
        cfo_std=1e-4,
        clock_std=1e-4,
        pulse_exponents=(0.5,),
        whole_sample_timing=False,
        snr_slope=1.0,
        unit_mean_magnitude=False,
        unipolar_ask=False,
        record_scale=False,
    ),
}
# A channel for signals off the air, of a transmitter that nobody knows.
CHANNEL_PRESETS = FILE_CHANNELS | {
    "open": replace(
        FILE_CHANNELS["table_1"],
        rolloff_range=(0.05, 1.0),
        cfo_std=0.0,
        cfo_max=0.01,
        clock_std=0.0,
        clock_max=1e-3,
        delay_spread=4.0,
        random_delay_spread=True,
        pulse_exponents=(0.5, 1.0, 1.5),
    ),
}
DEFAULT_PRESET = "radioml_2018"


@cache
def _channel_adapter() -> TypeAdapter:
    """Built once: it takes a hundred times as long as a check."""
    return TypeAdapter(Channel)


def channel_from(settings: Mapping[str, Any]) -> Channel:
    """A preset but for some settings, as they come from YAML or a command line.

    Args:
        settings: fields of Channel, and `preset`, of CHANNEL_PRESETS; without one it is radioml_2018.

    Raises:
        ValueError: a setting that is unknown or out of range.
    """
    settings = dict(settings)
    preset = settings.pop("preset", DEFAULT_PRESET)
    if not isinstance(preset, str) or preset not in CHANNEL_PRESETS:
        raise ValueError(f"channel must have a preset of {', '.join(CHANNEL_PRESETS)}, got {preset!r}")
    known = [field.name for field in fields(Channel)]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise ValueError(f"channel must set some of preset, {', '.join(known)}, got {unknown[0]!r}")
    if isinstance(settings.get("pulse_exponents"), float | int):
        settings["pulse_exponents"] = [settings["pulse_exponents"]]
    try:
        return _channel_adapter().validate_python(vars(CHANNEL_PRESETS[preset]) | settings)
    except ValidationError as error:
        wrong = error.errors()[0]
        if not wrong["loc"]:
            raise wrong["ctx"]["error"] from None
        problem = wrong["msg"][0].lower() + wrong["msg"][1:]
        raise ValueError(
            f"channel cannot set {wrong['loc'][0]} to {settings[wrong['loc'][0]]!r}: {problem}"
        ) from None


@dataclass(frozen=True)
class ChannelState:
    """What the channel did to each frame: float32 [B] each unless another type is named.

    Attributes:
        rolloff: roll-off of the pulse.
        timing_offset: delay of the first sample instant, in samples.
        phase_rad: carrier phase at the first sample.
        cfo: carrier offset in cycles per sample, positive turns counter-clockwise.
        clock_offset: relative excess of the sample interval.
        multipath: impulse response at the sample rate, unit energy, complex64 [B, num_taps]; None for
            no multipath.
        pulse_exponent: see Channel; None where all frames have the same.
        quadrature: what the receiver makes of a unit of the quadrature part, complex64, j if exact;
            None, like those that follow, where the receiver does nothing to the frame.
        dc: what it adds, complex64.
        tilt: a of Channel.tilt_std.
        phase_noise: radians, float32 [B, num_samples].
    """

    rolloff: Tensor
    timing_offset: Tensor
    phase_rad: Tensor
    cfo: Tensor
    clock_offset: Tensor
    multipath: Tensor | None = None
    pulse_exponent: Tensor | None = None
    quadrature: Tensor | None = None
    dc: Tensor | None = None
    tilt: Tensor | None = None
    phase_noise: Tensor | None = None

    def __getitem__(self, rows: Tensor) -> ChannelState:
        """The states of some of the frames."""
        return ChannelState(**{k: None if v is None else v[rows] for k, v in vars(self).items()})


def draw_randomness(
    frame_index: Tensor, *, seed: int, channel: Channel, num_samples: int, num_symbols: int
) -> tuple[Tensor, Tensor, ChannelState]:
    """All that is random about some frames, a function of seed and frame index alone.

    Args:
        frame_index: int64 [B], non-negative.
        seed: seed of the whole set.
        channel: spread of the channel.
        num_samples: samples per frame.
        num_symbols: symbols per frame, margins included.

    Returns:
        Symbol choices, float32 [B, num_symbols] in [0, 1); noise, complex64 [B, num_samples] of unit
        power; and the channel's state.
    """
    size = FRAMES_PER_BLOCK[frame_index.device.type]
    block = frame_index // size
    blocks = _distinct(block)
    options = (channel, num_samples, num_symbols, frame_index.device)
    drawn = [_draw_block(seed, number, *options) for number in blocks]
    # Of torch.unique the inverse would make the host wait once more.
    rows = sum(block > number for number in blocks[:-1]) * size + frame_index % size
    fields = [None if part[0] is None else torch.cat(part)[rows] for part in zip(*drawn, strict=True)]
    return fields[0], fields[1], ChannelState(*fields[2:])


def _distinct(block: Tensor) -> list[int]:
    """Blocks that occur, ascending: the one thing about frames for which the host waits."""
    return np.unique(block.cpu()).tolist()


def _draw_block(
    seed: int, block: int, channel: Channel, num_samples: int, num_symbols: int, device: torch.device
) -> tuple[Tensor | None, ...]:
    state = int(np.random.SeedSequence([seed, block]).generate_state(1, np.uint64)[0] >> 1)
    generator = torch.Generator(device).manual_seed(state)
    options = {"generator": generator, "device": device}
    size = FRAMES_PER_BLOCK[device.type]
    uniform = torch.rand(size, num_symbols, **options)
    rolloff, timing, phase = torch.rand(3, size, **options)
    cfo, clock = torch.randn(2, size, **options)
    noise = torch.randn(size, num_samples, dtype=torch.complex64, **options)
    # Constants are filled in on the device: for a copy of them the host would wait.
    rolloff = torch.lerp(*(rolloff.new_full((), end) for end in channel.rolloff_range), rolloff)
    timing = torch.lerp(*(timing.new_full((), end) for end in channel.timing_range), timing)
    if channel.whole_sample_timing:
        timing = timing.floor() + 0.5
    phase = 2 * torch.pi * phase * channel.random_phase
    cfo, clock = cfo * channel.cfo_std, clock * channel.clock_std
    # What only some channels have is drawn last, so that frames of the others stay as they are.
    if channel.cfo_max or channel.clock_max:
        cfo_share, clock_share = 2 * torch.rand(2, size, **options) - 1
        cfo, clock = cfo + cfo_share * channel.cfo_max, clock + clock_share * channel.clock_max
    taps = _draw_multipath(size, channel, options) if channel.delay_spread > 0 else None
    exponent = None
    if len(channel.pulse_exponents) > 1:
        which = (torch.rand(size, **options) * len(channel.pulse_exponents)).long()
        exponent = torch.stack([timing.new_full((), e) for e in channel.pulse_exponents])[which]
    impairments = (None,) * 4
    if channel.is_impaired:
        impairments = _draw_impairments(size, num_samples, channel, options)
    return uniform, noise, rolloff, timing, phase, cfo, clock, taps, exponent, *impairments


def _draw_multipath(size: int, channel: Channel, options: dict[str, Any]) -> Tensor:
    """Impulse responses of unit energy, complex64 [size, num_taps]."""
    delay = torch.arange(int(np.ceil(8 * channel.delay_spread)) + 1, device=options["device"])
    spread = torch.full((size, 1), channel.delay_spread, device=options["device"])
    if channel.random_delay_spread:
        spread = spread * torch.rand(size, 1, **options)
    taps = torch.randn(size, len(delay), dtype=torch.complex64, **options)
    taps = taps * torch.exp(-delay / (2 * spread.clamp_min(1e-3)))
    return taps / torch.linalg.vector_norm(taps, dim=1, keepdim=True)


def _draw_impairments(
    size: int, num_samples: int, channel: Channel, options: dict[str, Any]
) -> tuple[Tensor, ...]:
    """The last four fields of ChannelState."""
    gain, skew, tilt = torch.randn(3, size, **options)
    # In-phase and quadrature part of complex normal numbers have half the variance each.
    dc = torch.randn(size, dtype=torch.complex64, **options) * (2**0.5 * channel.dc_std)
    steps = torch.randn(size, num_samples, **options) * channel.phase_noise_rad
    quadrature = unit_phasor(torch.pi / 2 + skew * channel.iq_phase_rad)
    quadrature = quadrature * 10 ** (gain * channel.iq_gain_db / 20)
    return quadrature, dc, tilt * channel.tilt_std, steps.cumsum(1)


NUM_SAMPLES = 1024
SAMPLES_PER_SYMBOL = 8
# Symbols beyond each end of the frame, so that the ends of the periodic sequence never meet in it.
MARGIN_IN_SYMBOLS = 8


@dataclass(frozen=True)
class GeneratedFrames:
    """Frames with the truth behind them.

    Attributes:
        iq: complex64 [B, num_samples]; unit mean power per frame, or the scale of a record, see
            Channel.record_scale.
        symbols: complex64 [B, num_symbols], the periodic sequence that was sent, unit mean power;
            symbol k peaks at sample (k - MARGIN_IN_SYMBOLS) * SAMPLES_PER_SYMBOL - timing_offset.
            Of an analogue class the message before any filter, with its carrier; of GMSK the bits.
        state: what the channel did.
    """

    iq: Tensor
    symbols: Tensor
    state: ChannelState


def raised_cosine(frequency: Tensor, rolloff: Tensor) -> Tensor:
    """Raised-cosine power response at `frequency` (cycles per symbol): 1 in band, 0 out of band."""
    slope = (frequency.abs() - (1 - rolloff) / 2) / rolloff
    return 0.5 * (1 + torch.cos(torch.pi * slope.clamp(0, 1)))


def pulse_energy(rolloff: Tensor, exponent: float | Tensor) -> Tensor:
    """Energy of the pulse whose spectrum is a raised cosine to a power, float32 like `rolloff`.

    In units of that of a brick-wall spectrum of the symbol rate: the power of a signal of uncorrelated
    symbols of unit power. It is 1 for the exponent 0.5.
    """
    # The mean of cos(x)^(4 e) over a quarter of its period.
    if not isinstance(exponent, Tensor):
        exponent = rolloff.new_full((), exponent)
    order = 4 * exponent.double()
    slope = torch.lgamma((order + 1) / 2) - torch.lgamma(order / 2 + 1)
    slope = (slope.exp() / torch.pi**0.5).to(rolloff.dtype)
    return 1 - rolloff + 2 * rolloff * slope


def magnitude_excess_db(modulations: Sequence[str], channel: Channel) -> tuple[float, ...]:
    """Power over squared mean magnitude of noiseless signals in dB, for each modulation.

    So much SNR a class has beyond Channel.snr_db where signals are scaled to unit mean magnitude, not
    unit power, before noise is added; zero for channels that scale them to unit power. Measured on 512
    frames of a fixed seed, within 0.02 dB.
    """
    if not channel.unit_mean_magnitude:
        return (0.0,) * len(modulations)
    plain = replace(channel, unit_mean_magnitude=False, record_scale=False, delay_spread=0.0)
    still = dict.fromkeys(("cfo_std", "cfo_max", *_IMPAIRMENTS), 0.0)
    plain = replace(plain, **still)
    return tuple(_excess_db(name, plain) for name in modulations)


@cache
def _excess_db(modulation: str, channel: Channel) -> float:
    index, noiseless = torch.arange(512), torch.full((512,), 200.0)
    made = generate_frames(
        index, index * 0, noiseless, modulations=(modulation,), seed=0, channel=channel
    )
    magnitude = made.iq.abs().double()
    # Of the whole record, not frame by frame: its scale is one number.
    return float(10 * (magnitude.square().mean() / magnitude.mean().square()).log10())


def generate_frames(
    frame_index: Tensor,
    modulation: Tensor,
    snr_label: Tensor,
    *,
    modulations: Sequence[str],
    seed: int,
    channel: Channel,
    num_samples: int = NUM_SAMPLES,
) -> GeneratedFrames:
    """Noisy frames; the same seed and frame index give the same frame in any batch, order or call.

    Args:
        frame_index: int64 [B], non-negative; its device is where the frames are made. The random
            streams of a CPU and a GPU differ, so frames agree between devices of one kind only.
        modulation: int64 [B], index into `modulations`.
        snr_label: [B], SNR label; the SNR per complex sample over the whole sampled band follows from
            it by Channel.snr_db.
        modulations: names, any of RadioML 2018.01A's.
        seed: seed of the whole set.
        channel: spread of the channel.
        num_samples: samples per frame, a multiple of SAMPLES_PER_SYMBOL.
    """
    device = frame_index.device
    num_symbols = num_samples // SAMPLES_PER_SYMBOL + 2 * MARGIN_IN_SYMBOLS
    uniform, noise, state = draw_randomness(
        frame_index, seed=seed, channel=channel, num_samples=num_samples, num_symbols=num_symbols
    )
    kind = analogue_kind(tuple(modulations), device)
    # Messages take the place of the symbols that are drawn for analogue classes too.
    drawn = tuple("BPSK" if name in ANALOGUE_MODULATIONS else name for name in modulations)
    points, orders = symbol_table(drawn, device, channel.unipolar_ask)
    choice = (uniform * orders[modulation][:, None]).long()
    symbols = points[modulation[:, None], choice]
    if kind is not None:
        kind = kind[modulation]
        symbols = with_messages(symbols, kind, uniform)
    is_offset = modulation == [*modulations, "OQPSK"].index("OQPSK")
    options = {"kind": kind, "num_samples": num_samples, "fades_power": channel.fades_power}
    options["pulse_exponent"] = channel.pulse_exponents[0]
    iq = modulate(symbols, state, is_offset=is_offset, **options)
    noise_std = _noise_std(modulation, snr_label, tuple(modulations), channel)
    direct, varying = _expected_powers(points, orders, modulation, kind, state, channel)
    total = direct + varying
    if channel.pulse_exponents != (0.5,):
        iq = iq / total.sqrt()[:, None]
    deviation = (varying / total + noise_std.square()).sqrt() if channel.record_scale else None
    iq = _received(iq + noise * noise_std[:, None], deviation, state, channel)
    return GeneratedFrames(iq, symbols, state)


def _received(iq: Tensor, deviation: Tensor | None, state: ChannelState, channel: Channel) -> Tensor:
    """Noisy frames at their scale, after what the receiver's faults do to them."""
    iq = _scaled(iq, deviation)
    if not channel.is_impaired:
        return iq
    iq = _impaired(iq, state)
    return iq if channel.record_scale else _scaled(iq, None)


def _scaled(iq: Tensor, deviation: Tensor | None) -> Tensor:
    """Frames over the standard deviation of their record, or at unit mean power each."""
    if deviation is not None:
        return iq / deviation[:, None]
    root_energy = torch.linalg.vector_norm(torch.view_as_real(iq), dim=(1, 2))
    return iq * (iq.shape[1] ** 0.5 / root_energy)[:, None]


def _impaired(iq: Tensor, state: ChannelState) -> Tensor:
    """Frames as a receiver with faults hands them on: its oscillator, filter, and two parts."""
    iq = iq * unit_phasor(state.phase_noise)
    # sin(2 pi f) is a difference of neighbours; at the ends there is but one.
    ends = torch.nn.functional.pad(torch.view_as_real(iq).transpose(1, 2), (1, 1), mode="replicate")
    real, imaginary = (ends[..., 2:] - ends[..., :-2]).unbind(1)
    iq = iq + torch.complex(imaginary, -real) * (state.tilt[:, None] / 2)
    return iq.real + iq.imag * state.quadrature[:, None] + state.dc[:, None]


def _noise_std(
    modulation: Tensor, snr_label: Tensor, modulations: tuple[str, ...], channel: Channel
) -> Tensor:
    """Standard deviation of the noise beside a signal of unit power, float32 [B]."""
    noise_std = 10 ** (-channel.snr_db(snr_label.to(torch.float32)) / 20)
    excess_db = _excess_on(noise_std.device, modulations, channel)
    return noise_std * 10 ** (-excess_db[modulation] / 20)


@cache
def _excess_on(device: torch.device, modulations: tuple[str, ...], channel: Channel) -> Tensor:
    return torch.tensor(magnitude_excess_db(modulations, channel), device=device)


def _expected_powers(
    points: Tensor,
    orders: Tensor,
    modulation: Tensor,
    kind: Tensor | None,
    state: ChannelState,
    channel: Channel,
) -> tuple[Tensor, Tensor]:
    """Power of the carrier that symbols of non-zero mean send, and of the rest; float32 [B] each."""
    direct = (points.sum(1) / orders).abs().square()[modulation]
    exponent = channel.pulse_exponents[0] if state.pulse_exponent is None else state.pulse_exponent
    shaped = pulse_energy(state.rolloff, exponent)
    varying = (1 - direct) * shaped
    if kind is not None:
        # Analogue signals have unit power, of which no part is told apart: the real file's are unknown.
        direct = torch.where(kind >= 0, 0, direct)
        is_shaped = (kind >= 0) & (kind < FIRST_ANGLE_MODULATION)
        varying = torch.where(kind >= 0, torch.where(is_shaped, shaped, 1), varying)
    return direct, varying


def modulate(
    symbols: Tensor,
    state: ChannelState,
    *,
    is_offset: Tensor,
    kind: Tensor | None = None,
    num_samples: int = NUM_SAMPLES,
    pulse_exponent: float = 0.5,
    fades_power: bool = True,
) -> Tensor:
    """Noiseless received frames, complex64 [B, num_samples].

    Their mean power is that of the pulse, see pulse_energy: 1 in expectation for the exponent 0.5.

    Args:
        symbols: complex64 [B, num_symbols], sent periodically, see GeneratedFrames.
        state: the channel of each frame.
        is_offset: bool [B], whether the quadrature part is half a symbol late (OQPSK).
        kind: int64 [B], see analogue_kind; None where all are linear.
        num_samples: samples per frame.
        pulse_exponent: see Channel; that of the state comes before it.
        fades_power: see Channel.
    """
    num_symbols = symbols.shape[1]
    # Every bin that a pulse of roll-off 1 occupies, whatever the batch needs: the arithmetic, and so
    # the last bit of a frame, must not depend on the frames beside it. The one bin more, always empty,
    # makes the rows whole vectors of a CPU, which rounds what is left over at the end otherwise.
    bins = torch.arange(1 - num_symbols, num_symbols + 1, device=symbols.device)
    frequency = bins / num_symbols
    spectrum = torch.fft.fft(symbols)
    direct, mirrored = spectrum[:, bins % num_symbols], spectrum[:, -bins % num_symbols].conj()
    late = torch.where(is_offset[:, None], unit_phasor(-torch.pi * frequency), 1)
    shaped = (direct + mirrored + (direct - mirrored) * late) / (2 * num_symbols)
    exponent = pulse_exponent if state.pulse_exponent is None else state.pulse_exponent[:, None]
    shaped = shaped * raised_cosine(frequency, state.rolloff[:, None]) ** exponent
    if kind is not None:
        shaped = with_analogue_spectra(shaped, kind, symbols)
    if state.multipath is not None:
        # By a transform, whose rounding does not depend on the frames beside it as a matrix product's.
        period = num_symbols * SAMPLES_PER_SYMBOL
        faded = shaped * torch.fft.fft(state.multipath, period)[:, bins % period]
        before, after = (torch.linalg.vector_norm(s, dim=1, keepdim=True) for s in (shaped, faded))
        shaped = faded if fades_power else faded * (before / after)
    return _sample(shaped, bins, state, num_symbols * SAMPLES_PER_SYMBOL, num_samples)


def _sample(
    spectrum: Tensor, bins: Tensor, state: ChannelState, period: int, num_samples: int
) -> Tensor:
    """The signal of `spectrum` [B, F] at the receiver's sample instants, with its carrier.

    Chirp-z transform: f n = (f^2 + n^2 - (n - f)^2) / 2 makes the sum over f a convolution with a
    chirp. Source: Rabiner, Schafer, Rader, "The chirp z-transform algorithm", 1969.
    """
    reach = (len(bins) - 1) // 2
    ramp = torch.arange(num_samples + reach, device=spectrum.device, dtype=torch.float32)
    # The chirp of a perfect clock has large phases, so it comes from float64; the rest is small.
    drift = unit_phasor(torch.pi * state.clock_offset[:, None] * (ramp.square() / period))
    chirp = _base_chirp(len(ramp), period, spectrum.device) * drift

    start = MARGIN_IN_SYMBOLS * SAMPLES_PER_SYMBOL + state.timing_offset
    advance = unit_phasor(2 * torch.pi / period * start[:, None] * bins)
    length = next_fast_len(num_samples + 2 * reach)
    # The chirp is even; at lags -reach to num_samples + reach - 1.
    both_sides = torch.cat([chirp[:, 1 : reach + 1].flip(1), chirp], 1)
    front = torch.fft.fft(spectrum * advance * both_sides[:, : len(bins)], length)
    kernel = torch.fft.fft(both_sides.conj(), length)
    swept = torch.fft.ifft(front * kernel)[:, 2 * reach : 2 * reach + num_samples]
    turn = 2 * torch.pi * state.cfo[:, None] * ramp[:num_samples] + state.phase_rad[:, None]
    return swept * chirp[:, :num_samples] * unit_phasor(turn)


def unit_phasor(angle_rad: Tensor) -> Tensor:
    """exp(j angle), complex64, of angles in radians."""
    return torch.complex(angle_rad.cos(), angle_rad.sin())


def to_unit_power(iq: Tensor) -> Tensor:
    """Frames, complex64 [B, num_samples], scaled to unit mean power each; silent ones stay so."""
    return iq / iq.abs().square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)


@cache
def _base_chirp(length: int, period: int, device: torch.device) -> Tensor:
    ramp = torch.arange(length, dtype=torch.float64)
    return unit_phasor(torch.pi * ramp.square() / period).to(torch.complex64).to(device)


@cache
def symbol_table(
    modulations: tuple[str, ...], device: torch.device, unipolar_ask: bool = False
) -> tuple[Tensor, Tensor]:
    """Symbol maps padded to one table, complex64 [num_modulations, max order], and the orders."""
    maps = [symbol_map(name, unipolar_ask=unipolar_ask) for name in modulations]
    orders = torch.tensor([len(points) for points in maps])
    table = torch.zeros(len(maps), int(orders.max()), dtype=torch.complex64)
    for row, points in enumerate(maps):
        table[row, : len(points)] = torch.from_numpy(points.copy())
    return table.to(device), orders.to(device)

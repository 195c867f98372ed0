"""The random channel of a frame, drawn reproducibly frame by frame; presets by name.

`radioml_2018` is the channel of RadioML 2018.01A as excerpts of the file show it, `table_1` that of the
paper which describes the file. They differ in pulse, noise, timing, carrier, ASK and scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Random numbers are drawn for whole blocks of frames, so a frame is the same however it is asked for.
FRAMES_PER_BLOCK = 256


@dataclass(frozen=True)
class Channel:
    """Spread of the channel of a frame; the defaults are the preset `radioml_2018`.

    Attributes:
        rolloff_range: smallest and largest roll-off, drawn uniformly.
        timing_range: smallest and largest timing offset in samples, drawn uniformly.
        cfo_std: standard deviation of the carrier offset in cycles per sample.
        clock_std: standard deviation of the relative symbol-rate offset.
        random_phase: whether the carrier phase is uniform in (0, 2 pi), else zero.
        delay_spread: decay time in samples of Rayleigh multipath with an exponential power delay
            profile, scaled to unit energy per frame; 0 for none.
        pulse_exponent: power of the raised-cosine spectrum that shapes the pulse: 0.5 is one
            root-raised-cosine filter, 1.5 three in a row.
        whole_sample_timing: whether timing offsets are whole samples and a half.
        snr_slope: decibels of SNR per sample for a decibel of the SNR label.
        snr_offset_db: SNR per sample at label 0; -9.03 with slope 1 where labels mean Es/N0.
        unit_mean_magnitude: whether a signal has unit mean magnitude, not unit power, before noise is
            added, which gives each class a little more SNR; see signals.magnitude_excess_db.
        unipolar_ask: whether the levels of ASK are 0 to M - 1, as OOK's, so that a carrier is sent.
        record_scale: whether frames keep the scale of a long record, divided by its standard deviation
            with the mean kept, so that power varies; else every frame has unit power.

    Source: excerpts of RadioML 2018.01A, see docs/radioml_2018_as_measured.md; what no excerpt shows
    (APSK geometries, analogue classes) is as in `table_1`.
    """

    rolloff_range: tuple[float, float] = (0.4, 0.43)
    timing_range: tuple[float, float] = (0.0, 8.0)
    cfo_std: float = 3.3e-5
    clock_std: float = 0.0
    random_phase: bool = True
    delay_spread: float = 0.0
    pulse_exponent: float = 1.5
    whole_sample_timing: bool = True
    snr_slope: float = 2.0
    snr_offset_db: float = 0.0
    unit_mean_magnitude: bool = True
    unipolar_ask: bool = True
    record_scale: bool = True

    def __post_init__(self) -> None:
        low, high = self.rolloff_range
        if not 0 < low <= high <= 1:
            raise ValueError(f"rolloff_range must lie in (0, 1] in order, got {self.rolloff_range}")
        if min(self.cfo_std, self.clock_std, self.delay_spread) < 0:
            raise ValueError(f"cfo_std, clock_std and delay_spread must not be negative, got {self}")
        if self.pulse_exponent <= 0 or self.snr_slope <= 0:
            raise ValueError(f"pulse_exponent and snr_slope must be positive, got {self}")

    def snr_db(self, snr_label: Any) -> Any:
        """SNR per sample in dB of an SNR label, a number, array or tensor; see unit_mean_magnitude."""
        return snr_label * self.snr_slope + self.snr_offset_db


# Source of table_1: O'Shea, Roy, Clancy, "Over-the-Air Deep Learning Based Radio Signal
# Classification", 2018, Table I, without fading.
CHANNELS = {
    "radioml_2018": Channel(),
    "table_1": Channel(
        rolloff_range=(0.1, 0.4),
        timing_range=(0.0, 16.0),
        cfo_std=1e-4,
        clock_std=1e-4,
        pulse_exponent=0.5,
        whole_sample_timing=False,
        snr_slope=1.0,
        unit_mean_magnitude=False,
        unipolar_ask=False,
        record_scale=False,
    ),
}
DEFAULT_PRESET = "radioml_2018"


def channel_from(settings: Mapping[str, Any]) -> Channel:
    """A preset but for some settings, as they come from YAML or a command line.

    Args:
        settings: fields of Channel, and `preset`, a name of CHANNELS; without one it is radioml_2018.

    Raises:
        ValueError: a setting that is unknown or out of range.
    """
    settings = dict(settings)
    preset = settings.pop("preset", DEFAULT_PRESET)
    if preset not in CHANNELS:
        raise ValueError(f"channel must have a preset of {', '.join(CHANNELS)}, got {preset!r}")
    known = list(Channel.__dataclass_fields__)
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise ValueError(f"channel must set some of preset, {', '.join(known)}, got {unknown[0]!r}")
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    return replace(CHANNELS[preset], **given)


@dataclass(frozen=True)
class ReceiverSettings:
    """What a receiver knows about the signals of a channel.

    Attributes:
        rolloffs: roll-offs that are tried; several only for the exponent 0.5, whose matched filters
            all have the same energy.
        mean_rolloff: the one that stands for all where none is estimated.
        pulse_exponent: power of the raised-cosine spectrum, see Channel.
        guard_symbols: symbols at each end that lie in the transient of the equaliser and are left out.
        max_cfo: carrier offsets are tried to this distance to each side, in cycles per sample: 3.75
            standard deviations of the channel's.
        level_range_db: lowest and highest level that the picture of levels shows.
    """

    rolloffs: tuple[float, ...] = (0.415,)
    mean_rolloff: float = 0.415
    pulse_exponent: float = 1.5
    guard_symbols: int = 4
    max_cfo: float = 1.25e-4
    level_range_db: tuple[float, float] = (-72.0, 18.0)

    def __post_init__(self) -> None:
        if len(self.rolloffs) > 1 and self.pulse_exponent != 0.5:
            raise ValueError(
                f"rolloffs must be a single one unless pulse_exponent is 0.5, got {self.rolloffs}"
            )


# One for each preset of CHANNELS.
RECEIVERS = {
    "radioml_2018": ReceiverSettings(),
    "table_1": ReceiverSettings(
        rolloffs=tuple(round(0.1 + 0.025 * step, 3) for step in range(13)),
        mean_rolloff=0.25,
        pulse_exponent=0.5,
        guard_symbols=2,
        max_cfo=3.75e-4,
        level_range_db=(-45.0, 15.0),
    ),
}
DEFAULT_RECEIVER = RECEIVERS[DEFAULT_PRESET]


def receiver_settings(channel: Mapping[str, Any]) -> ReceiverSettings:
    """Receiver for the preset that settings of a channel name, see channel_from."""
    return RECEIVERS[channel.get("preset", DEFAULT_PRESET)]


@dataclass(frozen=True)
class ChannelState:
    """What the channel did to each frame: float32 [B] each, multipath complex64 [B, num_taps].

    Attributes:
        rolloff: roll-off of the pulse.
        timing_offset: delay of the first sample instant, in samples.
        phase_rad: carrier phase at the first sample.
        cfo: carrier offset in cycles per sample, positive turns counter-clockwise.
        clock_offset: relative excess of the sample interval.
        multipath: impulse response at the sample rate, unit energy; None for no multipath.
    """

    rolloff: Tensor
    timing_offset: Tensor
    phase_rad: Tensor
    cfo: Tensor
    clock_offset: Tensor
    multipath: Tensor | None = None

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
    blocks, where = torch.unique(frame_index // FRAMES_PER_BLOCK, return_inverse=True)
    drawn = [
        _draw_block(seed, block, channel, num_samples, num_symbols, frame_index.device)
        for block in blocks.tolist()
    ]
    rows = where * FRAMES_PER_BLOCK + frame_index % FRAMES_PER_BLOCK
    fields = [None if part[0] is None else torch.cat(part)[rows] for part in zip(*drawn, strict=True)]
    return fields[0], fields[1], ChannelState(*fields[2:])


def _draw_block(
    seed: int,
    block: int,
    channel: Channel,
    num_samples: int,
    num_symbols: int,
    device: torch.device,
) -> tuple[Tensor | None, ...]:
    state = int(np.random.SeedSequence([seed, block]).generate_state(1, np.uint64)[0] >> 1)
    generator = torch.Generator(device).manual_seed(state)
    options = {"generator": generator, "device": device}
    size = FRAMES_PER_BLOCK
    uniform = torch.rand(size, num_symbols, **options)
    rolloff, timing, phase = torch.rand(3, size, **options)
    cfo, clock = torch.randn(2, size, **options)
    noise = torch.randn(size, num_samples, dtype=torch.complex64, **options)
    rolloff = torch.lerp(*torch.tensor(channel.rolloff_range, device=device), rolloff)
    timing = torch.lerp(*torch.tensor(channel.timing_range, device=device), timing)
    if channel.whole_sample_timing:
        timing = timing.floor() + 0.5
    phase = 2 * torch.pi * phase * channel.random_phase
    taps = None
    if channel.delay_spread > 0:
        delay = torch.arange(int(np.ceil(8 * channel.delay_spread)) + 1, device=device)
        taps = torch.randn(size, len(delay), dtype=torch.complex64, **options)
        taps = taps * torch.exp(-delay / (2 * channel.delay_spread))
        taps = taps / torch.linalg.vector_norm(taps, dim=1, keepdim=True)
    return (
        uniform,
        noise,
        rolloff,
        timing,
        phase,
        cfo * channel.cfo_std,
        clock * channel.clock_std,
        taps,
    )

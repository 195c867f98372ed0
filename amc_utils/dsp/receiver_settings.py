"""What a receiver knows about the signals of a channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from amc_utils.modulation.constellations import symbol_map
from amc_utils.signals import (
    CHANNEL_PRESETS,
    DEFAULT_PRESET,
    SAMPLES_PER_SYMBOL,
    SNR_LABELS,
    Channel,
    channel_from,
    magnitude_excess_db,
    pulse_energy,
)


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
        noise_edge: edge of the filter that noise beside the signal passes, in cycles per sample; it
            stops a signal that ends 0.03 below.
        is_blind: whether pulse, carrier offset and multipath are found from each frame, see
            amc_utils.dsp.equalisation; rolloffs then say nothing, and max_cfo is what may be left.
        level_range_db: lowest and highest level that the image of levels shows.
        channel: gives the spread of carrier offsets, the levels of ASK and the SNRs of the labels.
        snr_labels: ascending; no frame has an SNR between theirs.
    """

    rolloffs: tuple[float, ...] = (0.415,)
    mean_rolloff: float = 0.415
    pulse_exponent: float = 1.5
    guard_symbols: int = 4
    max_cfo: float = 1.25e-4
    noise_edge: float = 0.12
    is_blind: bool = False
    level_range_db: tuple[float, float] = (-72.0, 18.0)
    channel: Channel = CHANNEL_PRESETS[DEFAULT_PRESET]
    snr_labels: tuple[float, ...] = SNR_LABELS

    @property
    def cfo_std(self) -> float:
        """Standard deviation of the carrier offset that is left, see max_cfo."""
        return self.max_cfo / 3.75 if self.is_blind else self.channel.cfo_std

    def __post_init__(self) -> None:
        if len(self.rolloffs) > 1 and self.pulse_exponent != 0.5:
            raise ValueError(
                f"rolloffs must be a single one unless pulse_exponent is 0.5, got {self.rolloffs}"
            )


# One for each preset of CHANNEL_PRESETS.
RECEIVERS = {
    "radioml_2018": ReceiverSettings(),
    "table_1": ReceiverSettings(
        rolloffs=tuple(round(0.1 + 0.025 * step, 3) for step in range(13)),
        mean_rolloff=0.25,
        pulse_exponent=0.5,
        guard_symbols=2,
        max_cfo=3.75e-4,
        level_range_db=(-45.0, 15.0),
        channel=CHANNEL_PRESETS["table_1"],
    ),
    "open": ReceiverSettings(
        pulse_exponent=0.5,
        guard_symbols=2,
        noise_edge=0.165,
        is_blind=True,
        level_range_db=(-45.0, 15.0),
        channel=CHANNEL_PRESETS["open"],
    ),
}


DEFAULT_RECEIVER = RECEIVERS[DEFAULT_PRESET]


def receiver_settings(channel: Mapping[str, Any]) -> ReceiverSettings:
    """Receiver for the preset that settings of a channel name, and their channel; see channel_from."""
    return replace(RECEIVERS[channel.get("preset", DEFAULT_PRESET)], channel=channel_from(channel))


def class_snr_db(modulations: Sequence[str], snr_labels: Sequence[float], channel: Channel) -> Tensor:
    """SNR per sample in dB of each class, float64 [num_modulations, num_labels]."""
    excess_db = torch.tensor(magnitude_excess_db(modulations, channel), dtype=torch.float64)
    return excess_db[:, None] + channel.snr_db(torch.tensor(snr_labels, dtype=torch.float64))


def class_es_n0_db(modulations: Sequence[str], snr_labels: Sequence[float], channel: Channel) -> Tensor:
    """Energy of a symbol over noise density in dB of each linear class, float64 [M, num_labels].

    10 log10(SAMPLES_PER_SYMBOL) above the SNR per sample, but for a sent carrier: of a pulse that
    is narrower than the symbol rate's band it makes more power than of symbols.
    """
    return class_snr_db(modulations, snr_labels, channel) + 10 * torch.log10(
        SAMPLES_PER_SYMBOL * symbol_energy_share(modulations, channel)[:, None]
    )


def symbol_energy_share(modulations: Sequence[str], channel: Channel) -> Tensor:
    """Energy of a symbol over that of SAMPLES_PER_SYMBOL samples, float64 [M]; 1 without carrier."""
    maps = [symbol_map(name, unipolar_ask=channel.unipolar_ask) for name in modulations]
    direct = torch.tensor([abs(points.mean()) ** 2 for points in maps], dtype=torch.float64)
    middle = torch.tensor(sum(channel.rolloff_range) / 2, dtype=torch.float64)
    energy = pulse_energy(middle, channel.pulse_exponent)
    return energy / (direct + (1 - direct) * energy)

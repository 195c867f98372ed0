"""What a receiver knows about the signals of a channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from amc_utils.signals import DEFAULT_PRESET


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
        cfo_std: standard deviation of the channel's, in cycles per sample.
        unipolar_ask: see Channel.
        level_range_db: lowest and highest level that the image of levels shows.
    """

    rolloffs: tuple[float, ...] = (0.415,)
    mean_rolloff: float = 0.415
    pulse_exponent: float = 1.5
    guard_symbols: int = 4
    max_cfo: float = 1.25e-4
    cfo_std: float = 3.3e-5
    unipolar_ask: bool = True
    level_range_db: tuple[float, float] = (-72.0, 18.0)

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
        cfo_std=1e-4,
        unipolar_ask=False,
        level_range_db=(-45.0, 15.0),
    ),
}


DEFAULT_RECEIVER = RECEIVERS[DEFAULT_PRESET]


def receiver_settings(channel: Mapping[str, Any]) -> ReceiverSettings:
    """Receiver for the preset that settings of a channel name, see channel_from."""
    return RECEIVERS[channel.get("preset", DEFAULT_PRESET)]

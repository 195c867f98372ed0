"""Parameters of the notebooks: names, types, ranges, files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from amc_utils.channel import Channel, ReceiverSettings, channel_from, receiver_settings
from amc_utils.engine import Engine
from amc_utils.labels import expand_modulations, snr_grid
from amc_utils.losses import SNR_LOSSES
from amc_utils.parameters import Parameters

Fraction = Field(ge=0, lt=1)
NotNegative = Field(ge=0, allow_inf_nan=False)
Positive = Field(gt=0, allow_inf_nan=False)
Count = Field(ge=1)


class DataParameters(Parameters):
    """Which frames: a file in RadioML 2018.01A's layout, or the generator when `data_path` is empty."""

    data_path: str
    modulations: list[str]
    snr_range_db: list[int]
    num_frames_per_cell: int = Count
    # Runs from before these could be set had their defaults.
    label_order: Literal["corrected", "shipped"] = "corrected"
    channel: dict[str, float | int | bool | str | list[float]] = Field(default_factory=dict)
    unit_power: bool = False
    channels: list[str]
    image_size: int = Field(ge=8, le=1024)
    profile: str
    seed: int = Field(ge=0, lt=2**63)

    @field_validator("data_path")
    @classmethod
    def _file_exists(cls, value: str) -> str:
        path = os.path.expanduser(os.path.expandvars(value))
        if path.startswith("$"):
            raise ValueError(f"data_path must name a file, and the environment has no variable {path}")
        hint = 'README "Your RadioML file" says where to get it; empty draws synthetic frames'
        return _existing_file(path, "RadioML file", hint)

    @field_validator("modulations")
    @classmethod
    def _modulations_known(cls, value: list[str]) -> list[str]:
        expand_modulations(value)
        return value

    @field_validator("snr_range_db")
    @classmethod
    def _snr_on_grid(cls, value: list[int]) -> list[int]:
        snr_grid(value)
        return value

    @field_validator("channel")
    @classmethod
    def _channel_known(cls, value: dict) -> dict:
        channel_from(value)
        return value

    @property
    def synthetic_channel(self) -> Channel:
        """Channel of synthetic frames: a preset, but for what `channel` sets."""
        return channel_from(self.channel)

    @property
    def receiver(self) -> ReceiverSettings:
        """What pictures of symbols know about the channel: that of the preset, whatever else is set."""
        return receiver_settings(self.channel)

    @property
    def picture_options(self) -> dict[str, Any]:
        """What a network is given, as constellation.network_input takes it."""
        return {
            "channels": self.channels,
            "image_size": self.image_size,
            "receiver": self.receiver,
            "unit_power": self.unit_power,
        }

    @property
    def modulation_names(self) -> tuple[str, ...]:
        """Modulations in RadioML order, groups expanded."""
        return expand_modulations(self.modulations)

    @property
    def snr_labels(self) -> tuple[int, ...]:
        """SNR levels in dB."""
        return snr_grid(self.snr_range_db)


class ExplorationParameters(DataParameters):
    """What notebook 01 looks at."""

    example: str

    @model_validator(mode="after")
    def _example_selected(self) -> Self:
        if self.example not in self.modulation_names:
            raise ValueError(f"example must be one of {self.modulation_names}, got {self.example!r}")
        return self


class TrainingParameters(DataParameters):
    """Everything that a training run depends on."""

    network: str
    network_options: dict[str, bool | int | float | str]
    dropout: float = Fraction
    task_weighting: Literal["log_variance", "equal", "sum"]
    snr_loss_weights: list[Annotated[float, NotNegative]] = Field(min_length=2, max_length=2)
    learning_rate: float = Positive
    weight_decay: float = NotNegative
    schedule: Literal["constant", "cosine", "one_cycle"]
    gradient_clip: float = NotNegative
    batch_size: int = Field(ge=2)
    num_epochs: int = Count
    shuffle: bool
    fresh_frames: bool
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    # Runs from before these could be set had their defaults.
    snr_loss: str = "cross_entropy"
    task_weights: list[Annotated[float, Positive]] = Field([1.0, 1.0], min_length=2, max_length=2)
    # Times learning_rate; log-variances have far to go in a short run.
    log_variance_rate: Annotated[float, Positive] = 1.0
    trust_file: bool = False
    engine: Engine = Field(default_factory=Engine)
    run_name: str = Field(pattern=r"^[A-Za-z0-9._-]*$")
    resume_from: str

    @field_validator("snr_loss")
    @classmethod
    def _snr_loss_known(cls, value: str) -> str:
        if value not in SNR_LOSSES:
            raise ValueError(f"snr_loss must be one of {', '.join(SNR_LOSSES)}, got {value!r}")
        return value

    @field_validator("snr_loss_weights")
    @classmethod
    def _some_weight(cls, value: list[float]) -> list[float]:
        if max(value) <= 0:
            raise ValueError(f"snr_loss_weights must have one weight above 0, got {value}")
        return value

    @model_validator(mode="after")
    def _task_weights_are_used(self) -> Self:
        if self.task_weighting != "sum" and self.task_weights != [1.0, 1.0]:
            raise ValueError(
                f"task_weights must stay [1.0, 1.0] with task_weighting {self.task_weighting!r}, which "
                f"makes no use of them, got {self.task_weights}; they weigh the terms of 'sum'"
            )
        if self.task_weighting != "log_variance" and self.log_variance_rate != 1.0:
            raise ValueError(
                f"log_variance_rate must stay 1.0 with task_weighting {self.task_weighting!r}, which "
                f"learns no log-variances, got {self.log_variance_rate}"
            )
        return self

    @model_validator(mode="after")
    def _fresh_frames_can_be_drawn(self) -> Self:
        if self.fresh_frames and self.data_path:
            raise ValueError(
                f"fresh_frames must be false with a file, which has no new ones; got data_path "
                f"{self.data_path!r}"
            )
        return self

    @field_validator("resume_from")
    @classmethod
    def _checkpoint_exists(cls, value: str) -> str:
        return _existing_file(value, "checkpoint", "leave resume_from empty to start afresh")


class AnalysisParameters(Parameters):
    """Which runs to compare; none named: the newest of each network on the same test frames."""

    runs: list[str]
    num_hardest: int = Count
    model: str
    recording: str
    symbol_rate: float = NotNegative
    sample_rate: float = NotNegative

    @field_validator("model")
    @classmethod
    def _model_exists(cls, value: str) -> str:
        return _existing_file(value, "model", "python -m amc_utils.export RUN makes one")

    @field_validator("recording")
    @classmethod
    def _recording_exists(cls, value: str) -> str:
        return _existing_file(value, "recording", "leave it empty for the one that is shipped")


class ChoicesParameters(Parameters):
    """Which stored studies notebook 06 is read from."""

    scaling_study: str
    size_study: str
    rate_study: str
    channel_study: str


class AnatomyParameters(Parameters):
    """Which stored runs and studies the anatomy of the ceiling is read from."""

    plain: str
    plain_large: str
    samples: str
    stack: str
    stack_large: str
    swin: str
    bound: str
    told: str
    receiver: str
    elsewhere: str
    channel_study: str
    frame_study: str


class RealFileParameters(Parameters):
    """Which stored runs stand beside published results on the real file."""

    log_picture: str
    table_1: str
    others: str
    frames: list[str]
    pixels: list[str]
    networks: list[str]
    ranges: list[str]
    stack: str
    receiver: str
    bound: str
    samples: str


class ClaimsParameters(Parameters):
    """Which claims notebook 07 is about."""

    claims_file: str


def _existing_file(value: str, what: str, way_out: str) -> str:
    try:
        missing = value and not Path(value).exists()
    except OSError as error:
        raise ValueError(f"{what} {value} must be a file that can be read ({error.strerror})") from None
    if missing:
        raise FileNotFoundError(f"{what} not found: {value}; {way_out}")
    return value

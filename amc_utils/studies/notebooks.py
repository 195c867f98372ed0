"""Parameters of the notebooks that train nothing."""

from __future__ import annotations

from typing import Self

from pydantic import field_validator, model_validator

from amc_utils.config import Count, DataParameters, NotNegative
from amc_utils.runtime.parameters import Parameters, existing_file


class ExplorationParameters(DataParameters):
    """What notebook 01 looks at."""

    example: str

    @model_validator(mode="after")
    def _example_selected(self) -> Self:
        if self.example not in self.modulation_names:
            raise ValueError(f"example must be one of {self.modulation_names}, got {self.example!r}")
        return self


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
        return existing_file(value, "model", "amc export RUN makes one")

    @field_validator("recording")
    @classmethod
    def _recording_exists(cls, value: str) -> str:
        return existing_file(value, "recording", "leave it empty for the one that is shipped")


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
    known: str
    receiver: str
    elsewhere: str
    channel_study: str
    frame_study: str


class RealFileParameters(Parameters):
    """Which stored runs stand beside published results on the real file."""

    log_picture: str
    table_1: str
    stack: str
    receiver: str
    bound: str
    others: str
    frames: list[str]
    pixels: list[str]
    networks: list[str]
    ranges: list[str]
    samples: str


class ClaimsParameters(Parameters):
    """Which claims notebook 07 is about."""

    claims_file: str

"""Parameters of the notebooks, beyond those of a training run."""

from __future__ import annotations

from typing import Self

from pydantic import field_validator, model_validator

from amc_utils.config import Count, DataParameters, NotNegative, TrainingParameters
from amc_utils.results import named_run
from amc_utils.runtime.parameters import Parameters, existing_file
from amc_utils.runtime.paths import Workspace


class ExplorationParameters(DataParameters):
    """What notebook 01 looks at."""

    example: str

    @model_validator(mode="after")
    def _example_selected(self) -> Self:
        if self.example not in self.modulation_names:
            raise ValueError(f"example must be one of {self.modulation_names}, got {self.example!r}")
        return self


class ComparedTrainingParameters(TrainingParameters):
    """What notebook 03 trains, and the run that it puts beside it.

    Attributes:
        compare_with: name of that run, see amc_utils.results.other_network; empty for the newest that
            can be compared.
    """

    compare_with: str = ""

    @model_validator(mode="after")
    def _run_exists(self) -> Self:
        if self.compare_with:
            named_run(Workspace.at(self.output_root), self.compare_with)
        return self

    @property
    def training(self) -> TrainingParameters:
        """The parameters of the run itself, which are those of any run."""
        return TrainingParameters.checked(self.model_dump(exclude={"compare_with"}))


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
    """Which stored studies and runs notebook 06 is read from."""

    scaling_study: str
    size_study: str
    rate_study: str
    channel_study: str
    open_study: str


class AnatomyParameters(Parameters):
    """Which stored runs and studies the anatomy of the ceiling is read from."""

    plain: str
    plain_long: str
    plain_resnet18: str
    samples: str
    alone: str
    stack: str
    stack_long: str
    swin: str
    receiver: str
    bound: str
    known: str
    phase_unknown: str
    fresh: str
    fresh_seed_2: str
    fresh_seed_3: str
    refitted: str
    refitted_from: str
    elsewhere: str
    at_home: str
    channel_study: str
    frame_study: str
    size_study: str


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
    all_classes: list[str]


class ClaimsParameters(Parameters):
    """Which claims notebook 07 is about."""

    claims_file: str

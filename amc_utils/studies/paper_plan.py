"""The runs of record as profiles/paper.yaml lists them: what each leaves, and its command."""

from __future__ import annotations

import shlex
import sys
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from amc_utils.config import TrainingParameters
from amc_utils.runtime.yaml_text import read_yaml
from amc_utils.studies import assess
from amc_utils.studies.decisions import Assessment

PLAN = "profiles/paper.yaml"
# Of the frames; a tenth goes to validation, another to test.
TRAIN_SHARE = 0.8


class Step(BaseModel):
    """A run of record, or several.

    Attributes:
        result: what it leaves, a path in the repository: a run folder, a study's folder, or a file.
        shows: what it is for; a study asks a question of its own.
        needs: "gpu" where a CPU would take days.
        command: as it is typed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    result: str
    shows: str = ""
    needs: Literal["gpu", "cpu"]
    command: str = Field(pattern="^(amc|python) ")

    @property
    def words(self) -> list[str]:
        """The command's words after the first two: `amc` and what it does, `python` and a file."""
        return shlex.split(self.command)[2:]

    @property
    def executed(self) -> list[str]:
        """The command's words with the interpreter of this process."""
        first, *words = shlex.split(self.command)
        return [sys.executable, *(["-m", "amc_utils"] if first == "amc" else []), *words]

    @cached_property
    def config(self) -> TrainingParameters | None:
        """Parameters of a single training run."""
        if not self.command.startswith("amc train "):
            return None
        return TrainingParameters.from_words(self.words)

    @cached_property
    def assessment(self) -> Assessment | None:
        """What is assessed, if nothing is trained."""
        return (
            assess.from_command_line(self.words) if self.command.startswith("amc evaluate ") else None
        )

    @property
    def images(self) -> int:
        """Pictures, or sets of them, that a single training run learns from."""
        if self.config is None:
            return 0
        cells = len(self.config.modulation_names) * len(self.config.snr_labels)
        return int(TRAIN_SHARE * cells * self.config.num_frames_per_cell * self.config.num_epochs)


def read_plan(root: Path) -> list[Step]:
    """Steps of the plan of the repository at `root`, in order.

    Raises:
        ValueError: a field that is missing, unknown or of the wrong type.
    """
    content = read_yaml((root / PLAN).read_text(encoding="utf8"), f"plan {PLAN}")
    return [Step.model_validate(step) for step in content["steps"]]


def benchmark_name(run_name: str) -> str:
    """How the name of a planned run's benchmark begins."""
    return f"training, as {run_name}, "

"""What a study does: its file, read and checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from amc_utils.config import TrainingParameters
from amc_utils.runtime.yaml_text import read_yaml
from amc_utils.studies.decisions import Assessment


class Study(BaseModel):
    """Content of a study file; the study has the file's name.

    Attributes:
        question: what the study asks.
        seeds: one run of each variant for each.
        base: parameters that all runs share; in the file perhaps the path of a file that holds them.
        variants: by name, the parameters in which each differs from the base.
        transfers: by name, the frames on which every network is assessed once it is trained, in
            terms of amc_utils.studies.decisions.Assessment.
        resumed: variants that a run of their own trains for so many epochs first, from whose
            checkpoint they go on.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    question: str
    seeds: list[int] = Field(min_length=1)
    base: dict[str, Any]
    variants: dict[str, dict[str, Any]] = Field(min_length=1)
    transfers: dict[str, dict[str, Any]] = Field(default_factory=dict)
    resumed: dict[str, int] = Field(default_factory=dict)

    @field_validator("transfers")
    @classmethod
    def _transfers_make_sense(cls, value: dict[str, dict]) -> dict[str, dict]:
        for name, frames in value.items():
            try:
                Assessment("network", **frames)
            except (TypeError, ValueError) as error:
                raise ValueError(f"transfer {name}: {error}") from error
        return value

    def configs(self, output_root: str) -> Iterator[TrainingParameters]:
        """Parameters of every run, all variants of a seed before the next seed.

        Raises:
            ValueError: a wrong parameter.
        """
        for seed in self.seeds:
            for variant, changes in self.variants.items():
                own = {"seed": seed, "run_name": f"{variant}-s{seed}", "output_root": output_root}
                yield TrainingParameters.checked(self.base | changes | own)

    def run_names(self, run_name: str) -> list[str]:
        """Names of the run folders of one of the configs: the trained network's, and the transfers'."""
        return [run_name, *(f"{run_name}-on-{transfer}" for transfer in self.transfers)]


def read_study(path: Path) -> Study:
    """Study of a file.

    Raises:
        ValueError: a field that is missing, unknown or of the wrong type.
    """
    content = read_yaml(path.read_text(encoding="utf8"), f"study {path}")
    if isinstance(content.get("base"), str):
        base = path.parent / content["base"]
        content["base"] = read_yaml(base.read_text(encoding="utf8"), f"profile {base}")
    return Study.model_validate(content)

"""What is claimed, and the rules that were fixed before the runs: claims.yaml, read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from amc_utils.runtime.paths import Workspace, repository_file
from amc_utils.runtime.yaml_text import read_yaml
from amc_utils.studies.claim_measures import MEASURES


class ClaimTest(BaseModel):
    """One number that speaks for or against a claim, and the rule by which it does.

    Attributes:
        what: what is measured, in a few words.
        measure: name of a measure of amc_utils.studies.claim_measures.
        study, variant, minus, tested_on: the runs of a variant of a study, one a seed; less those of
            another variant with the same seed. For a measure of pairs, both are what is compared.
        runs: instead of a study, runs of results/ by name.
        statistic: what is judged: the mean over runs, their standard deviation ("spread"), or each run
            for itself, so that all must lie in the range.
        supported, refuted: ranges; the verdict is that of the range that the whole interval lies in.
        supports: word for the verdict of the first range.
        decides: whether it is the one number that stands for the claim where there is room for one.
        awaits: run or study of the plan for a GPU that decides what stays open here, or repeats it at a
            scale nearer to the claim's.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    what: str
    measure: str
    study: str = ""
    variant: str = ""
    minus: str = ""
    tested_on: str = ""
    runs: list[str] = Field(default_factory=list)
    statistic: Literal["mean", "spread", "each"] = "mean"
    # YAML has lists, no tuples.
    supported: tuple[float, float] | None = Field(None, strict=False)
    refuted: tuple[float, float] | None = Field(None, strict=False)
    supports: Literal["supported", "artefact"] = "supported"
    decides: bool = False
    awaits: str = ""

    @model_validator(mode="after")
    def _makes_sense(self) -> ClaimTest:
        if self.measure not in MEASURES:
            raise ValueError(f"measure must be one of {', '.join(MEASURES)}, got {self.measure!r}")
        if bool(self.runs) == bool(self.study and self.variant):
            raise ValueError(f"{self.what!r} must name either runs, or a study and its variant")
        if MEASURES[self.measure].takes == "pair" and not self.minus:
            raise ValueError(f"{self.what!r} must name a second variant, since it compares pairs")
        if not (self.supported or self.refuted):
            raise ValueError(f"{self.what!r} must say what would support or refute the claim")
        return self


class Claim(BaseModel):
    """What the log says, and how it is put to the test.

    Attributes:
        statement: the claim in our words.
        source: where it stands, with line numbers.
        experiment: which runs are compared, and why that is fair.
        rule: how numbers decide, in words.
        refuted_by: what would refute it.
        tests: the numbers.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    statement: str
    source: str
    experiment: str
    rule: str
    refuted_by: str
    tests: list[ClaimTest] = Field(min_length=1)

    @field_validator("tests")
    @classmethod
    def _one_decides(cls, value: list[ClaimTest]) -> list[ClaimTest]:
        if (count := sum(test.decides for test in value)) != 1:
            raise ValueError(f"one test of a claim must have decides: true, got {count}")
        return value

    def places(self, workspace: Workspace) -> list[Path]:
        """Where the numbers come from: studies that were carried out, and single runs by name."""
        single = [workspace.kept / name for test in self.tests for name in test.runs]
        studies = [workspace.results / test.study for test in self.tests if test.study]
        return list(dict.fromkeys([*single, *filter(Path.exists, studies)]))


def read_claims(name: str = "claims.yaml") -> dict[str, Claim]:
    """Claims by name, in the order of the file, whose path is relative to the repository.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a field that is missing, unknown, or makes no sense.
    """
    path = repository_file(name)
    content = read_yaml(path.read_text(encoding="utf8"), f"claims {path}")
    return {name: Claim.model_validate(claim) for name, claim in content.items()}

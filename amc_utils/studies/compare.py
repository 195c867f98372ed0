"""What came out of `make reproduce`, beside the committed numbers."""

from __future__ import annotations

import pandas as pd

from amc_utils.config import TrainingParameters
from amc_utils.metrics import TASKS
from amc_utils.results import Run, kept_runs, new_runs
from amc_utils.runtime.paths import Workspace, repository_file
from amc_utils.studies.record import differing_from_record


def comparison(found: Workspace, committed: Workspace) -> pd.DataFrame:
    """A row a run and task: committed run and value, found value and interval, whether they agree."""
    known = [run for run in kept_runs(committed) if run.kind == "network"]
    rows = []
    for run in (run for run in new_runs(found) if run.kind == "network"):
        config = TrainingParameters.checked(run.facts["config"] | {"resume_from": "", "data_path": ""})
        same = [other for other in known if not differing_from_record(other, config)]
        rows += [_row(run, same[-1] if same else None, task) for task in TASKS]
    return pd.DataFrame(rows)


def _row(run: Run, same: Run | None, task: str) -> dict[str, object]:
    found = run.facts["test"][f"{task}_accuracy"]
    committed = same.facts["test"][f"{task}_accuracy"]["value"] if same else float("nan")
    verdict = "not reproduced" if same else "nothing to compare with"
    if committed == found["value"]:
        verdict = "identical"
    elif found["low"] <= committed <= found["high"]:
        verdict = "reproduced"
    row = {"committed run": same.name if same else "none", "network": run.label, "task": task}
    row |= {"committed": committed, "found": found["value"], "low": found["low"], "high": found["high"]}
    return row | {"verdict": verdict}


def compare(folder: str) -> int | str:
    """Print new runs below a folder beside the committed ones with the same parameters.

        amc compare outputs/reproduced

    A number is identical, or reproduced: the committed one lies in the 95 % interval of what was found.
    That is wide, since test frames are few; runs of the same seed share them, and differ by rounding
    that training amplifies. Exit status 1 where a number is neither, or there is none.

    Args:
        folder: workspace, as `make reproduce` leaves it.

    Raises:
        FileNotFoundError: there are no committed runs.
    """
    table = comparison(Workspace.at(folder), Workspace(repository_file("results").parent))
    if table.empty:
        return f"no new run was found in {folder}; `make reproduce` makes some"
    print(table.round(3).to_string(index=False))
    counts = table["verdict"].value_counts()
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    failed = not set(counts.index) <= {"identical", "reproduced"}
    return 1 if failed else 0

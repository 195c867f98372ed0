"""What came out of `make reproduce`, beside the committed numbers.

    amc compare outputs/reproduced

Each run in the folder that the repository has not stands beside the committed one with its parameters.
It is reproduced where the committed accuracy lies in the 95 % interval of what was found.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import pandas as pd

from amc_utils.config import TrainingParameters
from amc_utils.metrics import TASKS
from amc_utils.results import Run, list_runs
from amc_utils.runtime.paths import REPOSITORY, Workspace
from amc_utils.training import differing_from_record


def compare(found: Workspace, committed: Workspace) -> pd.DataFrame:
    """A row a run and task: committed run and value, found value and interval, whether they agree."""
    known = [run for run in list_runs(committed.results) if run.kind == "network"]
    names = {run.name for run in known}
    rows = []
    for run in list_runs(found.results):
        if run.name in names or run.kind != "network":
            continue
        config = TrainingParameters.checked(run.facts["config"] | {"resume_from": ""})
        same = [other for other in known if not differing_from_record(other, config)]
        rows += [_row(run, same[-1] if same else None, task) for task in TASKS]
    return pd.DataFrame(rows)


def _row(run: Run, same: Run | None, task: str) -> dict[str, object]:
    found = run.facts["test"][f"{task}_accuracy"]
    row = {"task": task, "network": run.label, "found": found["value"]}
    row |= {
        "low": found["low"],
        "high": found["high"],
        "committed run": "none",
        "committed": float("nan"),
    }
    if same is None:
        return row | {"verdict": "nothing to compare with"}
    value = same.facts["test"][f"{task}_accuracy"]["value"]
    agrees = found["low"] <= value <= found["high"]
    verdict = "reproduced" if agrees else "not reproduced"
    return row | {"committed run": same.name, "committed": value, "verdict": verdict}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; exit status 1 where a number is not reproduced, or there is none."""
    parser = argparse.ArgumentParser(
        prog="amc compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="workspace, as `make reproduce` leaves it")
    table = compare(Workspace.at(parser.parse_args(arguments).folder), Workspace(REPOSITORY))
    if table.empty:
        sys.exit("no run was found that the repository has not; `make reproduce` makes some")
    columns = ["committed run", "network", "task", "committed", "found", "low", "high", "verdict"]
    print(table[columns].round(3).to_string(index=False))
    failed = (table["verdict"] != "reproduced").sum()
    print(f"{len(table) - failed} of {len(table)} numbers reproduced")
    sys.exit(1 if failed else 0)

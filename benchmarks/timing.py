"""Tasks that take turns, so that a noisy moment of the machine hits all alike; medians and ratios."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from tqdm import tqdm


@dataclass(frozen=True)
class Task:
    """Something to be timed.

    Attributes:
        run: does it once; may return the seconds it took, if another process measured them.
        amount: units of work in one go.
    """

    run: Callable[[], float | None]
    amount: float


def take_turns(
    benchmark: str, tasks: Mapping[str, Task], *, unit: str, against: str, repeats: int = 7
) -> pd.DataFrame:
    """Seconds of every repeat of every task, after one round that does not count.

    Returns:
        Columns benchmark, task, unit, against, repeat, amount, seconds; `against` names the task that
        the others are compared with.
    """
    rows = []
    for repeat in tqdm(range(repeats + 1), desc=benchmark, file=sys.stderr, ascii=True, ncols=80):
        for name, task in tasks.items():
            started = time.perf_counter()
            seconds = task.run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if seconds is None:
                seconds = time.perf_counter() - started
            if repeat:
                rows.append((benchmark, name, unit, against, repeat, task.amount, seconds))
    columns = ["benchmark", "task", "unit", "against", "repeat", "amount", "seconds"]
    return pd.DataFrame(rows, columns=columns)


def summarise(raw: pd.DataFrame) -> pd.DataFrame:
    """Median rate of each task with its range, and the median of its ratios within each repeat."""
    raw = raw.assign(rate=raw["amount"] / raw["seconds"])
    parts = []
    for _, group in raw.groupby(["benchmark", "against"], sort=False):
        rates = group.pivot(index="repeat", columns="task", values="rate")[group["task"].unique()]
        against = group["against"].iloc[0]
        columns = {
            "rate": rates.median(),
            "slowest": rates.min(),
            "fastest": rates.max(),
            "ratio": rates.div(rates[against], axis=0).median(),
        }
        same = {"benchmark": group["benchmark"].iloc[0], "unit": group["unit"].iloc[0], "to": against}
        parts.append(pd.DataFrame(columns).reset_index(names="task").assign(**same))
    return pd.concat(parts, ignore_index=True)

"""A claim as a page shows it: what is claimed, the rule, the numbers and their figure."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from amc_utils import plots
from amc_utils.runtime.paths import Workspace
from amc_utils.studies.claim_rules import Claim

_SHOWN = ["what", "number", "low", "high", "num_runs", "tflop", "tflop_minus", "verdict"]
_NOTE = "numbers over seeds, 95 % intervals; blue supports the claim, orange refutes it; synthetic"


def show(
    name: str, claims: Mapping[str, Claim], rows: pd.DataFrame, workspace: Workspace
) -> pd.DataFrame:
    """Print what is claimed and the rule, draw and save the claim's figure, and return its numbers.

    Args:
        name: of the claim.
        claims: from amc_utils.studies.claim_rules.read_claims.
        rows: of amc_utils.studies.claims.evaluate.
        workspace: whose figures/ receives fig_claims_<name>.

    Returns:
        A row a test: what, number, low, high, num_runs, tflop, tflop_minus, verdict.
    """
    claim, mine = claims[name], rows[rows["claim"] == name]
    for title, text in (("Claim", claim.statement), ("Rule", claim.rule)):
        print(textwrap.fill(f"{title}: {text}", 100))
    saved_as = f"claims_{name.replace('-', '_')}"
    plots.save(claim_figure(mine), saved_as, workspace.figures, _NOTE, claim.places(workspace))
    return mine[_SHOWN].round(4)


def claim_figure(rows: pd.DataFrame) -> Figure:
    """Figure of the numbers that a claim is judged by, a panel a unit; blue supports, orange refutes.

    Args:
        rows: of amc_utils.studies.claims.evaluate; those without numbers stay empty.
    """
    groups = [group for _, group in rows.groupby("unit", sort=False)]
    sizes = [len(group) for group in groups]
    options = {"squeeze": False, "height_ratios": sizes}
    fig, axes = plots.figure("page", 0.55 * len(sizes) + 0.2 * sum(sizes), len(sizes), 1, **options)
    for ax, some in zip(axes[:, 0], groups, strict=True):
        dots = some.set_index("what").rename(columns={"number": "mean"})
        plots.interval_dots(ax, dots).set(xlabel=some["unit"].iloc[0])
        left, right = ax.get_xlim()
        if left < 0 < right:
            ax.axvline(0, color="0.5", lw=0.6)
        for place, row in enumerate(some.itertuples()):
            for low, high, colour in (
                (row.support_low, row.support_high, "#56B4E9"),
                (row.refute_low, row.refute_high, "#E69F00"),
            ):
                ends = np.clip([low, high], left, right)
                ax.fill_betweenx([place - 0.4, place + 0.4], *ends, color=colour, alpha=0.25, lw=0)
        ax.set_xlim(left, right)
    return fig

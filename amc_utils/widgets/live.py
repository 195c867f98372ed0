"""What changes in a notebook: whether it is live, figures as PNGs, and the learning curve."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BytesIO
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from amc_utils import plots

_DOTS_PER_INCH = 110


def is_live() -> bool:
    """Whether a person's JupyterLab runs this kernel; papermill's and nbconvert's have no sliders."""
    return "JPY_SESSION_NAME" in os.environ


def as_png(fig: Figure) -> bytes:
    """The figure for a screen."""
    buffer = BytesIO()
    fig.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, pil_kwargs={"compress_level": 1})
    return buffer.getvalue()


class LiveCurve:
    """Joint accuracy against epoch, in one output that changes in place.

    Under papermill the executed notebook keeps the last state.
    """

    def __init__(self, display: Callable[..., Any], num_epochs: int) -> None:
        """Show empty axes.

        Args:
            display: IPython's display.
            num_epochs: where the axis of epochs ends.
        """
        self._num_epochs = num_epochs
        fig = self._figure(None)
        self._output = display(fig, display_id=True)

    def update(self, history: pd.DataFrame) -> None:
        """Draw the epochs so far, see amc_utils.plots.learning_curves."""
        self._output.update(self._figure(history))

    def _figure(self, history: pd.DataFrame | None) -> Figure:
        fig, ax = plots.figure("column", 1.9)
        if history is not None:
            plots.learning_curves(ax, history, "joint").legend()
            ax.set_ylim(0, 1.1 * max(ax.dataLim.y1, 1e-3))
        ax.set(xlabel="epoch", ylabel="joint accuracy", xlim=(0.5, self._num_epochs + 0.5))
        # What stays open is shown once more at the end of the cell.
        plt.close(fig)
        return fig

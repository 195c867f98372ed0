"""A learning curve in the notebook that is drawn anew after each epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from amc_utils import plots


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

    def _figure(self, history: pd.DataFrame | None) -> plt.Figure:
        fig, ax = plots.figure("column", 1.9)
        if history is not None:
            plots.learning_curves(ax, history, "joint").legend()
            ax.set_ylim(0, 1.1 * max(ax.dataLim.y1, 1e-3))
        ax.set(xlabel="epoch", ylabel="joint accuracy", xlim=(0.5, self._num_epochs + 0.5))
        # What stays open is shown once more at the end of the cell.
        plt.close(fig)
        return fig

"""What changes in a notebook: figures under controls, and the learning curve."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BytesIO
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from amc_utils import plots

_DOTS_PER_INCH = 110
# How every control looks.
LOOK = {"layout": {"width": "340px"}, "style": {"description_width": "130px"}}


def is_live() -> bool:
    """Whether a person's JupyterLab runs this kernel; papermill's and nbconvert's have no sliders."""
    return "JPY_SESSION_NAME" in os.environ


def choice(name: str, options: tuple, value: object) -> ipywidgets.Dropdown:
    """Control that offers some values."""
    return ipywidgets.Dropdown(options=options, value=value, description=name, **LOOK)


class Board:
    """Controls above a figure, which is drawn anew whenever one of them is moved.

    Attributes:
        controls: widgets by name.
        widget: controls and figure, to be shown by JupyterLab.
    """

    def __init__(
        self, controls: dict[str, ipywidgets.ValueWidget], *between: ipywidgets.DOMWidget
    ) -> None:
        self.controls, self._image = controls, ipywidgets.Image(format="png")
        layout = {"grid_template_columns": "repeat(auto-fit, 350px)"}
        box = ipywidgets.GridBox(list(controls.values()), layout=layout)
        self.widget = ipywidgets.VBox([box, *between, self._image])

    @property
    def values(self) -> dict[str, Any]:
        """What the controls ask for, by name."""
        return {name: control.value for name, control in self.controls.items()}

    def figure(self) -> Figure:
        """What the controls ask for, drawn anew; subclasses say what that is."""
        raise NotImplementedError

    def show(self) -> ipywidgets.VBox | None:
        """The widget in JupyterLab; elsewhere nothing, so that the figure drawn before stands there."""
        if not is_live():
            return None
        # The figure drawn before is shown no second time.
        plt.close()
        self._redraw()
        return self.widget

    def _redraw(self, _: object = None) -> None:
        if is_live():
            buffer = BytesIO()
            options = {"dpi": _DOTS_PER_INCH, "pil_kwargs": {"compress_level": 1}}
            figure = self.figure()
            figure.savefig(buffer, format="png", **options)
            self._image.value = buffer.getvalue()
            plt.close(figure)


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

"""One frame on a board: its pictures, what the network looks at, and what both heads think."""

from __future__ import annotations

from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from amc_utils import plots
from amc_utils.plots import COLOUR_OF_TASK, WIDTH_INCHES

_DOTS_PER_INCH = 110


def opinion_board(
    pictures: Tensor,
    maps: Tensor,
    *,
    channels: tuple[str, ...],
    modulation: tuple[np.ndarray, tuple[str, ...], int],
    snr: tuple[np.ndarray, tuple[int, ...], int],
) -> Figure:
    """Figure of page width.

    Args:
        pictures: float [C, H, W].
        maps: float [C, H, W], see amc_utils.widgets.attribution.
        channels: names of the C pictures.
        modulation: probabilities [num_modulations], their names, and the index of the true one.
        snr: probabilities [num_snrs], the levels in dB, and the index of the true one.
    """
    places = [f"picture {name}" for name in channels], [f"map {name}" for name in channels]
    rows = [[*row, "modulation", "snr"] for row in places]
    widths = {"width_ratios": [1.0] * len(channels) + [1.1, 1.1]}
    fig, axes = plt.subplot_mosaic(rows, figsize=(WIDTH_INCHES["page"], 3.0), gridspec_kw=widths)
    reach = float(maps.abs().amax()) or 1.0
    for name, picture, some in zip(channels, pictures, maps, strict=True):
        plots.image(axes[f"picture {name}"], picture.numpy(), ticks=False).set_title(name)
        ax = axes[f"map {name}"]
        ax.imshow(some.numpy(), origin="lower", cmap="PuOr_r", vmin=-reach, vmax=reach)
        ax.set(xticks=[], yticks=[])
    axes[f"picture {channels[0]}"].set_ylabel("picture")
    axes[f"map {channels[0]}"].set_ylabel("speaks for (orange)\nor against (violet)")
    _bars(axes["modulation"], *modulation, COLOUR_OF_TASK["modulation"]).set_xlabel("modulation")
    _bars(axes["snr"], *snr, COLOUR_OF_TASK["snr"]).set_xlabel("SNR label (dB)")
    return fig


def _bars(ax: Axes, probability: np.ndarray, names: tuple, truth: int, colour: str) -> Axes:
    """Probabilities, one bar a class; the true class is named in bold and marked."""
    place = np.arange(len(names))
    ax.barh(place, probability, color=colour, alpha=0.7)
    ax.plot(1.06, truth, "<", color="black", clip_on=False, markersize=5)
    ax.set_yticks(place, names, fontsize=5.5)
    ax.get_yticklabels()[truth].set_fontweight("bold")
    ax.set(xlim=(0, 1), ylim=(-0.7, len(names) - 0.3))
    return ax


def as_png(fig: Figure) -> bytes:
    """The figure for a screen; it is closed."""
    buffer = BytesIO()
    fig.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, pil_kwargs={"compress_level": 1})
    plt.close(fig)
    return buffer.getvalue()

"""A frame as time series, spectrum, eye and pictures on one board that is redrawn in milliseconds."""

from __future__ import annotations

from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import Tensor

from amc_utils import plots
from amc_utils.dsp.features import eye_traces, power_spectrum
from amc_utils.images import constellation_images
from amc_utils.plots import WIDTH_INCHES
from amc_utils.signals import DEFAULT_RECEIVER, ReceiverSettings

# Pictures on the board, the plain one and what a receiver would see.
PICTURES = ("raw", "synchronised", "differential", "polar", "lines", "noise")
_IMAGE_SIZE = 64
_DOTS_PER_INCH = 110


class FrameBoard:
    """Draws frame after frame; axes and labels are drawn once, and only what changes again.

    Attributes:
        figure: the board with the frame that was drawn last.
    """

    def __init__(self, iq: Tensor, receiver: ReceiverSettings = DEFAULT_RECEIVER) -> None:
        """Draw the first frame, complex64 [num_samples], as the receiver sees it."""
        rows = [["time"] * 2 + ["spectrum"] * 2 + ["eye"] * 2, list(PICTURES)]
        self.figure, axes = plt.subplot_mosaic(rows, figsize=(WIDTH_INCHES["page"], 2.9))
        views = _views(iq, receiver)
        time, frequency = views["time"], views["frequency"]
        plots.time_series(axes["time"], time, len(time)).set_ylim(-3.2, 3.2)
        plots.spectrum(axes["spectrum"], frequency, 10 ** (views["power"] / 10), lw=0.6)
        axes["spectrum"].set_ylim(-65, 25)
        plots.eye_diagram(axes["eye"], views["eye"]).set_ylim(-3.2, 3.2)
        for name, picture in zip(PICTURES, views["pictures"], strict=True):
            plots.image(axes[name], picture, ticks=False).set_xlabel(name)
        self._lines = [line for name in ("time", "spectrum", "eye") for line in axes[name].lines]
        self._images = [axes[name].images[0] for name in PICTURES]
        self._background = None

    def png(self, iq: Tensor, receiver: ReceiverSettings = DEFAULT_RECEIVER) -> bytes:
        """Draw a frame, complex64 [num_samples], as a PNG for a screen."""
        views = _views(iq, receiver)
        time, eye = views["time"], views["eye"]
        for line, values in zip(
            self._lines, (time.real, time.imag, views["power"], *eye.real), strict=True
        ):
            line.set_ydata(values)
        for image, picture in zip(self._images, views["pictures"], strict=True):
            image.set(data=picture, clim=(0, picture.max()))
        return self._screen()

    def _screen(self) -> bytes:
        changing = [*self._images, *self._lines]
        if self._background is None:
            self.figure.set_dpi(_DOTS_PER_INCH)
            canvas = FigureCanvasAgg(self.figure)
            for artist in changing:
                artist.set_animated(True)
            canvas.draw()
            self._background = canvas.copy_from_bbox(self.figure.bbox)
        canvas = self.figure.canvas
        canvas.restore_region(self._background)
        for artist in changing:
            artist.axes.draw_artist(artist)
        buffer = BytesIO()
        plt.imsave(buffer, canvas.buffer_rgba(), format="png", pil_kwargs={"compress_level": 1})
        return buffer.getvalue()


def _views(iq: Tensor, receiver: ReceiverSettings) -> dict[str, np.ndarray]:
    frequency, power = power_spectrum(iq[None])
    return {
        "time": iq[:128].numpy(),
        "frequency": frequency.numpy(),
        "power": 10 * np.log10(power[0].clamp_min(1e-9).numpy()),
        "eye": eye_traces(iq).numpy(),
        "pictures": constellation_images(iq[None], PICTURES, _IMAGE_SIZE, receiver=receiver)[0].numpy(),
    }

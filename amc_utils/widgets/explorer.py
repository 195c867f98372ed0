"""Sliders over the generator's signals in JupyterLab: modulation, SNR and channel against all views."""

from __future__ import annotations

from dataclasses import replace

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from amc_utils import plots
from amc_utils.dsp.features import eye_traces, power_spectrum
from amc_utils.dsp.receiver_settings import RECEIVERS
from amc_utils.images import constellation_images
from amc_utils.signals import (
    CHANNEL_PRESETS,
    DEFAULT_PRESET,
    RADIOML_2018_MODULATIONS,
    generate_frames,
    unit_phasor,
)
from amc_utils.widgets.live import as_png, is_live

# Images that are shown, the plain one and what a receiver would see.
IMAGES = ("raw", "synchronised", "differential", "polar", "lines", "noise")
_IMAGE_SIZE = 64
# Samples in the time series.
_NUM_SHOWN = 128
# Carrier offsets on the slider are in this many cycles per sample.
_CFO_UNIT = 1e-4


class SignalExplorer:
    """One synthetic frame and its views, redrawn whenever a control is moved.

    Attributes:
        controls: widgets by name: modulation, preset, snr_label, rolloff, cfo, delay_spread, frame.
        figure: what is drawn: time series, spectrum, eye, and images.
        widget: controls and figure, to be shown by JupyterLab.
    """

    def __init__(self, modulation: str = "QPSK", snr_label: int = 20, *, seed: int = 2018) -> None:
        self._seed = seed
        wide = {"layout": {"width": "370px"}, "style": {"description_width": "140px"}}

        def choice(name: str, options: tuple[str, ...], value: str) -> ipywidgets.Dropdown:
            return ipywidgets.Dropdown(options=options, value=value, description=name, **wide)

        def slider(name: str, *value_low_high_step: float) -> ipywidgets.ValueWidget:
            whole = all(isinstance(number, int) for number in value_low_high_step)
            kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
            names = ("value", "min", "max", "step")
            numbers = dict(zip(names, value_low_high_step, strict=True))
            return kind(**numbers, description=name, **wide)

        self.controls: dict[str, ipywidgets.ValueWidget] = {
            "modulation": choice("modulation", RADIOML_2018_MODULATIONS, modulation),
            "preset": choice("channel", tuple(CHANNEL_PRESETS), DEFAULT_PRESET),
            "snr_label": slider("SNR label", snr_label, -20, 30, 2),
            "rolloff": slider("roll-off", 0.4, 0.1, 0.5, 0.05),
            "cfo": slider("CFO (1e-4/sample)", 0.0, -20, 20, 0.5),
            "delay_spread": slider("multipath (samples)", 0.0, 0, 4, 0.25),
            "frame": slider("frame", 0, 0, 255, 1),
        }
        self.figure = self._draw()
        self._image = ipywidgets.Image(format="png")
        for control in self.controls.values():
            control.observe(self._redraw, "value")
        box = ipywidgets.GridBox(
            list(self.controls.values()), layout={"grid_template_columns": "repeat(2, 390px)"}
        )
        self.widget = ipywidgets.VBox([box, self._image])

    def frame(self) -> torch.Tensor:
        """The frame that the controls ask for, complex64 [1024]."""
        value = {name: control.value for name, control in self.controls.items()}
        channel = replace(
            CHANNEL_PRESETS[value["preset"]],
            cfo_std=0.0,
            delay_spread=value["delay_spread"],
            rolloff_range=(value["rolloff"],) * 2,
        )
        made = generate_frames(
            torch.tensor([value["frame"]]),
            torch.tensor([RADIOML_2018_MODULATIONS.index(value["modulation"])]),
            torch.tensor([value["snr_label"]]),
            modulations=RADIOML_2018_MODULATIONS,
            seed=self._seed,
            channel=channel,
        )
        iq = made.iq[0]
        turn = 2 * torch.pi * value["cfo"] * _CFO_UNIT * torch.arange(len(iq))
        return iq * unit_phasor(turn)

    def show(self) -> ipywidgets.VBox | None:
        """The widget in JupyterLab; elsewhere nothing, so that the first frame stands as a figure."""
        if not is_live():
            return None
        plt.close(self.figure)
        self._redraw()
        return self.widget

    def _draw(self) -> Figure:
        """Axes, labels and the first frame; later ones only replace what is in them."""
        iq = self.frame()
        frequency, power = power_spectrum(iq[None])
        rows = [["time"] * 2 + ["spectrum"] * 2 + ["eye"] * 2, list(IMAGES)]
        fig, axes = plt.subplot_mosaic(rows, figsize=(plots.WIDTH_INCHES["page"], 2.9))
        plots.time_series(axes["time"], iq.numpy(), _NUM_SHOWN).set_ylim(-3.2, 3.2)
        plots.spectrum(axes["spectrum"], frequency.numpy(), power[0].numpy(), lw=0.6)
        axes["spectrum"].set_ylim(-65, 25)
        plots.eye_diagram(axes["eye"], eye_traces(iq).numpy()).set_ylim(-3.2, 3.2)
        for name, image in zip(IMAGES, self._images(iq), strict=True):
            plots.image(axes[name], image, ticks=False).set_xlabel(name)
        return fig

    def _images(self, iq: torch.Tensor) -> np.ndarray:
        """What a receiver sees that knows the channel asked for, float32 [C, H, W]."""
        receiver = RECEIVERS[self.controls["preset"].value]
        return constellation_images(iq[None], IMAGES, _IMAGE_SIZE, receiver=receiver)[0].numpy()

    def _redraw(self, _: object = None) -> None:
        iq, axes = self.frame(), self.figure.axes
        power_db = 10 * power_spectrum(iq[None])[1][0].clamp_min(1e-9).log10()
        start = iq[:_NUM_SHOWN]
        curves = (start.real, start.imag, power_db, *eye_traces(iq).real)
        lines = [line for ax in axes for line in ax.lines]
        for line, values in zip(lines, curves, strict=True):
            line.set_ydata(values)
        drawn = [image for ax in axes for image in ax.images]
        for image, values in zip(drawn, self._images(iq), strict=True):
            image.set(data=values, clim=(0, values.max()))
        self._image.value = as_png(self.figure)

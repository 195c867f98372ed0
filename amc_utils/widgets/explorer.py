"""Sliders over the generator's signals in JupyterLab: modulation, SNR and channel against all views."""

from __future__ import annotations

from dataclasses import replace

import ipywidgets
import matplotlib.pyplot as plt
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
from amc_utils.widgets.live import LOOK, Board, choice

# Images that are shown, the plain one and what a receiver would see.
IMAGES = ("raw", "synchronised", "differential", "polar", "lines", "noise")
_IMAGE_SIZE = 64
# Samples in the time series.
_NUM_SHOWN = 128
# Carrier offsets on the slider are in this many cycles per sample.
_CFO_UNIT = 1e-4


class SignalExplorer(Board):
    """One synthetic frame and its views, redrawn whenever a control is moved.

    Controls: modulation, preset, snr_label, rolloff, cfo, delay_spread, frame. The figure shows time
    series, spectrum, eye, and images.
    """

    def __init__(self, modulation: str = "QPSK", snr_label: int = 20, *, seed: int = 2018) -> None:
        self._seed = seed
        whole, real = ipywidgets.IntSlider, ipywidgets.FloatSlider
        super().__init__({
            "modulation": choice("modulation", RADIOML_2018_MODULATIONS, modulation),
            "preset": choice("channel", tuple(CHANNEL_PRESETS), DEFAULT_PRESET),
            "snr_label": whole(snr_label, -20, 30, 2, description="SNR label", **LOOK),
            "rolloff": real(0.4, min=0.1, max=0.5, step=0.05, description="roll-off", **LOOK),
            "cfo": real(0.0, min=-20, max=20, step=0.5, description="CFO (1e-4/sample)", **LOOK),
            "delay_spread": real(0.0, max=4, step=0.25, description="multipath (samples)", **LOOK),
            "frame": whole(0, 0, 255, 1, description="frame", **LOOK),
        })  # fmt: skip
        self.figure()
        for control in self.controls.values():
            control.observe(self._redraw, "value")

    def frame(self) -> torch.Tensor:
        """The frame that the controls ask for, complex64 [1024]."""
        value = self.values
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

    def figure(self) -> Figure:
        """Time series, spectrum and eye of the frame; images as a receiver of its channel sees them."""
        iq = self.frame()
        frequency, power = power_spectrum(iq[None])
        receiver = RECEIVERS[self.controls["preset"].value]
        images = constellation_images(iq[None], IMAGES, _IMAGE_SIZE, receiver=receiver)[0].numpy()
        rows = [["time"] * 2 + ["spectrum"] * 2 + ["eye"] * 2, list(IMAGES)]
        figure, axes = plt.subplot_mosaic(rows, figsize=(plots.WIDTH_INCHES["page"], 2.9))
        plots.time_series(axes["time"], iq.numpy(), _NUM_SHOWN).set_ylim(-3.2, 3.2)
        plots.spectrum(axes["spectrum"], frequency.numpy(), power[0].numpy(), lw=0.6)
        axes["spectrum"].set_ylim(-65, 25)
        plots.eye_diagram(axes["eye"], eye_traces(iq).numpy()).set_ylim(-3.2, 3.2)
        for name, image in zip(IMAGES, images, strict=True):
            plots.image(axes[name], image, ticks=False).set_xlabel(name)
        return figure

"""Sliders over the generator's signals in JupyterLab: modulation, SNR and channel against all views."""

from __future__ import annotations

import os
from dataclasses import replace

import ipywidgets
import matplotlib.pyplot as plt
import torch

from amc_utils.signals import (
    CHANNEL_PRESETS,
    DEFAULT_PRESET,
    RADIOML_2018_MODULATIONS,
    RECEIVERS,
    ReceiverSettings,
    generate_frames,
    unit_phasor,
)
from amc_utils.widgets.frame_board import FrameBoard

# Carrier offsets on the slider are in this many cycles per sample.
_CFO_UNIT = 1e-4


def is_live() -> bool:
    """Whether a person's JupyterLab runs this kernel; papermill's and nbconvert's have no sliders."""
    return "JPY_SESSION_NAME" in os.environ


class SignalExplorer:
    """One synthetic frame and its views, redrawn whenever a control is moved.

    Attributes:
        controls: widgets by name: modulation, preset, snr_label, rolloff, cfo, delay_spread, frame.
        board: what is drawn.
        widget: controls and picture, to be shown by JupyterLab.
    """

    def __init__(self, modulation: str = "QPSK", snr_label: int = 20, *, seed: int = 2018) -> None:
        self._seed = seed
        wide = {"layout": {"width": "370px"}, "style": {"description_width": "140px"}}
        slider = {"continuous_update": True, **wide}
        self.controls: dict[str, ipywidgets.ValueWidget] = {
            "modulation": ipywidgets.Dropdown(
                options=RADIOML_2018_MODULATIONS, value=modulation, description="modulation", **wide
            ),
            "preset": ipywidgets.Dropdown(
                options=tuple(CHANNEL_PRESETS), value=DEFAULT_PRESET, description="channel", **wide
            ),
            "snr_label": ipywidgets.IntSlider(
                snr_label, -20, 30, 2, description="SNR label (dB)", **slider
            ),
            "rolloff": ipywidgets.FloatSlider(
                0.4, min=0.1, max=0.5, step=0.05, description="roll-off", **slider
            ),
            "cfo": ipywidgets.FloatSlider(
                0.0, min=-20, max=20, step=0.5, description="CFO (1e-4/sample)", **slider
            ),
            "delay_spread": ipywidgets.FloatSlider(
                0.0, min=0, max=4, step=0.25, description="multipath (samples)", **slider
            ),
            "frame": ipywidgets.IntSlider(0, 0, 255, 1, description="frame", **slider),
        }
        self.board = FrameBoard(self.frame(), self.receiver)
        self._picture = ipywidgets.Image(format="png")
        for control in self.controls.values():
            control.observe(self._redraw, "value")
        box = ipywidgets.GridBox(
            list(self.controls.values()), layout={"grid_template_columns": "repeat(2, 390px)"}
        )
        self.widget = ipywidgets.VBox([box, self._picture])

    @property
    def receiver(self) -> ReceiverSettings:
        """What the pictures know about the channel that the controls ask for."""
        return RECEIVERS[self.controls["preset"].value]

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
        """The widget in JupyterLab; elsewhere nothing, so that the first frame stands as a picture."""
        if not is_live():
            return None
        plt.close(self.board.figure)
        self._redraw()
        return self.widget

    def _redraw(self, _: object = None) -> None:
        self._picture.value = self.board.png(self.frame(), self.receiver)

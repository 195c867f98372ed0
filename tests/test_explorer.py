"""The explorer of notebook 01: what is drawn is what the controls ask for."""

from __future__ import annotations

from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from amc_utils.dsp import features
from amc_utils.widgets import live
from amc_utils.widgets.explorer import SignalExplorer


@pytest.fixture
def knobs():
    yield SignalExplorer("QPSK", 20, seed=1)
    plt.close("all")


def image(knobs):
    return np.asarray(Image.open(BytesIO(knobs.widget.children[-1].value)))


@pytest.mark.parametrize(
    ("control", "value"),
    [
        ("modulation", "64QAM"),
        ("preset", "table_1"),
        ("snr_label", -4),
        ("rolloff", 0.5),
        ("cfo", 12.0),
        ("delay_spread", 2.0),
        ("frame", 3),
    ],
)
def test_every_control_changes_the_image_and_back_again(knobs, monkeypatch, control, value):
    monkeypatch.setenv("JPY_SESSION_NAME", "01.ipynb")
    knobs.show()
    first, before = image(knobs), knobs.controls[control].value
    knobs.controls[control].value = value
    assert (image(knobs) != first).any()
    knobs.controls[control].value = before
    np.testing.assert_array_equal(image(knobs), first)


def measured_db(iq):
    return 10 * np.log10(float(features.snr_ratio(iq[None])))


def test_frame_has_the_carrier_and_the_noise_asked_for(knobs):
    """A carrier of 20e-4 cycles per sample, found by the line of the fourth power of QPSK."""
    still = knobs.frame()
    knobs.controls["cfo"].value = 20.0
    turn = torch.angle((knobs.frame() * still.conj())[1:] / (knobs.frame() * still.conj())[:-1])
    assert float(turn.median()) / (2 * np.pi) == pytest.approx(20e-4, rel=1e-3)
    knobs.controls["snr_label"].value = 6
    for preset, snr_db in (("table_1", 6), ("radioml_2018", 12)):
        knobs.controls["preset"].value = preset
        assert measured_db(knobs.frame()) == pytest.approx(snr_db, abs=1)


def test_without_a_jupyter_server_an_image_stands_in_its_place(knobs, monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert knobs.show() is None
    assert plt.get_fignums()


def test_in_jupyterlab_there_is_the_widget_and_no_second_image(knobs, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "01.ipynb")
    assert knobs.show() is knobs.widget
    assert not plt.get_fignums()
    assert live.is_live()

"""Figures: the paper's size, the same bytes for the same data, nothing drawn that is not there."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from amc_utils import plots, signal_plots

mpl.use("agg")


@pytest.fixture(autouse=True)
def _style():
    with plt.rc_context():
        plots.use_style()
        yield
        plt.close("all")


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "level": ["-10", "2", "0"],
            "value": [0.1, 0.9, 0.5],
            "low": [0, 0.8, 0.4],
            "high": [0.2, 1, 0.6],
        }
    )


@pytest.mark.parametrize("width", plots.WIDTH_INCHES)
def test_saved_figure_has_the_printed_width_and_a_note(width, table, tmp_path):
    fig, ax = plots.figure(width, 2.0)
    plots.accuracy_against_snr(ax, table, label="x")
    plots.save(fig, "test", tmp_path, "synthetic " * 30)
    with Image.open(tmp_path / "fig_test.png") as picture:
        assert picture.size == (round(plots.WIDTH_INCHES[width] * 300), 600)
        pixels = np.asarray(picture.convert("L"))
    # The note ends inside the figure: its margins stay white.
    assert (pixels[:, :3] == 255).all()
    assert (pixels[-2:] == 255).all()


def test_same_figure_is_the_same_file(table, tmp_path):
    for folder in ("a", "b"):
        fig, ax = plots.figure()
        plots.accuracy_against_snr(ax, table, label="x")
        plots.save(fig, "test", tmp_path / folder, "note")
    for suffix in ("pdf", "png"):
        first, second = ((tmp_path / f / f"fig_test.{suffix}").read_bytes() for f in ("a", "b"))
        assert first == second


def test_levels_are_drawn_in_numerical_order(table):
    ax = plots.accuracy_against_snr(plots.figure()[1], table, label="x")
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [-10, 0, 2])
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0.1, 0.5, 0.9])
    assert ax.get_ylim() == (0, 1)


def test_confusion_leaves_what_never_happens_blank():
    rates = pd.DataFrame([[0.75, 0.25], [0.0, 1.0]], index=["a", "b"], columns=["a", "b"])
    ax = plots.confusion_heat_map(plots.figure()[1], rates)
    drawn = ax.collections[0].get_array()
    assert np.ma.getmaskarray(drawn).reshape(2, 2).tolist() == [[False, False], [True, False]]


def test_every_family_has_a_colour_of_its_own():
    assert len(set(plots.COLOUR_OF_FAMILY.values())) == 7


def test_picture_is_drawn_with_quadrature_upwards():
    picture = np.zeros((4, 4))
    picture[3, 0] = 1
    ax = signal_plots.image(plots.figure()[1], picture)
    assert ax.images[0].origin == "lower"
    assert ax.images[0].get_extent() == [-2.5, 2.5, -2.5, 2.5]

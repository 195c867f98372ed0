"""Figures: the paper's size, the same bytes for the same data, nothing drawn that is not there."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from importlib.metadata import version

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from amc_utils import plots
from amc_utils.runtime.paths import REPOSITORY

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
    with Image.open(tmp_path / "fig_test.png") as image:
        assert image.size == (round(plots.WIDTH_INCHES[width] * 300), 600)
        pixels = np.asarray(image.convert("L"))
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


def test_figure_names_the_results_that_it_shows(table, tmp_path):
    """Those of its own workspace, and the project's own beside it."""
    fig, ax = plots.figure()
    plots.accuracy_against_snr(ax, table, label="x")
    sources = [tmp_path / "results" / "mine", REPOSITORY / "results" / "studies" / "record"]
    plots.save(fig, "test", tmp_path / "figures", "note", sources)
    with Image.open(tmp_path / "figures" / "fig_test.png") as image:
        assert image.info["Source"] == "results/mine, results/studies/record"
    assert (
        b"(results/mine, results/studies/record)"
        in (tmp_path / "figures" / "fig_test.pdf").read_bytes()
    )


def test_figure_tells_seeds_and_the_package_s_version_alone(table, tmp_path):
    """Of a run its seed, of a study those of all its runs; nothing of the machine that draws."""
    results = REPOSITORY / "results"
    lines = (results / "prior" / "runs.jsonl").read_text(encoding="utf8").splitlines()
    seeds = {json.loads(line)["config"]["seed"] for line in lines}
    fig, ax = plots.figure()
    plots.accuracy_against_snr(ax, table, label="x")
    sources = [results / "prior", results / "main" / "radioml_2018", results / "models" / "open-24"]
    plots.save(fig, "test", tmp_path, "note", sources)
    with Image.open(tmp_path / "fig_test.png") as image:
        told = image.info
    assert told["Comment"] == f"seeds {', '.join(map(str, sorted(seeds | {2018})))}"
    assert told["Software"] == f"amc_utils {version('amc-utils')}"
    pdf = (tmp_path / "fig_test.pdf").read_bytes()
    assert f"/Keywords ({told['Comment']})".encode() in pdf
    assert f"/Creator ({told['Software']})".encode() in pdf
    assert b"atplotlib" not in pdf.split(b"/Creator")[1]


def test_figures_are_dark_on_opaque_white_after_a_dark_style(table, tmp_path):
    """A dark page of the book, or of JupyterLab, shows them as print does."""
    with plt.style.context("dark_background"):
        plt.rcParams["savefig.transparent"] = True
        plots.use_style()
        fig, ax = plots.figure()
        plots.accuracy_against_snr(ax, table, label="x")
        plots.save(fig, "test", tmp_path, "note")
    with Image.open(tmp_path / "fig_test.png") as image:
        pixels = np.asarray(image.convert("RGBA"))
    assert (pixels[..., 3] == 255).all()
    assert (np.median(pixels[..., :3], axis=(0, 1)) == 255).all()
    assert pixels[..., :3].max(2).min() < 40, "letters are black"


def is_there(place):
    """A file or folder, or a folder's run, which is a line of its table."""
    runs = place.parent / "runs.jsonl"
    return place.exists() or (runs.is_file() and f'"{place.name}"' in runs.read_text(encoding="utf8"))


@pytest.mark.parametrize("path", sorted((REPOSITORY / "figures").glob("*.png")), ids=lambda p: p.stem)
def test_committed_figure_names_results_that_are_there(path):
    """All but those of notebook 01, which show frames."""
    with Image.open(path) as image:
        places = image.info.get("Source", "").split(", ")
    listed = (REPOSITORY / "figures" / "README.md").read_text(encoding="utf8")
    rows = re.findall(r"^\| `(fig_[\w*]+)` \| .* \| `(\d\d)_", listed, re.M)
    (notebook,) = {number for pattern, number in rows if fnmatch(path.stem, pattern)}
    assert places != [""] or notebook == "01"
    assert all(is_there(REPOSITORY / place) for place in places), "make figures names them anew"


def test_levels_are_drawn_in_numerical_order(table):
    ax = plots.accuracy_against_snr(plots.figure()[1], table, label="x")
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [-10, 0, 2])
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0.1, 0.5, 0.9])
    assert ax.get_ylim() == (0, 1)


def test_confusion_numbers_only_what_happens_often():
    rates = pd.DataFrame([[0.75, 0.25], [0.04, 0.96]], index=["a", "b"], columns=["a", "b"])
    ax = plots.confusion_heat_map(plots.figure()[1], rates)
    assert [text.get_text() for text in ax.texts] == ["75", "25", "", "96"]
    assert ax.collections[0].get_array().flatten().tolist() == [75, 25, 4, 96]


def test_every_family_has_a_colour_of_its_own():
    assert len(set(plots.COLOUR_OF_FAMILY.values())) == 7


def test_image_is_drawn_with_quadrature_upwards():
    image = np.zeros((4, 4))
    image[3, 0] = 1
    ax = plots.image(plots.figure()[1], image)
    assert ax.images[0].origin == "lower"
    assert ax.images[0].get_extent() == [-2.5, 2.5, -2.5, 2.5]


def test_waterfall_falls_from_one_to_what_is_left():
    _, ax = plots.figure("column", 2.0)
    steps = pd.Series({"physics": 0.3, "image": 0.5, "left": 0.2})
    plots.waterfall(ax, steps)
    spans = [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in ax.patches]
    np.testing.assert_allclose(spans, [(0.7, 1.0), (0.2, 0.7), (0.0, 0.2)], atol=1e-12)
    assert [text.get_text() for text in ax.texts] == ["30.0%", "50.0%", "20.0%"]


def test_stacked_shares_fill_the_axes_in_the_order_of_the_columns():
    _, ax = plots.figure("column", 2.0)
    shares = pd.DataFrame({"left": [0.2, 0.6], "lost": [0.8, 0.4]}, index=[-10, 10])
    plots.stacked_shares(ax, shares)
    lower, upper = (area.get_paths()[0].get_extents() for area in ax.collections)
    assert (lower.y0, lower.y1, upper.y1) == pytest.approx((0.0, 0.6, 1.0))
    assert ax.get_legend_handles_labels()[1] == ["left", "lost"]


def test_gallery_of_a_stack_has_a_row_a_channel(rng):
    images = np.random.default_rng(0).random((11, 3, 8, 8))
    names = [f"name {k}" for k in range(11)]
    fig = plots.gallery(images, names, ("one", "two", "three"))
    assert len(fig.axes) == 27
    shown = np.array([ax.images[0].get_array() for ax in fig.axes]).reshape(3, 9, 8, 8)
    np.testing.assert_array_equal(shown, images[:9].swapaxes(0, 1))
    assert [ax.get_title() for ax in fig.axes[:9]] == names[:9]
    assert [fig.axes[9 * row].get_ylabel() for row in range(3)] == ["one", "two", "three"]


def test_gallery_of_raw_samples_shows_their_plain_images():
    fig = plots.gallery(np.ones((2, 2, 1024), np.float32), ["a", "b"])
    (row,), (column,) = (set(axis) for axis in np.nonzero(fig.axes[0].images[0].get_array()))
    assert row == column == 44  # (1 + 2.5) / 5 of 64 pixels

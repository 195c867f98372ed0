"""The committed figures: each explained, and drawn from the committed results."""

from __future__ import annotations

import re
import shutil
from fnmatch import fnmatch

import matplotlib.pyplot as plt
import numpy as np
import papermill
import pytest

from amc_utils.runtime.paths import REPOSITORY

FIGURES = REPOSITORY / "figures"
LISTED = re.findall(r"^\| `(fig_[\w*]+)` \|", (FIGURES / "README.md").read_text(encoding="utf8"), re.M)


def test_every_figure_is_listed_and_every_listed_one_is_there():
    names = {path.stem for path in FIGURES.glob("*.p*")}
    assert all(any(fnmatch(name, pattern) for pattern in LISTED) for name in names)
    assert all(any(fnmatch(name, pattern) for name in names) for pattern in LISTED)
    assert {p.stem for p in FIGURES.glob("*.pdf")} == {p.stem for p in FIGURES.glob("*.png")}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of its own with the committed results."""
    folder = tmp_path_factory.mktemp("figures")
    shutil.copytree(REPOSITORY / "results", folder / "results")
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "04_per_class_analysis",
        "05_ceiling_anatomy",
        "06_choices_and_channels",
        "07_claims",
        "08_real_file_curves",
    ],
)
def test_figures_redrawn_from_the_results_are_the_committed_ones(root, name):
    notebook = REPOSITORY / "notebooks" / f"{name}.ipynb"
    before = set((root / "figures").glob("*"))
    parameters = {"output_root": str(root)}
    if name.startswith("04"):
        named = re.search(r"^COMPARED := \[(.*)\]$", (REPOSITORY / "Makefile").read_text(), re.M)[1]
        parameters["runs"] = named.split(", ")
    papermill.execute_notebook(notebook, root / f"{name}.ipynb", parameters, kernel_name="python3")
    drawn = set((root / "figures").glob("*.png")) - before
    assert drawn
    changed = [path.name for path in drawn if share_that_differs(path, FIGURES / path.name) > 1e-4]
    assert not changed, "make figures redraws them"


def share_that_differs(one, other):
    """Share of pixel values more than two of 255 steps apart: another processor rounds otherwise."""
    images = [plt.imread(path) for path in (one, other)]
    if len({image.shape for image in images}) > 1:
        return 1.0
    return np.mean(np.abs(images[0] - images[1]) > 2.5 / 255)

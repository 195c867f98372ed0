"""The committed figures: each explained, and drawn from the committed results."""

from __future__ import annotations

import re
import shutil
from fnmatch import fnmatch

import papermill
import pytest

from amc_utils.paths import REPOSITORY

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
    "name", ["04_per_class_analysis", "05_ceiling_anatomy", "06_choices_and_channels", "07_claims"]
)
def test_figures_redrawn_from_the_results_are_the_committed_ones(root, name):
    notebook = REPOSITORY / "notebooks" / f"{name}.ipynb"
    before = set((root / "figures").glob("*"))
    papermill.execute_notebook(
        notebook, root / f"{name}.ipynb", {"output_root": str(root)}, kernel_name="python3"
    )
    drawn = set((root / "figures").glob("*.pdf")) - before
    assert drawn
    changed = [p.name for p in drawn if p.read_bytes() != (FIGURES / p.name).read_bytes()]
    assert not changed, "make figures redraws them"

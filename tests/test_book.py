"""The book that `make site` builds: every page, executed notebooks as they are, no dead link."""

from __future__ import annotations

import re
import subprocess
import sys

import nbformat
import pytest
from nbformat import v4

from amc_utils.runtime.paths import REPOSITORY

# One pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
def root(tmp_path):
    """A repository of README, a page, and a notebook that no kernel could execute."""
    plot = v4.new_code_cell("1 / 0", outputs=[v4.new_output("display_data", {"image/png": PNG})])
    told = v4.new_code_cell("2 / 0", outputs=[v4.new_output("stream", text="as it was executed")])
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("# Title of 01\n\n## The end"), plot, told])
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    (tmp_path / "outputs").mkdir()
    nbformat.write(notebook, tmp_path / "outputs" / "01_first.ipynb")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "more.md").write_text("# More\n\n[back](../README.md)\n\n## Below\n")
    (tmp_path / "README.md").write_text(
        "# Start\n\n[more](docs/more.md#below), [first](notebooks/01_first.ipynb), [a file](data.csv)\n"
    )
    (tmp_path / "data.csv").write_text("1\n")
    return tmp_path


def build(root):
    """The command of `make site`, in another folder."""
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf8")
    (options,) = re.findall(r"-m sphinx (.*) -c docs \. outputs/site$", makefile, re.M)
    command = [sys.executable, "-m", "sphinx", *options.split(), "-c", REPOSITORY / "docs"]
    return subprocess.run([*command, root, root / "site"], capture_output=True, text=True)


def test_book_has_every_page_and_asks_for_no_connection(root):
    done = build(root)
    assert done.returncode == 0, done.stderr
    pages = {name: (root / "site" / f"{name}.html").read_text(encoding="utf8") for name in (
        "README", "docs/more", "outputs/01_first")}  # fmt: skip
    for page in pages.values():
        assert all(title in page for title in ("More", "01 first"))
        assert not re.search(r"<(?:script|link|img)[^>]* (?:src|href)=\"(?:https?:)?//", page)
    assert 'href="docs/more.html#below"' in pages["README"]
    assert 'href="outputs/01_first.html"' in pages["README"]
    assert "as it was executed" in pages["outputs/01_first"]
    assert "ZeroDivisionError" not in pages["outputs/01_first"]
    assert len(list((root / "site" / "_images").glob("*.png"))) == 1
    assert "README.html" in (root / "site" / "index.html").read_text(encoding="utf8")


def test_links_that_lead_nowhere_are_named_and_end_the_build(root):
    links = "[x](nowhere.md) [x](#nowhere) [x](docs/more.md#nowhere) ![x](nowhere.png)"
    with (root / "README.md").open("a") as page:
        page.write(f"\n{links} [x](notebooks/02_second.ipynb) [x](nowhere.yaml)\n")
    done = build(root)
    assert done.returncode != 0
    warnings = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert len(warnings) == 6, done.stderr
    assert all("nowhere" in line or "02_second" in line for line in warnings)


def test_without_executed_notebooks_one_sentence_says_what_makes_them(root):
    (root / "outputs" / "01_first.ipynb").unlink()
    done = build(root)
    assert done.returncode != 0
    assert re.search(r"no executed notebooks in \S+outputs; make figures", done.stderr)
    assert "Traceback" not in done.stderr

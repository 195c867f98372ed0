"""The book that `make site` builds: every page, executed notebooks as they are, no dead link."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

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
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    (tmp_path / "outputs").mkdir()
    nbformat.write(notebook, tmp_path / "outputs" / "01_first.ipynb")
    for name in ("conf.py", "_templates/to_readme.html"):
        (tmp_path / "docs" / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / "docs" / name, tmp_path / "docs" / name)
    (tmp_path / "docs" / "more.md").write_text("# More\n\n[back](../README.md)\n\n## Below\n")
    (tmp_path / "README.md").write_text(
        "# Start\n\n[more](docs/more.md#below), [first](notebooks/01_first.ipynb), "
        "[second](notebooks/02_second.ipynb), [a file](data.csv)\n"
    )
    (tmp_path / "data.csv").write_text("1\n")
    (tmp_path / "notebooks").mkdir()
    for name in ("01_first", "02_second"):
        nbformat.write(
            v4.new_notebook(cells=[v4.new_markdown_cell(f"# {name}")]),
            tmp_path / "notebooks" / f"{name}.ipynb",
        )
    return tmp_path


def build(root):
    """The repository's `make site` in another folder, with this interpreter."""
    words = ["make", "--no-print-directory", "-f", REPOSITORY / "Makefile"]
    words += ["-o", ".venv/.installed", "site"]
    words.append(f"BIN={Path(sys.executable).parent}")
    return subprocess.run(words, cwd=root, capture_output=True, text=True)


def test_book_has_every_page_and_asks_for_no_connection(root):
    done = build(root)
    assert done.returncode == 0, done.stderr
    pages = {name: (root / "outputs" / "site" / f"{name}.html").read_text(encoding="utf8") for name in (
        "README", "docs/more", "outputs/01_first")}  # fmt: skip
    for page in pages.values():
        assert all(title in page for title in ("More", "01 first", "02 second (not executed)"))
        assert not re.search(r"<(?:script|link|img)[^>]* (?:src|href)=\"(?:https?:)?//", page)
    assert 'href="docs/more.html#below"' in pages["README"]
    assert 'href="outputs/01_first.html"' in pages["README"]
    assert [path.name for path in (root / "outputs" / "site" / "_downloads").rglob("*.*")] == [
        "data.csv"
    ]
    assert not (root / "outputs" / "site" / "notebooks" / "01_first.html").exists()
    assert "as it was executed" in pages["outputs/01_first"]
    assert "ZeroDivisionError" not in pages["outputs/01_first"]
    assert len(list((root / "outputs" / "site" / "_images").glob("*.png"))) == 1
    assert "README.html" in (root / "outputs" / "site" / "index.html").read_text(encoding="utf8")


def test_links_that_lead_nowhere_are_named_and_end_the_build(root):
    links = "[x](nowhere.md) [x](#nowhere) [x](docs/more.md#nowhere) ![x](nowhere.png)"
    with (root / "README.md").open("a") as page:
        page.write(f"\n{links} [x](notebooks/03_nowhere.ipynb) [x](nowhere.yaml)\n")
    done = build(root)
    assert done.returncode != 0
    warnings = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert len(warnings) == 6, done.stderr
    assert all("nowhere" in line for line in warnings)


def test_without_executed_notebooks_one_sentence_says_what_makes_them(root):
    (root / "outputs" / "01_first.ipynb").unlink()
    done = build(root)
    assert done.returncode != 0
    assert done.stdout == (
        "no executed notebooks in outputs/; make figures or make reproduce executes them\n"
    )

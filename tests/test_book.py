"""The book that `make site` builds: every page, executed notebooks as they are, no dead link."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

import amc_utils
from amc_utils.runtime.paths import REPOSITORY

# One pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
def root(tmp_path):
    """A repository of README, a page, and notebooks that no kernel could execute."""
    plot = v4.new_code_cell("1 / 0", outputs=[v4.new_output("display_data", {"image/png": PNG})])
    told = v4.new_code_cell("2 / 0", outputs=[v4.new_output("stream", text="as it was executed")])
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("# Title of 01\n\n## The end"), plot, told])
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    for name in ("_templates", "_static"):
        shutil.copytree(REPOSITORY / "docs" / name, tmp_path / "docs" / name)
    shutil.copy(REPOSITORY / "docs" / "conf.py", tmp_path / "docs")
    (tmp_path / "docs" / "more.md").write_text("# More\n\n[back](../README.md)\n\n## Below\n")
    (tmp_path / "README.md").write_text(
        "# Start\n\n[more](docs/more.md#below), [first](docs/executed/01_first.ipynb), "
        "[second](docs/executed/02_second.ipynb), [a file](data.csv)\n\n## Extend it\n"
    )
    (tmp_path / "data.csv").write_text("1\n")
    (tmp_path / "docs" / "executed").mkdir()
    nbformat.write(notebook, tmp_path / "docs" / "executed" / "01_first.ipynb")
    other = v4.new_notebook(cells=[v4.new_markdown_cell("# 02_second\n\nas it was kept")])
    nbformat.write(other, tmp_path / "docs" / "executed" / "02_second.ipynb")
    return tmp_path


def build(root):
    """The repository's `make site` in another folder, with this interpreter."""
    words = ["make", "--no-print-directory", "-f", REPOSITORY / "Makefile"]
    words += ["-o", ".venv/.installed", "site"]
    words.append(f"BIN={Path(sys.executable).parent}")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(words, cwd=root, capture_output=True, text=True, env=environment)


def page(root, name):
    return (root / "outputs" / "site" / f"{name}.html").read_text(encoding="utf8")


def test_book_has_every_page_and_asks_for_no_connection(root):
    done = build(root)
    assert done.returncode == 0, done.stderr
    pages = {name: page(root, name) for name in ("README", "docs/more", "docs/executed/01_first")}
    for text in pages.values():
        assert all(title in text for title in ("More", "01 first", "02 second"))
        assert not re.search(r"<(?:script|link|img)[^>]* (?:src|href)=\"(?:https?:)?//", text)
    assert 'href="docs/more.html#below"' in pages["README"]
    assert 'href="docs/executed/01_first.html"' in pages["README"]
    assert [path.name for path in (root / "outputs" / "site" / "_downloads").rglob("*.*")] == [
        "data.csv"
    ]
    assert "as it was executed" in pages["docs/executed/01_first"]
    assert "as it was kept" in page(root, "docs/executed/02_second")
    assert "ZeroDivisionError" not in pages["docs/executed/01_first"]
    assert len(list((root / "outputs" / "site" / "_images").glob("*.png"))) == 1
    assert "README.html" in page(root, "index")


def test_reference_explains_what_the_package_exports_and_can_be_searched(root):
    for name in ("api.md", "extend.md"):
        shutil.copy(REPOSITORY / "docs" / name, root / "docs")
    done = build(root)
    assert done.returncode == 0, done.stderr
    first = page(root, "docs/api")
    for name, home in amc_utils._HOME_OF_NAME.items():
        anchor = f"amc_utils.{home}.{name}"
        assert f'href="api/amc_utils.{home}.html#{anchor}"' in first
        assert f'id="{anchor}"' in page(root, f"docs/api/amc_utils.{home}")
    drawn = page(root, "docs/api/amc_utils.images")
    assert "float32 [B, C, H, W]" in drawn
    search = (root / "outputs" / "site" / "searchindex.js").read_text(encoding="utf8")
    assert "constellation_images" in search
    assert not (root / "docs" / "api").exists()


def test_links_that_lead_nowhere_are_named_and_end_the_build(root):
    links = "[x](nowhere.md) [x](#nowhere) [x](docs/more.md#nowhere) ![x](nowhere.png)"
    with (root / "README.md").open("a") as page:
        page.write(f"\n{links} [x](docs/executed/03_nowhere.ipynb) [x](nowhere.yaml)\n")
    done = build(root)
    assert done.returncode != 0
    warnings = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert len(warnings) == 6, done.stderr
    assert all("nowhere" in line for line in warnings)

"""Executed notebooks as pages: complete, with pictures, and without a link that leads nowhere."""

from __future__ import annotations

import nbformat
import pytest
from nbformat import v4

from amc_utils.runtime.paths import Workspace
from amc_utils.studies import site

# One pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
def workspace(tmp_path):
    """Two executed notebooks, the second with a picture and the state of a widget."""
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    first = v4.new_notebook(
        cells=[v4.new_markdown_cell("# A\n\nSee [its end](#The-end).\n\n## The end")]
    )
    picture = v4.new_output("display_data", {"image/png": PNG})
    second = v4.new_notebook(cells=[v4.new_code_cell("plot()", outputs=[picture])])
    second.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    for name, notebook in {"01_first": first, "02_second": second}.items():
        nbformat.write(notebook, outputs / f"{name}.ipynb")
    (tmp_path / "README.md").write_text(
        "# Title\n\n[claims](claims.yaml), [more](docs/more.md), `code`\n\n![x](x.png)\n"
    )
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "more.md").write_text("# More\n\n[back](../README.md), ![x](../x.png)\n")
    (tmp_path / "x.png").write_bytes(b"png")
    return Workspace(tmp_path)


def test_pages_lead_to_each_other_and_need_no_connection(workspace):
    pages = site.build(workspace, workspace.root / "README.md")
    names = ["index.html", "more.html", "01_first.html", "02_second.html"]
    assert [page.name for page in pages] == names
    for page in pages:
        text = page.read_text(encoding="utf8")
        assert all(f'href="{other.name}"' in text for other in pages)
        assert not any(link.startswith("http") for link in site._Links.of(page).links)
        assert "https://unpkg" not in text
    assert PNG in pages[3].read_text(encoding="utf8")
    assert "claims.yaml" not in pages[0].read_text(encoding="utf8")
    assert '<a href="more.html">more</a>' in pages[0].read_text(encoding="utf8")


@pytest.mark.parametrize("link", ["nowhere.html", "#nowhere", "01_first.html#nowhere"])
def test_link_that_leads_nowhere_is_named(workspace, link):
    pages = site.build(workspace, workspace.root / "README.md")
    assert [site.broken_links(page) for page in pages] == [[], [], [], []]
    with pages[3].open("a") as page:
        page.write(f'<a href="{link}">x</a>')
    assert site.broken_links(pages[3]) == [f"02_second.html: {link}"]


def test_notebook_with_a_broken_link_makes_no_quiet_site(workspace):
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("[there](02_second.ipynb)")])
    nbformat.write(notebook, workspace.outputs / "03_third.ipynb")
    with pytest.raises(ValueError, match=r"every link must lead somewhere, got 03_third.html: 02_sec"):
        site.build(workspace, workspace.root / "README.md")


def test_without_executed_notebooks_one_sentence_says_what_makes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no executed notebooks in .* make reproduce"):
        site.build(Workspace(tmp_path), tmp_path / "README.md")

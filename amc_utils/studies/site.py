"""Executed notebooks as pages that are read in any browser, without Jupyter and without a connection.

    amc site

Reads outputs/*.ipynb, README.md and docs/; writes outputs/site/index.html and a page for each.
"""

from __future__ import annotations

import argparse
import base64
import html
import re
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html_mistune

from amc_utils.runtime.paths import REPOSITORY, Workspace, replacing

_STYLE = """body{font-family:sans-serif;line-height:1.5;max-width:70rem;margin:0 auto;padding:1rem}
img{max-width:100%}table{border-collapse:collapse;font-size:.85rem}
td,th{border:1px solid #ccc;padding:.3rem}pre{overflow-x:auto;background:#f5f5f5;padding:.6rem}
nav{padding:.6rem 0;border-bottom:1px solid #ccc}"""


def build(workspace: Workspace, readme: Path) -> list[Path]:
    """Write the pages; returns them, the index first.

    Raises:
        FileNotFoundError: no notebook has been executed.
        ValueError: a link of a page leads nowhere.
    """
    notebooks = sorted(workspace.outputs.glob("[0-9][0-9]_*.ipynb"))
    if not notebooks:
        raise FileNotFoundError(
            f"no executed notebooks in {workspace.outputs}; make reproduce executes them"
        )
    target = workspace.outputs / "site"
    target.mkdir(parents=True, exist_ok=True)
    texts = {"index": readme, **{path.stem: path for path in sorted(readme.parent.glob("docs/*.md"))}}
    navigation = _navigation([*texts, *(path.stem for path in notebooks)])
    pages = {f"{name}.html": _text_page(path, texts, navigation) for name, path in texts.items()}
    pages |= {f"{path.stem}.html": _page(path, navigation) for path in notebooks}
    for name, content in pages.items():
        with replacing(target / name) as temporary:
            temporary.write_text(content, encoding="utf8")
    written = [target / name for name in pages]
    if broken := [link for page in written for link in broken_links(page)]:
        raise ValueError(f"every link must lead somewhere, got {', '.join(broken)}")
    return written


def broken_links(page: Path) -> list[str]:
    """Links and pictures of a page that are not on this disk, and anchors that no page has."""
    found = []
    for link in _Links.of(page).links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        goal = page.parent / unquote(parts.path) if parts.path else page
        anchor_missing = goal.suffix == ".html" and parts.fragment and goal.is_file()
        if not goal.exists() or (
            anchor_missing and unquote(parts.fragment) not in _Links.of(goal).anchors
        ):
            found.append(f"{page.name}: {link}")
    return found


class _Links(HTMLParser):
    """Where a page's links lead, and which anchors it has."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()

    @classmethod
    def of(cls, page: Path) -> _Links:
        parser = cls()
        parser.feed(page.read_text(encoding="utf8"))
        return parser

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note links and anchors."""
        values = dict(attrs)
        wanted = {"a": "href", "img": "src", "script": "src", "link": "href"}.get(tag)
        if wanted and values.get(wanted):
            self.links.append(values[wanted])
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}


def _navigation(names: list[str]) -> str:
    items = " · ".join(
        f'<a href="{name}.html">{html.escape(name.replace("_", " "))}</a>' for name in names
    )
    return f"<nav>{items}</nav>"


def _page(path: Path, navigation: str) -> str:
    # Without these addresses, and without widgets that no kernel moves, no page asks for a connection.
    exporter = HTMLExporter(require_js_url="", mathjax_url="", mermaid_js_url="", embed_images=True)
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    content, _ = exporter.from_notebook_node(notebook)
    return re.sub(r"(<body[^>]*>)", lambda found: found[1] + navigation, content, count=1)


def _text_page(path: Path, texts: dict[str, Path], navigation: str) -> str:
    """README or a page of docs/ with its pictures in it; links into the repository become plain text.

    Source files have no place among the pages, so that only links to other pages stay links.
    """
    content = markdown2html_mistune(path.read_text(encoding="utf8"))

    def embed(found: re.Match) -> str:
        picture = (path.parent / found[1]).read_bytes()
        return f'src="data:image/png;base64,{base64.b64encode(picture).decode()}"'

    def lead(found: re.Match) -> str:
        page = Path(found[1]).stem
        return f'<a href="{page}.html">{found[2]}</a>' if page in texts else found[2]

    content = re.sub(r'src="((?!https?:|data:)[^"]+\.png)"', embed, content)
    content = re.sub(r'<a href="(?!https?:|#)([^"]*)">(.*?)</a>', lead, content)
    head = f'<meta charset="utf-8"><title>{path.stem}</title><style>{_STYLE}</style>'
    return f"<!DOCTYPE html><html lang=en><head>{head}</head><body>{navigation}{content}</body></html>"


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the pages, from the command line."""
    argparse.ArgumentParser(prog="amc site", description=main.__doc__).parse_args(arguments)
    try:
        pages = build(Workspace(REPOSITORY), REPOSITORY / "README.md")
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(f"{len(pages)} pages, the first is {pages[0]}")

"""The book: README.md, the pages of docs/, and the executed notebooks in outputs/ as they are.

`make site` builds it with Sphinx from the root of the repository; any warning, such as a link that
leads nowhere, ends the build.
"""

from pathlib import Path

from sphinx.application import Sphinx

project = "Where is the ceiling?"
author = "The compendium's authors"
extensions = ["myst_nb"]
root_doc = "README"
# Nothing else of the repository is a page, and no other folder is searched.
include_patterns = ["README.md", "RUNLOG.md", "docs/*.md", "figures/README.md", "outputs/[0-9]*.ipynb"]
exclude_patterns = [".*", "*/.*", "outputs/*/**", "results", "build", "amc_utils", "tests"]
nb_execution_mode = "off"
# Pages ask for no connection: controls are of no use without a kernel.
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
myst_heading_anchors = 3
html_theme = "sphinx_book_theme"
html_title = project
html_copy_source = False
# Web servers and readers look for index.html.
html_additional_pages = {"index": "to_readme.html"}
templates_path = ["_templates"]

_CONTENTS = """

```{{toctree}}
:hidden:
:caption: {caption}

{entries}
```
"""


def _add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """List all other pages at the end of README, and lead to notebooks as they were executed."""
    source[0] = (
        source[0].replace("](notebooks/", "](outputs/").replace("](../notebooks/", "](../outputs/")
    )
    if name != root_doc:
        return
    pages = sorted(app.project.docnames - {root_doc})
    notebooks = [page for page in pages if page.startswith("outputs/")]
    entries = [f"{Path(page).name.replace('_', ' ')} <{page}>" for page in notebooks]
    others = [page for page in pages if page not in notebooks]
    for caption, lines in {"Pages": others, "Executed notebooks": entries}.items():
        source[0] += _CONTENTS.format(caption=caption, entries="\n".join(lines))


def setup(app: Sphinx) -> None:
    """Connect the above."""
    app.connect("source-read", _add_contents)

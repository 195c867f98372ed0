"""The book: README.md, the pages of docs/, and notebooks as they were executed in outputs/.

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
include_patterns = ["README.md", "RUNLOG.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md"]
include_patterns += ["figures/README.md", "outputs/[0-9]*.ipynb", "notebooks/*.ipynb"]
exclude_patterns = [".*", "*/.*", "outputs/*/**", "results", "build", "amc_utils", "tests"]
nb_execution_mode = "off"
# Pages ask for no connection: controls are of no use without a kernel.
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
myst_heading_anchors = 3
html_theme = "sphinx_book_theme"
html_title = project
html_copy_source = False
html_theme_options = {"navbar_persistent": []}
# Web servers and readers look for index.html.
html_additional_pages = {"index": "to_readme.html"}
templates_path = ["_templates"]

# In the order of reading; others follow.
_PAGES = (
    "docs/glossary", "docs/results", "docs/claims", "docs/images_and_bound",
    "docs/radioml_2018_as_measured", "docs/radioml_file", "docs/classify", "docs/own_runs",
    "docs/extend", "docs/speed", "figures/README", "RUNLOG", "CONTRIBUTING", "CHANGELOG",
)  # fmt: skip
_CONTENTS = """

```{{toctree}}
:hidden:
:caption: {caption}

{entries}
```
"""


def _add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """List all other pages at the end of README, and lead to notebooks as they were executed."""
    for notebook in app.project.docnames:
        if notebook.startswith("outputs/"):
            written = f"{notebook.replace('outputs/', 'notebooks/')}.ipynb"
            source[0] = source[0].replace(f"{written})", f"{notebook}.ipynb)")
    if name != root_doc:
        return
    pages = sorted(app.project.docnames - {root_doc})
    notebooks = [page for page in pages if page.startswith(("outputs/", "notebooks/"))]
    notebooks.sort(key=lambda page: Path(page).name)
    others = [page for page in _PAGES if page in pages]
    others += [page for page in pages if page not in notebooks + others]
    for caption, entries in {"Pages": others, "Notebooks": notebooks}.items():
        source[0] += _CONTENTS.format(caption=caption, entries="\n".join(map(_entry, entries)))


def _entry(page: str) -> str:
    """A page by its title; a notebook by its name, since several may be one with other parameters."""
    folder, _, name = page.rpartition("/")
    title = name.replace("_", " ")
    state = {"outputs": "", "notebooks": " (not executed)"}
    return f"{title}{state[folder]} <{page}>" if folder in state else page


def setup(app: Sphinx) -> None:
    """Connect the above; a notebook that was executed is not shown without its outputs as well."""
    executed = [path.name for path in (app.srcdir / "outputs").glob("[0-9]*.ipynb")]
    app.config.exclude_patterns += [f"notebooks/{name}" for name in executed]
    app.connect("source-read", _add_contents)

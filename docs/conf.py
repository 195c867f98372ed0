"""The book: README.md, the pages of docs/, executed notebooks, and a reference from docstrings.

`make site` builds it from the root of the repository; any warning, such as a link that leads nowhere,
ends the build. It is Sphinx with the parts that Jupyter Book 1 is made of, MyST-NB and its theme,
configured here and not through that, so that README.md can be the first page and stay where it is.
"""

from sphinx.application import Sphinx

project = "Where is the ceiling?"
author = "The compendium's authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
root_doc = "README"
# Nothing else of the repository is a page, and no other folder is searched.
include_patterns = ["README.md", "RUNLOG.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**"]
include_patterns += ["figures/README.md", "amc_utils/inference/shipped/*/README.md"]
exclude_patterns = [".*", "*/.*", "docs/_templates", "outputs", "results", "build", "amc_utils/[!i]*"]
exclude_patterns += ["tests"]
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
html_static_path = ["_static"]
html_css_files = ["book.css"]

# Docstrings: Google's sections, types in annotations, `x` is code.
default_role = "code"
napoleon_custom_sections = [("Source", "notes_style")]
autodoc_default_options = {"members": True, "exclude-members": "model_config"}
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
# Links to other packages would need a connection, and what is private has no page.
nitpick_ignore_regex = [("py:.*", r"(?!amc_utils\.).*|.*\._\w+")]

# In the order of reading; others follow.
_PAGES = (
    "docs/glossary", "docs/results", "docs/claims", "docs/images_and_bound",
    "docs/radioml_2018_as_measured", "docs/radioml_file", "docs/data_card", "docs/classify",
    "amc_utils/inference/shipped/open-24/README",
    "amc_utils/inference/shipped/radioml_2018-likelihoods/README",
    "docs/own_runs", "docs/extend", "docs/api", "docs/speed", "figures/README", "RUNLOG",
    "CONTRIBUTING", "CHANGELOG",
)  # fmt: skip
_CONTENTS = """

```{{toctree}}
:hidden:
:caption: {caption}

{entries}
```
"""


def _add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """List all other pages at the end of README."""
    if name != root_doc:
        return
    # Those of the reference are listed on its own first page.
    pages = sorted(page for page in app.project.docnames if not page.startswith("docs/api/"))
    pages.remove(root_doc)
    notebooks = [page for page in pages if page.startswith("docs/executed/")]
    others = [page for page in _PAGES if page in pages]
    others += [page for page in pages if page not in notebooks + others]
    for caption, entries in {"Pages": others, "Notebooks": notebooks}.items():
        source[0] += _CONTENTS.format(caption=caption, entries="\n".join(map(_entry, entries)))


def _entry(page: str) -> str:
    """A page by its title; a notebook by its name, since several may be one with other parameters."""
    folder, _, name = page.rpartition("/")
    return f"{name.replace('_', ' ')} <{page}>" if folder == "docs/executed" else page


def setup(app: Sphinx) -> None:
    """Connect the above."""
    app.connect("source-read", _add_contents)

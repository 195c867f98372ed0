"""What the layout promises: few files, short functions, imports that cost no more than they must.

Who may import whom stands in pyproject.toml, and import-linter holds it.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest

import amc_utils
from amc_utils.runtime.paths import REPOSITORY

PACKAGE = REPOSITORY / "amc_utils"
MODULES = {str(p.relative_to(PACKAGE).with_suffix("")): p for p in sorted(PACKAGE.rglob("*.py"))}


def lines(paths):
    return sum(len(path.read_text(encoding="utf8").splitlines()) for path in paths)


def test_the_top_can_be_seen_at_a_glance():
    assert len(list(PACKAGE.glob("*.py"))) <= 12
    assert len(list(PACKAGE.glob("*/__init__.py"))) <= 9


def test_the_package_grows_no_larger():
    assert lines(PACKAGE.glob("*.py")) <= 4684
    assert lines(MODULES.values()) <= 19344


@pytest.mark.parametrize("name", MODULES)
def test_functions_fit_on_a_screen(name):
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf8"))):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 50, f"{node.name} is too long"


@pytest.mark.parametrize("name", MODULES)
def test_importing_runs_no_statement(name):
    """Top level holds definitions and constants; calls there only build constants."""
    for node in ast.parse(MODULES[name].read_text(encoding="utf8")).body:
        guard = isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        defined = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
        assert guard or docstring or isinstance(node, defined), ast.unparse(node)


@pytest.mark.parametrize("name", MODULES)
def test_modules_import_from_the_files_themselves(name):
    """The lazy names of the package would hide from import-linter what is imported."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "amc_utils":
            assert not {alias.name for alias in node.names} & amc_utils._HOME_OF_NAME.keys()


def imported(statement):
    """Own modules and other packages that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = json.loads(done.stdout.splitlines()[-1])
    own = {name for name in names if name.startswith("amc_utils.")}
    return own, {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    ("statement", "at_most", "without"),
    [
        ("import amc_utils.__main__", 1, {"torch", "numpy", "matplotlib"}),
        ("from amc_utils import generate_frames", 6, {"matplotlib", "lightning", "timm", "pandas"}),
        ("from amc_utils import constellation_images", 13, {"matplotlib", "lightning", "timm"}),
        (
            "from amc_utils.inference.classifier import load_classifier",
            23,
            {"matplotlib", "lightning", "papermill", "sklearn", "h5py"},
        ),
        (
            "import amc_utils.inference.classify",
            33,
            {"matplotlib", "lightning", "papermill", "sklearn", "sigmf", "jsonschema"},
        ),
    ],
)
def test_a_part_imports_what_it_needs_alone(statement, at_most, without):
    own, others = imported(statement)
    assert len(own) <= at_most, sorted(own)
    assert not others & without


def test_names_of_the_package_are_there():
    for name in amc_utils._HOME_OF_NAME:
        assert getattr(amc_utils, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = amc_utils.nonsense

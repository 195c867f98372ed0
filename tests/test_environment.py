"""The three doors to the environment lead to the same pins."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml

from amc_utils.runtime.paths import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf8"))["project"]
LOCK = (REPOSITORY / "requirements.lock").read_text(encoding="utf8")
DESIGN_CARD = {"jupyterlab", "torch", "timm", "numpy", "matplotlib", "seaborn", "papermill", "h5py"}


def name_of(requirement):
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower().replace("_", "-")


def test_lock_pins_every_direct_dependency_exactly():
    pinned = {name_of(line) for line in LOCK.splitlines() if "==" in line}
    optional = PROJECT["optional-dependencies"]
    direct = PROJECT["dependencies"] + optional["dev"] + optional["docs"]
    assert {name_of(r) for r in direct} >= DESIGN_CARD
    assert {name_of(r) for r in direct} <= pinned
    assert all(re.match(r"^[\w.\[\]-]+==\S+( ; .+)?$", line) for line in LOCK.splitlines())


def test_lock_names_no_address():
    assert "://" not in LOCK
    assert "index" not in LOCK.lower()


def test_conda_door_installs_the_lock_and_the_package():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text(encoding="utf8"))
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert {name_of(entry) for entry in plain} == {"python", "pip"}
    assert plain[0].startswith("python" + PROJECT["requires-python"])
    assert pip == ["-r requirements.lock", "-e ."]


def test_imported_packages_are_declared():
    """What the module imports, it asks for."""
    names = {"sklearn": "scikit-learn", "yaml": "pyyaml", "PIL": "pillow"}
    standard = __import__("sys").stdlib_module_names
    declared = {name_of(r) for r in PROJECT["dependencies"]}
    for path in (REPOSITORY / "amc_utils").glob("*.py"):
        for package in re.findall(r"^(?:from|import) (\w+)", path.read_text(encoding="utf8"), re.M):
            if package not in standard and package not in ("amc_utils", "__future__"):
                assert names.get(package, package) in declared, f"{path.name} imports {package}"


def test_citation_is_of_this_version():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]


@pytest.mark.parametrize(
    "name", ["LICENSE", "CITATION.cff", "README.md", "RUNLOG.md", "environment.yml"]
)
def test_top_level_is_complete(name):
    assert (REPOSITORY / name).stat().st_size > 100

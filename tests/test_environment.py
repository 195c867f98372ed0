"""All doors to the environment lead to the same pins, and what GitHub reads has its form."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib

import pytest
import yaml

from amc_utils.runtime.paths import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf8"))["project"]
LOCK = (REPOSITORY / "requirements.lock").read_text(encoding="utf8")
GITHUB = REPOSITORY / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
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
    "name",
    [
        "LICENSE",
        "CITATION.cff",
        "README.md",
        "RUNLOG.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "environment.yml",
    ],
)
def test_top_level_is_complete(name):
    assert (REPOSITORY / name).stat().st_size > 100


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_gives_commands_of_the_readme(path):
    readme = (REPOSITORY / "README.md").read_text(encoding="utf8")
    given = [
        step["run"]
        for job in yaml.safe_load(path.read_text(encoding="utf8"))["jobs"].values()
        for step in job["steps"]
        if "run" in step
    ]
    assert given
    for command in given:
        assert re.search(rf"^{command} +# ", readme, re.M), command


def test_workflows_try_every_python_that_is_promised():
    tested = yaml.safe_load((GITHUB / "workflows" / "test.yml").read_text(encoding="utf8"))
    conda = (REPOSITORY / "environment.yml").read_text(encoding="utf8")
    low, above = (int(minor) for minor in re.search(r"python>=3\.(\d+),<3\.(\d+)", conda).groups())
    promised = [f"3.{minor}" for minor in range(low, above)]
    assert tested["jobs"]["test"]["strategy"]["matrix"]["python"] == promised


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("github-workflows", WORKFLOWS),
        ("github-issue-forms", sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"))),
        ("dependabot", [GITHUB / "dependabot.yml"]),
        ("citation-file-format", [REPOSITORY / "CITATION.cff"]),
    ],
)
def test_file_for_github_has_its_form(schema, paths):
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*check, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_containers_take_the_pins_from_the_lock_alone():
    """By the one command that installs them; none of these files names a version of a package."""
    for name in ("Dockerfile", ".devcontainer/devcontainer.json", "binder/postBuild"):
        text = (REPOSITORY / name).read_text(encoding="utf8")
        assert "make .venv/.installed TORCH=cpu" in text
        assert "==" not in text
        assert "pip install" not in text


def test_cpu_build_leaves_out_what_only_the_gpu_needs():
    words = ["make", "--dry-run", "--always-make", ".venv/.installed"]
    said = {}
    for torch in ("", "cpu"):
        done = subprocess.run(
            [*words, f"TORCH={torch}"], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        pattern = re.search(r"grep -vE '(.*?)'", done.stdout)[1]
        said[torch] = {line for line in LOCK.splitlines() if not re.search(pattern, line)}
        assert ("--torch-backend cpu" in done.stdout) == bool(torch)
    assert said[""] == set(LOCK.splitlines())
    left_out = {name_of(line) for line in said[""] - said["cpu"]}
    assert {"nvidia-cublas", "cuda-toolkit", "triton"} <= left_out
    needed = {name_of(r) for r in importlib.metadata.requires("torch") if "nvidia" in r or "cuda" in r}
    assert needed <= left_out

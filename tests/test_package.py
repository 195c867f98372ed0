"""The package as a wheel installs it: works outside the repository, or says what it lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from amc_utils.__main__ import main
from amc_utils.inference.classifier import SHIPPED, SHIPPED_FOR_RADIOML
from amc_utils.inference.classify import EXAMPLE
from amc_utils.results import load_run
from amc_utils.runtime.paths import REPOSITORY, Workspace


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder of what a wheel holds that is built from the sources alone."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(
        REPOSITORY / "amc_utils", folder / "amc_utils", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)
    build = "from setuptools import build_meta; build_meta.build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=folder, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    shutil.unpack_archive(wheel, folder / "site", "zip")
    return folder / "site"


@pytest.fixture
def amc(installed, tmp_path):
    """The command, of the wheel's package, in an empty folder."""

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "amc_utils", *map(str, words)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )

    return run


def test_shipped_network_reads_a_recording_as_in_the_repository(amc, capsys):
    main(["classify", str(EXAMPLE)])
    assert amc("classify", EXAMPLE).stdout == capsys.readouterr().out


def test_training_writes_into_the_current_folder_and_names_no_commit_of_it(amc, tmp_path):
    who = ["-c", "user.name=x", "-c", "user.email=x"]
    for words in (["init"], [*who, "commit", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True)
    done = amc(
        "train", "--config", REPOSITORY / "profiles/smoke/02_resnet_ceiling.yaml", "--run_name", "mine"
    )
    assert done.returncode == 0, done.stderr
    facts = load_run("mine", str(tmp_path)).facts
    assert facts["environment"]["commit"] == "unknown"
    assert facts["environment"]["dirty"] is None


@pytest.mark.parametrize("words", [["report"], ["records"], ["compare", "."], ["facts", "."]])
def test_what_needs_the_repository_says_so_and_writes_nothing(amc, tmp_path, words):
    done = amc(*words)
    assert done.returncode == 1
    assert "a clone of the repository has it" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_shipped_networks_are_exported_to_where_the_package_has_them(tmp_path):
    for path in (SHIPPED, SHIPPED_FOR_RADIOML):
        assert Workspace(REPOSITORY).model(path.parent.name) == path
        assert Workspace(tmp_path).model(path.parent.name).is_relative_to(tmp_path / "outputs")

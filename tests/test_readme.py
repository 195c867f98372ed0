"""README.md says what is there: runs, numbers, commands, files."""

from __future__ import annotations

import re
import shlex
import subprocess

import pandas as pd
import papermill
import pytest
import test_bad_input
import yaml
from bad_files import BAD_FILES

from amc_utils import assess, train
from amc_utils.paths import REPOSITORY
from amc_utils.records import Run
from amc_utils.study_plan import read_study

README = (REPOSITORY / "README.md").read_text(encoding="utf8")
BLOCKS = re.findall(r"^```\n(.*?)^```", README, re.M | re.S)
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()]
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf8")


def options(command, flags):
    """Words that follow any of the flags."""
    words = shlex.split(command)
    return [words[i + 1] for i, word in enumerate(words) if word in flags]


def test_numbers_are_those_of_the_runs_named():
    rows = re.findall(
        r"^\| (\S+) \| ([^|]+) \| (\d+ classes.*?) \| (\S+ \[.*?\]) \| (\S+ \[.*?\]) \|$", README, re.M
    )
    tracked = subprocess.run(
        ["git", "ls-files", "results/*/run.json"], cwd=REPOSITORY, capture_output=True, text=True
    ).stdout.split()
    if tracked:
        assert {f"results/{row[0]}/run.json" for row in rows} == {
            t for t in tracked if t.count("/") == 2
        }
    for name, label, scope, *accuracies in rows:
        run = Run(REPOSITORY / "results" / name)
        assert (run.label, run.scope) == (label, scope)
        joint = run.metrics[run.metrics["metric"] == "joint_accuracy"].set_index("group")
        for group, text in zip(("all", "snr_db >= 0"), accuracies, strict=True):
            value, low, high = joint.loc[group, ["value", "low", "high"]]
            assert text == f"{value:.3f} [{low:.3f}, {high:.3f}]"


def test_ratios_of_speed_are_those_measured():
    raw = pd.read_csv(REPOSITORY / "benchmarks" / "cpu.csv")
    raw["rate"] = raw["amount"] / raw["seconds"]
    rates = raw.groupby(["benchmark", "task"])["rate"].median()
    table = README.split("## Speed")[1].split("## Your")[0]
    ratios = [float(cell) for cell in re.findall(r"\| ([\d.]+) \| [^|]+ \|$", table, re.M)]
    px64, px224 = (f"pictures, {size} px, 1 core" for size in (64, 224))
    train = [name for name in raw["benchmark"].unique() if name.startswith("training")]
    reading = next(name for name in raw["benchmark"].unique() if name.startswith("reading"))
    loop, alone = "numpy.histogram2d, a loop", "network on one batch"
    pairs = [
        (px224, "ours, raw", loop),
        (px224, "ours, raw", "fast-histogram, a loop"),
        (px224, "ours, raw", "writing zeros"),
        (px64, "ours, raw", loop),
        (px64, "ours, raw", "fast-histogram, a loop"),
        (px64, "ours, raw, 16 at a time", loop),
        (px64, "ours, stack", loop),
        ("generation", "ours, 1 core", "numpy, a loop"),
        ("generation", "ours, 1 core", "TorchSig, channel, 1 core"),
        ("generation", "ours, 1 core", "TorchSig, bare, 1 core"),
        *((name, "network on frames", alone) for name in train),
        (reading, "ours", "h5py, file order"),
        ("processes, resnet18, 64 px", "2 processes", "1 processes"),
    ]
    measured = [rates[place, task] / rates[place, other] for place, task, other in pairs]
    assert ratios == pytest.approx(measured, abs=0.005, rel=0.02)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make")])
def test_make_targets_exist(command):
    assert re.search(rf"^{command.split()[1]}:", MAKEFILE, re.M)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("papermill")])
def test_papermill_commands_name_what_exists(command):
    notebook = REPOSITORY / command.split()[1]
    known = papermill.inspect_notebook(str(notebook)).keys()
    named = set(options(command, {"-p"}))
    for text in options(command, {"-y"}):
        named |= yaml.safe_load(text).keys()
    assert named <= known
    for profile in options(command, {"-f"}):
        assert (REPOSITORY / profile).is_file()


def test_figures_and_files_exist():
    for target in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (REPOSITORY / target).is_file()
    for name in re.findall(r"`fig_(\w+?)`", README):
        assert (REPOSITORY / "figures" / f"fig_{name}.pdf").is_file()


def test_every_module_stands_in_the_architecture():
    block = next(block for block in BLOCKS if "paths     labels " in block)
    names = {path.stem for path in (REPOSITORY / "amc_utils").glob("*.py")} - {"__init__"}
    assert names <= set(re.findall(r"\w+", block))


@pytest.mark.parametrize("command", [c for c in COMMANDS if "-m amc_utils" in c])
def test_module_commands_are_understood(command):
    module, text = re.search(r"-m (amc_utils\.\w+) ([^']*)", command).groups()
    arguments = shlex.split(text)
    if module == "amc_utils.assess":
        assert assess.from_command_line(arguments).run_name
    elif module == "amc_utils.train":
        here = [str(REPOSITORY / word) if "/" in word else word for word in arguments]
        assert train.from_command_line(here)[0].run_name
    else:
        assert module == "amc_utils.study"
        assert list(read_study(REPOSITORY / arguments[0]).configs(""))


def test_counts_of_bad_input_are_those_of_the_tests():
    numbers = re.search(
        r"(\d+) kinds of broken files, (\d+) of broken profiles, (\d+) of\s+checkpoints, (\d+) of run",
        README,
    ).groups()
    files, profiles = len(BAD_FILES), len(test_bad_input.BAD_PROFILES)
    checkpoints = len(test_bad_input.OTHER_RUNS) + len(test_bad_input.BAD_CHECKPOINTS)
    folders = len(test_bad_input.DAMAGE) + 2
    assert [int(number) for number in numbers] == [files, profiles, checkpoints, folders]

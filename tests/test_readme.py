"""README.md says what is there: runs, numbers, commands, files."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import pandas as pd
import papermill
import pytest
import test_bad_input
import yaml
from bad_files import BAD_FILES

from amc_utils.__main__ import function_of, main
from amc_utils.config import TrainingParameters
from amc_utils.inference import export
from amc_utils.inference.classifier import SHIPPED
from amc_utils.results import Run, list_runs, named_study
from amc_utils.runtime.command_line import arguments_of
from amc_utils.runtime.paths import REPOSITORY
from amc_utils.studies.plan import read_study

README = (REPOSITORY / "README.md").read_text(encoding="utf8")
PAGES = {p.name: p.read_text(encoding="utf8") for p in [*REPOSITORY.glob("docs/*.md")]}
EVERYTHING = "\n".join([README, *PAGES.values()])
FENCED = re.findall(r"^```(\w*)\n(.*?)^```$", EVERYTHING, re.M | re.S)
BLOCKS = [text for language, text in FENCED if not language]
SCRIPTS = [text.split("\n", 1) for language, text in FENCED if language == "python"]
SCRIPTS = [(first.removeprefix("# "), text) for first, text in SCRIPTS]
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()]


def options(command, flags):
    """Words that follow any of the flags."""
    words = shlex.split(command)
    return [words[i + 1] for i, word in enumerate(words) if word in flags]


def test_numbers_are_those_of_the_runs_named():
    rows = re.findall(
        r"^\| (\S+) \| ([^|]+) \| (\d+ classes.*?) \| (\S+ \[.*?\]) \| (\S+ \[.*?\]) \|$",
        EVERYTHING,
        re.M,
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
        for group, text in zip(("all", "snr_label >= 0"), accuracies, strict=True):
            value, low, high = joint.loc[group, ["value", "low", "high"]]
            assert text == f"{value:.3f} [{low:.3f}, {high:.3f}]"


def test_accuracy_against_snr_is_that_of_the_runs_named():
    page = PAGES["results.md"]
    (header,) = re.findall(r"^\| SNR per sample, dB \| (.*) \|$", page, re.M)
    rows = [line.strip("| ").split(" | ") for line in re.findall(r"^\| -?\d+ \|.*$", page, re.M)]
    assert len(rows) == 26
    for place, name in enumerate(header.split(" | "), 1):
        table = Run(REPOSITORY / "results" / name).metrics
        joint = table[(table["group"] == "snr_label") & (table["metric"] == "joint_accuracy")]
        value = joint.set_index("level")["value"]
        assert [row[place] for row in rows] == [f"{value[row[0]]:.3f}" for row in rows]


def test_three_seeds_are_those_of_the_study():
    means = named_study(REPOSITORY / "results", "record").means().set_index("variant")
    rows = re.findall(r"^\| record, ([\d,]+) \| (.*?) \| (.*?) \|$", README, re.M)
    epochs = {"44,200": "0.5", "176,800": "2", "707,200": "8"}
    assert [row[0] for row in rows] == [*epochs]
    for seen, *texts in rows:
        for pictures, text in zip(("raw", "stack"), texts, strict=True):
            row = means.loc[f"{pictures}-{epochs[seen]}-epochs"]
            assert row["num_seeds"] == 3
            assert text == f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def test_ratios_of_speed_are_those_measured():
    raw = pd.read_csv(REPOSITORY / "benchmarks" / "cpu.csv")
    raw["rate"] = raw["amount"] / raw["seconds"]
    rates = raw.groupby(["benchmark", "task"])["rate"].median()
    ratios = re.findall(r"\| ([\d.]+) \| [^|]+ \|$", PAGES["speed.md"], re.M)
    ratios = [float(ratio) for ratio in ratios]
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
def test_make_knows_what_to_do(command):
    done = subprocess.run(
        ["make", "--dry-run", *shlex.split(command)[1:]], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("papermill")])
def test_papermill_commands_name_what_exists(command):
    notebook = REPOSITORY / command.split()[1]
    known = papermill.inspect_notebook(str(notebook)).keys()
    named = set(options(command, {"-p"}))
    for text in options(command, {"-y"}):
        named |= yaml.safe_load(text).keys()
    # Of notebooks 02 and 03 the cell shows a part.
    assert named <= known | TrainingParameters.model_fields.keys()
    for profile in options(command, {"-f"}):
        assert (REPOSITORY / profile).is_file()


def test_figures_and_files_exist():
    for target in re.findall(r"\]\((?!http)(.*?)\)", README):
        assert (REPOSITORY / target).is_file()
    for name in re.findall(r"`fig_(\w+?)`", README):
        assert (REPOSITORY / "figures" / f"fig_{name}.pdf").is_file()


def test_every_file_and_folder_stands_in_the_architecture():
    block = next(block for block in BLOCKS if block.startswith("amc_utils/"))
    package = REPOSITORY / "amc_utils"
    names = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    names |= {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert names == {line.split()[0] for line in block.splitlines()[1:] if line}


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if re.search(r"^amc |-m amc_utils |exec amc ", c)]
)
def test_module_commands_are_understood(command):
    word, text = re.search(r"\bamc(?:_utils)? (\w+) ([^']*)", command).groups()
    arguments = shlex.split(text)
    if word == "train" and "--plugins" in arguments:
        assert "[my_" in text, "what README shows is run below"
    elif word == "train":
        here = [str(REPOSITORY / word) if "/" in word else word for word in arguments]
        assert TrainingParameters.from_words(here).run_name
    elif word == "study":
        assert list(read_study(REPOSITORY / arguments[0]).configs(""))
    else:
        assert arguments_of(function_of(word), arguments)


def test_counts_of_bad_input_are_those_of_the_tests():
    numbers = re.search(
        r"(\d+) kinds of broken files, (\d+) of broken profiles, (\d+) of\s+checkpoints, (\d+) of run",
        PAGES["radioml_file.md"],
    ).groups()
    files, profiles = len(BAD_FILES), len(test_bad_input.BAD_PROFILES)
    checkpoints = len(test_bad_input.OTHER_RUNS) + len(test_bad_input.BAD_CHECKPOINTS)
    folders = len(test_bad_input.DAMAGE) + 2
    assert [int(number) for number in numbers] == [files, profiles, checkpoints, folders]


def test_shipped_network_says_what_readme_quotes():
    words = shlex.split(next(c for c in COMMANDS if c.startswith("amc classify")))
    done = subprocess.run(
        [sys.executable, "-m", "amc_utils", *words[1:]],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    (quoted,) = [text for language, text in FENCED if language == "text"]
    assert done.stdout == quoted
    record = json.loads(SHIPPED.with_name("model.json").read_text(encoding="utf8"))
    told = re.sub(r"\s+", " ", README)
    assert f"{record['parameters']:,} parameters" in told
    before, after = (
        record["test"][f"calibration_error_{kind}"]["joint"] for kind in ("uncalibrated", "calibrated")
    )
    assert f"error of {after:.4f} (without temperatures {before:.4f})" in told
    own, *others = record["ood_signals"]
    assert f"{100 * own['flagged']:.1f} % of test frames have a p-value below 1 %" in told
    recordings = record["recordings"]
    assert f"{recordings['called_ood']} of {recordings['num_recordings']} recordings" in told
    assert f"{recordings['frames_each']} frames of a single class" in told
    for row in others:
        if row["snr_db"] == 20:
            assert f"{row['signal']} {100 * row['flagged']:.0f} %" in told


@pytest.mark.parametrize(("name", "text"), SCRIPTS)
def test_plugins_train_a_network_from_the_readme_alone(name, text, tmp_path):
    """In fewer than 20 lines each, run as README says but at smoke size."""
    assert text.count("\n") < 20
    (tmp_path / name).write_text(text, encoding="utf8")
    (command,) = [c for c in COMMANDS if c.startswith("amc train") and f"[{name}]" in c]
    words = shlex.split(command.replace(f"[{name}]", f"[{tmp_path / name}]"))
    smoke = ["--config", "profiles/smoke/02_resnet_ceiling.yaml", "--output_root", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "amc_utils", *words[1:], *smoke],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (run,) = list_runs(tmp_path / "results")
    assert run.facts["plugins"] == [name]
    assert run.facts["config"][words[-2].removeprefix("--")] == yaml.safe_load(words[-1])


def test_own_network_goes_from_training_to_classify(tmp_path, monkeypatch, capsys):
    text = dict(SCRIPTS)["my_network.py"]
    (tmp_path / "my_network.py").write_text(text, encoding="utf8")
    plugin = str(tmp_path / "my_network.py")
    smoke = ["--config", "profiles/smoke/02_resnet_ceiling.yaml", "--output_root", str(tmp_path)]
    own = ["--plugins", f"[{plugin}]", "--network", "two_layers", "--run_name", "my-net"]
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(export, "_FRAMES_A_KIND", 20)
    main(["train", *smoke, *own])
    main(["export", "my-net", "--plugins", f"[{plugin}]", "--output_root", str(tmp_path)])
    capsys.readouterr()
    model = str(tmp_path / "results" / "my-net" / "model.safetensors")
    recording = "tests/data/gnuradio_16qam.sigmf-meta"
    options = ["--symbol_rate", "100e3", "--model", model, "--plugins", f"[{plugin}]"]
    main(["classify", recording, *options])
    assert "read by my-net" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("none.py", None, "plugin not found"),
        ("plugin.txt", "x = 1", "plugins must be Python files"),
        ("broken.py", "import nothing_like_this", "plugin broken.py must run, got ModuleNotFoundError"),
    ],
)
def test_bad_plugin_is_refused_in_a_sentence(name, text, sentence, tmp_path):
    if text:
        (tmp_path / name).write_text(text, encoding="utf8")
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        TrainingParameters.from_words(["--plugins", f"[{tmp_path / name}]"])


def test_four_scripts_extend():
    names = ["my_network.py", "my_iq_network.py", "my_picture.py", "my_loss.py"]
    assert [name for name, _ in SCRIPTS] == names

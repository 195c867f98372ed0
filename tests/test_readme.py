"""README.md and docs/ say what is there: commands that are understood, recipes that run, files."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import papermill
import pytest
import test_bad_input
import yaml
from bad_files import BAD_FILES

from amc_utils.__main__ import function_of, main
from amc_utils.config import TrainingParameters
from amc_utils.inference import export
from amc_utils.results import load_run
from amc_utils.runtime.command_line import arguments_of
from amc_utils.runtime.paths import REPOSITORY
from amc_utils.studies.study import read_study

README = (REPOSITORY / "README.md").read_text(encoding="utf8")
PAGES = {p.name: p.read_text(encoding="utf8") for p in sorted(REPOSITORY.glob("docs/*.md"))}
EVERYTHING = "\n".join([README, *PAGES.values()])
FENCED = re.findall(r"^```(\w*)\n(.*?)^```$", EVERYTHING, re.M | re.S)
BLOCKS = [text for language, text in FENCED if not language]
SCRIPTS = [text.split("\n", 1) for language, text in FENCED if language == "python"]
SCRIPTS = [(first.removeprefix("# "), text) for first, text in SCRIPTS]
NOT_TRAINED = ("my_frames.py", "my_onnx.py", "my_recording.py")
ALONE = {name: text for name, text in SCRIPTS if name in NOT_TRAINED}
SCRIPTS = [(name, text) for name, text in SCRIPTS if name not in ALONE]
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines()]


def options(command, flags):
    """Words that follow any of the flags."""
    words = shlex.split(command)
    return [words[i + 1] for i, word in enumerate(words) if word in flags]


def test_readme_is_read_in_one_sitting():
    assert README.count("\n") <= 220


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
    for page in [
        REPOSITORY / "README.md",
        *REPOSITORY.glob("docs/*.md"),
        REPOSITORY / "figures/README.md",
    ]:
        text = page.read_text(encoding="utf8")
        for target in re.findall(r"\]\((?!http|#)([^)#]*)", text):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"
    for name in re.findall(r"`fig_(\w+?)`", EVERYTHING):
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
    word, text = re.search(r"\bamc(?:_utils)? ([\w-]+) ?([^']*)", command).groups()
    arguments = shlex.split(text)
    if word == "train" and "--plugins" in arguments:
        assert "[my_" in text, "what README shows is run below"
    elif word == "train":
        files = {"FILE": "tests/data/gnuradio_slice.h5"}
        words = [files.get(word, word) for word in arguments]
        here = [str(REPOSITORY / word) if "/" in word else word for word in words]
        assert TrainingParameters.from_words(here).run_name
    elif word == "study":
        assert list(read_study(REPOSITORY / arguments[0]).configs(""))
    else:
        assert arguments_of(function_of(word), arguments) is not None


def test_counts_of_bad_input_are_those_of_the_tests():
    numbers = re.search(
        r"(\d+) kinds of broken files, (\d+) of broken profiles, (\d+) of\s+checkpoints, (\d+) of run",
        PAGES["radioml_file.md"],
    ).groups()
    files, profiles = len(BAD_FILES), len(test_bad_input.BAD_PROFILES)
    checkpoints = len(test_bad_input.OTHER_RUNS) + len(test_bad_input.BAD_CHECKPOINTS)
    folders = len(test_bad_input.DAMAGE) + 1
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
    run = load_run(options(command, {"--run_name"})[0], str(tmp_path))
    assert run.facts["plugins"] == [name]
    assert run.facts["config"][words[-2].removeprefix("--")] == yaml.safe_load(words[-1])


def test_frames_are_drawn_and_named_in_python(capsys):
    exec(ALONE["my_frames.py"], {})
    said = capsys.readouterr().out
    assert "(8, 3, 64, 64)" in said
    assert len(re.findall(r"^\d .*(BPSK|16QAM)", said, re.M)) == 8


def test_recording_is_named_in_python(capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    exec(ALONE["my_recording.py"], {})
    assert "16QAM, probability 1.00" in capsys.readouterr().out


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
    (model,) = map(str, tmp_path.rglob("model.safetensors"))
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
    names = ["my_network.py", "my_iq_network.py", "my_image.py", "my_loss.py"]
    assert [name for name, _ in SCRIPTS] == names

"""Whatever is put in, what is wrong is said in a sentence, soon, and nothing is left behind.

Every case runs in a process of its own, from the command line down.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import resource
import shutil
from pathlib import Path

import pytest
import torch
from bad_files import BAD_FILES
from files import write_radioml
from trainers import SERVER, TINY, config_file

from amc_utils.__main__ import main
from amc_utils.config import TrainingParameters
from amc_utils.results import kept_runs, load_run
from amc_utils.runtime.paths import Workspace
from amc_utils.training import train

SECONDS, MEGABYTES = 60, 500


@pytest.fixture(scope="module")
def good(small_frames, tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "frames.h5"
    write_radioml(path, small_frames)
    return path


def command_line(words, cache, errors, used):
    """Body of a child process: the command, with its words in a file and its memory beside it."""
    os.environ["AMC_CACHE"] = cache
    torch.set_num_threads(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open(errors, "w", encoding="utf8") as file, contextlib.redirect_stderr(file):
        try:
            main(words)
        except SystemExit as ended:
            # As the interpreter does it, which a child process of this kind does not.
            if isinstance(ended.code, str):
                file.write(ended.code + "\n")
                ended.code = 1
            used.value = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            raise


def refusal(arguments, tmp_path, word="train"):
    """What the command says on its way out, after all that must hold for every refusal."""
    cache, errors = tmp_path / "cache", tmp_path / "errors"
    used = SERVER.Value("l", 0)
    if word == "train":
        arguments = [*arguments, "--output_root", str(tmp_path / "output")]
    words = ([word, *arguments], str(cache), str(errors), used)
    child = SERVER.Process(target=command_line, args=words)
    child.start()
    child.join(SECONDS)
    if child.exitcode is None:
        child.kill()
        pytest.fail(f"no end after {SECONDS} s")
    said = errors.read_text(encoding="utf8").strip()
    assert child.exitcode == 1, said
    assert used.value < 1024 * MEGABYTES
    assert not [path for path in (tmp_path / "output").rglob("*") if path.is_file()]
    left = [path for path in cache.rglob("*") if path.is_file() and "lock" not in path.name]
    assert all(path.parent.name == "audits" for path in left), "only verdicts may stay"
    assert re.fullmatch(r"(ValueError|FileNotFoundError|OSError|PermissionError): [^\n]+", said), said
    return said


def options(folder, good, make_config, **changes):
    values = make_config(**TINY, data_path=str(good)).model_dump() | changes
    del values["output_root"]
    return ["--config", config_file(values, folder / "config")]


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file_is_refused(case, good, make_config, tmp_path):
    make, sentence = BAD_FILES[case]
    path = tmp_path / "bad.h5"
    make(good, path)
    said = refusal(options(tmp_path, good, make_config, data_path=str(path)), tmp_path)
    assert re.search(sentence, said), said


def test_file_that_another_process_writes_is_refused(good, make_config, tmp_path):
    import h5py

    with h5py.File(good, "r+"):
        said = refusal(options(tmp_path, good, make_config), tmp_path)
    assert "another process is writing it" in said


def test_path_with_spaces_and_letters_of_all_kinds_works(good, make_config, tmp_path):
    folder = tmp_path / "Funk Dateien ünïcode 信号"
    folder.mkdir()
    path = folder / "мои кадры.h5"
    path.write_bytes(Path(good).read_bytes())
    arguments = options(tmp_path, good, make_config, data_path=str(path), run_name="named")
    arguments += ["--output_root", str(folder / "out")]
    used = SERVER.Value("l", 0)
    errors = str(tmp_path / "errors")
    words = (["train", *arguments], str(folder / "cache"), errors, used)
    child = SERVER.Process(target=command_line, args=words)
    child.start()
    child.join()
    assert child.exitcode == 0
    assert load_run("named", str(folder / "out")).facts["run"] == "named"


DEEP = "[" * 5000
# name: (text of a profile, what the sentence must say)
BAD_PROFILES = {
    "a name twice": (
        "seed: 1\nbatch_size: 16\nseed: 2",
        "the name 'seed' stands there twice in line 3",
    ),
    "a name twice, deep": ("engine: {compile: false, compile: true}", "'compile' stands there twice"),
    "a tag that runs a command": ("seed: !!python/object/apply:os.mkdir [MARK]", "plain values.*tag"),
    "a tag that names a class": ("seed: !!python/name:os.system", "plain values.*tag"),
    "a tag of one's own": ("seed: !secret 3", "plain values.*tag '!secret'"),
    "a rate that YAML takes for text": ("learning_rate: 1e-4", "learning_rate must .* 1.0e-4"),
    "a rate in quotes": ("learning_rate: '0.1'", "learning_rate must .* valid number, got '0.1'"),
    "a rate that is no number": ("learning_rate: .nan", "learning_rate must be a finite number"),
    "an infinite rate": ("learning_rate: .inf", "learning_rate must be a finite number"),
    "a rate below zero": ("learning_rate: -1.0", "learning_rate must be greater than 0"),
    "an unknown name": ("learning_rte: 0.1", "unknown parameter learning_rte; did you mean learning_r"),
    "an unknown name of the engine": ("engine: {fuse: true}", "unknown parameter engine.fuse; did you"),
    "a number of epochs that is none": ("num_epochs: many", "num_epochs must be a valid integer"),
    "no epochs": ("num_epochs: 0", "num_epochs must be greater than or equal to 1, got 0"),
    "half an epoch": ("num_epochs: 0.5", "num_epochs must be a valid integer, got 0.5"),
    "a truth value for a number": ("batch_size: true", "batch_size must be a valid integer, got True"),
    "a batch beyond the frames": ("batch_size: 100000", "batch_size must be at most"),
    "nothing for a value": ("seed:", "seed must be a valid integer, got None"),
    "a seed below zero": ("seed: -1", "seed must be greater than or equal to 0"),
    "a seed of 100 digits": (f"seed: {10**100}", "seed must be"),
    "a list for a name": ("network: [resnet18]", "network must be a valid string"),
    "an unknown network": ("network: resnet1818", "network.*resnet1818"),
    "an unknown modulation": ("modulations: [BPKS]", "modulations must name .* 'BPKS'"),
    "no modulation": ("modulations: []", "modulations must name .* an empty list"),
    "SNRs off the grid": ("snr_range_db: [0, 7, 1]", "snr_range_db must be"),
    "an endless range": ("snr_range_db: [0, 20, 0]", "snr_range_db must be"),
    "an unknown image": ("channels: [rwa]", "channels must be some of"),
    "an unknown channel setting": ("channel: {cfo: 1.0}", "channel must set some of .* 'cfo'"),
    "a roll-off beyond one": ("channel: {rolloff_range: [0.1, 2.0]}", "rolloff_range must lie"),
    "an unknown list of labels": ("label_order: wrong", "label_order must be 'corrected' or 'shipped'"),
    "a variable that is not set": ("data_path: $NO_SUCH_VARIABLE", "no variable \\$NO_SUCH_VARIABLE"),
    "a name with a slash": ("run_name: ../elsewhere", "run_name must"),
    "no YAML": ("seed: [1, 2", "must be YAML of names and plain values"),
    "a list": ("- seed\n- 1", "it is no mapping of names"),
    "numbers for names": ("1: 2", "it is no mapping of names"),
    "nothing": ("", "it is no mapping of names"),
    "a mapping for a name": ("? {a: 1}\n: 2", "must be YAML of names and plain values"),
    "very deep": (f"seed: {DEEP}", "must be YAML of names and plain values"),
    "a value inside itself": ("channel: &a {cfo_std: *a}", "must|YAML"),
    "a time that is none": ("seed: !!timestamp 3", "must be YAML of names and plain values"),
    "a control character": ("seed: 1\x07", "must be YAML of names and plain values"),
}


@pytest.mark.parametrize("case", BAD_PROFILES)
def test_bad_profile_is_refused(case, good, make_config, tmp_path):
    text, sentence = BAD_PROFILES[case]
    mark = tmp_path / "mark"
    profile = tmp_path / "profile.yaml"
    profile.write_text(text.replace("MARK", str(mark)), encoding="utf8")
    base = options(tmp_path, good, make_config, data_path="")
    said = refusal([*base, "--config", str(profile)], tmp_path)
    assert re.search(sentence, said), said
    assert not mark.exists()


def test_profile_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("seed: 1 # für".encode("latin1"))
    for name, sentence in {
        "none.yaml": "profile not found",
        "latin.yaml": "must be text in UTF-8",
    }.items():
        assert sentence in refusal(["--config", str(tmp_path / name)], tmp_path)


class Payload:
    """What a pickle would run when it is read."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.fixture(scope="module")
def checkpoint(good, tmp_path_factory):
    """A checkpoint of one epoch on three classes."""
    root = tmp_path_factory.mktemp("trained")
    values = {"modulations": ["BPSK", "QPSK", "OQPSK"], "snr_range_db": [0, 20, 20], "num_epochs": 1}
    values |= TINY | {"image_size": 32, "num_frames_per_cell": 20, "batch_size": 16, "run_name": "one"}
    train(TrainingParameters.checked(values | {"output_root": str(root)}))
    return root / "outputs" / "checkpoints" / "one" / "last.ckpt"


# name: (changes of the parameters, what the sentence must say)
OTHER_RUNS = {
    "another network": ({"network": "resnet18", "network_options": {}}, "network.* must stay"),
    "another list of classes": ({"modulations": ["BPSK", "QPSK", "8PSK"]}, "modulations must stay"),
    "other levels": ({"snr_range_db": [0, 10, 10]}, "snr_range_db must stay"),
    "other images": ({"channels": ["raw"]}, "channels must stay"),
    "another seed": ({"seed": 3}, "seed must stay"),
    "no epoch left": ({"num_epochs": 1}, "num_epochs must exceed"),
}


@pytest.mark.parametrize("case", OTHER_RUNS)
def test_checkpoint_of_another_run_is_refused(case, checkpoint, tmp_path):
    changes, sentence = OTHER_RUNS[case]
    values = {"modulations": ["BPSK", "QPSK", "OQPSK"], "snr_range_db": [0, 20, 20], "num_epochs": 2}
    values |= TINY | {"image_size": 32, "num_frames_per_cell": 20, "batch_size": 16}
    values |= {"resume_from": str(checkpoint)} | changes
    said = refusal(["--config", config_file(values, tmp_path / "config")], tmp_path)
    assert re.search(sentence, said), said


# name: maker of the file from a path, a whole checkpoint and a folder that must not come to be
BAD_CHECKPOINTS = {
    "a pickle": lambda path, whole, mark: path.write_bytes(pickle.dumps(Payload(str(mark)))),
    "a payload": lambda path, whole, mark: torch.save({"network": Payload(str(mark))}, path),
    "a torn one": lambda path, whole, mark: path.write_bytes(whole.read_bytes()[:5000]),
    "weights of others": lambda path, whole, mark: torch.save({"weights": torch.zeros(3)}, path),
    "text": lambda path, whole, mark: path.write_text("no checkpoint", encoding="utf8"),
    "a folder": lambda path, whole, mark: path.mkdir(),
}


@pytest.mark.parametrize("case", BAD_CHECKPOINTS)
def test_bad_checkpoint_is_refused_and_nothing_in_it_is_run(case, checkpoint, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "bad.ckpt"
    BAD_CHECKPOINTS[case](path, checkpoint, mark)
    said = refusal(["--resume_from", str(path)], tmp_path)
    assert re.search("checkpoint", said), said
    assert not mark.exists()


DAMAGE = {
    "facts that miss a brace": ("runs.jsonl", lambda text: text[:-3], "runs.jsonl is damaged"),
    "facts of nothing": ("runs.jsonl", lambda text: "{}", "runs.jsonl is damaged .*lacks"),
    "a list of facts": ("runs.jsonl", lambda text: "[1]", "runs.jsonl is damaged"),
    "no history": ("history.csv", None, "history.csv is missing"),
    "an edited history": ("history.csv", lambda text: text.replace("0.", "1.", 1), "was changed after"),
}


@pytest.fixture
def work(checkpoint, tmp_path):
    """Workspace with one kept run."""
    workspace = Workspace(tmp_path / "work")
    shutil.copytree(checkpoint.parents[2] / "runs" / "main" / "one", workspace.kept)
    return workspace


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_results_are_refused(case, work, tmp_path):
    name, change, sentence = DAMAGE[case]
    path = work.kept / name
    if change:
        path.write_text(change(path.read_text(encoding="utf8")), encoding="utf8")
    else:
        path.unlink()
    said = refusal(["--output_root", str(work.root)], tmp_path, "report")
    assert re.search(sentence, said), said
    assert not work.runlog.exists()


def test_edited_predictions_are_refused(work):
    (run,) = kept_runs(work)
    assert len(run.predictions)
    path = work.kept / "predictions.npz"
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(ValueError, match=r"predictions.npz is damaged \(it was changed after the run"):
        _ = kept_runs(work)[0].predictions

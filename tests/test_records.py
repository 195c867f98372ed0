"""Run folders, their selection, and the diary made from them."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from trainers import SERVER

from amc_utils import results
from amc_utils.config import TrainingParameters
from amc_utils.data import load_frames, stratified_split
from amc_utils.runtime.paths import REPOSITORY, Workspace, atomic_write
from amc_utils.studies import runlog
from amc_utils.studies.evaluate import EvaluationParameters
from amc_utils.studies.records import keep_run
from amc_utils.training import Experiment


def finish_run(config):
    experiment = Experiment.start(config, "test_notebook")
    fabric = experiment.fabric()
    frames = load_frames(config, device=fabric.device)
    split = stratified_split(frames, seed=config.seed)
    trainer = experiment.trainer(experiment.network(), frames, split, fabric)
    list(trainer.fit())
    return experiment.finish(trainer), trainer


@pytest.fixture
def finished(make_config):
    return finish_run(make_config(num_epochs=1, run_name="first-run"))


def test_run_folder_holds_everything_needed(finished):
    run, trainer = finished
    names = {path.name for path in run.folder.iterdir()}
    assert names == {"runs.jsonl", "history.csv", "predictions.npz"}
    again = results.named_run(run.workspace, run.name)
    pd.testing.assert_frame_equal(
        again.history, trainer.history_table, check_exact=True, check_dtype=False
    )
    expected = trainer.evaluator.predict(trainer.split.test)
    exact = ["frame", "modulation", "snr_label", "predicted_modulation", "predicted_snr_label"]
    pd.testing.assert_frame_equal(again.predictions[exact], expected[exact])
    assert (again.predictions["snr_confidence"] - expected["snr_confidence"]).abs().max() < 1e-3
    facts = again.facts
    assert facts["data"]["counts"] == {"train": 96, "validation": 12, "test": 12}
    assert facts["test"]["joint_accuracy"]["value"] == pytest.approx(
        (expected["modulation"] == expected["predicted_modulation"])
        .where(expected["snr_label"] == expected["predicted_snr_label"], other=False)
        .mean()
    )
    assert {"commit", "dirty", "device", "versions"} <= facts["environment"].keys()


def test_finished_run_is_never_overwritten(finished, make_config):
    run, _ = finished
    with pytest.raises(ValueError, match="names a finished run"):
        Experiment.start(make_config(run_name=run.name), "test_notebook")
    with pytest.raises(FileExistsError):
        results.write_run(run.workspace, facts=run.facts, predictions=run.predictions)


def test_failed_write_leaves_no_folder(finished):
    run, _ = finished
    facts = {**run.facts, "run": "broken", "loss": float("nan")}
    with pytest.raises(ValueError, match="Out of range float"):
        results.write_run(run.workspace, facts=facts, predictions=run.predictions)
    assert [path.name for path in run.workspace.runs.iterdir()] == ["first-run"]


def test_failed_replacement_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write():
        with atomic_write(path) as temporary:
            temporary.write_text("half of the n")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"


def test_new_names_are_of_the_trackers_kind(tmp_path):
    assert results.new_run_name(Workspace(tmp_path)).count("-") == 2
    assert results.new_run_name(Workspace(tmp_path)).endswith("-1")


def test_selection_takes_the_newest_of_each_network_on_the_same_frames(finished, make_config):
    folder = finished[0].workspace
    newer, _ = finish_run(make_config(num_epochs=1))
    small = {"window_size": 2, "embed_dim": 12}
    swin, _ = finish_run(make_config(num_epochs=1, network="swin_tiny", network_options=small))
    assert {run.name for run in results.select_runs(folder, [])} == {newer.name, swin.name}
    other, _ = finish_run(make_config(num_epochs=1, seed=6))
    assert [run.name for run in results.select_runs(folder, [])] == [other.name]
    with pytest.raises(ValueError, match="share their test frames"):
        results.select_runs(folder, [swin.name, other.name])
    with pytest.raises(FileNotFoundError, match="no run named 'nobody'"):
        results.select_runs(folder, ["nobody"])


def test_table_that_changes_is_read_anew(finished):
    """Runs of a folder share what was read of it, as long as it stays as it is."""
    run, _ = finished
    assert len(run.predictions)
    path = run.folder / "predictions.npz"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(
        ValueError, match=r"predictions.npz is damaged \(it was changed after the run\)"
    ):
        results.load_run(run.name, str(run.workspace.root)).predictions  # noqa: B018
    path.write_bytes(content)
    again = results.load_run(run.name, str(run.workspace.root))
    pd.testing.assert_frame_equal(again.predictions, run.predictions)


def test_network_is_compared_with_the_newest_other_one_on_the_same_frames_and_images(
    finished, make_config
):
    run, _ = finished
    test_frames, config = run.facts["data"]["test_sha256"], dict(run.facts["config"])
    swin = config | {"network": "swin_tiny"}

    def found(config, name=""):
        return results.other_network(run.workspace, config, test_frames, name)

    assert found(swin).name == run.name
    newer, _ = finish_run(make_config(num_epochs=1))
    assert found(swin).name == newer.name
    assert found(config) is None
    assert found(swin | {"channels": ["raw"]}) is None
    assert found(swin | {"channels": ["raw"]}, run.name).name == run.name
    other, _ = finish_run(make_config(num_epochs=1, seed=6))
    assert found(swin).name == newer.name
    with pytest.raises(
        ValueError, match=f"compare_with must name .* got '{other.name}', tested on oth"
    ):
        found(swin, other.name)
    with pytest.raises(FileNotFoundError, match="no run named 'nobody'"):
        found(swin, "nobody")


def test_runs_of_one_network_are_told_apart_by_name(finished, make_config):
    newer, _ = finish_run(make_config(num_epochs=1, learning_rate=0.01))
    labelled = results.by_label([finished[0], newer])
    assert set(labelled) == {"first-run", newer.name}
    assert results.differing_parameters(labelled).index.tolist() == ["learning_rate"]
    assert list(results.by_label([newer])) == ["test_resnet, counts_8_bit"]


def test_kept_epoch_is_the_one_tested(make_config, monkeypatch):
    """The last epoch is not the best; test loss and predictions must come from the best."""
    experiment = Experiment.start(make_config(num_epochs=2), "test_notebook")
    fabric = experiment.fabric()
    frames = load_frames(experiment.config, device=fabric.device)
    split = stratified_split(frames, seed=experiment.config.seed)
    trainer = experiment.trainer(experiment.network(), frames, split, fabric)
    losses = []
    for row in trainer.fit():
        losses.append(trainer.evaluator.measure(split.test, "test")["test_loss"])
        row["validation_joint_accuracy"] = 1.0 / row["epoch"]
    assert losses[0] != losses[1]
    run = experiment.finish(trainer)
    assert run.facts["best_epoch"] == 1
    assert run.facts["test"]["loss"] == losses[0]


def test_nothing_to_select_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="run notebook 02 or 03 first"):
        results.select_runs(Workspace(tmp_path), [])


def test_diary_states_the_facts_and_keeps_readings(finished, make_config):
    workspace = finished[0].workspace
    keep_run("first-run", str(workspace.root))
    text = runlog.update_runlog(workspace).read_text(encoding="utf8")
    accuracy = finished[0].facts["test"]["joint_accuracy"]["value"]
    for fact in (
        "first-run",
        "test_resnet",
        "nothing",
        "batch 16",
        "6 classes",
        f"{accuracy:.3f}",
        "variance",
    ):
        assert fact in text
    by_hand = "Expected chance, came chance.\n\nNothing changes."
    workspace.runlog.write_text(text.replace(runlog._UNREAD, by_hand), encoding="utf8")
    finish_run(make_config(num_epochs=1, run_name="second-run"))
    keep_run("second-run", str(workspace.root))
    text = workspace.runlog.read_text(encoding="utf8")
    assert runlog.readings(text) == {"Run first-run": by_hand}
    assert text.index("## Run second-run") < text.index("## Run first-run")
    runlog.update_runlog(workspace)
    assert workspace.runlog.read_text(encoding="utf8") == text


def test_reading_survives_the_loss_of_its_run(finished):
    workspace = finished[0].workspace
    kept = {"Run lost-run": "It was instructive."}
    text = runlog.render(workspace, kept)
    assert runlog.readings(text) == kept


def test_readings_are_never_lost_or_swapped():
    text = "## Run a\n- fact\n\n**Reading.**\nFirst.\n\n## Study b\n\n**Reading**: Second.\n"
    assert runlog.readings(text) == {"Run a": "First.", "Study b": "Second."}
    with pytest.raises(ValueError, match="entry 'Run a' must have a paragraph"):
        runlog.readings(text.replace("**Reading.**", "Reading:"))


def test_committed_diary_is_that_of_the_committed_results():
    workspace = Workspace(REPOSITORY)
    text = workspace.runlog.read_text(encoding="utf8")
    assert text == runlog.render(workspace, runlog.readings(text))


def test_kept_runs_are_what_they_were_and_leave_their_folders(finished, make_config):
    workspace = finished[0].workspace
    other, _ = finish_run(make_config(num_epochs=1, seed=6))
    before = {run.name: (run.history, run.predictions) for run in (finished[0], other)}
    for name in before:
        keep_run(name, str(workspace.root))
    assert not list(workspace.runs.iterdir())
    kept = {run.name: run for run in results.kept_runs(workspace)}
    assert list(kept) == list(before)
    for name, (history, predictions) in before.items():
        pd.testing.assert_frame_equal(kept[name].history, history, check_exact=True)
        pd.testing.assert_frame_equal(kept[name].predictions, predictions, check_exact=True)


@pytest.fixture
def kept_and_new(finished, make_config):
    """Workspace with a kept run and a new one, and their predictions by name."""
    workspace = finished[0].workspace
    keep_run(finished[0].name, str(workspace.root))
    finish_run(make_config(num_epochs=1, run_name="second-run", seed=6))
    return workspace, {run.name: run.predictions for run in results.list_runs(workspace)}


def assert_all_there(workspace, before):
    now = {run.name: run.predictions for run in results.list_runs(workspace)}
    assert now.keys() == before.keys()
    assert all(now[name].equals(before[name]) for name in before)


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_interrupted_keeping_loses_nothing(kept_and_new, monkeypatch, number, error):
    """At any of the steps that change the disk; a later try succeeds."""
    workspace, before = kept_and_new
    steps = iter(range(100))

    def failing(real):
        def step(*arguments, **options):
            if next(steps) == number:
                raise error("interrupted")
            return real(*arguments, **options)

        return step

    with monkeypatch.context() as patched:
        for home, name in (
            (results.tempfile, "mkdtemp"),
            (results, "_write"),
            (Path, "rename"),
            (results.shutil, "rmtree"),
        ):
            patched.setattr(home, name, failing(getattr(home, name)))
        with suppress(error):
            keep_run("second-run", str(workspace.root))
    assert_all_there(workspace, before)
    if "second-run" not in {run.name for run in results.kept_runs(workspace)}:
        keep_run("second-run", str(workspace.root))
    assert_all_there(workspace, before)


def test_keeping_killed_between_its_two_renames_loses_nothing(kept_and_new):
    workspace, before = kept_and_new
    workspace.kept.rename(results._former(workspace.kept))
    assert_all_there(workspace, before)
    keep_run("second-run", str(workspace.root))
    assert_all_there(workspace, before)


def test_two_processes_that_keep_lose_nothing(kept_and_new, make_config):
    workspace, _ = kept_and_new
    finish_run(make_config(num_epochs=1, run_name="third-run", seed=7))
    before = {run.name: run.predictions for run in results.list_runs(workspace)}
    names = ("second-run", "third-run")
    processes = [SERVER.Process(target=keep_run, args=(n, str(workspace.root))) for n in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert_all_there(workspace, before)
    assert len(results.kept_runs(workspace)) == 3


@pytest.mark.parametrize("name", ["123", "007", "1e5", "True", "NA", "nan"])
def test_names_like_numbers_are_names(finished, name):
    run = finished[0]
    facts = {**run.facts, "run": name}
    results.write_run(run.workspace, facts=facts, predictions=run.predictions, history=run.history)
    assert len(results.named_run(run.workspace, name).history) == 1
    keep_run(name, str(run.workspace.root))
    kept = results.named_run(run.workspace, name)
    assert kept.history.equals(run.history)
    assert kept.predictions.equals(run.predictions)


@pytest.mark.parametrize("study", ["main", "radioml_2018_facts", "../out", ".x", "a/b"])
def test_study_cannot_take_the_place_of_other_results(study):
    with pytest.raises(ValueError, match="a study must have a name of letters"):
        Workspace.at("", study)


@pytest.mark.parametrize("name", ["..", ".x", "a/b", "../../out"])
def test_run_cannot_leave_its_folder(name):
    for parameters in (TrainingParameters, partial(EvaluationParameters, what="bound")):
        with pytest.raises(ValueError, match="run_name"):
            parameters(run_name=name)

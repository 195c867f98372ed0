"""Runs that train nothing: their folders, their diary entries, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from files import write_radioml

from amc_utils.data import load_frames, stratified_split
from amc_utils.inference.classifier import Classifier
from amc_utils.inference.ood import MahalanobisDetector
from amc_utils.models import untrained_network
from amc_utils.runtime.paths import Workspace
from amc_utils.studies import runlog
from amc_utils.studies.evaluate import EvaluationParameters, evaluate, refitted_head
from amc_utils.studies.records import keep_run
from amc_utils.training import Experiment, trained_network

CLASSES = ("--modulations", "[BPSK, QPSK, OQPSK]", "--snr_range_db", "[0, 20, 20]")


def record(what, root, *arguments):
    classes = () if what == "network" else CLASSES
    words = [what, "--output_root", str(root), *classes, *arguments]
    return evaluate(EvaluationParameters.from_words(words))


@pytest.mark.parametrize("what", ["bound", "receiver"])
def test_receivers_leave_runs_that_the_diary_shows_once_they_are_kept(what, tmp_path):
    done = record(what, tmp_path, "--run_name", "some", "--num_frames_per_cell", "10")
    assert (done.kind, len(done.predictions)) == (what, 60)
    assert done.facts["test"]["joint_accuracy"]["value"] > 0.9
    assert done.predictions["modulation_confidence"].between(1 / 3, 1.001).all()
    assert "## Run some" not in runlog.render(Workspace(tmp_path), {})
    keep_run("some", str(tmp_path))
    text = runlog.render(Workspace(tmp_path), {"Run some": "As expected."})
    assert "## Run some" in text
    assert "As expected." in text
    assert done.scope in text
    with pytest.raises(ValueError, match="names a finished run"):
        record(what, tmp_path, "--run_name", "some")


def test_same_seed_gives_the_same_decisions(tmp_path):
    first, second = (record("bound", tmp_path, "--run_name", name) for name in ("a", "b"))
    assert first.predictions.equals(second.predictions)


@pytest.fixture
def trained(make_config):
    experiment = Experiment.start(make_config(run_name="parent", num_frames_per_cell=40), "test")
    frames = load_frames(experiment.config)
    split = stratified_split(frames, seed=experiment.config.seed)
    trainer = experiment.trainer(experiment.network(), frames, split, experiment.fabric())
    list(trainer.fit())
    return experiment.finish(trainer), trainer


def test_network_judges_a_file_as_it_judged_the_same_frames_in_training(trained, tmp_path):
    parent, trainer = trained
    file = tmp_path / "frames.h5"
    write_radioml(file, trainer.frames)
    options = ("--checkpoint", str(trainer.checkpoints.best), "--data_path", str(file))
    found = record("network", tmp_path, *options, "--run_name", "x", "--num_frames_per_cell", "99")
    assert (found.kind, found.facts["parent"]) == ("transfer", "parent")
    assert len(found.predictions) == len(trainer.frames)
    same = found.predictions.set_index("frame").loc[parent.predictions["frame"]]
    columns = ["predicted_modulation", "predicted_snr_label"]
    expected = parent.predictions.set_index("frame")[columns]
    assert (same[columns].astype(str) == expected.astype(str)).all(axis=None)
    assert found.label == parent.label
    assert found.trained.name == parent.name


def test_receiver_that_knows_the_snr_bounds_every_snr(tmp_path):
    hard = ("--modulations", "[16QAM, 64QAM, 256QAM]", "--snr_range_db", "[-14, -6, 2]")
    hard += ("--num_frames_per_cell", "40")
    known = record("bound", tmp_path, *hard, "--snr_known", "true", "--run_name", "told")
    assert (known.predictions["snr_label"] == known.predictions["predicted_snr_label"]).all()
    assert known.label == "genie-aided bound, SNR known"
    unknown = record("bound", tmp_path, *hard, "--run_name", "unknown")
    rows = [
        run.metrics[
            (run.metrics["group"] == "snr_label") & (run.metrics["metric"] == "joint_accuracy")
        ].set_index("level")["value"]
        for run in (known, unknown)
    ]
    assert (rows[0] >= rows[1]).all()
    assert rows[0].mean() > rows[1].mean() + 0.02


def test_channel_of_the_command_line_reaches_the_frames(trained, tmp_path):
    wide = ("--channel", "{cfo_std: 1e-3, delay_spread: 2, rolloff_range: [0.05, 0.6]}")
    options = ("--checkpoint", str(trained[1].checkpoints.best), "--num_frames_per_cell", "2")
    found = record("network", tmp_path, *options, *wide, "--run_name", "wide")
    channel = found.facts["data"]["source"]["generator"]
    assert (channel["cfo_std"], channel["delay_spread"]) == (1e-3, 2.0)
    assert list(channel["rolloff_range"]) == [0.05, 0.6]


def test_refitted_head_begins_with_what_the_two_heads_say_and_gets_no_worse(
    trained, tmp_path, monkeypatch
):
    options = ("--checkpoint", str(trained[1].checkpoints.best), "--num_frames_per_cell", "30")
    refit = (*options, "--refit_frames_per_cell", "60")
    own = record("network", tmp_path, *options, "--run_name", "own")
    fitted = record("network", tmp_path, *refit, "--run_name", "fitted")
    monkeypatch.setattr("amc_utils.studies.evaluate._REFIT_PENALTIES", ())
    begun = record("network", tmp_path, *refit, "--run_name", "begun")
    columns = ["predicted_modulation", "predicted_snr_label"]
    same = own.predictions[columns].astype(str) == begun.predictions[columns].astype(str)
    assert same.all(axis=None)
    joint = {run.name: run.facts["test"]["joint_accuracy"]["value"] for run in (own, fitted)}
    assert joint["fitted"] > joint["own"] - 0.02
    assert fitted.facts["network"]["name"].endswith(", refitted head")


def test_refitted_head_takes_the_features_alone(make_config):
    """Not what a detector needs beside them on the open channel."""
    config = make_config(num_frames_per_cell=9, channel={"preset": "open"})
    classifier, frames = Classifier(untrained_network(config).eval(), config), load_frames(config)
    width = classifier.network.modulation_head.in_features
    assert classifier.look(frames.iq(torch.arange(2)))[0].shape == (2, width + 1)
    assert refitted_head(classifier, frames).in_features == width


def test_refitted_head_learns_what_the_heads_do_not_know(make_config, monkeypatch):
    """Features of a network that learnt nothing still tell some classes apart."""
    config = make_config(num_frames_per_cell=60)
    classifier, frames = Classifier(untrained_network(config).eval(), config), load_frames(config)
    features, _ = classifier.look(frames.iq(torch.arange(len(frames))))
    right = []
    for penalties in ((), (10.0, 1.0, 0.1)):
        monkeypatch.setattr("amc_utils.studies.evaluate._REFIT_PENALTIES", penalties)
        found = refitted_head(classifier, frames)(features).argmax(1)
        right.append(float((found == frames.joint_class).float().mean()))
    assert right[1] > right[0] + 0.1


def test_bound_without_the_phase_is_lower(tmp_path):
    channel = ("--channel", "{preset: radioml_2018}", "--num_frames_per_cell", "250")
    classes = ("--modulations", "[QPSK, 8PSK, 16PSK, 16QAM]", "--snr_range_db", "[-2, -2, 2]")
    joint = []
    for name in ("true", "false"):
        words = ["bound", "--output_root", str(tmp_path), *classes, *channel, "--phase_known", name]
        run = evaluate(EvaluationParameters.from_words([*words, "--run_name", f"phase-{name}"]))
        joint.append(run.facts["test"]["joint_accuracy"]["value"])
    assert 0.005 < joint[0] - joint[1] < 0.06
    assert run.label == "genie-aided bound, phase unknown"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("receiver", "--phase_known", "false"), "phase_known must be left out for receiver"),
        (("bound", "--refit_frames_per_cell", "5"), "refit_frames_per_cell must be left out for bound"),
        (
            ("network", "--data_path", __file__, "--refit_frames_per_cell", "5"),
            "refit_frames_per_cell must be left out for network with data_path",
        ),
        (("bound", "--channel", "{delay_spread: 2}"), "delay_spread must be left out for bound"),
        (("bound", "--data_path", "x.h5"), "data_path must be left out for bound"),
        (("receiver", "--checkpoint", "x"), "checkpoint must be left out for receiver"),
        (("receiver", "--channel", "{cfo_std: 1e-3}"), "cfo_std up to 4.17e-05 and no multipath"),
        (("receiver", "--channel", "{delay_spread: 1}"), "no multipath for the receiver"),
        (("network", "--modulations", "[BPSK]"), "modulations must be left out for network"),
        (
            ("network", "--data_path", "x.h5", "--channel", "{cfo_std: 1e-3}"),
            "cfo_std must be left out for network",
        ),
        (
            ("receiver", "--data_path", "x.h5", "--channel", "{delay_spread: 1}"),
            "delay_spread must be left out",
        ),
        (("bound", "--channel", "{dc: 0.1}"), "channel must set some of .*, got 'dc'"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        EvaluationParameters.from_words(arguments)


def test_exported_network_decides_as_its_checkpoint(trained, tmp_path):
    parent, trainer = trained
    model = tmp_path / parent.name / "model.safetensors"
    model.parent.mkdir()
    network, config, _ = trained_network(trainer.checkpoints.best)
    detector = MahalanobisDetector(torch.eye(1), torch.zeros(1, 1), torch.zeros(1, 1, 201))
    Classifier(network, config, detector=detector, run=parent.name).save(model)
    found = [
        record("network", tmp_path, "--checkpoint", str(path), "--run_name", name)
        for name, path in (("exported", model), ("trained", trainer.checkpoints.best))
    ]
    same = found[0].predictions["modulation"] == found[1].predictions["modulation"]
    assert same.mean() > 0.95  # Weights are kept in half precision.
    assert found[0].facts["parent"] == parent.name
    assert "epochs" not in found[0].facts, "the file does not say how many"


def test_missing_checkpoints_and_those_of_others_are_refused(tmp_path):
    with pytest.raises(ValueError, match="checkpoint must name a network: outputs/checkpoints/RUN"):
        record("network", tmp_path)
    with pytest.raises(FileNotFoundError, match="checkpoint not found: nowhere"):
        record("network", tmp_path, "--checkpoint", "nowhere")
    other = tmp_path / "other.ckpt"
    torch.save({"weights": torch.zeros(1)}, other)
    with pytest.raises(ValueError, match="must be a checkpoint that this project wrote"):
        record("network", tmp_path, "--checkpoint", str(other))

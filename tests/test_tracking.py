"""What TensorBoard and Weights & Biases are given is the history of the run."""

from __future__ import annotations

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trainers import TINY

from amc_utils.config import result_affecting
from amc_utils.data import stratified_split
from amc_utils.training import Experiment, train


def test_tensorboard_holds_every_number_of_every_epoch(make_config, tmp_path):
    run = train(make_config(**TINY, run_name="seen", engine={"tracker": "tensorboard"}), "test")
    events = EventAccumulator(str(tmp_path / "outputs" / "tracking" / "seen")).Reload()
    history = run.history.set_index("epoch")
    for column in ("validation_joint_accuracy", "train_eval_loss", "weight_snr", "learning_rate"):
        tag = column.replace("train_eval_", "train_eval/").replace("validation_", "validation/")
        scalars = events.Scalars(tag.replace("weight_", "weight/"))
        assert [event.step for event in scalars] == list(history.index)
        assert [event.value for event in scalars] == pytest.approx(list(history[column]), rel=1e-6)
    assert len(events.Tags()["scalars"]) == len(history.columns) + 1  # and a place for parameters


def test_interrupted_run_goes_on_in_the_same_curves(make_config, tmp_path):
    config = make_config(**TINY, run_name="cut", engine={"tracker": "tensorboard"}, num_epochs=3)
    for epochs in (1, 3):
        experiment = Experiment.start(config, "test")
        fabric = experiment.fabric()
        frames = experiment.frames(fabric)
        split = stratified_split(frames, seed=config.seed)
        trainer = experiment.trainer(experiment.network(), frames, split, fabric)
        for row in trainer.fit():
            if row["epoch"] == epochs:
                break
    events = EventAccumulator(str(tmp_path / "outputs" / "tracking" / "cut")).Reload()
    assert [event.step for event in events.Scalars("validation/joint_accuracy")] == [1, 2, 3]


def test_without_a_tracker_nothing_is_written(make_config, tmp_path):
    train(make_config(**TINY, run_name="quiet", num_epochs=1), "test")
    assert not (tmp_path / "outputs" / "tracking").exists()


def test_wandb_writes_offline(make_config, tmp_path):
    pytest.importorskip("wandb", reason="optional, not part of the pins")
    train(make_config(**TINY, run_name="synced", engine={"tracker": "wandb"}, num_epochs=1), "test")
    folder = tmp_path / "outputs" / "tracking" / "synced" / "wandb"
    assert list(folder.glob("offline-run-*/run-synced.wandb"))


def test_missing_wandb_is_said_in_one_sentence(make_config, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    with pytest.raises(ValueError, match="pip install wandb"):
        train(make_config(**TINY, run_name="none", engine={"tracker": "wandb"}), "test")
    assert not (tmp_path / "outputs" / "checkpoints" / "none").exists()


def test_tracker_decides_nothing_about_a_run(make_config):
    one, other = (make_config(engine={"tracker": kind}) for kind in ("none", "tensorboard"))
    assert result_affecting(one.model_dump()) == result_affecting(other.model_dump())

"""Training: exact resume, order of frames, what is learnt, what is refused."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from files import write_radioml
from torch.nn.functional import cross_entropy
from trainers import make_trainer

from amc_utils import training
from amc_utils.config import Engine
from amc_utils.data import load_frames, stratified_split
from amc_utils.images import constellation_images
from amc_utils.models import count_activation_bytes, count_parameters, untrained_network
from amc_utils.runtime.checkpoints import read_checkpoint
from amc_utils.runtime.devices import best_fabric
from amc_utils.training import Experiment, Trainer, _what_fits


def assert_same_weights(a, b):
    for (name, x), y in zip(
        a.network.state_dict().items(), b.network.state_dict().values(), strict=True
    ):
        assert torch.equal(x, y), name
    for x, y in zip(a.weighting.parameters(), b.weighting.parameters(), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"network": "swin_tiny", "network_options": {"window_size": 2, "embed_dim": 12}},
    ],
)
def test_two_plus_two_epochs_equal_four(make_config, tmp_path, options):
    straight = make_trainer(make_config(num_epochs=4, **options), tmp_path / "straight")
    list(straight.fit())
    first = make_trainer(make_config(num_epochs=2, **options), tmp_path / "first")
    list(first.fit())
    torch.rand(3)  # what a notebook draws in between must not matter
    second = make_trainer(make_config(num_epochs=4, **options), tmp_path / "second")
    second.resume(first.checkpoints.last)
    assert [row["epoch"] for row in second.fit()] == [3, 4]
    pd.testing.assert_frame_equal(straight.history_table, second.history_table, check_exact=True)
    assert_same_weights(straight, second)
    straight.load_best()
    second.load_best()
    assert_same_weights(straight, second)


def assert_resume_is_exact(config, folder):
    """Trainer that ran straight through; one stopped after its first epoch must have its history."""
    straight = make_trainer(config, folder / "straight")
    list(straight.fit())
    stopped = make_trainer(config, folder / "stopped")
    next(stopped.fit())
    resumed = make_trainer(config, folder / "resumed")
    resumed.resume(stopped.checkpoints.last)
    list(resumed.fit())
    pd.testing.assert_frame_equal(straight.history_table, resumed.history_table, check_exact=True)
    return straight


def test_cosine_schedule_resumes_exactly_and_ends_at_zero(make_config, tmp_path):
    config = make_config(num_epochs=3, schedule="cosine")
    straight = assert_resume_is_exact(config, tmp_path)
    assert straight.learner.scheduler.get_last_lr()[0] == pytest.approx(0, abs=1e-12)
    assert straight.history[0]["learning_rate"] == config.learning_rate


def test_resume_refuses_another_run(make_config, tmp_path):
    trainer = make_trainer(make_config(num_epochs=1), tmp_path / "a")
    list(trainer.fit())
    other = make_trainer(make_config(num_epochs=2, learning_rate=0.5), tmp_path / "b")
    with pytest.raises(ValueError, match=r"learning_rate must stay 0.001 .* got 0.5"):
        other.resume(trainer.checkpoints.last)
    torch.save({"weights": torch.zeros(1)}, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match="must be a checkpoint that this project wrote"):
        other.resume(tmp_path / "foreign.ckpt")
    finished = make_trainer(make_config(num_epochs=1), tmp_path / "d")
    with pytest.raises(ValueError, match="num_epochs must exceed the 1 epochs"):
        finished.resume(trainer.checkpoints.last)
    same = make_trainer(make_config(num_epochs=2), tmp_path / "c")
    with pytest.raises(ValueError, match=r"must be a last.ckpt or previous.ckpt to go on from"):
        same.resume(trainer.checkpoints.best)


def test_resume_refuses_other_data_with_the_same_labels(make_config, tmp_path, small_frames):
    written = tmp_path / "frames.h5"
    write_radioml(written, small_frames)
    trainer = make_trainer(make_config(num_epochs=1), tmp_path / "a")
    list(trainer.fit())
    other = make_trainer(make_config(num_epochs=2, data_path=str(written)), tmp_path / "b")
    with pytest.raises(ValueError, match="trained on other frames"):
        other.resume(trainer.checkpoints.last)


def test_fixed_order_repeats_and_shuffled_order_does_not(make_config, tmp_path):
    fixed = make_trainer(make_config(shuffle=False), tmp_path).plan
    assert torch.equal(fixed.batches(0), fixed.batches(1))
    shuffled = make_trainer(make_config(shuffle=True), tmp_path).plan
    first, second = shuffled.batches(0), shuffled.batches(1)
    assert not torch.equal(first, second)
    assert torch.equal(first.flatten().sort().values, second.flatten().sort().values)


def test_every_order_is_used_in_training(make_config, tmp_path, monkeypatch):
    """The batches that reach the network, not the helper that orders them."""
    seen = {}
    for shuffle in (True, False):
        trainer = make_trainer(make_config(shuffle=shuffle), tmp_path)
        batches = []
        step = trainer.learner.step
        monkeypatch.setattr(
            trainer.learner, "step", lambda b, *rest, s=step, log=batches: log.append(b) or s(b, *rest)
        )
        list(trainer.fit())
        half = len(batches) // 2
        seen[shuffle] = torch.equal(torch.cat(batches[:half]), torch.cat(batches[half:]))
    assert seen == {True: False, False: True}


def test_network_learns_and_the_best_epoch_is_kept(make_config, tmp_path):
    config = make_config(num_frames_per_cell=60, num_epochs=6, dropout=0.0)
    trainer = make_trainer(config, tmp_path)
    history = list(trainer.fit())
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert trainer.best_row["validation_joint_accuracy"] > 2 / 6
    trainer.load_best()
    measured = trainer.evaluator.measure(trainer.split.validation, "validation")
    assert measured == {name: trainer.best_row[name] for name in measured}


def script_validation(trainer, monkeypatch, scores):
    """Let the validation accuracies of the epochs be `scores`, whatever the network does."""
    measure = trainer.evaluator.measure

    def scripted(index, prefix):
        row = measure(index, prefix)
        if prefix == "validation":
            row["validation_joint_accuracy"] = scores[len(trainer.history)]
        return row

    monkeypatch.setattr(trainer.evaluator, "measure", scripted)


def test_best_epoch_in_the_middle_is_kept_across_a_resume(make_config, tmp_path, monkeypatch):
    """The best epoch is the first after the resume, neither the last nor the one resumed from."""
    scores = [0.1, 0.2, 0.9, 0.3]
    first = make_trainer(make_config(num_epochs=2), tmp_path / "first")
    script_validation(first, monkeypatch, scores)
    list(first.fit())
    second = make_trainer(make_config(num_epochs=4), tmp_path / "second")
    second.resume(first.checkpoints.last)
    script_validation(second, monkeypatch, scores)
    weights = {}
    for row in second.fit():
        weights[row["epoch"]] = second.network.snr_head.weight.detach().clone()
    # A run restored from its own last checkpoint keeps its own best one.
    again = make_trainer(make_config(num_epochs=4), tmp_path / "second")
    again.resume(second.checkpoints.last)
    again.load_best()
    assert again.best_row["epoch"] == 3
    assert torch.equal(again.network.snr_head.weight, weights[3])
    assert not torch.equal(weights[3], weights[4])


@pytest.mark.parametrize("harm", ["missing", "damaged", "newer"])
def test_best_weights_survive_the_loss_of_their_file(make_config, tmp_path, monkeypatch, harm):
    """Every checkpoint holds them, whatever a kill between two files left behind."""
    first = make_trainer(make_config(num_epochs=3), tmp_path)
    script_validation(first, monkeypatch, [0.9, 0.1, 0.2])
    epochs = first.fit()
    next(epochs)
    weights = first.network.snr_head.weight.detach().clone()
    next(epochs)
    best = first.checkpoints.best
    if harm == "newer":
        torch.save(read_checkpoint(best) | {"history": [{}] * 3}, best)
    else:
        best.write_bytes(b"") if harm == "damaged" else best.unlink()
    second = make_trainer(make_config(num_epochs=3), tmp_path)
    assert second.resume_if_begun()
    script_validation(second, monkeypatch, [0.9, 0.1, 0.2])
    list(second.fit())
    second.load_best()
    assert torch.equal(second.network.snr_head.weight, weights)
    stored = read_checkpoint(best)
    assert len(stored["history"]) == 1
    assert torch.equal(stored["network"]["snr_head.weight"], weights)


def test_run_remembers_where_it_began(make_config, tmp_path):
    other = make_trainer(make_config(num_epochs=1), tmp_path / "other")
    list(other.fit())
    alone = make_trainer(make_config(num_epochs=1), tmp_path / "alone")
    list(alone.fit())
    origin = str(other.checkpoints.last)
    late = make_trainer(make_config(num_epochs=2, resume_from=origin), tmp_path / "alone")
    with pytest.raises(ValueError, match=r"resume_from must stay '', where the run 'alone' began"):
        late.resume_if_begun()
    longer = make_trainer(make_config(num_epochs=2, resume_from=origin), tmp_path / "longer")
    longer.resume(origin)
    next(longer.fit())
    again = make_trainer(make_config(num_epochs=3), tmp_path / "longer")
    assert again.resume_if_begun()
    assert again.origin == origin


def test_second_trainer_on_fresh_frames_begins_where_the_first_did(make_config, tmp_path):
    config = make_config(num_epochs=2, fresh_frames=True)
    first = make_trainer(config, tmp_path / "first")
    list(first.fit())
    second = Trainer(
        config,
        Experiment.start(config, "test").network(),
        first.frames,
        first.split,
        fabric=first.fabric,
        folder=tmp_path / "second",
    )
    list(second.fit())
    pd.testing.assert_frame_equal(first.history_table, second.history_table, check_exact=True)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_epoch_equals_a_plain_loop(make_config, tmp_path, weight_decay):
    """Same batches, same optimiser, written out without any of the trainer's helpers."""
    config = make_config(dropout=0.0, weight_decay=weight_decay, num_epochs=1, task_weighting="sum")
    trainer, plain = (make_trainer(config, tmp_path) for _ in range(2))
    batches = trainer.plan.batches(0)
    network, frames = plain.network.module, plain.frames
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=weight_decay)
    network.train()
    losses = []
    for batch in batches:
        iq = torch.view_as_complex(frames.iq_pairs[batch])
        logits = network(constellation_images(iq, ["counts_8_bit"], 32))
        steps = (torch.arange(2) - frames.snr_index[batch][:, None]).abs()
        distance = (logits.snr.softmax(1) * steps).sum(1).mean()
        modulation = cross_entropy(logits.modulation, frames.modulation[batch])
        loss = modulation + cross_entropy(logits.snr, frames.snr_index[batch]) + 0.1 * distance
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    (row,) = trainer.fit()
    assert row["train_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    for ours, theirs in zip(trainer.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_train_eval_measures_training_frames(make_config, tmp_path, monkeypatch):
    trainer = make_trainer(make_config(), tmp_path)
    looked_at = {}
    measure = trainer.evaluator.measure
    monkeypatch.setattr(
        trainer.evaluator,
        "measure",
        lambda index, prefix: looked_at.update({prefix: set(index.tolist())}) or measure(index, prefix),
    )
    next(trainer.fit())
    assert looked_at["train_eval"] <= set(trainer.split.train.tolist())
    assert looked_at["validation"] == set(trainer.split.validation.tolist())
    assert len(looked_at["train_eval"]) == len(looked_at["validation"])


def test_dropout_acts_in_training_and_seed_draws_the_weights(make_config):
    network = Experiment.start(make_config(dropout=0.5), "test").network()
    images = torch.rand(4, 1, 32, 32)
    network.eval()
    assert torch.equal(network(images).snr, network(images).snr)
    network.backbone.eval()
    network.dropout.train()
    assert not torch.equal(network(images).snr, network(images).snr)
    same, other = (Experiment.start(make_config(seed=seed), "test").network() for seed in (5, 6))
    assert torch.equal(network.snr_head.weight, same.snr_head.weight)
    assert not torch.equal(network.snr_head.weight, other.snr_head.weight)


def test_predictions_agree_with_measured_accuracy(make_config, tmp_path):
    trainer = make_trainer(make_config(), tmp_path)
    list(trainer.fit())
    table = trainer.evaluator.predict(trainer.split.test)
    right = (table["modulation"] == table["predicted_modulation"]) & (
        table["snr_label"] == table["predicted_snr_label"]
    )
    measured = trainer.evaluator.measure(trainer.split.test, "test")
    assert right.mean() == pytest.approx(measured["test_joint_accuracy"])
    assert table["modulation_confidence"].between(1 / 3, 1).all()
    frames = trainer.frames
    names = [frames.modulations[k] for k in frames.modulation[trainer.split.test]]
    assert table["modulation"].tolist() == names


def test_gradient_clip_bounds_the_step(make_config, tmp_path):
    options = {"num_epochs": 1}
    free = make_trainer(make_config(**options), tmp_path / "free")
    clipped = make_trainer(make_config(gradient_clip=1e-3, **options), tmp_path / "clipped")
    for trainer in (free, clipped):
        batch = trainer.split.train[:16]
        trainer.learner.step(batch, trainer.frames.iq(batch), 0)
    norms = [
        torch.nn.utils.get_total_norm(
            p.grad for part in (t.network, t.weighting) for p in part.parameters() if p.grad is not None
        )
        for t in (free, clipped)
    ]
    assert norms[0] > 1e-2
    assert float(norms[1]) == pytest.approx(1e-3, rel=1e-3)


def test_weighting_learns_with_the_network(make_config, tmp_path):
    trainer = make_trainer(make_config(), tmp_path)
    list(trainer.fit())
    assert trainer.history[-1]["variance_snr"] != 1.0
    assert trainer.history[-1]["weight_modulation"] + trainer.history[-1][
        "weight_snr"
    ] == pytest.approx(1)


def test_batch_larger_than_the_set_is_refused(make_config, tmp_path):
    with pytest.raises(ValueError, match=r"batch_size must be at most .* 96, got 97"):
        make_trainer(make_config(batch_size=97), tmp_path)


def test_fresh_frames_are_new_every_epoch_for_training_alone(make_config, tmp_path):
    """On Table I, where frames have unit power."""
    on_table_1 = {"channel": {"preset": "table_1"}}
    trainer = make_trainer(make_config(num_epochs=2, fresh_frames=True, **on_table_1), tmp_path)
    frames, split = trainer.frames, trainer.split
    before = frames.iq_pairs.clone()
    epochs = trainer.fit()
    next(epochs)
    assert torch.equal(frames.iq_pairs, before), "the first epoch has the frames of the set"
    next(epochs)
    changed = (frames.iq_pairs != before).any(2).any(1)
    assert changed[split.train].all()
    assert not changed[split.validation].any()
    assert not changed[split.test].any()
    power = frames.iq_pairs[split.train].square().sum(2).mean(1)
    torch.testing.assert_close(power, torch.ones_like(power))


def test_fresh_frames_and_one_cycle_resume_exactly(make_config, tmp_path):
    config = make_config(num_epochs=3, fresh_frames=True, schedule="one_cycle")
    straight = assert_resume_is_exact(config, tmp_path)
    rates = straight.history_table["learning_rate"]
    assert rates[0] == pytest.approx(config.learning_rate / 25), "a cycle begins at a twenty-fifth"
    assert rates[1] > rates[2] > straight.learner.scheduler.get_last_lr()[0]


def test_epochs_follow_from_the_time_of_a_step(make_config, monkeypatch):
    """Steps of a second each, on a clock of our own; the network itself stays untrained."""
    config = make_config(engine={"minutes": 2.0})
    fabric = best_fabric(config.precision)
    frames = load_frames(config)
    split = stratified_split(frames, seed=config.seed)
    network = untrained_network(config)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    monkeypatch.setattr(training, "time", clock)
    epochs = training.epochs_in_time(config, network, frames, split, fabric)
    steps = len(split.train) // config.batch_size
    # A second for each step and for 12 frames that are looked at, or drawn in no time; one look at the
    # clock more after each.
    timed = 2 * steps + 2 * 2 + 2
    assert epochs == int((120 - timed) / (steps + 2 + 96 / 12)) > 1
    hurried = config.model_copy(update={"engine": Engine(minutes=1e-3)})
    assert training.epochs_in_time(hurried, network, frames, split, fabric) == 1
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_run_of_set_time_goes_on_with_the_epochs_chosen_first(make_config, monkeypatch):
    config = make_config(engine={"minutes": 2.0}, run_name="timed", schedule="one_cycle")
    monkeypatch.setattr(training, "epochs_in_time", lambda *rest: 3)

    def begun():
        experiment = Experiment.start(config, "test")
        fabric = experiment.fabric()
        frames = experiment.frames(fabric)
        split = stratified_split(frames, seed=config.seed)
        return experiment.trainer(experiment.network(), frames, split, fabric)

    next(begun().fit())
    monkeypatch.setattr(training, "epochs_in_time", lambda *rest: 7)
    trainer = begun()
    assert (trainer.config.num_epochs, len(trainer.history)) == (3, 1)


def test_a_run_goes_on_as_it_was_begun_whatever_suits_the_device(make_config, monkeypatch):
    """Longer, it would be worth compiling, and another device would take another precision."""
    options = {"precision": "auto", "num_epochs": 1, "run_name": "begun"}
    training.train(make_config(**options), record=False)
    monkeypatch.setattr(training, "best_accelerator", lambda: "cuda")
    longer = make_config(**options | {"num_epochs": 10**9})
    config = Experiment.start(longer, "test").config
    assert (config.precision, config.engine.compile, config.engine.fused) == ("32-true", False, False)
    other = Experiment.start(longer.model_copy(update={"run_name": "other"}), "test").config
    assert (other.precision, other.engine.compile) == ("bf16-mixed", True)


def test_time_is_that_of_a_whole_run(make_config, tmp_path):
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(ValueError, match=r"engine.minutes must be 0 with resume_from, .* got 1"):
        make_config(engine={"minutes": 1.0}, resume_from=str(tmp_path / "last.ckpt"))


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        ("cpu", {"num_epochs": 10**9}, ("32-true", False, False)),
        ("cuda", {"num_epochs": 10**9}, ("bf16-mixed", True, True)),
        ("cuda", {}, ("bf16-mixed", False, True)),
        ("cuda", {"engine": {"minutes": 4.0}}, ("bf16-mixed", False, True)),
        ("cuda", {"engine": {"minutes": 10.0}}, ("bf16-mixed", True, True)),
        ("cuda", {"precision": "16-mixed", "gradient_clip": 1.0}, ("16-mixed", False, False)),
        ("cuda", {"precision": "32-true", "engine": {"fused": False}}, ("32-true", False, False)),
    ],
)
def test_what_suits_a_device_is_chosen_where_nothing_is_said(make_config, kind, changes, expected):
    config = make_config(**{"precision": "auto"} | changes).on_device(kind)
    assert (config.precision, config.engine.compile, config.engine.fused) == expected
    assert not config.automatic & {"precision", "engine.compile", "engine.fused"}


def refuse_more_than(number, trainer):
    """Let the network have room for so many inputs at once."""

    def refuse(module, inputs):
        if len(inputs[0]) > number:
            raise torch.OutOfMemoryError("CUDA out of memory")

    trainer.network.register_forward_pre_hook(refuse)
    return trainer


def test_step_without_room_says_what_fits_and_that_fits(make_config, tmp_path):
    trainer = refuse_more_than(8, make_trainer(make_config(), tmp_path / "16"))
    said = (
        r"16 inputs of shape \(1, 32, 32\) at once must .* 0.00\d+ GB of weights and samples, and cpu "
        r"has .* GB in all; at about 0.2 MB each take engine: \{accumulate: 2\} or batch_size: 8"
    )
    with pytest.raises(torch.OutOfMemoryError, match=said) as caught:
        list(trainer.fit())
    assert str(caught.value.__cause__) == "CUDA out of memory"
    for options in ({"engine": {"accumulate": 2}}, {"batch_size": 8}):
        trainer = refuse_more_than(8, make_trainer(make_config(**options), tmp_path / str(options)))
        # All training steps have room, so that it is an evaluation that has none.
        with pytest.raises(torch.OutOfMemoryError, match=r"^256 inputs .*; take a smaller image_size"):
            list(trainer.fit())


@pytest.mark.parametrize(
    ("frames", "options", "advice"),
    [
        (11, {}, "{accumulate: 2} or batch_size: 8"),
        (9, {}, "{accumulate: 4} or batch_size: 4"),
        (9, {"batch_size": 18, "engine": {"accumulate": 2}}, "{accumulate: 6} or batch_size: 8"),
        (0, {}, "; take a smaller image_size or network"),
    ],
)
def test_advice_follows_from_the_free_memory(
    frames, options, advice, make_config, tmp_path, monkeypatch
):
    """A fifth of what weights and samples leave is for what passes, and powers of two fit."""
    trainer = refuse_more_than(0, make_trainer(make_config(**options), tmp_path))
    network = untrained_network(trainer.config)
    taken = 16 * count_parameters(network) + trainer.frames.iq_pairs.nbytes
    room = taken + frames * count_activation_bytes(network)
    monkeypatch.setattr("amc_utils.training.free_bytes", lambda device: room)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        list(trainer.fit())
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    ("free", "allowed", "advised"), [(1000, 1.0, 256), (0, 1.0, 32), (1000, 0.12, 64)]
)
def test_memory_of_a_gpu_is_what_is_free_what_torch_holds_and_what_is_allowed(
    free, allowed, advised, make_config, monkeypatch
):
    """In frames: the GPU has room for 1000, of which torch holds 50."""
    config = make_config(batch_size=512)
    network = untrained_network(config)
    each, weights = count_activation_bytes(network), 16 * count_parameters(network)
    total = SimpleNamespace(total_memory=1000 * each + weights)
    monkeypatch.setattr("amc_utils.training.free_bytes", lambda device: free * each)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 50 * each + weights)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: total)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: allowed)
    frames = SimpleNamespace(device=torch.device("cuda", 0), place="host", iq_pairs=torch.empty(0))
    fabric = SimpleNamespace(world_size=1)
    said = _what_fits(SimpleNamespace(config=config, frames=frames, fabric=fabric), learns=True)
    assert "cuda:0 has" in said
    assert said.endswith(f"{{accumulate: {512 // advised}}} or batch_size: {advised}")

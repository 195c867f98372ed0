"""Runs that are killed, stopped, starved of disk or fed with damaged files, and go on."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from trainers import SERVER, TINY, assert_same_run, config_file, make_trainer, start

from amc_utils.config import TrainingParameters
from amc_utils.runtime.checkpoints import Checkpoints, read_checkpoint
from amc_utils.runtime.interruption import EXIT_RESUMABLE, Stopped
from amc_utils.runtime.paths import REPOSITORY

NUM_KILLS = 20
RUN = TINY | {"schedule": "one_cycle", "fresh_frames": True}


def test_killed_twenty_times_equals_never_killed(make_config, tmp_path):
    roots = [tmp_path / "straight", tmp_path / "killed"]
    engine = {"checkpoint_minutes": 1e-4}
    straight, killed = (
        make_config(
            **RUN, engine=engine, num_epochs=20, run_name="victim", output_root=str(root)
        ).model_dump()
        for root in roots
    )
    undisturbed = start(straight)
    undisturbed.join()
    assert undisturbed.exitcode == 0
    moment, kills, steps = random.Random(1), 0, set()
    while kills < NUM_KILLS:
        process = start(killed)
        process.join(moment.uniform(0.1, 0.8))
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        kills += 1
        newest = Checkpoints(roots[1] / "outputs/checkpoints/victim").newest()
        steps |= {(len(newest[1]["history"]), newest[1]["epoch"]["step"])} if newest else set()
    assert kills == NUM_KILLS, "the run ended before it was killed often enough"
    assert any(step for _, step in steps), "no kill fell inside an epoch"
    last = start(killed)
    last.join()
    assert last.exitcode == 0
    assert_same_run(*roots, "victim")
    assert not list(roots[1].rglob(".*.ckpt")), "what killed writers left is gone"


def test_sigterm_saves_and_says_that_the_run_can_go_on(make_config, tmp_path):
    options = RUN | {"num_epochs": 15, "run_name": "stopped"}
    values = make_config(**options).model_dump()
    file = config_file(values | {"output_root": str(tmp_path / "stopped")}, tmp_path)
    command = [sys.executable, "-m", "amc_utils", "train", "--config", file]
    # With as many threads as the runs it is compared with; sums depend on that in their last bits.
    options = {"env": os.environ | {"OMP_NUM_THREADS": "1"}, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=REPOSITORY, **options)
    last = tmp_path / "stopped/outputs/checkpoints/stopped/last.ckpt"
    while not last.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    _, message = process.communicate()
    assert process.returncode == EXIT_RESUMABLE
    assert "goes on from there when it is started again with run_name 'stopped'" in message
    assert 0 < len(read_checkpoint(last)["history"]) < 15
    for root in ("stopped", "straight"):
        child = start(values | {"output_root": str(tmp_path / root)})
        child.join()
        assert child.exitcode == 0
    assert_same_run(tmp_path / "stopped", tmp_path / "straight", "stopped")


def test_interrupted_cell_can_be_run_again(make_config, tmp_path, monkeypatch):
    """Ctrl-C in the middle of an epoch; the same trainer, or a new one after a restart, goes on."""
    config = make_config(**RUN, num_epochs=2)
    straight = make_trainer(config, tmp_path / "straight")
    list(straight.fit())
    for again in ("same trainer", "new trainer"):
        trainer = make_trainer(config, tmp_path / again)
        step = trainer.learner.step

        def interrupted(batch, iq, number, step=step):
            if number == 2:
                signal.raise_signal(signal.SIGINT)
            return step(batch, iq, number)

        monkeypatch.setattr(trainer.learner, "step", interrupted)
        with pytest.raises(Stopped, match="stopped after step 3 of epoch 1"):
            list(trainer.fit())
        monkeypatch.undo()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if again == "new trainer":
            trainer = make_trainer(config, tmp_path / again)
            assert trainer.resume_if_begun()
        list(trainer.fit())
        pd.testing.assert_frame_equal(straight.history_table, trainer.history_table, check_exact=True)


@pytest.mark.parametrize(("epoch", "stopped"), [(1, "step 1 of epoch 2"), (2, "")])
def test_request_during_the_last_look_of_an_epoch_is_not_lost(
    epoch, stopped, make_config, tmp_path, monkeypatch
):
    """It comes while processes agree on whether to stop; after the last epoch it is obeyed as it is."""
    trainer = make_trainer(make_config(**RUN, num_epochs=2), tmp_path)
    look = trainer._handle_periodic_events

    def interrupted(requests):
        look(requests)
        if len(trainer.history) == epoch and trainer._step == 0:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(trainer, "_handle_periodic_events", interrupted)
    with pytest.raises(Stopped if stopped else KeyboardInterrupt, match=stopped or "^$"):
        list(trainer.fit())
    assert len(read_checkpoint(trainer.checkpoints.last)["history"]) == epoch


def test_stop_in_the_last_look_says_that_all_epochs_are_done(make_config, tmp_path, monkeypatch):
    trainer = make_trainer(make_config(**RUN, num_epochs=1), tmp_path)
    save = trainer._save_best

    def interrupted():
        save()
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(trainer, "_save_best", interrupted)
    with pytest.raises(Stopped, match="stopped after the last epoch; the run goes on from there"):
        list(trainer.fit())


def test_damaged_checkpoint_is_refused_and_the_one_before_is_used(make_config, tmp_path):
    config = make_config(**RUN, num_epochs=3)
    straight = make_trainer(config, tmp_path / "straight")
    list(straight.fit())
    for damage in ("flipped", "torn"):
        first = make_trainer(config, tmp_path / damage)
        epochs = first.fit()
        next(epochs), next(epochs)
        content = bytearray(first.checkpoints.last.read_bytes())
        if damage == "flipped":
            # In the middle of the largest part; between the parts is padding, where it does no harm.
            with zipfile.ZipFile(first.checkpoints.last) as archive:
                part = max(archive.infolist(), key=lambda info: info.file_size)
            content[part.header_offset + part.file_size // 2 + 200] ^= 1
        else:
            del content[len(content) // 2 :]
        first.checkpoints.last.write_bytes(content)
        second = make_trainer(config, tmp_path / damage)
        with pytest.warns(UserWarning, match=r"last.ckpt must be .* the one before it is used"):
            assert second.resume_if_begun()
        assert len(second.history) == 1
        list(second.fit())
        pd.testing.assert_frame_equal(straight.history_table, second.history_table, check_exact=True)
    for path in (second.checkpoints.last, second.checkpoints.previous):
        path.write_bytes(b"nothing")
    with (
        pytest.warns(UserWarning, match="the one before"),
        pytest.raises(ValueError, match="to start the run afresh"),
    ):
        second.resume_if_begun()


def run_on_a_full_disk(values):
    """Body of a child process whose checkpoints have no room from the second one on."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    config = TrainingParameters.checked(values)
    trainer = make_trainer(config, Path(config.output_root) / "full")
    epochs = trainer.fit()
    next(epochs)
    size = trainer.checkpoints.last.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
    try:
        next(epochs)
    except OSError as error:
        Path(config.output_root, "said.txt").write_text(str(error), encoding="utf8")


def test_full_disk_keeps_the_checkpoint_before(make_config, tmp_path):
    config = make_config(**RUN, num_epochs=3)
    child = SERVER.Process(target=run_on_a_full_disk, args=(config.model_dump(),))
    child.start()
    child.join()
    said = (tmp_path / "said.txt").read_text(encoding="utf8")
    assert "could not be written" in said
    assert "make room and start the run again under its name, 'full'" in said
    trainer = make_trainer(config, tmp_path / "full")
    assert not list((tmp_path / "full").glob(".*.ckpt"))
    assert trainer.resume_if_begun()
    assert len(trainer.history) == 1


def test_folder_that_cannot_be_written_stops_before_training(make_config, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf8")
    with pytest.raises(OSError, match=r"checkpoints must be written to .* choose another output_root"):
        make_trainer(make_config(**RUN), tmp_path / "file" / "run")


def hold_the_name(folder, held, release):
    """Body of a child process that trains under a name until it is released."""
    Checkpoints(folder).claim()
    held.set()
    release.wait()


def test_two_runs_at_once_cannot_share_a_name(make_config, tmp_path):
    held, release = SERVER.Event(), SERVER.Event()
    child = SERVER.Process(target=hold_the_name, args=(tmp_path / "twin", held, release))
    child.start()
    held.wait()
    with pytest.raises(ValueError, match=r"another process is training 'twin'"):
        make_trainer(make_config(**RUN), tmp_path / "twin")
    release.set()
    child.join()
    make_trainer(make_config(**RUN), tmp_path / "twin")


def spoil(trainer, monkeypatch, wanted):
    """Let the losses of some steps, counted from 0, be no number."""
    real, count = trainer.evaluator.loss_and_correct, iter(range(1000))

    def spoilt(logits, batch):
        losses, hits = real(logits, batch)
        bad = torch.is_grad_enabled() and next(count) in wanted
        return losses * (float("nan") if bad else 1.0), hits

    monkeypatch.setattr(trainer.evaluator, "loss_and_correct", spoilt)


def test_loss_that_is_no_number_stops_the_run(make_config, tmp_path, monkeypatch):
    trainer = make_trainer(make_config(**RUN, num_epochs=3), tmp_path)
    spoil(trainer, monkeypatch, {8})
    epochs = trainer.fit()
    next(epochs)
    with pytest.raises(FloatingPointError, match=r"step 3 of epoch 2; the last good .*last.ckpt"):
        next(epochs)
    content = read_checkpoint(trainer.checkpoints.last)
    assert len(content["history"]) == 1
    assert all(torch.isfinite(value).all() for value in content["network"].values())


@pytest.mark.parametrize("skip", [False, True])
def test_gradient_that_is_not_finite_counts_as_well(make_config, tmp_path, monkeypatch, skip):
    """Its loss may be finite; the way out that the message names is open to the same run."""
    trainer = make_trainer(make_config(**RUN, num_epochs=2), tmp_path)
    epochs = trainer.fit()
    next(epochs)
    if skip:
        config = make_config(**RUN, num_epochs=2, engine={"skip_bad_steps": True})
        trainer = make_trainer(config, tmp_path)
        assert trainer.resume_if_begun()
        epochs = trainer.fit()
    backward, count = trainer.fabric.backward, iter(range(1000))

    def spoilt(loss):
        backward(loss)
        if next(count) == 2:
            trainer.network.snr_head.weight.grad[0, 0] = float("inf")

    monkeypatch.setattr(trainer.fabric, "backward", spoilt)
    if skip:
        next(epochs)
        assert trainer.learner.skipped == 1
    else:
        with pytest.raises(FloatingPointError, match=r"step 3 of epoch 2.*last.ckpt.*skip_bad_steps"):
            next(epochs)
    weights = read_checkpoint(trainer.checkpoints.last)["network"].values()
    assert all(torch.isfinite(value).all() for value in weights)


def test_steps_without_a_finite_loss_can_be_skipped_and_are_counted(make_config, tmp_path, monkeypatch):
    config = make_config(num_epochs=2, engine={"skip_bad_steps": True})
    trainer = make_trainer(config, tmp_path)
    spoil(trainer, monkeypatch, {1, 4})
    list(trainer.fit())
    assert trainer.learner.skipped == 2
    assert "2 steps skipped" in trainer.describe_epoch()
    assert np.isfinite(trainer.history_table.to_numpy()).all()
    resumed = make_trainer(config, tmp_path)
    resumed.resume_if_begun()
    assert resumed.learner.skipped == 2

"""Several processes that train one network, each with its share of the frames."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from files import write_radioml
from trainers import (
    SERVER,
    TINY,
    TINY_AND_STILL,
    assert_same_run,
    config_file,
    make_trainer,
    run_alone,
    start,
)

from amc_utils import training
from amc_utils.data import BatchPlan, load_frames, share, stratified_split
from amc_utils.models import convert_sync_batchnorm
from amc_utils.results import load_run
from amc_utils.runtime.checkpoints import Checkpoints
from amc_utils.runtime.paths import REPOSITORY
from amc_utils.training import Evaluator, Experiment


def torchrun(values, processes, folder):
    launch = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    words = ["-m", "amc_utils", "train", "--config", config_file(values, folder)]
    return [sys.executable, "-m", *launch, *words]


def pair_of_variables():
    """What torchrun tells two processes of one host."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return [common | {"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]


def test_two_processes_equal_one(make_config, tmp_path):
    """Same seed and batches: losses, accuracies and predictions agree up to rounding."""
    values = make_config(**TINY_AND_STILL, run_name="pair", gradient_clip=1.0).model_dump()
    for processes, root in ((1, "one"), (2, "two")):
        values |= {"output_root": str(tmp_path / root)}
        command = torchrun(values, processes, tmp_path / root)
        done = subprocess.run(
            command, cwd=REPOSITORY, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()[-3000:]
    one, two = (load_run("pair", str(tmp_path / root)) for root in ("one", "two"))
    assert [run.facts["engine"]["processes"] for run in (one, two)] == [1, 2]
    np.testing.assert_allclose(one.history.to_numpy(), two.history.to_numpy(), rtol=1e-4, atol=1e-5)
    assert (one.predictions["frame"] == two.predictions["frame"]).all()
    same = one.predictions["predicted_modulation"] == two.predictions["predicted_modulation"]
    assert same.mean() > 0.9
    assert one.history["train_loss"].iloc[-1] < one.history["train_loss"].iloc[0]


def run_by_a_fast_clock(values, variables):
    """Body of a child process whose clock runs three times as fast."""
    training.time = SimpleNamespace(perf_counter=lambda: 3 * time.perf_counter())
    run_alone(values, variables)


def test_two_processes_agree_on_the_epochs_that_fit_into_a_time(make_config, tmp_path):
    values = make_config(**TINY, engine={"minutes": 0.02}, run_name="timed").model_dump()
    first, second = pair_of_variables()
    pair = [start(values, first), SERVER.Process(target=run_by_a_fast_clock, args=(values, second))]
    pair[1].start()
    wait_for(pair)
    run = load_run("timed", str(tmp_path))
    assert run.facts["config"]["num_epochs"] == run.facts["epochs"]


def test_two_processes_go_on_after_one_is_killed_and_after_sigterm(make_config, tmp_path):
    """The run that comes out equals the undisturbed one bit for bit, dropout included."""
    options = TINY | {"fresh_frames": True, "num_epochs": 24, "run_name": "pair"}
    values = make_config(**options, engine={"checkpoint_minutes": 1e-4}).model_dump()
    roots = [tmp_path / "straight", tmp_path / "disturbed"]
    straight, disturbed = (values | {"output_root": str(root)} for root in roots)
    wait_for([start(straight, variables) for variables in pair_of_variables()])
    checkpoints = Checkpoints(roots[1] / "outputs/checkpoints/pair")
    done = (0, 0)
    for stop in ("kill", "terminate"):
        pair = [start(disturbed, variables) for variables in pair_of_variables()]
        while progress(checkpoints) <= done:
            assert all(process.is_alive() for process in pair), "ended before it was disturbed"
            time.sleep(0.01)
        getattr(pair[1], stop)()
        if stop == "kill":
            # The other one waits for it in vain, or notices; torchrun would end it.
            pair[0].kill()
        for process in pair:
            process.join()
        assert not (roots[1] / "outputs" / "runs" / "main" / "pair").exists()
        done = progress(checkpoints)
    wait_for([start(disturbed, variables) for variables in pair_of_variables()])
    assert_same_run(*roots, "pair")


def progress(checkpoints):
    """Epochs and steps that the newest checkpoint has behind it."""
    found = checkpoints.newest()
    return (len(found[1]["history"]), found[1]["epoch"]["step"]) if found else (0, 0)


def wait_for(processes):
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


def run_with_one_bad_loss(values, variables):
    """Body of a child process; the losses of the second process are no number in its third step."""
    real, count = Evaluator.loss_and_correct, iter(range(1000))

    def spoilt(self, logits, batch):
        losses, hits = real(self, logits, batch)
        bad = torch.is_grad_enabled() and next(count) == 2 and variables["RANK"] == "1"
        return losses * (float("nan") if bad else 1.0), hits

    Evaluator.loss_and_correct = spoilt
    run_alone(values, variables)


def test_all_processes_leave_out_a_step_that_is_bad_in_one(make_config, tmp_path):
    config = make_config(**TINY_AND_STILL, run_name="pair", engine={"skip_bad_steps": True})
    pair = [
        SERVER.Process(target=run_with_one_bad_loss, args=(config.model_dump(), variables))
        for variables in pair_of_variables()
    ]
    for process in pair:
        process.start()
    wait_for(pair)
    run = load_run("pair", str(tmp_path))
    assert run.facts["engine"] == {"device": "cpu", "processes": 2, "steps_skipped": 1}
    assert np.isfinite(run.history.to_numpy()).all()


@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_processes_share_frames_and_batches(make_config, num_processes):
    """Every frame is held once, and batches put together are those of a single process."""
    config = make_config(num_frames_per_cell=23)
    split = stratified_split(load_frames(config), seed=config.seed)
    shares = [share(config, split, rank, num_processes) for rank in range(num_processes)]
    everybody = torch.cat(shares).sort().values
    assert torch.equal(everybody, torch.arange(6 * 23))
    plan = BatchPlan(config, split)
    for epoch in (0, 1):
        batches = plan.batches(epoch)
        assert batches.shape == (len(split.train) // 16, 16)
        assert len(batches.unique()) == batches.numel(), "no frame twice in an epoch"
        assert torch.isin(batches, split.train).all()
        for rank, held in enumerate(shares):
            assert torch.isin(batches[:, plan.places(rank, num_processes)], held).all()


def test_a_share_holds_the_samples_of_the_whole(make_config, small_frames, tmp_path):
    write_radioml(tmp_path / "frames.h5", small_frames)
    for data_path in ("", str(tmp_path / "frames.h5")):
        config = make_config(data_path=data_path, num_frames_per_cell=13)
        whole = load_frames(config)
        half = torch.arange(1, len(whole), 2)
        part = load_frames(config, shard=lambda frames, half=half: half.flip(0))
        assert part.iq_pairs.shape[0] == len(half)
        assert len(part) == len(whole)
        assert torch.equal(part.iq(half[:3]), whole.iq(half[:3]))
        assert torch.equal(part.local(torch.arange(len(whole))), half)
        assert stratified_split(part, seed=1).counts == stratified_split(whole, seed=1).counts
    assert f"{len(half)} of {len(whole)} frames" in part.memory_summary


def test_process_without_frames_to_judge_adds_nothing(make_config, tmp_path):
    """Its part of the sum over processes is zeros; an empty batch would have stopped it."""
    trainer = make_trainer(make_config(**TINY_AND_STILL), tmp_path)
    test = trainer.split.test
    nothing = torch.empty(0, dtype=torch.int64)
    trainer.evaluator.frames = replace(trainer.frames, held=nothing)
    table = trainer.evaluator.predict(test)
    assert len(table) == len(test)
    assert (table[["modulation_confidence", "snr_confidence"]] == 0).all(axis=None)
    assert np.isnan(trainer.evaluator.measure(test, "test")["test_joint_accuracy"]), (
        "nothing of nothing"
    )


@pytest.mark.parametrize("name", ["efficientnet_b0", "resnet10t"])
def test_normalising_whole_batches_keeps_the_network(make_config, name):
    network = Experiment.start(make_config(network=name), "test").network().eval()
    images = torch.rand(2, 1, 32, 32)
    before = network(images).snr
    converted = convert_sync_batchnorm(network).eval()
    assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in converted.modules())
    torch.testing.assert_close(converted(images).snr, before)

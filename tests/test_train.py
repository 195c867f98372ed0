"""Training from the command line, on one process and on two, and where samples are kept."""

from __future__ import annotations

import shlex
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from trainers import TINY_AND_STILL, make_trainer

from amc_utils.config import TrainingParameters
from amc_utils.data import load_frames, redraw_frames
from amc_utils.models import training_bytes
from amc_utils.runtime import storage
from amc_utils.runtime.checkpoints import read_checkpoint
from amc_utils.runtime.paths import REPOSITORY
from amc_utils.training import Experiment, train

SMOKE = ["--config", str(REPOSITORY / "profiles/smoke/02_resnet_ceiling.yaml")]


def test_command_line_takes_files_and_options():
    assert TrainingParameters.from_words([]) == TrainingParameters()
    words = "--run_name on --seed 3 --learning_rate 1e-4 --shuffle false --channels [stack]"
    words += " --channel '{preset: table_1}' --engine.accumulate 2"
    config = TrainingParameters.from_words([*SMOKE, *shlex.split(words)])
    assert (config.profile, config.channels, config.run_name) == ("smoke", ["stack"], "on")
    assert (config.seed, config.learning_rate, config.shuffle) == (3, 1e-4, False)
    assert (config.channel, config.engine.accumulate) == ({"preset": "table_1"}, 2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--learning_rat 1", "unknown option --learning_rat; did you mean --learning_rate?"),
        ("--engine.acumulate 2", "unknown option --engine.acumulate; did you mean"),
        ("--engine.sample_bits 8", "engine.sample_bits must be .*, got 8"),
        ("--learning_rate fast", "learning_rate must be a valid number.*, got 'fast'"),
        ("--learning_rate -1", "learning_rate must be greater than 0, got '-1'"),
        ("--channels stack", r"channels must be a list, like \[this], got stack"),
        ("notebooks/02_resnet_ceiling.ipynb", "unknown option notebooks/02"),
        ("--engine.accumulate 3 --batch_size 32", "batch_size must be a multiple of 3"),
    ],
)
def test_wrong_option_is_one_sentence(arguments, sentence, tmp_path):
    words = [*SMOKE, *shlex.split(arguments), "--output_root", str(tmp_path)]
    with pytest.raises(ValueError, match=sentence.replace("?", r"\?")) as caught:
        train(TrainingParameters.from_words(words))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("runs.jsonl"))


@pytest.mark.parametrize("place", ["host", "disk"])
def test_samples_off_the_device_give_the_same_run(make_config, tmp_path, place):
    options = TINY_AND_STILL | {"num_epochs": 2, "fresh_frames": True}
    tables = []
    for samples_in in ("device", place):
        config = make_config(**options, engine={"samples_in": samples_in})
        trainer = make_trainer(config, tmp_path / samples_in)
        assert trainer.frames.place == samples_in
        list(trainer.fit())
        tables.append(trainer.history_table)
    assert tables[0].equals(tables[1])


def test_samples_lie_on_a_gpu_only_where_a_network_fits_beside_them(make_config, monkeypatch, capsys):
    experiment = Experiment.start(make_config(), "test")
    gpu = SimpleNamespace(device=torch.device("cuda"), world_size=1, print=print)
    samples = 6 * 20 * 1024 * 8
    network = training_bytes(experiment.network(), experiment.config.batch_size)
    for free, place in ((samples + network, "device"), (samples + network - 1, "host")):
        monkeypatch.setattr(storage, "free_bytes", lambda device, free=free: free)
        assert experiment._place(gpu) == place
    assert "GB of cuda" in capsys.readouterr().out


def test_samples_go_where_there_is_room(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(storage, "free_host_bytes", lambda: 1000)
    assert storage.choose_place(600, cpu) == "device"
    assert storage.choose_place(601, cpu) == "disk"
    assert storage.choose_place(10**6, cpu, "host") == "host"
    monkeypatch.setattr(storage, "free_bytes", lambda device: 100)
    assert storage.choose_place(601, cpu) == "disk"
    assert storage.choose_place(600, cpu) == "host"
    assert storage.choose_place(60, cpu, beside=40) == "device"
    assert storage.choose_place(60, cpu, beside=41) == "host"
    with pytest.raises(OSError, match=r"must have room for .* set TMPDIR"):
        storage.allocate((10**9, 1024, 2), torch.float32, cpu, "disk")


def test_processes_of_a_host_and_limits_of_its_groups_share_the_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(storage.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
    monkeypatch.setattr(storage, "_limits", lambda: [(limit, used)])
    assert storage.free_host_bytes() == 1000
    used.write_text("100\n")
    limit.write_text("max\n")
    assert storage.free_host_bytes() == 1000
    limit.write_text("500\n")
    assert storage.free_host_bytes() == 400
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert storage.free_host_bytes() == 100


def test_fetching_ahead_keeps_the_order_and_passes_errors_on(make_config, monkeypatch):
    frames = load_frames(make_config(), samples_in="host")
    batches = torch.randperm(len(frames)).split(7)
    for batch, iq in zip(batches, frames.prefetch(batches), strict=True):
        assert torch.equal(iq, frames.iq(batch))
    with pytest.raises(IndexError):
        list(frames.prefetch([torch.tensor([len(frames)])]))


def test_sixteen_bits_round_below_the_noise(make_config):
    exact, rounded = (load_frames(make_config(), dtype=d) for d in (torch.float32, torch.float16))
    index = torch.arange(len(exact))
    error = (exact.iq(index) - rounded.iq(index)).abs().square().mean()
    assert 10 * torch.log10(error) < -65
    assert rounded.iq_pairs.nbytes * 2 == exact.iq_pairs.nbytes
    redraw_frames(rounded, index, 0)
    assert torch.equal(torch.view_as_real(rounded.iq(index)).half(), rounded.iq_pairs)


def test_half_precision_stays_inside_the_network(make_config, tmp_path):
    """Images and losses are those of full precision; the network's own numbers are not."""
    seen = {}
    for kind in ("32-true", "bf16-mixed"):
        trainer = make_trainer(make_config(**TINY_AND_STILL, precision=kind), tmp_path / kind)
        batch = trainer.split.train[:16]
        images = trainer.evaluator.draw(batch)
        logits = trainer.network(images)
        losses, _ = trainer.evaluator.loss_and_correct(logits, batch)
        seen[kind] = images, logits.snr.detach(), losses.detach()
    for position in (0, 2):
        assert {values[position].dtype for values in seen.values()} == {torch.float32}
    assert torch.equal(seen["32-true"][0], seen["bf16-mixed"][0])
    assert not torch.equal(seen["32-true"][1], seen["bf16-mixed"][1].float())


def test_a_batch_in_parts_learns_what_the_whole_learns(make_config, tmp_path):
    histories = []
    for parts in (1, 4):
        config = make_config(**TINY_AND_STILL, engine={"accumulate": parts, "fused": parts == 4})
        trainer = make_trainer(config, tmp_path / str(parts))
        list(trainer.fit())
        histories.append(trainer.history_table.to_numpy())
    np.testing.assert_allclose(*histories, rtol=1e-4, atol=1e-5)


def test_engine_settings_that_decide_numbers_stay_and_others_may_change(make_config, tmp_path):
    first = make_trainer(make_config(**TINY_AND_STILL, num_epochs=1), tmp_path)
    list(first.fit())
    harmless = {"checkpoint_minutes": 1.0, "samples_in": "host"}
    same = make_trainer(make_config(**TINY_AND_STILL, num_epochs=2, engine=harmless), tmp_path)
    assert same.resume_if_begun()
    other = make_trainer(
        make_config(**TINY_AND_STILL, num_epochs=2, engine={"accumulate": 2}), tmp_path
    )
    with pytest.raises(ValueError, match=r"engine.accumulate must stay 1 to continue .* got 2"):
        other.resume_if_begun()


def test_compiled_network_learns_the_same_and_is_saved_the_same(make_config, tmp_path, monkeypatch):
    """What is tried is the wrapping; the compiler itself, which needs one for C++, stays out."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain = make_trainer(make_config(**TINY_AND_STILL), tmp_path / "plain")
    list(plain.fit())
    config = make_config(**TINY_AND_STILL, engine={"compile": True})
    first = make_trainer(config, tmp_path / "compiled")
    next(first.fit())
    second = make_trainer(config, tmp_path / "compiled")
    assert second.resume_if_begun()
    list(second.fit())
    pd.testing.assert_frame_equal(plain.history_table, second.history_table)
    weights = [read_checkpoint(trainer.checkpoints.best)["network"] for trainer in (plain, second)]
    assert weights[0].keys() == weights[1].keys()

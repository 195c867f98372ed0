"""The dry run of `amc gpu-check` passes, and each of its checks can fail."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

from amc_utils import images
from amc_utils.__main__ import main
from amc_utils.runtime import devices
from amc_utils.studies import gpu_check
from amc_utils.training import Learner, Trainer

PLAIN = "images counts_8_bit"


@pytest.fixture
def carry_out(monkeypatch, tmp_path, capsys):
    """Runs some checks as the command's dry run does; gives their rows, which say what failed."""
    # The compiler takes a minute when its cache is empty; here stays what is wrapped around it.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))

    def run(*names):
        if names:
            chosen = {name: gpu_check.CHECKS[name] for name in names}
            monkeypatch.setattr(gpu_check, "CHECKS", chosen)
        file = tmp_path / "table.json"
        try:
            main(["gpu-check", "--device", "cpu", "--output", str(file)])
            status = 0
        except SystemExit as ended:
            status = ended.code
        # Only what has not failed stands under the name that was given.
        kept = json.loads(file.with_suffix(".part.json" * bool(status) or ".json").read_text("utf8"))
        rows = {row["check"]: row for row in kept["checks"]}
        assert list(rows) == list(gpu_check.CHECKS)
        assert status == any(row["verdict"] == "failed" for row in rows.values())
        printed = capsys.readouterr().out
        assert all(row["came"] in printed and row["required"] in printed for row in rows.values())
        return rows, kept, printed

    return run


def assert_fails_alone(carry_out, name, beside, came=""):
    """The check fails, for what is broken, and another one beside it does not."""
    rows, _, _ = carry_out(name, beside)
    assert [rows[name]["verdict"], rows[beside]["verdict"]] == ["failed", "passed"], rows
    assert came in rows[name]["came"]
    return rows[name]


def test_dry_run_passes_and_leaves_a_small_table(carry_out, tmp_path):
    rows, kept, printed = carry_out()
    assert {row["verdict"] for row in rows.values()} == {"passed", "left out"}, printed
    assert rows["compile test_resnet"]["verdict"] == "passed"
    assert kept["device"] == "cpu"
    assert {"commit", "device", "versions", "cuda", "cudnn"} <= kept["environment"].keys()
    assert "0 of 29 failed" in printed
    assert (tmp_path / "table.json").stat().st_size < 20_000


def test_device_without_a_gpu_is_refused_and_the_dry_run_named():
    with pytest.raises(SystemExit, match=r"^ValueError: device must be a GPU .* --device cpu` is"):
        main(["gpu-check"])


@pytest.mark.parametrize("channel", ["counts_8_bit", "polar"])
def test_image_shifted_by_a_pixel_on_the_second_call(channel, carry_out, monkeypatch):
    draw, calls = gpu_check.constellation_images, []

    def shifted(iq, channels, size):
        drawn = draw(iq, channels, size)
        calls.append(channels)
        return drawn.roll(1, -1) if calls.count([channel]) == 2 else drawn

    monkeypatch.setattr(gpu_check, "constellation_images", shifted)
    assert_fails_alone(carry_out, f"images {channel}", "images raw")


def test_one_count_more_in_one_frame_is_noticed(carry_out, monkeypatch):
    """Of images of samples every pixel counts."""
    draw, calls = gpu_check.constellation_images, []

    def changed(iq, channels, size):
        calls.append(channels)
        if calls.count(["raw"]) == 2:
            iq = iq.clone()
            iq[0, 0] = iq[0, 1]
        return draw(iq, channels, size)

    monkeypatch.setattr(gpu_check, "constellation_images", changed)
    assert_fails_alone(carry_out, "images raw", PLAIN)


@pytest.mark.parametrize("part", ["logits", "losses", "gradients"])
@pytest.mark.parametrize("name", ["test_resnet float32", "test_resnet bf16"])
def test_other_logits_losses_or_gradients(name, part, carry_out, monkeypatch):
    outputs, calls = gpu_check.outputs, []

    def changed(learner, network=None):
        calls.append(learner)
        found = outputs(learner, network)
        # The second one is that of the device.
        return found | ({part: found[part] * 1.5} if len(calls) == 2 else {})

    monkeypatch.setattr(gpu_check, "outputs", changed)
    row = assert_fails_alone(carry_out, name, "swin_tiny float32")
    assert f"difference of {part}" in row["required"]


def test_outputs_that_are_no_numbers(carry_out, monkeypatch):
    outputs = gpu_check.outputs

    def spoilt(learner, network=None):
        found = outputs(learner, network)
        is_fp16 = learner.config.precision == "16-mixed"
        return found | ({"losses": found["losses"] * float("nan")} if is_fp16 else {})

    monkeypatch.setattr(gpu_check, "outputs", spoilt)
    assert_fails_alone(carry_out, "test_resnet fp16", "test_resnet bf16", "nan")


@pytest.mark.parametrize("row", [0, 1, 2])
def test_power_off_by_a_tenth_in_one_class(row, carry_out, monkeypatch):
    powers = gpu_check.powers

    def changed(device, seed):
        found = powers(device, seed)
        found[row, 7] *= 1.1 if seed == 1 else 1.0
        return found

    monkeypatch.setattr(gpu_check, "powers", changed)
    assert_fails_alone(carry_out, "generated frames", PLAIN)


def test_optimiser_that_does_not_move(carry_out, monkeypatch):
    monkeypatch.setattr(Learner, "_update", lambda self: None)
    assert_fails_alone(carry_out, "loss falls", "test_resnet float32")


@pytest.mark.parametrize("part", ["optimizer", "weighting"])
def test_run_that_goes_on_without_a_part_of_its_state(part, carry_out, monkeypatch):
    restore = Learner.restore

    def forgetful(self, content):
        restore(self, {**content, part: self._parts()[part].state_dict()})

    monkeypatch.setattr(Learner, "restore", forgetful)
    row = assert_fails_alone(carry_out, "stop and resume", "scaler in a checkpoint")
    # What a GPU is allowed is too little for that as well.
    assert float(row["came"]) > 0.02


def test_run_that_does_not_stop(carry_out, monkeypatch):
    monkeypatch.setattr(Trainer, "_handle_periodic_events", lambda self, requests: None)
    assert_fails_alone(carry_out, "stop and resume", PLAIN, "it went on to its end")


def test_lost_state_of_the_scaler(carry_out, monkeypatch):
    parts = Learner._parts

    def without(self):
        return {name: part for name, part in parts(self).items() if name != "scaler"}

    monkeypatch.setattr(Learner, "_parts", without)
    assert_fails_alone(carry_out, "scaler in a checkpoint", "stop and resume", "65536, 0")


def test_sum_over_processes_that_is_wrong(carry_out, monkeypatch):
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda values: values.zero_())
    assert_fails_alone(carry_out, "process group", PLAIN)
    assert not torch.distributed.is_initialized()


def test_group_that_cannot_be_made_fails_alone_with_its_message(carry_out, monkeypatch):
    def refuse(*arguments, **options):
        raise RuntimeError("no network")

    monkeypatch.setattr(torch.distributed, "init_process_group", refuse)
    assert_fails_alone(carry_out, "process group", PLAIN, "RuntimeError: no network")


def test_compiled_network_that_computes_something_else(carry_out, monkeypatch):
    def wrong(network):
        torch.nn.init.zeros_(network.snr_head.weight)
        return network

    monkeypatch.setattr(torch, "compile", wrong)
    assert_fails_alone(carry_out, "compile test_resnet", PLAIN)


def test_compiling_is_left_out_without_a_compiler(carry_out, monkeypatch):
    monkeypatch.setattr(devices.shutil, "which", lambda name: None)
    rows, _, _ = carry_out("compile test_resnet", PLAIN)
    assert rows["compile test_resnet"]["verdict"] == "left out"
    assert "needs a C++ compiler" in rows["compile test_resnet"]["came"]


@pytest.mark.parametrize(
    ("said", "came"),
    [
        ("CUDA out of memory", "CUDA out of memory"),
        ("take engine: {accumulate: 1} or batch_size: 64", "OutOfMemoryError"),
    ],
)
def test_error_without_advice_or_with_bad_advice(said, came, carry_out, monkeypatch):
    monkeypatch.setattr("amc_utils.training._what_fits", lambda evaluator, learns: said)
    assert_fails_alone(carry_out, "out of memory", PLAIN, came)


def test_every_image_is_compared(carry_out):
    compared = {name.removeprefix("images ") for name in gpu_check.CHECKS if name.startswith("images ")}
    # Plugins of other tests may have registered more.
    assert compared == images._OWN_NAMES - {images.RAW_SAMPLES}

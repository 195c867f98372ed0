"""Does a GPU do what a CPU does? Both on the same inputs, before hours are spent."""

from __future__ import annotations

import gc
import json
import re
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.precision import MixedPrecision
from torch import Tensor, distributed, nn

from amc_utils.config import TrainingParameters
from amc_utils.data import Frames, stratified_split, synthesise_frames
from amc_utils.images import CHANNEL_GROUPS, IMAGE_CHANNELS, constellation_images
from amc_utils.models import count_activation_bytes, untrained_network
from amc_utils.runtime.devices import missing_for_compiling
from amc_utils.runtime.environment import environment
from amc_utils.runtime.paths import Workspace, atomic_write
from amc_utils.signals import RADIOML_2018_MODULATIONS
from amc_utils.training import Learner, Trainer

CPU = torch.device("cpu")
NETWORKS = {
    "test_resnet": {},
    "swin_tiny": {"window_size": 4, "embed_dim": 24, "drop_path_rate": 0.0},
}
# Precision of the run, whether products of float32 may be rounded to TF32's 10 bits, and the largest
# difference from a CPU in float32. On a CPU bf16 makes one of 0.11, fp16, whose mantissa is TF32's, one
# of 0.04, and inputs off by 1e-5 one of 0.004: some maxima then lie elsewhere.
PRECISIONS = {
    "float32": ("32-true", False, 0.02),
    "TF32": ("32-true", True, 0.15),
    "bf16": ("bf16-mixed", True, 0.3),
    "fp16": ("16-mixed", True, 0.15),
}
# Grey levels of neighbouring counts differ by more, logarithms of two devices by less.
_SAME_GREY = 1e-5
# Points of the other images went through a Fourier transform, whose last bits move 0.2 % of them to the
# next pixel at most; 0.5 % more for each of the 192 frames that has its greatest line elsewhere.
_OF_SAMPLES = ("counts_8_bit", "counts", "raw", "raw_wide", "raw_narrow")
_PIXELS_THAT_MAY_DIFFER = 0.02
# Standard errors: of some hundreds of normal means the furthest is 3 to 4 away.
_Z_LIMIT = 5.0


class LeftOut(Exception):
    """Says why a check cannot be made here."""


class Found(NamedTuple):
    """What a check required, what came, and whether that will do."""

    required: str
    came: str
    passed: bool


def at_most(limit: float, value: float, what: str) -> Found:
    """A number that must not exceed a limit, nor be NaN."""
    return Found(f"{what} at most {limit:g}", f"{value:.3g}", value <= limit)


@contextmanager
def backends(*, tf32: bool = False, deterministic: bool = False) -> Iterator[None]:
    """Round products of float32 to TF32 or not; let convolutions add in the same order every time."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic
    try:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic = tf32, tf32, deterministic
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic = before


def drawn(
    device: torch.device,
    snr_labels: Sequence[int],
    each: int,
    seed: int,
    modulations: Sequence[str] = RADIOML_2018_MODULATIONS,
) -> Frames:
    """Frames that a device draws, so many of each class and SNR label."""
    options = {"num_frames_per_cell": each, "seed": seed, "device": device}
    return synthesise_frames(modulations=modulations, snr_labels=snr_labels, **options)


def parts_for(device: torch.device, **changes: object) -> dict[str, Any]:
    """What Learner and Trainer are made of: parameters, network, frames that a CPU drew, and fabric."""
    values = {"modulations": ["BPSK", "QPSK", "8PSK"], "snr_range_db": [0, 20, 20], "image_size": 64}
    values |= {"num_frames_per_cell": 20, "network": "test_resnet", "dropout": 0.0}
    values |= {"learning_rate": 1e-3, "precision": "32-true"}
    engine = {"compile": False, "fused": True} | changes.pop("engine", {})
    config = TrainingParameters.checked(values | {"engine": engine} | changes)
    frames = drawn(CPU, config.snr_labels, config.num_frames_per_cell, 1, config.modulation_names)
    how = {"precision": config.precision}
    if device.type == "cpu" and config.precision == "16-mixed":
        # Fabric would take bf16, which has no scaler.
        how = {"plugins": [MixedPrecision("16-mixed", "cpu")]}
    fabric = Fabric(accelerator=device.type, devices=1, **how)
    network = untrained_network(config)
    return {"config": config, "network": network, "frames": frames.to(device), "fabric": fabric}


def learner_for(device: torch.device, **changes: object) -> Learner:
    """Learner in training mode, with the same weights on every device."""
    learner = Learner(**parts_for(device, **changes), num_steps=100)
    learner.network.train()
    return learner


def batch_for(learner: Learner, number: int = 0) -> tuple[Tensor, Tensor, int]:
    """Frames of a batch, their samples, and its number, as Learner.step takes them."""
    frames, size = learner.evaluator.frames, learner.config.batch_size
    batch = torch.randint(len(frames), (size,), generator=torch.Generator().manual_seed(number))
    return batch.to(frames.device), frames.iq(batch), number


def outputs(learner: Learner, network: nn.Module | None = None) -> dict[str, Tensor]:
    """Logits, losses and gradients on images that a CPU drew; float64, in host memory."""
    batch, iq, _ = batch_for(learner)
    inputs = learner.evaluator.images(iq.cpu()).to(batch.device)
    precision = learner.fabric.strategy.precision
    if scaler := getattr(precision, "scaler", None):
        # Its first scale may be too large, for which training leaves out some steps.
        scaler.load_state_dict(scaler.state_dict() | {"scale": 1024.0})
    logits = (network or learner.network)(inputs)
    losses, _ = learner.evaluator.loss_and_correct(logits, batch)
    learner.fabric.backward(learner.weighting(losses))
    precision.unscale_gradients(learner.optimizer.optimizer)
    gradients = [p.grad.flatten() for p in learner.network.parameters() if p.grad is not None]
    found = {"logits": torch.cat(logits, 1), "losses": losses, "gradients": torch.cat(gradients)}
    return {name: value.detach().double().cpu() for name, value in found.items()}


def difference(limit: float, found: dict[str, Tensor], expected: dict[str, Tensor]) -> Found:
    """Relative difference of gradients, and ten times the others', which are that much surer."""
    weight = {name: 1 if name == "gradients" else 10 for name in expected}
    apart = {k: weight[k] * float((found[k] - v).norm() / v.norm()) for k, v in expected.items()}
    name = max(apart, key=lambda name: (apart[name] != apart[name], apart[name]))
    return at_most(limit, apart[name], f"difference of {name}, times {weight[name]},")


def images(channel: str, device: torch.device) -> Found:
    """Images of the same frames: pixels of another grey among those that are not empty."""
    frames = drawn(CPU, (-10, 0, 10, 20), 2, 1)
    iq = frames.iq(torch.arange(len(frames)))
    here = constellation_images(iq, [channel], 64)
    there = constellation_images(iq.to(device), [channel], 64).cpu()
    differing = ((here - there).abs() > _SAME_GREY).sum() / ((here > 0) | (there > 0)).sum()
    limit = 0 if channel in _OF_SAMPLES else _PIXELS_THAT_MAY_DIFFER
    return at_most(limit, float(differing), "share of other pixels")


def learning(network: str, precision: str, device: torch.device) -> Found:
    """Logits, losses and gradients against a CPU's in float32, from the same weights and images."""
    name, tf32, limit = PRECISIONS[precision]
    options = {"network": network, "network_options": NETWORKS[network], "channels": ["stack"]}
    # A fused optimiser would unscale gradients in its step, which is not made here.
    options["engine"] = {"fused": False}
    expected = outputs(learner_for(CPU, **options))
    with backends(tf32=tf32):
        return difference(limit, outputs(learner_for(device, **options, precision=name)), expected)


def powers(device: torch.device, seed: int) -> Tensor:
    """Power of frames, and of signal and noise in them, float64 [3, classes and labels, frames]."""
    # With the same seed the same signals and noise, which the label 200 leaves nothing of.
    both = [drawn(device, labels, 128, seed) for labels in ((-6, 6), (200, 200))]
    noisy, clean = (frames.iq(torch.arange(len(frames), device=device)) for frames in both)
    signal = clean * ((clean.conj() * noisy).sum(1) / clean.abs().square().sum(1))[:, None]
    found = [x.abs().square().double().mean(1) for x in (noisy, signal, noisy - signal)]
    return torch.stack(found).view(3, -1, 128).cpu()


def statistics(device: torch.device) -> Found:
    """Mean powers of each class and SNR label against those of a CPU's frames of another seed."""
    mine, other = powers(device, 1), powers(CPU, 2)
    error = ((mine.var(2) + other.var(2)) / mine.shape[2]).sqrt()
    worst = float(((mine.mean(2) - other.mean(2)) / error).abs().max())
    return at_most(_Z_LIMIT, worst, "standard errors of the power of signal or noise")


def training(device: torch.device) -> Found:
    """Losses of the last ten of fifty steps over those of the first ten."""
    learner = learner_for(device, image_size=32, precision="bf16-mixed")
    sums = torch.stack([learner.step(*batch_for(learner, number)) for number in range(50)])
    losses = sums[:, :2].sum(1).cpu()
    return at_most(0.8, float(losses[-10:].sum() / losses[:10].sum()), "last losses over first")


def trained(folder: Path, device: torch.device, *, stop: bool) -> tuple[Tensor, Tensor]:
    """Weights before and after a short run, stopped in between if wanted.

    Raises:
        RuntimeError: it does not stop.
    """

    def new() -> Trainer:
        options = {"schedule": "one_cycle", "fresh_frames": True, "image_size": 32}
        parts = parts_for(device, batch_size=4, num_epochs=2, **options)
        split = stratified_split(parts["frames"], seed=parts["config"].seed)
        return Trainer(**parts, split=split, folder=folder)

    def weights() -> Tensor:
        return torch.cat([p.detach().flatten().cpu() for p in trainer.network.parameters()])

    def interrupted(batch: Tensor, iq: Tensor, number: int) -> Tensor:
        if number == 10:
            signal.raise_signal(signal.SIGINT)
        return step(batch, iq, number)

    trainer = new()
    before, step = weights(), trainer.learner.step
    if stop:
        trainer.learner.step = interrupted
        # Stopped, or the signal itself when the run is over, which it must not be.
        with suppress(KeyboardInterrupt):
            list(trainer.fit())
        if len(trainer.history) == 2:
            raise RuntimeError("a run that is asked to stop must do so, it went on to its end")
        trainer = new()
        trainer.resume(trainer.checkpoints.last)
    list(trainer.fit())
    trainer.checkpoints.abandon()
    return before, weights()


def resuming(device: torch.device) -> Found:
    """Weights of a run that was stopped and went on, against one that ran straight on."""
    with tempfile.TemporaryDirectory() as folder, backends(deterministic=True):
        before, straight = trained(Path(folder, "straight"), device, stop=False)
        _, resumed = trained(Path(folder, "stopped"), device, stop=True)
    apart = float((resumed - straight).norm() / (straight - before).norm())
    # Some kernels of a GPU add in any order. Noise in the last bits at each step leads 0.001 apart,
    # lost task weights 0.04, a lost optimiser 0.7.
    return at_most(0 if device.type == "cpu" else 0.02, apart, "distance of weights over their way")


def scaling(device: torch.device) -> Found:
    """State of the scaler of losses in 16 bits, before and after a checkpoint."""
    first, second = (learner_for(device, precision="16-mixed", image_size=32) for _ in range(2))
    for number in range(3):
        first.step(*batch_for(first, number))
    with tempfile.TemporaryDirectory() as folder:
        first.fabric.save(Path(folder, "state.ckpt"), first.state())
        second.restore(torch.load(Path(folder, "state.ckpt"), weights_only=True, map_location="cpu"))
    saved, restored = (x.fabric.strategy.precision.scaler.state_dict() for x in (first, second))
    names = ("scale", "_growth_tracker")
    saved, restored = (", ".join(f"{state[name]:g}" for name in names) for state in (saved, restored))
    return Found(f"scale and steps {saved}", restored, saved == restored)


def process_group(device: torch.device) -> Found:
    """Gradients of a process that is alone in its group, against those without group."""
    backend, ids = {"cuda": ("nccl", [0]), "cpu": ("gloo", None)}[device.type]
    alone = learner_for(device)
    with backends(), tempfile.TemporaryDirectory() as folder:
        expected = outputs(learner_for(device)) | {"sum": torch.ones(1)}
        store = f"file://{folder}/store"
        distributed.init_process_group(backend, init_method=store, rank=0, world_size=1)
        try:
            distributed.all_reduce(one := torch.ones(1, device=device))
            network = nn.parallel.DistributedDataParallel(alone.network.module, device_ids=ids)
            found = outputs(alone, network) | {"sum": one.cpu()}
        finally:
            distributed.destroy_process_group()
    return difference(0.02, found, expected)


def compiling(network: str, precision: str, device: torch.device) -> Found:
    """Logits, gradients, losses of two steps and of batches of two sizes, compiled against eager."""
    if missing := missing_for_compiling():
        raise LeftOut(f"torch.compile needs {missing}, which is not there")
    if device.type == "cpu" and network != "test_resnet":
        raise LeftOut("compiling it for a CPU takes minutes")
    name, tf32, limit = PRECISIONS[precision]
    options = {"network": network, "network_options": NETWORKS[network], "precision": name}
    both = []
    with backends(tf32=tf32):
        for compiled in (False, True):
            # More than fit into one batch of evaluation.
            learner = learner_for(
                device, **options, num_frames_per_cell=50, engine={"compile": compiled}
            )
            found = outputs(learner)
            steps = [learner.step(*batch_for(learner))[:2].cpu() for _ in range(2)]
            everything = torch.arange(len(learner.evaluator.frames), device=device)
            assessed = learner.evaluator.measure(everything, "all")
            found |= {"steps": torch.cat(steps), "assessed": torch.tensor(list(assessed.values())[:3])}
            both.append(found)
    # In float32 on a CPU they are 0.007 apart: compiled code sums the variances of a batch in float32.
    return difference(max(limit, 0.05), both[1], both[0])


@contextmanager
def scarce_memory(learner: Learner) -> Iterator[None]:
    """Leave a GPU room for a third of the batch; on a CPU let networks refuse more than half of it."""
    size, device = learner.config.batch_size, learner.fabric.device

    def refuse(_: nn.Module, inputs: tuple[Tensor]) -> None:
        if len(inputs[0]) > size // 2:
            raise torch.OutOfMemoryError("as a GPU would say it")

    if device.type == "cpu":
        with nn.modules.module.register_module_forward_pre_hook(refuse):
            yield
        return
    each = count_activation_bytes(untrained_network(learner.config))
    torch.cuda.empty_cache()
    room = torch.cuda.memory_allocated() + each * size // 3
    total = torch.cuda.get_device_properties(device).total_memory
    try:
        torch.cuda.set_per_process_memory_fraction(room / total)
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def memory(device: torch.device) -> Found:
    """A batch that is too large: the error names settings, which are tried."""
    required, size = "an error that names what fits", 4096 if device.type == "cuda" else 64
    learner = learner_for(device, batch_size=size)
    with scarce_memory(learner):
        said = f"no error for {size} frames"
        try:
            learner.step(*batch_for(learner))
        except torch.OutOfMemoryError as error:
            said = str(error)
        advised = re.search(r"accumulate: (\d+)\} or batch_size: (\d+)", said)
        if not advised:
            return Found(required, said, False)
        parts, smaller = map(int, advised.groups())
        for changes in ({"batch_size": size, "engine": {"accumulate": parts}}, {"batch_size": smaller}):
            gc.collect()
            learner = learner_for(device, **changes)
            learner.step(*batch_for(learner))
    return Found(required, f"of {size} frames {parts} parts fit, and {smaller} frames", True)


CHECKS: dict[str, Callable[[torch.device], Found]] = {
    **{f"images {name}": partial(images, name) for name in (*IMAGE_CHANNELS, *CHANNEL_GROUPS)},
    **{f"{net} {how}": partial(learning, net, how) for net in NETWORKS for how in PRECISIONS},
    "generated frames": statistics,
    "loss falls": training,
    "stop and resume": resuming,
    "scaler in a checkpoint": scaling,
    "process group": process_group,
    "compile test_resnet": partial(compiling, "test_resnet", "float32"),
    "compile swin_tiny": partial(compiling, "swin_tiny", "bf16"),
    "out of memory": memory,
}


def carry_out(name: str, device: torch.device) -> dict[str, str | float]:
    """Row of the table for one check; the trace of an error goes to stderr."""
    started = time.perf_counter()
    try:
        required, came, passed = CHECKS[name](device)
        verdict = "passed" if passed else "failed"
    except LeftOut as reason:
        required, came, verdict = "", str(reason), "left out"
    # Whatever goes wrong is what the check found, and the others are still to be made.
    except Exception as error:
        traceback.print_exc()
        required, came, verdict = "no error", f"{type(error).__name__}: {error}", "failed"
    seconds = round(time.perf_counter() - started, 2)
    row = {"check": name, "verdict": verdict, "seconds": seconds, "came": came, "required": required}
    print("{verdict:9}{seconds:6.1f} s  {check:23}  {came}".format(**row), end="")
    print(f"; {required}" if required else "", flush=True)
    return row


def gpu_check(device: Literal["cuda", "cpu"] = "cuda", output: str = "") -> int:
    """Compare a GPU with the CPU on the same inputs, before hours are spent on it.

    Prints a table, keeps it with versions and devices in a small file, and ends with status 1 if
    anything failed, with that file's name ending in .part.json. `amc gpu-check --device cpu` is the
    dry run: the CPU against itself.

    Args:
        device: cuda, or cpu for the dry run.
        output: JSON file for the table; empty for outputs/gpu_check_cuda.json, or _cpu.

    Raises:
        ValueError: there is no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device must be a GPU that torch can use, and there is none; `amc gpu-check --device cpu` "
            "is the dry run"
        )
    path = Path(output) if output else Workspace.at("").outputs / f"gpu_check_{device}.json"
    begun = path.with_suffix(".part.json")
    facts = environment() | {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    rows = []
    print("verdict    time    check                    what came; what was required")
    for name in CHECKS:
        rows.append(carry_out(name, torch.device(device)))
        # After each one, for the day when one takes the process with it.
        kept = {"device": device, "environment": facts, "checks": rows}
        with atomic_write(begun) as temporary:
            temporary.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf8")
    failed = sum(row["verdict"] == "failed" for row in rows)
    path = begun if failed else begun.replace(path)
    print(f"{failed} of {len(rows)} failed in {sum(row['seconds'] for row in rows):.0f} s; see {path}")
    return int(failed > 0)

"""What the input costs while a network trains, what a resume costs, and how processes add up."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import torch
import yaml
from timing import Task, take_turns

from amc_utils.config import TrainingParameters
from amc_utils.data import stratified_split
from amc_utils.models import count_flops, untrained_network
from amc_utils.results import load_run
from amc_utils.runtime.checkpoints import read_checkpoint
from amc_utils.training import Experiment, Trainer

# Forward, backward to the inputs and backward to the weights take about the same number of operations.
PASSES = 3


def parameters(folder: str, **changes: object) -> TrainingParameters:
    """Swin-Tiny as in the notebook, on all classes."""
    small = {"modulations": ["digital"], "snr_range_db": [-20, 30, 2], "num_frames_per_cell": 10}
    return TrainingParameters.checked(
        {"network": "swin_tiny"} | small | {"output_root": folder} | changes
    )


def measure() -> Iterator[pd.DataFrame]:
    """Swin-Tiny on plain picture and stack; at 224 px on a GPU, at 64 px on a CPU."""
    if torch.cuda.is_available():
        scale = {"image_size": 224, "batch_size": 256, "precision": "bf16-mixed", "network_options": {}}
        scale["engine"] = {"compile": True, "fused": True}
    else:
        scale = {"image_size": 64, "batch_size": 32, "network_options": {"window_size": 8}}
    num_steps = 20 if torch.cuda.is_available() else 2
    with tempfile.TemporaryDirectory() as folder:
        for channel in ("raw", "stack"):
            config = parameters(folder, channels=[channel], **scale)
            label = f"training, {config.network}, {channel}, {config.image_size} px"
            yield input_overhead(config, label, num_steps, repeats=5)
        yield resume_cost(folder)
        # Two processes need two cores, or two GPUs.
        if not torch.cuda.is_available() or torch.cuda.device_count() > 1:
            yield processes(folder)


def make_trainer(config: TrainingParameters, name: str) -> Trainer:
    """Trainer on synthetic frames, with its checkpoints in the parameters' folder."""
    experiment = Experiment.start(config, "benchmark")
    fabric = experiment.fabric()
    frames = experiment.frames(fabric)
    split = stratified_split(frames, seed=config.seed)
    folder = Path(config.output_root) / name
    return Trainer(experiment.config, experiment.network(), frames, split, fabric=fabric, folder=folder)


def operations(config: TrainingParameters) -> float:
    """Floating-point operations that a training step takes of one image."""
    return PASSES * count_flops(untrained_network(config))


def product(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], None], float]:
    """A product of square matrices, as fast as a device computes, and its operations."""
    size = 8192 if device.type == "cuda" else 1024
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    return lambda: (matrix @ matrix, None)[1], 2 * size**3


def input_overhead(config: TrainingParameters, name: str, num_steps: int, repeats: int) -> pd.DataFrame:
    """Training steps on frames, against the same steps on one batch of pictures.

    And beside a step whose operations all are as fast as in a large product of matrices, which is one
    over the utilisation of the device times as fast as the network.
    """
    trainer = make_trainer(config, "overhead")
    learner, evaluator = trainer.learner, trainer.evaluator
    batches = trainer.plan.batches(0)[:num_steps]
    trainer.network.train()
    draw = evaluator.images
    constant = evaluator.draw(batches[0])
    one = trainer.frames.iq(batches[0])

    def full() -> None:
        evaluator.images = draw
        for number, (batch, iq) in enumerate(
            zip(batches, trainer.frames.prefetch(batches), strict=True)
        ):
            learner.step(batch.to(trainer.fabric.device), iq, number)

    def network_alone() -> None:
        evaluator.images = lambda iq: constant
        for number, batch in enumerate(batches):
            learner.step(batch.to(trainer.fabric.device), one, number)

    amount = sum(len(batch) for batch in batches)
    half = trainer.config.precision == "bf16-mixed"
    multiply, done = product(trainer.fabric.device, torch.bfloat16 if half else torch.float32)
    tasks = {
        "network on one batch": Task(network_alone, amount),
        "network on frames": Task(full, amount),
        "product of matrices, as many operations": Task(multiply, done / operations(config)),
    }
    return take_turns(name, tasks, unit="images/s", against="network on one batch", repeats=repeats)


def resume_cost(folder: str) -> pd.DataFrame:
    """Going on from a checkpoint, against reading its file."""
    config = parameters(folder, num_epochs=1, image_size=32, num_frames_per_cell=2)
    trainer = make_trainer(config, "resume")
    # One step, so that the optimiser has the moments that it has in any real run.
    batch = trainer.plan.batches(0)[0]
    trainer.learner.step(batch.to(trainer.fabric.device), trainer.frames.iq(batch), 0)
    trainer.save(trainer.checkpoints.last)
    last = trainer.checkpoints.last
    tasks = {
        "torch.load": Task(partial(torch.load, last, weights_only=True, map_location="cpu"), 1),
        "read and check": Task(partial(read_checkpoint, last), 1),
        "resume": Task(trainer.resume_if_begun, 1),
    }
    # What a run returns is no duration.
    tasks = {name: Task(lambda run=task.run: (run(), None)[1], 1) for name, task in tasks.items()}
    size = last.stat().st_size / 1e6
    return take_turns(
        f"resume, {config.network}, {size:.0f} MB", tasks, unit="1/s", against="torch.load"
    )


def processes(folder: str) -> pd.DataFrame:
    """Epochs of a small network in one process and in two, a thread or a GPU each."""
    count = 2
    tasks = {}
    for number in (1, count):
        config = parameters(
            folder,
            network="resnet18",
            network_options={},
            image_size=64,
            num_epochs=1,
            num_frames_per_cell=3,
            batch_size=64,
        )
        tasks[f"{number} processes"] = Task(partial(epoch_seconds, config, number), 1000)
    return take_turns(
        "processes, resnet18, 64 px", tasks, unit="images/s", against="1 processes", repeats=3
    )


def epoch_seconds(config: TrainingParameters, num_processes: int) -> float:
    """Seconds of an epoch, scaled to 1,000 training frames, in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        values = config.model_dump() | {"output_root": folder, "run_name": "timed"}
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
        file = Path(folder) / "config.yaml"
        file.write_text(yaml.safe_dump(values), encoding="utf8")
        words = [*launch, "-m", "amc_utils", "train", "--config", str(file)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        # What it prints matters only if it fails.
        command = [sys.executable, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[:5])} ... failed:\n{done.stderr}")
        facts = load_run("timed", folder).facts
        return sum(facts["epoch_seconds"]) * 1000 / facts["data"]["counts"]["train"]

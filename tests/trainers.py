"""What several tests train with: a tiny network, here or in processes that may be killed."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import torch
import yaml

from amc_utils.config import TrainingParameters
from amc_utils.data import stratified_split
from amc_utils.results import load_run
from amc_utils.runtime.checkpoints import read_checkpoint
from amc_utils.runtime.devices import best_fabric
from amc_utils.training import Experiment, Trainer, train

# A transformer of 30,000 weights: its steps are short, its checkpoints small.
TINY = {"network": "swin_tiny", "network_options": {"window_size": 2, "embed_dim": 12}}
# Nothing in it is random and nothing is normalised over a batch, so a batch may be cut in parts.
TINY_AND_STILL = {
    "network": "swin_tiny",
    "network_options": TINY["network_options"] | {"drop_path_rate": 0.0},
    "dropout": 0.0,
}
# Children are forked from a server that has imported everything, so a start takes no seconds.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["amc_utils.training"])


def make_trainer(config: TrainingParameters, folder: Path) -> Trainer:
    """Trainer of an untrained network, with its checkpoints in `folder`."""
    experiment = Experiment.start(config, "test")
    fabric = best_fabric(config.precision)
    frames = experiment.frames(fabric)
    split = stratified_split(frames, seed=config.seed)
    return Trainer(config, experiment.network(), frames, split, fabric=fabric, folder=folder)


def config_file(values: dict, folder: Path) -> str:
    """Path of a YAML file of parameters in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf8")
    return str(path)


def start(values: dict, variables: dict[str, str] | None = None) -> multiprocessing.Process:
    """Start a child process that trains one run, with more environment variables if given."""
    process = SERVER.Process(target=run_alone, args=(values, variables or {}))
    process.start()
    return process


def run_alone(values: dict, variables: dict[str, str]) -> None:
    """Body of that process."""
    os.environ.update(variables)
    torch.set_num_threads(1)
    train(TrainingParameters.checked(values), "test")


def assert_same_run(root_a: Path, root_b: Path, name: str) -> None:
    """History, predictions and kept weights are equal bit for bit."""
    a, b = (load_run(name, str(root)) for root in (root_a, root_b))
    assert a.history.equals(b.history)
    assert a.predictions.equals(b.predictions)
    weights = [
        read_checkpoint(root / "outputs/checkpoints" / name / "best.ckpt")["network"]
        for root in (root_a, root_b)
    ]
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), key

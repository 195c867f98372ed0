"""What several tests build trainers with."""

from __future__ import annotations

from pathlib import Path

from amc_utils.config import TrainingParameters
from amc_utils.experiment import Experiment, best_fabric
from amc_utils.frames import stratified_split
from amc_utils.training import Trainer


def make_trainer(config: TrainingParameters, folder: Path) -> Trainer:
    """Trainer of an untrained network, with its checkpoints in `folder`."""
    experiment = Experiment.start(config, "test")
    fabric = best_fabric(config)
    frames = experiment.frames(fabric)
    split = stratified_split(frames, seed=config.seed)
    return Trainer(config, experiment.network(), frames, split, fabric=fabric, folder=folder)

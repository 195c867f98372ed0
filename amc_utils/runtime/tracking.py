"""Numbers of each epoch for TensorBoard or Weights & Biases, beside the history of the run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric
from lightning.fabric.loggers import Logger, TensorBoardLogger

_PROJECT = "amc"
# Panels of the trackers: what stands before the slash.
_PANEL = re.compile(r"^(train_eval|train|validation|weight|variance)_")


def track(fabric: Fabric, kind: str, folder: Path, parameters: Mapping[str, Any]) -> None:
    """Let the run's epochs be sent to a tracker as well; once, however often a run is set up.

    Args:
        fabric: of the run.
        kind: "none", "tensorboard", or "wandb", which writes files for `wandb sync` and needs no
            connection.
        folder: outputs/tracking/<run>.
        parameters: of the run, for the tracker's table.

    Raises:
        ValueError: wandb is not installed.
    """
    if kind == "none" or fabric.loggers or not fabric.is_global_zero:
        return
    if kind == "tensorboard":
        logger: Logger = TensorBoardLogger(folder.parent, folder.name, version="")
    else:
        logger = _offline_wandb(folder)
    logger.log_hyperparams(dict(parameters))
    fabric.loggers.append(logger)


def report(fabric: Fabric, row: Mapping[str, float]) -> None:
    """Send a row of the history to the trackers, if there are any."""
    named = {_PANEL.sub(r"\1/", name): value for name, value in row.items() if name != "epoch"}
    fabric.log_dict(named, step=int(row["epoch"]))
    for logger in fabric.loggers:
        logger.save()


def finish(fabric: Fabric) -> None:
    """Close the trackers' files."""
    for logger in fabric.loggers:
        logger.finalize("success")


def _offline_wandb(folder: Path) -> Logger:
    from lightning.pytorch.loggers import WandbLogger  # slow to import, and seldom asked for

    folder.mkdir(parents=True, exist_ok=True)
    try:
        return WandbLogger(
            project=_PROJECT, name=folder.name, id=folder.name, save_dir=folder, offline=True
        )
    except ModuleNotFoundError:
        raise ValueError("engine.tracker 'wandb' needs the package: pip install wandb") from None

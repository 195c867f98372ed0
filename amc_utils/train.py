"""A training run without Jupyter: a notebook's parameters, papermill's options, any number of devices.

    amc train notebooks/03_swin_training.ipynb -f profiles/paper/03_swin_training.yaml
    torchrun --nproc-per-node=8 -m amc_utils train notebooks/03_swin_training.ipynb -p run_name eight

Trains and writes the run folder as the notebook does, without its figures. On SIGTERM or Ctrl-C it
saves and exits with status 75 (torchrun turns that into 1); the same command, with the same run_name,
goes on from there.
"""

from __future__ import annotations

import argparse
import ast
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from amc_utils.config import TrainingParameters
from amc_utils.experiment import Experiment, best_fabric
from amc_utils.frames import stratified_split
from amc_utils.records import Run
from amc_utils.runtime.interruption import EXIT_RESUMABLE, Stopped, stop_at_once
from amc_utils.runtime.yaml_text import read_yaml
from amc_utils.studies.runlog import update_runlog


def notebook_defaults(path: Path) -> dict[str, Any]:
    """Names and values of a notebook's cell tagged `parameters`.

    Raises:
        FileNotFoundError: no such notebook.
        ValueError: it has no such cell.
    """
    if not path.is_file():
        raise FileNotFoundError(f"notebook not found: {path}; the parameters' defaults stand there")
    try:
        cells = json.loads(path.read_text(encoding="utf8"))["cells"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} must be a notebook, 02 or 03 of this project, it is none") from None
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", ())]
    if not tagged:
        raise ValueError(f"{path} must have a cell tagged parameters, it has none")
    nodes = ast.parse("".join(tagged[0]["source"])).body
    return {node.target.id: ast.literal_eval(node.value) for node in nodes}


def from_command_line(arguments: Sequence[str] | None = None) -> tuple[TrainingParameters, str]:
    """Parameters that a command line asks for, and the name of the notebook with their defaults."""
    parser = argparse.ArgumentParser(
        prog="amc train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "notebook", type=Path, help="02 or 03, whose parameters cell holds the defaults"
    )
    for flag, kind in {"-f": "FILE", "-y": "TEXT"}.items():
        parser.add_argument(
            flag, metavar=kind, action="append", default=[], help=f"YAML {kind.lower()}"
        )
    parser.add_argument("-p", metavar=("NAME", "VALUE"), nargs=2, action="append", default=[])
    given = parser.parse_args(arguments)
    values = notebook_defaults(given.notebook)
    for file in given.f:
        values |= read_yaml(_profile(file), f"profile {file}")
    for text in given.y:
        values |= read_yaml(text, "option -y")
    values |= {name: _value(text) for name, text in given.p}
    return TrainingParameters.checked(values), given.notebook.stem


def _profile(file: str) -> str:
    if not Path(file).is_file():
        raise FileNotFoundError(f"profile not found: {file}; those of this project lie in profiles/")
    try:
        return Path(file).read_text(encoding="utf8")
    except UnicodeDecodeError:
        raise ValueError(f"profile {file} must be text in UTF-8, it is not") from None


def _value(text: str) -> bool | int | float | str:
    """Value of an option -p by papermill's rule: a truth value or number if written as one."""
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def train(config: TrainingParameters, notebook: str) -> Run | None:
    """Train, test and record a run on all devices; the first process returns it.

    Raises:
        Stopped: by a signal; a checkpoint is written.
        ValueError: the wanted name belongs to a finished run, or to one that goes on elsewhere.
    """
    fabric = best_fabric(config)
    # Without a wanted name, processes would choose a name each.
    experiment = fabric.broadcast(Experiment.start(config, notebook))
    frames = experiment.frames(fabric)
    split = stratified_split(frames, seed=config.seed)
    if fabric.is_global_zero:
        processes = f"{fabric.world_size} processes" if fabric.world_size > 1 else "1 process"
        print(f"run {experiment.name} on {fabric.device}, {processes}; {frames.description}")
        print(frames.whereabouts, flush=True)
    trainer = experiment.trainer(experiment.network(), frames, split, fabric)
    for _ in trainer.fit():
        if fabric.is_global_zero:
            print(trainer.describe_epoch(), flush=True)
    run = experiment.finish(trainer)
    if run:
        update_runlog(experiment.workspace)
    if fabric.world_size > 1:
        # All wait here for the last one, and none leaves threads of the exchange behind.
        fabric.barrier()
        torch.distributed.destroy_process_group()
    return run


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    signal.signal(signal.SIGTERM, stop_at_once)
    try:
        run = train(*from_command_line(arguments))
    except Stopped as stopped:
        print(stopped, file=sys.stderr, flush=True)
        sys.exit(EXIT_RESUMABLE)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    if run:
        print(run.folder)

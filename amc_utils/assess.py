"""Runs that train nothing: the bound, the likelihood receiver, and a trained network on other frames.

    python -m amc_utils.assess bound --run-name genie-bound --num-frames-per-cell 200
    python -m amc_utils.assess receiver --run-name likelihood-receiver --num-frames-per-cell 50
    python -m amc_utils.assess network --run-name elsewhere --checkpoint best.ckpt --data-path FILE

Each writes a run folder like a training run, without history and split.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from amc_utils.bounds import genie_frames, log_likelihoods
from amc_utils.channel import Channel
from amc_utils.config import TrainingParameters
from amc_utils.data import read_radioml
from amc_utils.evaluation import Evaluator, prediction_table
from amc_utils.experiment import best_fabric, untrained_network
from amc_utils.frames import Frames, synthesise_frames
from amc_utils.labels import expand_modulations, snr_grid
from amc_utils.losses import TaskWeighting
from amc_utils.metrics import metrics_table
from amc_utils.models import count_flops, count_parameters
from amc_utils.paths import Workspace
from amc_utils.receiver import receiver_log_likelihoods
from amc_utils.recording import environment, write_run
from amc_utils.records import Run, claim_run_name
from amc_utils.runlog import update_runlog

_FRAMES_AT_ONCE = 1024
_TASKS = ("joint_accuracy", "modulation_accuracy", "snr_accuracy", "snr_mae_db")


def assess_bound(options: argparse.Namespace, device: torch.device) -> tuple[pd.DataFrame, dict]:
    """Decisions of the genie-aided receiver, and what was tested."""
    names, grid = expand_modulations(options.modulations), snr_grid(options.snr_range_db)
    cell = torch.arange(len(names) * len(grid), device=device)
    cell = cell.repeat_interleave(options.num_frames_per_cell)
    modulation, level = cell // len(grid), cell % len(grid)
    generator = torch.Generator(device).manual_seed(options.seed)
    levels_db, found = torch.tensor(grid, device=device), []
    for part in _progress(torch.arange(len(cell), device=device).split(_FRAMES_AT_ONCE)):
        output = genie_frames(
            modulation[part],
            levels_db[level[part]],
            modulations=names,
            generator=generator,
            channel=options.channel,
        )
        found.append(_decide(log_likelihoods(output, modulations=names, snr_grid_db=grid)))
    source = {"label": "synthetic", "generator": vars(options.channel), "seed": options.seed}
    # A frame set without samples: the bound makes its own, cyclic ones.
    tested = Frames(cell[:, None, None], modulation, level, names, grid, source)
    return _table(tested, found), {"kind": "bound", "network": {"name": "genie-aided bound"}} | _data(
        tested
    )


def assess_receiver(options: argparse.Namespace, device: torch.device) -> tuple[pd.DataFrame, dict]:
    """Decisions of the likelihood receiver that synchronises by itself, and what was tested."""
    names, grid = expand_modulations(options.modulations), snr_grid(options.snr_range_db)
    frames = _frames(options, names, grid, device)

    def decide(part: Tensor) -> tuple[Tensor, ...]:
        likelihoods = receiver_log_likelihoods(
            frames.iq(part), modulations=names, snr_grid_db=grid, channel=options.channel
        )
        return _decide(likelihoods)

    found = _over(frames, decide)
    facts = {"kind": "receiver", "network": {"name": "likelihood receiver"}}
    return _table(frames, found), facts | _data(frames)


def assess_network(options: argparse.Namespace, device: torch.device) -> tuple[pd.DataFrame, dict]:
    """Decisions of the network of a checkpoint, and what was tested.

    Raises:
        FileNotFoundError: no checkpoint.
        ValueError: a file that is no checkpoint of this project.
    """
    path = Path(options.checkpoint)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint not found: {path}; training leaves best.ckpt in outputs/")
    stored = torch.load(path, weights_only=True, map_location=device)
    if not {"history", "config", "network"} <= stored.keys():
        raise ValueError(f"{path} must be a checkpoint that this project wrote, it is another file")
    config = TrainingParameters.checked(stored["config"] | {"resume_from": "", "data_path": ""})
    network = untrained_network(config)
    network.load_state_dict(stored["network"])
    network = best_fabric(config).setup_module(network.to(memory_format=torch.channels_last))
    frames = _frames(options, config.modulation_names, config.snr_grid_db, device)
    evaluator = Evaluator(network, TaskWeighting(config.task_weighting).to(device), frames, config)
    parts = torch.arange(len(frames), device=device).split(_FRAMES_AT_ONCE)
    predictions = pd.concat([evaluator.predict(part) for part in _progress(parts)])
    described = {
        "name": config.network,
        "options": config.network_options,
        "parameters": count_parameters(network),
        "flops_per_frame": count_flops(network),
    }
    parent = {"parent": path.parent.name, "epochs": len(stored["history"])}
    return predictions.reset_index(drop=True), {"kind": "transfer", "network": described} | _data(
        frames
    ) | parent | {"trained": stored["config"]}


def _frames(
    options: argparse.Namespace, names: tuple[str, ...], grid: tuple[int, ...], device: torch.device
) -> Frames:
    selection = {
        "modulations": names,
        "snr_grid_db": grid,
        "num_frames_per_cell": options.num_frames_per_cell,
        "seed": options.seed,
        "device": device,
    }
    if options.data_path:
        return read_radioml(path=Path(options.data_path), **selection)
    return synthesise_frames(channel=options.channel, **selection)


def _over(frames: Frames, decide: Callable[[Tensor], tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
    parts = torch.arange(len(frames), device=frames.device).split(_FRAMES_AT_ONCE)
    return [decide(part) for part in _progress(parts)]


def _progress(parts: Iterable[Tensor]) -> Iterable[Tensor]:
    return tqdm(parts, file=sys.stdout, ascii=True, ncols=80, mininterval=5, unit="batch")


def _decide(log_likelihoods: Tensor) -> tuple[Tensor, ...]:
    """Class of greatest posterior when all are equally frequent, and how sure: four columns."""
    posterior = log_likelihoods.flatten(1).softmax(1).view_as(log_likelihoods)
    best = posterior.flatten(1).argmax(1)
    modulation, level = best // posterior.shape[2], best % posterior.shape[2]
    sure = (
        posterior.sum(2).gather(1, modulation[:, None])[:, 0],
        posterior.sum(1).gather(1, level[:, None])[:, 0],
    )
    return modulation, level, *sure


def _table(frames: Frames, found: list[tuple[Tensor, ...]]) -> pd.DataFrame:
    index = torch.arange(len(frames), device=frames.device)
    return prediction_table(frames, index, [torch.cat(c) for c in zip(*found, strict=True)])


def _data(frames: Frames) -> dict[str, Any]:
    return {
        "data": {
            "description": frames.description,
            "num_classes": frames.num_classes,
            "source": frames.source,
            "counts": {"test": len(frames)},
        }
    }


def run(options: argparse.Namespace) -> Run:
    """Assess what the options say, write the run folder and bring the diary up to date.

    Raises:
        ValueError: the wanted name belongs to a finished run.
    """
    workspace = Workspace.at(options.output_root)
    name = claim_run_name(options.run_name, workspace.results)
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assess = {"bound": assess_bound, "receiver": assess_receiver, "network": assess_network}
    predictions, facts = assess[options.what](options, device)
    metrics = metrics_table(predictions)
    overall = metrics[metrics["group"] == "all"].set_index("metric")
    facts |= {
        "run": name,
        "status": "completed",
        "started": started.isoformat(),
        "seconds": time.perf_counter() - clock,
        "config": facts.pop("trained", {})
        | {"seed": options.seed, "num_frames_per_cell": options.num_frames_per_cell}
        | {"profile": options.profile, "data_path": Path(options.data_path).name},
        "test": {
            task: {key: float(overall.loc[task, key]) for key in ("value", "low", "high")}
            for task in _TASKS
        },
        "environment": environment(),
    }
    facts["config"].pop("output_root", None)
    folder = workspace.results / name
    done = write_run(folder, facts=facts, metrics=metrics, predictions=predictions)
    update_runlog(workspace)
    return done


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of the command line, the channel among them."""
    parser = argparse.ArgumentParser(prog="python -m amc_utils.assess", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", choices=("bound", "receiver", "network"))
    parser.add_argument("--run-name", default="", help="empty for a new adjective-noun-number")
    parser.add_argument("--modulations", nargs="+", default=["digital"])
    parser.add_argument("--snr-range-db", nargs=3, type=int, default=[-20, 30, 2])
    parser.add_argument("--num-frames-per-cell", type=int, default=50)
    parser.add_argument("--seed", type=int, default=2019, help="of the frames; not that of training")
    parser.add_argument("--checkpoint", default="", help="of the network to assess")
    parser.add_argument("--data-path", default="", help="RadioML-layout file; empty for synthetic")
    parser.add_argument("--profile", default="cpu", help="label of the scale, kept with the run")
    parser.add_argument("--output-root", default="", help="where to write; empty is the repository")
    parser.add_argument("--cfo-std", type=float, help="cycles per sample")
    parser.add_argument("--delay-spread", type=float, help="of Rayleigh multipath, samples")
    parser.add_argument("--rolloff-range", type=float, nargs=2)
    options = parser.parse_args(arguments)
    changed = ("cfo_std", "delay_spread", "rolloff_range")
    given = {name: getattr(options, name) for name in changed if getattr(options, name) is not None}
    if "rolloff_range" in given:
        given["rolloff_range"] = tuple(given["rolloff_range"])
    options.channel = replace(Channel(), **given)
    return options


if __name__ == "__main__":
    print(run(options_of()).folder)

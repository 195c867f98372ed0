"""Runs that train nothing: the bound, the likelihood receiver, and a trained network on other frames.

    amc evaluate bound --run-name genie-bound --num-frames-per-cell 200
    amc evaluate bound --run-name genie-told --num-frames-per-cell 200 --snr-told
    amc evaluate receiver --run-name likelihood-receiver --num-frames-per-cell 50
    amc evaluate network --run-name elsewhere --checkpoint best.ckpt --data-path FILE

Each writes a run folder like a training run, without history and split.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from amc_utils.metrics import metrics_table
from amc_utils.radioml.reader import LABEL_ORDERS
from amc_utils.results import Run, claim_run_name, environment, write_run
from amc_utils.runtime.paths import Workspace
from amc_utils.runtime.plugins import load_plugin
from amc_utils.signals import CHANNEL_PRESETS, DEFAULT_PRESET, Channel
from amc_utils.studies.decisions import Assessment, assess_bound, assess_network, assess_receiver
from amc_utils.studies.runlog import update_runlog
from amc_utils.training import best_accelerator

_TASKS = ("joint_accuracy", "modulation_accuracy", "snr_accuracy", "snr_mae_db")


def run(assessment: Assessment) -> Run:
    """Make an assessment, write its run folder and, unless a study asks, bring the diary up to date.

    Raises:
        ValueError: the wanted name belongs to a finished run.
    """
    workspace = Workspace.at(assessment.output_root, assessment.study)
    name = claim_run_name(assessment.run_name, workspace.results)
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    device = torch.device(best_accelerator())
    assess = {"bound": assess_bound, "receiver": assess_receiver, "network": assess_network}
    predictions, facts = assess[assessment.what](assessment, device)
    metrics = metrics_table(predictions)
    overall = metrics[metrics["group"] == "all"].set_index("metric")
    facts |= {
        "run": name,
        "status": "completed",
        "started": started.isoformat(),
        "seconds": time.perf_counter() - clock,
        "config": facts.pop("trained", {})
        | {"seed": assessment.seed, "num_frames_per_cell": assessment.num_frames_per_cell}
        | {"profile": assessment.profile, "data_path": Path(assessment.data_path).name},
        "test": {
            task: {key: float(overall.loc[task, key]) for key in ("value", "low", "high")}
            for task in _TASKS
        },
        "environment": environment(),
    }
    facts["config"].pop("output_root", None)
    folder = workspace.results / name
    done = write_run(folder, facts=facts, metrics=metrics, predictions=predictions)
    if not assessment.study:
        update_runlog(workspace)
    return done


def from_command_line(arguments: list[str] | None = None) -> Assessment:
    """Assessment that a command line asks for, the channel of its frames included."""
    parser = argparse.ArgumentParser(
        prog="amc evaluate", description=__doc__, argument_default=argparse.SUPPRESS
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", choices=("bound", "receiver", "network"))
    parser.add_argument("--run-name", help="empty for a new adjective-noun-number")
    parser.add_argument("--modulations", nargs="+")
    parser.add_argument("--snr-range-db", nargs=3, type=int)
    parser.add_argument("--num-frames-per-cell", type=int)
    parser.add_argument("--seed", type=int, help="of the frames; not that of training")
    parser.add_argument("--checkpoint", help="of the network to assess")
    parser.add_argument("--plugin", action="append", help="Python file that the network needs")
    parser.add_argument("--data-path", help="RadioML-layout file; empty for synthetic")
    parser.add_argument("--label-order", choices=LABEL_ORDERS, help="of the file's labels")
    parser.add_argument("--profile", help="label of the scale, kept with the run")
    parser.add_argument("--output-root", help="where to write; empty is the repository")
    parser.add_argument("--snr-told", action="store_true", help="bound only: the SNR is known as well")
    channel = parser.add_argument_group("channel of synthetic frames, and what a receiver knows of it")
    channel.add_argument("--preset", choices=CHANNEL_PRESETS, help=f"default {DEFAULT_PRESET}")
    channel.add_argument("--snr-slope", type=float, help="dB of SNR per sample for a dB of the label")
    channel.add_argument("--snr-offset-db", type=float, help="SNR per sample at label 0")
    channel.add_argument("--cfo-std", type=float, help="cycles per sample")
    channel.add_argument("--delay-spread", type=float, help="of Rayleigh multipath, samples")
    channel.add_argument("--rolloff-range", type=float, nargs=2)
    given = {
        name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None
    }
    for file in given.pop("plugin", []):
        load_plugin(file)
    settings = ("preset", *Channel.__dataclass_fields__)
    of_channel = {name: given.pop(name) for name in settings if name in given}
    return Assessment(**given, channel=of_channel)


def main(arguments: Sequence[str] | None = None) -> None:
    """Assess from the command line."""
    try:
        print(run(from_command_line(arguments)).folder)
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")

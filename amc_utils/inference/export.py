"""A finished run's network as one small file for use: calibrated, tried on foreign signals.

    amc export pocket-442
    amc export pocket-442 --recalibrate

Reads outputs/checkpoints/<run>/best.ckpt and writes results/<run>/model.safetensors, and beside it
model.json, which says how well it is calibrated and which foreign signals it knows for such.
With --recalibrate the weights are those of the model that is there, and all else is fitted anew, as
after a change of the pictures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import cross_entropy

from amc_utils.config import TrainingParameters
from amc_utils.data import Frames, Split, load_frames, stratified_split, synthesise_frames
from amc_utils.inference.classifier import Classifier, load_classifier
from amc_utils.inference.model_report import report
from amc_utils.inference.novelty import Novelty
from amc_utils.models import TwoHeadNetwork, count_parameters, untrained_network
from amc_utils.results import named_run
from amc_utils.runtime.checkpoints import read_checkpoint
from amc_utils.runtime.environment import environment
from amc_utils.runtime.paths import Workspace, replacing
from amc_utils.runtime.plugins import load_plugin

# Frames of a class that calibrate, and of a recording that is tried; what is added to the run's seed
# for both, so that they are none of its own.
_CALIBRATING, _TRYING = 200, 64
_CALIBRATING_SEED, _TRYING_SEED = 1_000_003, 2_000_003
# A set of frames, and an index into it.
_Some = tuple[Frames, Tensor]


def export(run: str, output_root: str = "", data_path: str = "", *, recalibrate: bool = False) -> Path:
    """Write model.safetensors and model.json of a finished run; returns the model's path.

    Temperatures and usual distances come from frames that it has not seen, the numbers of model.json
    from its test frames, from others and from foreign ones, with the weights as written.

    Args:
        run: its name.
        output_root: where results/ and outputs/ lie; empty is the repository.
        data_path: file that the run was trained on, if it was one.
        recalibrate: take the weights of model.safetensors, not of the checkpoint.

    Raises:
        FileNotFoundError: no such run, or its checkpoint is gone.
        ValueError: a run trained on a file that is not given.
    """
    workspace = Workspace.at(output_root)
    named_run(workspace, run)
    network, settings = _trained(workspace, run, recalibrate)
    if settings["data_path"] and not data_path:
        raise ValueError(f"data_path must name the file that {run!r} was trained on, got none")
    config = TrainingParameters.checked(settings | {"resume_from": "", "data_path": data_path})
    frames = load_frames(config)
    split = stratified_split(frames, seed=config.seed)
    raw = Classifier(network, config, run=run, trained_on=frames.description)
    calibrating, trying = _unseen(config, frames, split)
    train = _some(split.train, 3 * len(split.test))
    calibrated = _calibrated(raw, (frames, train), calibrating)
    path = workspace.model(run)
    with replacing(path) as temporary:
        calibrated.save(temporary)
        written = load_classifier(temporary)
        facts = {
            "run": run,
            "sha256": hashlib.sha256(temporary.read_bytes()).hexdigest(),
            "bytes": temporary.stat().st_size,
            "parameters": count_parameters(network),
            "trained_on": frames.description,
            "temperatures": written.temperatures,
            **report(written, (frames, split.test), trying),
            "environment": environment(),
        }
        with replacing(path.with_name("model.json")) as described:
            described.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf8")
    return path


def _trained(workspace: Workspace, run: str, exported: bool) -> tuple[TwoHeadNetwork, dict]:
    """Network with its weights as they will be written, and the parameters of its training."""
    if exported:
        classifier = load_classifier(workspace.model(run))
        return classifier.network, classifier.config.model_dump()
    stored = read_checkpoint(workspace.checkpoints / run / "best.ckpt")
    unused = {"resume_from": "", "data_path": ""}
    network = untrained_network(TrainingParameters.checked(stored["config"] | unused))
    network.load_state_dict(_rounded(stored["network"]))
    return network.eval().to(memory_format=torch.channels_last), stored["config"]


def _rounded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they will be read back, see Classifier.save."""
    return {n: t.half().float() if t.ndim > 1 else t for n, t in state.items()}


def _some(index: Tensor, count: int) -> Tensor:
    return index[torch.linspace(0, len(index) - 1, min(count, len(index))).long()]


def _unseen(config: TrainingParameters, frames: Frames, split: Split) -> tuple[_Some, _Some]:
    """Frames that the run was not trained on, to calibrate it and to try it.

    Of synthetic classes there are as many as one likes, of a file those of validation and test.
    """
    if config.data_path:
        return (frames, split.validation), (frames, split.test)

    def new(count: int, seed: int) -> _Some:
        made = synthesise_frames(
            modulations=config.modulation_names,
            snr_labels=config.snr_labels,
            num_frames_per_cell=count,
            seed=config.seed + seed,
            channel=config.synthetic_channel,
        )
        return made, torch.arange(len(made))

    return new(_CALIBRATING, _CALIBRATING_SEED), new(_TRYING, _TRYING_SEED)


def _calibrated(raw: Classifier, trained: _Some, unseen: _Some) -> Classifier:
    (frames, index), (others, new) = trained, unseen
    features, logits = raw.look(others.iq(new))
    truths = others.modulation[new], others.snr_index[new]
    novelty = Novelty.fit(
        raw.look(frames.iq(index))[0],
        frames.cell[index],
        unseen=features,
        decided=raw.decided(logits),
        num_classes=frames.num_classes,
        num_snrs=len(frames.snr_labels),
    )
    return replace(raw, temperatures=tuple(map(_temperature, logits, truths)), novelty=novelty)


def _temperature(logits: Tensor, truth: Tensor) -> float:
    """Divisor of the logits with the least cross-entropy.

    Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", 2017, section 4.2.
    """
    found = minimize_scalar(
        lambda log: float(cross_entropy(logits / float(np.exp(log)), truth)),
        bounds=(-2, 2),
        method="bounded",
    )
    return float(np.exp(found.x))


def parser() -> argparse.ArgumentParser:
    """Options of the command line."""
    options = argparse.ArgumentParser(
        prog="amc export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("run", help="name of a finished run whose checkpoint is still there")
    options.add_argument("--recalibrate", action="store_true", help="the model that is there")
    options.add_argument("--data-path", default="", help="file that it was trained on, if one")
    options.add_argument("--plugin", action="append", default=[], help="Python file that it needs")
    options.add_argument("--output-root", default="", help="where it was written; the repository")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Export from the command line."""
    given = vars(parser().parse_args(arguments))
    try:
        for file in given.pop("plugin"):
            load_plugin(file)
        print(export(**given))
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")

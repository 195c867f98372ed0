"""A finished run's network as one small file for use: calibrated, tried on foreign signals.

    python -m amc_utils.export pocket-442

Reads outputs/checkpoints/<run>/best.ckpt and writes results/<run>/model.safetensors, and beside it
model.json, which says how well it is calibrated and which foreign signals it knows for such.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn.functional import cross_entropy

from amc_utils.checkpoints import read_checkpoint
from amc_utils.classifier import Classifier, load_classifier
from amc_utils.config import TrainingParameters
from amc_utils.data import load_frames
from amc_utils.experiment import untrained_network
from amc_utils.foreign import foreign_frames, foreign_kinds
from amc_utils.frames import Frames, stratified_split
from amc_utils.metrics import calibration_table, expected_calibration_error, wilson_interval
from amc_utils.models import count_parameters
from amc_utils.novelty import FALSE_ALARMS, Novelty
from amc_utils.paths import Workspace, replacing
from amc_utils.progress import progress
from amc_utils.recording import environment

_FRAMES_A_KIND = 500
_FOREIGN_SNRS_DB = (20, 10, 0)


def export(run: str, output_root: str = "", data_path: str = "") -> Path:
    """Write model.safetensors and model.json of a finished run; returns the model's path.

    Temperatures and usual distances come from the run's validation frames, the numbers of model.json
    from its test frames and from frames of foreign kinds, all with the weights as they are written.

    Args:
        run: its name.
        output_root: where results/ and outputs/ lie; empty is the repository.
        data_path: file that the run was trained on, if it was one.

    Raises:
        FileNotFoundError: no such run, or its checkpoint is gone.
        ValueError: a run trained on a file that is not given.
    """
    workspace = Workspace.at(output_root)
    folder = workspace.results / run
    if not folder.is_dir():
        raise FileNotFoundError(f"no finished run {run!r} in {workspace.results}; train it first")
    stored = read_checkpoint(workspace.checkpoints / run / "best.ckpt")
    if stored["config"]["data_path"] and not data_path:
        raise ValueError(f"data_path must name the file that {run!r} was trained on, got none")
    config = TrainingParameters.checked(stored["config"] | {"resume_from": "", "data_path": data_path})
    network = untrained_network(config)
    network.load_state_dict(_rounded(stored["network"]))
    network = network.eval().to(memory_format=torch.channels_last)
    frames = load_frames(config, dtype=torch.float16)
    split = stratified_split(frames, seed=config.seed)
    raw = Classifier(network, config, run=run, trained_on=frames.description)
    calibrated = _calibrated(raw, frames, _some(split.train, 3 * len(split.test)), split.validation)
    path = folder / "model.safetensors"
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
            "test": _tested(written, frames, split.test),
            "foreign": _foreign(written, frames, split.test).to_dict("records"),
            "environment": environment(),
        }
        with replacing(folder / "model.json") as described:
            described.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf8")
    return path


def _rounded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they will be read back, see Classifier.save."""
    return {n: t.half().float() if t.ndim > 1 else t for n, t in state.items()}


def _some(index: Tensor, count: int) -> Tensor:
    return index[torch.linspace(0, len(index) - 1, min(count, len(index))).long()]


def _calibrated(raw: Classifier, frames: Frames, train: Tensor, unseen: Tensor) -> Classifier:
    features, logits = raw.look(frames.iq(unseen))
    truths = frames.modulation[unseen], frames.snr_index[unseen]
    temperatures = tuple(map(_temperature, logits, truths))
    novelty = Novelty.fit(
        raw.look(frames.iq(train))[0],
        frames.cell[train],
        unseen=features,
        level=logits.snr.argmax(1),
    )
    return replace(raw, temperatures=temperatures, novelty=novelty)


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


def _tested(written: Classifier, frames: Frames, index: Tensor) -> dict[str, Any]:
    seen = written.look(frames.iq(index))
    found: dict[str, Any] = {"num_frames": len(index)}
    uncalibrated = replace(written, temperatures=(1.0, 1.0))
    for name, classifier in (("uncalibrated", uncalibrated), ("calibrated", written)):
        opinion = classifier.opinion(*seen)
        snr = opinion.snr.gather(1, opinion.level[:, None])[:, 0]
        sure = {"modulation": opinion.modulation.amax(1), "snr": snr}
        right = {
            "modulation": opinion.modulation.argmax(1) == frames.modulation[index],
            "snr": opinion.level == frames.snr_index[index],
        }
        sure["joint"] = sure["modulation"] * sure["snr"]
        right["joint"] = right["modulation"] & right["snr"]
        for task, hits in right.items():
            low, high = wilson_interval(int(hits.sum()), len(index))
            found[f"{task}_accuracy"] = {"value": float(hits.float().mean()), "low": low, "high": high}
        found[f"calibration_error_{name}"] = {
            task: expected_calibration_error(
                calibration_table(pd.Series(sure[task].numpy()), pd.Series(hits.numpy()))
            )
            for task, hits in right.items()
        }
    return found


def _foreign(written: Classifier, frames: Frames, index: Tensor) -> pd.DataFrame:
    """Share of frames called foreign, and how well two scores tell them from test frames of any SNR.

    Energy is the logarithm of the sum of exponentials of both heads' logits. Source: Liu, Wang, Owens,
    Li, "Energy-based Out-of-distribution Detection", 2020, equation 4.
    """
    generator = torch.Generator().manual_seed(written.config.seed)
    own = _scores(written, frames.iq(index))
    rows = [_row("test frames", "all", own, own)]
    for kind in progress(foreign_kinds(written.config.modulation_names), desc="foreign signals"):
        for snr_db in _FOREIGN_SNRS_DB:
            iq = foreign_frames(kind, snr_db, _FRAMES_A_KIND, generator=generator)
            rows.append(_row(kind, snr_db, _scores(written, iq), own))
    return pd.DataFrame(rows)


def _scores(classifier: Classifier, iq: Tensor) -> dict[str, np.ndarray]:
    features, logits = classifier.look(iq)
    usual = classifier.novelty.usual(features, logits.snr.argmax(1))
    energy = sum(part.logsumexp(1) for part in logits)
    return {"distance": 1 - usual.numpy(), "energy": -energy.numpy()}


def _row(
    kind: str, snr_db: int | str, some: dict[str, np.ndarray], own: dict[str, np.ndarray]
) -> dict[str, Any]:
    flagged = some["distance"] > 1 - FALSE_ALARMS
    areas = {
        f"auroc_{name}": float(
            roc_auc_score(
                np.repeat([0, 1], [len(own[name]), len(score)]), np.concatenate([own[name], score])
            )
        )
        for name, score in some.items()
    }
    return {
        "signal": kind,
        "snr_db": snr_db,
        "num_frames": len(flagged),
        "called_foreign": float(flagged.mean()),
        **areas,
    }


def main() -> None:
    """Export from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m amc_utils.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", help="name of a finished run whose checkpoint is still there")
    parser.add_argument("--data-path", default="", help="file that it was trained on, if it was one")
    parser.add_argument("--output-root", default="", help="where it was written; empty: the repository")
    given = parser.parse_args()
    try:
        print(export(given.run, given.output_root, given.data_path))
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()

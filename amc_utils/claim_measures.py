"""Numbers of a run, or of two, that claims are judged by."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from amc_utils.metrics import confusion, outcomes
from amc_utils.models import build_network, count_activation_bytes
from amc_utils.records import Run, list_runs

# Label of the runs that stand for physics.
_BOUND = "genie-aided bound"


def test_value(run: Run, name: str) -> float:
    """A number of the run's test."""
    return float(run.facts["test"][name]["value"])


def attractor(run: Run) -> float:
    """Share of frames that are given the most popular wrong SNR level.

    Frames of all levels are equally frequent; a network that is at a loss calls many of them the same.
    """
    predictions = run.predictions
    wrong = predictions.loc[
        predictions["snr_db"] != predictions["predicted_snr_db"], "predicted_snr_db"
    ]
    return float(wrong.value_counts().max() / len(predictions)) if len(wrong) else 0.0


def validation_above_training(run: Run, part: str) -> float:
    """Joint accuracy in validation less that in training, of the kept epoch."""
    kept = run.facts["kept"]
    return kept["validation_joint_accuracy"] - kept[f"{part}_joint_accuracy"]


def snr_weight_beyond_losses(run: Run) -> float:
    """Weight of the SNR task less the share that inverse losses of training frames would give it.

    Both are of the end of the kept epoch, so that losses are of the network that has these weights.
    """
    kept = run.facts["kept"]
    inverse = {task: 1 / kept[f"train_eval_{task}_loss"] for task in ("modulation", "snr")}
    return kept["weight_snr"] - inverse["snr"] / sum(inverse.values())


def bound_of(run: Run) -> Run:
    """The run of the bound on the same classes, in results/ beside the run or beside its study.

    Raises:
        FileNotFoundError: there is none.
    """
    results = next(folder for folder in run.folder.parents if folder.name == "results")
    bounds = [r for r in list_runs(results) if r.label == _BOUND and r.scope == run.scope]
    if not bounds:
        raise FileNotFoundError(
            f"no bound on {run.scope} in {results}; python -m amc_utils.assess bound makes one"
        )
    return bounds[-1]


def bound_cells(run: Run) -> float:
    """Spearman's rank correlation of joint accuracies by (modulation, SNR) cell with the bound's."""
    return _rank_correlation(_cells(run.predictions), _cells(bound_of(run).predictions))


def bound_confusions(run: Run) -> float:
    """Spearman's rank correlation of the rates at which modulations are confused with the bound's."""
    return _rank_correlation(_confusions(run.predictions), _confusions(bound_of(run).predictions))


def bound_cells_beyond_noise(run: Run) -> float:
    """`bound_cells` over the most that the noise of both runs' few frames leaves."""
    return bound_cells(run) / np.sqrt(_reliability(run, _cells) * _reliability(bound_of(run), _cells))


def bound_confusions_beyond_noise(run: Run) -> float:
    """`bound_confusions` over the most that the noise of both runs' few frames leaves."""
    most = _reliability(run, _confusions) * _reliability(bound_of(run), _confusions)
    return bound_confusions(run) / np.sqrt(most)


def _reliability(run: Run, numbers: Callable[[pd.DataFrame], pd.Series]) -> float:
    """Rank correlation that the run's numbers would have with those of as many other frames.

    That of halves, every other frame of a cell in each, brought to full length.
    Source: Spearman, "Correlation calculated from faulty data", 1910, and Brown in the same issue.
    """
    frames = run.predictions
    odd = frames.groupby(["modulation", "snr_db"], observed=True).cumcount() % 2 == 1
    halves = _rank_correlation(numbers(frames[odd]), numbers(frames[~odd]))
    return 2 * halves / (1 + halves)


def _cells(predictions: pd.DataFrame) -> pd.Series:
    keys = [predictions["modulation"], predictions["snr_db"]]
    return outcomes(predictions)["joint"].groupby(keys, observed=True).mean()


def _confusions(predictions: pd.DataFrame) -> pd.Series:
    names = list(predictions["modulation"].cat.categories)
    rates = confusion(predictions["modulation"], predictions["predicted_modulation"], names).stack()
    return rates[rates.index.get_level_values(0) != rates.index.get_level_values(1)]


def _rank_correlation(one: pd.Series, other: pd.Series) -> float:
    both = pd.concat([one, other], axis=1, join="inner")
    return float(spearmanr(both.iloc[:, 0], both.iloc[:, 1]).statistic)


def activation_megabytes(run: Run) -> float:
    """Memory that a picture needs in training beside the parameters, in single precision."""
    network, config = run.facts["network"], run.facts["config"]
    options = tuple(sorted(network["options"].items()))
    return _megabytes(network["name"], len(run.facts["pictures"]), config["image_size"], options)


def activation_megabytes_at_224(run: Run) -> float:
    """The same for the log's pictures, one channel of 224 pixels, and the network's usual patches."""
    return _megabytes(run.facts["network"]["name"], 1, 224, ())


@cache
def _megabytes(name: str, num_channels: int, image_size: int, options: tuple) -> float:
    shape, heads = (num_channels, image_size, image_size), {"num_modulations": 17, "num_snrs": 26}
    network = build_network(name, input_shape=shape, dropout=0.1, **heads, **dict(options))
    return count_activation_bytes(network) / 1e6


def changed_predictions(run: Run, other: Run) -> float:
    """Share of the test frames to which two runs give different classes, or confidences.

    Raises:
        ValueError: they were not tested on the same frames.
    """
    if not run.predictions["frame"].equals(other.predictions["frame"]):
        raise ValueError(f"runs must share their test frames, got {run.name} and {other.name}")
    return float((run.predictions != other.predictions).any(axis=1).mean())


MEASURES = {
    "joint": lambda run: test_value(run, "joint_accuracy"),
    "modulation": lambda run: test_value(run, "modulation_accuracy"),
    "snr": lambda run: test_value(run, "snr_accuracy"),
    "snr_mae_db": lambda run: test_value(run, "snr_mae_db"),
    "attractor": attractor,
    "validation_above_training": lambda run: validation_above_training(run, "train"),
    "validation_above_training_same_mode": lambda run: validation_above_training(run, "train_eval"),
    "snr_weight_beyond_losses": snr_weight_beyond_losses,
    "bound_cells": bound_cells,
    "bound_confusions": bound_confusions,
    "bound_cells_beyond_noise": bound_cells_beyond_noise,
    "bound_confusions_beyond_noise": bound_confusions_beyond_noise,
    "activation_megabytes": activation_megabytes,
    "activation_megabytes_at_224": activation_megabytes_at_224,
}
PAIR_MEASURES = {"changed_predictions": changed_predictions}
LABELS = {
    "joint": "joint accuracy",
    "modulation": "modulation accuracy",
    "snr": "SNR accuracy",
    "snr_mae_db": "mean absolute SNR error (dB)",
    "attractor": "share of frames",
    "validation_above_training": "joint accuracy",
    "validation_above_training_same_mode": "joint accuracy",
    "snr_weight_beyond_losses": "share of the weight",
    "bound_cells": "rank correlation with the bound",
    "bound_confusions": "rank correlation with the bound",
    "bound_cells_beyond_noise": "rank correlation with the bound",
    "bound_confusions_beyond_noise": "rank correlation with the bound",
    "activation_megabytes": "MB a picture",
    "activation_megabytes_at_224": "MB a picture",
    "changed_predictions": "share of test frames",
}

"""Numbers of a run, or of two, that claims are judged by."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from amc_utils.metrics import confusion, correct
from amc_utils.models import build_model, count_activation_bytes
from amc_utils.results import Run, list_runs
from amc_utils.runtime.paths import Workspace

Numbers = Callable[[pd.DataFrame], pd.Series]
# Label of the runs that stand for physics.
_BOUND = "genie-aided bound"


def mode_collapse_rate(run: Run) -> float:
    """Share of frames that are given the most popular wrong SNR level.

    Frames of all levels are equally frequent; a network that is at a loss calls many of them the same.
    """
    predictions = run.predictions
    wrong = predictions.loc[
        predictions["snr_label"] != predictions["predicted_snr_label"], "predicted_snr_label"
    ]
    return float(wrong.value_counts().max() / len(predictions)) if len(wrong) else 0.0


def validation_above_training(run: Run, part: str) -> float:
    """Joint accuracy in validation less that in training, of the last epoch.

    The kept epoch is the best in validation, which would lift validation alone.
    """
    last = run.history.iloc[-1]
    return float(last["validation_joint_accuracy"] - last[f"{part}_joint_accuracy"])


def dropout_in_training(run: Run) -> float:
    """Joint accuracy on training frames after the last epoch, less that counted while it went on."""
    last = run.history.iloc[-1]
    return float(last["train_eval_joint_accuracy"] - last["train_joint_accuracy"])


def variance_beyond_loss(run: Run) -> float:
    """|ln(learned variance / loss)| of the task where it is larger; zero where both have settled.

    Losses are of training frames in evaluation mode, at the end of the kept epoch as the variances.
    """
    kept = run.facts["kept"]
    tasks = ("modulation", "snr")
    return max(abs(np.log(kept[f"variance_{t}"] / kept[f"train_eval_{t}_loss"])) for t in tasks)


def bound_of(run: Run) -> Run:
    """The run of the bound on the same classes, in the workspace of the run.

    Raises:
        FileNotFoundError: there is none.
    """
    bounds = [r for r in _bounds(run.workspace.root) if r.scope == run.scope]
    if not bounds:
        raise FileNotFoundError(
            f"no bound on {run.scope} in {run.workspace.results}; amc evaluate bound makes one"
        )
    return bounds[-1]


@cache
def _bounds(root: Path) -> list[Run]:
    return [run for run in list_runs(Workspace(root)) if run.label == _BOUND]


def bound_cells(run: Run) -> float:
    """Spearman's rank correlation of joint accuracies by (modulation, SNR) cell with the bound's."""
    return _agreement(run, _cells)


def bound_cells_at_equal_snr(run: Run) -> float:
    """The same among the modulations of each SNR, beyond noise; see `_beyond_noise`.

    Any receiver is better at a higher SNR, which alone gives a high correlation over all cells.
    """
    return _beyond_noise(run, _ranks_at_equal_snr)


def bound_confusions(run: Run) -> float:
    """Spearman's rank correlation of the rates at which modulations are confused with the bound's."""
    return _agreement(run, _confusions)


def bound_confusions_beyond_noise(run: Run) -> float:
    """`bound_confusions` beyond noise; see `_beyond_noise`."""
    return _beyond_noise(run, _confusions)


def _agreement(run: Run, numbers: Numbers) -> float:
    return _rank_correlation(numbers(run.predictions), numbers(bound_of(run).predictions))


def _beyond_noise(run: Run, numbers: Numbers) -> float:
    """Agreement with the bound over the most that the noise of both runs' few frames leaves of it."""
    most = _reliability(run, numbers) * _reliability(bound_of(run), numbers)
    return float(_agreement(run, numbers) / np.sqrt(most))


def _reliability(run: Run, numbers: Numbers) -> float:
    """Rank correlation that the run's numbers would have with those of as many other frames.

    That of halves, every other frame of a cell in each, brought to full length.
    Source: Spearman, "Correlation calculated from faulty data", 1910, and Brown in the same issue.
    """
    frames = run.predictions
    odd = frames.groupby(["modulation", "snr_label"], observed=True).cumcount() % 2 == 1
    halves = _rank_correlation(numbers(frames[odd]), numbers(frames[~odd]))
    return 2 * halves / (1 + halves)


def _cells(predictions: pd.DataFrame) -> pd.Series:
    keys = [predictions["modulation"], predictions["snr_label"]]
    return correct(predictions)["joint"].groupby(keys, observed=True).mean()


def _ranks_at_equal_snr(predictions: pd.DataFrame) -> pd.Series:
    """Ranks about their mean, so that levels at which all modulations are alike weigh nothing."""
    ranks = _cells(predictions).groupby("snr_label").rank()
    return ranks - ranks.groupby("snr_label").transform("mean")


def _confusions(predictions: pd.DataFrame) -> pd.Series:
    names = list(predictions["modulation"].cat.categories)
    rates = confusion(predictions["modulation"], predictions["predicted_modulation"], names).stack()
    return rates[rates.index.get_level_values(0) != rates.index.get_level_values(1)]


def _rank_correlation(one: pd.Series, other: pd.Series) -> float:
    both = pd.concat([one, other], axis=1, join="inner")
    return float(spearmanr(both.iloc[:, 0], both.iloc[:, 1]).statistic)


def activation_megabytes_at_224(run: Run) -> float:
    """`megabytes_at_224` of the run's network."""
    return megabytes_at_224(run.facts["network"]["name"])


@cache
def megabytes_at_224(network: str) -> float:
    """Memory that one of the log's images needs in training beside the parameters, float32.

    Images have one channel of 224 pixels, and the network its usual patches.
    """
    heads = {"num_modulations": 17, "num_snrs": 26, "dropout": 0.3}
    return count_activation_bytes(build_model(network, input_shape=(1, 224, 224), **heads)) / 1e6


def changed_predictions(run: Run, other: Run) -> float:
    """Share of the test frames to which two runs give different classes, or confidences.

    Raises:
        ValueError: they were not tested on the same frames.
    """
    if not run.predictions["frame"].equals(other.predictions["frame"]):
        raise ValueError(f"runs must share their test frames, got {run.name} and {other.name}")
    return float((run.predictions != other.predictions).any(axis=1).mean())


# What is measured frame by frame; the run's number is the mean.
FRAME_MEASURES: dict[str, Numbers] = {
    "joint": lambda predictions: correct(predictions)["joint"],
    "snr": lambda predictions: correct(predictions)["snr"],
    "snr_label_mae": lambda predictions: (
        predictions["snr_label"] - predictions["predicted_snr_label"]
    ).abs(),
}
MEASURES: dict[str, Callable[[Run], float]] = {
    "mode_collapse_rate": mode_collapse_rate,
    "validation_above_training": lambda run: validation_above_training(run, "train"),
    "validation_above_training_same_mode": lambda run: validation_above_training(run, "train_eval"),
    "dropout_in_training": dropout_in_training,
    "variance_beyond_loss": variance_beyond_loss,
    "bound_cells": bound_cells,
    "bound_cells_at_equal_snr": bound_cells_at_equal_snr,
    "bound_confusions": bound_confusions,
    "bound_confusions_beyond_noise": bound_confusions_beyond_noise,
    "activation_megabytes_at_224": activation_megabytes_at_224,
}
PAIR_MEASURES: dict[str, Callable[[Run, Run], float]] = {"changed_predictions": changed_predictions}
LABELS = {
    "joint": "joint accuracy",
    "snr": "SNR accuracy",
    "snr_label_mae": "mean absolute error of the SNR label",
    "mode_collapse_rate": "share of frames",
    "validation_above_training": "joint accuracy",
    "validation_above_training_same_mode": "joint accuracy",
    "dropout_in_training": "joint accuracy",
    "variance_beyond_loss": "absolute ln(variance / loss)",
    "bound_cells": "rank correlation with the bound",
    "bound_cells_at_equal_snr": "rank correlation with the bound",
    "bound_confusions": "rank correlation with the bound",
    "bound_confusions_beyond_noise": "rank correlation with the bound",
    "activation_megabytes_at_224": "MB an image",
    "changed_predictions": "share of test frames",
}

"""Numbers of a run, or of two, that claims are judged by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal

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
# The bound's joint accuracy at SNR labels that are neither hopeless nor decided.
_CONTESTED = (0.05, 0.95)


def mode_collapse_rate(run: Run) -> float:
    """Share of frames that are given the most popular wrong SNR level.

    Frames of all levels are equally frequent; a network that is at a loss calls many of them the same.
    """
    predictions = run.predictions
    wrong = predictions.loc[
        predictions["snr_label"] != predictions["predicted_snr_label"], "predicted_snr_label"
    ]
    return float(wrong.value_counts().max() / len(predictions)) if len(wrong) else 0.0


def last_difference(run: Run, part: str, other: str) -> float:
    """Joint accuracy of a part of the frames less that of another, both of the last epoch.

    The kept epoch is the best in validation, which would lift validation alone.
    """
    last = run.history.iloc[-1]
    return float(last[f"{part}_joint_accuracy"] - last[f"{other}_joint_accuracy"])


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


def _agreement(run: Run, numbers: Numbers) -> float:
    """Spearman's rank correlation of numbers of the run with the bound's."""
    return _rank_correlation(numbers(run.predictions), numbers(bound_of(run).predictions))


def _beyond_noise(run: Run, numbers: Numbers, *, contested_only: bool = False) -> float:
    """Agreement with the bound over the most that the noise of both runs' few frames leaves of it.

    Where `contested_only`, on the SNR labels at which the bound is neither near chance nor near
    certainty: elsewhere its classes are all alike, or in the order of its guesses.
    """
    pair = [run.predictions, bound_of(run).predictions]
    if contested_only:
        reached = correct(pair[1])["joint"].groupby(pair[1]["snr_label"]).mean()
        contested = reached[reached.between(*_CONTESTED)].index
        pair = [frames[frames["snr_label"].isin(contested)] for frames in pair]
    most = np.prod([_reliability(frames, numbers) for frames in pair])
    return float(_rank_correlation(*map(numbers, pair)) / np.sqrt(most))


def _reliability(frames: pd.DataFrame, numbers: Numbers) -> float:
    """Rank correlation that numbers of these predictions would have with those of as many others.

    That of halves, every other frame of a cell in each, brought to full length.
    Source: Spearman, "Correlation calculated from faulty data", 1910, and Brown in the same issue.
    """
    odd = frames.groupby(["modulation", "snr_label"], observed=True).cumcount() % 2 == 1
    halves = _rank_correlation(numbers(frames[odd]), numbers(frames[~odd]))
    return 2 * halves / (1 + halves)


def _cells(predictions: pd.DataFrame) -> pd.Series:
    keys = [predictions["modulation"], predictions["snr_label"]]
    return correct(predictions)["joint"].groupby(keys, observed=True).mean()


def _ranks_at_equal_snr(predictions: pd.DataFrame) -> pd.Series:
    """Ranks among the modulations of each label, about their mean.

    Any receiver is better at a higher SNR, which alone gives a high correlation over all cells.
    """
    ranks = _cells(predictions).groupby("snr_label").rank()
    return ranks - ranks.groupby("snr_label").transform("mean")


def _confusions(predictions: pd.DataFrame) -> pd.Series:
    names = list(predictions["modulation"].cat.categories)
    rates = confusion(predictions["modulation"], predictions["predicted_modulation"], names).stack()
    return rates[rates.index.get_level_values(0) != rates.index.get_level_values(1)]


def _rank_correlation(one: pd.Series, other: pd.Series) -> float:
    both = pd.concat([one, other], axis=1, join="inner")
    return float(spearmanr(both.iloc[:, 0], both.iloc[:, 1]).statistic)


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


@dataclass(frozen=True)
class Measure:
    """What claims are judged by.

    Attributes:
        unit: what its numbers are.
        of: gives the number.
        takes: a run; the predictions of a run, for a number a frame, whose mean is the run's; or a pair
            of runs.
    """

    unit: str
    of: Callable
    takes: Literal["run", "predictions", "pair"] = "run"


def _label_errors(predictions: pd.DataFrame) -> pd.Series:
    return (predictions["snr_label"] - predictions["predicted_snr_label"]).abs()


_WITH_BOUND = "rank correlation with the bound"
MEASURES = {
    "joint": Measure("joint accuracy", lambda some: correct(some)["joint"], "predictions"),
    "snr": Measure("SNR accuracy", lambda some: correct(some)["snr"], "predictions"),
    "snr_label_mae": Measure("mean absolute error of the SNR label", _label_errors, "predictions"),
    "mode_collapse_rate": Measure("share of frames", mode_collapse_rate),
    "validation_above_training": Measure(
        "joint accuracy", lambda run: last_difference(run, "validation", "train")
    ),
    "validation_above_training_same_mode": Measure(
        "joint accuracy", lambda run: last_difference(run, "validation", "train_eval")
    ),
    "dropout_in_training": Measure(
        "joint accuracy", lambda run: last_difference(run, "train_eval", "train")
    ),
    "variance_beyond_loss": Measure("absolute ln(variance / loss)", variance_beyond_loss),
    "bound_cells": Measure(_WITH_BOUND, partial(_agreement, numbers=_cells)),
    "bound_cells_at_equal_snr": Measure(
        _WITH_BOUND, partial(_beyond_noise, numbers=_ranks_at_equal_snr, contested_only=True)
    ),
    "bound_confusions_beyond_noise": Measure(
        _WITH_BOUND, partial(_beyond_noise, numbers=_confusions, contested_only=True)
    ),
    "changed_predictions": Measure("share of test frames", changed_predictions, "pair"),
}

"""Tables of accuracy with intervals, confusion, per-class scores and calibration, from predictions.

Predictions are a DataFrame with one row a test frame:
    frame: index of the frame in its set.
    modulation, predicted_modulation: names, ordered categories.
    snr_label, predicted_snr_label: int64.
    modulation_confidence, snr_confidence: float32, the softmax of the predicted class.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.typing import DataFrameGroupBy
from scipy.optimize import curve_fit
from scipy.special import expit
from scipy.stats import binomtest, norm
from scipy.stats import t as student_t
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

TASKS = ("joint", "modulation", "snr")
# Draws behind an interval that no formula gives.
_NUM_DRAWS = 200


def correct(predictions: pd.DataFrame) -> pd.DataFrame:
    """Bool columns joint, modulation and snr: whether each task is right, by frame."""
    modulation = predictions["modulation"] == predictions["predicted_modulation"]
    snr = predictions["snr_label"] == predictions["predicted_snr_label"]
    return pd.DataFrame({"joint": modulation & snr, "modulation": modulation, "snr": snr})


def wilson_interval(
    num_correct: npt.ArrayLike, num_frames: npt.ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """95 % Wilson score interval of fractions: ends, of the arguments' shape.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    count, z = np.asarray(num_frames, float), float(norm.ppf(0.975))
    share = np.asarray(num_correct, float) / count
    centre = share + z**2 / (2 * count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    low, high = ((centre + side * half) / (1 + z**2 / count) for side in (-1, 1))
    # Rounding must not move the ends of 0 and 1.
    return np.where(share == 0, 0.0, low), np.where(share == 1, 1.0, high)


def half_interval(
    error: npt.ArrayLike, num_values: npt.ArrayLike | None = None
) -> npt.NDArray[np.float64] | np.float64:
    """Half the width of a 95 % interval, from the standard error of what it is about.

    Args:
        error: standard error, a number or an array.
        num_values: of a mean whose error was estimated from so many values, for Student's t (NaN for a
            single one); None for an error of many, by the normal distribution.
    """
    if num_values is None:
        return np.asarray(error, float) * norm.ppf(0.975)
    return np.asarray(error, float) * student_t.ppf(0.975, np.asarray(num_values) - 1)


_COLUMNS = ["level", "metric", "value", "low", "high", "num_frames"]


def _by_level(table: pd.DataFrame, predictions: pd.DataFrame, by: str | None) -> DataFrameGroupBy:
    return table.groupby(predictions[by] if by else np.full(len(table), "all"), observed=True)


def accuracy_table(predictions: pd.DataFrame, by: str | None = None) -> pd.DataFrame:
    """Accuracy of each task with its 95 % interval, overall or per level of the column `by`.

    Returns:
        Columns level ("all" without `by`), metric ("joint_accuracy", ...), value, low, high and
        num_frames.
    """
    groups = _by_level(correct(predictions).add_suffix("_accuracy"), predictions, by)
    hits = groups.sum().rename_axis(index="level", columns="metric").stack()
    rows = hits.rename("correct").reset_index()
    num_frames = groups.size().to_numpy().repeat(len(TASKS))
    low, high = wilson_interval(rows["correct"], num_frames)
    value = rows["correct"] / num_frames
    return rows.assign(value=value, low=low, high=high, num_frames=num_frames)[_COLUMNS]


def accuracy_line(predictions: pd.DataFrame) -> str:
    """Accuracies with 95 % intervals, in a line; most publications have that of modulation alone."""
    table = accuracy_table(predictions).set_index("metric")
    shares = (
        f"{task} {row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
        for task, row in zip(TASKS, (table.loc[f"{t}_accuracy"] for t in TASKS), strict=True)
    )
    counts = [predictions[name].nunique() for name in ("modulation", "snr_label")]
    return f"test accuracy: {', '.join(shares)} ({counts[0]} modulations, {counts[1]} SNR labels)"


def snr_error_table(predictions: pd.DataFrame, by: str | None = None) -> pd.DataFrame:
    """Mean absolute error of the SNR label, overall or per level of `by`; columns as in accuracy_table.

    The interval is that of a normal mean, 1.96 standard errors to either side, as in stored results.
    """
    error = (predictions["predicted_snr_label"] - predictions["snr_label"]).abs()
    groups = _by_level(error.to_frame("error"), predictions, by)["error"]
    rows = groups.agg(value="mean", num_frames="size").rename_axis("level").reset_index()
    half = 1.96 * groups.sem(ddof=0).to_numpy()
    low, high = (rows["value"] - half).clip(lower=0.0), rows["value"] + half
    return rows.assign(metric="snr_label_mae", low=low, high=high)[_COLUMNS]


def class_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Precision, recall and F1 of each modulation, in tidy rows like accuracy_table.

    num_frames is the number of frames of the class, also beside its precision.
    """
    names = list(predictions["modulation"].cat.categories)
    columns = ("modulation", "predicted_modulation")
    codes = (pd.Categorical(predictions[column], names).codes for column in columns)
    scores = precision_recall_fscore_support(*codes, labels=range(len(names)), zero_division=0.0)
    wide = pd.DataFrame(
        dict(zip(("precision", "recall", "f1", "num_frames"), scores, strict=True)), index=names
    )
    tidy = wide.rename_axis("level").reset_index().melt(["level", "num_frames"], var_name="metric")
    return tidy[["level", "metric", "value", "num_frames"]]


def metrics_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Every metric of a run in one tidy table.

    Returns:
        Columns group ("all", "snr_label >= 0", "snr_label", "modulation"), level, metric, value, low,
        high, num_frames. The first two groups stand side by side because accuracies over different
        SNR ranges must never be compared with each other.
    """
    tables = {
        "all": [accuracy_table(predictions), snr_error_table(predictions)],
        "snr_label": [
            accuracy_table(predictions, "snr_label"),
            snr_error_table(predictions, "snr_label"),
        ],
        "modulation": [accuracy_table(predictions, "modulation"), class_table(predictions)],
    }
    not_negative = predictions[predictions["snr_label"] >= 0]
    if len(not_negative):
        tables["snr_label >= 0"] = [accuracy_table(not_negative), snr_error_table(not_negative)]
    parts = [part.assign(group=group) for group, some in tables.items() for part in some]
    return pd.concat(parts, ignore_index=True)[["group", *_COLUMNS]]


def cell_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Joint accuracy of every (modulation, SNR) cell.

    Returns:
        Columns modulation, snr_label, value, low, high, num_frames.
    """
    keys = [predictions["modulation"].astype(str), predictions["snr_label"]]
    groups = correct(predictions)["joint"].groupby(keys)
    rows = groups.agg(value="mean", num_frames="size").reset_index()
    low, high = wilson_interval(groups.sum(), rows["num_frames"])
    columns = ["modulation", "snr_label", "value", "low", "high", "num_frames"]
    return rows.assign(low=low, high=high)[columns]


def paired_comparison(predictions: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Each pair of runs on the same frames: difference in joint accuracy, and an exact sign test.

    Returns:
        Columns a, b, difference (a less b), low and high (its 95 % interval), only a right and only b
        right (frames), p value.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions",
    1947, in its exact binomial form; for the interval Agresti and Min, "Simple improved confidence
    intervals for comparing matched proportions", 2005: Wald's, with half a frame more in each cell.

    Raises:
        ValueError: runs tested on different frames.
    """
    right = {name: correct(table)["joint"].to_numpy() for name, table in predictions.items()}
    frames = [table[["frame", "modulation", "snr_label"]].astype(str) for table in predictions.values()]
    if any(not frames[0].equals(other) for other in frames[1:]):
        raise ValueError(f"runs must share their test frames to be compared, got {list(predictions)}")
    rows = []
    for a, b in combinations(right, 2):
        only_a, only_b = (right[a] & ~right[b]).sum(), (right[b] & ~right[a]).sum()
        num_apart = int(only_a + only_b)
        p_value = binomtest(int(only_a), num_apart).pvalue if num_apart else 1.0
        difference = right[a].mean() - right[b].mean()
        count, apart = len(right[a]) + 2, int(only_a) - int(only_b)
        half = half_interval(np.sqrt(num_apart + 1 - apart**2 / count) / count)
        ends = (apart / count - half, apart / count + half)
        rows.append((a, b, difference, *ends, only_a, only_b, p_value))
    columns = ["a", "b", "difference", "low", "high", "only a right", "only b right", "p value"]
    return pd.DataFrame(rows, columns=columns)


def confusion(true: pd.Series, predicted: pd.Series, labels: list) -> pd.DataFrame:
    """Confusion rates, rows true and summing to 1, columns predicted; rows without frames are NaN."""
    codes = (pd.Categorical(some, labels).codes for some in (true, predicted))
    counts = confusion_matrix(*codes, labels=range(len(labels)))
    totals = counts.sum(1, keepdims=True)
    rates = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    return pd.DataFrame(rates, index=labels, columns=labels)


def confused_pairs(predictions: pd.DataFrame) -> pd.DataFrame:
    """For every SNR the two modulations that are taken for one another most often.

    Returns:
        Index snr_label, without the labels at which no two are; columns a, b and share, the fraction of
        the frames of both that are exchanged.
    """
    rows = []
    for snr_label, group in predictions.groupby("snr_label"):
        counts = pd.crosstab(group["modulation"].astype(str), group["predicted_modulation"].astype(str))
        names = sorted(set(counts.index) | set(counts.columns))
        square = counts.reindex(index=names, columns=names, fill_value=0).to_numpy()
        exchanged = np.triu(square + square.T, 1)
        totals = square.sum(1)
        share = exchanged / np.maximum(totals[:, None] + totals, 1)
        a, b = np.unravel_index(share.argmax(), share.shape)
        if share[a, b] > 0:
            rows.append((snr_label, names[a], names[b], share[a, b]))
    return pd.DataFrame(rows, columns=["snr_label", "a", "b", "share"]).set_index("snr_label")


def calibration_table(confidence: pd.Series, correct: pd.Series, num_bins: int = 8) -> pd.DataFrame:
    """Mean confidence against accuracy in bins of ascending confidence and equal numbers of frames.

    Returns:
        Columns confidence, accuracy, low, high, num_frames.
    """
    order = np.argsort(confidence.to_numpy(), kind="stable")
    rows = []
    for part in np.array_split(order, min(num_bins, len(order))):
        right = correct.iloc[part]
        low, high = wilson_interval(right.sum(), len(part))
        rows.append((confidence.iloc[part].mean(), right.mean(), low, high, len(part)))
    return pd.DataFrame(rows, columns=["confidence", "accuracy", "low", "high", "num_frames"])


def expected_calibration_error(table: pd.DataFrame) -> float:
    """Mean gap between confidence and accuracy over frames, from calibration_table.

    Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", 2017, eq. 3,
    here with bins of equal numbers of frames (adaptive bins) instead of equal width.
    """
    gap = (table["confidence"] - table["accuracy"]).abs()
    return float(np.average(gap, weights=table["num_frames"]))


def falling_label(curve: pd.DataFrame) -> tuple[float, float, float]:
    """Label at which an accuracy is half way down from its plateau to its floor, with a 95 % interval.

    Least squares fit of a logistic course. The lowest and the highest label are left out: who cannot
    tell labels apart there answers the edge, which is right by chance. The interval is that of other
    test frames (binomial draws); it says nothing of other seeds of training. NaN where no fall is seen:
    fewer than seven labels, or a course that is steeper than labels can show or lies at their ends.

    Args:
        curve: columns value and num_frames, indexed by ascending labels.
    """
    inner = curve.iloc[1:-1]
    if len(inner) < 5:
        return (np.nan,) * 3
    labels, values = inner.index.to_numpy(float), inner["value"].to_numpy(float)
    counts = inner["num_frames"].to_numpy(int)

    def course(label: np.ndarray, top: float, floor: float, middle: float, width: float) -> np.ndarray:
        return floor + (top - floor) * expit((middle - label) / width)

    def middle(seen: np.ndarray) -> float:
        start = (seen.max(), seen.min(), labels[np.abs(seen - seen.max() / 2).argmin()], 2.0)
        bounds = np.array([[0, 0, labels[0], 0.2], [1.01, 1, labels[-1], 20]])
        found = curve_fit(course, labels, seen, start, bounds=bounds, maxfev=4000)[0]
        return np.nan if np.isclose(found, bounds)[:, 2:].any() else float(found[2])

    reached = middle(values)
    if np.isnan(reached):
        return (np.nan,) * 3
    rng = np.random.default_rng(0)
    draws = [middle(rng.binomial(counts, values) / counts) for _ in range(_NUM_DRAWS)]
    return reached, *np.nanquantile(draws, [0.025, 0.975])

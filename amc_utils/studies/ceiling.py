"""What the ceiling of a network is made of, and what more training would bring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar

from amc_utils.metrics import correct, half_interval

# What is lost from one rung of the ladder to the next, from certainty down, and what is left.
CAUSES = ("physics", "no genie", "network, training", "image, modulation", "image, SNR")
LEFT = "log's image"
# Training images of the log: of one epoch, and of its four.
IMAGES_OF_THE_LOG = 1_448_346, 5_793_384


@dataclass(frozen=True)
class Decomposition:
    """Where the joint accuracy of a network on the log's image goes, in fractions of the test frames.

    Attributes:
        shares: what each of CAUSES costs, in their order, and last LEFT; they sum to one.
        half_intervals: of the causes, half the 95 % interval.
        by_snr: a row an SNR label; columns LEFT and the causes upwards; each row sums to one.
        gains: what the better network's decisions on SNR and modulation (columns) bring to the other
            one, given in either order and as the mean of both orders; each row sums to the step
            between the two.
    """

    shares: pd.Series
    half_intervals: pd.Series
    by_snr: pd.DataFrame
    gains: pd.DataFrame


def decompose(
    *, bound: pd.DataFrame, receiver: pd.DataFrame, stack: pd.DataFrame, plain: pd.DataFrame
) -> Decomposition:
    """Take the way from certainty down to a network on the log's image apart, cause by cause.

    Each cause is the difference of two joint accuracies: the genie-aided bound, the likelihood
    receiver, a network on ordered images, and one on the log's image. The last step is split by
    task, see `shapley_split`. Intervals take the two accuracies for independent; the last two steps
    share their frames, and are surer than that.

    Args:
        bound: predictions, see amc_utils.metrics.
        receiver: likewise, of frames of its own.
        stack: likewise.
        plain: likewise, of the same frames as `stack`.

    Raises:
        ValueError: networks that were tested on different frames.
    """
    given = given_decisions(plain, stack)
    # Half way in the mean of both orders: the SNR is mended, the modulation is not.
    mended = (
        given["neither"] + (given["SNR"] - given["neither"] + given["both"] - given["modulation"]) / 2
    )
    right = [_joint_by_label(table) for table in (bound, receiver, stack)]
    right += [mended.set_axis(given["snr_label"]), _joint_by_label(plain)]
    steps = _steps(dict(zip(CAUSES, right, strict=True)))
    by_snr = pd.concat([rung.groupby(level=0).mean() for rung in right[::-1]], axis=1)
    left = by_snr.iloc[:, 0]
    by_snr = by_snr.assign(certainty=1.0).diff(axis=1).set_axis([LEFT, *CAUSES[::-1]], axis=1)
    return Decomposition(
        shares=pd.concat([steps["lost"], pd.Series({LEFT: steps["accuracy"].iloc[-1]})]),
        half_intervals=steps["95 % +-"],
        by_snr=by_snr.assign(**{LEFT: left}),
        gains=shapley_split(given[["neither", "SNR", "modulation", "both"]].mean()),
    )


def ladder(rungs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What is lost from each rung to the next, from certainty down.

    Intervals take the accuracies for independent; rungs that share their frames are surer than that.

    Args:
        rungs: predictions, see amc_utils.metrics, named by the cause of the step down to them.

    Returns:
        Index cause; columns accuracy, lost, and half the 95 % interval of what is lost.
    """
    return _steps({cause: correct(table)["joint"] for cause, table in rungs.items()})


def _steps(right: Mapping[str, pd.Series]) -> pd.DataFrame:
    accuracy = pd.Series({cause: rung.mean() for cause, rung in right.items()})
    variance = (accuracy * (1 - accuracy)).to_numpy() / [len(rung) for rung in right.values()]
    error = np.sqrt(variance + np.append(0, variance[:-1]))
    lost = -accuracy.diff().fillna(accuracy.iloc[0] - 1)
    return pd.DataFrame({"accuracy": accuracy, "lost": lost, "95 % +-": half_interval(error)})


def _joint_by_label(predictions: pd.DataFrame) -> pd.Series:
    """Whether both tasks are right, as 0.0 and 1.0, indexed by the frame's SNR label."""
    return correct(predictions)["joint"].astype(float).set_axis(predictions["snr_label"])


def given_decisions(worse: pd.DataFrame, better: pd.DataFrame) -> pd.DataFrame:
    """Whether a network is right on both tasks, frame by frame, if it is given another's decisions.

    Args:
        worse: predictions of the network that receives, see amc_utils.metrics.
        better: predictions of the one that gives, on the same frames in any order.

    Returns:
        Index frame; snr_label; float columns neither, SNR, modulation and both say which decisions are
        given.

    Raises:
        ValueError: networks that were tested on different frames.
    """
    worse, better = (table.set_index("frame").sort_index() for table in (worse, better))
    if not worse.index.equals(better.index):
        shared = len(worse.index.intersection(better.index))
        raise ValueError(
            f"both networks must be tested on the same frames, got {len(worse)} and {len(better)} "
            f"frames of which {shared} are shared"
        )
    own, other = correct(worse), correct(better)
    right = {
        "neither": own["joint"],
        "SNR": own["modulation"] & other["snr"],
        "modulation": other["modulation"] & own["snr"],
        "both": other["joint"],
    }
    return pd.DataFrame(right).astype(float).assign(snr_label=worse["snr_label"])


def shapley_split(accuracy: Mapping[str, float]) -> pd.DataFrame:
    """Split what two gifts bring together into the part of each.

    Joint accuracy counts frames where both tasks are right, so that what a gift brings depends on what
    was given before. The mean over both orders is the Shapley value.

    Args:
        accuracy: joint accuracy with neither gift, with SNR, with modulation, and with both.

    Returns:
        Columns SNR and modulation; a row an order, and their mean. Each row sums to both - neither.

    Source: Shapley, "A value for n-person games", 1953.
    """
    neither, snr, modulation, both = (
        accuracy[name] for name in ("neither", "SNR", "modulation", "both")
    )
    gains = pd.DataFrame(
        {"SNR": [snr - neither, both - modulation], "modulation": [both - snr, modulation - neither]},
        index=["SNR given first", "modulation given first"],
    )
    gains.loc["mean of both"] = gains.mean()
    return gains


def forecast_accuracy(
    curve: pd.DataFrame,
    limit: float | None,
    frames_seen: npt.ArrayLike,
    image_size: float | None = None,
) -> tuple[np.ndarray, float]:
    """Accuracy at other budgets, its distance to a limit taken for a power of the frames seen.

    Args:
        curve: columns frames_seen and mean (accuracy), two budgets at least.
        limit: accuracy that is reached with endless frames; None for the one that fits best.
        frames_seen: budgets to forecast.
        image_size: pixels a side to forecast for; the distance is then a power of these as well, and
            the curve has a column image_size with two sizes at least. None for those of the curve.

    Returns:
        The accuracies, NaN where the curve has passed the limit already, and the limit.

    Raises:
        ValueError: fewer than two budgets or sizes, through which no curve is defined.
    """
    budgets = np.asarray(frames_seen, float)
    known, wanted = {"frames_seen": "budgets"}, [budgets]
    if image_size is not None:
        known["image_size"] = "image sizes"
        wanted.append(np.full_like(budgets, image_size))
    for name, what in known.items():
        if (number := curve[name].nunique()) < 2:
            raise ValueError(f"a forecast needs at least 2 {what}, got {number}")

    def powers(columns: list[np.ndarray]) -> np.ndarray:
        return np.stack([np.ones_like(columns[0]), *map(np.log, columns)], axis=-1)

    seen = powers([curve[name].to_numpy(float) for name in known])
    reached = curve["mean"].to_numpy(float)

    def carried_on(limit: float, places: np.ndarray) -> np.ndarray:
        if limit <= reached.max():
            return np.full(places.shape[:-1], np.nan)
        exponents = np.linalg.lstsq(seen, np.log(limit - reached))[0]
        return limit - np.exp(places @ exponents)

    if limit is None:
        limit = minimize_scalar(
            lambda guess: np.square(carried_on(guess, seen) - reached).sum(),
            bounds=(reached.max() + 1e-6, 1),
            method="bounded",
        ).x
    return carried_on(limit, powers(wanted)), limit


def forecast(
    runs: pd.DataFrame,
    limits: Mapping[str, float | None],
    frames_seen: float,
    image_size: float | None = None,
) -> pd.DataFrame:
    """Joint accuracy of one run at another budget, forecast from several seeds.

    Args:
        runs: a row a run; columns seed, frames_seen, joint and, for an image size, image_size.
        limits: limits by name, see `forecast_accuracy`.
        frames_seen: the budget.
        image_size: pixels a side, see `forecast_accuracy`.

    Returns:
        A row a limit; columns limit (mean over seeds), forecast (the same), and low and high, within
        which the forecast from a further seed lies in 95 % of cases, by Student's t; NaN for a single
        seed. Whether the curve goes on as a power is not in it. All but the limit are NaN where the
        curve of a seed has passed it.

    Raises:
        ValueError: a seed with fewer than two budgets or sizes.
    """
    curves = [curve.rename(columns={"joint": "mean"}) for _, curve in runs.groupby("seed")]
    rows = {}
    for name, limit in limits.items():
        found = [forecast_accuracy(curve, limit, frames_seen, image_size) for curve in curves]
        values = pd.Series([value.item() for value, _ in found])
        mean = values.mean(skipna=False)
        # A further seed scatters as well as their mean.
        error = values.std(skipna=False) * np.sqrt(1 + 1 / len(values))
        half = half_interval(error, len(values))
        reached = np.mean([at for _, at in found])
        rows[name] = {"limit": reached, "forecast": mean, "low": mean - half, "high": mean + half}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("limit is")


def on_log_image(*tables: pd.DataFrame) -> pd.DataFrame:
    """Of runs of studies, see StudyRecord.table, those on the log's image at 64 pixels or more."""
    runs = pd.concat(tables)
    return runs[runs["variant"].str.startswith("log-") & (runs["image_size"] >= 64)]

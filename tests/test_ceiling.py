"""The parts of a ceiling against parts that were put in, and forecasts against exact power laws."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from amc_utils import metrics
from amc_utils.studies import ceiling

NAMES = ["BPSK", "QPSK"]


def predictions(modulation_right, snr_right, labels=0):
    """Predictions that are right where they are said to be; `labels` are the true SNR labels."""
    right, level = np.asarray(modulation_right, bool), np.asarray(snr_right, bool)
    labels = np.broadcast_to(labels, right.shape)
    decided = pd.Categorical(np.where(right, *NAMES), NAMES, ordered=True)
    return pd.DataFrame({
        "frame": np.arange(len(right)),
        "modulation": pd.Categorical(np.full(len(right), NAMES[0]), NAMES, ordered=True),
        "predicted_modulation": decided,
        "snr_label": labels,
        "predicted_snr_label": np.where(level, labels, labels + 2),
    })  # fmt: skip


def drawn(rng, num_frames, modulation, snr):
    """Predictions of independent tasks, right with these probabilities, at the labels 0 and 10."""
    right = rng.random((2, num_frames)) < [[modulation], [snr]]
    return predictions(*right, labels=np.where(np.arange(num_frames) % 2, 10, 0))


def test_ladder_goes_down_by_differences():
    many = np.arange(1000)
    rungs = {
        "physics": predictions(many[:500] < 450, many[:500] < 500),
        "receiver": predictions(many < 800, many < 1000),
        "network": predictions(many < 700, many < 1000),
    }
    found = ceiling.ladder(rungs)
    assert found["accuracy"].to_list() == pytest.approx([0.9, 0.8, 0.7])
    assert found["lost"].to_list() == pytest.approx([0.1, 0.1, 0.1])
    # 1.96 standard errors, of one share and of two independent ones.
    errors = [(0.09 / 500), (0.09 / 500 + 0.16 / 1000), (0.16 / 1000 + 0.21 / 1000)]
    assert found["95 % +-"].to_list() == pytest.approx([1.96 * e**0.5 for e in errors], rel=1e-3)


@pytest.fixture
def ladder():
    rng = np.random.default_rng(1)
    chances = {"bound": (0.9, 1.0), "receiver": (0.85, 0.95), "stack": (0.8, 0.9), "plain": (0.5, 0.6)}
    sizes = {"bound": 3000, "receiver": 1000, "stack": 2000, "plain": 2000}
    return {role: drawn(rng, sizes[role], *chance) for role, chance in chances.items()}


def test_causes_are_the_differences_of_known_accuracies_and_sum_to_one(ladder):
    """Of ten frames each: nine, eight, seven and two right; SNR decisions alone would mend two."""
    ten = np.arange(10)
    rungs = {"bound": 9, "receiver": 8, "stack": 7}
    known = {role: predictions(ten < count, ten < 10) for role, count in rungs.items()}
    # Right modulation in four frames, right SNR in two of them, so that SNR decisions mend two.
    known["plain"] = predictions(ten < 4, ten < 2)
    parts = ceiling.decompose(**known)
    # Given the SNR first, 2 frames and 3 are won; modulation first, 0 and then 5.
    assert parts.gains.loc["SNR given first"].to_list() == pytest.approx([0.2, 0.3])
    assert parts.gains.loc["modulation given first"].to_list() == pytest.approx([0.5, 0.0])
    expected = [0.1, 0.1, 0.1, 0.15, 0.35, 0.2]
    assert parts.shares.to_list() == pytest.approx(expected)
    assert list(parts.shares.index) == [*ceiling.CAUSES, ceiling.LEFT]
    assert ceiling.decompose(**ladder).shares.sum() == pytest.approx(1)


def test_shares_at_each_label_sum_to_one_and_their_mean_is_the_whole(ladder):
    parts = ceiling.decompose(**ladder)
    assert parts.by_snr.index.to_list() == [0, 10]
    np.testing.assert_allclose(parts.by_snr.sum(axis=1), 1)
    # Every set has as many frames at one label as at the other.
    np.testing.assert_allclose(parts.by_snr.mean()[parts.shares.index], parts.shares)


def test_split_is_additive_and_treats_both_tasks_alike():
    value = {"neither": 0.2, "SNR": 0.3, "modulation": 0.25, "both": 0.7}
    gains = ceiling.shapley_split(value)
    np.testing.assert_allclose(gains.sum(axis=1), 0.5)
    swapped = ceiling.shapley_split(value | {"SNR": 0.25, "modulation": 0.3})
    mean, other = gains.loc["mean of both"], swapped.loc["mean of both"]
    assert (mean["SNR"], mean["modulation"]) == pytest.approx((other["modulation"], other["SNR"]))
    assert mean["SNR"] == pytest.approx((0.1 + 0.45) / 2)
    same = ceiling.shapley_split(value | {"modulation": 0.3}).loc["mean of both"]
    assert same["SNR"] == pytest.approx(same["modulation"])
    useless = ceiling.shapley_split({"neither": 0.2, "SNR": 0.2, "modulation": 0.7, "both": 0.7})
    assert (useless["SNR"] == 0).all()


def test_decisions_are_given_frame_by_frame_whatever_the_order(ladder):
    given = ceiling.given_decisions(ladder["plain"], ladder["stack"])
    for name, role in (("neither", "plain"), ("both", "stack")):
        assert given[name].mean() == metrics.correct(ladder[role])["joint"].mean()
    shuffled = ceiling.given_decisions(ladder["plain"], ladder["stack"].sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(given, shuffled)
    some = ladder["stack"].head(100)
    with pytest.raises(
        ValueError, match="same frames, got 2000 and 100 frames of which 100 are shared"
    ):
        ceiling.decompose(**ladder | {"stack": some})


def test_intervals_are_those_of_a_bootstrap(ladder):
    """Of frames drawn anew; wider where two networks share theirs, which the interval leaves out."""
    parts = ceiling.decompose(**ladder)
    rng = np.random.default_rng(2)

    def again(table, rows):
        return table.iloc[rows].assign(frame=np.arange(len(table)))

    shares = []
    for _ in range(200):
        rows = {role: rng.integers(len(table), size=len(table)) for role, table in ladder.items()}
        rows["plain"] = rows["stack"]
        drawn_anew = {role: again(table, rows[role]) for role, table in ladder.items()}
        shares.append(ceiling.decompose(**drawn_anew).shares)
    half = 1.96 * pd.DataFrame(shares).std()
    apart, shared = list(ceiling.CAUSES[:3]), list(ceiling.CAUSES[3:])
    np.testing.assert_allclose(parts.half_intervals[apart], half[apart], rtol=0.15)
    assert (parts.half_intervals[shared] > half[shared]).all()


def power_law(frames, limit=0.7, factor=5.0):
    return limit - factor * np.asarray(frames) ** -0.5


def test_forecast_continues_a_power_law_towards_the_bound():
    frames = np.array([1e3, 4e3, 16e3])
    curve = pd.DataFrame({"frames_seen": frames, "mean": power_law(frames)})
    found, limit = ceiling.forecast_accuracy(curve, 0.7, [64e3, 1e12])
    assert limit == 0.7
    fitted, limit = ceiling.forecast_accuracy(curve, None, [64e3])
    assert (fitted.item(), limit) == pytest.approx((found[0], 0.7), abs=1e-3)
    assert np.isnan(ceiling.forecast_accuracy(curve, 0.66, [64e3])[0]).all()
    assert found == pytest.approx([power_law(64e3), 0.7], abs=1e-4)
    with pytest.raises(ValueError, match="at least 2 budgets, got 1"):
        ceiling.forecast_accuracy(curve.head(1), 0.7, 1e6)


def test_forecast_carries_on_over_pixels_too():
    frames, pixels = np.array([1e3, 4e3, 1e3, 4e3, 1e3]), np.array([64, 64, 128, 128, 96])
    law = {"frames_seen": frames, "image_size": pixels, "mean": 0.7 - 5 * frames**-0.5 * pixels**0.3}
    for limit in (0.7, None):
        found, _ = ceiling.forecast_accuracy(pd.DataFrame(law), limit, [1e6, 4e6], 224)
        assert found == pytest.approx(0.7 - 5 * np.array([1e6, 4e6]) ** -0.5 * 224**0.3, abs=1e-3)
    with pytest.raises(ValueError, match="at least 2 image sizes, got 1"):
        ceiling.forecast_accuracy(pd.DataFrame(law).head(2), 0.7, 1e6, 224)


def seeds_of(factors):
    frames = np.array([1e3, 4e3, 16e3])
    return pd.concat([
        pd.DataFrame({"seed": seed, "frames_seen": frames, "joint": power_law(frames, factor=factor)})
        for seed, factor in enumerate(factors)
    ])  # fmt: skip


def test_forecast_over_seeds_has_student_s_interval_that_grows_with_their_spread():
    limits = {"bound": 0.7, "fitted": None, "passed": 0.6}
    factors = np.array([4.6, 5.0, 5.5])
    table = ceiling.forecast(seeds_of(factors), limits, 64e3)
    values = power_law(64e3, factor=factors)
    # Of one run more, of three: twice as wide as that of their mean.
    student = np.array(ttest_1samp(values, 0).confidence_interval())
    low, high = values.mean() + 2 * (student - values.mean())
    assert table.loc["bound"].to_list() == pytest.approx([0.7, values.mean(), low, high])
    assert table.loc["fitted"].to_list() == pytest.approx(table.loc["bound"].to_list(), abs=4e-3)
    assert table.loc["passed"].isna().to_list() == [False, True, True, True]
    wider = ceiling.forecast(seeds_of(5 + 2 * (factors - 5)), limits, 64e3)
    width, doubled = (some.loc["bound", "high"] - some.loc["bound", "low"] for some in (table, wider))
    assert doubled == pytest.approx(2 * width)


def test_forecast_of_one_seed_has_no_interval():
    row = ceiling.forecast(seeds_of([5.0]), {"bound": 0.7}, 64e3).loc["bound"]
    assert row["forecast"] == pytest.approx(power_law(64e3))
    assert row[["low", "high"]].isna().all()

"""Tables against numbers worked out by hand or published."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from amc_utils import metrics

NAMES = ["BPSK", "QPSK", "8PSK"]


def predictions(rows):
    columns = ["modulation", "snr_label", "predicted_modulation", "predicted_snr_label", "confidence"]
    table = pd.DataFrame(rows, columns=columns)
    for name in ("modulation", "predicted_modulation"):
        table[name] = pd.Categorical(table[name], NAMES, ordered=True)
    table["frame"] = range(len(table))
    table["modulation_confidence"] = table.pop("confidence")
    return table.assign(snr_confidence=1.0)


@pytest.fixture
def table():
    return predictions([
        ("BPSK", 0, "BPSK", 0, 0.9),
        ("BPSK", -2, "BPSK", 0, 0.9),
        ("QPSK", 0, "BPSK", 0, 0.6),
        ("QPSK", -2, "QPSK", -2, 0.6),
    ])  # fmt: skip


def test_wilson_interval_of_published_example():
    """10 of 100: 0.0552 to 0.1744, as Newcombe (1998) and every calculator give it."""
    assert metrics.wilson_interval(10, 100) == pytest.approx((0.0552, 0.1744), abs=1e-4)
    assert metrics.wilson_interval(0, 20)[0] == 0


def test_half_interval_is_the_normal_one_or_student_s():
    assert metrics.half_interval(2.0) == pytest.approx(2 * 1.959964)
    values = np.array([0.1, 0.4, 0.2])
    ends = ttest_1samp(values, 0).confidence_interval()
    half = metrics.half_interval(values.std(ddof=1) / np.sqrt(3), 3)
    assert half == pytest.approx((ends.high - ends.low) / 2)
    assert np.isnan(metrics.half_interval([0.1, np.nan], [1, 1])).all()


def test_accuracies_overall_and_by_level(table):
    overall = metrics.accuracy_table(table).set_index("metric")["value"]
    assert overall.to_dict() == {
        "joint_accuracy": 0.5,
        "modulation_accuracy": 0.75,
        "snr_accuracy": 0.75,
    }
    by_snr = metrics.accuracy_table(table, "snr_label").set_index(["level", "metric"])["value"]
    assert by_snr[-2, "snr_accuracy"] == 0.5
    assert by_snr[0, "modulation_accuracy"] == 0.5


def test_error_of_the_snr_label_is_in_its_units(table):
    assert metrics.snr_error_table(table)["value"].item() == pytest.approx(0.5)


def test_class_scores(table):
    scores = metrics.class_table(table).set_index(["level", "metric"])["value"]
    assert scores["BPSK", "precision"] == pytest.approx(2 / 3)
    assert scores["BPSK", "recall"] == 1
    assert scores["QPSK", "f1"] == pytest.approx(2 / 3)
    assert scores["8PSK", "f1"] == 0


def test_both_snr_ranges_stand_side_by_side(table):
    groups = metrics.metrics_table(table)
    joint = groups[groups["metric"] == "joint_accuracy"]
    assert joint.loc[joint["group"] == "all", "num_frames"].item() == 4
    assert joint.loc[joint["group"] == "snr_label >= 0", "num_frames"].item() == 2


def test_confusion_rows_are_rates_of_the_true_class(table):
    rates = metrics.confusion(table["modulation"], table["predicted_modulation"], NAMES)
    np.testing.assert_allclose(rates.loc["QPSK"], [0.5, 0.5, 0])
    assert rates.loc["8PSK"].isna().all()


def test_cells(table):
    cells = metrics.cell_table(table).set_index(["modulation", "snr_label"])["value"]
    assert cells.to_dict() == {("BPSK", -2): 0, ("BPSK", 0): 1, ("QPSK", -2): 1, ("QPSK", 0): 0}


def test_calibration_of_a_sure_and_a_humble_guess(table):
    right = metrics.correct(table)["modulation"]
    bins = metrics.calibration_table(table["modulation_confidence"], right, num_bins=2)
    assert bins["num_frames"].tolist() == [2, 2]
    assert bins["confidence"].tolist() == pytest.approx([0.6, 0.9])
    assert bins["accuracy"].tolist() == [0.5, 1.0]
    assert metrics.expected_calibration_error(bins) == pytest.approx((0.1 + 0.1) / 2)


def test_paired_comparison_is_the_exact_sign_test(table):
    better = table.assign(
        predicted_modulation=table["modulation"], predicted_snr_label=table["snr_label"]
    )
    row = metrics.paired_comparison({"a": table, "b": better}).iloc[0]
    assert (row["only a right"], row["only b right"]) == (0, 2)
    assert row["difference"] == -0.5
    assert row["p value"] == pytest.approx(2 * 0.5**2)
    other = table.assign(frame=table["frame"] + 1)
    with pytest.raises(ValueError, match="share their test frames"):
        metrics.paired_comparison({"a": table, "b": other})


def test_interval_of_a_paired_difference_holds_the_true_one_nineteen_times_in_twenty():
    """Two runs that are right together in half of the frames, and apart in a third."""
    rng = np.random.default_rng(3)
    rows = [("BPSK", 0, guess, 0, 1.0) for guess in ("BPSK", "QPSK")]
    right, wrong = (predictions([row]) for row in rows)
    both = [pd.concat([right, wrong]).assign(frame=[0, 1])] * 2
    assert metrics.paired_comparison({"a": both[0], "b": both[1]}).loc[0, ["low", "high"]].sum() == 0

    def drawn(choice, of_frames):
        names = np.where(np.isin(choice, of_frames), "BPSK", "QPSK")
        table = pd.concat([right] * len(choice)).assign(frame=range(len(choice)))
        return table.assign(predicted_modulation=pd.Categorical(names, NAMES, ordered=True))

    held = []
    for _ in range(200):
        choice = rng.choice(4, size=100, p=[1 / 2, 1 / 4, 1 / 12, 1 / 6])
        pair = {"a": drawn(choice, [0, 1]), "b": drawn(choice, [0, 2])}
        row = metrics.paired_comparison(pair).iloc[0]
        held.append(row["low"] <= 1 / 4 - 1 / 12 <= row["high"])
    assert 0.91 <= np.mean(held) <= 0.99


def test_confused_pairs_counts_both_ways():
    rows = [("BPSK", "BPSK")] * 4 + [("QPSK", "QPSK"), ("QPSK", "BPSK")] + [("QPSK", "8PSK")] * 2
    rows += [("8PSK", "8PSK")] * 3 + [("8PSK", "QPSK")]
    table = predictions(
        [(true, 10, predicted, 10, 0.5) for true, predicted in rows] + [("BPSK", 20, "BPSK", 20, 0.5)]
    )
    pairs = metrics.confused_pairs(table)
    assert pairs.index.tolist() == [10]
    assert set(pairs.loc[10, ["a", "b"]]) == {"QPSK", "8PSK"}
    assert pairs.loc[10, "share"] == 3 / 8


def test_falling_label_is_found_in_a_logistic_course_whatever_the_edges_are():
    labels = np.arange(0, 31, 2)
    values = 0.1 + 0.8 / (1 + np.exp((labels - 13.0) / 1.5))
    curve = pd.DataFrame({"value": values, "num_frames": 2000}, index=labels)
    curve.iloc[0, 0], curve.iloc[-1, 0] = 1.0, 0.9
    middle, low, high = metrics.falling_label(curve)
    assert middle == pytest.approx(13.0, abs=0.01)
    assert low < 13.0 < high
    assert high - low < 0.6
    assert np.isnan(metrics.falling_label(curve.iloc[:6])).all()
    step = curve.assign(value=np.where(labels < 13, 0.9, 0.1))
    assert np.isnan(metrics.falling_label(step)).all()
    few = curve.assign(num_frames=100)
    assert np.ptp(metrics.falling_label(few)[1:]) > 2 * (high - low)

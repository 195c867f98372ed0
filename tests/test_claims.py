"""The claims ledger: rules that decide as they say, numbers that are those of the runs."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ttest_1samp

from amc_utils.losses import snr_loss
from amc_utils.runtime.paths import REPOSITORY, Workspace
from amc_utils.studies import claim_figures, claim_measures, claims, pages
from amc_utils.studies.claim_rules import Claim, ClaimTest, read_claims
from amc_utils.studies.record import list_studies, named_study
from amc_utils.studies.records import PLAN, read_plan
from amc_utils.studies.study import read_study

HERE = Workspace(REPOSITORY)
MEASURES = claim_measures.MEASURES
CLAIMS = read_claims()
STUDIES = {study.name: study for study in list_studies(HERE)}
RULE = {"what": "number", "measure": "joint", "study": "s", "variant": "a", "supported": [0.1, 0.2]}


def test_ledger_covers_the_claims_of_the_log():
    assert list(CLAIMS) == [
        "ceiling", "swin", "larger", "order", "weights", "distance", "overfitting", "hardest",
        "above-25", "maximum", "resume",
    ]  # fmt: skip
    for claim in CLAIMS.values():
        assert all(getattr(claim, part) for part in ("statement", "source", "rule", "refuted_by"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"measure": "beauty"}, "measure must be one of joint, .* got 'beauty'"),
        ({"runs": ["x"]}, "must name either runs, or a study and its variant"),
        ({"study": ""}, "must name either runs, or a study and its variant"),
        ({"measure": "changed_predictions"}, "must name a second variant"),
        ({"supported": None}, "must say what would support or refute"),
        ({"supportd": [0, 1]}, "Extra inputs are not permitted"),
    ],
)
def test_rule_that_makes_no_sense_is_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        ClaimTest.model_validate(RULE | change)


def test_one_number_stands_for_a_claim():
    about = dict.fromkeys(("statement", "source", "experiment", "rule", "refuted_by"), "x")
    for tests in ([RULE], [RULE | {"decides": True}] * 2):
        with pytest.raises(ValueError, match=r"one test of a claim must have decides: true, got [02]"):
            Claim.model_validate(about | {"tests": tests})


@pytest.mark.parametrize(
    ("low", "high", "supports", "verdict"),
    [
        (0.11, 0.19, "supported", "supported"),
        (0.11, 0.19, "artefact", "artefact"),
        (0.09, 0.19, "supported", "open"),
        (0.11, 0.21, "supported", "open"),
        (-0.5, 0.05, "supported", "not supported"),
        (-0.5, 0.06, "supported", "open"),
        (0.06, 0.09, "supported", "neither"),
        (0.1, 0.2, "supported", "supported"),
        (0.05, 0.05, "supported", "not supported"),
    ],
)
def test_verdict_is_that_of_the_range_that_holds_the_whole_interval(low, high, supports, verdict):
    test = ClaimTest.model_validate(RULE | {"refuted": [-np.inf, 0.05], "supports": supports})
    assert claims._verdict(test, low, high) == verdict


def test_what_stays_open_names_the_run_that_decides():
    test = ClaimTest.model_validate(RULE | {"awaits": "gpu-run"})
    assert claims._verdict(test, 0.11, 0.21) == "open until gpu-run"
    assert claims._verdict(test, 0.11, 0.19) == "supported at this scale"


def test_interval_where_both_ranges_meet_decides_nothing():
    test = ClaimTest.model_validate(RULE | {"supported": [0, 1], "refuted": [-1, 0]})
    assert claims._verdict(test, 0.0, 0.0) == "open"


def test_interval_of_a_mean_is_that_of_student_s_t():
    values = [0.1, 0.2, 0.15]
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert claims.interval(values) == pytest.approx((0.15, expected.low, expected.high))


def test_interval_of_a_spread_holds_the_true_one_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    ends = np.array([claims.interval(rng.normal(7, 2, 3), "spread") for _ in range(4000)])
    assert np.mean((ends[:, 1] < 2) & (ends[:, 2] > 2)) == pytest.approx(0.95, abs=0.015)
    assert claims.interval([1.0, 2.0, 3.0], "spread")[0] == 1


def test_each_run_is_judged_by_the_extremes():
    assert claims.interval([0.1, 0.4, 0.1], "each") == pytest.approx((0.2, 0.1, 0.4))
    assert claims.interval([0.3, 0.3, 0.3], "each") == pytest.approx((0.3, 0.3, 0.3))


class FakeRun:
    """Run with predictions: 26 levels, modulations A and B."""

    def __init__(self, true, given, modulation="A", predicted="A"):
        self.predictions = pd.DataFrame({
            "frame": range(len(true)),
            "modulation": pd.Categorical([modulation] * len(true), ["A", "B"]),
            "snr_label": true,
            "predicted_modulation": pd.Categorical([predicted] * len(true), ["A", "B"]),
            "predicted_snr_label": given,
        })  # fmt: skip
        self.name = "fake"


def test_attractor_is_the_share_of_the_most_popular_wrong_level():
    run = FakeRun([0, 2, 4, 6, 8], [2, 2, 2, 2, 0])
    assert claim_measures.mode_collapse_rate(run) == pytest.approx(3 / 5)
    assert claim_measures.mode_collapse_rate(FakeRun([0, 2], [0, 2])) == 0


def test_changed_predictions_counts_any_difference():
    one, other = FakeRun([0, 2, 4, 6], [0, 2, 4, 6]), FakeRun([0, 2, 4, 6], [0, 2, 4, 8])
    assert claim_measures.changed_predictions(one, one) == 0
    assert claim_measures.changed_predictions(one, other) == 0.25
    other.predictions["frame"] += 1
    with pytest.raises(ValueError, match="must share their test frames"):
        claim_measures.changed_predictions(one, other)


def test_measures_of_one_run_are_its_own_numbers():
    """Of a committed run: those of its record, and typed out from its history."""
    run = claims.named_run(HERE, "radioml_2018-likelihoods")
    for measure, name in {"joint": "joint_accuracy", "snr": "snr_accuracy"}.items():
        found = claim_measures.MEASURES[measure].of(run.predictions).mean()
        assert found == pytest.approx(run.facts["test"][name]["value"])
    found = claim_measures.MEASURES["snr_label_mae"].of(run.predictions).mean()
    assert found == pytest.approx(run.facts["test"]["snr_label_mae"]["value"])
    kept, last = run.facts["kept"], run.history.iloc[-1]
    logs = [
        math.log(kept[f"variance_{task}"]) - math.log(kept[f"train_eval_{task}_loss"])
        for task in ("modulation", "snr")
    ]
    assert claim_measures.MEASURES["variance_beyond_loss"].of(run) == pytest.approx(max(map(abs, logs)))
    same, counted = (last[f"{part}_joint_accuracy"] for part in ("train_eval", "train"))
    validation = last["validation_joint_accuracy"]
    measures = {name: measure.of for name, measure in claim_measures.MEASURES.items()}
    assert measures["validation_above_training_same_mode"](run) == pytest.approx(validation - same)
    assert measures["validation_above_training"](run) == pytest.approx(validation - counted)
    assert measures["dropout_in_training"](run) == pytest.approx(same - counted)


def test_bound_agrees_with_itself_and_not_with_a_shuffled_one(monkeypatch):
    bound = claims.named_run(HERE, "genie-bound")
    shuffled = bound.predictions.sample(frac=1, random_state=0).reset_index(drop=True)
    shuffled[["modulation", "snr_label"]] = bound.predictions[["modulation", "snr_label"]]
    for numbers in (claim_measures._cells, claim_measures._confusions):
        assert claim_measures._agreement(bound, numbers) == pytest.approx(1)
    other = SimpleNamespace(predictions=shuffled)
    monkeypatch.setattr(claim_measures, "bound_of", lambda run: bound)
    assert abs(MEASURES["bound_cells"].of(other)) < 0.25


def drawn_run(truth, num_frames, rng):
    """Run whose frames are right by chance, with the probabilities truth [modulations, levels]."""
    modulation, level = (np.repeat(n, num_frames) for n in np.indices(truth.shape).reshape(2, -1))
    right = rng.uniform(size=len(level)) < truth[modulation, level]
    names = pd.Categorical.from_codes(modulation, [f"M{n}" for n in range(len(truth))])
    predictions = pd.DataFrame({"modulation": names, "predicted_modulation": names, "snr_label": level})
    predictions["predicted_snr_label"] = np.where(right, level, level + 1)
    return SimpleNamespace(predictions=predictions)


def test_rank_correlation_beyond_noise_is_that_of_many_frames(monkeypatch):
    """Two runs of few frames, classes equally hard in truth: little agrees, all of it beyond noise."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 1, (40, 26))
    few, others = drawn_run(truth, 6, rng), drawn_run(truth, 6, rng)
    monkeypatch.setattr(claim_measures, "bound_of", lambda run: others)
    assert MEASURES["bound_cells"].of(few) < 0.75
    assert MEASURES["bound_cells_at_equal_snr"].of(few) == pytest.approx(1, abs=0.06)


def test_rank_correlation_at_equal_snr_is_blind_to_what_snr_does_to_all(monkeypatch):
    """Both get better with SNR, and within a level nothing is common."""
    rng = np.random.default_rng(1)
    one, other = (np.linspace(0, 0.8, 26) + rng.uniform(0, 0.2, (40, 26)) for _ in range(2))
    run, bound = drawn_run(one, 60, rng), drawn_run(other, 60, rng)
    monkeypatch.setattr(claim_measures, "bound_of", lambda run: bound)
    assert MEASURES["bound_cells"].of(run) > 0.8
    assert abs(MEASURES["bound_cells_at_equal_snr"].of(run)) < 0.15


def test_labels_that_the_bound_has_decided_say_nothing_of_the_order(monkeypatch):
    """The order of classes agrees where the bound is between chance and certainty, and only there."""
    rng = np.random.default_rng(2)
    truth = np.concatenate([rng.uniform(0.2, 0.8, (40, 8)), np.ones((40, 18))], axis=1)
    one = truth.copy()
    one[:, 8:] = rng.uniform(0.2, 0.8, (40, 18))
    run, bound = drawn_run(one, 60, rng), drawn_run(truth, 60, rng)
    monkeypatch.setattr(claim_measures, "bound_of", lambda run: bound)
    assert MEASURES["bound_cells_at_equal_snr"].of(run) == pytest.approx(1, abs=0.06)


def test_interval_holds_the_error_of_frames_that_all_runs_share():
    """Seeds agree to the digit, and a few frames would have decided otherwise."""
    assert claims.interval([0.3, 0.3, 0.3]) == pytest.approx((0.3, 0.3, 0.3))
    found = claims.interval([0.3, 0.3, 0.3], frame_error=0.01)
    assert found == pytest.approx((0.3, 0.3 - 0.0196, 0.3 + 0.0196), abs=1e-5)
    (test,) = [t for t in CLAIMS["ceiling"].tests if t.decides]
    runs = claims._runs(test, test.variant, HERE, STUDIES)
    values, error = claims._values(test, runs, [])
    assert values == pytest.approx([run.facts["test"]["joint_accuracy"]["value"] for run in runs])
    assert 0.5 < error / math.sqrt(np.mean(values) / len(runs[0].predictions)) < 1
    own = claims._runs(test.model_copy(update={"tested_on": ""}), test.variant, HERE, STUDIES)
    assert claims._values(test, own, [])[1] == 0


def test_study_with_a_seed_missing_is_not_run_yet():
    (test,) = [t for t in CLAIMS["ceiling"].tests if t.decides]
    assert len(claims._runs(test, test.variant, HERE, STUDIES)) == 3
    study = named_study(HERE, test.study)
    study.plan["seeds"].append(4)
    assert claims._runs(test, test.variant, HERE, {study.name: study}) == []


def test_claim_without_runs_is_not_run_yet(tmp_path):
    (tmp_path / "results").mkdir()
    some = {"order": CLAIMS["order"]}
    rows = claims.evaluate(some, Workspace(tmp_path))
    assert list(rows["verdict"]) == ["not run yet"]
    short, full = pages.short_table(some, rows), pages.full_table(rows)
    rule = "supported 0.005 to ∞; not -∞ to 0.005"
    assert f"| new order less fixed order | {rule} | not run yet |  |" in short
    assert f"| joint accuracy |  | {rule} |  | not run yet |" in full


def test_short_table_counts_the_verdicts_that_it_leaves_out():
    rows = pd.read_csv(REPOSITORY / "results" / "claims.csv")
    short, full = pages.short_table(CLAIMS, rows), pages.full_table(rows)
    tallies = [line.split("|")[-2] for line in short.splitlines() if line.startswith("| **")]
    assert len(tallies) == len(CLAIMS)
    left_out = sum(int(number) for tally in tallies for number in re.findall(r"\d+", tally))
    assert len(tallies) + left_out == len(rows) == full.count("\n| ") - 1


def test_ledger_is_that_of_the_runs(tmp_path):
    """`amc report` was run after the last change of claims.yaml or results/."""
    rows = claims.evaluate(CLAIMS, HERE)
    stored = pd.read_csv(REPOSITORY / "results" / "claims.csv")
    rows.to_csv(tmp_path / "claims.csv", index=False, float_format="%.6g", lineterminator="\n")
    again = pd.read_csv(tmp_path / "claims.csv")
    pd.testing.assert_frame_equal(stored, again, rtol=1e-4, atol=1e-6)
    verdicts = {
        "supported",
        "not supported",
        "artefact",
        "neither",
        "open",
        "not run yet",
    }
    planned = {
        f"open until {step.result.replace('results/', 'study ')}"
        for step in read_plan(HERE.root / PLAN)
    }
    repeated = rows["verdict"].str.removesuffix(" at this scale").isin(["supported", "not supported"])
    assert set(rows["verdict"][~repeated]) <= verdicts | planned


def test_scale_of_a_network_tested_on_other_frames_is_that_of_its_training():
    """Typed out: 442 classes, 50 frames each, of which four fifths train; operations are equal."""
    rows = pd.read_csv(REPOSITORY / "results" / "claims.csv").set_index("what")
    row = rows.loc["Swin-Tiny less ResNet18, stack"]
    assert row["scale"] == (
        "442 classes, synthetic (radioml_2018); swin_tiny, 17,680 frames "
        "less resnet18, 43,140 frames; 32 px"
    )
    assert row["tflop"] == pytest.approx(9.6, rel=0.05)
    equal = rows[rows["claim"].isin(["swin", "larger"]) & rows["tflop_minus"].notna()]
    assert len(equal) == 6
    assert (equal["tflop"] / equal["tflop_minus"]).between(0.9, 1.1).all()


def test_runs_of_other_seeds_are_not_paired(monkeypatch):
    (test,), workspace = CLAIMS["order"].tests, HERE
    variants = (test.variant, test.minus)
    by_variant = {name: claims._runs(test, name, workspace, STUDIES) for name in variants}
    by_variant[test.minus].reverse()
    monkeypatch.setattr(claims, "_runs", lambda test, variant, *_: by_variant[variant])
    with pytest.raises(ValueError, match="compares runs by seed, and got"):
        claims._measured(test, workspace, STUDIES)


def test_claim_is_shown_with_its_rule_its_rows_and_a_figure(tmp_path, capsys):
    row = {"what": "a less b", "number": 0.0112345, "low": -0.01, "high": 0.03, "num_runs": 3}
    row |= {"unit": "joint accuracy", "tflop": 1.0, "tflop_minus": 1.0, "verdict": "open"}
    row |= {"support_low": 0.02, "support_high": np.inf, "refute_low": -np.inf, "refute_high": 0.0}
    missing = dict.fromkeys(row) | {"what": "c", "unit": "dB", "verdict": "not run yet", "num_runs": 0}
    rows = pd.DataFrame(
        [row | {"claim": "above-25"}, missing | {"claim": "above-25"}, row | {"claim": "swin"}]
    )
    fig = claim_figures.claim_figure(rows[rows["claim"] == "above-25"].astype({"number": float}))
    assert [ax.get_xlabel() for ax in fig.axes] == ["joint accuracy", "dB"]
    shown = claim_figures.show("above-25", CLAIMS, rows, Workspace(tmp_path))
    assert shown["what"].tolist() == ["a less b", "c"]
    assert shown["number"].iloc[0] == 0.0112
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "fig_claims_above_25.pdf", "fig_claims_above_25.png"
    }  # fmt: skip
    printed = " ".join(capsys.readouterr().out.split())
    assert " ".join(CLAIMS["above-25"].statement.split()) in printed
    assert "Rule: " in printed


def test_every_verdict_has_an_interval_of_three_runs_or_more():
    rows = pd.read_csv(Path(REPOSITORY / "results" / "claims.csv"))
    waiting = rows["verdict"].str.match("not run yet|open until") & rows["number"].isna()
    judged = rows[~waiting]
    assert judged[["number", "low", "high"]].notna().all(axis=None)
    assert (judged["num_runs"] >= 3).all()


def test_snr_losses_are_compared_at_equal_size():
    """All are as large as cross-entropy where every level is equally likely, ln 26."""
    study = read_study(REPOSITORY / "profiles/studies/snr_losses.yaml")
    logits, target = torch.zeros(26, 26), torch.arange(26)
    for name, own in study.variants.items():
        weight, kind = own.get("task_weights", [1.0, 1.0])[1], own.get("snr_loss", "cross_entropy")
        loss = snr_loss(logits, target, weights=own["snr_loss_weights"], kind=kind)
        assert weight * loss.item() == pytest.approx(math.log(26), rel=2e-3), name


def test_networks_are_compared_at_their_best_rates():
    """By both tasks' losses in validation; the best rate is no end of those tried.

    By joint accuracy another may lead, but by no more than its test frames can tell apart.
    """
    tried: dict[str, dict[float, float]] = {}
    tried_accuracies: dict[str, dict[float, float]] = {}
    for run in named_study(HERE, "network_rates").runs:
        image_and_network = run.name.rsplit("-", 3)[0]
        kept = run.facts["kept"]
        loss = kept["validation_modulation_loss"] + kept["validation_snr_loss"]
        rate, joint = run.facts["config"]["learning_rate"], run.facts["test"]["joint_accuracy"]
        tried.setdefault(image_and_network, {})[rate] = loss
        tried_accuracies.setdefault(image_and_network, {})[rate] = joint["value"]
        error = (joint["high"] - joint["low"]) / (2 * 1.96)
    networks = read_study(REPOSITORY / "profiles/studies/networks.yaml").variants
    for name, own in networks.items():
        of_kind = tried[name.replace("resnet34", "resnet18")]
        best = min(of_kind, key=of_kind.get)
        assert own["learning_rate"] == best, name
        assert min(of_kind) < best < max(of_kind), name
        accuracies = tried_accuracies[name.replace("resnet34", "resnet18")]
        assert accuracies[best] > max(accuracies.values()) - 2 * error, name

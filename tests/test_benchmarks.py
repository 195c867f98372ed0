"""The benchmarks run; how fast anything is, no test says."""

from __future__ import annotations

import importlib

import pandas as pd
import pytest
import torch

from amc_utils.runtime.paths import REPOSITORY


@pytest.fixture
def load(monkeypatch):
    """Importer of a benchmark whose tasks have a single turn."""
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")

    def load(name):
        module = importlib.import_module(name)
        take_turns = importlib.import_module("timing").take_turns
        once = {"repeats": 1}
        monkeypatch.setattr(module, "take_turns", lambda *a, **k: take_turns(*a, **k | once))
        return module

    yield load
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["pictures", "generation", "reading", "growth"])
def test_every_task_has_its_turn(load, monkeypatch, name):
    module = load(name)
    if name == "reading":
        monkeypatch.setattr(module, "FRAMES_PER_CELL", 3)
    raw = pd.concat(module.measure())
    assert (raw[["amount", "seconds"]] > 0).all(axis=None)
    summary = importlib.import_module("timing").summarise(raw)
    against_itself = summary[summary["task"] == summary["to"]]
    assert set(against_itself["benchmark"]) == set(raw["benchmark"])
    assert (against_itself["ratio"] == 1).all()


def test_what_was_measured_is_kept_when_a_later_benchmark_fails(load, monkeypatch, tmp_path):
    run = importlib.import_module("run") if load("growth") else None
    table = pd.DataFrame({"benchmark": ["x"], "task": ["a"], "amount": [1.0], "seconds": [1.0]})

    def measure():
        yield table
        raise RuntimeError("stopped")

    monkeypatch.setattr(importlib.import_module("growth"), "measure", measure)
    monkeypatch.setattr("sys.argv", ["run.py", "growth", "--output", str(tmp_path)])
    with pytest.raises(RuntimeError, match="stopped"):
        run.main()
    assert pd.read_csv(tmp_path / "cpu.csv")["benchmark"].tolist() == ["x"]


def test_summary_is_the_median_of_rates_and_of_ratios_within_a_turn(load):
    timing = load("growth") and importlib.import_module("timing")
    rows = [(task, turn, seconds) for task, turn, seconds in [
        ("a", 1, 1.0), ("b", 1, 2.0), ("a", 2, 10.0), ("b", 2, 30.0), ("a", 3, 2.0), ("b", 3, 3.0)
    ]]  # fmt: skip
    raw = pd.DataFrame(rows, columns=["task", "repeat", "seconds"])
    raw = raw.assign(amount=6.0, benchmark="x", unit="1/s", against="a")
    summary = timing.summarise(raw).set_index("task")
    assert summary.loc["a", "rate"] == 3.0
    assert summary.loc["b", ["rate", "slowest", "fastest", "ratio"]].tolist() == [2.0, 0.2, 3.0, 0.5]

"""The table at the end of `make reproduce`."""

from __future__ import annotations

import json

import pytest
from trainers import TINY

from amc_utils.runtime import paths
from amc_utils.runtime.paths import Workspace
from amc_utils.studies import compare
from amc_utils.studies.compare import comparison
from amc_utils.studies.records import keep_run
from amc_utils.training import train


@pytest.fixture
def spaces(make_config, tmp_path):
    """Workspaces of a committed run and of one that was found, with equal parameters."""
    for name in ("committed", "found"):
        train(make_config(**TINY, run_name=name, num_epochs=1, output_root=str(tmp_path / name)))
    keep_run("committed", str(tmp_path / "committed"))
    return [Workspace(tmp_path / name) for name in ("found", "committed")]


def test_same_parameters_give_the_same_numbers(spaces):
    table = comparison(*spaces)
    assert table["task"].tolist() == ["joint", "modulation", "snr"]
    assert (table["found"] == table["committed"]).all()
    assert (table["verdict"] == "identical").all()
    assert comparison(spaces[1], spaces[1]).empty


def test_number_beyond_the_interval_is_not_reproduced(spaces, monkeypatch, capsys):
    path = spaces[1].kept / "runs.jsonl"
    facts = json.loads(path.read_text(encoding="utf8"))
    facts["test"]["joint_accuracy"]["value"] = 0.99
    path.write_text(json.dumps(facts), encoding="utf8")
    table = comparison(*spaces).set_index("task")
    assert table.loc["joint", "verdict"] == "not reproduced"
    assert table.loc["snr", "verdict"] == "identical"
    monkeypatch.setattr(paths, "REPOSITORY", spaces[1].root)
    assert compare.compare(str(spaces[0].root)) == 1
    assert "1 not reproduced" in capsys.readouterr().out


def test_run_with_other_parameters_has_nothing_to_compare_with(spaces, make_config):
    other = make_config(**TINY, run_name="other", num_epochs=1, seed=7, output_root=str(spaces[0].root))
    train(other)
    table = comparison(*spaces)
    assert (table["verdict"] == "nothing to compare with").sum() == 3

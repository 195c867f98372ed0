"""Generated parts of README.md and docs/: between their marks, and those of the results."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from amc_utils.results import kept_runs
from amc_utils.runtime.pages import markdown_table, with_table
from amc_utils.runtime.paths import REPOSITORY, Workspace
from amc_utils.studies import pages

REPORT = "`amc report` writes it"


@pytest.fixture(scope="module")
def rendered():
    claims = pd.read_csv(REPOSITORY / "results" / "claims.csv")
    return pages.render_pages(Workspace(REPOSITORY), claims)


def test_only_what_stands_between_the_marks_is_replaced():
    page = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb <!-- y: begin --><!-- y: end -->"
    new = with_table(page, "x", markdown_table(["k", "v"], [["1", "2"]]))
    assert new == page.replace("old", "| k | v |\n| --- | --- |\n| 1 | 2 |")
    assert with_table(new, "x", "old") == page


@pytest.mark.parametrize("page", ["", "<!-- x: begin -->", "<!-- x: end --> <!-- x: begin -->"])
def test_page_without_its_marks_is_refused(page):
    with pytest.raises(ValueError, match="the page must hold the marks <!-- x: begin --> and"):
        with_table(page, "x", "table")


def test_pages_are_those_of_the_results(rendered):
    """`amc report` was run after the last change of results/, claims.yaml or the generated text."""
    stale = [path.name for path, text in rendered.items() if text != path.read_text(encoding="utf8")]
    assert not stale, REPORT


def test_every_mark_is_filled_by_a_command(rendered):
    cards = REPOSITORY.glob("amc_utils/inference/shipped/*/README.md")
    for path in [REPOSITORY / "README.md", *REPOSITORY.glob("docs/*.md"), *cards]:
        marks = set(re.findall(r"<!-- ([\w-]+): begin -->", path.read_text(encoding="utf8")))
        by_other = {"facts"} if path.name == "radioml_2018_as_measured.md" else set()
        assert bool(marks - by_other) == (path in rendered)


def test_stale_page_is_written_and_others_are_left(tmp_path, monkeypatch):
    for name in ("README.md", "other.md"):
        (tmp_path / name).write_text("<!-- x: begin -->\nold\n<!-- x: end -->\n")
    parts = {"README.md": {"x": "new"}, "other.md": {"x": "old"}}
    monkeypatch.setattr(pages, "_parts", lambda workspace, claims: parts)
    assert pages.write_pages(Workspace(tmp_path), pd.DataFrame()) == [tmp_path / "README.md"]
    assert "\nnew\n" in (tmp_path / "README.md").read_text()


def test_every_run_stands_in_the_table_of_all_with_its_own_numbers():
    """Typed out again: name, label and both accuracies of each run."""
    text = (REPOSITORY / "docs" / "results.md").read_text(encoding="utf8")
    rows = re.findall(
        r"^\| `(\S+)` \| ([^|]+) \| [\d,]* \| (\S+) \[.*?\] \| (\S+) \[.*?\] \|$", text, re.M
    )
    runs = {run.name: run for run in kept_runs(Workspace(REPOSITORY))}
    assert sorted(row[0] for row in rows) == sorted(runs)
    for name, label, everywhere, from_0 in rows:
        table = runs[name].predictions
        right = (table["modulation"].astype(str) == table["predicted_modulation"].astype(str)) & (
            table["snr_label"] == table["predicted_snr_label"]
        )
        assert label == runs[name].label
        assert everywhere == f"{right.mean():.3f}"
        assert from_0 == f"{right[table['snr_label'] >= 0].mean():.3f}"


def test_rates_of_speed_are_medians_of_what_was_measured():
    raw = pd.DataFrame(
        {
            "benchmark": "b, 1 core",
            "task": [*"xxxy"],
            "unit": "u/s",
            "amount": 6.0,
            "seconds": [1, 2, 6, 3],
        }
    )
    table = pages.speed_table(raw, [("a thing", "b", "x", ("y",))])
    assert table.splitlines()[-1] == "| a thing | 3.00 u/s | 1.50 | y |"

"""Numbers and figures lead to the run folders that they come from."""

from __future__ import annotations

import re
import subprocess
import sys

import pandas as pd
import pytest

from amc_utils.results import Run
from amc_utils.runtime.paths import REPOSITORY
from amc_utils.studies import trace
from amc_utils.studies.record import named_study

RESULTS = REPOSITORY / "results"


@pytest.fixture(scope="module")
def numbers():
    return trace.all_numbers(RESULTS)


def test_a_score_leads_to_its_run(numbers):
    value = Run(RESULTS / "pocket-442").facts["test"]["joint_accuracy"]["value"]
    for text in (f"{value:.4f}", f"+{value:.3f}", f"{100 * value:.2f}%", f"{100 * value:.1f} %"):
        found = trace.matches(numbers, text)
        own = found[found["file"] == "pocket-442/run.json"]
        assert "test.joint_accuracy.value" in own["what"].tolist()
    near = trace.matches(numbers, f"{value + 0.0002:.4f}")
    assert value not in near["value"].tolist()


def test_a_mean_over_seeds_and_a_difference_lead_to_their_study(numbers):
    study = named_study(RESULTS, "channels")
    for minus, less in (("", ""), ("stack", " less stack")):
        row = study.means(minus=minus).set_index("variant").loc["only-raw"]
        found = trace.matches(numbers, f"{row['mean']:+.6f}")
        what = f"only-raw{less}, joint accuracy, 3 seeds, mean"
        assert ("studies/channels", what) in set(zip(found["file"], found["what"], strict=True))


def test_signs_count_only_where_they_are_written(numbers):
    drop = pd.DataFrame({"value": [-0.25], "owner": "x", "file": "x", "what": "drop"})
    assert len(trace.matches(drop, "0.250")) == len(trace.matches(drop, "-25 %")) == 1
    assert not len(trace.matches(drop, "+0.250"))


@pytest.mark.parametrize("text", ["", "0,627", "six", "1e-3"])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ValueError, match="a number must be written like"):
        trace.matches(pd.DataFrame({"value": [0.1]}), text)


PAGES = ["README.md", "RUNLOG.md", "docs/results.md", "docs/claims.md"]


@pytest.mark.parametrize("page", PAGES)
def test_every_number_in_a_table_of_results_has_a_record(numbers, page):
    text = (REPOSITORY / page).read_text(encoding="utf8")
    found = trace.trace_page(numbers, text)
    lines = text.splitlines()
    in_tables = found[
        [bool(re.match(r"\| .*\[.*\d\]|\| \d", lines[line - 1])) for line in found["line"]]
    ]
    # Fractions; a share in percent in a table's words is the log's.
    in_tables = in_tables[~in_tables["number"].str.contains("%")]
    assert len(in_tables) > 20
    lost = in_tables[in_tables["file"] == ""]
    assert lost.empty, lost.to_string()


def test_the_numbers_of_a_row_lead_to_the_score_and_its_interval(numbers):
    """Not to those of a class or a level that happen to round to the same."""
    found = trace.trace_page(numbers, (REPOSITORY / "README.md").read_text(encoding="utf8"))
    groups = {1: "all all", 2: "snr_label >= 0 all"}
    parts = ("value", "low", "high")
    lines = (REPOSITORY / "README.md").read_text(encoding="utf8").splitlines()
    rows = [n for n, line in enumerate(lines, 1) if re.match(r"\| \S+ \| [^|]+ \| 442 classes", line)]
    assert rows
    for line in rows:
        told = found.loc[found["line"] == line, "what"].tolist()
        headline = [f"test.joint_accuracy.{part}" for part in parts]
        above = [f"joint_accuracy, {groups[2]}, {part}" for part in parts]
        assert told == headline + above


def test_an_invented_number_has_none(numbers):
    text = "## Run pocket-442\n\n| test | 0.62719999 | 0.627 [0.618, 0.636] |\n\nOf nobody: 0.627.\n"
    found = trace.trace_page(numbers, text)
    assert [bool(file) for file in found["file"]] == [False, True, True, True, True]
    unnamed = trace.trace_page(numbers, "## Elsewhere\n\nOf nobody: 0.627\n")
    assert unnamed["file"].tolist() == [""]


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("figures/*.png")), ids=lambda path: path.stem)
def test_every_figure_says_whose_results_it_shows_or_who_draws_it(path):
    *places, drawn = trace.trace_figure(path).splitlines()
    notebook = re.fullmatch(r"drawn by `(\d\d)_.*, make (?:figures|record)", drawn).group(1)
    assert all((REPOSITORY / place).exists() for place in places)
    # Figures of notebooks 02 and 03 are of one run each, which their small print names.
    assert bool(places) == (notebook in ("04", "05", "06", "07", "08")) or notebook in ("02", "03")


def test_the_pdf_says_the_same():
    png = trace.trace_figure(REPOSITORY / "figures" / "fig_pictures.png").splitlines()[0]
    assert png == "results/studies/channels"
    assert b"results/studies/channels" in (REPOSITORY / "figures" / "fig_pictures.pdf").read_bytes()


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("0.62715", "pocket-442/run.json"),
        ("0.98765432", "no record has 0.98765432"),
        ("figures/fig_pictures.pdf", "results/studies/channels"),
    ],
)
def test_command_line(what, told):
    words = [sys.executable, "-m", "amc_utils", "trace", what]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert told in done.stdout

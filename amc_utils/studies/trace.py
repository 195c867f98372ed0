"""Where a number or a figure comes from: the run folders in results/ that say so.

    amc trace 0.627
    amc trace 63.1%
    amc trace figures/fig_ceiling.png
    amc trace README.md

A number matches what rounds to it, in any record of a run, in the means over the seeds of a study and
their differences, and in the verdicts on the claims. A page is read number by number, and each
is looked for in the run, study or claim that its line, its paragraph or the heading above names.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from amc_utils.metrics import TASKS
from amc_utils.results import Run, list_runs
from amc_utils.runtime.paths import REPOSITORY
from amc_utils.studies.record import StudyRecord, list_studies

# Fractions with three digits or more, and shares in percent; other numbers say too little to look for.
_NUMBER = re.compile(r"(?<![\w.,-])([+-]?0\.\d{3,}|[+-]?\d{1,3}(?:\.\d+)? ?%)(?!\w|\.\d)")
_NO_SHARE = re.compile(r"loss|_db\b|_db,|seconds|epoch,|learning_rate|variance|correlation")
_HEADLINE = re.compile(r"test\.joint_accuracy\.value$|(?!.* less ).*, joint accuracy, .*, mean$")
_SHOWN = 12


def all_numbers(results: Path) -> pd.DataFrame:
    """Every number in the records below results/: value, owner, file and what it is.

    The owner is a run, a study or a claim. What is nearest to the reader stands first: scores, claims,
    means of studies, then the rest.
    """
    runs = list_runs(results)
    studies = list_studies(results)
    rows = [row for run in runs for row in _of_run(run, run.name, results)]
    if (results / "claims.csv").is_file():
        claims = pd.read_csv(results / "claims.csv")
        claims = claims.melt(["claim", "what"], ["number", "low", "high"], "part", "value")
        rows += [(r.value, r.claim, "claims.csv", f"{r.what}, {r.part}") for r in claims.itertuples()]
    rows += [row for study in studies for row in _of_study(study)]
    of_studies = [(run, study.name) for study in studies for run in study.runs]
    rows += [row for run, study in of_studies for row in _of_run(run, study, results)]
    tables = [_of_tables(run, run.name, results) for run in runs]
    tables += [_of_tables(run, study, results) for run, study in of_studies]
    first = pd.DataFrame(rows, columns=["value", "owner", "file", "what"])
    # What a run or a variant is known for stands before all else that rounds to the same.
    first = first.iloc[(~first["what"].str.match(_HEADLINE)).to_numpy().argsort(kind="stable")]
    numbers = pd.concat([first, *tables], ignore_index=True).dropna(subset="value")
    # The many thresholds of a network for use fit by chance what is a score.
    of_use = numbers["file"].str.endswith("model.json")
    return numbers.iloc[of_use.to_numpy().argsort(kind="stable")]


def _of_run(run: Run, owner: str, results: Path) -> Iterator[tuple[float, str, str, str]]:
    """Numbers of run.json, and of model.json where the network is for use."""
    contents = {"run.json": {name: run.facts.get(name) for name in ("test", "kept", "seconds")}}
    if (run.folder / "model.json").is_file():
        contents["model.json"] = json.loads((run.folder / "model.json").read_text(encoding="utf8"))
    for name, content in contents.items():
        file = (run.folder / name).relative_to(results).as_posix()
        yield from ((value, owner, file, what) for value, what in _leaves(content, ""))


def _leaves(value: Any, name: str) -> Iterator[tuple[float, str]]:
    """Numbers in nested mappings and lists, with the way to them."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _leaves(inner, f"{name}[{place}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value), name


def _of_study(study: StudyRecord) -> Iterator[tuple[float, str, str, str]]:
    """Means over seeds, and differences of two variants on the same seeds."""
    for task in TASKS:
        for minus in ("", *study.table["variant"].unique()):
            less = f" less {minus}" if minus else ""
            for row in study.means(task, minus=minus).itertuples():
                tested = f" on {row.tested_on}" if row.tested_on else ""
                what = f"{row.variant}{tested}{less}, {task} accuracy, {row.num_seeds} seeds"
                for part in ("mean", "low", "high"):
                    yield getattr(row, part), study.name, f"studies/{study.name}", f"{what}, {part}"


def _of_tables(run: Run, owner: str, results: Path) -> pd.DataFrame:
    """Long form of the run's metrics and history."""
    place = run.folder.relative_to(results).as_posix()
    metrics = run.metrics.melt(["group", "level", "metric"], ["value", "low", "high"], "part", "number")
    # What is said of all frames stands before what is said of a class or a level.
    single = metrics["group"].isin(["modulation", "snr_label"])
    metrics = metrics.iloc[single.to_numpy().argsort(kind="stable")]
    what = metrics["metric"] + ", " + metrics["group"] + " " + metrics["level"] + ", " + metrics["part"]
    parts = [pd.DataFrame({"value": metrics["number"], "file": f"{place}/metrics.csv", "what": what})]
    if (run.folder / "history.csv").is_file():
        history = run.history.melt("epoch", var_name="column")
        what = history["column"] + ", epoch " + history["epoch"].astype(str)
        file = f"{place}/history.csv"
        parts.append(pd.DataFrame({"value": history["value"], "file": file, "what": what}))
    return pd.concat(parts).assign(owner=owner)


def matches(numbers: pd.DataFrame, text: str) -> pd.DataFrame:
    """Rows of all_numbers that round to a number as it is written; in percent, fractions count.

    Raises:
        ValueError: the text is no number.
    """
    found = re.fullmatch(r"([+-]?)(\d+(?:\.(\d+))?) ?(%?)", text.strip())
    if not found:
        raise ValueError(f"a number must be written like 0.627 or 62.7%, got {text!r}")
    sign, digits, decimals, percent = found.groups()
    scale = 100 if percent else 1
    if percent:
        # So few digits fit too much that is said of single classes, levels and epochs.
        single = numbers["file"].str.contains("/metrics.csv|/history.csv", regex=True)
        numbers = numbers[~(single | numbers["what"].str.contains(_NO_SHARE))]
    half = 0.5 * 10.0 ** -len(decimals or "") / scale
    values = numbers["value"].to_numpy()
    # Without a sign it may be written of a loss or a drop.
    values = values if sign else np.abs(values)
    wanted = float(f"{sign}{digits}") / scale
    return numbers[np.abs(values - wanted) <= half * (1 + 1e-9)]


def trace_page(numbers: pd.DataFrame, text: str) -> pd.DataFrame:
    """Numbers of a page in order: line, number, file, what, and `of`, how many of the owner's match.

    File and what are empty where no owner is named.

    Owners are named in the number's line, in its paragraph or in the heading above, in this order.
    """
    owners = set(numbers["owner"])
    rows, heading, known = [], "", {}
    lines = text.splitlines()
    paragraphs = np.cumsum([not line.strip() for line in lines])
    for line_number, line in enumerate(lines):
        heading = line if line.startswith("#") else heading
        together = [lines[i] for i in np.flatnonzero(paragraphs == paragraphs[line_number])]
        for number in _NUMBER.findall(line):
            if number not in known:
                known[number] = matches(numbers, number)
            found = known[number]
            named = (
                found[found["owner"].isin(_named(near) & owners)]
                for near in (line, "\n".join(together), heading)
            )
            named = [rows for rows in named if len(rows)]
            known_for = [rows for rows in named if re.match(_HEADLINE, rows.iloc[0]["what"])]
            # Sentences run over lines; a row of a table stands for itself.
            best = next(iter(named if line.startswith("|") else known_for or named), found[:0])
            file, what = best.iloc[0][["file", "what"]] if len(best) else ("", "")
            rows.append((line_number + 1, number, file, what, len(best)))
    return pd.DataFrame(rows, columns=["line", "number", "file", "what", "of"])


def _named(text: str) -> set[str]:
    """Words that a text marks as names: of runs, studies or claims."""
    return set(re.findall(r"(?:[`*|] ?|\b(?:[Rr]uns?|[Ss]tudy) )([\w.-]+)", text))


def trace_figure(path: Path) -> str:
    """The results that a figure shows, as the file itself says, or who draws it."""
    with Image.open(path.with_suffix(".png")) as picture:
        source = picture.info.get("Source")
    listed = (REPOSITORY / "figures" / "README.md").read_text(encoding="utf8")
    rows = re.findall(r"^\| `(fig_[\w*]+)` \| .* \| (.*?) \| `(.*?)` \|$", listed, re.M)
    for pattern, notebook, command in rows:
        if Path(path.stem).match(pattern):
            drawn = f"drawn by {notebook}, {command}"
            return f"{source.replace(', ', chr(10))}\n{drawn}" if source else drawn
    raise ValueError(f"{path} must be listed in figures/README.md, it is not")


def main(arguments: Sequence[str] | None = None) -> None:
    """Trace from the command line."""
    parser = argparse.ArgumentParser(
        prog="amc trace",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", help="a number, a figure, or a page of text")
    what = parser.parse_args(arguments).what
    try:
        if Path(what).suffix in (".png", ".pdf"):
            print(trace_figure(Path(what)))
            return
        numbers = all_numbers(REPOSITORY / "results")
        if Path(what).is_file():
            print(trace_page(numbers, Path(what).read_text(encoding="utf8")).to_string(index=False))
            return
        found = matches(numbers, what)
        print(
            found.head(_SHOWN).to_string(index=False)
            if len(found)
            else f"no record has {what}; a share is written with %"
        )
        if len(found) > _SHOWN:
            print(f"and {len(found) - _SHOWN} more")
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")

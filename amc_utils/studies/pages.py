"""What README.md and docs/ say of results: tables and sentences, generated between marks.

A new table is a function here, its entry in `_parts`, and its marks in the page.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd

from amc_utils.inference.classifier import SHIPPED, SHIPPED_FOR_RADIOML
from amc_utils.metrics import correct, wilson_interval
from amc_utils.results import Run, kept_runs, named_run
from amc_utils.runtime.pages import markdown_table, with_interval, with_table
from amc_utils.runtime.paths import Workspace, atomic_write
from amc_utils.studies import cards, open_channel
from amc_utils.studies.ceiling import (
    IMAGES_OF_THE_LOG,
    forecast,
    forecast_accuracy,
    on_log_image,
)
from amc_utils.studies.claim_rules import Claim, read_claims
from amc_utils.studies.record import named_study

# The log's image, the same with more frames, ordered images, receiver, bound; and README's other runs.
_LADDER = (
    "log-picture-64", "log-picture-64-fourfold", "radioml_2018-likelihoods",
    "likelihood-receiver-radioml_2018", "genie-bound-radioml_2018",
)  # fmt: skip
_SHOWN = (
    *_LADDER, "genie-bound-phase-unknown-radioml_2018", "gpu-likelihoods", "gpu-likelihoods-swin",
    "radioml_2018", "log-picture-64-resnet18", "log-picture-64-quarter-swin", "samples",
)  # fmt: skip
_WIDTH = 120
# Of the numbers that claims are judged by, unless something else is said.
_USUAL_UNIT = "joint accuracy"
# Rows of the table of speed: what, benchmark, task, and the tasks that it is compared with.
_LOOP, _FAST_LOOP = "numpy.histogram2d, a loop", "fast-histogram, a loop"
_ALONE = "network on one batch"
_SPEED = (
    ("images of log counts, 224 px, 32 at a time", "pictures, 224 px", "ours, raw",
     (_LOOP, _FAST_LOOP, "writing zeros")),
    ("images of log counts, 64 px, 128 at a time", "pictures, 64 px", "ours, raw", (_LOOP, _FAST_LOOP)),
    ("the same, 16 at a time", "pictures, 64 px", "ours, raw, 16 at a time", (_LOOP,)),
    ("the stack with synchronisation, 64 px", "pictures, 64 px", "ours, stack", (_LOOP,)),
    ("with the image of likelihoods", "pictures, 64 px", "ours, stack and likelihoods", (_LOOP,)),
    ("the stack behind the blind front end", "pictures, 64 px",
     "ours, stack behind the blind front end", (_LOOP, "ours, stack")),
    ("generated frames", "generation", "ours, 1 core",
     ("numpy, a loop", "TorchSig, channel, 1 core", "TorchSig, bare, 1 core")),
    ("training Swin-Tiny on the plain image, 64 px", "training, swin_tiny, raw", "network on frames",
     (_ALONE,)),
    ("training Swin-Tiny on the stack, 64 px", "training, swin_tiny, stack", "network on frames",
     (_ALONE,)),
    ("17 of 24 classes from a 4.4 GB file", "reading", "ours", ("h5py, file order",)),
    ("training ResNet18 with two processes, a core each", "processes", "2 processes", ("1 processes",)),
)  # fmt: skip


def write_pages(workspace: Workspace, claims: pd.DataFrame) -> list[Path]:
    """Write README.md and docs/ anew where a generated part has changed; returns these pages.

    Args:
        workspace: the repository.
        claims: rows of amc_utils.studies.claims.evaluate.
    """
    changed = {
        path: text
        for path, text in render_pages(workspace, claims).items()
        if text != path.read_text(encoding="utf8")
    }
    for path, text in changed.items():
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf8")
    return list(changed)


def render_pages(workspace: Workspace, claims: pd.DataFrame) -> dict[Path, str]:
    """Each page with generated parts, as it must read; see write_pages.

    Raises:
        ValueError: a page lacks the marks of a part.
    """
    pages = {}
    for name, parts in _parts(workspace, claims).items():
        path = workspace.root / name
        pages[path] = path.read_text(encoding="utf8")
        for mark, text in parts.items():
            pages[path] = with_table(pages[path], mark, text)
    for name, record in cards.records().items():
        if (path := workspace.root / name) in pages:
            pages[path] = cards.with_results(pages[path], record)
    return pages


def _parts(workspace: Workspace, claims: pd.DataFrame) -> dict[str, dict[str, str]]:
    ledger, shipped = read_claims(), open_channel.shipped_record()
    return {
        "README.md": {
            "headline": _headline(workspace),
            "forecast": _forecast(workspace),
            "runs": _tables_of_runs([named_run(workspace, name) for name in _SHOWN]),
            "open": _open(workspace),
            "verdicts": short_table(ledger, claims),
        },
        "docs/results.md": {
            "runs": _tables_of_runs(kept_runs(workspace)),
            "labels": _by_label(workspace),
            "budgets": _budgets(workspace),
        },
        "docs/claims.md": {"summary": short_table(ledger, claims), "claims": full_table(claims)},
        "docs/classify.md": {
            "calibration": _calibration(shipped),
            "signals": _other_signals(shipped),
            "targets": _targets(workspace),
            "impairments": _impairments(shipped),
            "trials": _trials(shipped),
            "foreign": _foreign_recordings(shipped),
            "onnx": _onnx(),
        },
        "docs/speed.md": {"speed": speed_table(pd.read_csv(workspace.root / "benchmarks" / "cpu.csv"))},
        **{card: _card_parts(workspace, record) for card, record in cards.records().items()},
    }


def _card_parts(workspace: Workspace, record: dict[str, Any]) -> dict[str, str]:
    """Parts of the card of a network that comes with the repository."""
    parts = {
        "training": cards.training(named_run(workspace, record["run"])),
        "evaluation": cards.evaluation(record),
        "calibration": _calibration(record),
        "signals": _other_signals(record),
        "impairments": _impairments(record),
        "file": cards.file_facts(record),
    }
    if record.get("trials"):
        parts |= {"trials": _trials(record), "foreign": _foreign_recordings(record)}
    return parts


def _headline(workspace: Workspace) -> str:
    runs = [named_run(workspace, name) for name in (*_LADDER, "radioml_2018", "samples")]
    logs, longer, ordered, receiver, bound, alone, samples = map(_percent, map(_joint_accuracy, runs))
    times = [run.frames_seen / runs[0].frames_seen for run in (runs[1], runs[5])]
    return fill(
        f"From {runs[0].frames_seen:,} frames, one small network classifies **{ordered}** of the test "
        f"frames correctly with ordered images, and **{logs}** with the log's image; the network on "
        f"samples {samples}. With {times[1]:.0f} times the frames, ordered images without that of "
        f"likelihoods give {alone}, and with {times[0]:.0f} times the log's image gives {longer}. A "
        f"likelihood receiver that knows all modulations reaches {receiver}; the genie-aided bound, "
        f"which no classifier should exceed on average, is {bound}.",
        _WIDTH,
    )


def _forecast(workspace: Workspace) -> str:
    """The curves of the log's image over frames and pixels, carried on to the log's."""
    by_frames, by_pixels = (named_study(workspace, name).table for name in ("record", "image_size"))
    runs = on_log_image(by_frames)
    limits = {"bound": _joint_accuracy(named_run(workspace, _LADDER[-1])), "fitted": None}
    in_all, longest = IMAGES_OF_THE_LOG[1], named_run(workspace, _LADDER[1])
    at_64, at_224 = (
        forecast(some, limits, in_all, pixels)[["forecast", "low", "high"]].map(_percent)
        for some, pixels in ((runs, None), (on_log_image(by_frames, by_pixels), 224))
    )
    (bound, fitted), (finer, finer_fitted) = (
        [f"{row.forecast} [{row.low}, {row.high}]" for row in table.itertuples()]
        for table in (at_64, at_224)
    )
    reached = _joint_accuracy(longest)
    expected = _percent(forecast(runs, limits, longest.frames_seen).loc["bound", "forecast"])
    curve = runs.groupby("frames_seen", as_index=False).agg(mean=("joint", "mean"))
    curve.loc[len(curve)] = longest.frames_seen, reached
    lower = [_percent(forecast_accuracy(curve, limit, in_all)[0].item()) for limit in limits.values()]
    return fill(
        f"What would the log's {in_all:,} frames give? Carried on from four budgets by a power law, "
        f"the small network on the log's image at 64 pixels comes to {lower[0]} if the curve's limit "
        f"is the bound, and to {lower[1]} if the limit is fitted too. The longest run, of "
        f"{longest.frames_seen:,} frames, is a single one; from three seeds and without it the curves "
        f"come to {bound} and {fitted} (95 % intervals over seeds; whether the power law goes on is "
        f"not in them), and would have had {expected} where it has {_percent(reached)}. Carried on "
        f"over pixels to the log's 224 as well, they come to {finer} and {finer_fitted}. The log has "
        f"23.45 % for Swin-Tiny and 24 to 26 % for ResNets, and its repository 28.33 % later.",
        _WIDTH,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def _tables_of_runs(runs: list[Run]) -> str:
    """A table for each set of classes, labels and frames, the most accurate first; Wilson intervals."""
    tables: dict[str, list[list[str]]] = {}
    for run in sorted(runs, key=lambda run: (run.scope, -_joint_accuracy(run))):
        joint = run.metrics[run.metrics["metric"] == "joint_accuracy"].set_index("group")
        groups = ("all", "snr_label >= 0")
        scores = [with_interval(*joint.loc[group, ["value", "low", "high"]]) for group in groups]
        seen = f"{run.trained.frames_seen:,}" if run.trained.frames_seen else ""
        tables.setdefault(run.scope, []).append([f"`{run.name}`", run.label, seen, *scores])
    columns = ["run", "decided by", "training frames", "all labels", "labels from 0"]
    return "\n\n".join(
        f"**{scope}**\n\n{markdown_table(columns, rows)}" for scope, rows in tables.items()
    )


def _joint_accuracy(run: Run) -> float:
    return run.facts["test"]["joint_accuracy"]["value"]


def _by_label(workspace: Workspace) -> str:
    """Joint accuracy against the SNR label, a column a run."""
    table = pd.DataFrame({
        name: named_run(workspace, name).by_label("joint")["value"] for name in _LADDER
    })  # fmt: skip
    rows = [[str(label), *(f"{value:.3f}" for value in row)] for label, *row in table.itertuples()]
    return markdown_table(["SNR label", *_LADDER], rows)


def _budgets(workspace: Workspace) -> str:
    """Both kinds of images of the study `record`: means over seeds, by frames seen in training."""
    study = named_study(workspace, "record")
    means = study.means().set_index("variant")
    seen = study.table.drop_duplicates("variant").set_index("variant")["frames_seen"]
    rows: dict[int, list[str]] = {}
    for variant in sorted(means.index, key=lambda name: (seen[name], name)):
        mean = with_interval(*means.loc[variant, ["mean", "low", "high"]])
        rows.setdefault(seen[variant], []).append(mean)
    lines = [[f"{frames:,}", *cells] for frames, cells in rows.items()]
    return markdown_table(["frames seen in training", "the log's image", "ordered images"], lines)


def _open(workspace: Workspace) -> str:
    """How far one network comes on the open channel, beside one for the paper's and the bound."""
    wide, narrow, bound = (
        [named_run(workspace, name) for name in some]
        for some in (open_channel.WIDE, open_channel.NARROW, open_channel.BOUNDS)
    )

    def percent(run: Run, *, digital: bool = False) -> str:
        clear = open_channel.clear(run.predictions)
        if digital:
            clear = open_channel.digital_modulation(clear)
        return f"{100 * correct(clear)['modulation'].mean():.0f} %"

    label, linear = open_channel.CLEAR_LABEL, percent(bound[0], digital=True)
    return fill(
        f"From {wide[0].frames_seen:,} frames of the channel `open`, the small network names "
        f"{percent(wide[0])} of all 24 modulations at SNR labels from {label}, and "
        f"{percent(wide[0], digital=True)} of the 17 linear ones, where the bound has {linear}; of GNU "
        f"Radio's frames {percent(wide[3])}. After as many frames of the paper's channel it names "
        f"{percent(narrow[0])} in the open, and {percent(narrow[3])} of GNU Radio's.",
        _WIDTH,
    )


def _targets(workspace: Workspace) -> str:
    """What the network for the open channel was to reach."""
    names = zip(open_channel.WIDE, open_channel.NARROW, open_channel.BOUNDS, strict=True)
    runs = [[named_run(workspace, name) for name in some] for some in names]
    named = dict(zip(open_channel.TESTED_ON, runs, strict=True))
    table = open_channel.targets(named, open_channel.shipped_record())
    rows = [
        [
            row.what,
            row.wanted,
            with_interval(row.value, row.low, row.high),
            "yes" if row.is_met else "no",
        ]
        for row in table.itertuples()
    ]
    return markdown_table(["what", "wanted", "value [95 % interval]", "reached"], rows)


def _impairments(record: dict[str, Any]) -> str:
    """What each impairment costs the shipped network."""
    rows = [
        [row["impairment"], f"{row['size']:g}", f"{row['modulation_digital']:.1%}",
         f"{row['calibration_error']:.3f}", f"{row['flagged']:.1%}"]
        for row in record["impairments"]
    ]  # fmt: skip
    return markdown_table(["impairment", "size", "right", "calibration error", "flagged"], rows)


def _calibration(record: dict[str, Any]) -> str:
    """How far the shipped network's confidences and warnings may be trusted."""
    test, recordings, own = record["test"], record["recordings"], record["ood_signals"][0]
    before, after = (
        test[f"calibration_error_{kind}"]["joint"] for kind in ("uncalibrated", "calibrated")
    )
    return fill(
        f"`{record['run']}` has {record['parameters']:,} parameters. On {test['num_frames']:,} test "
        f"frames its joint confidence has an expected calibration error of {after:.4f} ("
        f"{before:.4f} without temperatures), and {own['flagged']:.1%} of them have a p-value below "
        f"1%, where 1% is expected. "
        f"Of {recordings['num_recordings']} recordings of {recordings['frames_each']} frames of one "
        f"class each, {recordings['called_ood']} are wrongly called out of distribution.",
        _WIDTH,
    )


def _trials(record: dict[str, Any]) -> str:
    """What is found of recordings with nothing told, beside what was wanted."""
    trials = record["trials"]
    count, rows = trials["num_recordings"], []
    for name, what, wanted in (
        ("symbol_rate", "symbol rate within 0.5 %", 0.98),
        ("carrier", "carrier within 1 % of the symbol rate", 0.98),
        ("modulation", "modulation", 0.97),
        ("called_ood", "called out of distribution, though known", 0.01),
    ):
        share = trials["right"][name]
        low, high = wilson_interval(share * count, count)
        is_met = share <= wanted if name == "called_ood" else share >= wanted
        bound = "at most" if name == "called_ood" else "at least"
        shown = with_interval(share, float(low), float(high))
        rows.append([what, f"{bound} {wanted:.2f}", shown, "yes" if is_met else "no"])
    error = trials["calibration_error"]
    rows.append([
        "calibration error of the probability", "at most 0.03", f"{error:.3f}",
        "yes" if error <= 0.03 else "no",
    ])  # fmt: skip
    head = [f"of {count} recordings", "wanted", "share [95 % interval]", "reached"]
    return markdown_table(head, rows)


def _foreign_recordings(record: dict[str, Any]) -> str:
    """What becomes of recordings of signals that are no class."""
    rows = [
        [kind, f"{shares['not found']:.0%}", f"{shares['called OOD']:.0%}"]
        for kind, shares in record["trials"]["foreign"].items()
    ]
    head = ["signal", "no symbol rate found", "called out of distribution"]
    return markdown_table(head, rows)


def _onnx() -> str:
    """How far ONNX files of the shipped networks agree with torch, and how fast they are beside it."""
    rows = []
    for model in (SHIPPED, SHIPPED_FOR_RADIOML):
        record = json.loads(model.with_name("onnx.json").read_text(encoding="utf8"))
        for name, told in record["files"].items():
            rate, given = told["frames_per_second"], told["onnxruntime"]
            torch_itself = told["torch_of_rounded_inputs"]
            rows.append([
                f"`{record['run']}`", f"`{name}`", f"{told['bytes'] / 1e6:.1f} MB",
                f"{given['median_difference']:.0e}",
                f"{given['largest_difference']:.0e} ({torch_itself['largest_difference']:.0e})",
                f"{given['within_tolerance']:.1%} ({torch_itself['within_tolerance']:.1%})",
                f"{given['same']['modulation']:.1%} ({torch_itself['same']['modulation']:.1%})",
                f"{rate['onnxruntime'] / rate['torch']:.2f}",
            ])  # fmt: skip
    head = ["network", "file", "size", "median difference", "largest"]
    head += [f"frames within {record['tolerance']:.0e}", "same modulation", "speed"]
    return markdown_table(head, rows)


def _other_signals(record: dict[str, Any]) -> str:
    """Share of frames with a p-value below 1 %, of signals out of distribution, by SNR."""
    table = pd.DataFrame(record["ood_signals"][1:])
    shares = table.pivot(index="signal", columns="snr_db", values="flagged")
    shares = shares.loc[table["signal"].unique(), sorted(shares.columns, reverse=True)]
    rows = [[signal, *(f"{share:.0%}" for share in row)] for signal, *row in shares.itertuples()]
    return markdown_table(["signal", *(f"at {snr_db} dB" for snr_db in shares.columns)], rows)


def speed_table(
    raw: pd.DataFrame, shown: Sequence[tuple[str, str, str, Sequence[str]]] = _SPEED
) -> str:
    """Median rates, and their ratios to those of other tasks that took turns with them.

    Args:
        raw: a row a repeat, as benchmarks/run.py writes it.
        shown: what a row says, how its benchmark's name begins, its task, and the tasks beside it.
    """
    rates = (raw["amount"] / raw["seconds"]).groupby([raw["benchmark"], raw["task"]]).median()
    units = raw.groupby("benchmark")["unit"].first()
    rows = []
    for what, start, task, others in shown:
        (benchmark,) = (name for name in units.index if name.startswith(start))
        rate = rates[benchmark, task]
        for other in others:
            first = [what, f"{_digits(rate)} {units[benchmark]}"] if other == others[0] else ["", ""]
            rows.append([*first, f"{_digits(rate / rates[benchmark, other])}", other])
    return markdown_table(["what", "rate", "ratio", "to"], rows)


def _digits(value: float) -> str:
    """Three significant digits, thousands written out."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def short_table(claims: dict[str, Claim], rows: pd.DataFrame) -> str:
    """A row a claim in Markdown: the number that decides, rule, verdict, and a count of the others.

    Args:
        claims: see read_claims.
        rows: of amc_utils.studies.claims.evaluate.
    """
    lines = []
    for name, claim in claims.items():
        of_claim = rows[rows["claim"] == name]
        others = of_claim.loc[~of_claim["decides"], "verdict"]
        counts = others.replace("until .+", "for a GPU", regex=True).value_counts(sort=False)
        (row,) = of_claim[of_claim["decides"]].itertuples()
        is_plain = row.unit == _USUAL_UNIT or row.unit in row.what
        unit = "" if is_plain else f", {row.unit}"
        number = f"{row.what}{unit}: {_value(row)}" if _value(row) else row.what
        tally = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        lines.append([f"**{name}**: {claim.statement}", number, _rule(row), row.verdict, tally])
    columns = ["claim of the log", "number that decides [95 % interval]", "rule", "verdict"]
    columns.append("its other tests")
    return markdown_table(columns, lines)


def full_table(rows: pd.DataFrame) -> str:
    """All rows in Markdown, with the ranges of their rules and their scale."""
    lines = []
    for row in rows.itertuples():
        scale = f"{row.scale}; {row.num_runs} runs" if _value(row) else ""
        lines.append([row.claim, row.what, row.unit, _value(row), _rule(row), scale, row.verdict])
    columns = ["claim", "what", "unit", "number [95 % interval]", "rule", "scale", "verdict"]
    return markdown_table(columns, lines)


def _value(row: Any) -> str:
    """Number with its interval, or its runs' extremes; nothing where there is none yet."""
    if pd.isna(row.number):
        return ""
    if row.statistic == "each":
        return f"{row.number:+.3f}, runs {row.low:+.3f} to {row.high:+.3f}"
    return with_interval(row.number, row.low, row.high, "+.3f")


def _rule(row: Any) -> str:
    """The ranges that decide, in a few words."""
    ranges = (
        ("supported", row.support_low, row.support_high),
        ("not", row.refute_low, row.refute_high),
    )
    texts = [f"{word} {low:g} to {high:g}" for word, low, high in ranges if pd.notna(low)]
    return "; ".join(texts).replace("inf", "∞")

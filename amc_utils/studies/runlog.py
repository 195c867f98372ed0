"""RUNLOG.md, the lab diary: facts generated from results/, readings written by hand."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd

from amc_utils.metrics import TASKS
from amc_utils.results import Run, kept_runs
from amc_utils.runtime.pages import markdown_table
from amc_utils.runtime.paths import Workspace, atomic_write
from amc_utils.studies.record import StudyRecord, list_studies

_PREAMBLE = """\
# Run log

Runs, newest first, then studies. Everything but the paragraphs headed *Reading* is generated from
`results/` by `amc report`; readings are written by hand and kept. Accuracies are
fractions of test frames, those of runs with 95 % Wilson intervals, every run a single run; those of
studies are means over seeds with the 95 % intervals of Student's t.
"""
_TASKS = ("joint_accuracy", "modulation_accuracy", "snr_accuracy")
_COLUMNS = ("joint", "modulation", "SNR")
_UNREAD = "_Not written yet: what was expected, what came, what it changes._"
_READING = re.compile(r"^\*\*Reading[.:]?\*\*[.:]?\s*", re.M)


def readings(text: str) -> dict[str, str]:
    """Hand-written readings in a diary, by heading: "Run <name>" or "Study <name>".

    Raises:
        ValueError: an entry without its paragraph, whose reading would be lost.
    """
    found = {}
    for entry in re.split(r"^## (?=Run |Study )", text, flags=re.M)[1:]:
        name, _, body = entry.partition("\n")
        marker = _READING.search(body)
        if not marker:
            raise ValueError(
                f"RUNLOG.md's entry {name!r} must have a paragraph that begins with **Reading.**, "
                f"it has none; put it back, and keep headings out of readings"
            )
        found[name] = body[marker.end() :].strip()
    return {name: reading for name, reading in found.items() if reading != _UNREAD}


def render(workspace: Workspace, kept: dict[str, str]) -> str:
    """The diary of a workspace's results, with the readings that are kept.

    A reading whose run or study is gone is kept too, at the end: nothing written by hand is lost.
    """
    newest_first = sorted(kept_runs(workspace), key=lambda run: run.facts["started"])[::-1]
    entries = {f"Run {run.name}": _entry(run) for run in newest_first}
    entries |= {f"Study {study.name}": _study(study) for study in list_studies(workspace)}
    gone = [heading for heading in kept if heading not in entries]
    entries |= dict.fromkeys(gone, "It is no longer in `results/`.\n")
    texts = [
        f"## {heading}\n\n{text}\n**Reading.** {kept.get(heading, _UNREAD)}\n"
        for heading, text in entries.items()
    ]
    return "\n".join([_PREAMBLE, _summary(newest_first), *texts])


def update_runlog(workspace: Workspace) -> Path:
    """Bring the workspace's RUNLOG.md up to date with its results; readings stay."""
    path = workspace.runlog
    kept = readings(path.read_text(encoding="utf8")) if path.exists() else {}
    with atomic_write(path) as temporary:
        temporary.write_text(render(workspace, kept), encoding="utf8")
    return path


def _commit(run: Run) -> str:
    env = run.facts["environment"]
    dirty = {True: " with uncommitted code", False: "", None: " (state unknown)"}[env["dirty"]]
    return f"{env['commit'][:12]}{dirty}"


def _device(facts: dict) -> str:
    env, processes = facts["environment"], facts.get("engine", {}).get("processes", 1)
    several = f"{processes} processes, " if processes > 1 else ""
    plural = "s" if env["threads"] > 1 else ""
    return (
        f"{env['device']}, {several}{env['threads']} thread{plural}, torch {env['versions']['torch']}"
    )


def _interval(metric: dict) -> str:
    return f"{metric['value']:.3f} [{metric['low']:.3f}, {metric['high']:.3f}]"


def _summary(runs: list[Run]) -> str:
    columns = ["run", "profile", "network and images", "classes and data", "epochs", "joint (test)"]
    rows = [
        (
            *(run.name, run.facts["config"]["profile"], run.label, run.scope),
            *(run.facts.get("epochs", 0), _interval(run.facts["test"]["joint_accuracy"])),
            run.facts["config"]["seed"],
        )
        for run in runs
    ]
    return markdown_table([*columns, "seed"], rows) + "\n"


def _entry(run: Run) -> str:
    return _trained(run) if run.kind == "network" else _evaluated(run)


def _study(study: StudyRecord) -> str:
    """Entry of a study: its question, what its runs share, and its means over seeds."""
    trained = [run for run in study.runs if run.kind == "network"]
    if not trained:
        return f"- **Question**: {study.question}\n\nNo run is finished.\n"
    counts = sorted({run.facts["data"]["counts"]["train"] for run in trained})
    devices = sorted({run.facts["environment"]["device"] for run in trained})
    commits = sorted({_commit(run) for run in trained})
    lines = [
        f"- **Question**: {study.question}",
        f"- **Runs**: {len(trained)} trained, {len(study.runs) - len(trained)} tests on other frames",
        f"- **Data**: {trained[0].scope}; training frames {', '.join(map('{:,}'.format, counts))}",
        f"- **Device**: {', '.join(devices)}",
        f"- **Commit**: {', '.join(commits)}",
    ]
    means = {task: study.means(task) for task in TASKS}
    rows = [
        (
            *(row["variant"], row["tested_on"] or "its own"),
            *(_mean(means[task].loc[place]) for task in TASKS),
            row["num_seeds"],
        )
        for place, row in means["joint"].iterrows()
    ]
    columns = ["variant", "tested on", *_COLUMNS, "seeds"]
    return "\n".join([*lines, "", markdown_table(columns, rows), ""])


def _mean(row: pd.Series) -> str:
    interval = "" if math.isnan(row["low"]) else f" [{row['low']:.3f}, {row['high']:.3f}]"
    return f"{row['mean']:.3f}{interval}"


def _evaluated(run: Run) -> str:
    """Entry of a run that trained nothing."""
    facts, config = run.facts, run.facts["config"]
    lines = {
        "Status": f"{facts['status']}, started {facts['started'][:19]} UTC, {facts['seconds']:.0f} s",
        "Decided by": run.label + (f", weights of run {facts['parent']}" if "parent" in facts else ""),
        "Data": f"{run.scope}; {facts['data']['counts']['test']:,} frames, seed {config['seed']}",
        "Device": _device(facts),
        "Commit": _commit(run),
    }
    scores = [_interval(facts["test"][task]) for task in _TASKS]
    listed = [f"- **{name}**: {text}" for name, text in lines.items()]
    return "\n".join([*listed, "", markdown_table(["", *_COLUMNS], [("test", *scores)]), ""])


def _trained(run: Run) -> str:
    facts, config = run.facts, run.facts["config"]
    network, data = facts["network"], facts["data"]
    kept = facts["kept"]
    learned = config["task_weighting"] == "log_variance"
    weights = (
        f"modulation {kept['weight_modulation']:.1%} (variance {kept['variance_modulation']:.3f}), "
        f"SNR {kept['weight_snr']:.1%} (variance {kept['variance_snr']:.3f}), kept epoch"
    )
    counts = ", ".join(f"{name} {count:,}" for name, count in data["counts"].items())
    alpha, beta = config["snr_loss_weights"]
    snr_loss = config.get("snr_loss", "cross_entropy").replace("_", "-")
    facts_lines = {
        "Status": f"{facts['status']}, started {facts['started'][:19]} UTC",
        "Training time": f"{facts['seconds']:.0f} s",
        "Notebook": f"{facts['notebook']}, profile {config['profile']}",
        "Network": f"{' '.join([network['name'], str(network['options'] or '')]).strip()}, "
        f"{network['parameters']:,} "
        f"parameters, {network['flops_per_frame'] / 1e9:.3f} GFLOP forward per image",
        "Resumed from": config["resume_from"] or "nothing",
        "Configuration": f"batch {config['batch_size']}, AdamW, learning rate "
        f"{config['learning_rate']:g} ({config['schedule']}), weight decay "
        f"{config['weight_decay']:g}, dropout {config['dropout']:g}, gradient clip "
        f"{config['gradient_clip'] or 'none'}, {'shuffled' if config['shuffle'] else 'fixed order'}, "
        f"{config['precision']}, task weighting {config['task_weighting']}, SNR loss "
        f"{alpha:g} {snr_loss} + {beta:g} distance, images "
        f"{'+'.join(facts.get('pictures', config['channels']))} at {config['image_size']} px",
        "Data": f"{data['description']}; {counts}",
        "Task weights": weights if learned else f"fixed ({config['task_weighting']})",
        "Kept epoch": f"{facts['best_epoch']} of {facts['epochs']}, by validation joint accuracy",
        "Device": _device(facts),
        "Commit": _commit(run),
        "Seed": str(config["seed"]),
    }
    lines = [f"- **{name}**: {' '.join(text.split())}" for name, text in facts_lines.items()]
    return "\n".join([*lines, "", _trajectory(run), _final(facts)])


def _trajectory(run: Run) -> str:
    what = "loss / joint / modulation / SNR"
    rows = [
        (
            int(row["epoch"]),
            *(
                " / ".join(f"{row[f'{part}_{column}']:.3f}" for column in ("loss", *_TASKS))
                for part in ("train_eval", "validation")
            ),
        )
        for _, row in run.history.iterrows()
    ]
    return markdown_table(["epoch", f"train, same mode: {what}", f"validation: {what}"], rows) + "\n"


def _final(facts: dict) -> str:
    rows = [
        (label, *(f"{facts['kept'][f'{part}_{column}']:.3f}" for column in ("loss", *_TASKS)))
        for part, label in {"train_eval": "train, same mode", "validation": "validation"}.items()
    ]
    test = facts["test"]
    rows.append(("test", f"{test['loss']:.3f}", *(_interval(test[task]) for task in _TASKS)))
    return markdown_table(["kept epoch", "loss", *_COLUMNS], rows) + "\n"

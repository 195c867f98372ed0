"""RUNLOG.md, the lab diary: facts generated from results/, readings written by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from amc_utils.metrics import TASKS
from amc_utils.results import Run, kept_runs
from amc_utils.runtime.pages import markdown_table, with_interval
from amc_utils.runtime.paths import Workspace, atomic_write
from amc_utils.studies.record import StudyRecord, list_studies

_PREAMBLE = """\
# Run log

Runs, newest first, then studies. Everything but the paragraphs headed *Reading* is generated from
`results/` by `amc report`; readings are written by hand and kept. Accuracies are
fractions of test frames, those of runs with 95 % Wilson intervals, every run a single run; those of
studies are means over seeds with the 95 % intervals of Student's t.
"""
_COLUMNS = ("joint", "modulation", "SNR")
# What an epoch's tables show, and of which frames.
_OF_EPOCH = ("loss", "joint_accuracy", "modulation_accuracy", "snr_accuracy")
_PARTS = {"train_eval": "train, same mode", "validation": "validation"}
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
    entries = {
        f"Run {run.name}": _trained(run) if run.kind == "network" else _evaluated(run)
        for run in newest_first
    }
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


def _accuracies(run: Run) -> list[str]:
    """Accuracy of each task on the test frames, with its interval."""
    return [with_interval(**run.facts["test"][f"{task}_accuracy"]) for task in TASKS]


def _listed(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- **{name}**: {' '.join(text.split())}" for name, text in facts.items()) + "\n"


def _summary(runs: list[Run]) -> str:
    columns = ["run", "profile", "network and images", "classes and data", "epochs", "joint (test)"]
    rows = []
    for run in runs:
        config, epochs = run.facts["config"], run.facts.get("epochs", 0)
        row = (run.name, config["profile"], run.label, run.scope, epochs, _accuracies(run)[0])
        rows.append((*row, config["seed"]))
    return markdown_table([*columns, "seed"], rows) + "\n"


def _study(study: StudyRecord) -> str:
    """Entry of a study: its question, what its runs share, and its means over seeds."""
    trained = [run for run in study.runs if run.kind == "network"]
    if not trained:
        return _listed({"Question": study.question}) + "\nNo run is finished.\n"
    counts = sorted({run.facts["data"]["counts"]["train"] for run in trained})
    facts = {
        "Question": study.question,
        "Runs": f"{len(trained)} trained, {len(study.runs) - len(trained)} tests on other frames",
        "Data": f"{trained[0].scope}; training frames {', '.join(map('{:,}'.format, counts))}",
        "Device": ", ".join(sorted({run.facts["environment"]["device"] for run in trained})),
        "Commit": ", ".join(sorted({_commit(run) for run in trained})),
    }
    means = [study.means(task) for task in TASKS]
    rows = []
    for place, row in means[0].iterrows():
        of_tasks = (table.loc[place, ["mean", "low", "high"]] for table in means)
        scores = [with_interval(*numbers) for numbers in of_tasks]
        rows.append((row["variant"], row["tested_on"] or "its own", *scores, row["num_seeds"]))
    columns = ["variant", "tested on", *_COLUMNS, "seeds"]
    return f"{_listed(facts)}\n{markdown_table(columns, rows)}\n"


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
    table = markdown_table(["", *_COLUMNS], [("test", *_accuracies(run))])
    return f"{_listed(lines)}\n{table}\n"


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
    return "\n".join([_listed(facts_lines), _trajectory(run), _kept_epoch(run)])


def _numbers(row: Mapping[str, float], part: str) -> list[str]:
    """Loss and accuracies of a part of the frames after an epoch."""
    return [f"{row[f'{part}_{name}']:.3f}" for name in _OF_EPOCH]


def _trajectory(run: Run) -> str:
    what = "loss / joint / modulation / SNR"
    rows = [
        (int(row["epoch"]), *(" / ".join(_numbers(row, part)) for part in _PARTS))
        for _, row in run.history.iterrows()
    ]
    return markdown_table(["epoch", *(f"{label}: {what}" for label in _PARTS.values())], rows) + "\n"


def _kept_epoch(run: Run) -> str:
    rows = [(label, *_numbers(run.facts["kept"], part)) for part, label in _PARTS.items()]
    rows.append(("test", f"{run.facts['test']['loss']:.3f}", *_accuracies(run)))
    return markdown_table(["kept epoch", "loss", *_COLUMNS], rows) + "\n"

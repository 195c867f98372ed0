"""The runs of record: which are done, how much the others cost, and the command that comes next.

    amc records
    amc records --minutes 30

profiles/paper.yaml lists them in the order in which they should be run. The first command says where
things stand. The second carries out what is missing until the time is up, what needs a GPU if there is
one and the rest if there is none; what was stopped goes on when it is given again.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from amc_utils.config import deciding
from amc_utils.results import Run, is_run
from amc_utils.runtime.checkpoints import Checkpoints
from amc_utils.runtime.interruption import EXIT_RESUMABLE, stop_at_once
from amc_utils.runtime.paths import Workspace
from amc_utils.studies.paper_plan import Step, benchmark_name, read_plan
from amc_utils.studies.plan import read_study
from amc_utils.training import best_accelerator, differing_from_record

BENCHMARK = "benchmarks/gpu.csv"
# A large network looks for requests to stop before and after a validation, which may take minutes.
_SECONDS_TO_STOP = 180
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Standing:
    """Where a step stands: its state in words, whether it is done, minutes left if they are known."""

    state: str
    done: bool = False
    minutes: float | None = None


def standing(step: Step, workspace: Workspace) -> Standing:
    """Where a step stands, by what lies in results/, outputs/checkpoints/ and benchmarks/."""
    place = workspace.root / step.result
    if step.command.startswith("amc study "):
        return _of_study(step, place)
    if step.config is None and step.assessment is None:
        return _of_benchmark(place)
    if is_run(place):
        run = Run(place)
        if changed := _changed(step, run):
            return Standing(f"made with another {changed[0]}")
        score = run.facts["test"]["joint_accuracy"]["value"]
        return Standing(f"done, joint accuracy {score:.3f}", done=True)
    begun = Checkpoints(workspace.checkpoints / place.name).newest() if step.config else None
    if begun is None:
        speed = _speeds(workspace.root / BENCHMARK).get(place.name)
        return Standing("missing", minutes=step.images / speed / 60 if speed else None)
    wanted, stored = deciding(step.config.model_dump()), deciding(begun[1]["config"])
    if changed := sorted(name for name in wanted if stored.get(name) != wanted[name]):
        return Standing(f"begun with another {changed[0]}")
    seconds = begun[1]["epoch_seconds"]
    left = (step.config.num_epochs - len(seconds)) * sum(seconds) / max(len(seconds), 1) / 60
    state = f"begun, {len(seconds)} of {step.config.num_epochs} epochs"
    return Standing(state, minutes=left if seconds else None)


def _of_study(step: Step, folder: Path) -> Standing:
    study = read_study(Path(step.words[0]))
    configs = list(study.configs(""))
    done = [c for c in configs if all(is_run(folder / name) for name in study.run_names(c.run_name))]
    for config in done:
        if changed := differing_from_record(Run(folder / config.run_name), config):
            return Standing(f"{config.run_name} made with another {next(iter(changed))}")
    seconds = [Run(folder / config.run_name).facts["seconds"] for config in done]
    left = len(configs) - len(done)
    minutes = left * sum(seconds) / len(seconds) / 60 if seconds and left else None
    return Standing(f"{len(done)} of {len(configs)} runs", done=not left, minutes=minutes)


def _of_benchmark(path: Path) -> Standing:
    """Done where it measured some run of the plan; those that do not fit the device have no row."""
    num_runs = len(_speeds(path))
    return Standing(f"{num_runs} runs measured" if num_runs else "missing", done=bool(num_runs))


def _changed(step: Step, run: Run) -> list[str]:
    """Parameters in which a finished run is another than the plan's command makes."""
    if step.config is not None:
        return list(differing_from_record(run, step.config))
    wanted, names = asdict(step.assessment), ("seed", "num_frames_per_cell")
    return [name for name in names if run.facts["config"][name] != wanted[name]]


def _speeds(path: Path) -> dict[str, float]:
    """Training images/s of the planned runs that a benchmark measured, by run."""
    raw = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["benchmark", "task"])
    raw = raw[raw["task"] == "network on frames"]
    raw = raw.assign(run=raw["benchmark"].astype(str).str.extract(benchmark_name("(.+?)"))[0])
    groups = raw.dropna(subset="run").groupby("run")
    return {run: (rows["amount"] / rows["seconds"]).median() for run, rows in groups}


def report(steps: Sequence[Step], standings: Sequence[Standing]) -> str:
    """A row a step, its state and the minutes that are left, and the commands that come next."""
    rows = [
        {
            "result": step.result,
            "needs": step.needs,
            "state": now.state,
            "million images": f"{step.images / 1e6:.1f}" if step.images else "",
            "minutes left": f"{now.minutes:.0f}" if now.minutes else "" if now.done else "not measured",
        }
        for step, now in zip(steps, standings, strict=True)
    ]
    parts = [pd.DataFrame(rows).to_string(index=False)]
    for needs in ("gpu", "cpu"):
        for step, now in zip(steps, standings, strict=True):
            if step.needs == needs and not now.done:
                purpose = f": {step.shows}" if step.shows else ""
                parts.append(f"Next on a {needs.upper()}{purpose}\n{step.command}")
                break
    return "\n\n".join(parts if len(parts) > 1 else [*parts, "All runs of record are done."])


def carry_out(
    steps: Sequence[Step], is_done: Callable[[Step], bool], root: Path, minutes: float
) -> str:
    """Carry out what is missing, in order, until the time is up; returns a sentence on how it ended.

    A command that is still at work then is asked to stop, upon which training saves. One that fails
    does not keep the others waiting.

    Raises:
        RuntimeError: commands failed, or left no result; raised at the end.
    """
    end, failed, how = time.monotonic() + 60 * minutes, [], "all done"
    for step in steps:
        if is_done(step):
            continue
        if time.monotonic() >= end:
            how = f"time is up before {step.result}; the same command goes on there"
            break
        print(f"\n$ {step.command}", flush=True)
        # In a session of its own it has no signals but ours, and its own children have them too.
        process = subprocess.Popen(step.executed, cwd=root, start_new_session=True)
        status = _wait(process, end - time.monotonic())
        # A command that had to stop may have been about to leave.
        if status == EXIT_RESUMABLE and not is_done(step):
            how = f"stopped in {step.result}; the same command goes on there"
            break
        if not is_done(step):
            failed.append(f"{step.result} (status {status})")
    if failed:
        raise RuntimeError(f"no result as planned, see above: {', '.join(failed)}; {how}")
    return how


def _wait(process: subprocess.Popen, seconds: float) -> int:
    """Status with which a command ended, or that of one which was stopped."""
    try:
        return process.wait(timeout=seconds)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        former = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    print("stopping", flush=True)
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        # What hangs loses the work since its last checkpoint.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for number, handler in former.items():
        signal.signal(number, handler)
    return EXIT_RESUMABLE


def main(arguments: Sequence[str] | None = None) -> None:
    """Say where things stand, or carry out what is missing."""
    parser = argparse.ArgumentParser(
        prog="amc records",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, help="carry out what is missing for so long")
    minutes = parser.parse_args(arguments).minutes
    workspace = Workspace.at("")
    for number in _SIGNALS:
        signal.signal(number, stop_at_once)
    # The plan's commands name files by their place in the repository.
    os.chdir(workspace.root)
    try:
        steps = read_plan(workspace.root)
        print(report(steps, [standing(step, workspace) for step in steps]), flush=True)
        if minutes:
            device = "gpu" if best_accelerator() == "cuda" else "cpu"
            here = [step for step in steps if step.needs == device]
            print(carry_out(here, lambda step: standing(step, workspace).done, workspace.root, minutes))
    except KeyboardInterrupt:
        sys.exit(EXIT_RESUMABLE)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")

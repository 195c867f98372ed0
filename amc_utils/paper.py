"""The runs of record: which are done, how much the others cost, and the command that comes next.

    python -m amc_utils.paper
    python -m amc_utils.paper --minutes 30

profiles/paper.yaml lists them in the order in which they should be run. The first command says where
things stand. The second carries out what is missing until the time is up, what needs a GPU if there is
one and the rest if there is none; what was stopped goes on when it is given again.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from amc_utils.checkpoints import Checkpoints
from amc_utils.experiment import best_accelerator, differing_from_record
from amc_utils.interruption import EXIT_RESUMABLE, Stopped, stop_at_once
from amc_utils.paper_plan import Step, benchmark_name, read_plan
from amc_utils.paths import Workspace
from amc_utils.records import Run, is_run
from amc_utils.study_plan import read_study

# So long a command may take to save and stop.
_SECONDS_TO_STOP = 60


@dataclass(frozen=True)
class Standing:
    """Where a step stands: its state in words, whether it is done, minutes left if they are known."""

    state: str
    done: bool = False
    minutes: float | None = None


def standing(step: Step, workspace: Workspace) -> Standing:
    """Where a step stands, by what lies in results/, outputs/checkpoints/ and benchmarks/."""
    place = workspace.root / step.result
    if " amc_utils.study " in step.command:
        return _of_study(step, place)
    if step.config is None and step.assessment is None:
        return Standing(state="done" if place.is_file() else "missing", done=place.is_file())
    if is_run(place):
        run = Run(place)
        if changed := _changed(step, run):
            return Standing(state=f"made with another {changed[0]}")
        score = run.facts["test"]["joint_accuracy"]["value"]
        return Standing(state=f"done, joint accuracy {score:.3f}", done=True)
    begun = Checkpoints(workspace.checkpoints / place.name).newest() if step.config else None
    if begun is None:
        rate = _images_per_second(workspace.root, place.name)
        return Standing(state="missing", minutes=step.images / rate / 60 if rate else None)
    seconds = begun[1]["epoch_seconds"]
    left = (step.config.num_epochs - len(seconds)) * sum(seconds) / max(len(seconds), 1) / 60
    state = f"begun, {len(seconds)} of {step.config.num_epochs} epochs"
    return Standing(state=state, minutes=left if seconds else None)


def _of_study(step: Step, folder: Path) -> Standing:
    configs = list(read_study(Path(step.words[0])).configs(""))
    found = [(Run(folder / c.run_name), c) for c in configs if is_run(folder / c.run_name)]
    runs = [run for run, config in found if not differing_from_record(run, config)]
    seconds, left = [run.facts["seconds"] for run in runs], len(configs) - len(runs)
    minutes = left * sum(seconds) / len(seconds) / 60 if seconds and left else None
    return Standing(state=f"{len(runs)} of {len(configs)} runs", done=not left, minutes=minutes)


def _changed(step: Step, run: Run) -> list[str]:
    """Parameters in which a finished run is another than the plan's command makes."""
    if step.config is not None:
        return list(differing_from_record(run, step.config))
    wanted, names = asdict(step.assessment), ("seed", "num_frames_per_cell")
    return [name for name in names if run.facts["config"][name] != wanted[name]]


def _images_per_second(root: Path, run_name: str) -> float | None:
    """Of a run, measured by the benchmark, which takes some steps of each that is planned."""
    path = root / "benchmarks" / "gpu.csv"
    raw = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["benchmark", "task"])
    of_run = raw["benchmark"].astype(str).str.startswith(benchmark_name(run_name))
    rows = raw[of_run & (raw["task"] == "network on frames")]
    return (rows["amount"] / rows["seconds"]).median() if len(rows) else None


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

    A command that is still at work then gets SIGTERM, upon which training saves.

    Raises:
        RuntimeError: a command failed, or left no result.
    """
    end = time.monotonic() + 60 * minutes
    for step in steps:
        if is_done(step):
            continue
        if time.monotonic() >= end:
            return f"time is up before {step.result}; the same command goes on there"
        print(f"\n$ {step.command}", flush=True)
        process = subprocess.Popen([sys.executable, *shlex.split(step.command)[1:]], cwd=root)
        status = _wait(process, end - time.monotonic())
        # A command that had to stop may have been about to leave.
        if status == EXIT_RESUMABLE and not is_done(step):
            return f"stopped in {step.result}; the same command goes on there"
        if not is_done(step):
            ended = f"ended with status {status}" if status else f"left no {step.result} as planned"
            raise RuntimeError(f"{step.command} {ended}, see above")
    return "all done"


def _wait(process: subprocess.Popen, seconds: float) -> int:
    """Status with which a command ended, or that of one which was stopped."""
    try:
        return process.wait(timeout=seconds)
    except (subprocess.TimeoutExpired, Stopped):
        process.terminate()
    except KeyboardInterrupt:
        # Ctrl-C in a terminal reaches the command as well, and a second signal would not let it save.
        print("stopping", flush=True)
    try:
        process.wait(timeout=_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        # What hangs loses the work since its last checkpoint.
        process.kill()
        process.wait()
    return EXIT_RESUMABLE


def main() -> None:
    """Say where things stand, or carry out what is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m amc_utils.paper",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, help="carry out what is missing for so long")
    minutes = parser.parse_args().minutes
    workspace = Workspace.at("")
    signal.signal(signal.SIGTERM, stop_at_once)
    # The plan's commands name files by their place in the repository.
    os.chdir(workspace.root)
    try:
        steps = read_plan(workspace.root)
        print(report(steps, [standing(step, workspace) for step in steps]), flush=True)
        if minutes:
            device = "gpu" if best_accelerator() == "cuda" else "cpu"
            here = [step for step in steps if step.needs == device]
            print(carry_out(here, lambda step: standing(step, workspace).done, workspace.root, minutes))
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()

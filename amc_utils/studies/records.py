"""The runs of record: which are done, how much the others cost, and the command that comes next."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from amc_utils.config import TrainingParameters, result_affecting
from amc_utils.results import Run, keep, list_runs
from amc_utils.runtime.checkpoints import Checkpoints
from amc_utils.runtime.devices import best_accelerator
from amc_utils.runtime.interruption import EXIT_RESUMABLE, stop_at_once
from amc_utils.runtime.parameters import checked
from amc_utils.runtime.paths import REPOSITORY, Workspace, atomic_write, repository_file
from amc_utils.runtime.yaml_text import read_yaml
from amc_utils.studies.evaluate import EvaluationParameters
from amc_utils.studies.record import differing_from_record
from amc_utils.studies.runlog import update_runlog
from amc_utils.studies.study import read_study

PLAN = "profiles/paper.yaml"
# Of the frames; a tenth goes to validation, another to test.
_TRAIN_SHARE = 0.8
# A large network looks for requests to stop before and after a validation, which may take minutes.
_SECONDS_TO_STOP = 180
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Step(BaseModel):
    """A run of record, or several.

    Attributes:
        shows: what it is for; a study asks a question of its own.
        needs: "gpu" where a CPU would take days.
        command: as it is typed.
        leaves: file that tells that the command was carried out, where it is no run and no study.
        minutes: that such a command takes, about, on the device that it needs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shows: str = ""
    needs: Literal["gpu", "cpu"]
    command: str = Field(pattern="^(amc|python) ")
    leaves: str = ""
    minutes: float | None = None

    @property
    def words(self) -> list[str]:
        """The command's words after the first two: `amc` and what it does, `python` and a file."""
        return shlex.split(self.command)[2:]

    @property
    def executed(self) -> list[str]:
        """The command's words with the interpreter of this process."""
        first, *words = shlex.split(self.command)
        return [sys.executable, *(["-m", "amc_utils"] if first == "amc" else []), *words]

    @cached_property
    def config(self) -> TrainingParameters | None:
        """Parameters of a single training run."""
        wanted = self.command.startswith("amc train ")
        return TrainingParameters.from_words(self.words) if wanted else None

    @cached_property
    def evaluation(self) -> EvaluationParameters | None:
        """Parameters of an evaluation."""
        wanted = self.command.startswith("amc evaluate ")
        return EvaluationParameters.from_words(self.words) if wanted else None

    @cached_property
    def result(self) -> str:
        """What it leaves: the name of a run, or that of a study or file as its path."""
        if single := self.config or self.evaluation:
            return single.run_name
        return self.leaves or f"results/{Path(self.words[0]).stem}"

    @property
    def images(self) -> int:
        """Images, or sets of them, that a single training run learns from; 0 where its time is set."""
        if self.config is None or self.config.engine.minutes:
            return 0
        frames = self.config.num_joint_classes * self.config.num_frames_per_cell
        return int(_TRAIN_SHARE * frames * self.config.num_epochs)


def read_plan(path: Path) -> list[Step]:
    """Steps of a plan, in order.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a field that is missing, unknown or of the wrong type.
    """
    content = read_yaml(path.read_text(encoding="utf8"), f"plan {path}")
    return [checked(Step, step) for step in content["steps"]]


@dataclass(frozen=True)
class StepStatus:
    """Where a step stands: its state in words, whether it is done, minutes left if they are known."""

    state: str
    done: bool = False
    minutes: float | None = None


def status_of(step: Step, workspace: Workspace) -> StepStatus:
    """Where a step stands, by what lies in results/, outputs/ and benchmarks/."""
    if step.command.startswith("amc study "):
        return _of_study(step, workspace)
    if step.config is None and step.evaluation is None:
        done = (workspace.root / step.leaves).is_file()
        return StepStatus("done", done=True) if done else StepStatus("missing", minutes=step.minutes)
    for run in list_runs(workspace):
        if run.name != step.result:
            continue
        if changed := _changed(step, run):
            return StepStatus(f"made with another {changed[0]}")
        if step.config and step.needs == "gpu" and run.facts["engine"]["device"] != "cuda":
            return StepStatus("made without a GPU")
        score = run.facts["test"]["joint_accuracy"]["value"]
        place = "" if run.folder == workspace.kept else f"; amc keep {run.name} puts it into results/"
        return StepStatus(f"done, joint accuracy {score:.3f}{place}", done=True)
    begun = Checkpoints(workspace.checkpoints / step.result).newest() if step.config else None
    if begun is None:
        return StepStatus("missing", minutes=step.config and (step.config.engine.minutes or None))
    wanted, stored = result_affecting(step.config.model_dump()), result_affecting(begun[1]["config"])
    wanted = {name: wanted[name] for name in sorted(wanted.keys() - step.config.automatic)}
    if changed := [name for name in wanted if stored.get(name) != wanted[name]]:
        return StepStatus(f"begun with another {changed[0]}")
    seconds, num_epochs = begun[1]["epoch_seconds"], begun[1]["config"]["num_epochs"]
    left = (num_epochs - len(seconds)) * sum(seconds) / max(len(seconds), 1) / 60
    state = f"begun, {len(seconds)} of {num_epochs} epochs"
    return StepStatus(state, minutes=left if seconds else None)


def _of_study(step: Step, workspace: Workspace) -> StepStatus:
    path = Path(step.words[0])
    study, runs = read_study(path), list_runs(replace(workspace, study=path.stem))
    known = {run.name: run for run in runs}
    configs = list(study.configs(""))
    done = [c for c in configs if known.keys() >= set(study.run_names(c.run_name))]
    for config in done:
        if changed := differing_from_record(known[config.run_name], config):
            return StepStatus(f"{config.run_name} made with another {next(iter(changed))}")
    seconds = [known[config.run_name].facts["seconds"] for config in done]
    left = len(configs) - len(done)
    minutes = left * sum(seconds) / len(seconds) / 60 if seconds and left else None
    return StepStatus(f"{len(done)} of {len(configs)} runs", done=not left, minutes=minutes)


def _changed(step: Step, run: Run) -> list[str]:
    """Parameters in which a finished run is another than the plan's command makes."""
    if step.config is not None:
        return list(differing_from_record(run, step.config))
    names = ("seed", "num_frames_per_cell")
    return [n for n in names if run.facts["config"][n] != getattr(step.evaluation, n)]


def report(steps: Sequence[Step], statuses: Sequence[StepStatus]) -> str:
    """A row a step, its state and the minutes that are left, and the commands that come next."""
    rows = [
        {
            "result": step.result,
            "needs": step.needs,
            "state": now.state,
            "million images": f"{step.images / 1e6:.1f}" if step.images else "",
            "minutes left": f"{now.minutes:.0f}" if now.minutes else "" if now.done else "not measured",
        }
        for step, now in zip(steps, statuses, strict=True)
    ]
    parts = [pd.DataFrame(rows).to_string(index=False)]
    for needs in ("gpu", "cpu"):
        for step, now in zip(steps, statuses, strict=True):
            if step.needs == needs and not now.done:
                purpose = f": {step.shows}" if step.shows else ""
                parts.append(f"Next on a {needs.upper()}{purpose}\n{step.command}")
                break
    return "\n\n".join(parts if len(parts) > 1 else [*parts, "All runs of record are done."])


def run_pending(
    steps: Sequence[Step], is_done: Callable[[Step], bool], root: Path, minutes: float
) -> str:
    """Carry out what is missing, in order, until the time is up; returns a sentence on how it ended.

    A command that is still at work then is asked to stop, upon which training saves. One that fails
    does not keep the others waiting.

    Raises:
        RuntimeError: commands failed, or left nothing; raised at the end.
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
        if status not in (0, EXIT_RESUMABLE) or not is_done(step):
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


def records(minutes: float = 0.0, plan: str = PLAN, pack: str = "", output_root: str = "") -> None:
    """Say which runs of record are done, or carry out what is missing.

        amc records
        amc records --minutes 30
        amc records --pack results.tar.gz

    The plan lists them in the order in which they should be run. The first command says where things
    stand. The second carries out what is missing until the time is up, what needs a GPU if there is one
    and the rest if there is none; what was stopped goes on when it is given again. The third puts new
    runs, the plan's studies on a GPU and what else was measured into an archive, without checkpoints,
    to be unpacked in the repository on another machine.

    Args:
        minutes: carry out what is missing for so long.
        plan: YAML file of the steps.
        pack: archive to write.
        output_root: where the plan's commands write; empty is the repository.

    Raises:
        FileNotFoundError: there is no plan, or nothing to pack.
    """
    workspace = Workspace.at(output_root)
    for number in _SIGNALS:
        signal.signal(number, stop_at_once)
    steps = read_plan(Path(plan) if Path(plan).is_file() else repository_file(plan))
    archive = Path(pack).resolve()
    # The plan's commands name files by their place in the repository.
    os.chdir(REPOSITORY)
    print(report(steps, [status_of(step, workspace) for step in steps]), flush=True)
    if minutes:
        device = "gpu" if best_accelerator() == "cuda" else "cpu"
        here = [step for step in steps if step.needs == device]
        print(run_pending(here, lambda step: status_of(step, workspace).done, REPOSITORY, minutes))
    if pack:
        print(pack_results(workspace, steps, archive))


def pack_results(workspace: Workspace, steps: Sequence[Step], path: Path) -> str:
    """Put new runs, the steps' studies on a GPU and the files that steps leave into an archive.

    Returns:
        What it holds, in words.

    Raises:
        FileNotFoundError: there are none.
    """
    root = workspace.root
    runs = workspace.outputs / "runs"
    # A name that begins with a dot is that of a folder in the making.
    files = [f for f in runs.rglob("*") if "/." not in str(f.relative_to(root))]
    for step in steps:
        # Those of CPU cores lie in the repository from which this one was copied.
        if step.command.startswith("amc study ") and step.needs == "gpu":
            files += (root / step.result).glob("[!.]*")
        elif step.leaves:
            # What was begun, too.
            files += (root / step.leaves).parent.glob(f"{Path(step.leaves).stem}.*")
    files = sorted(file for file in files if file.is_file())
    if not files:
        raise FileNotFoundError(f"{runs} must hold runs to be packed, it has none")
    with atomic_write(path) as temporary, tarfile.open(temporary, "w:gz") as archive:
        for file in files:
            archive.add(file, file.relative_to(root))
    return f"{len(files)} files, {path.stat().st_size / 1e6:.1f} MB: {path}"


def keep_run(run: str, output_root: str = "") -> None:
    """Put a new run into results/main/ and RUNLOG.md, to be committed.

    Args:
        run: its name.
        output_root: where it was written; empty is the repository.
    """
    workspace = Workspace.at(output_root)
    print(keep(workspace, [run]))
    print(update_runlog(workspace))

"""Studies: runs that differ in one thing each, repeated over seeds; stopped and started at will.

A study file names its question, the seeds, the parameters that all runs share (as in notebook 02), for
each variant the parameters that are its own, and perhaps other frames on which every trained network is
evaluated. What is finished is not done again, and a run that was interrupted continues from its last
checkpoint. Runs go to outputs/runs/<study>/, and once all are there to results/<study>/.
"""

from __future__ import annotations

import re
import shutil
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Annotated, Any

from joblib import Parallel, delayed
from pydantic import BaseModel, ConfigDict, Field, field_validator

from amc_utils.config import TrainingParameters
from amc_utils.results import Run, keep, list_runs
from amc_utils.runtime.checkpoints import Checkpoints
from amc_utils.runtime.parameters import checked
from amc_utils.runtime.paths import NAME_PATTERN, Workspace, atomic_write
from amc_utils.runtime.yaml_text import read_yaml
from amc_utils.studies.evaluate import EvaluationParameters, evaluate
from amc_utils.studies.record import PLAN, StudyRecord, differing_from_record, plan_file
from amc_utils.studies.runlog import update_runlog
from amc_utils.training import train

# Seeds and the working directory are those of a process, also where it has several threads.
_ONE_RUN = threading.Lock()


class Study(BaseModel):
    """Content of a study file; the study has the file's name.

    Attributes:
        question: what the study asks.
        seeds: one run of each variant for each.
        base: parameters that all runs share; in the file perhaps the path of a file that holds them.
        variants: by name, the parameters in which each differs from the base.
        transfers: by name, the frames on which every network is evaluated once it is trained, in
            terms of amc_utils.studies.evaluate.EvaluationParameters.
        resumed: variants that a run of their own trains for so many epochs first, from whose
            checkpoint they go on.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    question: str
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    base: dict[str, Any]
    variants: dict[str, dict[str, Any]] = Field(min_length=1)
    transfers: dict[str, dict[str, Any]] = Field(default_factory=dict)
    resumed: dict[str, int] = Field(default_factory=dict)

    @field_validator("variants", "transfers")
    @classmethod
    def _names_make_file_names(cls, value: dict[str, dict]) -> dict[str, dict]:
        for name in value:
            if not re.fullmatch(NAME_PATTERN, name):
                raise ValueError(
                    f"variants and transfers must have names of letters, digits, points, hyphens and "
                    f"underscores, got {name!r}"
                )
        return value

    @field_validator("transfers")
    @classmethod
    def _transfers_make_sense(cls, value: dict[str, dict]) -> dict[str, dict]:
        for name, frames in value.items():
            try:
                EvaluationParameters.checked({"what": "network", **frames})
            except ValueError as error:
                raise ValueError(f"transfer {name}: {error}") from error
        return value

    def configs(self, output_root: str) -> Iterator[TrainingParameters]:
        """Parameters of every run, all variants of a seed before the next seed.

        Raises:
            ValueError: a wrong parameter.
        """
        for seed in self.seeds:
            for variant, changes in self.variants.items():
                own = {"seed": seed, "run_name": f"{variant}-s{seed}", "output_root": output_root}
                yield TrainingParameters.checked(self.base | changes | own)

    def run_names(self, run_name: str) -> list[str]:
        """Names of the run folders of one of the configs: the trained network's, and the transfers'."""
        return [run_name, *(f"{run_name}-on-{transfer}" for transfer in self.transfers)]


def read_study(path: Path) -> Study:
    """Study of a file.

    Raises:
        ValueError: a field that is missing, unknown or of the wrong type.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"study not found: {path}; those of the repository lie in profiles/studies/"
        )
    content = read_yaml(path.read_text(encoding="utf8"), f"study {path}")
    if isinstance(content.get("base"), str):
        base = path.parent / content["base"]
        content["base"] = read_yaml(base.read_text(encoding="utf8"), f"profile {base}")
    return checked(Study, content)


def run_study(
    path: Path,
    output_root: str = "",
    num_jobs: int = 1,
    shard: tuple[int, int] = (0, 1),
    dask: str = "",
) -> list[str]:
    """Run what is not finished, some at a time; returns the names of the runs that failed.

    Args:
        path: the study file.
        output_root: where to write; empty is the repository.
        num_jobs: runs at a time.
        shard: (k, n) for every n-th run of the plan from the k-th on, counted from 0. Such a part
            leaves results/ alone; the whole study, started when all are done, puts them there.
        dask: address of a Dask scheduler whose workers do the runs; empty for this machine.

    Raises:
        ValueError: a wrong parameter, or one that is not that of a run which is done.
    """
    study, workspace = read_study(path), Workspace.at(output_root, path.stem)
    # Whole, since workers may have the project elsewhere.
    configs = list(study.configs(str(workspace.root)))[shard[0] :: shard[1]]
    done = {run.name: run for run in list_runs(workspace)}
    _check_unchanged(study, configs, StudyRecord(workspace), done)
    missing = [c for c in configs if not done.keys() >= set(study.run_names(c.run_name))]
    plan = plan_file(study.model_dump())
    if missing:
        with atomic_write(workspace.runs / PLAN) as temporary:
            temporary.write_text(plan[PLAN], encoding="utf8")
    part = "" if shard == (0, 1) else f", shard {shard[0]}/{shard[1]}"
    print(f"{path.stem}{part}: {len(missing)} of {len(configs)} runs to do", flush=True)
    if dask and missing:
        finished = _on_dask(dask, missing, path.stem, study)
    else:
        attempts = (delayed(_attempt)(config, path.stem, study) for config in missing)
        finished = Parallel(n_jobs=num_jobs)(attempts)
    failed = [config.run_name for config, ok in zip(missing, finished, strict=True) if not ok]
    if shard == (0, 1) and not failed and workspace.runs.exists():
        keep(workspace, [run.name for run in StudyRecord(workspace).runs], plan)
        shutil.rmtree(workspace.runs)
        update_runlog(Workspace.at(output_root))
    return failed


def _check_unchanged(
    study: Study, configs: Sequence[TrainingParameters], record: StudyRecord, done: dict[str, Run]
) -> None:
    for config in configs:
        run = done.get(config.run_name)
        for name, (wanted, recorded) in (differing_from_record(run, config) if run else {}).items():
            raise ValueError(
                f"{run.name} in {run.folder} must have been run with {name}={wanted!r}, it has "
                f"{recorded!r}; give the variant another name, or remove the run"
            )
    former = record.plan["transfers"] if (record.folder / PLAN).is_file() else {}
    for name in former.keys() & study.transfers.keys():
        if former[name] != study.transfers[name]:
            raise ValueError(
                f"transfer {name} must stay {former[name]}, for which {record.folder} may hold runs, "
                f"got {study.transfers[name]}; give it another name"
            )


def _on_dask(
    address: str, configs: Sequence[TrainingParameters], name: str, study: Study
) -> list[bool]:
    """`_attempt` for each config by the workers of a Dask cluster; what a lost one did others repeat.

    Raises:
        OSError: no scheduler answers at the address.
        ValueError: distributed is not installed, or there are no workers of one thread each.
    """
    try:
        from distributed import Client, as_completed
    except ModuleNotFoundError:
        raise ValueError("dask needs the package: pip install distributed") from None
    with Client(address) as client:
        threads = client.nthreads()
        if set(threads.values()) != {1}:
            raise ValueError(
                f"dask must name a scheduler whose workers have one thread each, got "
                f"{threads or 'no worker'}; start them with `dask worker {address} --nthreads 1`"
            )
        common = {"name": name, "study": study, "folder": str(Path.cwd())}
        futures = client.map(_attempt_on_worker, configs, pure=False, **common)
        of_future = dict(zip(futures, configs, strict=True))
        finished = {}
        for future in as_completed(futures):
            name = of_future[future].run_name
            # An error is Dask's own: the run ended several workers, or they have another amc_utils.
            error = future.exception()
            finished[name] = error is None and future.result()
            print(
                f"{name}: {'done' if finished[name] else error or 'failed, see its worker'}", flush=True
            )
    return [finished[config.run_name] for config in configs]


def _attempt_on_worker(config: TrainingParameters, *, name: str, study: Study, folder: str) -> bool:
    """`_attempt` where relative paths mean what they mean to the command."""
    with _ONE_RUN, chdir(folder):
        return _attempt(config, name, study)


def _attempt(config: TrainingParameters, name: str, study: Study) -> bool:
    try:
        _run(config, name, study)
    except Exception:
        # The other runs of the study do not depend on this one; it is named at the end.
        traceback.print_exc()
        return False
    finally:
        # The process may live on, and another may be the next to try.
        for folder in _checkpoint_folders(config, name):
            Checkpoints(folder).abandon()
    return True


def _checkpoint_folders(config: TrainingParameters, study_name: str) -> tuple[Path, Path]:
    """Those of a run, and of what it resumes."""
    folder = Workspace.at(config.output_root, study_name).checkpoints
    return folder / config.run_name, folder / f"{config.run_name}-begun"


def _run(config: TrainingParameters, study_name: str, study: Study) -> None:
    workspace = Workspace.at(config.output_root, study_name)
    checkpoints, begun = _checkpoint_folders(config, study_name)
    done = {run.name for run in list_runs(workspace)}
    if config.run_name not in done:
        first_epochs = study.resumed.get(config.run_name.rpartition("-s")[0], 0)
        if first_epochs:
            changes = {"num_epochs": first_epochs, "run_name": begun.name}
            train(config.model_copy(update=changes), "study", study_name, record=False)
            config = config.model_copy(update={"resume_from": str(begun / "last.ckpt")})
        train(config, "study", study_name)
    names = study.run_names(config.run_name)[1:]
    for name, frames in zip(names, study.transfers.values(), strict=True):
        if name not in done:
            values = {"what": "network", "run_name": name, "study": study_name}
            values |= {"checkpoint": str(checkpoints / "best.ckpt"), "profile": config.profile}
            values |= {"output_root": config.output_root, **frames}
            evaluate(EvaluationParameters.checked(values))
    for folder in (checkpoints, begun):
        if folder.exists():
            shutil.rmtree(folder)


def study(
    file: str, output_root: str = "", jobs: int = 1, shard: str = "0/1", dask: str = ""
) -> int | str:
    """Carry out a study: what of it is not finished, some runs at a time.

        amc study profiles/studies/channels.yaml --jobs 2
        amc study profiles/studies/channels.yaml --shard 3/8
        amc study profiles/studies/channels.yaml --dask tcp://HOST:8786

    The second does every eighth run, beginning with the fourth: one task of a cluster's array job. The
    study started whole, when all are done, puts them into results/. The third has the workers of a Dask
    cluster do the runs.

    Args:
        file: study file, see profiles/studies/.
        output_root: where to write; empty is the repository.
        jobs: runs at a time, which share the cores.
        shard: k/n for every n-th run from the k-th, counted from 0.
        dask: address of a Dask scheduler, whose workers see the same files.
    """
    number, _, count = shard.partition("/")
    if not (number.isdigit() and count.isdigit() and int(number) < int(count)):
        raise ValueError(f"shard must be k/n with k from 0 to n - 1, got {shard!r}")
    if dask and jobs != 1:
        raise ValueError(
            f"jobs must stay 1 with dask, whose workers do a run each, got {jobs}; start more workers"
        )
    part = int(number), int(count)
    if failed := run_study(Path(file), output_root, jobs, part, dask):
        return f"failed, run again to retry: {', '.join(failed)}"
    workspace = Workspace.at(output_root, Path(file).stem)
    if part == (0, 1):
        print(f"all done: {workspace.kept}")
    else:
        print(f"shard done; start the study whole when all are: {workspace.runs}")
    return 0

"""Studies: runs that differ in one thing each, repeated over seeds; stopped and started at will.

    amc study profiles/studies/channels.yaml --jobs 2
    amc study profiles/studies/channels.yaml --shard 3/8

The second does every eighth run, beginning with the fourth: one task of a cluster's array job. A study
file names its question, the seeds, the parameters that all runs share (as in notebook 02), for each
variant the parameters that are its own, and perhaps other frames on which every trained network is
assessed. What is finished is not done again, and a run that was interrupted continues from its last
checkpoint. Runs go to results/studies/<study>/.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from joblib import Parallel, delayed

from amc_utils.config import TrainingParameters
from amc_utils.data import stratified_split
from amc_utils.results import Run, is_run
from amc_utils.runtime.interruption import EXIT_RESUMABLE, Stopped, stop_at_once
from amc_utils.runtime.paths import Workspace, replacing
from amc_utils.studies.assess import run as assess
from amc_utils.studies.decisions import Assessment
from amc_utils.studies.plan import Study, read_study
from amc_utils.studies.runlog import update_runlog
from amc_utils.training import Experiment, Trainer, differing_from_record


def run_study(
    path: Path, output_root: str = "", num_jobs: int = 1, shard: tuple[int, int] = (0, 1)
) -> list[str]:
    """Run what is not finished, some at a time; returns the names of the runs that failed.

    Args:
        path: the study file.
        output_root: where to write; empty is the repository.
        num_jobs: runs at a time.
        shard: (k, n) for every n-th run of the plan from the k-th on, counted from 0. Such a part
            leaves the diary alone; the whole study, started when all are done, brings it up to date.
    """
    study, results = read_study(path), Workspace.at(output_root, path.stem).results
    configs = list(study.configs(output_root))[shard[0] :: shard[1]]
    _check_transfers_unchanged(results / "study.json", study.transfers)
    for config in configs:
        _check_unchanged(results / config.run_name, config)
    missing = [
        config
        for config in configs
        if not all(is_run(results / name) for name in study.run_names(config.run_name))
    ]
    with replacing(results / "study.json") as temporary:
        temporary.write_text(study.model_dump_json(indent=1) + "\n", encoding="utf8")
    part = "" if shard == (0, 1) else f", shard {shard[0]}/{shard[1]}"
    print(f"{path.stem}{part}: {len(missing)} of {len(configs)} runs to do", flush=True)
    attempts = (delayed(_attempt)(config, path.stem, study) for config in missing)
    done = Parallel(n_jobs=num_jobs)(attempts)
    if shard == (0, 1):
        update_runlog(Workspace.at(output_root))
    return [config.run_name for config, finished in zip(missing, done, strict=True) if not finished]


def _check_unchanged(folder: Path, config: TrainingParameters) -> None:
    changed = differing_from_record(Run(folder), config) if is_run(folder) else {}
    for name, (wanted, recorded) in changed.items():
        raise ValueError(
            f"{folder} must have been run with {name}={wanted!r}, it has {recorded!r}; "
            f"give the variant another name, or remove the folder"
        )


def _check_transfers_unchanged(record: Path, transfers: Mapping[str, Mapping]) -> None:
    done = json.loads(record.read_text(encoding="utf8"))["transfers"] if record.is_file() else {}
    for name in done.keys() & transfers.keys():
        if done[name] != transfers[name]:
            raise ValueError(
                f"transfer {name} must stay {done[name]}, for which {record.parent} may hold runs, got "
                f"{transfers[name]}; give it another name"
            )


def _attempt(config: TrainingParameters, name: str, study: Study) -> bool:
    try:
        _run(config, name, study)
    except Exception:
        # The other runs of the study do not depend on this one; it is named at the end.
        traceback.print_exc()
        return False
    return True


def _run(config: TrainingParameters, study_name: str, study: Study) -> None:
    workspace = Workspace.at(config.output_root, study_name)
    checkpoints = workspace.checkpoints / config.run_name
    begun = workspace.checkpoints / f"{config.run_name}-begun"
    if not is_run(workspace.results / config.run_name):
        first_epochs = study.resumed.get(config.run_name.rpartition("-s")[0], 0)
        if first_epochs:
            changes = {"num_epochs": first_epochs, "run_name": begun.name}
            _train(config.model_copy(update=changes), study_name)
            config = config.model_copy(update={"resume_from": str(begun / "last.ckpt")})
        experiment, trainer = _train(config, study_name)
        experiment.finish(trainer)
    names = study.run_names(config.run_name)[1:]
    for name, frames in zip(names, study.transfers.values(), strict=True):
        if not is_run(workspace.results / name):
            assess(
                Assessment(
                    "network",
                    run_name=name,
                    study=study_name,
                    checkpoint=str(checkpoints / "best.ckpt"),
                    output_root=config.output_root,
                    profile=config.profile,
                    **frames,
                )
            )
    shutil.rmtree(checkpoints)
    if begun.exists():
        shutil.rmtree(begun)


def _train(config: TrainingParameters, study_name: str) -> tuple[Experiment, Trainer]:
    experiment = Experiment.start(config, "study", study=study_name)
    fabric = experiment.fabric()
    frames = experiment.frames(fabric)
    split = stratified_split(frames, seed=config.seed)
    trainer = experiment.trainer(experiment.network(), frames, split, fabric)
    for _ in trainer.fit():
        print(f"{config.run_name}: {trainer.describe_epoch()}", flush=True)
    return experiment, trainer


def _shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and int(number) < int(count)):
        raise argparse.ArgumentTypeError(f"must be k/n with k from 0 to n - 1, got {text!r}")
    return int(number), int(count)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="amc study")
    parser.add_argument("file", type=Path, help="study file, see profiles/studies/")
    parser.add_argument("--output-root", default="", help="where to write; empty is the repository")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, which share the cores")
    parser.add_argument(
        "--shard", type=_shard, default=(0, 1), help="k/n: every n-th run from the k-th"
    )
    options = parser.parse_args(arguments)
    # Of several runs at a time each has a process, which joblib ends with this one.
    signal.signal(signal.SIGTERM, stop_at_once)
    try:
        failed = run_study(options.file, options.output_root, options.jobs, options.shard)
    except Stopped as stopped:
        print(stopped, file=sys.stderr, flush=True)
        sys.exit(EXIT_RESUMABLE)
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    if not failed:
        done = (
            "all done" if options.shard == (0, 1) else "shard done; start the study whole when all are"
        )
        print(f"{done}: {Workspace.at(options.output_root, options.file.stem).results}")
    sys.exit(f"failed, run again to retry: {', '.join(failed)}" if failed else 0)

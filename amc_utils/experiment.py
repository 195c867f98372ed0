"""A run from its parameters to its results folder: what notebooks 02 and 03 share."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.fabric import Fabric

from amc_utils.audit.trust import require_sound
from amc_utils.config import TrainingParameters
from amc_utils.constellation import expand_channels, input_shape
from amc_utils.data import file_selection, load_frames
from amc_utils.engine import deciding
from amc_utils.frames import Frames, Split, split_fingerprint, stratified_split
from amc_utils.metrics import metrics_table
from amc_utils.models import (
    TwoHeadNetwork,
    build_network,
    count_activation_bytes,
    count_flops,
    count_parameters,
)
from amc_utils.radioml.cache import cached_radioml
from amc_utils.recording import environment, write_run
from amc_utils.records import Run, claim_run_name, new_run_name
from amc_utils.runtime import tracking
from amc_utils.runtime.paths import Workspace
from amc_utils.runtime.sharding import share
from amc_utils.training import Trainer


def best_accelerator() -> str:
    """Name of the fastest device that has the complex numbers of the pictures: "cuda", or "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def best_fabric(config: TrainingParameters) -> Fabric:
    """Fabric in the precision asked for, on every device that torchrun started, or on the best one."""
    options = {"accelerator": best_accelerator(), "precision": config.precision}
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Fabric(devices=1, **options)
    local, everywhere = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    fabric = Fabric(strategy="ddp", devices=local, num_nodes=everywhere // local, **options)
    fabric.launch()
    return fabric


def untrained_network(config: TrainingParameters) -> TwoHeadNetwork:
    """Network that the parameters describe, its weights drawn by their seed."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return build_network(
            config.network,
            input_shape=input_shape(config.channels, config.image_size),
            num_modulations=len(config.modulation_names),
            num_snrs=len(config.snr_labels),
            dropout=config.dropout,
            **config.network_options,
        )


def differing_from_record(run: Run, config: TrainingParameters) -> dict[str, tuple[Any, Any]]:
    """Parameters in which a run is another than wanted, as far as they matter: wanted and recorded."""
    wanted = deciding(config.model_dump()) | {"pictures": list(expand_channels(config.channels))}
    # What a group of channels holds may have changed though its name has not.
    stored = deciding(TrainingParameters.with_defaults(run.facts["config"]))
    # Runs from before pictures were recorded say nothing of them.
    done = stored | {"pictures": run.facts.get("pictures", wanted["pictures"])}
    return {
        name: (wanted[name], done.get(name))
        for name in sorted(wanted)
        if done.get(name) != wanted[name]
    }


@dataclass(frozen=True)
class Experiment:
    """A run that has a name but no results yet.

    Attributes:
        config: its parameters.
        notebook: name of the notebook that runs it.
        name: its name, unused so far.
        workspace: where it writes.
        started: when it began.
    """

    config: TrainingParameters
    notebook: str
    name: str
    workspace: Workspace
    started: datetime.datetime

    @classmethod
    def start(cls, config: TrainingParameters, notebook: str, *, study: str = "") -> Experiment:
        """Name a run, of a study if one is named; nothing is written before there is something to keep.

        Raises:
            ValueError: the wanted name belongs to a finished run.
        """
        workspace = Workspace.at(config.output_root, study)
        name = claim_run_name(config.run_name, workspace.results)
        while not config.run_name and (workspace.checkpoints / name).exists():
            name = new_run_name(workspace.results)
        now = datetime.datetime.now(datetime.UTC)
        return cls(config, notebook, name, workspace, now)

    @property
    def tag(self) -> str:
        """Network and pictures in a form that file names can hold."""
        return "_".join([self.config.network, *self.config.channels])

    def network(self) -> TwoHeadNetwork:
        """Untrained network that the parameters describe, its weights drawn by their seed."""
        return untrained_network(self.config)

    def fabric(self) -> Fabric:
        """Fabric on the best device there is, in the precision that the parameters ask for."""
        return best_fabric(self.config)

    def frames(self, fabric: Fabric) -> Frames:
        """Frames that the parameters ask for; of several processes, those that this one works on."""
        config, engine = self.config, self.config.engine

        def hold(labelled: Frames) -> torch.Tensor | None:
            # Labels that cannot be split are refused before any samples are read.
            split = stratified_split(labelled, seed=config.seed)
            if fabric.world_size == 1:
                return None
            return share(config, split, fabric.global_rank, fabric.world_size)

        if config.data_path and not config.trust_file:
            require_sound(config.data_path, config.label_order)
        options = {"device": fabric.device, "samples_in": engine.samples_in, "hold": hold}
        if config.data_path and engine.cache:
            frames = cached_radioml(**file_selection(config), trust_file=config.trust_file, **options)
        else:
            dtype = {16: torch.float16, 32: torch.float32}[engine.sample_bits]
            frames = load_frames(config, dtype=dtype, **options)
        if len(frames) < frames.num_classes * config.num_frames_per_cell:
            fabric.print(
                f"{frames.source['label']}: {len(frames) / frames.num_classes:.3g} for each class and "
                f"SNR, where {config.num_frames_per_cell} were asked for; few frames teach little"
            )
        return frames

    def trainer(self, network: TwoHeadNetwork, frames: Frames, split: Split, fabric: Fabric) -> Trainer:
        """Trainer of the run, which goes on where a run of this name stopped, or from `resume_from`."""
        folder = self.workspace.checkpoints / self.name
        trainer = Trainer(self.config, network, frames, split, fabric=fabric, folder=folder)
        try:
            if not trainer.resume_if_begun() and self.config.resume_from:
                trainer.resume(self.config.resume_from)
            tracked = self.workspace.outputs / "tracking" / self.name
            told = self.config.model_dump(exclude={"output_root", "data_path"})
            tracking.track(fabric, self.config.engine.tracker, tracked, told)
        except (ValueError, FileNotFoundError):
            trainer.checkpoints.abandon()
            raise
        return trainer

    def finish(self, trainer: Trainer) -> Run | None:
        """Measure the kept epoch on the test frames; the first process writes and returns the run."""
        trainer.load_best()
        predictions = trainer.evaluator.predict(trainer.split.test)
        test_loss = trainer.evaluator.measure(trainer.split.test, "test")["test_loss"]
        tracking.finish(trainer.fabric)
        if not trainer.fabric.is_global_zero:
            return None
        metrics = metrics_table(predictions)
        split = {name: index.cpu().numpy() for name, index in vars(trainer.split).items()}
        return write_run(
            self.workspace.results / self.name,
            facts=self._facts(trainer, metrics, test_loss),
            history=trainer.history_table,
            metrics=metrics,
            predictions=predictions,
            split=split,
        )

    def _facts(self, trainer: Trainer, metrics: pd.DataFrame, test_loss: float) -> dict[str, Any]:
        config, frames = self.config, trainer.frames
        overall = metrics[metrics["group"] == "all"].set_index("metric")
        test = {
            name: {key: float(row[key]) for key in ("value", "low", "high")}
            for name, row in overall.iterrows()
        }
        return {
            "run": self.name,
            "kind": "network",
            "notebook": self.notebook,
            "status": "completed",
            "started": self.started.isoformat(),
            "seconds": float(sum(trainer.epoch_seconds)),
            "epoch_seconds": trainer.epoch_seconds,
            "epochs": len(trainer.history),
            "best_epoch": trainer.best_row["epoch"],
            "kept": trainer.best_row,
            "test": {"loss": test_loss, **test},
            # Where files lay on this machine is nobody's business; their names are.
            "config": config.model_dump(exclude={"output_root"})
            | {
                "data_path": Path(config.data_path).name,
                "resume_from": "/".join(Path(trainer.origin).parts[-2:]),
            },
            # What a group of channels holds may change, so its members stand here by name.
            "pictures": list(expand_channels(config.channels)),
            "data": {
                "description": frames.description,
                "num_classes": frames.num_classes,
                "source": frames.source,
                "counts": trainer.split.counts,
                "test_sha256": split_fingerprint(frames, trainer.split),
            },
            "network": {
                "name": config.network,
                "options": config.network_options,
                "parameters": count_parameters(trainer.network),
                "flops_per_frame": count_flops(trainer.network),
                "activation_bytes_per_frame": count_activation_bytes(self.network()),
            },
            "engine": {
                "processes": trainer.fabric.world_size,
                "steps_skipped": trainer.learner.skipped,
            },
            "environment": environment(),
        }

"""Decisions of the bound, of the likelihood receiver and of trained networks, over frames of choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from amc_utils.baselines.bounds import genie_frames, log_likelihoods
from amc_utils.baselines.receiver import receiver_log_likelihoods
from amc_utils.config import TrainingParameters
from amc_utils.data import Frames, read_radioml, synthesise_frames, synthetic_source
from amc_utils.losses import TaskWeighting
from amc_utils.models import count_flops, count_parameters, untrained_network
from amc_utils.runtime.checkpoints import read_checkpoint
from amc_utils.runtime.progress import progress
from amc_utils.signals import Channel, channel_from, expand_modulations, receiver_settings, snr_grid
from amc_utils.training import Evaluator, best_fabric, prediction_table

_FRAMES_AT_ONCE = 1024
# Settings of a channel that matter to the genie, and those that a receiver of a file's frames is told.
_SEEN_BY_GENIE = {
    "preset", "rolloff_range", "pulse_exponent", "snr_slope", "snr_offset_db", "unit_mean_magnitude",
    "unipolar_ask", "record_scale",
}  # fmt: skip
_TOLD_OF_FILE = _SEEN_BY_GENIE - {"rolloff_range", "record_scale"} | {"cfo_std"}
# Roll-offs that far beyond those that a receiver tries cost it next to nothing.
_ROLLOFF_ROOM = 0.03


@dataclass(frozen=True)
class Assessment:
    """What to assess, on which frames, and where to write.

    Attributes:
        what: "bound", "receiver" or "network".
        run_name: name of its run; empty for a new adjective-noun-number.
        modulations, snr_range_db: classes, as in the notebooks; a network knows its own.
        num_frames_per_cell: frames of each class.
        seed: seed of the frames; training has another by default.
        checkpoint: file of the network's weights.
        data_path: RadioML-layout file; empty for synthetic frames.
        label_order: list that the file's labels follow, "corrected" or "shipped".
        channel: preset of the channel, and settings that differ from it, see signals.channel_from; of a
            file what the receiver is told about it.
        snr_told: the bound's receiver is told the SNR as well, which bounds every SNR by itself.
        profile: label of the scale, kept with the run.
        output_root: where to write; empty is the repository.
        study: study that the run belongs to, if any.
    """

    what: str
    run_name: str = ""
    modulations: Sequence[str] = ("digital",)
    snr_range_db: Sequence[int] = (-20, 30, 2)
    num_frames_per_cell: int = 50
    seed: int = 2019
    checkpoint: str = ""
    data_path: str = ""
    label_order: str = "corrected"
    channel: Mapping[str, Any] = field(default_factory=dict)
    snr_told: bool = False
    profile: str = "cpu"
    output_root: str = ""
    study: str = ""

    def __post_init__(self) -> None:
        """Refuse what would be ignored.

        Raises:
            ValueError: a setting that this kind of assessment has no use for.
        """
        of_frames = set(self.channel)
        useless = {
            "bound": {"checkpoint", "data_path"} | of_frames - _SEEN_BY_GENIE,
            "receiver": {"checkpoint", "snr_told"},
            "network": {"snr_told", "modulations", "snr_range_db"},
        }[self.what]
        if self.data_path:
            # The file has a channel of its own, of which the receiver is told some.
            useless |= of_frames - (_TOLD_OF_FILE if self.what == "receiver" else set())
        else:
            useless |= {"label_order"}
        given = {f.name for f in fields(self) if getattr(self, f.name) != f.default} | set(self.channel)
        if ignored := sorted(given & useless):
            what = f"{self.what} with data_path" if self.data_path else self.what
            raise ValueError(f"{ignored[0]} must be left out for {what}, which makes no use of it")
        channel, receiver = self.synthetic_channel, receiver_settings(self.channel)
        low, high = channel.rolloff_range
        known = (
            min(receiver.rolloffs) - _ROLLOFF_ROOM <= low
            and high <= max(receiver.rolloffs) + _ROLLOFF_ROOM
            and channel.pulse_exponent == receiver.pulse_exponent
            and channel.cfo_std <= receiver.max_cfo / 3
        )
        if self.what == "receiver" and (not known or channel.delay_spread):
            raise ValueError(
                f"channel must have roll-offs near {min(receiver.rolloffs)} to "
                f"{max(receiver.rolloffs)}, pulse_exponent {receiver.pulse_exponent}, cfo_std up to "
                f"{receiver.max_cfo / 3:.3g} and no multipath for the receiver, which knows no more; "
                f"got {channel}"
            )

    @property
    def synthetic_channel(self) -> Channel:
        """Channel of synthetic frames."""
        return channel_from(self.channel)


def assess_bound(assessment: Assessment, device: torch.device) -> tuple[pd.DataFrame, dict]:
    """Decisions of the genie-aided receiver, and what was tested."""
    names, grid = expand_modulations(assessment.modulations), snr_grid(assessment.snr_range_db)
    cell = torch.arange(len(names) * len(grid), device=device)
    cell = cell.repeat_interleave(assessment.num_frames_per_cell)
    modulation, level = cell // len(grid), cell % len(grid)
    generator = torch.Generator(device).manual_seed(assessment.seed)
    told, found = assessment.snr_told, []
    channel = assessment.synthetic_channel
    for part in progress(torch.arange(len(cell), device=device).split(_FRAMES_AT_ONCE)):
        output = genie_frames(
            modulation[part],
            level[part],
            snr_labels=grid,
            modulations=names,
            generator=generator,
            channel=channel,
        )
        likelihoods = log_likelihoods(
            output,
            modulations=names,
            snr_labels=grid,
            channel=channel,
            told=level[part] if told else None,
        )
        found.append(_decide(likelihoods))
    source = synthetic_source(channel, assessment.seed)
    # The bound makes its own, cyclic frames; those of this set have labels and no samples.
    no_samples = torch.empty(len(cell), 0, 2, device=device)
    tested = Frames(no_samples, modulation, level, names, grid, source)
    name = "genie-aided bound" + (", SNR told" if told else "")
    return _table(tested, found), {"kind": "bound", "network": {"name": name}} | _data(tested)


def assess_receiver(assessment: Assessment, device: torch.device) -> tuple[pd.DataFrame, dict]:
    """Decisions of the likelihood receiver that synchronises by itself, and what was tested."""
    names, grid = expand_modulations(assessment.modulations), snr_grid(assessment.snr_range_db)
    frames = _frames(assessment, names, grid, device)

    def decide(part: Tensor) -> tuple[Tensor, ...]:
        likelihoods = receiver_log_likelihoods(
            frames.iq(part),
            modulations=names,
            snr_labels=grid,
            channel=assessment.synthetic_channel,
            receiver=receiver_settings(assessment.channel),
        )
        return _decide(likelihoods)

    found = _over(frames, decide)
    facts = {"kind": "receiver", "network": {"name": "likelihood receiver"}}
    return _table(frames, found), facts | _data(frames)


def assess_network(assessment: Assessment, device: torch.device) -> tuple[pd.DataFrame, dict]:
    """Decisions of the network of a checkpoint, and what was tested.

    Raises:
        FileNotFoundError: no checkpoint.
        ValueError: a file that is no checkpoint of this project.
    """
    path = Path(assessment.checkpoint)
    stored = read_checkpoint(path, device)
    config = TrainingParameters.checked(stored["config"] | {"resume_from": "", "data_path": ""})
    network = untrained_network(config)
    network.load_state_dict(stored["network"])
    fabric = best_fabric(config)
    network = fabric.setup_module(network.to(memory_format=torch.channels_last))
    frames = _frames(assessment, config.modulation_names, config.snr_labels, device)
    weighting = TaskWeighting(config.task_weighting, config.task_weights).to(device)
    evaluator = Evaluator(network, weighting, frames, config, fabric)
    parts = torch.arange(len(frames), device=device).split(_FRAMES_AT_ONCE)
    predictions = pd.concat([evaluator.predict(part) for part in progress(parts)])
    described = {
        "name": config.network,
        "options": config.network_options,
        "parameters": count_parameters(network),
        "flops_per_frame": count_flops(network),
    }
    parent = {"parent": path.parent.name, "epochs": len(stored["history"])}
    return predictions.reset_index(drop=True), {"kind": "transfer", "network": described} | _data(
        frames
    ) | parent | {"trained": stored["config"]}


def _frames(
    assessment: Assessment, names: tuple[str, ...], grid: tuple[int, ...], device: torch.device
) -> Frames:
    selection = {
        "modulations": names,
        "snr_labels": grid,
        "num_frames_per_cell": assessment.num_frames_per_cell,
        "seed": assessment.seed,
        "device": device,
    }
    if assessment.data_path:
        selection["label_order"] = assessment.label_order
        return read_radioml(path=Path(assessment.data_path), **selection)
    return synthesise_frames(channel=assessment.synthetic_channel, **selection)


def _over(frames: Frames, decide: Callable[[Tensor], tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
    parts = torch.arange(len(frames), device=frames.device).split(_FRAMES_AT_ONCE)
    return [decide(part) for part in progress(parts)]


def _decide(log_likelihoods: Tensor) -> tuple[Tensor, ...]:
    """Class of greatest posterior when all are equally frequent, and how sure: four columns."""
    posterior = log_likelihoods.flatten(1).softmax(1).view_as(log_likelihoods)
    best = posterior.flatten(1).argmax(1)
    modulation, level = best // posterior.shape[2], best % posterior.shape[2]
    sure = (
        posterior.sum(2).gather(1, modulation[:, None])[:, 0],
        posterior.sum(1).gather(1, level[:, None])[:, 0],
    )
    return modulation, level, *sure


def _table(frames: Frames, found: list[tuple[Tensor, ...]]) -> pd.DataFrame:
    index = torch.arange(len(frames), device=frames.device)
    return prediction_table(frames, index, [torch.cat(c) for c in zip(*found, strict=True)])


def _data(frames: Frames) -> dict[str, Any]:
    return {
        "data": {
            "description": frames.description,
            "num_classes": frames.num_classes,
            "source": frames.source,
            "counts": {"test": len(frames)},
        }
    }

"""Decisions without training: of the bound, the likelihood receiver, or a trained network elsewhere."""

from __future__ import annotations

import copy
import datetime
import time
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import pandas as pd
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from amc_utils.baselines.bounds import genie_frames, log_likelihoods
from amc_utils.baselines.receiver import receiver_log_likelihoods
from amc_utils.config import ChannelSettings
from amc_utils.data import Frames, read_radioml, synthesise_frames, synthetic_source
from amc_utils.dsp.receiver_settings import receiver_settings
from amc_utils.inference.classifier import Classifier, load_classifier
from amc_utils.losses import TaskWeighting
from amc_utils.metrics import accuracy_line
from amc_utils.models import count_flops, count_parameters
from amc_utils.results import Run, claim_run_name, write_run
from amc_utils.runtime.devices import best_accelerator, best_fabric
from amc_utils.runtime.environment import environment
from amc_utils.runtime.parameters import Parameters
from amc_utils.runtime.paths import NAME_PATTERN, Workspace
from amc_utils.runtime.plugins import load_plugins
from amc_utils.runtime.progress import progress
from amc_utils.signals import (
    NUM_SAMPLES,
    SAMPLES_PER_SYMBOL,
    Channel,
    channel_from,
    expand_modulations,
    snr_grid,
)
from amc_utils.training import Evaluator, prediction_table, trained_network

_FRAMES_AT_ONCE = 1024
# Settings of a channel that matter to the genie, and those that a receiver of a file's frames knows.
_SEEN_BY_GENIE = {
    "preset", "rolloff_range", "pulse_exponents", "snr_slope", "snr_offset_db", "unit_mean_magnitude",
    "unipolar_ask", "record_scale",
}  # fmt: skip
_KNOWN_OF_FILE = _SEEN_BY_GENIE - {"rolloff_range", "record_scale"} | {"cfo_std"}
# Roll-offs that far beyond those that a receiver tries cost it next to nothing.
_ROLLOFF_ROOM = 0.03
# How strongly a refitted head is held to where it began, strongest first; steps that each has.
_REFIT_PENALTIES, _REFIT_STEPS = (1000.0, 100.0, 10.0, 1.0), 30
# Frames, what was decided on them, and facts of who decided.
Decided = tuple[Frames, pd.DataFrame, dict[str, Any]]


class EvaluationParameters(Parameters):
    """What to evaluate, and on which frames.

    Attributes:
        what: bound, receiver, or network.
        run_name: empty for a new adjective-noun-number.
        study: that the run belongs to, if any.
        profile: label of the scale, kept with the run.
        modulations: names, or the groups digital (17) and all (24); a network has its own.
        snr_range_db: first, last, step of the SNR labels; a network has its own.
        num_frames_per_cell: frames of each modulation and SNR label.
        num_samples: of a frame; a network has its own.
        seed: of the frames; training has another by default.
        checkpoint: of the network; or a model that amc export wrote.
        plugins: Python files that the network needs.
        data_path: RadioML file, of which a network sees the classes and labels that it knows; empty
            draws synthetic frames.
        label_order: of the file's labels, corrected or shipped.
        channel: of synthetic frames: preset, and what differs from it; of a file what a receiver knows.
        snr_known: the bound's receiver knows the SNR, which bounds every SNR by itself.
        phase_known: the bound's receiver knows the carrier phase.
        refit_frames_per_cell: frames, of the next seed, to which one affine layer for all classes is
            fitted in place of the network's two heads, see refitted_head; 0 for the heads as they are.
    """

    what: Literal["bound", "receiver", "network"]
    run_name: str = Field("", pattern=rf"^({NAME_PATTERN})?$")
    study: str = ""
    profile: str = "cpu"
    modulations: list[str] = Field(["digital"])
    snr_range_db: list[int] = Field([-20, 30, 2])
    num_frames_per_cell: int = Field(50, ge=1)
    num_samples: int = Field(NUM_SAMPLES, ge=128, multiple_of=SAMPLES_PER_SYMBOL)
    seed: int = Field(2019, ge=0, lt=2**63)
    checkpoint: str = ""
    plugins: list[str] = Field([])
    data_path: str = ""
    label_order: Literal["corrected", "shipped"] = "corrected"
    channel: ChannelSettings = Field({})
    snr_known: bool = False
    phase_known: bool = True
    refit_frames_per_cell: int = Field(0, ge=0)

    _plugins_run = field_validator("plugins")(load_plugins)

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        useless = {
            "bound": {"checkpoint", "data_path", "refit_frames_per_cell", "num_samples"}
            | (self.channel.keys() - _SEEN_BY_GENIE),
            "receiver": {"checkpoint", "snr_known", "phase_known", "refit_frames_per_cell"},
            "network": {"snr_known", "phase_known", "modulations", "snr_range_db", "num_samples"},
        }[self.what]
        if self.data_path:
            # The file has a channel of its own, of which the receiver knows some.
            useless |= self.channel.keys() - (_KNOWN_OF_FILE if self.what == "receiver" else set())
            # Another seed would choose some of the same frames again, or all.
            useless |= {"refit_frames_per_cell"}
        else:
            useless |= {"label_order"}
        fields = type(self).model_fields
        given = {n for n, f in fields.items() if getattr(self, n) != f.default} | self.channel.keys()
        if ignored := sorted(given & useless):
            what = f"{self.what} with data_path" if self.data_path else self.what
            raise ValueError(f"{ignored[0]} must be left out for {what}, which makes no use of it")
        return self

    @model_validator(mode="after")
    def _receiver_knows_the_channel(self) -> Self:
        channel, receiver = self.synthetic_channel, receiver_settings(self.channel)
        low, high = channel.rolloff_range
        known = (
            min(receiver.rolloffs) - _ROLLOFF_ROOM <= low
            and high <= max(receiver.rolloffs) + _ROLLOFF_ROOM
            and channel.pulse_exponents == (receiver.pulse_exponent,)
            and channel.cfo_std <= receiver.max_cfo / 3
        )
        known = (known and not channel.delay_spread) or receiver.is_blind
        if self.what == "receiver" and not known:
            raise ValueError(
                f"channel must have roll-offs near {min(receiver.rolloffs)} to "
                f"{max(receiver.rolloffs)}, pulse_exponents [{receiver.pulse_exponent}], cfo_std up to "
                f"{receiver.max_cfo / 3:.3g} and no multipath for the receiver, which knows no more; "
                f"got {channel}"
            )
        return self

    @property
    def synthetic_channel(self) -> Channel:
        """Channel of synthetic frames."""
        return channel_from(self.channel)


def evaluate(config: EvaluationParameters) -> Run:
    """Decide on frames, and write a run folder like that of training, without history.

    Raises:
        FileNotFoundError: no such checkpoint or file.
        ValueError: the wanted name belongs to a finished run, or a file cannot be taken.
    """
    workspace = Workspace.at(config.output_root, config.study)
    name = claim_run_name(config.run_name, workspace)
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    decide = {"bound": _bound, "receiver": _receiver, "network": _network}[config.what]
    frames, predictions, facts = decide(config, torch.device(best_accelerator()))
    facts |= {
        "run": name,
        "status": "completed",
        "started": started.isoformat(),
        "seconds": time.perf_counter() - clock,
        "config": facts.pop("trained", {})
        | {"seed": config.seed, "num_frames_per_cell": config.num_frames_per_cell}
        | {"profile": config.profile, "data_path": Path(config.data_path).name},
        "data": {
            "description": frames.description,
            "num_classes": frames.num_classes,
            "source": frames.source,
            "counts": {"test": len(frames)},
        },
        "environment": environment(),
    }
    facts["config"].pop("output_root", None)
    return write_run(workspace, facts=facts, predictions=predictions)


def evaluate_command(config: EvaluationParameters) -> None:
    """Record the bound, the likelihood receiver, or a trained network on other frames.

        amc evaluate bound --run_name genie-bound --num_frames_per_cell 200
        amc evaluate bound --run_name genie-known --num_frames_per_cell 200 --snr_known true
        amc evaluate receiver --run_name likelihood-receiver --channel "{preset: table_1}"
        amc evaluate network --run_name elsewhere --checkpoint best.ckpt --data_path FILE

    Each writes a run folder like that of training, without history, and prints the accuracies.
    """
    run = evaluate(config)
    told = "; the receiver was told the SNR" if config.snr_known else ""
    print(f"{accuracy_line(run.predictions)}{told}\n{run.folder}")


def _bound(config: EvaluationParameters, device: torch.device) -> Decided:
    """Decisions of the genie-aided receiver."""
    names, grid = expand_modulations(config.modulations), snr_grid(config.snr_range_db)
    cell = torch.arange(len(names) * len(grid), device=device)
    cell = cell.repeat_interleave(config.num_frames_per_cell)
    modulation, level = cell // len(grid), cell % len(grid)
    generator = torch.Generator(device).manual_seed(config.seed)
    known, channel, found = config.snr_known, config.synthetic_channel, []
    options = {"modulations": names, "snr_labels": grid, "channel": channel}
    for part in progress(torch.arange(len(cell), device=device).split(_FRAMES_AT_ONCE)):
        output = genie_frames(modulation[part], level[part], generator=generator, **options)
        told = level[part] if known else None
        told_phase = {"phase_known": config.phase_known}
        found.append(_decide(log_likelihoods(output, snr_level=told, **told_phase, **options)))
    source = synthetic_source(channel, config.seed)
    # The bound makes its own, cyclic frames; those of this set have labels and no samples.
    no_samples = torch.empty(len(cell), 0, 2, device=device)
    tested = Frames(no_samples, modulation, level, names, grid, source)
    name = "genie-aided bound" + (", SNR known" if known else "")
    name += "" if config.phase_known else ", phase unknown"
    return tested, _table(tested, found), {"kind": "bound", "network": {"name": name}}


def _receiver(config: EvaluationParameters, device: torch.device) -> Decided:
    """Decisions of the likelihood receiver that synchronises by itself."""
    names, grid = expand_modulations(config.modulations), snr_grid(config.snr_range_db)
    frames = _frames(config, names, grid, device, num_samples=config.num_samples)
    options = {"modulations": names, "snr_labels": grid, "channel": config.synthetic_channel}
    options["receiver"] = receiver_settings(config.channel)
    parts = torch.arange(len(frames), device=device).split(_FRAMES_AT_ONCE)
    found = [_decide(receiver_log_likelihoods(frames.iq(part), **options)) for part in progress(parts)]
    facts = {"kind": "receiver", "network": {"name": "likelihood receiver"}}
    return frames, _table(frames, found), facts


def _network(config: EvaluationParameters, device: torch.device) -> Decided:
    """Decisions of the network of a checkpoint."""
    if not config.checkpoint:
        raise ValueError(
            "checkpoint must name a network: outputs/checkpoints/RUN/best.ckpt of a run, or "
            "amc_utils/inference/shipped/open-24/model.safetensors, which comes with the project"
        )
    path = Path(config.checkpoint)
    if path.suffix == ".safetensors":
        model = load_classifier(path)
        # How many epochs it saw is not in the file.
        network, trained, seen = model.network, model.config, {}
    else:
        network, trained, stored = trained_network(path)
        seen = {"epochs": len(stored["history"])}
    fabric = best_fabric(trained.precision)
    network = fabric.setup_module(network.to(memory_format=torch.channels_last))
    options = {"num_samples": trained.num_samples, "only_shared": True}
    frames = _frames(config, trained.modulation_names, trained.snr_labels, device, **options)
    parts = torch.arange(len(frames), device=device).split(_FRAMES_AT_ONCE)
    if config.refit_frames_per_cell:
        classifier = Classifier(network, trained)
        changed = {"seed": config.seed + 1, "num_frames_per_cell": config.refit_frames_per_cell}
        fitted = config.model_copy(update=changed)
        fitted_to = _frames(fitted, trained.modulation_names, trained.snr_labels, device, **options)
        head = refitted_head(classifier, fitted_to)
        shape = len(trained.modulation_names), len(trained.snr_labels)
        iqs = (frames.iq(part) for part in progress(parts))
        looked = (classifier.look(iq, statistics=False)[0] for iq in iqs)
        with torch.no_grad():
            found = [_decide(head(features).unflatten(1, shape)) for features in looked]
        predictions = _table(frames, found)
    else:
        weighting = TaskWeighting(trained.task_weighting, trained.task_weights).to(device)
        evaluator = Evaluator(network, weighting, frames, trained, fabric)
        predictions = pd.concat([evaluator.predict(part) for part in progress(parts)])
    described = {
        "name": trained.network + (", refitted head" if config.refit_frames_per_cell else ""),
        "options": trained.network_options,
        "parameters": count_parameters(network),
        "flops_per_frame": count_flops(network),
    }
    facts = {"kind": "transfer", "network": described, "trained": trained.model_dump(mode="json")}
    facts |= {"parent": path.parent.name} | seen
    return frames, predictions.reset_index(drop=True), facts


def refitted_head(classifier: Classifier, frames: Frames) -> nn.Linear:
    """Affine layer from a frozen network's features to all joint classes, fitted to frames.

    It has a modulation head of its own for every SNR level, and the level's own score. It begins as the
    sum of the two heads and is held to them, as loosely as a third of the frames finds best; what it
    wins another decision on the same features can win at least.

    Args:
        classifier: the network.
        frames: frames of its classes.

    Raises:
        ValueError: the SNR head is not a single layer.
    """
    modulation, snr = classifier.network.modulation_head, classifier.network.snr_head
    if not isinstance(snr, nn.Linear):
        raise ValueError("refit_frames_per_cell must be 0 for a network whose snr_head is a bottleneck")
    order = torch.randperm(len(frames), generator=torch.Generator().manual_seed(0)).to(frames.device)
    parts = progress(order.split(_FRAMES_AT_ONCE))
    features = torch.cat([classifier.look(frames.iq(part), statistics=False)[0] for part in parts])
    classes, held_out = frames.joint_class[order], len(order) // 3
    head = nn.Linear(features.shape[1], frames.num_classes, device=features.device)
    with torch.no_grad():
        for own, *both in zip(*(m.parameters() for m in (head, modulation, snr)), strict=True):
            own.copy_((both[0][:, None] + both[1]).flatten(0, 1))
    begun = [own.detach().clone() for own in head.parameters()]

    def loss(penalty: float) -> Tensor:
        head.zero_grad()
        value = nn.functional.cross_entropy(head(features[held_out:]), classes[held_out:])
        for own, first in zip(head.parameters(), begun, strict=True):
            value = value + penalty / len(classes) * (own - first).square().sum()
        value.backward()
        return value

    def score() -> float:
        with torch.no_grad():
            return float(nn.functional.cross_entropy(head(features[:held_out]), classes[:held_out]))

    best, kept = score(), copy.deepcopy(head.state_dict())
    for penalty in _REFIT_PENALTIES:
        options = {"max_iter": _REFIT_STEPS, "line_search_fn": "strong_wolfe"}
        torch.optim.LBFGS(head.parameters(), **options).step(partial(loss, penalty))
        if (now := score()) < best:
            best, kept = now, copy.deepcopy(head.state_dict())
    head.load_state_dict(kept)
    return head


def _frames(
    config: EvaluationParameters,
    names: tuple[str, ...],
    grid: tuple[int, ...],
    device: torch.device,
    *,
    num_samples: int,
    only_shared: bool = False,
) -> Frames:
    selection = {"modulations": names, "snr_labels": grid, "seed": config.seed, "device": device}
    selection |= {"num_frames_per_cell": config.num_frames_per_cell, "num_samples": num_samples}
    if config.data_path:
        options = {"label_order": config.label_order, "only_shared": only_shared}
        return read_radioml(path=Path(config.data_path), **options, **selection)
    return synthesise_frames(channel=config.synthetic_channel, **selection)


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

"""A finished run's network as one small file for use: calibrated, and tried on OOD signals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor
from torch.nn.functional import cross_entropy

from amc_utils.config import TrainingParameters
from amc_utils.data import Frames, Split, load_frames, stratified_split, synthesise_frames
from amc_utils.inference.classifier import Classifier, load_classifier
from amc_utils.inference.naming import NamedSignal, classify_recording
from amc_utils.inference.onnx_files import export_onnx
from amc_utils.inference.ood import (
    SIGNIFICANCE,
    MahalanobisDetector,
    is_out_of_distribution,
    ood_frames,
    ood_kinds,
)
from amc_utils.inference.trials import Trial, trial
from amc_utils.metrics import (
    TASKS,
    accuracy_table,
    calibration_table,
    correct,
    expected_calibration_error,
)
from amc_utils.models import TwoHeadNetwork, count_parameters
from amc_utils.radioml.reader import evenly_spaced
from amc_utils.results import named_run
from amc_utils.runtime.environment import environment
from amc_utils.runtime.paths import Workspace, atomic_write
from amc_utils.runtime.plugins import load_plugins
from amc_utils.runtime.progress import progress
from amc_utils.signals import (
    DIGITAL_MODULATIONS,
    NUM_SAMPLES,
    generate_frames,
    to_unit_power,
)
from amc_utils.training import prediction_table, trained_network

# Frames of a class that calibrate, and of a recording that is tried; what is added to the run's seed
# for both, so that they are none of its own.
_CALIBRATING, _TRYING = 200, 64
_CALIBRATING_SEED, _TRYING_SEED = 1_000_003, 2_000_003
_FRAMES_A_KIND = 500
_OOD_SNRS_DB = (20, 10, 0)
# Of impairments: SNR per sample from which they are tried, frames of a class, addition to the seed.
_CLEAR_DB, _FRAMES_AN_IMPAIRMENT, _IMPAIRED_SEED = 10.0, 10, 3_000_003
# Sizes of each, and the changes to a channel that make one.
IMPAIRMENTS: dict[str, tuple[tuple[float, ...], Callable[[float], dict[str, Any]]]] = {
    "carrier offset to (cycles/sample)": ((1e-3, 3e-3, 1e-2), lambda size: {"cfo_max": size}),
    "symbol-rate offset to": ((1e-4, 3e-4, 1e-3), lambda size: {"clock_max": size}),
    "delay spread (samples)": (
        (0.5, 1.0, 2.0, 4.0),
        lambda size: {"delay_spread": size, "random_delay_spread": False},
    ),
    "roll-off": ((0.05, 0.2, 0.8, 1.0), lambda size: {"rolloff_range": (size, size)}),
    "pulse exponent": ((0.5, 1.0, 1.5), lambda size: {"pulse_exponents": (size,)}),
    "I/Q gain, std (dB)": ((0.5, 1.0, 2.0), lambda size: {"iq_gain_db": size}),
    "I/Q angle, std (rad)": ((0.03, 0.1, 0.2), lambda size: {"iq_phase_rad": size}),
    "DC, std": ((0.03, 0.1, 0.2), lambda size: {"dc_std": size}),
    "phase noise, std (rad/sample)": ((1e-3, 5e-3, 2e-2), lambda size: {"phase_noise_rad": size}),
    "filter tilt, std": ((0.1, 0.3, 0.6), lambda size: {"tilt_std": size}),
}
# Recordings that combining is fitted to, and tried on: of each class and number of frames; additions to
# the seed.
_RECORDINGS_A_CLASS, _FRAMES_OF_RECORDINGS = 40, (1, 4, 16)
_RECORDING_SEED, _NEW_RECORDING_SEED = 4_000_003, 5_000_003
# Recordings with nothing told: how many, of which seed those that are measured and those that the limit
# of OOD recordings is fitted to; and of each kind of OOD signals, how many, how long.
_NUM_TRIALS, _TRIAL_SEED, _FITTED_SEED = 510, 6_000_003, 7_000_003
_FOREIGN_RECORDINGS, _FOREIGN_SAMPLES = 40, 32 * 1024
# A set of frames, and an index into it, int64.
_Some = tuple[Frames, Tensor]


def export_command(
    run: str,
    recalibrate: bool = False,
    onnx: bool = False,
    data_path: str = "",
    plugins: list[str] = [],  # noqa: B006 - read only, and its type is that of the option
    output_root: str = "",
) -> None:
    """Write a finished run's network as one small file for use.

    Reads outputs/checkpoints/<run>/best.ckpt. Writes outputs/models/<run>/model.safetensors, of a
    network that comes with the package that in amc_utils/inference/shipped/, and beside it model.json:
    how well it is calibrated and which out-of-distribution (OOD) signals it flags.

        amc export open-24
        amc export open-24 --recalibrate
        amc export open-24 --onnx

    Args:
        run: name of a finished run whose checkpoint is still there.
        recalibrate: keep the weights of model.safetensors and fit all else anew, as after a change of
            the images.
        onnx: translate the exported network to network.onnx and samples.onnx beside it, and unless
            `recalibrate` is set do nothing else; onnx.json says how far they agree with torch.
        data_path: file that the run was trained on, if it was one.
        plugins: Python files that the network needs, as "[my_network.py]".
        output_root: folder that holds results/ and outputs/; empty is the repository.
    """
    load_plugins(plugins)
    if recalibrate or not onnx:
        print(export(run, output_root, data_path, recalibrate=recalibrate))
    if onnx:
        print(export_onnx(run, output_root))


def export(run: str, output_root: str = "", data_path: str = "", *, recalibrate: bool = False) -> Path:
    """Write model.safetensors and model.json of a finished run; returns the model's path.

    Temperatures and distances come from frames that it has not seen, the numbers of model.json from its
    test frames, from others and from OOD signals, with the weights as written. For the arguments see
    export_command.

    Raises:
        FileNotFoundError: no such run, or its checkpoint is gone.
        ValueError: a run trained on a file that is not given, or on shorter frames.
    """
    workspace = Workspace.at(output_root)
    named_run(workspace, run)
    network, settings = _trained(workspace, run, recalibrate)
    if settings["data_path"] and not data_path:
        raise ValueError(f"data_path must name the file that {run!r} was trained on, got none")
    config = TrainingParameters.checked(settings | {"resume_from": "", "data_path": data_path})
    if config.num_samples != NUM_SAMPLES:
        raise ValueError(
            f"num_samples must be {NUM_SAMPLES:,} for export, which recordings are cut into, got "
            f"{config.num_samples} of {run!r}; amc evaluate takes its checkpoint"
        )
    frames = load_frames(config)
    split = stratified_split(frames, seed=config.seed)
    raw = Classifier(network, config, run=run, trained_on=frames.description)
    calibrating, trying = _unseen(config, frames, split)
    train = split.train[evenly_spaced(len(split.train), 3 * len(split.test))]
    calibrated = _calibrated(raw, (frames, train), calibrating)
    path = workspace.model(run)
    with atomic_write(path) as temporary:
        calibrated.save(temporary)
        written = load_classifier(temporary)
        facts = {
            "run": run,
            "sha256": hashlib.sha256(temporary.read_bytes()).hexdigest(),
            "bytes": temporary.stat().st_size,
            "parameters": count_parameters(network),
            "trained_on": frames.description,
            "temperatures": written.temperatures,
            "test": _tested(written, frames, split.test),
            "ood_signals": _ood_signals(written, frames, split.test),
            "recordings": _recordings(written, *trying),
            "trials": _trials(written) if written.num_statistics else {},
            "impairments": _impairments(written),
            "environment": environment(),
        }
        with atomic_write(path.with_name("model.json")) as described:
            described.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf8")
    return path


def _trained(workspace: Workspace, run: str, exported: bool) -> tuple[TwoHeadNetwork, dict]:
    """Network with its weights as they will be written, and the parameters of its training."""
    if exported:
        classifier = load_classifier(workspace.model(run))
        return classifier.network, classifier.config.model_dump()
    network, _, stored = trained_network(workspace.checkpoints / run / "best.ckpt")
    # As they will be read back, see Classifier.save.
    weights = stored["network"].items()
    network.load_state_dict({n: w.half().float() if w.ndim > 1 else w for n, w in weights})
    return network.to(memory_format=torch.channels_last), stored["config"]


def _unseen(config: TrainingParameters, frames: Frames, split: Split) -> tuple[_Some, _Some]:
    """Frames that the run was not trained on, to calibrate it and to try it.

    Of synthetic classes there are as many as one likes, of a file those of validation and test.
    """
    if config.data_path:
        return (frames, split.validation), (frames, split.test)

    def new(count: int, seed: int) -> _Some:
        made = synthesise_frames(
            modulations=config.modulation_names,
            snr_labels=config.snr_labels,
            num_frames_per_cell=count,
            seed=config.seed + seed,
            channel=config.synthetic_channel,
        )
        return made, torch.arange(len(made))

    return new(_CALIBRATING, _CALIBRATING_SEED), new(_TRYING, _TRYING_SEED)


def _calibrated(raw: Classifier, trained: _Some, unseen: _Some) -> Classifier:
    (frames, index), (others, new) = trained, unseen
    features, logits = raw.look(others.iq(new))
    truths = others.modulation[new], others.snr_index[new]
    detector = MahalanobisDetector.fit(
        raw.look(frames.iq(index))[0],
        frames.joint_class[index],
        held_out=features,
        predicted=raw.joint_class(logits),
        num_classes=frames.num_classes,
        num_snrs=len(frames.snr_labels),
        num_statistics=raw.num_statistics,
    )
    calibrated = replace(raw, temperatures=tuple(map(_temperature, logits, truths)), detector=detector)
    calibrated = replace(calibrated, combining=_combining(calibrated))
    if not calibrated.num_statistics:
        return calibrated
    likeness = [named.likeness for _, named in _tried(calibrated, _FITTED_SEED) if named]
    return replace(calibrated, foreign_below=float(np.quantile(likeness, SIGNIFICANCE)))


def _tried(classifier: Classifier, seed: int) -> Iterator[tuple[Trial, NamedSignal | None]]:
    """Trials of a seed, and the strongest signal found in each with nothing told."""
    for number in progress(range(_NUM_TRIALS), desc="trials"):
        truth = trial(number, seed)
        found = classify_recording(truth.samples, classifier, num_frames=_TRYING, most=1)
        yield truth, found[0] if found else None


def _recordings_of_classes(
    classifier: Classifier, seed: int, count: int = _RECORDINGS_A_CLASS
) -> tuple[list[Tensor], Tensor]:
    """Logits of the modulation [N, num_modulations] of recordings, and their modulations.

    Each is a stretch of one signal, through one channel, of any SNR label; numbers of frames differ.
    """
    config, found, truth = classifier.config, [], []
    names, labels = config.modulation_names, torch.tensor(config.snr_labels)
    modulation = torch.arange(len(names)).repeat(count)
    generator = torch.Generator().manual_seed(config.seed + seed)
    for part, number in enumerate(progress(_FRAMES_OF_RECORDINGS, desc="recordings")):
        label = labels[torch.randint(len(labels), modulation.shape, generator=generator)]
        iq = generate_frames(
            torch.arange(len(modulation)),
            modulation,
            label,
            modulations=names,
            seed=config.seed + seed + part,
            channel=config.synthetic_channel,
            num_samples=number * NUM_SAMPLES,
        ).iq
        frames = to_unit_power(iq.view(-1, NUM_SAMPLES)) if not classifier.keeps_scale else iq
        logits = classifier.look(frames.reshape(-1, NUM_SAMPLES), statistics=False)[1].modulation
        found += list(logits.split(number))
        truth.append(modulation)
    return found, torch.cat(truth)


def _combining(classifier: Classifier) -> tuple[float, float]:
    """Of Classifier.of_recording what gives recordings' modulations the least cross-entropy."""
    recordings, truth = _recordings_of_classes(classifier, _RECORDING_SEED)
    sums = torch.stack([
        (logits / classifier.temperatures[0]).log_softmax(1).sum(0) for logits in recordings
    ])  # fmt: skip
    counts = torch.tensor([len(logits) for logits in recordings]).float()[:, None]

    def cost(point: np.ndarray) -> float:
        return float(cross_entropy(sums * np.exp(point[0]) * counts ** -point[1], truth))

    found = minimize(cost, (0.0, 0.5), method="Nelder-Mead").x
    return float(np.exp(found[0])), float(found[1])


def _temperature(logits: Tensor, truth: Tensor) -> float:
    """Divisor of the logits with the least cross-entropy.

    Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", 2017, section 4.2.
    """
    found = minimize_scalar(
        lambda log: float(cross_entropy(logits / float(np.exp(log)), truth)),
        bounds=(-2, 2),
        method="bounded",
    )
    return float(np.exp(found.x))


def _tested(written: Classifier, frames: Frames, index: Tensor) -> dict[str, Any]:
    """Accuracies with 95 % intervals and expected calibration errors on some frames."""
    seen = written.look(frames.iq(index))
    found: dict[str, Any] = {"num_frames": len(index)}
    uncalibrated = replace(written, temperatures=(1.0, 1.0))
    for name, classifier in (("uncalibrated", uncalibrated), ("calibrated", written)):
        said = classifier.prediction(*seen)
        modulation = said.modulation.max(1)
        decided = (modulation.indices, said.level, modulation.values, said.level_probability)
        table = prediction_table(frames, index, decided)
        sure = {task: table[f"{task}_confidence"] for task in TASKS[1:]}
        sure["joint"] = sure["modulation"] * sure["snr"]
        right = correct(table)
        found[f"calibration_error_{name}"] = {
            task: expected_calibration_error(calibration_table(sure[task], right[task]))
            for task in TASKS
        }
    scores = accuracy_table(table).set_index("metric")[["value", "low", "high"]]
    return found | scores.to_dict("index")


def _ood_signals(written: Classifier, frames: Frames, index: Tensor) -> list[dict[str, Any]]:
    """Share of frames that are flagged, of test frames and of each kind of OOD signals by SNR."""
    generator = torch.Generator().manual_seed(written.config.seed)
    channel = written.config.synthetic_channel
    rows = [_flagged(written, "test frames", "all", frames.iq(index))]
    kinds = ood_kinds(written.config.modulation_names, channel)
    for kind in progress(kinds, desc="OOD signals"):
        for snr_db in _OOD_SNRS_DB:
            iq = ood_frames(kind, snr_db, _FRAMES_A_KIND, generator=generator, channel=channel)
            rows.append(_flagged(written, kind, snr_db, iq))
    return rows


def _flagged(written: Classifier, signal: str, snr_db: int | str, iq: Tensor) -> dict[str, Any]:
    share = float((written(iq).p_value < SIGNIFICANCE).float().mean())
    return {"signal": signal, "snr_db": snr_db, "num_frames": len(iq), "flagged": share}


def _impairments(written: Classifier) -> list[dict[str, Any]]:
    """What each impairment alone costs, in sizes up to the largest: accuracies at labels from 10 dB.

    Beside it the channel is still: no offsets, no multipath, one pulse, the middle roll-off.
    """
    config, rows = written.config, []
    own = config.synthetic_channel
    still = dict.fromkeys(("cfo_std", "cfo_max", "clock_std", "clock_max", "delay_spread"), 0.0)
    still |= {
        "pulse_exponents": (own.pulse_exponent,),
        "rolloff_range": (sum(own.rolloff_range) / 2,) * 2,
    }
    sizes = [("none", 0.0, {})]
    sizes += [(name, size, made(size)) for name, (some, made) in IMPAIRMENTS.items() for size in some]
    labels = [label for label in config.snr_labels if own.snr_db(label) >= _CLEAR_DB]
    for name, size, changes in progress(sizes, desc="impairments"):
        frames = synthesise_frames(
            modulations=config.modulation_names,
            snr_labels=labels,
            num_frames_per_cell=_FRAMES_AN_IMPAIRMENT,
            seed=config.seed + _IMPAIRED_SEED,
            channel=replace(own, **still | changes),
        )
        index = torch.arange(len(frames))
        said = written(frames.iq(index))
        sure, modulation = said.modulation.max(1)
        right = modulation == frames.modulation
        level = torch.tensor(config.snr_labels)[said.level]
        linear = torch.tensor([name in DIGITAL_MODULATIONS for name in config.modulation_names])
        rows.append({
            "impairment": name,
            "size": size,
            "num_frames": len(frames),
            "modulation": float(right.float().mean()),
            "modulation_digital": float(right[linear[frames.modulation]].float().mean()),
            "snr": float((level == torch.tensor(labels)[frames.snr_index]).float().mean()),
            "calibration_error": expected_calibration_error(
                calibration_table(pd.Series(sure.numpy()), pd.Series(right.numpy()))
            ),
            "flagged": float((said.p_value < SIGNIFICANCE).float().mean()),
        })  # fmt: skip
    return rows


def _trials(written: Classifier) -> dict[str, Any]:
    """What is found and said of recordings with nothing told: of known signals, and of others."""
    rows = []
    for truth, best in _tried(written, _TRIAL_SEED):
        turn = (best.carrier_hz - truth.carrier + 0.5) % 1 - 0.5 if best else np.inf
        rows.append({
            "symbol_rate": bool(best) and abs(best.symbol_rate / truth.symbol_rate - 1) < 5e-3,
            "carrier": abs(turn) < 1e-2 * truth.symbol_rate,
            "modulation": bool(best) and best.modulation == truth.modulation,
            "probability": best.posterior.iloc[0] if best else 0.0,
            "called_ood": bool(best) and best.is_foreign,
        })  # fmt: skip
    table = pd.DataFrame(rows)
    right = table["modulation"].astype(bool)
    error = expected_calibration_error(calibration_table(table.pop("probability"), right))
    shares = {name: float(column.mean()) for name, column in table.items()}
    return {
        "num_recordings": len(table),
        "right": shares,
        "calibration_error": error,
        "foreign": _foreign_recordings(written),
    }


def _foreign_recordings(written: Classifier) -> dict[str, dict[str, float]]:
    """Of each kind of OOD signals at 20 dB, as recordings, the shares that are not called known."""
    generator = torch.Generator().manual_seed(written.config.seed)
    channel, shares = written.config.synthetic_channel, {}
    for kind in ood_kinds(written.config.modulation_names, channel):
        iq = ood_frames(
            kind,
            20.0,
            _FOREIGN_RECORDINGS,
            generator=generator,
            channel=channel,
            num_samples=_FOREIGN_SAMPLES,
        )
        named = [classify_recording(some.numpy(), written, num_frames=_TRYING) for some in iq]
        shares[kind] = {
            "not found": float(np.mean([not found for found in named])),
            "called OOD": float(np.mean([bool(found) and found[0].is_foreign for found in named])),
        }
    return shares


def _recordings(written: Classifier, frames: Frames, index: Tensor) -> dict[str, int]:
    """How many recordings, all frames of a class in each, are called OOD though they are not.

    And how often recordings, each of one signal, are named rightly, and how well the probability of
    that is calibrated.
    """
    cell, classes = frames.joint_class[index], frames.num_classes
    p_value = torch.cat([written(frames.iq(part)).p_value for part in index.split(2048)])
    flagged = torch.bincount(cell[p_value < SIGNIFICANCE], minlength=classes)
    counts = torch.bincount(cell, minlength=classes)
    pairs = zip(flagged.tolist(), counts.tolist(), strict=True)
    new, truth = _recordings_of_classes(written, _NEW_RECORDING_SEED)
    sure, named = torch.stack([written.of_recording(logits) for logits in new]).max(1)
    right = named == truth
    called = [is_out_of_distribution(some, count) for some, count in pairs if count]
    return {
        "num_recordings": len(called),
        "frames_each": int(counts.max()),
        "called_ood": sum(called),
        "named": len(new),
        "named_rightly": float(right.float().mean()),
        "calibration_error": expected_calibration_error(
            calibration_table(pd.Series(sure.numpy()), pd.Series(right.numpy()))
        ),
    }

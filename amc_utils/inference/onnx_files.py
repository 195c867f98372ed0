"""An exported network as ONNX files, for programs without torch, and how far these agree with it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from amc_utils.data import synthesise_frames
from amc_utils.images import network_input
from amc_utils.inference.classifier import (
    SHIPPED,
    SHIPPED_FOR_RADIOML,
    Classifier,
    load_classifier,
)
from amc_utils.inference.real_parts import RealParts
from amc_utils.runtime.environment import environment
from amc_utils.runtime.paths import Workspace, atomic_write
from amc_utils.signals import NUM_SAMPLES, SAMPLES_PER_SYMBOL

# Outputs that differ by less agree.
TOLERANCE = 1e-4
OUTPUTS = ("modulation", "snr")
_OPSET = 18
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
# Of the comparison: addition to the run's seed, frames at once, turns of both sides.
_SEED, _FRAMES_AT_ONCE, _NUM_TURNS = 8_000_003, 64, 5


class _Calibrated(nn.Module):
    """Network that gives calibrated probabilities, of its inputs."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.network, self.temperatures = classifier.network, classifier.temperatures

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        logits = zip(self.network(inputs), self.temperatures, strict=True)
        return tuple((part / temperature).softmax(1) for part, temperature in logits)


class _FromSamples(nn.Module):
    """What a network is given, of float32 [B, 2, num_samples], in-phase and quadrature part."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.options = classifier.config.image_options

    def forward(self, samples: Tensor) -> Tensor:
        return network_input(torch.complex(samples[:, 0], samples[:, 1]), **self.options)


def export_onnx(run: str, output_root: str = "") -> Path:
    """Write network.onnx, samples.onnx and onnx.json beside a run's exported network.

    network.onnx takes what the network is given, samples.onnx frames, float32 [B, 2, 1024], in-phase
    and quadrature part. Both give calibrated probabilities, float32 [B, num_modulations] and
    [B, num_snrs]. onnx.json says how far they agree with torch, and how fast both are.

    Returns:
        Path of onnx.json.

    Raises:
        FileNotFoundError: the run has no exported network.
        ValueError: a package is missing, or the network or its images cannot be translated.
    """
    path = Workspace.at(output_root).model(run)
    classifier = load_classifier(path)
    _check_packages()
    calibrated = _Calibrated(classifier).eval()
    samples = _samples(classifier)
    from_samples = _FromSamples(classifier)
    inputs = torch.cat([from_samples(part) for part in samples.split(_FRAMES_AT_ONCE)])
    whole = nn.Sequential(from_samples, calibrated)
    properties = _properties(classifier)
    record = {
        "run": run,
        "weights_sha256": properties["weights_sha256"],
        "opset": _OPSET,
        "tolerance": TOLERANCE,
        "files": {
            name: _write(path.with_name(name), module, some, properties)
            for name, module, some in (
                ("network.onnx", calibrated, inputs), ("samples.onnx", whole, samples)
            )
        },
        "environment": environment() | {"onnx": {name: version(name) for name in _PACKAGES}},
    }  # fmt: skip
    with atomic_write(path.with_name("onnx.json")) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf8")
    return path.with_name("onnx.json")


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401 - all three are slow to import, and seldom asked for
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(f"--onnx needs {error.name}: pip install {' '.join(_PACKAGES)}") from None


def _samples(classifier: Classifier) -> Tensor:
    """A new frame of each class and SNR label, float32 [B, 2, num_samples]."""
    config = classifier.config
    frames = synthesise_frames(
        modulations=config.modulation_names,
        snr_labels=config.snr_labels,
        num_frames_per_cell=1,
        seed=config.seed + _SEED,
        channel=config.synthetic_channel,
    )
    return torch.view_as_real(frames.iq(torch.arange(len(frames)))).transpose(1, 2).contiguous()


def _properties(classifier: Classifier) -> dict[str, str]:
    """What the files say of themselves; the first three are for GNU Radio 4's block OnnxInference."""
    config = classifier.config
    # The licence of others' networks is theirs to say.
    is_shipped = classifier.run in (SHIPPED.parent.name, SHIPPED_FOR_RADIOML.parent.name)
    return ({"license": "BSD-3-Clause"} if is_shipped else {}) | {
        "history_depth": "2",
        "normalise_mode": "None",
        "architecture": config.network,
        "run": classifier.run,
        "trained_on": classifier.trained_on,
        "samples_per_symbol": str(SAMPLES_PER_SYMBOL),
        "num_samples": str(NUM_SAMPLES),
        "scale": "of the recording" if classifier.keeps_scale else "unit mean power of a frame",
        "channels": json.dumps(config.channels),
        "modulation_labels": json.dumps(config.modulation_names),
        "snr_labels_db": json.dumps(config.snr_labels),
        "weights_sha256": weights_sha256(classifier.network),
    }


def weights_sha256(network: nn.Module) -> str:
    """SHA-256 of a network's weights, which calibrating it anew does not change."""
    found = hashlib.sha256()
    for name, weight in sorted(network.state_dict().items()):
        found.update(name.encode() + weight.contiguous().numpy().tobytes())
    return found.hexdigest()


def _write(path: Path, module: nn.Module, inputs: Tensor, properties: dict[str, str]) -> dict[str, Any]:
    """Write one file, and compare it with torch on all inputs; returns what the record says of it."""
    takes_samples = path.stem == "samples"
    with atomic_write(path) as temporary:
        program = _translated(module, inputs[:2], path.stem if takes_samples else "inputs")
        own = {"input_size": str(inputs.shape[-1])} | properties
        if not takes_samples:
            del own["history_depth"]
        program.model.metadata_props.update(own)
        program.save(temporary)
        return {
            "bytes": temporary.stat().st_size,
            "input": ["batch", *inputs.shape[1:]],
            **compare(module, onnx_session(temporary), inputs),
        }


@torch.no_grad()
def _translated(module: nn.Module, some: Tensor, name: str) -> torch.onnx.ONNXProgram:
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    takes_samples = isinstance(module, nn.Sequential)
    if takes_samples:
        first, network = module
        # What is kept from call to call must be kept before, else the graph would compute it.
        first(some)
        first = RealParts(torch.export.export(first, (some,), dynamic_shapes=shapes))
        module = nn.Sequential(first, network)
        # A graph refuses `eval`.
        module.training = False
    try:
        return torch.onnx.export(
            module,
            (some,),
            dynamic_shapes=shapes,
            dynamo=True,
            opset_version=_OPSET,
            input_names=[name],
            output_names=OUTPUTS,
            # Looking for what to simplify among thousands of operations takes many minutes.
            optimize=not takes_samples,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ValueError(f"{name} must be of operations that ONNX has: {reason}") from error


def onnx_session(path: Path) -> Any:
    """Session of onnxruntime for a file, on one core."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = 1
    # Else it warns of each constant that it does not fold.
    options.log_severity_level = 3
    return InferenceSession(path, options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def compare(module: nn.Module, session: Any, inputs: Tensor) -> dict[str, Any]:
    """How far the outputs of torch and of onnxruntime agree, and how many inputs a second each takes.

    And how far torch agrees with itself when the last bit of some inputs is another: no translation
    comes nearer. For the rates both take turns, on one core.
    """
    name = session.get_inputs()[0].name
    sides: tuple[Callable, Callable] = (module, lambda part: session.run(None, {name: part.numpy()}))
    steps = torch.randint(-1, 2, inputs.shape, generator=torch.Generator().manual_seed(0))
    rounded = inputs * (1 + torch.finfo(inputs.dtype).eps * steps)
    num_threads, part = torch.get_num_threads(), inputs[:_FRAMES_AT_ONCE]
    torch.set_num_threads(1)
    try:
        wanted, given = (_outputs(run, inputs) for run in sides)
        itself = _outputs(module, rounded)
        seconds = [[_seconds(run, part) for run in sides] for _ in range(_NUM_TURNS)]
    finally:
        torch.set_num_threads(num_threads)
    rates = map(float, len(part) / np.median(seconds, 0))
    return {
        "num_frames": len(inputs),
        "onnxruntime": _agreement(wanted, given),
        "torch_of_rounded_inputs": _agreement(wanted, itself),
        "frames_per_second": dict(zip(("torch", "onnxruntime"), rates, strict=True)),
    }


def _outputs(run: Callable[[Tensor], Any], inputs: Tensor) -> list[Tensor]:
    parts = [[torch.as_tensor(x) for x in run(part)] for part in inputs.split(_FRAMES_AT_ONCE)]
    return [torch.cat(some) for some in zip(*parts, strict=True)]


def _agreement(wanted: list[Tensor], given: list[Tensor]) -> dict[str, Any]:
    pairs = list(zip(wanted, given, strict=True))
    apart = torch.stack([(one - other).abs().amax(1) for one, other in pairs]).amax(0)
    agree = [float((one.argmax(1) == other.argmax(1)).float().mean()) for one, other in pairs]
    return {
        "largest_difference": float(apart.max()),
        "median_difference": float(apart.median()),
        "within_tolerance": float((apart <= TOLERANCE).float().mean()),
        "same": dict(zip(OUTPUTS, agree, strict=True)),
    }


def _seconds(run: Callable[[Tensor], Any], part: Tensor) -> float:
    start = time.perf_counter()
    run(part)
    return time.perf_counter() - start

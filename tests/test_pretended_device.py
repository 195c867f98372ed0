"""All that computes runs on "cuda", and a step of training never makes the host wait for the device.

No GPU is needed, see tests/pretended_device.py. Fabric, its precision, autocast, the scaling of losses
and autograd are the real ones, told that there is a CUDA device; only the arithmetic is left out. What
this cannot show: numbers, speed, memory, and waits inside operations that torch does not name.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from importlib import import_module

import pandas as pd
import pytest
import torch
from pretended_device import CUDA, pretended_device

from amc_utils import signals
from amc_utils.baselines.bounds import genie_frames, log_likelihoods
from amc_utils.baselines.receiver import receiver_log_likelihoods
from amc_utils.data import Frames, redraw_frames, synthesise_frames
from amc_utils.dsp import features
from amc_utils.dsp.receiver_settings import RECEIVERS
from amc_utils.images import IMAGE_CHANNELS, constellation_images, network_input
from amc_utils.inference import export
from amc_utils.inference.classifier import Classifier
from amc_utils.inference.ood import MahalanobisDetector
from amc_utils.models import untrained_network
from amc_utils.runtime.devices import best_fabric
from amc_utils.runtime.paths import REPOSITORY
from amc_utils.signals import CHANNEL_PRESETS, DIGITAL_MODULATIONS, RADIOML_2018_MODULATIONS
from amc_utils.studies import gpu_check
from amc_utils.training import Learner

SIZE = 16


@pytest.fixture
def device():
    with pretended_device() as recorder:
        yield recorder


def samples(size=SIZE):
    return torch.randn(size, 1024, dtype=torch.complex64, device=CUDA)


def make_frames(config, size=2 * SIZE, store=CUDA):
    index = torch.arange(size, device=CUDA)
    return Frames(
        torch.zeros(size, 1024, 2, device=store),
        index % len(config.modulation_names),
        index % len(config.snr_labels),
        config.modulation_names,
        config.snr_labels,
        {"label": "pretended"},
        place="device" if store == CUDA else "host",
    )


def make_learner(config, store=CUDA):
    fabric = best_fabric(config.precision)
    network, frames = untrained_network(config), make_frames(config, store=store)
    return Learner(config, network, frames, fabric=fabric, num_steps=10)


def take_step(learner, number=0):
    """One step as Trainer takes it."""
    batch = torch.arange(SIZE)
    iq = learner.evaluator.frames.iq(batch.to(CUDA, non_blocking=True))
    learner.seed(0, number)
    sums = learner.step(batch.to(CUDA, non_blocking=True), iq, number)
    learnt = [p for group in learner.optimizer.param_groups for p in group["params"] if p.requires_grad]
    assert {*learner.network.parameters()} <= {*learnt}
    assert {p.grad.device for p in learnt} == {CUDA}
    return sums


def waits_of_a_step(device, config):
    learner = make_learner(config)
    take_step(learner)
    with device.listed() as waits:
        assert take_step(learner, 1).device == CUDA
    return waits


# --- What is pretended ---


def test_the_device_is_one_as_torch_sees_it(device):
    x = samples()
    assert (x.device, (x + 1).device, best_fabric("32-true").device) == (CUDA, CUDA, CUDA)
    assert torch.ones(2).sum().item() == 2  # tensors of the host are real
    with pytest.raises(RuntimeError, match=r"same device|different devices"):
        _ = x + torch.zeros(1024)


def test_nothing_is_left_of_it(device):
    sent = signals.symbol_table(("BPSK",), CUDA)[0]
    assert sent.device == CUDA
    signals.symbol_table.cache_clear()
    with pretended_device():
        signals.symbol_table(("BPSK",), CUDA)
    assert signals.symbol_table.cache_info().currsize == 0


# --- What the recorder hears ---


def look(frames):
    return frames.iq.cpu().to(CUDA, non_blocking=True)


def choose(frames):
    loud = frames.iq.abs() > 0
    return frames.iq[loud].view(len(frames.iq), -1)


def copy_a_constant(frames):
    return frames.iq * torch.tensor(0.5, device=frames.iq.device)


def copy_a_constant_like(frames):
    scale = frames.iq.real.new_tensor([0.5])
    return frames.iq * scale


def ask_a_number(frames):
    return frames.iq * float(frames.iq.real.sum())


def index_from_host(frames):
    return frames.iq[:, [0, 2]]


@pytest.mark.parametrize(
    ("points", "line", "operation"),
    [
        (look, 1, "_to_copy cuda to cpu"),
        (choose, 2, "index by mask"),
        (copy_a_constant, 1, "_to_copy host to cuda"),
        (copy_a_constant_like, 1, "_to_copy host to cuda"),
        (ask_a_number, 1, "_local_scalar_dense"),
        (index_from_host, 1, "index from host"),
    ],
)
def test_a_wait_in_a_step_is_named(device, make_config, monkeypatch, points, line, operation):
    grey = IMAGE_CHANNELS["counts_8_bit"][1]
    monkeypatch.setitem(IMAGE_CHANNELS, "counts_8_bit", (points, grey))
    waits = waits_of_a_step(device, make_config())
    assert waits
    where = points.__code__.co_firstlineno + line
    assert {(w.operation, w.file, w.line) for w in waits} == {
        (operation, "test_pretended_device.py", where)
    }


def test_a_copy_that_does_not_wait_is_not_named(device):
    with device.listed() as waits:
        torch.ones(3).to(CUDA, non_blocking=True)
        torch.full((3,), 2.0, device=CUDA)
        samples()[:, 3:5].sum(1)
    assert waits == []


# --- Frames ---


@pytest.mark.parametrize("delay_spread", [0.0, 2.0])
@pytest.mark.parametrize("preset", CHANNEL_PRESETS)
@pytest.mark.parametrize("names", [RADIOML_2018_MODULATIONS, DIGITAL_MODULATIONS, ("GMSK", "FM")])
def test_frames_of_all_classes_with_one_look(device, monkeypatch, names, preset, delay_spread):
    channel = replace(CHANNEL_PRESETS[preset], delay_spread=delay_spread)
    index = torch.arange(48, device=CUDA)

    def make():
        return signals.generate_frames(
            index, index % len(names), index, modulations=names, seed=1, channel=channel
        )

    make()
    with device.listed() as waits:
        made = make()
    assert (made.iq.device, made.iq.shape, made.iq.dtype) == (CUDA, (48, 1024), torch.complex64)
    assert [(w.file, w.operation) for w in waits] == [("signals.py", "_to_copy cuda to cpu")]
    monkeypatch.setattr(signals, "_distinct", lambda block: [0, 1, 2])
    with device.listed() as waits:
        make()
    assert waits == []


def test_sets_of_frames(device):
    frames = synthesise_frames(
        modulations=("BPSK", "FM"), snr_labels=(0, 10), num_frames_per_cell=8, seed=1, device=CUDA,
        samples_in="device",
    )  # fmt: skip
    redraw_frames(frames, torch.arange(8, device=CUDA), 1)
    assert frames.iq(torch.arange(4, device=CUDA)).device == CUDA


# --- Images and features ---


@pytest.mark.parametrize("preset", RECEIVERS)
@pytest.mark.parametrize("channels", [*([name] for name in IMAGE_CHANNELS), ["stack"], ["iq"]])
def test_images_never_wait(device, channels, preset):
    iq = samples()
    for unit_power in (False, True):
        options = {"receiver": RECEIVERS[preset], "unit_power": unit_power}
        network_input(iq, channels, 32, **options)
        with device.listed() as waits:
            drawn = network_input(iq, channels, 32, **options)
        assert (drawn.device, drawn.dtype, len(drawn)) == (CUDA, torch.float32, SIZE)
        assert waits == []


def test_images_into_a_buffer(device):
    out = torch.empty(SIZE, 1, 32, 32, device=CUDA)
    assert constellation_images(samples(), ["raw"], 32, out=out) is out


def test_features_of_frames(device):
    iq = samples()
    for feature in ("mean_power", "snr_ratio", "carrier_share", "squared_line", "envelope_std"):
        found = getattr(features, feature)(iq)
        assert (found.device, found.shape) == (CUDA, (SIZE,)), feature
    frequency, power = features.power_spectrum(iq)
    assert features.noise_density(frequency, power).device == CUDA
    assert features.one_sided(power).device == features.eye_traces(iq[0]).device == CUDA
    assert features.signature(iq)[0] in ("spectral line", "constant envelope", "neither")
    assert features.circular_mean(power, 8.0)


# --- Training ---

NETWORKS = {
    "residual": {"network": "test_resnet", "channels": ["stack", "counts_8_bit"]},
    "windows": {
        "network": "swin_tiny",
        "network_options": {"window_size": 2, "embed_dim": 12},
        "task_weighting": "sum",
    },
    "transformer": {"network": "test_vit", "snr_loss": "cumulative", "schedule": "one_cycle"},
    "samples": {"network": "oshea_resnet", "channels": ["iq"], "snr_loss": "earth_mover"},
}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize(
    ("network", "fused"), [*((network, True) for network in NETWORKS), ("residual", False)]
)
def test_a_step_never_waits(device, make_config, network, precision, fused):
    engine = {"fused": fused}
    waits = waits_of_a_step(
        device, make_config(**NETWORKS[network], precision=precision, engine=engine)
    )
    if precision == "16-mixed" and not fused:
        # GradScaler asks whether the gradients are finite unless a fused optimiser does.
        assert [(w.operation, w.file) for w in waits] == [("_local_scalar_dense", "training.py")]
    else:
        assert waits == []


@pytest.mark.parametrize(
    "values",
    [
        {"network": "resnet18", "channels": ["stack"]},
        {"gradient_clip": 1.0},
        {"engine": {"accumulate": 2}},
        {"schedule": "cosine", "snr_loss": "regression"},
        {"task_weighting": "equal", "unit_power": True},
        {"channel": {"preset": "table_1"}, "channels": ["stack", "offset", "synchronised"]},
    ],
    ids=str,
)
def test_no_setting_makes_a_step_wait(device, make_config, values):
    assert waits_of_a_step(device, make_config(**values)) == []


def test_a_step_that_may_be_left_out_waits_once(device, make_config):
    device.answer = 0
    waits = waits_of_a_step(device, make_config(engine={"skip_bad_steps": True}))
    assert [(w.operation, w.file) for w in waits] == [("_local_scalar_dense", "training.py")]


def test_samples_of_the_host_come_without_a_wait(device, make_config):
    learner = make_learner(make_config(), store=torch.device("cpu"))
    with device.listed() as waits:
        iq = learner.evaluator.frames.iq(torch.arange(SIZE))
    assert iq.device == CUDA
    assert waits == []


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", "bfloat16"), ("16-mixed", "float16")])
def test_mixed_precision_is_that_of_the_device(device, make_config, precision, dtype):
    learner = make_learner(make_config(precision=precision))
    seen = []
    learner.network.modulation_head.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    take_step(learner)
    assert seen == [getattr(torch, dtype)]
    assert {p.dtype for p in learner.network.parameters()} == {torch.float32}


def test_measuring_waits_for_its_result_alone(device, make_config):
    evaluator = make_learner(make_config()).evaluator
    index = torch.arange(SIZE, device=CUDA)
    evaluator.measure(index, "validation")
    with device.listed() as waits:
        row = evaluator.measure(index, "validation")
    assert row["validation_joint_accuracy"] == 1
    assert len(waits) == 2  # the total, and the sums
    assert {w.file for w in waits} == {"training.py"}


def test_predicting_waits_for_its_table_alone(device, make_config):
    evaluator = make_learner(make_config()).evaluator
    index = torch.arange(SIZE, device=CUDA)
    device.answer = 0
    evaluator.predict(index)
    with device.listed() as waits:
        assert len(evaluator.predict(index)) == SIZE
    # Which frames are this process's, and seven columns.
    assert len(waits) == 8


# --- Inference and baselines ---


def test_a_classifier_and_its_calibration(device, make_config):
    config = make_config()
    network = untrained_network(config).to(CUDA).eval()
    bare = Classifier(network, config)
    seen, logits = bare.look(samples())
    width, num_classes = seen.shape[1], 6
    detector = MahalanobisDetector(
        torch.eye(width, device=CUDA),
        torch.zeros(num_classes, width, device=CUDA),
        torch.zeros(num_classes, 1, 5, device=CUDA),
    )
    classifier = replace(bare, detector=detector)
    with device.listed() as waits:
        said = classifier(samples())
    assert waits == []
    assert {part.device for part in vars(said).values()} == {CUDA}
    device.answer = 0
    assert len(classifier.table(said)) == SIZE
    truth = torch.zeros(SIZE, dtype=torch.int64, device=CUDA)
    assert export._temperature(logits.snr, truth) > 0


@pytest.mark.parametrize("preset", CHANNEL_PRESETS)
def test_receiver_and_bound(device, preset):
    hypotheses = {"modulations": ("BPSK", "OQPSK", "16QAM"), "snr_labels": (0, 10)}
    hypotheses["channel"] = CHANNEL_PRESETS[preset]
    found = receiver_log_likelihoods(samples(), **hypotheses, receiver=RECEIVERS[preset])
    assert (found.device, found.shape) == (CUDA, (SIZE, 3, 2))
    index = torch.arange(SIZE, device=CUDA)
    output = genie_frames(index % 3, index % 2, generator=torch.Generator(CUDA), **hypotheses)
    for known in (None, index % 2):
        found = log_likelihoods(output, **hypotheses, num_candidates=1, snr_level=known)
        assert (found.device, found.shape) == (CUDA, (SIZE, 3, 2))


# --- What is run on a GPU first ---


COMPUTING = [n for n in gpu_check.CHECKS if n.startswith(("images", *gpu_check.NETWORKS))]


@pytest.mark.parametrize("name", [*COMPUTING, "generated frames", "loss falls"])
def test_the_check_of_a_gpu_runs_there(device, name):
    """Numbers are not those of a device, so it finds them wrong, if nothing else."""
    assert not gpu_check.CHECKS[name](CUDA).passed


@pytest.mark.parametrize("name", ["pictures", "generation"])
def test_benchmarks_run_there(device, monkeypatch, name):
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    module = import_module(name)
    take_turns = import_module("timing").take_turns
    monkeypatch.setattr(module, "take_turns", partial(take_turns, repeats=1))
    assert pd.concat(module.measure())["task"].str.contains("GPU|ours").any()

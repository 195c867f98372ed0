"""An exported network as ONNX files: they compute what torch does, and say what they are."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from amc_utils.__main__ import main
from amc_utils.config import TrainingParameters
from amc_utils.images import IMAGE_CHANNELS, network_input
from amc_utils.inference import onnx_files
from amc_utils.inference.classifier import SHIPPED, SHIPPED_FOR_RADIOML, load_classifier
from amc_utils.inference.onnx_files import compare, export_onnx, onnx_session, weights_sha256
from amc_utils.inference.real_parts import RealParts
from amc_utils.models import untrained_network
from amc_utils.runtime.paths import REPOSITORY
from amc_utils.signals import generate_frames

SHAPES = ({0: torch.export.Dim.DYNAMIC},)
PAGE = (REPOSITORY / "docs" / "classify.md").read_text(encoding="utf8")


def small_classifier(**overrides):
    """Untrained, sharp, with the labels of the shipped one for RadioML."""
    shipped = load_classifier(SHIPPED_FOR_RADIOML)
    changes = {"channels": ["counts_8_bit"], "image_size": 32} | overrides
    config = TrainingParameters.checked(shipped.config.model_dump() | {"resume_from": ""} | changes)
    network = untrained_network(config, pretrained=False).eval()
    return replace(shipped, network=network, config=config, temperatures=(0.02, 0.05), run="small")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of an exported network and its ONNX files."""
    root = tmp_path_factory.mktemp("onnx")
    path = root / "outputs" / "models" / "small" / "model.safetensors"
    small_classifier().save(path)
    main(["export", "small", "--onnx", "--output_root", str(root)])
    return path.parent


@pytest.fixture(scope="module")
def classifier(folder):
    return load_classifier(folder / "model.safetensors")


@pytest.fixture(scope="module")
def iq(classifier):
    index = torch.arange(7)
    names, channel = classifier.config.modulation_names, classifier.config.synthetic_channel
    labels = torch.linspace(0, 30, 7)
    return generate_frames(index, index, labels, modulations=names, seed=5, channel=channel).iq


def pairs(iq):
    return np.stack([iq.real.numpy(), iq.imag.numpy()], 1)


@pytest.mark.parametrize("count", [1, 7])
def test_both_files_give_the_classifiers_probabilities_of_any_number_of_frames(
    folder, classifier, iq, count
):
    wanted = classifier(iq[:count])
    images = network_input(iq[:count], **classifier.config.image_options).numpy()
    for name, inputs in (("network.onnx", images), ("samples.onnx", pairs(iq[:count]))):
        session = onnx_session(folder / name)
        modulation, snr = session.run(["modulation", "snr"], {session.get_inputs()[0].name: inputs})
        np.testing.assert_allclose(modulation, wanted.modulation, atol=1e-4)
        np.testing.assert_allclose(snr, wanted.snr, atol=1e-4)
    assert modulation.max() > 2 / modulation.shape[1], "probabilities that say nothing are no test"


def test_files_say_what_they_are(folder, classifier):
    for name, size in (("network.onnx", "32"), ("samples.onnx", "1024")):
        said = onnx_session(folder / name).get_modelmeta().custom_metadata_map
        assert json.loads(said["modulation_labels"]) == list(classifier.config.modulation_names)
        assert json.loads(said["snr_labels_db"]) == list(classifier.config.snr_labels)
        assert said["weights_sha256"] == weights_sha256(classifier.network)
        assert said["samples_per_symbol"] == "8"
        assert "license" not in said, "that of a network of others is theirs to say"
        assert said["input_size"] == size
        assert said["normalise_mode"] == "None"
    assert said["history_depth"] == "2"


def test_gnuradio_can_try_it_with_zeros_and_without_optimisation(folder, classifier):
    from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

    options = SessionOptions()
    options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    session = InferenceSession(folder / "samples.onnx", options)
    modulation, snr = session.run(None, {"samples": np.zeros((1, 2, 1024), np.float32)})
    assert modulation.shape == (1, len(classifier.config.modulation_names))
    assert snr.shape == (1, len(classifier.config.snr_labels))
    assert np.isfinite(modulation).all()


def test_record_says_how_far_both_agree(folder, classifier):
    record = json.loads((folder / "onnx.json").read_text(encoding="utf8"))
    assert record["weights_sha256"] == weights_sha256(classifier.network)
    for name, told in record["files"].items():
        assert told["bytes"] == (folder / name).stat().st_size
        assert told["onnxruntime"]["within_tolerance"] == 1.0
        assert told["onnxruntime"]["largest_difference"] < 1e-4


def test_comparison_sees_what_differs():
    class Other:
        def get_inputs(self):
            return [type("Input", (), {"name": "x"})]

        def run(self, _, inputs):
            modulation, snr = (inputs["x"].copy() for _ in range(2))
            modulation[0] = modulation[0, ::-1] + 0.5
            return modulation, snr

    inputs = torch.eye(4)
    compared = compare(lambda x: (x, x), Other(), inputs)
    assert compared["torch_of_rounded_inputs"]["within_tolerance"] == 1.0
    told = compared["onnxruntime"]
    assert told["within_tolerance"] == 0.75
    assert told["largest_difference"] == pytest.approx(1.5)
    assert told["same"] == {"modulation": 0.75, "snr": 1.0}


def test_network_on_samples_is_translated(tmp_path, iq):
    made = small_classifier(channels=["iq"], network="oshea_resnet")
    made.save(tmp_path / "outputs" / "models" / "small" / "model.safetensors")
    path = export_onnx("small", str(tmp_path)).with_name("samples.onnx")
    logits = load_classifier(path.with_name("model.safetensors")).look(iq)[1]
    wanted = (logits.modulation / made.temperatures[0]).softmax(1)
    given = onnx_session(path).run(["modulation"], {"samples": pairs(iq)})[0]
    np.testing.assert_allclose(given, wanted, atol=1e-4)


def test_images_of_real_parts_are_those_of_complex_frames(classifier, iq):
    """But for points that rounding puts on the other side of a pixel's edge."""
    channels = list(IMAGE_CHANNELS)
    config = classifier.config.model_copy(update={"channels": channels, "image_size": 64})
    module = onnx_files._FromSamples(replace(classifier, config=config))
    inputs = torch.from_numpy(pairs(iq))
    wanted = network_input(iq, channels, 64, receiver=config.receiver)
    assert torch.equal(module(inputs), wanted)
    graph = torch.export.export(module, (inputs[:2],), dynamic_shapes=SHAPES)
    differs = (RealParts(graph)(inputs) != wanted).float().mean((0, 2, 3))
    assert differs.max() < 2e-3
    plain = [number for number, name in enumerate(channels) if name.startswith(("counts", "raw"))]
    assert len(plain) == 5
    assert not differs[plain].any()


def test_points_on_edges_of_pixels_fall_on_the_same_side_in_onnx(classifier, tmp_path):
    """They do in double precision alone; the right edge of the window belongs to its last pixel."""
    config = classifier.config.model_copy(update={"channels": ["counts"], "image_size": 64})
    module = onnx_files._FromSamples(replace(classifier, config=config))
    edges = torch.linspace(-2.5, 2.5, 65)
    inputs = torch.stack(torch.meshgrid(edges, edges, indexing="ij")).flatten(1).expand(2, -1, -1)
    graph = torch.export.export(module, (inputs,))
    module_of_parts = RealParts(graph)
    module_of_parts.training = False
    program = torch.onnx.export(module_of_parts, (inputs,), dynamo=True, verbose=False)
    program.save(tmp_path / "images.onnx")
    session = onnx_session(tmp_path / "images.onnx")
    (images,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    np.testing.assert_array_equal(images, module(inputs))
    assert images[0].min() == 1 / 16
    assert images[0, 0, -1, -1] == 4 / 16


def test_exporter_alone_refuses_images_of_symbols(classifier, iq):
    config = classifier.config.model_copy(update={"channels": ["polar"]})
    module = onnx_files._FromSamples(replace(classifier, config=config)).eval()
    inputs = pairs(iq)
    module(torch.from_numpy(inputs))
    with pytest.raises(torch.onnx.OnnxExporterError, match="complex-valued input"):
        torch.onnx.export(module, (torch.from_numpy(inputs),), dynamo=True, verbose=False)


class Fourier(torch.nn.Module):
    """Transform, inverse, and that to real values."""

    def forward(self, pairs):
        """See the class."""
        value = torch.complex(*pairs.unbind(-1))
        found = torch.fft.fft(value, dim=0), torch.fft.ifft(value)
        return *map(torch.view_as_real, found), torch.fft.irfft(value, n=2 * value.shape[1] - 1)


@pytest.mark.parametrize("size", [64, 97, 1152])
def test_transform_by_matrices_is_that_of_numpy(size):
    generator = np.random.default_rng(3)
    values = generator.normal(size=(size, size, 2)).astype(np.float32)
    graph = torch.export.export(Fourier(), (torch.from_numpy(values),))
    forward, inverse, real = (part.numpy() for part in RealParts(graph)(torch.from_numpy(values)))
    whole = values[..., 0] + 1j * values[..., 1].astype(float)
    for found, wanted in (
        (forward[..., 0] + 1j * forward[..., 1], np.fft.fft(whole, axis=0)),
        (inverse[..., 0] + 1j * inverse[..., 1], np.fft.ifft(whole)),
        (real, np.fft.irfft(whole, n=2 * size - 1)),
    ):
        assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


class Inverse(torch.nn.Module):
    """Of complex matrices."""

    def forward(self, pairs):
        """See the class."""
        return torch.view_as_real(torch.linalg.inv_ex(torch.complex(*pairs.unbind(-1))).inverse)


class Cosine(torch.nn.Module):
    """For which there is no rule."""

    def forward(self, pairs):
        """See the class."""
        return torch.complex(*pairs.unbind(-1)).cos().real


def test_inverse_without_pivots_is_that_of_lapack():
    generator = torch.Generator().manual_seed(1)
    factor = torch.randn(4, 13, 13, dtype=torch.complex64, generator=generator)
    matrix = factor @ factor.mH + torch.eye(13)
    pairs = torch.view_as_real(matrix).clone()
    parts = RealParts(torch.export.export(Inverse(), (pairs,)))(pairs)
    unit = torch.view_as_complex(parts.contiguous()) @ matrix
    torch.testing.assert_close(unit, torch.eye(13).expand(4, -1, -1) + 0j, rtol=0, atol=1e-3)


@pytest.mark.parametrize("operation", [
    lambda z: z + 1.0, lambda z: z - 1, lambda z: 2 - z, lambda z: torch.add(z, z, alpha=0.5),
    lambda z: z - z.real, lambda z: torch.sub(z, z.conj(), alpha=2), lambda z: z * 3,
])  # fmt: skip
def test_numbers_beside_complex_tensors_have_no_imaginary_part(operation):
    class Module(torch.nn.Module):
        def forward(self, pairs):
            return torch.view_as_real(operation(torch.complex(pairs[:, 0], pairs[:, 1])))

    pairs = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    parts = RealParts(torch.export.export(Module(), (pairs,)))
    torch.testing.assert_close(parts(pairs), Module()(pairs))


@pytest.mark.parametrize("operation", [
    lambda z: torch.nn.functional.pad(z, (1, 1), value=1.0), lambda z: z * 1j, lambda z: z + 1j
])  # fmt: skip
def test_what_has_no_rule_is_refused_and_not_translated_wrongly(operation):
    class Module(torch.nn.Module):
        def forward(self, pairs):
            return operation(torch.complex(pairs[:, 0], pairs[:, 1])).abs()

    pairs = torch.ones(5, 2)
    with pytest.raises(NotImplementedError, match="no rule for complex"):
        RealParts(torch.export.export(Module(), (pairs,)))(pairs)


def test_unknown_operation_on_complex_tensors_is_named():
    module = torch.nn.Sequential(Cosine(), torch.nn.Identity())
    with pytest.raises(ValueError, match=r"no rule for complex tensors of aten\.cos"):
        onnx_files._translated(module, torch.ones(3, 2), "samples")


def test_run_without_an_exported_network_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model not found: .*; amc export makes one of a run"):
        export_onnx("none", str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_missing_package_is_named_in_a_sentence(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match="--onnx needs onnxruntime: pip install onnx onnxruntime"):
        export_onnx("small", str(folder.parents[2]))


def test_nothing_is_left_of_a_file_that_fails(tmp_path, monkeypatch):
    small_classifier().save(tmp_path / "outputs" / "models" / "small" / "model.safetensors")

    def fail(*_):
        raise RuntimeError("while it is compared")

    monkeypatch.setattr(onnx_files, "compare", fail)
    with pytest.raises(RuntimeError, match="while it is compared"):
        export_onnx("small", str(tmp_path))
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert left == ["model.safetensors"]


@pytest.mark.parametrize("model", [SHIPPED, SHIPPED_FOR_RADIOML])
def test_record_of_the_shipped_networks_is_of_their_weights(model):
    record = json.loads(model.with_name("onnx.json").read_text(encoding="utf8"))
    assert record["weights_sha256"] == weights_sha256(load_classifier(model).network)
    assert record["files"]["network.onnx"]["onnxruntime"]["within_tolerance"] == 1.0
    samples = record["files"]["samples.onnx"]
    agree, itself = (
        samples[key]["within_tolerance"] for key in ("onnxruntime", "torch_of_rounded_inputs")
    )
    assert agree > itself - 0.05, "it may be as far off as rounding, and no farther"


def test_snippet_of_the_page_names_frames(folder, classifier, iq, monkeypatch, capsys):
    (snippet,) = re.findall(r"```python\n(# my_onnx.py\n.*?)```", PAGE, re.S)
    monkeypatch.chdir(folder)
    np.save("frames.npy", iq.numpy())
    exec(snippet, {})
    named = classifier(iq).modulation.argmax(1)
    names = [classifier.config.modulation_names[index] for index in named]
    assert re.findall(r"^\S+", capsys.readouterr().out, re.M) == names

"""Networks of every kind build, train a step, and refuse what they cannot take."""

from __future__ import annotations

import re

import huggingface_hub.constants
import pytest
import timm
import torch

from amc_utils.inference.classifier import SHIPPED, load_classifier
from amc_utils.models import (
    TwoHeadNetwork,
    build_model,
    count_activation_bytes,
    count_flops,
    count_parameters,
    untrained_network,
)

# Millions of parameters of the backbones: those of the papers less the 1000-class head.
NETWORKS = {
    "resnet18": 11.2,
    "resnet34": 21.3,
    "resnet50": 23.5,
    "swin_tiny": 27.5,
    "swin_small": 48.8,
    "swin_base": 86.7,
    "vit_small": 21.5,
    "vit_base": 85.5,
}
# Billions of multiply-adds at 224 px in three channels, as the papers give them.
PUBLISHED_GMAC = {"resnet18": 1.8, "resnet34": 3.6, "swin_tiny": 4.5}
SHAPE = {"num_modulations": 17, "num_snrs": 26, "dropout": 0.3}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("xcit_nano_12_p8_224", ""),  # its patch size is one number
        ("efficientvit_m0", ""),
        ("efficientvit_b0", ""),
        ("halonet26t", "halonet26t cannot take images of 64 px: AssertionError"),
        ("inception_v4", "inception_v4 cannot take images of 64 px: Calculated padded input size"),
        ("eva02_tiny_patch14_224", "image_size must be a multiple of 14"),
    ],
)
def test_timm_networks_of_other_kinds_build_or_say_why_not(name, sentence):
    if not sentence:
        assert build_model(name, input_shape=(1, 64, 64), **SHAPE).snr_head.out_features == 26
        return
    with pytest.raises(ValueError, match=sentence):
        build_model(name, input_shape=(1, 64, 64), **SHAPE)


# The smallest network of each of timm 1.0.31's modules that has one of less than 25 million parameters.
OF_EACH_MODULE = (
    "halonet_h1", "mobileone_s0", "cait_xxs24_224", "coat_tiny", "convit_tiny",
    "convmixer_768_32", "convnext_atto_rms", "cpubone_nano", "crossvit_tiny_240", "csatv2",
    "cs3darknet_s", "cspnext_tiny", "deit_tiny_patch16_224", "densenet121", "dla46x_c", "dpn48b",
    "edgenext_xx_small", "efficientformer_l1", "efficientformerv2_s0", "mobilenetv2_050",
    "efficientvim_m1", "efficientvit_b0", "efficientvit_m0", "vit_tiny_patch16_dinov3_qkvb",
    "fasternet_t0", "fastvit_t8", "gcvit_xxtiny", "ghostnet_050", "hardcorenas_b", "hgnetv2_b0",
    "hrnet_w18_small", "iformer_t", "inception_next_atto", "inception_v3", "lcnetv2_small",
    "levit_128s", "lowformer_b0", "test_mambaout", "maxvit_pico_rw_256", "poolformerv2_s12",
    "gmlp_ti16_224", "mobilenetv3_small_050", "mobilevit_xxs", "mvitv2_tiny", "nest_tiny",
    "nf_regnet_b0", "pit_ti_224", "pvt_v2_b0", "rdnet_tiny", "regnetx_002", "repghostnet_050",
    "repvit_m1", "res2next50", "resnest14d", "resnet18", "resnetv2_18", "rexnet_100",
    "legacy_seresnet18", "shvit_s1", "skresnet18", "starnet_s050", "swiftformer_xs",
    "tiny_vit_5m_224", "tnt_s_legacy_patch16_224", "twins_svt_small", "visformer_tiny",
    "vit_tiny_patch16_224", "vit_tiny_r_s16_p8_224", "test_vit_relpos", "vitamin_small_224",
    "ese_vovnet19b_slim_dw", "legacy_xception", "xception41p", "xcit_nano_12_p8_224",
)  # fmt: skip


def test_every_kind_of_timm_network_learns_or_says_why_not():
    refused = []
    for name in filter(timm.is_model, OF_EACH_MODULE):
        try:
            network = build_model(name, input_shape=(2, 64, 64), **SHAPE)
        except ValueError as error:
            refused.append(str(error))
            continue
        logits = network(torch.rand(2, 2, 64, 64))
        (logits.modulation.square().mean() + logits.snr.square().mean()).backward()
    assert all(re.search("cannot take images of 64 px|image_size must", text) for text in refused)
    assert len(refused) < len(OF_EACH_MODULE) / 10, refused


@pytest.mark.parametrize("name", NETWORKS)
def test_network_trains_a_step(name):
    network = build_model(name, input_shape=(2, 64, 64), **SHAPE)
    assert count_parameters(network) / 1e6 == pytest.approx(NETWORKS[name], rel=0.01)
    before = network.snr_head.weight.detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    logits = network(torch.rand(2, 2, 64, 64))
    assert (logits.modulation.shape, logits.snr.shape) == ((2, 17), (2, 26))
    (logits.modulation.square().mean() + logits.snr.square().mean()).backward()
    assert next(network.backbone.parameters()).grad.abs().max() > 0
    optimizer.step()
    assert not torch.equal(before, network.snr_head.weight)


@pytest.mark.parametrize("name", PUBLISHED_GMAC)
def test_operations_are_twice_the_published_multiply_adds(name):
    network = build_model(name, input_shape=(3, 224, 224), **SHAPE)
    gmac = count_flops(network) / 2e9
    assert gmac == pytest.approx(PUBLISHED_GMAC[name], rel=0.04)


def test_bottleneck_head():
    network = build_model("resnet18", input_shape=(2, 32, 32), snr_head="bottleneck", **SHAPE)
    assert network(torch.rand(2, 2, 32, 32)).snr.shape == (2, 26)
    assert len(network.snr_head) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "swin_tiny", "input_shape": (2, 30, 30)}, "multiple of 32 for swin_tiny .*, got 30"),
        ({"name": "vit_small", "input_shape": (2, 60, 60)}, "multiple of 16 for vit_small .*, got 60"),
        (
            {"name": "resnet19", "input_shape": (2, 32, 32)},
            "network must be a timm model.* got 'resnet19'",
        ),
        (
            {"name": "resnet18", "input_shape": (2, 32, 32), "patch_size": 4},
            "network_options must suit",
        ),
        ({"name": "resnet18", "input_shape": (2, 32, 32), "snr_head": "deep"}, "snr_head must be"),
    ],
)
def test_what_a_network_cannot_take_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_model(**options, **SHAPE)


def test_swin_with_small_patches_takes_small_images():
    network = build_model("swin_tiny", input_shape=(2, 16, 16), patch_size=2, window_size=2, **SHAPE)
    assert network(torch.rand(1, 2, 16, 16)).modulation.shape == (1, 17)


def test_missing_pretrained_weights_are_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="pretrained weights of resnet18 are neither cached"):
        build_model("resnet18", input_shape=(2, 32, 32), pretrained=True, **SHAPE)


def test_training_starts_from_an_exported_network(tmp_path):
    """The shipped one, for other classes: its backbone, and heads of its own."""
    config = load_classifier().config
    fewer = config.model_copy(update={"modulations": ["BPSK", "QPSK"], "snr_range_db": [0, 2, 2]})
    begun = untrained_network(fewer, pretrained=str(SHIPPED))
    shipped = load_classifier().network
    torch.testing.assert_close(begun.backbone.state_dict(), shipped.backbone.state_dict())
    assert begun.modulation_head.out_features == 2
    same = untrained_network(config, pretrained=str(SHIPPED))
    torch.testing.assert_close(same.state_dict(), shipped.state_dict())
    with pytest.raises(ValueError, match="must hold the same network for the same images"):
        build_model("resnet18", input_shape=(2, 32, 32), pretrained=str(SHIPPED), **SHAPE)
    (tmp_path / "other.safetensors").write_bytes(b"nothing")
    for path, error in ((tmp_path / "other.safetensors", ValueError), (tmp_path, FileNotFoundError)):
        with pytest.raises(error, match=r"exported model|amc export wrote"):
            untrained_network(config, pretrained=str(path))


def test_network_on_raw_samples_trains_and_wants_samples():
    network = build_model("oshea_resnet", input_shape=(2, 1024), **SHAPE)
    assert network(torch.rand(3, 2, 1024)).modulation.shape == (3, 17)
    assert 1e5 < count_parameters(network) < 3e5
    for name, shape in (("oshea_resnet", (2, 64, 64)), ("resnet18", (2, 1024))):
        with pytest.raises(ValueError, match=r"network on samples .*oshea_resnet.* belong"):
            build_model(name, input_shape=shape, **SHAPE)


def test_activation_bytes_of_a_network_that_can_be_counted_by_hand():
    """A convolution keeps its input, a ReLU its output; heads keep their features, dropout nothing."""

    class Trunk(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = torch.nn.Conv2d(1, 4, 3, padding=1)

        def forward(self, images):
            return self.convolution(images).relu().mean((2, 3))

    network = TwoHeadNetwork(
        Trunk(), input_shape=(1, 8, 8), width=4, num_modulations=3, num_snrs=2, dropout=0.0
    )
    # Image 64, ReLU 4 * 64, features 4, in floats of four bytes.
    assert count_activation_bytes(network) == 4 * (64 + 4 * 64 + 4)

from __future__ import annotations

import gc
import time
import pytest
import torch

from amc_utils.data import Frames
from amc_utils.models import untrained_network
from amc_utils.runtime.devices import best_fabric
from amc_utils.training import Learner
from pretended_device import CUDA, Recorder, Wait, pretended_device


@pytest.fixture
def device():
    with pretended_device() as recorder:
        yield recorder


def frames_of(config, size=32):
    index = torch.arange(size, device=CUDA)
    return Frames(torch.zeros(size, 1024, 2, device=CUDA), index % len(config.modulation_names),
      index % len(config.snr_labels), config.modulation_names, config.snr_labels, {"label": "pretended"})


def learner_of(config):
    fabric = best_fabric(config.precision)
    return Learner(config, untrained_network(config), frames_of(config), fabric=fabric, num_steps=10)

def take_step(learner, number):
    batch = torch.arange(16).to(CUDA, non_blocking=True)
    iq = learner.evaluator.frames.iq(batch)
    learner.seed(0, number)
    return learner.step(batch, iq, number)

CASES = {
 "resnet": {"network": "test_resnet"},
 "swin": {"network": "swin_tiny", "network_options": {"window_size": 2, "embed_dim": 12}},
 "vit": {"network":"test_vit"},
 "oshea": {"network": "oshea_resnet", "channels": ["iq"]},
}

@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("network", CASES)
def test_step(device, make_config, network, precision, fused):
    config = make_config(**{"channels":["stack", "counts_8_bit"]}|CASES[network], precision=precision, engine={"fused": fused})
    learner = learner_of(config)
    take_step(learner, 0)
    with device.listed() as waits:
        t=time.time()
        out = take_step(learner, 1)
        print(time.time()-t)
    assert out.device == CUDA
    assert waits == []

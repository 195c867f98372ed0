"""Frames, images and answers of the shipped networks are those of before.

`python tests/test_golden.py` writes them anew; a commit that does so says why.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from amc_utils import images
from amc_utils.dsp.receiver_settings import receiver_settings
from amc_utils.images import IMAGE_CHANNELS, network_input
from amc_utils.inference.classifier import SHIPPED, SHIPPED_FOR_RADIOML, load_classifier
from amc_utils.signals import CHANNEL_PRESETS, RADIOML_2018_MODULATIONS, generate_frames

FILE = Path(__file__).with_name("data") / "golden.npz"


def made() -> dict[str, np.ndarray]:
    """48 frames of all classes for each of three seeds; images of the last ones, pooled to 4 by 4."""
    found = {}
    index = torch.arange(48)
    for preset, channel in CHANNEL_PRESETS.items():
        for seed in (1, 2, 3):
            labels = 20 * (index // 24)
            names = RADIOML_2018_MODULATIONS
            frames = generate_frames(
                index, index % 24, labels, modulations=names, seed=seed, channel=channel
            )
            found[f"frames {preset} {seed}"] = torch.view_as_real(frames.iq[:, ::128]).numpy()
        for name in sorted(images._OWN_NAMES & IMAGE_CHANNELS.keys()):
            settings = {"receiver": receiver_settings({"preset": preset}), "unit_power": True}
            image = network_input(frames.iq, channels=[name], image_size=32, **settings)
            found[f"image {preset} {name}"] = torch.nn.functional.avg_pool2d(image, 8).numpy()
        for path in (SHIPPED, SHIPPED_FOR_RADIOML):
            _, logits = load_classifier(path).look(frames.iq)
            found[f"logits {preset} {path.parent.name}"] = torch.cat(list(logits), 1).numpy()
    return {name: value.astype(np.float32) for name, value in found.items()}


@pytest.fixture(scope="module")
def now():
    return made()


def test_same_things_are_made(now):
    with np.load(FILE) as before:
        assert set(before.files) == set(now)


@pytest.mark.parametrize("kind", ["frames", "image", "logits"])
def test_what_is_made_is_what_was_made(kind, now):
    """Up to the last bits, in which processors differ; a sample on an edge may fall either way.

    One that does moves all 43 logits of its frame, of 2,064.
    """
    with np.load(FILE) as before:
        for name in (name for name in before.files if name.startswith(kind)):
            scale = np.abs(before[name]).max()
            close = np.isclose(now[name], before[name], rtol=1e-3, atol=1e-3 * scale)
            assert close.mean() > (0.97 if kind == "logits" else 0.995), name


if __name__ == "__main__":
    np.savez_compressed(FILE, **made())

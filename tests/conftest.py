"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Several threads gain nothing in steps so small, and beside other work they wait for each other: ten
# times as long. Children inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from amc_utils.config import TrainingParameters
from amc_utils.data import Frames, synthesise_frames

# Bit-for-bit comparisons hold on a CPU; a GPU that happens to be there must not change the tests.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

# A background job of a shell is born deaf to these, and its children inherit that; tests send them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

DATA = Path(__file__).with_name("data")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Frames of files are kept where they go with the tests."""
    os.environ["AMC_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def gnuradio_slice() -> Path:
    """File in RadioML's layout that GNU Radio made, see tests/data/README.md."""
    return DATA / "gnuradio_slice.h5"


@pytest.fixture(scope="session")
def small_frames() -> Frames:
    """120 synthetic frames: 3 modulations, 2 levels, 20 each."""
    return synthesise_frames(
        modulations=("BPSK", "QPSK", "OQPSK"), snr_labels=(0, 20), num_frames_per_cell=20, seed=5
    )


@pytest.fixture
def make_config(tmp_path):
    """Builder of small training parameters; keywords override."""

    def build(**overrides) -> TrainingParameters:
        values = {
            "profile": "test",
            "data_path": "",
            "modulations": ["BPSK", "QPSK", "OQPSK"],
            "snr_range_db": [0, 20, 20],
            "num_frames_per_cell": 20,
            "channel": {},
            "channels": ["counts_8_bit"],
            "image_size": 32,
            "network": "test_resnet",
            "network_options": {},
            "dropout": 0.3,
            "task_weighting": "log_variance",
            "snr_loss_weights": [1.0, 0.1],
            "learning_rate": 1e-3,
            "weight_decay": 1e-5,
            "schedule": "constant",
            "gradient_clip": 0.0,
            "batch_size": 16,
            "num_epochs": 2,
            "shuffle": True,
            "fresh_frames": False,
            "precision": "32-true",
            "seed": 5,
            "run_name": "",
            "resume_from": "",
            "output_root": str(tmp_path),
        }
        return TrainingParameters.checked(values | overrides)

    return build


@pytest.fixture
def rng() -> torch.Generator:
    """Seeded generator."""
    return torch.Generator().manual_seed(7)

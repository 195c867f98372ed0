"""Frames generated per second: ours, a plain NumPy loop, and TorchSig in an environment of its own."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from timing import Task, take_turns

from amc_utils.data import synthesise_frames
from amc_utils.signals import DIGITAL_MODULATIONS

TORCHSIG = Path(__file__).with_name("torchsig_worker.py")
NUM_FRAMES = 17 * 64


def measure(torchsig: str = "") -> list[pd.DataFrame]:
    """All classes at 10 dB on one CPU core and on a GPU, TorchSig where its Python is named."""
    tasks = {
        "numpy, a loop": Task(partial(by_numpy, NUM_FRAMES), NUM_FRAMES),
        "ours, 1 core": Task(partial(ours, NUM_FRAMES, "cpu"), NUM_FRAMES),
    }
    options = {"unit": "frames/s", "against": "numpy, a loop"}
    if torch.cuda.is_available():
        # As many as a training set has, in the generator's own batches.
        count = 17 << 16
        tasks["ours, GPU"] = Task(partial(ours, count, "cuda"), count)
    if torchsig:
        with Worker(torchsig) as worker:
            for kind, name in (("bare", "TorchSig, bare"), ("channel", "TorchSig, channel")):
                tasks[f"{name}, 1 core"] = Task(partial(worker.seconds, kind), worker.num_frames)
            return [take_turns("generation", tasks, **options)]
    return [take_turns("generation", tasks, **options)]


def ours(count: int, device: str) -> None:
    """A set of about so many frames, as a training run begins with it."""
    torch.set_num_threads(1)
    cells = len(DIGITAL_MODULATIONS)
    synthesise_frames(
        modulations=DIGITAL_MODULATIONS,
        snr_labels=(10,),
        num_frames_per_cell=-(-count // cells),
        seed=1,
        device=device,
    )


def by_numpy(count: int) -> None:
    """QPSK and 16-QAM through a channel without clock offset, a frame at a time."""
    rng = np.random.default_rng(1)
    maps = [np.exp(1j * np.pi * (np.arange(4) / 2 + 0.25)), square_map(4)]
    for number in range(count):
        points = maps[number % 2]
        pulse = root_raised_cosine(rng.uniform(0.1, 0.4))
        symbols = points[rng.integers(len(points), size=140)]
        spread = np.zeros(8 * len(symbols), complex)
        spread[::8] = symbols
        start = rng.integers(48, 56)
        signal = np.convolve(spread, pulse, "same")[start : start + 1024]
        turns = rng.normal(0, 1e-4) * np.arange(1024) + rng.random()
        signal = signal * np.exp(2j * np.pi * turns)
        signal /= np.sqrt(np.mean(np.abs(signal) ** 2))
        noise = rng.normal(size=(1024, 2)) @ [1, 1j]
        (signal + noise * np.sqrt(0.05)).astype(np.complex64)


def square_map(side: int) -> np.ndarray:
    """Points of a square QAM at unit mean power, complex128 [side * side]."""
    axis = np.arange(side) - (side - 1) / 2
    points = (axis[:, None] + 1j * axis).ravel()
    return points / np.sqrt(np.mean(np.abs(points) ** 2))


def root_raised_cosine(rolloff: float) -> np.ndarray:
    """Pulse over twelve symbols at eight samples a symbol, float64 [97]."""
    # Half a thousandth off the grid, where the closed form has no zero in its denominator.
    t = np.arange(-48, 49) / 8 + 5e-4
    rise = np.sin(np.pi * t * (1 - rolloff)) + 4 * rolloff * t * np.cos(np.pi * t * (1 + rolloff))
    return rise / (np.pi * t * (1 - (4 * rolloff * t) ** 2))


class Worker:
    """TorchSig in another Python, which generates when asked and says how long it took."""

    num_frames = 64

    def __init__(self, python: str) -> None:
        command = [python, str(TORCHSIG), str(self.num_frames)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def __enter__(self) -> Worker:
        self.process.stdout.readline()
        return self

    def __exit__(self, *error: object) -> None:
        self.process.stdin.close()
        self.process.wait()

    def seconds(self, kind: str) -> float:
        """Seconds that one round of frames took there, "bare" or with a "channel"."""
        self.process.stdin.write(kind + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

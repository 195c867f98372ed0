"""Frames and pictures per second, against a numpy.histogram2d loop, interleaved on one core.

Run: python benchmarks/speed.py [CSV]; takes about a minute and prints a table of medians.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from amc_utils.channel import Channel
from amc_utils.constellation import WINDOW, constellation_images
from amc_utils.labels import DIGITAL_MODULATIONS
from amc_utils.signals import generate_frames

NUM_FRAMES = 512
REPEATS = 9


def generate(num_threads: int) -> torch.Tensor:
    """Frames of all digital classes at 10 dB, complex64 [NUM_FRAMES, 1024]."""
    torch.set_num_threads(num_threads)
    index = torch.arange(NUM_FRAMES)
    snr_db = torch.full((NUM_FRAMES,), 10.0)
    options = {"modulations": DIGITAL_MODULATIONS, "seed": 1, "channel": Channel()}
    return generate_frames(index, index % len(DIGITAL_MODULATIONS), snr_db, **options).iq


def draw(iq: torch.Tensor, channel: str, image_size: int) -> None:
    """Pictures of all frames, in batches of a training step."""
    torch.set_num_threads(1)
    for batch in iq.split(32):
        constellation_images(batch, [channel], image_size)


def draw_by_numpy(iq: np.ndarray, image_size: int) -> None:
    """The same counts by a loop over frames."""
    window = [[-WINDOW, WINDOW]] * 2
    for frame in iq:
        np.histogram2d(frame.imag, frame.real, bins=image_size, range=window)


def medians(tasks: dict[str, Callable[[], None]]) -> pd.DataFrame:
    """Frames per second of each task: the tasks take turns, so a noisy moment hits all alike."""
    seconds = {name: [] for name in tasks}
    for _ in range(REPEATS + 1):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - started)
    rates = {name: NUM_FRAMES / np.array(times[1:]) for name, times in seconds.items()}
    rows = [(name, np.median(r), r.min(), r.max()) for name, r in rates.items()]
    return pd.DataFrame(rows, columns=["task", "frames_per_second", "slowest", "fastest"])


def main() -> None:
    """Measure, print, and write a CSV if a path is given."""
    iq = generate(1)
    tasks = {f"generate, {n} threads": lambda n=n: generate(n) for n in (1, 2)}
    for size in (64, 224):
        tasks[f"numpy loop, {size} px"] = lambda size=size: draw_by_numpy(iq.numpy(), size)
        for channel in ("counts_8_bit", "raw", "stack"):
            tasks[f"{channel}, {size} px"] = lambda c=channel, size=size: draw(iq, c, size)
    table = medians(tasks)
    loops = table[table["task"].str.startswith("numpy")].set_index("task")["frames_per_second"]
    size = table["task"].str.extract(r"(\d+) px")[0]
    table["ratio_to_loop"] = table["frames_per_second"] / ("numpy loop, " + size + " px").map(loops)
    print(table.round(2).to_string(index=False))
    if len(sys.argv) > 1:
        table.to_csv(sys.argv[1], index=False, float_format="%.6g")


if __name__ == "__main__":
    main()

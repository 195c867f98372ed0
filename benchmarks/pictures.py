"""Pictures per second: ours, the usual ways to count points, and the limit that memory sets."""

from __future__ import annotations

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from fast_histogram import histogram2d
from timing import Task, take_turns

from amc_utils.dsp.receiver_settings import DEFAULT_RECEIVER, RECEIVERS, ReceiverSettings
from amc_utils.images import WINDOW, constellation_images
from amc_utils.signals import DIGITAL_MODULATIONS, Channel, generate_frames

# Frames at a time, so that a batch of pictures takes a few megabytes at either size.
BATCH = {64: 128, 224: 32}


def measure() -> list[pd.DataFrame]:
    """Log counts at 64 and 224 px on a GPU, or where there is none on one CPU core."""
    if torch.cuda.is_available():
        return [measure_on_gpu(size) for size in BATCH]
    torch.set_num_threads(1)
    tables = []
    # Each way gets as many as keep it busy for at least a twentieth of a second.
    many = frames(8192, "cpu")
    some, few, more = many[:512], many[:16], many[:2048]
    for size, batch in BATCH.items():
        tasks = {
            "numpy.histogram2d, a loop": Task(partial(by_numpy, some.numpy(), size), len(some)),
            "ours, raw": Task(partial(ours, many, size, ["raw"], batch), len(many)),
            "ours, raw, 16 at a time": Task(partial(ours, many, size, ["raw"], 16), len(many)),
            "ours, counts_8_bit": Task(partial(ours, many, size, ["counts_8_bit"], batch), len(many)),
            "ours, stack": Task(partial(ours, more, size, ["stack"], batch), len(more)),
            "ours, stack and likelihoods": Task(
                partial(ours, some, size, ["stack", "likelihoods"], batch), len(some)
            ),
            "ours, stack behind the blind front end": Task(
                partial(ours, some, size, ["stack"], batch, RECEIVERS["open"]), len(some)
            ),
            "fast-histogram, a loop": Task(partial(by_fast_histogram, many.numpy(), size), len(many)),
            "torch, a loop": Task(partial(by_torch_loop, some, size), len(some)),
            "matplotlib hist2d, a loop": Task(partial(by_matplotlib, few.numpy(), size), len(few)),
            "writing zeros": Task(partial(only_write, size, "cpu", batch, len(many)), len(many)),
        }
        options = {"unit": "frames/s", "against": "numpy.histogram2d, a loop"}
        tables.append(take_turns(f"pictures, {size} px, 1 core", tasks, **options))
    return tables


def measure_on_gpu(size: int) -> pd.DataFrame:
    """The same on a GPU, in batches that fill it."""
    iq = frames(8192, "cuda")
    tasks = {
        "ours, raw": Task(partial(ours, iq, size, ["raw"], 512), len(iq)),
        "ours, stack": Task(partial(ours, iq, size, ["stack"], 512), len(iq)),
        "ours, stack and likelihoods": Task(
            partial(ours, iq, size, ["stack", "likelihoods"], 512), len(iq)
        ),
        "ours, stack behind the blind front end": Task(
            partial(ours, iq, size, ["stack"], 512, RECEIVERS["open"]), len(iq)
        ),
        "torch, a loop": Task(partial(by_torch_loop, iq[:256], size), 256),
        "writing zeros": Task(partial(only_write, size, "cuda", 512, len(iq)), len(iq)),
    }
    return take_turns(f"pictures, {size} px, GPU", tasks, unit="frames/s", against="torch, a loop")


def frames(count: int, device: str) -> torch.Tensor:
    """Frames of all digital classes at 10 dB, complex64 [count, 1024]."""
    index = torch.arange(count, device=device)
    snr_label = torch.full((count,), 10.0, device=device)
    options = {"modulations": DIGITAL_MODULATIONS, "seed": 1, "channel": Channel()}
    return generate_frames(index, index % len(DIGITAL_MODULATIONS), snr_label, **options).iq


def ours(
    iq: torch.Tensor,
    size: int,
    channels: list[str],
    batch: int,
    receiver: ReceiverSettings = DEFAULT_RECEIVER,
) -> None:
    """Pictures in batches of a training step."""
    for part in iq.split(batch):
        constellation_images(part, channels, size, receiver=receiver)


def by_numpy(iq: np.ndarray, size: int) -> None:
    """The same log counts by numpy, a frame at a time."""
    window = [[-WINDOW, WINDOW]] * 2
    for batch in np.split(iq, len(iq) // BATCH[size]):
        counts = [np.histogram2d(f.imag, f.real, bins=size, range=window)[0] for f in batch]
        log_counts(counts)


def by_fast_histogram(iq: np.ndarray, size: int) -> None:
    """The same log counts by the fast-histogram package, a frame at a time."""
    window = [[-WINDOW, WINDOW]] * 2
    for batch in np.split(iq, len(iq) // BATCH[size]):
        log_counts([histogram2d(f.imag, f.real, bins=size, range=window) for f in batch])


def log_counts(counts: list[np.ndarray]) -> torch.Tensor:
    """Batch of grey levels as a network takes them, float32 [B, 1, size, size]."""
    grey = np.log1p(np.stack(counts, dtype=np.float32)) / np.float32(np.log1p(1024))
    return torch.from_numpy(grey)[:, None]


def by_torch_loop(iq: torch.Tensor, size: int) -> None:
    """The same log counts by bucketize and scatter, a frame at a time."""
    edges = torch.linspace(-WINDOW, WINDOW, size + 1, device=iq.device)[1:-1]
    one = torch.ones(iq.shape[1], device=iq.device)
    for batch in iq.split(BATCH[size]):
        images = torch.zeros(len(batch), 1, size * size, device=iq.device)
        for frame, image in zip(batch, images, strict=True):
            pixel = torch.bucketize(frame.imag.contiguous(), edges) * size
            pixel += torch.bucketize(frame.real.contiguous(), edges)
            image[0].scatter_add_(0, pixel, one)
        images.log1p_().div_(float(np.log1p(1024)))


def by_matplotlib(iq: np.ndarray, size: int) -> None:
    """The same counts as figures are made, which is how pictures often come about."""
    window = [[-WINDOW, WINDOW]] * 2
    for frame in iq:
        fig, ax = plt.subplots()
        ax.hist2d(frame.real, frame.imag, bins=size, range=window)
        plt.close(fig)


def only_write(size: int, device: str, batch: int, count: int) -> None:
    """Pictures of nothing: what it costs to write that many bytes, to memory used again as ours is."""
    for _ in range(count // batch):
        torch.zeros(batch, 1, size, size, device=device)

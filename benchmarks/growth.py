"""How the cost of pictures and frames grows with batch, image size and number of frames."""

from __future__ import annotations

from functools import partial

import pandas as pd
import torch
from generation import ours as generate
from pictures import frames, ours
from timing import Task, take_turns


def measure() -> list[pd.DataFrame]:
    """Rates against the middle of each range."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    iq = frames(8192, device)
    sizes = {
        f"{size} px": Task(partial(ours, iq, size, ["raw"], 32), len(iq)) for size in (32, 64, 128, 224)
    }
    batches = {
        f"batch {batch}": Task(
            partial(ours, iq[: 1024 * batch], 64, ["raw"], batch), min(1024 * batch, 8192)
        )
        for batch in (1, 8, 32, 128, 1024)
    }
    counts = {
        f"{count} frames": Task(partial(generate, count, device), count)
        for count in (32, 256, 2048, 8192)
    }
    options = {"unit": "frames/s", "repeats": 5}
    return [
        take_turns("growth with image size", sizes, against="64 px", **options),
        take_turns("growth with batch, 64 px", batches, against="batch 32", **options),
        take_turns("growth with frames generated", counts, against="256 frames", **options),
    ]

"""How fast each training run of the plan for a GPU is, as it will be run, and what its input costs."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator

import pandas as pd
import torch
from training import input_overhead, operations

from amc_utils.runtime.paths import REPOSITORY
from amc_utils.studies.records import TRAIN_SHARE, benchmark_name, read_plan

NUM_STEPS, REPEATS = 10, 3


def measure() -> Iterator[pd.DataFrame]:
    """One table a run, in the plan's order; one without room on the device is named and left out."""
    steps = [step for step in read_plan(REPOSITORY) if step.needs == "gpu" and step.config]
    for config in (step.config for step in steps):
        num_classes = len(config.modulation_names) * len(config.snr_labels)
        num_frames = math.ceil(NUM_STEPS * config.batch_size / TRAIN_SHARE / num_classes)
        # A schedule of so few frames would end before the turns do.
        changes = {"num_frames_per_cell": num_frames, "schedule": "constant"}
        name = f"{benchmark_name(config.run_name)}{operations(config)}"
        with tempfile.TemporaryDirectory() as folder:
            small = config.model_copy(update=changes | {"output_root": folder})
            try:
                yield input_overhead(small, name, NUM_STEPS, REPEATS)
            except torch.cuda.OutOfMemoryError as error:
                print(f"{config.run_name} does not fit: {error}", file=sys.stderr)
                torch.cuda.empty_cache()

"""Files that several tests read or write: in RadioML's layout, and excerpts of the real one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from amc_utils.data import Frames
from amc_utils.radioml.writer import write_rows
from amc_utils.runtime.paths import REPOSITORY
from amc_utils.signals import RADIOML_2018_MODULATIONS

# Genuine pieces of the licensed file, which are no part of the repository.
EXCERPTS, RECORDINGS = (
    REPOSITORY.parent / "shared" / "data" / name for name in ("radioml2018_excerpts", "recordings")
)
needs_excerpts = pytest.mark.skipif(
    not EXCERPTS.is_dir(), reason="excerpts of RadioML 2018.01A are under licence and not here"
)


def write_radioml(path: Path, frames: Frames) -> None:
    """Write frames as a file in RadioML's layout."""
    number = torch.tensor([RADIOML_2018_MODULATIONS.index(name) for name in frames.modulations])
    labels = number[frames.modulation], torch.tensor(frames.snr_labels)[frames.snr_index]
    write_rows(path, len(frames), [(frames.iq_pairs, *labels)])

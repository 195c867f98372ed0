"""Labelled frames on one device, whatever made them, their synthesis and their split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amc_utils.signals import NUM_SAMPLES, Channel, generate_frames

# Frames generated at once: enough to keep the device busy, few enough for a laptop's memory.
_CHUNK = 4096


@dataclass(frozen=True)
class Frames:
    """Frames with labels, all on one device; a batch is an index gather.

    Attributes:
        iq_pairs: float32 or float16 [N, num_samples, 2], last axis I, Q.
        modulation: int64 [N], index into `modulations`.
        snr_index: int64 [N], index into `snr_grid_db`.
        modulations: modulation names.
        snr_grid_db: SNR levels in dB.
        source: where the frames come from, ready for a run record.
    """

    iq_pairs: Tensor
    modulation: Tensor
    snr_index: Tensor
    modulations: tuple[str, ...]
    snr_grid_db: tuple[int, ...]
    source: dict[str, Any]

    def __len__(self) -> int:
        return len(self.iq_pairs)

    @property
    def device(self) -> torch.device:
        """Device that holds the frames."""
        return self.iq_pairs.device

    @property
    def cell(self) -> Tensor:
        """Joint class of each frame, int64 [N]: modulation * number of SNR levels + snr_index."""
        return self.modulation * len(self.snr_grid_db) + self.snr_index

    @property
    def num_classes(self) -> int:
        """Number of joint classes."""
        return len(self.modulations) * len(self.snr_grid_db)

    @property
    def description(self) -> str:
        """Class count, SNR range and source in one line, to stand beside every number."""
        grid = self.snr_grid_db
        return (
            f"{self.num_classes} classes: {len(self.modulations)} modulations x {len(grid)} SNRs "
            f"({grid[0]} to {grid[-1]} dB), {self.source['label']}"
        )

    def iq(self, index: Tensor) -> Tensor:
        """Samples of some frames, complex64 [len(index), num_samples]."""
        return torch.view_as_complex(self.iq_pairs[index].to(torch.float32))

    def select(self, modulation_name: str, snr_db: int) -> Tensor:
        """Index of the frames of one cell, int64."""
        wanted = self.modulations.index(modulation_name), self.snr_grid_db.index(snr_db)
        return torch.nonzero((self.modulation == wanted[0]) & (self.snr_index == wanted[1]))[:, 0]

    def to(self, device: torch.device | str) -> Frames:
        """The same frames on another device."""
        moved = {name: getattr(self, name).to(device) for name in _TENSORS}
        return replace(self, **moved)


_TENSORS = ("iq_pairs", "modulation", "snr_index")


def synthesise_frames(
    *,
    modulations: Sequence[str],
    snr_grid_db: Sequence[int],
    num_frames_per_cell: int,
    seed: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    channel: Channel | None = None,
    snr_offset_db: float = 0.0,
) -> Frames:
    """Frames from the generator, ordered by modulation, then SNR, the same number in each cell.

    Their true SNR is the label plus `snr_offset_db`.
    """
    channel = channel or Channel()
    num_levels = len(snr_grid_db)
    index = torch.arange(len(modulations) * num_levels * num_frames_per_cell, device=device)
    cell = index // num_frames_per_cell
    modulation, snr_index = cell // num_levels, cell % num_levels
    iq_pairs = torch.empty(len(index), NUM_SAMPLES, 2, device=device, dtype=dtype)
    source = {"label": "synthetic", "generator": vars(channel), "seed": seed}
    if snr_offset_db:
        source["snr_offset_db"] = snr_offset_db
    frames = Frames(iq_pairs, modulation, snr_index, tuple(modulations), tuple(snr_grid_db), source)
    redraw_frames(frames, index, 0)
    return frames


def redraw_frames(frames: Frames, index: Tensor, generation: int) -> None:
    """Overwrite synthetic frames by others of the same cells, channel and seed.

    Args:
        frames: synthetic frames; changed in place.
        index: int64, the frames to draw anew.
        generation: number of the drawing; 0 gives the frames that the set began with.
    """
    true_snr_db = torch.tensor(frames.snr_grid_db, device=frames.device)
    true_snr_db = true_snr_db + frames.source.get("snr_offset_db", 0.0)
    for part in index.split(_CHUNK):
        made = generate_frames(
            part + generation * len(frames),
            frames.modulation[part],
            true_snr_db[frames.snr_index[part]],
            modulations=frames.modulations,
            seed=frames.source["seed"],
            channel=Channel(**frames.source["generator"]),
        )
        frames.iq_pairs[part] = torch.view_as_real(made.iq).to(frames.iq_pairs.dtype)


@dataclass(frozen=True)
class Split:
    """Disjoint index sets, int64 each, that cover all frames."""

    train: Tensor
    validation: Tensor
    test: Tensor

    @property
    def counts(self) -> dict[str, int]:
        """Frames in each part."""
        return {name: len(index) for name, index in vars(self).items()}


def split_fingerprint(frames: Frames, split: Split) -> str:
    """SHA-256 that two runs share if and only if they are tested on the same frames and classes."""
    origin = [frames.modulations, frames.snr_grid_db, frames.source, len(frames)]
    digest = hashlib.sha256(json.dumps(origin, sort_keys=True).encode())
    for numbers in (split.test, frames.cell[split.test]):
        digest.update(numbers.cpu().numpy().tobytes())
    return digest.hexdigest()


def stratified_split(frames: Frames, *, seed: int) -> Split:
    """80/10/10 split, stratified on (modulation, SNR), that depends on labels and seed alone.

    Frames are lined up cell after cell, cells in random order and shuffled inside, and every tenth
    goes to test, every other tenth to validation. So each cell is split to within one frame, and
    cells of fewer than ten frames still give whole parts of the right size.

    Raises:
        ValueError: too few frames for three parts.
    """
    if len(frames) < 10:
        raise ValueError(
            f"a split needs at least 10 frames, got {len(frames)}; raise num_frames_per_cell"
        )
    rng = np.random.default_rng([seed, 0x5B11])
    cell = frames.cell.cpu().numpy()
    place_of_cell = rng.permutation(frames.num_classes)
    line = np.lexsort((rng.random(len(cell)), place_of_cell[cell]))
    tenth = np.arange(len(line)) % 10
    parts = (line[tenth < 8], line[tenth == 8], line[tenth == 9])
    return Split(*(torch.from_numpy(np.sort(part)).to(frames.device) for part in parts))

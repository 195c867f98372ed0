"""Labelled frames, from the generator or from a file, and their split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amc_utils.config import DataParameters, TrainingParameters
from amc_utils.radioml.cache import kept_samples
from amc_utils.radioml.reader import open_radioml
from amc_utils.radioml.selection import select
from amc_utils.runtime.progress import progress
from amc_utils.runtime.storage import allocate, choose_place, fetch_ahead
from amc_utils.signals import (
    CHANNEL_PRESETS,
    NUM_SAMPLES,
    RADIOML_2018_MODULATIONS,
    Channel,
    generate_frames,
)

# Frames generated at once: enough to keep a GPU busy, few enough for the cache of a CPU.
_CHUNK = {"cpu": 256, "cuda": 8192}


@dataclass(frozen=True)
class Frames:
    """Frames with labels; a batch is an index gather.

    Labels are those of all N frames and lie on the device that computes. Samples may be those of H of
    them only, the share of one process among several, and lie elsewhere.

    Attributes:
        iq_pairs: float32 or float16 [H, num_samples, 2], last axis I, Q.
        modulation: int64 [N], index into `modulations`.
        snr_index: int64 [N], index into `snr_labels`.
        modulations: modulation names.
        snr_labels: SNR labels, see signals.Channel.snr_db for what they mean.
        source: where the frames come from, ready for a run record.
        held: int64 [H], ascending, the frames whose samples are here; None for all.
        place: where the samples lie: "device", "host" or "disk".
        generation: int64 [], the last drawing of synthetic training samples; changed in place.
    """

    iq_pairs: Tensor
    modulation: Tensor
    snr_index: Tensor
    modulations: tuple[str, ...]
    snr_labels: tuple[int, ...]
    source: dict[str, Any]
    held: Tensor | None = None
    place: str = "device"
    generation: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.modulation)

    @property
    def num_samples(self) -> int:
        """Samples of a frame."""
        return self.iq_pairs.shape[1]

    @property
    def device(self) -> torch.device:
        """Device that computes; labels lie there, and samples arrive there."""
        return self.modulation.device

    @property
    def joint_class(self) -> Tensor:
        """Joint class of each frame, int64 [N]: modulation * number of SNR levels + snr_index."""
        return self.modulation * len(self.snr_labels) + self.snr_index

    @property
    def num_classes(self) -> int:
        """Number of joint classes."""
        return len(self.modulations) * len(self.snr_labels)

    @property
    def description(self) -> str:
        """Class count, SNR labels and source in one line, to stand beside every number."""
        grid = self.snr_labels
        return (
            f"{self.num_classes} classes: {len(self.modulations)} modulations x {len(grid)} SNR labels "
            f"({grid[0]} to {grid[-1]}), {self.source['label']}"
        )

    @property
    def memory_summary(self) -> str:
        """How much memory the samples take, and where, for the log."""
        kind = str(self.iq_pairs.dtype).removeprefix("torch.")
        share = "" if self.held is None else f", a share of {len(self.held):,} of {len(self):,} frames,"
        where = f"on {self.device}" if self.place == "device" else f"in {self.place} memory"
        return f"{self.iq_pairs.nbytes / 1e6:,.0f} MB of {kind} samples{share} {where}"

    def iq(self, index: Tensor) -> Tensor:
        """Samples of some frames that are held, complex64 [len(index), num_samples], on the device."""
        index = index.to(self.iq_pairs.device)
        pairs = self.iq_pairs[self._row(index)]
        if pairs.device != self.device:
            # Only from pinned memory does a copy run beside the computation.
            pairs = pairs.pin_memory().to(self.device, non_blocking=True)
        return torch.view_as_complex(pairs.to(torch.float32))

    def _row(self, index: Tensor) -> Tensor:
        """Rows of the store that have the samples of some frames."""
        whole = self.held is None or len(self.iq_pairs) == len(self)
        return index if whole else torch.searchsorted(self.held, index)

    def prefetch(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Samples of each batch in turn; another thread fetches them where they lie off the device."""
        return map(self.iq, batches) if self.place == "device" else fetch_ahead(self.iq, batches)

    def local(self, index: Tensor) -> Tensor:
        """Those of some frames whose samples are held."""
        if self.held is None:
            return index
        return index[torch.isin(index, self.held.to(index.device))]

    def write(self, index: Tensor, pairs: Tensor) -> None:
        """Put samples [len(index), num_samples, 2] in the place of those of held frames."""
        store = self.iq_pairs
        index = index.to(store.device)
        rows = self._row(index)
        store[rows] = pairs.to(store.device, store.dtype)

    def select(self, modulation_name: str, snr_label: int) -> Tensor:
        """Index of the frames of one cell, int64."""
        wanted = self.modulations.index(modulation_name), self.snr_labels.index(snr_label)
        return torch.nonzero((self.modulation == wanted[0]) & (self.snr_index == wanted[1]))[:, 0]

    def to(self, device: torch.device | str) -> Frames:
        """The same frames on another device."""
        moved = {
            name: getattr(self, name).to(device) for name in ("iq_pairs", "modulation", "snr_index")
        }
        return replace(self, **moved)

    def allocate_samples(
        self, dtype: torch.dtype, samples_in: str, shard: ShardSelector | None
    ) -> Frames:
        """The same labels with room for samples, of the frames that `shard` chooses or of all."""
        held = shard(self) if shard else None
        held = None if held is None else held.sort().values
        shape = (len(self) if held is None else len(held), self.num_samples, 2)
        place = choose_place(int(np.prod(shape)) * dtype.itemsize, self.device, samples_in)
        iq_pairs = allocate(shape, dtype, self.device, place)
        held = None if held is None else held.to(iq_pairs.device)
        return replace(self, iq_pairs=iq_pairs, held=held, place=place)


# Of labelled frames those whose samples are wanted here, int64; None for all.
ShardSelector = Callable[[Frames], Tensor | None]


def labels_only(
    cell: Tensor,
    modulations: Sequence[str],
    snr_labels: Sequence[int],
    source: dict[str, Any],
    num_samples: int = NUM_SAMPLES,
) -> Frames:
    """Frames of joint classes `cell`, int64 [N], as yet without samples."""
    modulation, snr_index = cell // len(snr_labels), cell % len(snr_labels)
    nothing = torch.empty(0, num_samples, 2, device=cell.device)
    if num_samples != NUM_SAMPLES:
        # Shorter frames are other ones; records of the usual length do not say it.
        source = source | {"num_samples": num_samples}
    return Frames(nothing, modulation, snr_index, tuple(modulations), tuple(snr_labels), source)


def synthesise_frames(
    *,
    modulations: Sequence[str],
    snr_labels: Sequence[int],
    num_frames_per_cell: int,
    seed: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    channel: Channel | None = None,
    num_samples: int = NUM_SAMPLES,
    samples_in: str = "auto",
    shard: ShardSelector | None = None,
) -> Frames:
    """Frames from the generator, ordered by modulation, then SNR label, the same number in each cell.

    For samples_in and shard see Frames.allocate_samples.

    Raises:
        ValueError: a class that only RadioML 2016.10 has.
    """
    if unknown := [name for name in modulations if name not in RADIOML_2018_MODULATIONS]:
        raise ValueError(
            f"modulations must be those of RadioML 2018.01A for synthetic frames, got {unknown[0]!r}; "
            f"name a file of RadioML 2016.10 in data_path"
        )
    channel = channel or Channel()
    index = torch.arange(len(modulations) * len(snr_labels) * num_frames_per_cell, device=device)
    source = synthetic_source(channel, seed)
    cell = index // num_frames_per_cell
    frames = labels_only(cell, modulations, snr_labels, source, num_samples)
    frames = frames.allocate_samples(dtype, samples_in, shard)
    redraw_frames(frames, index, 0)
    return frames


def synthetic_source(channel: Channel, seed: int) -> dict[str, Any]:
    """Where synthetic frames come from, ready for a run record."""
    preset = next(
        (name for name, known in CHANNEL_PRESETS.items() if known == channel), "other channel"
    )
    return {"label": f"synthetic ({preset})", "generator": vars(channel), "seed": seed}


def redraw_frames(frames: Frames, index: Tensor, generation: int) -> None:
    """Overwrite synthetic frames by others of the same cells, channel and seed.

    Args:
        frames: synthetic frames; changed in place.
        index: int64, the frames to draw anew, as far as they are held.
        generation: number of the drawing; 0 gives the frames that the set began with.
    """
    snr_labels = torch.tensor(frames.snr_labels, device=frames.device)
    for part in frames.local(index).split(_CHUNK[frames.device.type]):
        made = generate_frames(
            part + generation * len(frames),
            frames.modulation[part],
            snr_labels[frames.snr_index[part]],
            modulations=frames.modulations,
            seed=frames.source["seed"],
            channel=Channel(**frames.source["generator"]),
            num_samples=frames.num_samples,
        )
        frames.write(part, torch.view_as_real(made.iq))
    frames.generation.fill_(generation)


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
    origin = [frames.modulations, frames.snr_labels, frames.source, len(frames)]
    digest = hashlib.sha256(json.dumps(origin, sort_keys=True).encode())
    for numbers in (split.test, frames.joint_class[split.test]):
        digest.update(numbers.cpu().numpy().tobytes())
    return digest.hexdigest()


def stratified_split(frames: Frames, *, seed: int) -> Split:
    """80/10/10 split, stratified on (modulation, SNR), that depends on labels and seed alone.

    Frames are lined up cell after cell, cells in random order and shuffled inside, and every tenth
    goes to test, every other tenth to validation. So each cell is split to within one frame, and
    cells of fewer than ten frames still give whole parts of the right size.

    Raises:
        ValueError: too few frames for three parts, in all or of a class.
    """
    if len(frames) < 10:
        raise ValueError(
            f"a split needs at least 10 frames, got {len(frames)}; raise num_frames_per_cell"
        )
    rng = np.random.default_rng([seed, 0x5B11])
    cell = frames.joint_class.cpu().numpy()
    place_of_cell = rng.permutation(frames.num_classes)
    line = np.lexsort((rng.random(len(cell)), place_of_cell[cell]))
    tenth = np.arange(len(line)) % 10
    parts = (line[tenth < 8], line[tenth == 8], line[tenth == 9])
    modulation = frames.modulation.cpu().numpy()
    for number, name in enumerate(frames.modulations):
        count, in_train = ((modulation[part] == number).sum() for part in (line, parts[0]))
        if count < 3 or not in_train:
            raise ValueError(
                f"a split needs frames of every class to train, to validate and to test, and {count} "
                f"frames of {name} are too few; raise num_frames_per_cell, or leave the class out"
            )
    return Split(*(torch.from_numpy(np.sort(part)).to(frames.device) for part in parts))


# Rows written at once.
_ROWS_AT_ONCE = 4096


def load_frames(
    config: DataParameters,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    samples_in: str = "auto",
    shard: ShardSelector | None = None,
) -> Frames:
    """Frames that the parameters ask for, from the file if one is named, else from the generator.

    For samples_in and shard see Frames.allocate_samples.
    """
    options = {"device": device, "dtype": dtype, "samples_in": samples_in, "shard": shard}
    if config.data_path:
        return read_radioml(**file_selection(config), **options)
    return synthesise_frames(
        modulations=config.modulation_names,
        snr_labels=config.snr_labels,
        num_frames_per_cell=config.num_frames_per_cell,
        seed=config.seed,
        channel=config.synthetic_channel,
        num_samples=config.num_samples,
        **options,
    )


def file_selection(config: DataParameters) -> dict[str, Any]:
    """The file that the parameters name and what they select of it, as read_radioml takes them."""
    return {
        "path": Path(config.data_path),
        "modulations": config.modulation_names,
        "snr_labels": config.snr_labels,
        "num_frames_per_cell": config.num_frames_per_cell,
        "seed": config.seed,
        "label_order": config.label_order,
        "num_samples": config.num_samples,
    }


def read_radioml(
    *,
    path: Path,
    modulations: Sequence[str],
    snr_labels: Sequence[int],
    num_samples: int = NUM_SAMPLES,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    samples_in: str = "auto",
    shard: ShardSelector | None = None,
    **choice: Any,
) -> Frames:
    """Frames of a RadioML file, selected by label, in file order.

    Args:
        path: the file, see amc_utils.radioml.reader.
        modulations: names.
        snr_labels: SNR labels.
        num_samples: of each frame, its first ones.
        device: where labels lie and computations run.
        dtype: of the samples kept.
        samples_in: see Frames.allocate_samples.
        shard: see Frames.allocate_samples; only the rows of held frames are read.
        choice: num_frames_per_cell, seed, label_order and only_shared, see select.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be taken, or that lacks a cell that was asked for.
    """
    with open_radioml(path, num_samples) as file:
        chosen = select(file, modulations=modulations, snr_labels=snr_labels, **choice)
        labels = torch.from_numpy(chosen.cell).to(device)
        frames = labels_only(labels, modulations, snr_labels, chosen.source, num_samples)
        frames = frames.allocate_samples(dtype, samples_in, shard)
        rows = chosen.rows if frames.held is None else chosen.rows[frames.held.cpu().numpy()]
        with progress(total=len(rows), desc=f"reading {path.name}", unit=" frames") as bar:
            for place, samples in file.blocks(rows):
                frames.iq_pairs[place] = samples
                bar.update(len(samples))
    return frames


def cached_radioml(
    *,
    path: Path,
    num_samples: int = NUM_SAMPLES,
    device: torch.device | str = "cpu",
    samples_in: str = "auto",
    shard: ShardSelector | None = None,
    trust_file: bool = False,
    **choice: Any,
) -> Frames:
    """Frames of a file as read_radioml gives them, but float16 and kept for the next start.

    Args:
        path: the file.
        num_samples: of each frame, its first ones.
        device: where labels lie and computations run.
        samples_in: see Frames.allocate_samples; "disk" is the file that is kept.
        shard: see Frames.allocate_samples.
        trust_file: take frames that are in the file twice.
        choice: modulations, snr_labels, num_frames_per_cell, seed and label_order, see select.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see read_radioml and amc_utils.radioml.cache.kept_samples.
        OSError: the disk has no room.
    """
    with open_radioml(path, num_samples) as file:
        chosen = select(file, **choice)
        labels = torch.from_numpy(chosen.cell).to(device)
        classes = choice["modulations"], choice["snr_labels"]
        frames = labels_only(labels, *classes, chosen.source, num_samples)
        # Before samples are read: what holds them may refuse the labels.
        held = shard(frames) if shard else None
        kept = kept_samples(file, chosen.rows, trust_file=trust_file)
    if choose_place(kept.nbytes, frames.device, samples_in) == "disk":
        # All samples are there, those of other processes too; `held` says whose frames are worked on.
        return replace(frames, iq_pairs=torch.from_numpy(kept), held=held, place="disk")
    frames = frames.allocate_samples(torch.float16, samples_in, lambda _: held)
    rows = np.arange(len(frames)) if frames.held is None else frames.held.cpu().numpy()
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        half = kept[rows[start : start + _ROWS_AT_ONCE]]
        frames.iq_pairs[start : start + _ROWS_AT_ONCE] = torch.from_numpy(half)
    return frames


_NOBODY = -1


class BatchPlan:
    """Batches of training frames: rows of a table whose columns belong to processes.

    A frame stays in its column, and a column with its process, which therefore needs the samples of its
    own columns only. An epoch shuffles every column by itself, and its k-th batch is the k-th row. The
    batches follow from seed, epoch and batch size; the number of processes changes nothing.

    Attributes:
        steps: batches in an epoch; the frames left over are others in each.
    """

    def __init__(self, config: TrainingParameters, split: Split) -> None:
        self.config = config
        train = split.train.cpu().numpy()
        size = config.batch_size
        self.steps = len(train) // size
        if not self.steps:
            raise ValueError(
                f"batch_size must be at most the number of training frames, {len(train)}, got {size}"
            )
        padded = np.full(-(-len(train) // size) * size, _NOBODY)
        padded[: len(train)] = np.random.default_rng([config.seed, 0xC01]).permutation(train)
        self._table = padded.reshape(-1, size)

    def batches(self, epoch: int) -> Tensor:
        """Batches of an epoch (counted from 0), int64 [steps, batch_size], in host memory."""
        number = epoch if self.config.shuffle else 0
        keys = np.random.default_rng([self.config.seed, 0x0DE2, number]).random(self._table.shape)
        keys[self._table == _NOBODY] = np.inf
        shuffled = np.take_along_axis(self._table, keys.argsort(0), 0)
        return torch.from_numpy(shuffled[: self.steps])

    def places(self, rank: int, num_processes: int) -> slice:
        """Columns of a process.

        Raises:
            ValueError: the batch cannot be shared out evenly.
        """
        parts = num_processes * self.config.engine.accumulate
        if self.config.batch_size % parts:
            raise ValueError(
                f"batch_size must be a multiple of {parts}, processes times accumulate, "
                f"got {self.config.batch_size}"
            )
        width = self.config.batch_size // num_processes
        return slice(rank * width, (rank + 1) * width)

    def train_share(self, rank: int, num_processes: int) -> Tensor:
        """Training frames of a process, int64."""
        own = self._table[:, self.places(rank, num_processes)]
        return torch.from_numpy(own[own != _NOBODY])


def share(config: TrainingParameters, split: Split, rank: int, num_processes: int) -> Tensor:
    """All frames of a process, int64: its columns, and every so-and-so-many-th of the other parts."""
    train = BatchPlan(config, split).train_share(rank, num_processes).to(split.train.device)
    others = (split.validation, split.test)
    return torch.cat([train, *(part[rank::num_processes] for part in others)])

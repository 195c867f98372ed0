"""Files that several tests read or write: in RadioML's layouts, and excerpts of the real one."""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from amc_utils.data import Frames
from amc_utils.radioml.selection import OTHER_NAMES
from amc_utils.radioml.writer import write_rows
from amc_utils.runtime.paths import REPOSITORY
from amc_utils.signals import CHANNEL_PRESETS, RADIOML_2018_MODULATIONS, generate_frames

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


class _Python2Pickler(pickle._Pickler):
    """Writes strings and bytes as Python 2's one kind of string, as the files of 2016 have them."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, text: str | bytes) -> None:
        data = text.encode("latin1") if isinstance(text, str) else text
        if self.proto == 0:
            self.write(b"S" + repr(data)[1:].encode("ascii") + b"\n")
        else:
            self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_string


def write_radioml_2016(path: Path, cells: dict, protocol: int = 2) -> None:
    """Write {(modulation, SNR): array} as Python 2 and its numpy did."""
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol).dump(cells)
    path.write_bytes(buffer.getvalue().replace(b"numpy._core.", b"numpy.core."))


def radioml_2016_cells(names, snr_labels, num_frames: int, *, seed: int = 3) -> dict:
    """Frames like those of RadioML 2016.10a: 128 samples whose magnitudes sum to 1.

    CPFSK and GFSK are phases that turn either way at random, AM-SSB is noise.
    """
    index, cells = torch.arange(num_frames), {}
    rng = torch.Generator().manual_seed(seed)
    for number, name in enumerate(names):
        for label in snr_labels:
            if name in ("CPFSK", "GFSK", "AM-SSB"):
                turns = torch.randint(2, (num_frames, 16), generator=rng).repeat_interleave(8, 1) - 0.5
                step = torch.pi / 8 * (1 if name == "CPFSK" else 0.5)
                iq = torch.polar(torch.ones(num_frames, 128), (turns * step).cumsum(1))
                noise = torch.randn(num_frames, 128, dtype=torch.complex64, generator=rng)
                iq = iq * (name != "AM-SSB") + noise * 10 ** (-label / 20)
            else:
                same = OTHER_NAMES.get(name, name)
                labels = torch.full((num_frames,), label)
                settings = {"modulations": (same,), "seed": seed + number, "num_samples": 128}
                settings["channel"] = CHANNEL_PRESETS["table_1"]
                iq = generate_frames(index + 1000 * (label + 20), index * 0, labels, **settings).iq
            iq = iq / iq.abs().sum(1, keepdim=True)
            cells[name, label] = torch.stack([iq.real, iq.imag], 1).numpy()
    return cells

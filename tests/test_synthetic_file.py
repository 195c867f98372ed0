"""Synthetic files of RadioML's layout: what they hold, and what is refused."""

from __future__ import annotations

import os
import resource
import signal
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from amc_utils.__main__ import main
from amc_utils.data import synthesise_frames
from amc_utils.radioml import writer
from amc_utils.radioml.writer import write_synthetic_file
from amc_utils.runtime import storage
from amc_utils.runtime.interruption import EXIT_RESUMABLE
from amc_utils.signals import CHANNEL_PRESETS, RADIOML_2018_MODULATIONS, SNR_LABELS

NUM_FRAMES = 24 * 26 * 2


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("synthetic") / "new" / "file.h5"
    write_synthetic_file(path, num_frames_per_cell=2, seed=3)
    return path


@pytest.fixture
def command():
    """The command line, whose signal handler does not outlive the test."""
    # Ignored unless the command does something about it, which then is a failure and not the end.
    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield lambda *arguments: main(["generate", *map(str, arguments)])
    signal.signal(signal.SIGTERM, former)


@pytest.fixture
def in_the_middle(monkeypatch):
    """Lets something happen before the third batch of frames is made."""

    def let(happen):
        made, generate = [], writer.generate_frames

        def generate_all_the_same(*arguments, **options):
            made.append(1)
            if len(made) == 3:
                happen()
            return generate(*arguments, **options)

        monkeypatch.setattr(writer, "generate_frames", generate_all_the_same)

    return let


def test_layout_is_the_published_one(written):
    with h5py.File(written) as file:
        found = {name: (data.shape, data.dtype.str, data.chunks) for name, data in file.items()}
    assert found == {
        "X": ((NUM_FRAMES, 1024, 2), "<f4", None),
        "Y": ((NUM_FRAMES, 24), "<i8", None),
        "Z": ((NUM_FRAMES, 1), "<i8", None),
    }


def test_labels_are_one_hot_by_class_and_then_snr(written):
    with h5py.File(written) as file:
        y, z = file["Y"][:], file["Z"][:, 0]
    np.testing.assert_array_equal(y, np.repeat(np.eye(24, dtype=int), 52, axis=0))
    np.testing.assert_array_equal(z, np.tile(np.repeat(SNR_LABELS, 2), 24))


def test_rows_are_the_frames_of_the_generator(written):
    frames = synthesise_frames(
        modulations=RADIOML_2018_MODULATIONS, snr_labels=SNR_LABELS, num_frames_per_cell=2, seed=3
    )
    with h5py.File(written) as file:
        assert torch.equal(torch.from_numpy(file["X"][:]), frames.iq_pairs)


def test_command_says_what_it_writes_and_where(command, tmp_path, capsys):
    path = tmp_path / "file.h5"
    command(path, "--num-frames-per-cell", 1, "--seed", 4)
    first, *_, last = capsys.readouterr().out.splitlines()
    assert (
        first
        == f"writing 624 frames (0.00524 GB), 24 classes at 26 SNRs, channel radioml_2018, to {path}"
    )
    assert last == f"written to {path}"
    # Little but frames is in the file, so the size that is announced is its own.
    assert path.stat().st_size == pytest.approx(0.00524e9, rel=0.01)
    with h5py.File(path) as file:
        assert len(file["X"]) == 624
        assert (file.attrs["seed"], file.attrs["preset"]) == (4, "radioml_2018")


def test_frames_of_another_channel_are_written_if_asked_for(command, tmp_path, capsys):
    command(tmp_path / "file.h5", "--num-frames-per-cell", 1, "--seed", 4, "--preset", "table_1")
    assert "channel table_1, to" in capsys.readouterr().out
    frames = synthesise_frames(
        modulations=RADIOML_2018_MODULATIONS, snr_labels=SNR_LABELS, num_frames_per_cell=1, seed=4,
        channel=CHANNEL_PRESETS["table_1"],
    )  # fmt: skip
    with h5py.File(tmp_path / "file.h5") as file:
        assert file.attrs["preset"] == "table_1"
        assert torch.equal(torch.from_numpy(file["X"][:]), frames.iq_pairs)


def test_a_channel_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="radioml_2018, table_1, open, got 'table1'"):
        write_synthetic_file(tmp_path / "file.h5", num_frames_per_cell=1, seed=1, preset="table1")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_stays_unless_told_otherwise(command, tmp_path):
    path = tmp_path / "file.h5"
    path.write_text("precious")
    with pytest.raises(
        SystemExit, match=r"must be a new file, it is there; remove it, .* add --overwrite"
    ):
        command(path, "--num-frames-per-cell", 1)
    assert path.read_text() == "precious"
    command(path, "--num-frames-per-cell", 1, "--overwrite")
    assert h5py.is_hdf5(path)
    with pytest.raises(SystemExit, match="must be the name of a file, it is a folder"):
        command(tmp_path, "--overwrite")


def test_a_disk_without_room_is_refused_at_once(command, tmp_path, monkeypatch, capsys):
    usage = SimpleNamespace(free=8392 * 624 - 1)
    monkeypatch.setattr(storage.psutil, "disk_usage", lambda folder: usage)
    arguments = tmp_path / "new" / "file.h5", "--num-frames-per-cell"
    with pytest.raises(
        SystemExit, match=r"must have room for 21.4 GB, it has 0.0; give a path"
    ) as full:
        command(*arguments, 4096)
    assert "\n" not in str(full.value)
    with pytest.raises(SystemExit, match="must have room"):
        command(*arguments, 1)
    assert (list(tmp_path.iterdir()), capsys.readouterr().out) == ([], "")
    usage.free += 1
    command(*arguments, 1)


@pytest.mark.parametrize("wrong", [("--num-frames-per-cell", 0), ("--seed", -1)])
def test_impossible_numbers_are_refused(command, tmp_path, wrong):
    with pytest.raises(
        SystemExit, match="num_frames_per_cell must be at least 1 and seed not negative"
    ):
        command(tmp_path / "file.h5", *wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_nothing(command, tmp_path, in_the_middle):
    def fail():
        assert len(list(tmp_path.iterdir())) == 1
        raise ValueError("no more frames")

    in_the_middle(fail)
    with pytest.raises(SystemExit, match=r"^ValueError: no more frames$"):
        command(tmp_path / "file.h5", "--num-frames-per-cell", 2)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_becomes_full_leaves_nothing_but_a_sentence(command, tmp_path, in_the_middle):
    """A limit on the length of files stands for the disk: writing fails in the same way."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    in_the_middle(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, former[1])))
    try:
        with pytest.raises(SystemExit, match=r"^OSError: .*File too large"):
            command(tmp_path / "file.h5", "--num-frames-per-cell", 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_leaves_nothing_but_a_sentence(
    command, tmp_path, in_the_middle, capsys, number
):
    in_the_middle(lambda: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as ended:
        command(tmp_path / "file.h5", "--num-frames-per-cell", 2)
    assert ended.value.code == EXIT_RESUMABLE
    assert capsys.readouterr().err.endswith("file.h5 was complete, so none of it is left\n")
    assert list(tmp_path.iterdir()) == []

"""Frames kept for the next start."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest
import torch
from files import write_radioml
from trainers import SERVER, TINY, make_trainer

from amc_utils.data import cached_radioml, read_radioml
from amc_utils.radioml import cache
from amc_utils.radioml.reader import RadioMLFile
from amc_utils.runtime import paths


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("AMC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "amc_utils"


@pytest.fixture
def written(small_frames, tmp_path):
    write_radioml(tmp_path / "frames.h5", small_frames)
    return tmp_path / "frames.h5"


def choice(path, **changes):
    values = {"modulations": ("BPSK", "QPSK", "OQPSK"), "snr_labels": (0, 20), "seed": 1}
    return {"path": path, "num_frames_per_cell": 15} | values | changes


def kept(folder):
    return sorted(folder.glob("[!.]*.npy"))


def test_second_start_reads_no_samples_and_gives_the_same(folder, written, monkeypatch, capsys):
    direct = read_radioml(**choice(written), dtype=torch.float16)
    first = cached_radioml(**choice(written))
    assert "keeping 90 frames of frames.h5 (0 MB)" in capsys.readouterr().out
    monkeypatch.setattr(RadioMLFile, "blocks", lambda *_: pytest.fail("samples were read again"))
    for samples_in in ("device", "host", "disk"):
        again = cached_radioml(**choice(written), samples_in=samples_in)
        assert again.place == samples_in
        for frames in (first, again):
            assert frames.iq_pairs.dtype == torch.float16
            assert torch.equal(frames.iq_pairs, direct.iq_pairs)
            assert torch.equal(frames.joint_class, direct.joint_class)
            assert frames.source == direct.source
    share = cached_radioml(**choice(written), shard=lambda frames: torch.tensor([7, 3]))
    assert torch.equal(share.iq_pairs, direct.iq_pairs[[3, 7]])
    assert capsys.readouterr().out.count("taking 90 frames of frames.h5 from") == 4


def test_share_on_the_disk_knows_which_frames_are_its_own(folder, written):
    """Of several processes each works on its share, though the file that is kept has all samples."""
    whole = cached_radioml(**choice(written))
    share = torch.tensor([7, 3, 40])
    for samples_in in ("disk", "device"):
        part = cached_radioml(**choice(written), samples_in=samples_in, shard=lambda frames: share)
        assert sorted(part.local(torch.arange(90)).tolist()) == [3, 7, 40]
        assert torch.equal(part.iq(share), whole.iq(share))


def test_another_selection_or_a_changed_file_is_read_anew(folder, written):
    cached_radioml(**choice(written))
    cached_radioml(**choice(written, seed=2))
    assert len(kept(folder)) == 2
    whole = choice(written, num_frames_per_cell=20)
    cached_radioml(**whole)
    cached_radioml(**whole | {"seed": 2})
    assert len(kept(folder)) == 3, "all rows are all rows, whatever the seed"
    times = written.stat().st_atime_ns, written.stat().st_mtime_ns
    # A single frame, and the time of modification is set back, as some ways of copying do.
    with h5py.File(written, "r+") as file:
        file["X"][37] = -file["X"][37]
    os.utime(written, ns=times)
    changed = cached_radioml(**whole)
    assert len(kept(folder)) == 4
    assert torch.equal(changed.iq_pairs, read_radioml(**whole, dtype=torch.float16).iq_pairs)


def test_failure_leaves_nothing(folder, written, monkeypatch):
    with h5py.File(written, "r+") as file:
        file["X"][100, 5, 0] = np.nan
    with pytest.raises(ValueError, match="row 100 has a mean power of nan"):
        cached_radioml(**choice(written, num_frames_per_cell=20))
    monkeypatch.setattr(cache, "free_disk_bytes", lambda folder: 1000)
    with pytest.raises(
        OSError, match=r"must have room for 0.0 GB .* let AMC_CACHE name another folder"
    ):
        cached_radioml(**choice(written, modulations=("QPSK",)))
    assert all(path.suffix == ".lock" for path in folder.iterdir())


def fill_slowly(folder, selection, begun):
    """Body of a child process that is killed while it fills the cache."""
    os.environ["AMC_CACHE"] = str(folder.parent)

    def never(*_):
        begun.set()
        begun.wait(60)
        os.kill(os.getpid(), 9)

    RadioMLFile.blocks = never
    cached_radioml(**selection)


def test_killed_while_filling_leaves_what_the_next_start_removes(folder, written):
    begun = SERVER.Event()
    child = SERVER.Process(target=fill_slowly, args=(folder, choice(written), begun))
    child.start()
    child.join()
    assert list(folder.glob(".*.npy"))
    assert not kept(folder)
    cached_radioml(**choice(written))
    assert not list(folder.glob(".*.npy"))


def fill_in_turn(folder, selection, first, second):
    """Body of a child process: waits in the midst of reading for the other to want the same."""
    os.environ["AMC_CACHE"] = str(folder.parent)
    blocks = RadioMLFile.blocks

    def slowly(*arguments, **options):
        first.set()
        second.wait(60)
        yield from blocks(*arguments, **options)

    RadioMLFile.blocks = slowly
    cached_radioml(**selection)


def wait_in_turn(folder, selection, first, second, words):
    """Body of the other one, which must not read."""
    os.environ["AMC_CACHE"] = str(folder.parent)
    first.wait(60)
    RadioMLFile.blocks = lambda *_, **__: pytest.fail("read a second time")

    def heard(text, **options):
        words.put(text)
        second.set()

    paths.print = heard
    cached_radioml(**selection)


@pytest.mark.parametrize("other", [{}, {"seed": 2}])
def test_second_process_waits_for_the_first_one_only_if_it_wants_the_same(folder, written, other):
    first, second, words = SERVER.Event(), SERVER.Event(), SERVER.Queue()
    one = SERVER.Process(target=fill_in_turn, args=(folder, choice(written), first, second))
    one.start()
    if other:
        first.wait(60)
        cached_radioml(**choice(written, **other))
        second.set()
    else:
        arguments = (folder, choice(written), first, second, words)
        two = SERVER.Process(target=wait_in_turn, args=arguments)
        two.start()
        two.join()
        assert two.exitcode == 0
        assert words.get() == "waiting for another process, which is reading frames.h5"
    one.join()
    assert one.exitcode == 0
    assert len(kept(folder)) == 1 + len(other)


DAMAGES = {
    "cut": lambda kept: kept.write_bytes(kept.read_bytes()[:1000]),
    "empty": lambda kept: kept.write_bytes(b""),
    "no numbers": lambda kept: kept.write_text("nothing"),
    "other numbers": lambda kept: np.save(kept, np.zeros(3)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_cache_is_refused_until_it_is_deleted(folder, written, damage):
    cached_radioml(**choice(written))
    DAMAGES[damage](kept(folder)[0])
    with pytest.raises(ValueError, match=r"must be whole, it .*; delete it"):
        cached_radioml(**choice(written))
    kept(folder)[0].unlink()
    assert len(cached_radioml(**choice(written))) == 90


def test_frame_that_is_there_twice_needs_a_word(folder, written):
    with h5py.File(written, "r+") as file:
        file["X"][70] = file["X"][3]
    whole = choice(written, num_frames_per_cell=20)
    with pytest.raises(ValueError, match="got 1 pairs, the first in rows 3 and 70; set trust_file"):
        cached_radioml(**whole)
    assert len(cached_radioml(**whole, trust_file=True)) == 120


def test_training_runs_on_the_map_itself(folder, written, make_config, tmp_path):
    options = TINY | {"data_path": str(written), "num_epochs": 1}
    tables = []
    for samples_in in ("device", "disk"):
        config = make_config(**options, engine={"samples_in": samples_in})
        trainer = make_trainer(config, tmp_path / samples_in)
        assert trainer.frames.place == samples_in
        list(trainer.fit())
        tables.append(trainer.history_table)
    assert tables[0].equals(tables[1])
    direct = make_trainer(make_config(**options, engine={"cache": False}), tmp_path / "direct")
    assert direct.frames.iq_pairs.dtype == torch.float32
    assert len(kept(folder)) == 1


def test_what_is_deleted_while_it_is_read_stays_readable(folder, written):
    frames = cached_radioml(**choice(written), samples_in="disk")
    kept(folder)[0].unlink()
    assert torch.equal(frames.iq_pairs, read_radioml(**choice(written), dtype=torch.float16).iq_pairs)


@pytest.mark.parametrize("factor", [1e5, 1e-10])
def test_frame_that_16_bits_cannot_hold_is_refused(folder, written, factor):
    with h5py.File(written, "r+") as file:
        file["X"][77] = file["X"][77] * np.float32(factor)
    with pytest.raises(ValueError, match=r"power that is not extreme, row 77 has a mean power of"):
        cached_radioml(**choice(written, num_frames_per_cell=20))

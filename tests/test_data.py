"""Files in RadioML's layout: written, read, refused."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from files import write_radioml

from amc_utils.audit.checks import SIGNATURE_OF_MODULATION
from amc_utils.data import read_radioml
from amc_utils.dsp.features import signature, snr_ratio
from amc_utils.radioml import reader
from amc_utils.radioml.reader import SHIPPED_WRONG_MODULATIONS
from amc_utils.signals import DIGITAL_MODULATIONS, RADIOML_2018_MODULATIONS


def read(path, modulations=("BPSK", "QPSK", "OQPSK"), grid=(0, 20), per_cell=100, seed=0, **options):
    return read_radioml(
        path=path,
        modulations=modulations,
        snr_labels=grid,
        num_frames_per_cell=per_cell,
        seed=seed,
        **options,
    )


def copy_with(path, target, **changes):
    """Copy of an HDF5 file with some datasets replaced; None drops one."""
    with h5py.File(path) as old, h5py.File(target, "w") as new:
        for name in old:
            value = changes.get(name, old[name][:])
            if value is not None:
                new[name] = value
    return target


@pytest.fixture(scope="module")
def written(small_frames, tmp_path_factory):
    path = tmp_path_factory.mktemp("radioml") / "frames.h5"
    write_radioml(path, small_frames)
    return path


def test_first_of_the_pair_is_in_phase(written, small_frames):
    """A hand-written row, read back: real part from column 0."""
    with h5py.File(written) as file:
        row = file["X"][0]
    iq = small_frames.iq(torch.tensor([0]))[0]
    np.testing.assert_array_equal(iq.real.numpy(), row[:, 0])
    np.testing.assert_array_equal(iq.imag.numpy(), row[:, 1])


def test_written_file_has_the_published_layout(written, small_frames):
    with h5py.File(written) as file:
        assert (file["X"].shape, file["X"].dtype) == ((120, 1024, 2), np.float32)
        assert (file["Y"].shape, file["Y"].dtype) == ((120, 24), np.int64)
        assert (file["Z"].shape, file["Z"].dtype) == ((120, 1), np.int64)
        names = np.array(RADIOML_2018_MODULATIONS)[file["Y"][:].argmax(1)]
        assert (names == np.array(small_frames.modulations)[small_frames.modulation]).all()


def test_reading_gives_back_what_was_written(written, small_frames):
    again = read(written)
    torch.testing.assert_close(again.iq_pairs, small_frames.iq_pairs, rtol=0, atol=0)
    assert torch.equal(again.joint_class, small_frames.joint_class)
    assert again.source["file_bytes"] == written.stat().st_size
    half = read(written, dtype=torch.float16)
    torch.testing.assert_close(
        half.iq(torch.arange(120)), small_frames.iq(torch.arange(120)), atol=2e-3, rtol=0
    )


def test_selection_is_by_label_whatever_the_order_of_rows(written, tmp_path):
    order = np.random.default_rng(1).permutation(120)
    with h5py.File(written) as file:
        shuffled = {name: file[name][:][order] for name in "XYZ"}
    path = copy_with(written, tmp_path / "shuffled.h5", **shuffled)
    some = read(path, modulations=("QPSK",), grid=(20,))
    straight = read(written, modulations=("QPSK",), grid=(20,))

    def as_set(frames):
        return {row.numpy().tobytes() for row in frames.iq_pairs}

    assert len(some) == 20
    assert as_set(some) == as_set(straight)


def test_draw_per_cell_is_balanced_and_depends_on_the_seed(written):
    first, again, other = (read(written, per_cell=7, seed=seed) for seed in (1, 1, 2))
    assert torch.bincount(first.joint_class).tolist() == [7] * 6
    assert torch.equal(first.iq_pairs, again.iq_pairs)
    assert not torch.equal(first.iq_pairs, other.iq_pairs)


def test_other_rows_are_hardly_read(written, monkeypatch):
    """Of 120 rows those of one cell, and no more than a few in between."""
    rows_read = []

    def spy(rows):
        for place, start, stop in stretches(rows):
            rows_read.extend(range(start, stop))
            yield place, start, stop

    stretches = reader._stretches
    monkeypatch.setattr(reader, "_stretches", spy)
    read(written, modulations=("QPSK",), grid=(20,), per_cell=5)
    assert set(rows_read) <= set(range(60, 80))
    assert len(rows_read) == len(set(rows_read))


@pytest.mark.parametrize("length", [5, 700, 5000])
def test_stretches_cover_the_rows_once(length):
    rows = np.sort(np.random.default_rng(length).permutation(3 * length)[:length])
    rows = np.append(rows, rows[-1] + 10_000)
    seen = []
    for place, start, stop in reader._stretches(rows):
        part = rows[place]
        assert part[0] == start
        assert part[-1] == stop - 1
        assert stop - start <= 2048
        assert (np.diff(part) <= 9).all()
        seen.extend(part)
    assert seen == rows.tolist()


VARIANTS = {
    "class numbers": lambda x, y, z: {"Y": y.argmax(1)},
    "a column of class numbers, no column of levels": lambda x, y, z: {
        "Y": y.argmax(1)[:, None].astype("u1"),
        "Z": z[:, 0],
    },
    "levels and one-hot as float": lambda x, y, z: {"Y": y.astype("f4"), "Z": z.astype("f8")},
    "float16": lambda x, y, z: {"X": x.astype("f2")},
    "float64": lambda x, y, z: {"X": x.astype("f8")},
    "int8": lambda x, y, z: {"X": np.rint(30 * x).astype("i1")},
    "int16": lambda x, y, z: {"X": np.rint(8000 * x).astype("i2")},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("storage", [{}, {"chunks": True}, {"chunks": True, "compression": "gzip"}])
def test_variants_of_the_layout_are_read(written, tmp_path, variant, storage):
    with h5py.File(written) as file:
        parts = {name: file[name][:] for name in "XYZ"}
    parts |= VARIANTS[variant](parts["X"], parts["Y"], parts["Z"])
    with h5py.File(tmp_path / "variant.h5", "w") as file:
        for name, value in parts.items():
            file.create_dataset(name, data=value, **storage)
    plain, other = read(written, per_cell=15), read(tmp_path / "variant.h5", per_cell=15)
    assert torch.equal(plain.joint_class, other.joint_class)
    coarse = {"int8": 0.03, "int16": 3e-4, "float16": 2e-3}.get(variant, 0)
    # Integers come back at unit mean power, whatever their scale was.
    found = other.iq_pairs
    if variant.startswith("int"):
        # Integers are brought to unit mean power, from which a record of few frames may differ.
        ratio = (plain.iq_pairs * found).sum() / found.square().sum()
        assert float(ratio) == pytest.approx(1, abs=0.03)
        found = found * ratio
    torch.testing.assert_close(plain.iq_pairs, found, atol=coarse, rtol=coarse / 3)


def test_labels_by_the_wrong_list_are_read_by_it(written, tmp_path):
    with h5py.File(written) as file:
        names = np.array(RADIOML_2018_MODULATIONS)[file["Y"][:].argmax(1)]
    wrong = np.array([SHIPPED_WRONG_MODULATIONS.index(name) for name in names])
    path = copy_with(written, tmp_path / "shipped.h5", Y=np.eye(24, dtype=np.int64)[wrong])
    right = read(path, label_order="shipped")
    assert torch.equal(right.joint_class, read(written).joint_class)
    with pytest.raises(ValueError, match="has no frame of"):
        read(path)


def test_failed_write_leaves_nothing(small_frames, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "one_hot", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_radioml(tmp_path / "frames.h5", small_frames)
    assert list(tmp_path.iterdir()) == []


def test_gnuradio_frames_carry_the_snr_and_the_classes_of_their_labels(gnuradio_slice):
    """The labels of a file that shares no code with this project, told from the signal alone."""
    frames = read(gnuradio_slice, modulations=RADIOML_2018_MODULATIONS, grid=(0, 10, 26, 28, 30))
    digital = torch.tensor([name in DIGITAL_MODULATIONS for name in frames.modulations])
    for level, snr_label in enumerate(frames.snr_labels):
        index = torch.nonzero((frames.snr_index == level) & digital[frames.modulation])[:, 0]
        measured = 10 * torch.log10(snr_ratio(frames.iq(index)).mean())
        assert float(measured) == pytest.approx(snr_label, abs=0.4)
    found = {}
    for number, name in enumerate(frames.modulations):
        index = torch.nonzero((frames.modulation == number) & (frames.snr_index >= 2))[:, 0]
        found[name] = signature(frames.iq(index))[0]
    assert found == SIGNATURE_OF_MODULATION
    shipped = dict(zip(SHIPPED_WRONG_MODULATIONS, found.values(), strict=True))
    assert sum(shipped[n] == SIGNATURE_OF_MODULATION[n] for n in shipped) < 14


def test_fresh_frames_of_a_file_are_refused(make_config, written):
    with pytest.raises(ValueError, match="fresh_frames must be false with a file"):
        make_config(data_path=str(written), fresh_frames=True)


def test_file_without_permission_is_refused(written, monkeypatch):
    """Told by the system's answers, since those who may do everything cannot be kept out of a file."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match="must be a file that can be read, you have no permission"):
        read(written)

    def denied(path, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(ValueError, match=r"must be a file that can be read \(Permission denied\)"):
        read(written)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_file_that_may_not_be_read_is_refused(written, tmp_path):
    path = copy_with(written, tmp_path / "closed.h5")
    path.chmod(0)
    with pytest.raises(ValueError, match="must be a file that can be read, you have no permission"):
        read(path)

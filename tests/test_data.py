"""Frames, files in RadioML's layout, and the split."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from amc_utils import data
from amc_utils.data import read_radioml, write_radioml
from amc_utils.features import label_order, level_table, signature, snr_convention, snr_ratio
from amc_utils.frames import (
    Frames,
    redraw_frames,
    split_fingerprint,
    stratified_split,
    synthesise_frames,
)
from amc_utils.labels import (
    DIGITAL_MODULATIONS,
    RADIOML_2018_MODULATIONS,
    SHIPPED_WRONG_MODULATIONS,
    SIGNATURE_OF_MODULATION,
    expand_modulations,
    snr_grid,
)


def read(path, modulations=("BPSK", "QPSK", "OQPSK"), grid=(0, 20), per_cell=100, seed=0, **options):
    return read_radioml(
        path=path,
        modulations=modulations,
        snr_grid_db=grid,
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


def test_label_order_is_the_one_the_data_follow():
    """Typed out, so that no slip in the module goes unnoticed [radioML/dataset, issue 25]."""
    order = (
        "OOK 4ASK 8ASK BPSK QPSK 8PSK 16PSK 32PSK 16APSK 32APSK 64APSK 128APSK 16QAM 32QAM 64QAM "
        "128QAM 256QAM AM-SSB-WC AM-SSB-SC AM-DSB-WC AM-DSB-SC FM GMSK OQPSK"
    )
    assert tuple(order.split()) == RADIOML_2018_MODULATIONS


def test_first_of_the_pair_is_in_phase(written, small_frames):
    """A hand-written row, read back: real part from column 0."""
    with h5py.File(written) as file:
        row = file["X"][0]
    iq = small_frames.iq(torch.tensor([0]))[0]
    np.testing.assert_array_equal(iq.real.numpy(), row[:, 0])
    np.testing.assert_array_equal(iq.imag.numpy(), row[:, 1])


def levels_of(frames, shift_db=0.0):
    index = torch.arange(len(frames))
    level = torch.tensor(frames.snr_grid_db)[frames.snr_index] + shift_db
    ratio = snr_ratio(frames.iq(index))
    return level_table(
        pd.DataFrame({"level": level, "power": 1.0, "snr_ratio": ratio, "digital": True})
    )


def test_snr_convention_is_told_apart():
    frames = synthesise_frames(
        modulations=("QPSK", "16QAM"), snr_grid_db=(0, 4, 8), num_frames_per_cell=30, seed=1
    )
    verdict, offset = snr_convention(levels_of(frames))
    assert (verdict, offset) == ("SNR per sample", pytest.approx(0, abs=0.3))
    # The same frames under labels that are Es/N0 of 8 samples per symbol.
    mislabelled = synthesise_frames(
        modulations=("QPSK", "16QAM"),
        snr_grid_db=(8, 12, 16),
        num_frames_per_cell=20,
        seed=1,
        snr_offset_db=-9.03,
    )
    assert snr_convention(levels_of(mislabelled))[0] == "Es/N0"
    verdict, offset = snr_convention(levels_of(frames, 9.03))
    assert (verdict, offset) == ("Es/N0", pytest.approx(-9.03, abs=0.3))
    assert snr_convention(levels_of(frames, 5.0))[0] == "undecided"
    assert snr_convention(levels_of(frames, 25.0))[0] == "undecided"


@pytest.mark.parametrize("truth", ["corrected", "shipped"])
def test_label_order_verdict(truth):
    rows = []
    for right, shipped in zip(RADIOML_2018_MODULATIONS, SHIPPED_WRONG_MODULATIONS, strict=True):
        promised, promised_shipped = (SIGNATURE_OF_MODULATION[n] for n in (right, shipped))
        rows.append(
            (promised if truth == "corrected" else promised_shipped, promised, promised_shipped)
        )
    table = pd.DataFrame(rows, columns=["found", "promised", "promised_shipped"])
    assert label_order(table, lowest_db=26) == truth
    assert label_order(table, lowest_db=10) == "cannot tell"
    assert label_order(table[table["promised"] == table["promised_shipped"]], 26) == "cannot tell"
    table.loc[table["promised"] != table["promised_shipped"], "found"] = "something else"
    assert label_order(table, lowest_db=26) == "neither"


def test_labels_are_the_published_counts():
    assert len(set(RADIOML_2018_MODULATIONS)) == 24
    assert set(SHIPPED_WRONG_MODULATIONS) == set(RADIOML_2018_MODULATIONS)
    assert len(DIGITAL_MODULATIONS) == 17
    assert len(DIGITAL_MODULATIONS) * len(snr_grid([-20, 30, 2])) == 442
    assert expand_modulations(["all"]) == RADIOML_2018_MODULATIONS
    assert expand_modulations(["OQPSK", "BPSK", "BPSK"]) == ("BPSK", "OQPSK")


@pytest.mark.parametrize(
    "wrong", [[], [0, 10], [0, 11, 2], [10, 0, 2], [-22, 0, 2], [0, 10, -2], [1, 3, 2]]
)
def test_snr_range_off_the_grid_is_refused(wrong):
    with pytest.raises(ValueError, match=r"snr_range_db must be \[first, last, step\]"):
        snr_grid(wrong)


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
    assert torch.equal(again.cell, small_frames.cell)
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
    assert torch.bincount(first.cell).tolist() == [7] * 6
    assert torch.equal(first.iq_pairs, again.iq_pairs)
    assert not torch.equal(first.iq_pairs, other.iq_pairs)


def test_only_selected_rows_are_read(written, monkeypatch):
    rows_read = []

    def spy(rows):
        for start, stop, target in runs(rows):
            rows_read.extend(range(start, stop))
            yield start, stop, target

    runs = data._runs
    monkeypatch.setattr(data, "_runs", spy)
    read(written, modulations=("QPSK",), grid=(20,), per_cell=5)
    assert len(rows_read) == 5
    assert set(rows_read) <= set(range(60, 80))


def test_bad_files_are_refused_with_a_sentence(written, tmp_path):
    with h5py.File(written) as file:
        x, z = file["X"][:], file["Z"][:]
    bad = {
        "X, Y and Z, Y is missing": {"Y": None},
        "dataset X .* shape": {"X": x[:, :512]},
        "dataset Z .* shape": {"Z": z[:100]},
        "even SNRs from -20 to 30 dB, got 7": {"Z": np.where(z == 0, 7, z)},
        "no frame of BPSK at 0 dB": {"Z": np.where(z == 0, 2, z)},
    }
    for number, (message, changes) in enumerate(bad.items()):
        path = copy_with(written, tmp_path / f"{number}.h5", **changes)
        with pytest.raises(ValueError, match=message):
            read(path)
    text = tmp_path / "text.h5"
    text.write_text("not HDF5")
    with pytest.raises(ValueError, match="must be an HDF5 file"):
        read(text)


def test_failed_write_leaves_nothing(small_frames, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "one_hot", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_radioml(tmp_path / "frames.h5", small_frames)
    assert list(tmp_path.iterdir()) == []


def test_gnuradio_frames_carry_the_snr_and_the_classes_of_their_labels(gnuradio_slice):
    """The labels of a file that shares no code with this project, told from the signal alone."""
    frames = read(gnuradio_slice, modulations=RADIOML_2018_MODULATIONS, grid=(0, 10, 26, 28, 30))
    digital = torch.tensor([name in DIGITAL_MODULATIONS for name in frames.modulations])
    for level, snr_db in enumerate(frames.snr_grid_db):
        index = torch.nonzero((frames.snr_index == level) & digital[frames.modulation])[:, 0]
        measured = 10 * torch.log10(snr_ratio(frames.iq(index)).mean())
        assert float(measured) == pytest.approx(snr_db, abs=0.4)
    found = {}
    for number, name in enumerate(frames.modulations):
        index = torch.nonzero((frames.modulation == number) & (frames.snr_index >= 2))[:, 0]
        found[name] = signature(frames.iq(index))[0]
    assert found == SIGNATURE_OF_MODULATION
    shipped = dict(zip(SHIPPED_WRONG_MODULATIONS, found.values(), strict=True))
    assert sum(shipped[n] == SIGNATURE_OF_MODULATION[n] for n in shipped) < 14


def test_split_is_stratified_disjoint_and_complete(small_frames):
    split = stratified_split(small_frames, seed=1)
    everything = torch.cat([split.train, split.validation, split.test])
    assert torch.equal(everything.sort().values, torch.arange(120))
    for part, share in ((split.train, 16), (split.validation, 2), (split.test, 2)):
        assert torch.bincount(small_frames.cell[part]).tolist() == [share] * 6


def test_split_depends_on_labels_and_seed_alone(small_frames):
    noise = Frames(
        torch.randn_like(small_frames.iq_pairs),
        small_frames.modulation,
        small_frames.snr_index,
        small_frames.modulations,
        small_frames.snr_grid_db,
        {"label": "other"},
    )
    ours = stratified_split(small_frames, seed=1)
    same, other = (stratified_split(noise, seed=seed) for seed in (1, 2))
    assert torch.equal(ours.test, same.test)
    assert torch.equal(ours.validation, same.validation)
    assert not torch.equal(ours.test, other.test)


def test_fingerprint_tells_classes_and_sources_apart():
    def fingerprint(modulations, grid, seed=1):
        frames = synthesise_frames(
            modulations=modulations, snr_grid_db=grid, num_frames_per_cell=10, seed=seed
        )
        return split_fingerprint(frames, stratified_split(frames, seed=1))

    ours = fingerprint(("BPSK", "QPSK"), (0, 10))
    assert ours == fingerprint(("BPSK", "QPSK"), (0, 10))
    others = {
        fingerprint(("16QAM", "64QAM"), (0, 10)),
        fingerprint(("BPSK", "QPSK"), (-20, 30)),
        fingerprint(("BPSK", "QPSK"), (0, 10), seed=2),
    }
    assert len(others | {ours}) == 4


def test_split_of_small_cells_keeps_its_proportions():
    frames = synthesise_frames(
        modulations=DIGITAL_MODULATIONS, snr_grid_db=(0, 10), num_frames_per_cell=4, seed=1
    )
    split = stratified_split(frames, seed=1)
    assert split.counts == {"train": 110, "validation": 13, "test": 13}
    assert torch.bincount(frames.cell[split.test]).max() == 1


def test_split_of_too_few_frames_is_refused():
    frames = synthesise_frames(modulations=("BPSK",), snr_grid_db=(0,), num_frames_per_cell=9, seed=1)
    with pytest.raises(ValueError, match="at least 10 frames, got 9"):
        stratified_split(frames, seed=1)


def test_redrawn_frames_are_of_the_same_cells_and_generation_zero_is_the_set(small_frames):
    copy = small_frames.to("cpu")
    copy = type(copy)(**{**vars(copy), "iq_pairs": copy.iq_pairs.clone()})
    some = torch.arange(0, len(copy), 7)
    redraw_frames(copy, some, 1)
    changed = (copy.iq_pairs != small_frames.iq_pairs).any(2).any(1)
    assert torch.equal(changed.nonzero()[:, 0], some)
    redraw_frames(copy, some, 0)
    assert torch.equal(copy.iq_pairs, small_frames.iq_pairs)


def test_fresh_frames_of_a_file_are_refused(make_config, written):
    with pytest.raises(ValueError, match="fresh_frames must be false with a file"):
        make_config(data_path=str(written), fresh_frames=True)


def test_channel_of_the_parameters_reaches_the_frames(make_config):
    frames = data.load_frames(make_config(channel={"cfo_std": 1e-3, "rolloff_range": [0.2, 0.5]}))
    generator = frames.source["generator"]
    assert (generator["cfo_std"], generator["rolloff_range"]) == (1e-3, (0.2, 0.5))
    with pytest.raises(ValueError, match=r"channel must set some of rolloff_range, .* got 'cfo'"):
        make_config(channel={"cfo": 1e-3})
    with pytest.raises(ValueError, match="rolloff_range must lie in"):
        make_config(channel={"rolloff_range": [0.5, 0.2]})

"""Synthetic frames and the split."""

from __future__ import annotations

import pytest
import torch

from amc_utils import data
from amc_utils.data import (
    Frames,
    redraw_frames,
    split_fingerprint,
    stratified_split,
    synthesise_frames,
)
from amc_utils.signals import (
    DIGITAL_MODULATIONS,
)


def test_split_is_stratified_disjoint_and_complete(small_frames):
    split = stratified_split(small_frames, seed=1)
    everything = torch.cat([split.train, split.validation, split.test])
    assert torch.equal(everything.sort().values, torch.arange(120))
    for part, share in ((split.train, 16), (split.validation, 2), (split.test, 2)):
        assert torch.bincount(small_frames.joint_class[part]).tolist() == [share] * 6


def test_split_depends_on_labels_and_seed_alone(small_frames):
    noise = Frames(
        torch.randn_like(small_frames.iq_pairs),
        small_frames.modulation,
        small_frames.snr_index,
        small_frames.modulations,
        small_frames.snr_labels,
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
            modulations=modulations, snr_labels=grid, num_frames_per_cell=10, seed=seed
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
        modulations=DIGITAL_MODULATIONS, snr_labels=range(0, 16, 2), num_frames_per_cell=4, seed=1
    )
    split = stratified_split(frames, seed=1)
    assert split.counts == {"train": 436, "validation": 54, "test": 54}
    assert torch.bincount(frames.joint_class[split.test]).max() == 1


def test_split_that_leaves_a_class_out_is_refused():
    frames = synthesise_frames(
        modulations=DIGITAL_MODULATIONS, snr_labels=(0,), num_frames_per_cell=2, seed=1
    )
    with pytest.raises(ValueError, match="and 2 frames of 4ASK are too few"):
        stratified_split(frames, seed=1)


def test_split_of_too_few_frames_is_refused():
    frames = synthesise_frames(modulations=("BPSK",), snr_labels=(0,), num_frames_per_cell=9, seed=1)
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


def test_channel_of_the_parameters_reaches_the_frames(make_config):
    frames = data.load_frames(make_config(channel={"cfo_std": 1e-3, "rolloff_range": [0.2, 0.5]}))
    generator = frames.source["generator"]
    assert (generator["cfo_std"], generator["rolloff_range"]) == (1e-3, (0.2, 0.5))
    with pytest.raises(
        ValueError, match=r"channel must set some of preset, rolloff_range, .* got 'cfo'"
    ):
        make_config(channel={"cfo": 1e-3})
    with pytest.raises(ValueError, match="rolloff_range must lie in"):
        make_config(channel={"rolloff_range": [0.5, 0.2]})

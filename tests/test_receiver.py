"""The likelihood receiver: what it names, and what changes nothing for it."""

from __future__ import annotations

import pytest
import torch

from amc_utils.baselines.receiver import receiver_log_likelihoods
from amc_utils.data import synthesise_frames
from amc_utils.dsp.receiver_settings import RECEIVERS
from amc_utils.modulation.constellations import LINEAR_MODULATIONS
from amc_utils.signals import CHANNEL_PRESETS, FILE_CHANNELS, SNR_LABELS

TABLE_1 = {"channel": CHANNEL_PRESETS["table_1"], "receiver": RECEIVERS["table_1"]}
NAMES = ("BPSK", "QPSK", "16PSK", "16APSK", "16QAM", "64QAM", "OQPSK")


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_frames_without_a_signal_name_no_modulation(value):
    iq = torch.full((2, 1024), value, dtype=torch.complex64)
    found = receiver_log_likelihoods(iq, modulations=("QPSK", "OQPSK"), snr_labels=(0, 10), **TABLE_1)
    assert found.shape == (2, 2, 2)
    assert found.isfinite().all()
    assert torch.equal(found[:, 0], found[:, 1])


@pytest.mark.parametrize("preset", FILE_CHANNELS)
def test_receiver_names_clear_frames_and_guesses_in_noise(preset):
    channel, receiver = CHANNEL_PRESETS[preset], RECEIVERS[preset]
    frames = synthesise_frames(
        modulations=NAMES, snr_labels=(-20, 16), num_frames_per_cell=20, seed=4, channel=channel
    )
    found = receiver_log_likelihoods(
        frames.iq(torch.arange(len(frames))),
        modulations=NAMES,
        snr_labels=(-20, 16),
        channel=channel,
        receiver=receiver,
    )
    right = found.flatten(1).argmax(1) == frames.joint_class
    assert right[frames.snr_index == 1].float().mean() > 0.97
    assert right[frames.snr_index == 0].float().mean() < 0.5


def test_receiver_of_radioml_2018_knows_unipolar_levels_and_all_labels_up_to_30():
    names = ("OOK", "4ASK", "8ASK", "BPSK", "16QAM")
    options = {"modulations": names, "snr_labels": (6, 16, 26, 28, 30)}
    frames = synthesise_frames(**options, num_frames_per_cell=10, seed=4)
    channel = CHANNEL_PRESETS["radioml_2018"]
    iq = frames.iq(torch.arange(len(frames)))
    found = receiver_log_likelihoods(iq, **options, channel=channel).flatten(1).argmax(1)
    assert (found == frames.joint_class).float().mean() > 0.95
    # The scale of a frame says nothing.
    scaled = receiver_log_likelihoods(iq * 3, **options, channel=channel).flatten(1).argmax(1)
    assert (scaled == found).float().mean() > 0.99


@pytest.mark.parametrize(
    ("preset", "label", "least"), [("radioml_2018", 4, 0.93), ("table_1", 8, 0.955)]
)
def test_receiver_names_modulation_and_label_of_all_classes(preset, label, least):
    """Of 360 frames; on radioml_2018 0.975 are right, on table_1 0.961."""
    options = {"modulations": LINEAR_MODULATIONS, "channel": CHANNEL_PRESETS[preset]}
    frames = synthesise_frames(**options, snr_labels=(label,), num_frames_per_cell=20, seed=5)
    found = receiver_log_likelihoods(
        frames.iq(torch.arange(len(frames))),
        snr_labels=SNR_LABELS,
        receiver=RECEIVERS[preset],
        **options,
    )
    named = found.flatten(1).argmax(1)
    right = named == frames.modulation * len(SNR_LABELS) + SNR_LABELS.index(label)
    assert right.float().mean() > least


def test_order_of_the_hypotheses_changes_nothing():
    frames = synthesise_frames(modulations=NAMES, snr_labels=(2,), num_frames_per_cell=3, seed=4)
    iq = frames.iq(torch.arange(len(frames)))
    options = {"snr_labels": (0, 2, 4), "channel": CHANNEL_PRESETS["radioml_2018"]}
    straight = receiver_log_likelihoods(iq, modulations=NAMES, **options)
    permuted = receiver_log_likelihoods(iq, modulations=NAMES[::-1], **options)
    torch.testing.assert_close(permuted, straight.flip(1), rtol=0, atol=1e-2)

"""What tests of the audit share: files of either channel, files that are changed, what reports say."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest
from files import write_radioml

from amc_utils.data import synthesise_frames
from amc_utils.radioml.reader import SHIPPED_WRONG_MODULATIONS
from amc_utils.signals import DIGITAL_MODULATIONS, FILE_CHANNELS, RADIOML_2018_MODULATIONS, Channel

TABLE_1 = FILE_CHANNELS["table_1"]
both_presets = pytest.mark.parametrize("preset", FILE_CHANNELS)


@cache
def _folder():
    return tempfile.TemporaryDirectory(prefix="audited")


@cache
def simulated(
    channel: Channel | str,
    *,
    modulations=DIGITAL_MODULATIONS,
    snr_labels=(-4, 0, 4, 8, 12, 26, 28, 30),
    num_frames_per_cell=4,
    seed=3,
) -> Path:
    """A file of our own generator, the same whenever it is asked for, through a preset or a channel."""
    channel = FILE_CHANNELS[channel] if isinstance(channel, str) else channel
    frames = synthesise_frames(
        modulations=modulations,
        snr_labels=snr_labels,
        num_frames_per_cell=num_frames_per_cell,
        seed=seed,
        channel=channel,
    )
    path = Path(_folder().name) / f"{len(list(Path(_folder().name).iterdir()))}.h5"
    write_radioml(path, frames)
    return path


def of_all_classes(channel: Channel | str) -> Path:
    """A file of all 24 classes at the highest labels."""
    return simulated(
        channel,
        modulations=RADIOML_2018_MODULATIONS,
        snr_labels=(22, 24, 30),
        num_frames_per_cell=4,
        seed=4,
    )


def twin(**settings) -> Channel:
    """The channel radioml_2018 but for some settings; a single roll-off may be given as rolloff."""
    if "rolloff" in settings:
        settings["rolloff_range"] = (settings.pop("rolloff"),) * 2
    return replace(FILE_CHANNELS["radioml_2018"], **settings)


def altered(source, target, change):
    """Copy of a file after `change` of its arrays X, Y, Z."""
    with h5py.File(source) as file:
        parts = {name: file[name][:] for name in "XYZ"}
    change(parts)
    with h5py.File(target, "w") as file:
        for name, value in parts.items():
            file[name] = value
    return target


def verdicts(report):
    return {verdict["check"]: verdict for verdict in report["verdicts"]}


def failures(report):
    return {verdict["check"] for verdict in report["verdicts"] if verdict["result"] == "failed"}


def shipped(parts):
    number = [SHIPPED_WRONG_MODULATIONS.index(name) for name in RADIOML_2018_MODULATIONS]
    parts["Y"] = np.eye(24, dtype=np.int64)[np.array(number)[parts["Y"].argmax(1)]]

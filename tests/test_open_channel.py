"""What was to be reached on the open channel: numbers from predictions that are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from amc_utils.signals import DIGITAL_MODULATIONS
from amc_utils.studies import open_channel

NUM_FRAMES = 1000


def run(share, *, modulation="QPSK", label=20):
    """A run that names so large a share of its frames rightly, and always the SNR."""
    said = np.where(np.arange(NUM_FRAMES) < share * NUM_FRAMES, modulation, "BPSK")
    columns = {"modulation": modulation, "predicted_modulation": said}
    columns |= {"snr_label": label, "predicted_snr_label": label}
    return SimpleNamespace(predictions=pd.DataFrame(columns, index=range(NUM_FRAMES)))


def runs(own=0.9, bound=1.0, wide=0.8, narrow=0.81, radio=0.9):
    shares = {"open": (own, 0.5, bound), "table_1": (wide, narrow, 1.0), "GNU Radio": (radio, 0.5, 1.0)}
    return {
        name: [run(share) for share in shares.get(name, (0.5, 0.5, 1.0))]
        for name in open_channel.TESTED_ON
    }


def test_targets_are_met_where_they_are():
    table = open_channel.targets(runs(own=0.95, bound=0.98))
    assert table["value"][0] == pytest.approx(0.95 / 0.98)
    assert table["low"][0] < table["value"][0] < table["high"][0]
    assert table["value"][1] == pytest.approx(1.0)
    assert table["value"][2] == pytest.approx(0.9)
    assert list(table["is_met"][:3]) == [True, True, True]
    missed = open_channel.targets(runs(own=0.8, wide=0.7, radio=0.5))
    assert list(missed["is_met"][:3]) == [False, False, False]


def test_only_clear_frames_of_linear_classes_count():
    frames = pd.concat([
        run(1.0).predictions, run(0.0, label=8).predictions, run(0.0, modulation="FM").predictions
    ])  # fmt: skip
    counted = open_channel.clear(open_channel.digital_modulation(frames))
    assert len(counted) == NUM_FRAMES
    assert set(counted["modulation"]) <= set(DIGITAL_MODULATIONS)
    assert counted["snr_label"].min() >= open_channel.CLEAR_LABEL


def test_shipped_record_has_every_size_of_every_impairment():
    record = open_channel.shipped_record()
    table = open_channel.impairment_table(record)
    assert table.notna().to_numpy().sum() == len(record["impairments"])
    none = table.iloc[0, 0]
    assert table.index[0].startswith("none")
    assert (table.max(axis=1) <= none + 0.03).all()
    delay = table[table.index.str.startswith("delay")].iloc[0]
    assert (delay.diff().dropna() < 0).all(), "longer multipath costs more"

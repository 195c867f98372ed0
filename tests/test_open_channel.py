"""What was to be reached on the open channel: numbers from predictions that are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from amc_utils.inference.export import IMPAIRMENTS
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


def record(known, *foreign):
    rows = [("test frames", "all", known), *(("chirps", 20, share) for share in foreign)]
    rows += [("noise alone", 20, 0.0), ("chirps", 0, 0.0)]
    columns = ("signal", "snr_db", "flagged")
    return {"ood_signals": [dict(zip(columns, row, strict=True)) | {"num_frames": 500} for row in rows]}


def test_targets_are_met_where_they_are():
    table = open_channel.targets(runs(own=0.95, bound=0.98), record(0.01, 0.99, 0.92))
    assert table["value"][0] == pytest.approx(0.95 / 0.98)
    assert table["low"][0] < table["value"][0] < table["high"][0]
    assert table["value"][1] == pytest.approx(1.0)
    assert table["value"][2] == pytest.approx(0.9)
    assert list(table["value"][3:]) == pytest.approx([0.01, 0.92]), "the worst at 20 dB, noise apart"
    assert list(table["is_met"]) == 5 * [True]
    missed = open_channel.targets(runs(own=0.8, wide=0.7, radio=0.5), record(0.02, 0.99, 0.5))
    assert list(missed["is_met"]) == 5 * [False]


def test_only_clear_frames_of_linear_classes_count():
    frames = pd.concat([
        run(1.0).predictions, run(0.0, label=8).predictions, run(0.0, modulation="FM").predictions
    ])  # fmt: skip
    counted = open_channel.clear(open_channel.digital_modulation(frames))
    assert len(counted) == NUM_FRAMES
    assert set(counted["modulation"]) <= set(DIGITAL_MODULATIONS)
    assert counted["snr_label"].min() >= open_channel.CLEAR_LABEL


def test_shipped_record_has_every_size_of_every_impairment():
    shipped = open_channel.shipped_record()
    wanted = [(name, size) for name, (sizes, _) in IMPAIRMENTS.items() for size in sizes]
    found = [(row["impairment"], row["size"]) for row in shipped["impairments"]]
    assert found == [("none", 0), *wanted]
    table, sizes = open_channel.impairment_tables(shipped)
    assert (sizes != "").equals(table.notna())
    none = table.iloc[0, 0]
    assert table.index[0].startswith("none")
    assert (table.max(axis=1) <= none + 0.03).all()
    delay = table[table.index.str.startswith("delay")].iloc[0]
    assert (delay.diff().dropna() < 0).all(), "longer multipath costs more"

"""A network in use: the exported one is the trained one, calibrated, and knows foreign signals."""

from __future__ import annotations

import json
import subprocess
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from amc_utils import classify
from amc_utils.checkpoints import read_checkpoint
from amc_utils.classifier import SHIPPED, load_classifier
from amc_utils.experiment import untrained_network
from amc_utils.export import export
from amc_utils.foreign import foreign_frames, foreign_kinds
from amc_utils.frames import synthesise_frames
from amc_utils.labels import DIGITAL_MODULATIONS, RADIOML_2018_MODULATIONS
from amc_utils.novelty import Novelty
from amc_utils.train import train

RECORD = json.loads(SHIPPED.with_name("model.json").read_text(encoding="utf8"))
SMALL = {"network": "test_resnet", "channels": ["stack"], "num_frames_per_cell": 60}


@pytest.fixture(scope="module")
def shipped():
    return load_classifier()


@pytest.fixture(scope="module")
def new_frames(shipped):
    """Frames of the shipped network's classes that nothing has seen."""
    config = shipped.config
    return synthesise_frames(
        modulations=config.modulation_names,
        snr_grid_db=config.snr_grid_db,
        num_frames_per_cell=6,
        seed=99,
    )


@pytest.fixture(scope="module")
def opinion(shipped, new_frames):
    return shipped(new_frames.iq(torch.arange(len(new_frames))))


def test_shipped_network_is_the_one_of_its_record(shipped):
    run = json.loads(SHIPPED.with_name("run.json").read_text(encoding="utf8"))
    assert shipped.run == RECORD["run"] == run["run"]
    assert SHIPPED.stat().st_size == RECORD["bytes"] < 4e6
    before, after = run["test"]["joint_accuracy"]["value"], RECORD["test"]["joint_accuracy"]["value"]
    assert after == pytest.approx(before, abs=0.003), "half precision costs next to nothing"


def test_shipped_network_is_as_good_on_new_frames(shipped, new_frames, opinion):
    modulation = opinion.modulation.argmax(1) == new_frames.modulation
    right = (modulation & (opinion.level == new_frames.snr_index)).float()
    assert float(right.mean()) == pytest.approx(RECORD["test"]["joint_accuracy"]["value"], abs=0.03)
    sure = opinion.modulation.amax(1) * opinion.snr.gather(1, opinion.level[:, None])[:, 0]
    assert float(sure.mean()) == pytest.approx(float(right.mean()), abs=0.03)


def test_one_frame_in_a_hundred_is_called_foreign(opinion):
    called = float((opinion.usual < 0.01).float().mean())
    assert called == pytest.approx(0.01, abs=0.008)
    assert float(opinion.usual.mean()) == pytest.approx(0.5, abs=0.03)


def test_frames_of_gnuradio_are_named_and_its_analogue_ones_called_foreign(shipped, gnuradio_slice):
    with h5py.File(gnuradio_slice) as file:
        pairs, label, snr_db = (file[key][:] for key in "XYZ")
    names = np.array(RADIOML_2018_MODULATIONS)[label.argmax(1)]
    iq = torch.view_as_complex(torch.from_numpy(pairs))
    table = shipped.table(shipped(iq))
    digital = np.isin(names, DIGITAL_MODULATIONS) & (snr_db.ravel() >= 26)
    assert (table["modulation"] == names)[digital].mean() > 0.9
    analogue = np.char.startswith(names.astype(str), "AM") & (snr_db.ravel() >= 26)
    assert (table["usual"] < 0.01)[analogue].mean() > 0.7


def test_recording_of_gnuradio_is_named(shipped):
    """16QAM, ten samples a symbol, 16 dB in the band of eight."""
    table = classify.classify(classify.EXAMPLE, shipped, symbol_rate=100e3)
    assert (table["modulation"] == "16QAM").mean() > 0.9
    assert table["snr_db"].median() == 16
    assert "like the training data" in classify.summary(table)


def test_the_same_recording_at_its_own_rate_is_foreign(shipped):
    table = classify.classify(classify.EXAMPLE, shipped)
    assert "UNLIKE THE TRAINING DATA" in classify.summary(table)


@pytest.mark.parametrize(
    ("unusual", "count", "verdict"),
    [
        (0, 1, "  like"),
        (1, 1, "  too few"),
        (3, 100, "  like"),
        (6, 100, "  UNLIKE"),
        (2, 20, "  too few"),
    ],
)
def test_verdict_on_a_recording_is_what_chance_allows(unusual, count, verdict):
    columns = {"modulation": "QPSK", "modulation_confidence": 1.0, "snr_db": 10, "snr_confidence": 1.0}
    usual = np.where(np.arange(count) < unusual, 0.001, 0.5)
    table = pd.DataFrame(columns | {"usual": usual})
    assert classify.summary(table).splitlines()[-1].startswith(verdict)


def test_numbers_of_the_record_can_be_had_again(shipped):
    """One row of the record, from other draws of the same signal."""
    row = next(r for r in RECORD["foreign"] if (r["signal"], r["snr_db"]) == ("FM", 20))
    iq = foreign_frames("FM", 20, 200, generator=torch.Generator().manual_seed(5))
    called = float((shipped(iq).usual < 0.01).float().mean())
    assert called == pytest.approx(row["called_foreign"], abs=0.12)


def test_classes_that_a_network_knows_are_not_foreign():
    assert "FM" in foreign_kinds(DIGITAL_MODULATIONS)
    assert "FM" not in foreign_kinds(RADIOML_2018_MODULATIONS)


def test_distance_is_that_of_mahalanobis():
    """Against the definition, with the sample covariance of many frames of two classes."""
    generator = torch.Generator().manual_seed(1)
    cell = torch.arange(2).repeat_interleave(20_000)
    mixing = torch.tensor([[2.0, 0.0], [1.0, 0.5]])
    centre = torch.tensor([[0.0, 0.0], [8.0, -3.0]])
    features = torch.randn(40_000, 2, generator=generator) @ mixing.T + centre[cell]
    novelty = Novelty.fit(features, cell, unseen=features, level=torch.zeros_like(cell))
    points = torch.tensor([[1.0, 1.0], [7.0, -3.0], [30.0, 30.0]])
    precision = torch.linalg.inv(mixing @ mixing.T)
    apart = points[:, None] - centre
    expected = torch.einsum("bci,ij,bcj->bc", apart, precision, apart).amin(1).sqrt()
    torch.testing.assert_close(novelty.distance(points), expected, rtol=0.03, atol=0.03)
    usual = novelty.usual(points, torch.zeros(3, dtype=torch.int64))
    # Of two-dimensional normal frames exp(-d^2 / 2) lie as far away.
    torch.testing.assert_close(usual, torch.exp(-expected.square() / 2), rtol=0.05, atol=0.01)


def test_exported_network_decides_as_the_trained_one(make_config, tmp_path, small_frames):
    config = make_config(**SMALL, run_name="mine")
    train(config, "test")
    path = export("mine", str(tmp_path))
    classifier = load_classifier(path)
    network = untrained_network(config)
    network.load_state_dict(read_checkpoint(tmp_path / "outputs/checkpoints/mine/best.ckpt")["network"])
    whole = type(classifier)(network.eval(), config)
    iq = small_frames.iq(torch.arange(60))
    for exported, trained in zip(classifier.look(iq)[1], whole.look(iq)[1], strict=True):
        torch.testing.assert_close(exported, trained, rtol=0.02, atol=0.02)
    record = json.loads((tmp_path / "results" / "mine" / "model.json").read_text(encoding="utf8"))
    assert {row["signal"] for row in record["foreign"]} > {"FM", "noise alone", "test frames"}


def test_without_run_or_checkpoint_nothing_is_exported(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run 'none'"):
        export("none", str(tmp_path))
    (tmp_path / "results" / "bare").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="checkpoint not found"):
        export("bare", str(tmp_path))
    assert not list((tmp_path / "results" / "bare").iterdir())


@pytest.mark.parametrize("content", [b"", b"x" * 100, SHIPPED.read_bytes()[:-1000]])
def test_damaged_model_is_refused(content, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="must be a model that python -m"):
        load_classifier(path)


def test_command_line_names_a_recording_and_writes_a_row_a_frame(tmp_path, capsys):
    file = tmp_path / "frames.csv"
    classify.main([str(classify.EXAMPLE), "--symbol-rate", "100e3", "--csv", str(file)])
    assert "16QAM" in capsys.readouterr().out
    lines = file.read_text(encoding="utf8").splitlines()
    assert lines[0] == "start,modulation,modulation_confidence,snr_db,snr_confidence,usual"
    assert len(lines) == 32


def test_command_line_says_in_one_sentence_what_is_wrong(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "amc_utils.classify", str(tmp_path / "none.npy")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("FileNotFoundError: recording not found")

"""A network in use: the exported one is the trained one, calibrated, and flags OOD signals."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from fractions import Fraction

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from files import EXCERPTS, write_radioml
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.signal import upfirdn

from amc_utils.__main__ import main
from amc_utils.data import synthesise_frames
from amc_utils.inference import classify
from amc_utils.inference import export as exporting
from amc_utils.inference.classifier import SHIPPED, SHIPPED_FOR_RADIOML, load_classifier
from amc_utils.inference.export import export
from amc_utils.inference.formats import open_recording
from amc_utils.inference.ood import MahalanobisDetector, ood_frames, ood_kinds
from amc_utils.models import untrained_network
from amc_utils.modulation.constellations import symbol_map
from amc_utils.results import load_run
from amc_utils.runtime.checkpoints import read_checkpoint
from amc_utils.runtime.paths import REPOSITORY
from amc_utils.signals import CHANNEL_PRESETS, DIGITAL_MODULATIONS, RADIOML_2018_MODULATIONS
from amc_utils.training import train

RECORD, RADIOML_RECORD = (
    json.loads(path.with_name("model.json").read_text(encoding="utf8"))
    for path in (SHIPPED, SHIPPED_FOR_RADIOML)
)
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
        snr_labels=config.snr_labels,
        num_frames_per_cell=6,
        seed=99,
        channel=config.synthetic_channel,
    )


@pytest.fixture(scope="module")
def prediction(shipped, new_frames):
    return shipped(new_frames.iq(torch.arange(len(new_frames))))


@pytest.mark.parametrize(("path", "record"), [(SHIPPED, RECORD), (SHIPPED_FOR_RADIOML, RADIOML_RECORD)])
def test_shipped_network_is_the_one_of_its_record(path, record):
    run = load_run(record["run"]).facts
    assert load_classifier(path).run == record["run"] == run["run"]
    assert path.stat().st_size == record["bytes"] < 4e6
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record["sha256"]
    before, after = run["test"]["joint_accuracy"]["value"], record["test"]["joint_accuracy"]["value"]
    assert after == pytest.approx(before, abs=0.003), "half precision costs next to nothing"


def test_shipped_network_is_as_good_on_new_frames(shipped, new_frames, prediction):
    modulation = prediction.modulation.argmax(1) == new_frames.modulation
    right = (modulation & (prediction.level == new_frames.snr_index)).float()
    assert float(right.mean()) == pytest.approx(RECORD["test"]["joint_accuracy"]["value"], abs=0.03)
    sure = prediction.modulation.amax(1) * prediction.level_probability
    assert float(sure.mean()) == pytest.approx(float(right.mean()), abs=0.03)


def test_one_frame_in_a_hundred_has_a_p_value_below_a_hundredth(prediction):
    called = float((prediction.p_value < 0.01).float().mean())
    assert called == pytest.approx(0.01, abs=0.005)
    # Twice the smaller of two independent p-values, at most 1, is 7 / 12 on average.
    assert float(prediction.p_value.mean()) == pytest.approx(7 / 12, abs=0.03)


def test_record_of_ood_signals_is_measured_as_the_classifier_decides(shipped, new_frames, prediction):
    iq = new_frames.iq(torch.arange(len(new_frames)))
    row = exporting._flagged(shipped, "these", 20, iq)
    assert row["flagged"] == pytest.approx(float((prediction.p_value < 0.01).float().mean()))


def test_frames_of_gnuradio_are_named(shipped, gnuradio_slice):
    """All classes but FM, of which GNU Radio's has another deviation."""
    with h5py.File(gnuradio_slice) as file:
        pairs, label, snr_db = (file[key][:] for key in "XYZ")
    names = np.array(RADIOML_2018_MODULATIONS)[label.argmax(1)]
    iq = torch.view_as_complex(torch.from_numpy(pairs))
    table = shipped.table(shipped(iq))
    clear = (names != "FM") & (snr_db.ravel() >= 26)
    assert (table["modulation"] == names)[clear].mean() > 0.9
    assert (table["p_value"] < 0.01)[clear].mean() < 0.05


def test_recording_of_gnuradio_is_named(shipped):
    """16QAM, ten samples a symbol, 16 dB in the band of eight."""
    table = classify.classify(classify.EXAMPLE, shipped, symbol_rate=100e3)
    assert (table["modulation"] == "16QAM").mean() > 0.9
    assert table["snr_db"].median() == 16
    assert "like the training data" in classify.summary(table)


def test_the_same_recording_at_its_own_rate_is_not_called_like_the_training_data(shipped):
    table = classify.classify(classify.EXAMPLE, shipped)
    assert (table["modulation"] == "16QAM").mean() < 0.5
    assert not classify.summary(table).splitlines()[-1].startswith("  like")


@pytest.mark.parametrize(
    ("flagged", "count", "verdict"),
    [
        (0, 1, "  like"),
        (1, 1, "  too few"),
        (3, 100, "  like"),
        (6, 100, "  too few"),
        (2, 20, "  too few"),
    ],
)
def test_verdict_on_a_recording_is_what_chance_allows(flagged, count, verdict):
    columns = {"modulation": "QPSK", "modulation_confidence": 1.0, "snr_confidence": 1.0}
    columns |= {"snr_label": 10, "snr_db": 10}
    p_value = np.where(np.arange(count) < flagged, 0.001, 0.5)
    table = pd.DataFrame(columns | {"p_value": p_value})
    assert classify.summary(table).splitlines()[-1].startswith(verdict)


def test_numbers_of_the_record_can_be_had_again(shipped):
    """One row of the record, from other draws of the same signal."""
    kind = "OFDM of 64 carriers"
    row = next(r for r in RECORD["ood_signals"] if (r["signal"], r["snr_db"]) == (kind, 20))
    options = {"generator": torch.Generator().manual_seed(5), "channel": CHANNEL_PRESETS["open"]}
    iq = ood_frames(kind, 20, 200, **options)
    called = float((shipped(iq).p_value < 0.01).float().mean())
    assert called == pytest.approx(row["flagged"], abs=0.12)


@pytest.mark.parametrize(
    ("name", "snr_db"),
    [("4ASK", -10), ("8ASK", 30), ("64APSK", 8), ("128QAM", 20), ("QPSK", 0), ("OQPSK", 30)],
)
def test_recording_of_a_known_class_is_not_flagged(shipped, name, snr_db):
    frames = synthesise_frames(
        modulations=(name,),
        snr_labels=(snr_db,),
        num_frames_per_cell=256,
        seed=11,
        channel=CHANNEL_PRESETS["open"],
    )
    table = shipped.table(shipped(frames.iq(torch.arange(256))))
    assert "UNLIKE" not in classify.summary(table)


@pytest.mark.parametrize("given", [2.5, 4.0, 5.0, 6.4, 10.0, 20.0])
@pytest.mark.parametrize(("name", "snr_db"), [("QPSK", 10), ("16QAM", 16)])
def test_snr_and_name_do_not_depend_on_the_recordings_rate(shipped, tmp_path, name, snr_db, given):
    """Symbols shaped by scipy at the recording's own rate, in white noise of that band."""
    rng = np.random.default_rng(8)
    up, down = Fraction(given).limit_denominator(10).as_integer_ratio()
    fine = 2 * up  # samples a symbol before decimation by 2 * down
    points = symbol_map(name)
    symbols = rng.choice(points, 3000)
    pulse = root_raised_cosine(np.arange(-16 * fine, 16 * fine + 1) / fine, 0.25)
    shaped = upfirdn(pulse, symbols, up=fine, down=2 * down)[: int(3000 * given)]
    shaped /= np.sqrt(np.mean(np.abs(shaped) ** 2))
    # Over the band of eight samples a symbol lies 8 / given of the noise recorded.
    density = 10 ** (-snr_db / 10) * given / 8
    noise = rng.normal(size=(len(shaped), 2)).view(complex)[:, 0] * np.sqrt(density / 2)
    np.save(tmp_path / "r.npy", (shaped + noise).astype(np.complex64))
    table = classify.classify(
        tmp_path / "r.npy", shipped, sample_rate=given * 1e5, symbol_rate=1e5, num_frames=20
    )
    assert abs(table["snr_db"].median() - snr_db) <= 2
    assert (table["modulation"] == name).mean() > 0.6
    assert "UNLIKE" not in classify.summary(table)


@pytest.fixture(scope="module")
def for_radioml():
    return load_classifier(SHIPPED_FOR_RADIOML)


@pytest.fixture(scope="module")
def radioml_frames(for_radioml):
    """New frames of the channel of the real file, at labels where little is lost to noise."""
    return synthesise_frames(
        modulations=for_radioml.config.modulation_names,
        snr_labels=(-20, 6, 30),
        num_frames_per_cell=6,
        seed=98,
    )


@pytest.mark.skipif(not EXCERPTS.is_dir(), reason="genuine excerpts of RadioML 2018.01A are not here")
@pytest.mark.parametrize(
    ("row", "names", "label"), [(1, {"16PSK"}, 26), (2, {"4ASK", "8ASK"}, 0), (3, {"BPSK"}, 6)]
)
def test_genuine_frames_are_named_with_their_labels(for_radioml, row, names, label):
    """Class and label of these were inferred from power, lines and noise floor, not by a network."""
    iq = torch.from_numpy(np.load(EXCERPTS / "four_whole_frames.npz")["iq"][[row]])
    said = for_radioml.table(for_radioml(iq)).iloc[0]
    assert said["modulation"] in names
    assert (said["snr_label"], said["snr_db"]) == (label, 2 * label)
    assert said["snr_confidence"] > 0.9
    assert said["modulation_confidence"] > 0.9


def test_frames_of_a_file_are_named_with_their_labels(for_radioml, radioml_frames, tmp_path):
    """At the scale of the file; one of unit power is another."""
    write_radioml(tmp_path / "twin.h5", radioml_frames)
    table = classify.classify(tmp_path / "twin.h5", for_radioml, num_frames=10**6)
    assert len(table) == len(radioml_frames)
    high = table["true_snr_label"] >= 6
    right = (table["modulation"] == table["true_modulation"]) & (
        table["snr_label"] == table["true_snr_label"]
    )
    assert right[high].mean() > 0.97
    assert right[~high].mean() < 0.2
    text = classify.summary(table)
    assert f"labels of 0 and more: {high.sum()} frames; as labelled: modulation" in text
    assert (table["snr_db"] == 2 * table["snr_label"]).all()


def test_array_of_frames_keeps_its_scale_and_says_what_the_label_means(
    for_radioml, radioml_frames, tmp_path, capsys
):
    iq = radioml_frames.iq(radioml_frames.select("8ASK", 6))
    np.save(tmp_path / "frames.npy", iq.numpy())
    main(["classify", str(tmp_path / "frames.npy"), "--model", "radioml_2018-likelihoods"])
    text = capsys.readouterr().out
    assert "8ASK       100% of frames" in text
    assert "SNR label 6, that is SNR per sample 12 dB" in text
    np.save(tmp_path / "loud.npy", 100 * iq.numpy())
    with pytest.raises(SystemExit, match="must have the scale of RadioML"):
        main(["classify", str(tmp_path / "loud.npy"), "--model", "radioml_2018-likelihoods"])


@pytest.mark.parametrize(("name", "power"), [("QPSK", 1.0), ("8ASK", 3.8)])
def test_recording_is_brought_to_the_scale_of_a_record(
    for_radioml, radioml_frames, tmp_path, name, power
):
    """A recording's own gain says nothing; the carrier of ASK stays beside the standard deviation."""
    tables = []
    for gain in (1.0, 250.0):
        samples = gain * radioml_frames.iq(radioml_frames.select(name, 6)).numpy().reshape(-1)
        samples.astype(np.complex64).tofile(tmp_path / "r.cf32")
        cut = open_recording(tmp_path / "r.cf32").frames()
        found = cut.at_record_scale().abs().square().mean()
        assert float(found) == pytest.approx(power, rel=0.25)
        tables.append(classify.classify(tmp_path / "r.cf32", for_radioml))
    pd.testing.assert_frame_equal(*tables, check_exact=False, atol=0.01)
    assert (tables[0]["modulation"] == name).all()


def test_of_a_file_no_frames_cannot_be_asked_for(for_radioml, gnuradio_slice):
    with pytest.raises(ValueError, match="num_frames must be at least 1, got 0"):
        classify.classify(gnuradio_slice, for_radioml, num_frames=0)


def test_file_without_known_classes_is_refused(for_radioml, tmp_path):
    frames = synthesise_frames(modulations=("FM",), snr_labels=(10,), num_frames_per_cell=4, seed=1)
    write_radioml(tmp_path / "fm.h5", frames)
    with pytest.raises(ValueError, match=r"must hold frames of 4ASK, .* it has none"):
        classify.classify(tmp_path / "fm.h5", for_radioml)


def test_weights_stay_when_a_model_is_calibrated_anew(make_config, tmp_path):
    train(make_config(**SMALL, run_name="mine"), "test")
    first = load_classifier(export("mine", str(tmp_path)))
    (tmp_path / "outputs/checkpoints/mine/best.ckpt").unlink()
    again = load_classifier(export("mine", str(tmp_path), recalibrate=True))
    assert first.temperatures == pytest.approx(again.temperatures, rel=1e-3)
    for name, weight in first.network.state_dict().items():
        assert torch.equal(weight, again.network.state_dict()[name])


def root_raised_cosine(t, rolloff):
    """Impulse response at times in symbols, as textbooks have it."""
    t = np.where(np.abs(np.abs(4 * rolloff * t) - 1) < 1e-9, t + 1e-6, t)
    t = np.where(t == 0, 1e-9, t)
    top = np.sin(np.pi * t * (1 - rolloff)) + 4 * rolloff * t * np.cos(np.pi * t * (1 + rolloff))
    return top / (np.pi * t * (1 - (4 * rolloff * t) ** 2))


def test_classes_that_a_network_knows_are_not_ood():
    paper, wide = CHANNEL_PRESETS["table_1"], CHANNEL_PRESETS["open"]
    assert {"FM", "roll-off 0.8"} <= set(ood_kinds(DIGITAL_MODULATIONS, paper))
    assert not {"FM", "OOK"} & set(ood_kinds(RADIOML_2018_MODULATIONS, paper))
    assert set(ood_kinds(DIGITAL_MODULATIONS, paper)) - set(ood_kinds(DIGITAL_MODULATIONS, wide)) == {
        "carrier offsets spread by 1e-3", "multipath decaying over 2 samples", "roll-off 0.8",
    }  # fmt: skip


def test_impairments_are_measured_one_at_a_time(shipped, monkeypatch):
    """As many frames as asked for, of a channel that has nothing else."""
    monkeypatch.setattr(exporting, "_FRAMES_AN_IMPAIRMENT", 1)
    channels = []
    made = exporting.synthesise_frames

    def spy(**options):
        channels.append(options["channel"])
        return made(**options)

    monkeypatch.setattr(exporting, "synthesise_frames", spy)
    chosen = {name: exporting.IMPAIRMENTS[name] for name in ("delay spread (samples)", "roll-off")}
    monkeypatch.setattr(exporting, "IMPAIRMENTS", chosen)
    rows = exporting._impairments(shipped)
    assert [row["impairment"] for row in rows] == ["none"] + 4 * ["delay spread (samples)"] + 4 * [
        "roll-off"
    ]
    assert {row["num_frames"] for row in rows} == {24 * 11}
    assert [channel.delay_spread for channel in channels] == [0, 0.5, 1, 2, 4, 0, 0, 0, 0]
    assert {channel.cfo_max for channel in channels} == {0}
    assert rows[0]["modulation"] > rows[4]["modulation"]


def test_distance_is_that_of_mahalanobis():
    """Against the definition, with the sample covariance of many frames of two classes."""
    generator = torch.Generator().manual_seed(1)
    cell = torch.arange(2).repeat_interleave(20_000)
    mixing = torch.tensor([[2.0, 0.0], [1.0, 0.5]])
    centre = torch.tensor([[0.0, 0.0], [8.0, -3.0]])
    features = torch.randn(40_000, 2, generator=generator) @ mixing.T + centre[cell]
    one_class = {"predicted": torch.zeros_like(cell), "num_classes": 2, "num_snrs": 1}
    detector = MahalanobisDetector.fit(features, cell, held_out=features, **one_class)
    points = torch.tensor([[1.0, 1.0], [7.0, -3.0], [30.0, 30.0]])
    precision = torch.linalg.inv(mixing @ mixing.T)
    apart = points[:, None] - centre
    expected = torch.einsum("bci,ij,bcj->bc", apart, precision, apart).amin(1).sqrt()
    torch.testing.assert_close(detector.distances(points)[:, 0], expected, rtol=0.03, atol=0.03)
    p_value = detector.p_value(points, torch.zeros(3, dtype=torch.int64))
    # Of two-dimensional normal frames exp(-d^2 / 2) lie as far away.
    torch.testing.assert_close(p_value, torch.exp(-expected.square() / 2), rtol=0.05, atol=0.01)


@pytest.mark.parametrize("num_statistics", [0, 1])
def test_as_many_frames_are_flagged_as_should_be(num_statistics):
    """With as few held-out frames of a class as the shipped networks have."""
    generator = torch.Generator().manual_seed(4)
    one_class = {"num_classes": 1, "num_snrs": 1, "num_statistics": num_statistics}
    flagged = []
    for _ in range(50):
        held_out, features, fresh = (
            torch.randn(n, 3 + num_statistics, generator=generator) for n in (200, 2000, 2000)
        )
        cell, predicted = (torch.zeros(n, dtype=torch.int64) for n in (2000, 200))
        detector = MahalanobisDetector.fit(
            features, cell, held_out=held_out, predicted=predicted, **one_class
        )
        flagged.append(float((detector.p_value(fresh, cell) < 0.01).float().mean()))
    assert np.mean(flagged) == pytest.approx(0.01, abs=0.002)


def test_a_further_statistic_is_a_test_of_its_own():
    """Frames whose features are usual and whose statistic is not are flagged."""
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(20_000, 4, generator=generator)
    cell = torch.zeros(20_000, dtype=torch.int64)
    options = {"predicted": cell, "num_classes": 1, "num_snrs": 1, "num_statistics": 1}
    detector = MahalanobisDetector.fit(features, cell, held_out=features, **options)
    fresh = torch.randn(20_000, 4, generator=generator)
    p_value = detector.p_value(fresh, cell)
    for level in (0.01, 0.05):
        share = float((p_value < level).float().mean())
        assert share == pytest.approx(level, abs=level / 5)
    odd = torch.zeros(1, 4)
    odd[0, 3] = 6
    assert detector.p_value(odd, cell[:1]) < 0.01
    assert detector.p_value(-odd, cell[:1]) > 0.01, "a small statistic is usual"


def test_class_without_frames_of_its_own_takes_those_of_its_level():
    features = torch.randn(800, 3, generator=torch.Generator().manual_seed(2))
    cell = torch.arange(4).repeat_interleave(200)
    # Class 3 is never predicted; it shares its level with class 1, whose frames lie far away.
    predicted = cell.clamp(max=2)
    held_out = features * torch.where(predicted == 1, 5.0, 1.0)[:, None]
    detector = MahalanobisDetector.fit(
        features, cell, held_out=held_out, predicted=predicted, num_classes=4, num_snrs=2
    )
    assert torch.equal(detector.quantiles[3], detector.quantiles[1])
    # The last is that of a new frame, beyond all.
    assert (detector.quantiles[3] > detector.quantiles[0])[..., :-1].all()


@pytest.mark.parametrize("missing", ["run", "config", "temperatures"])
def test_model_without_its_facts_is_refused_in_a_sentence(missing, tmp_path):
    with safe_open(SHIPPED, "pt") as file:
        facts = json.loads(file.metadata()["amc_utils"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del facts[missing]
    save_file(tensors, tmp_path / "m.safetensors", {"amc_utils": json.dumps(facts)})
    with pytest.raises(ValueError, match="must be a model that amc") as caught:
        load_classifier(tmp_path / "m.safetensors")
    assert "\n" not in str(caught.value)


def test_exported_network_decides_as_the_trained_one(make_config, tmp_path, small_frames, monkeypatch):
    monkeypatch.setattr(exporting, "_FRAMES_A_KIND", 20)
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
    record = json.loads((tmp_path / "outputs/models/mine/model.json").read_text(encoding="utf8"))
    assert {row["signal"] for row in record["ood_signals"]} > {"FM", "noise alone", "test frames"}
    assert {row["impairment"] for row in record["impairments"]} == {"none", *exporting.IMPAIRMENTS}


def test_without_run_or_checkpoint_nothing_is_exported(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run named 'none'"):
        export("none", str(tmp_path))
    shutil.copytree(REPOSITORY / "results" / "main", tmp_path / "results" / "main")
    with pytest.raises(FileNotFoundError, match="checkpoint not found"):
        export("open-24", str(tmp_path))
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("content", [b"", b"x" * 100, SHIPPED.read_bytes()[:-1000]])
def test_damaged_model_is_refused(content, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="must be a model that amc"):
        load_classifier(path)


def test_command_line_names_a_recording_and_writes_a_row_a_frame(tmp_path, capsys):
    file = tmp_path / "frames.csv"
    main(["classify", str(classify.EXAMPLE), "--csv", str(file)])
    assert "16QAM, probability 1.00" in capsys.readouterr().out
    table = pd.read_csv(file)
    columns = "start modulation modulation_confidence snr_label snr_db snr_confidence p_value"
    assert list(table) == [*columns.split(), "recording", "signal"]
    assert len(table) == 31


def test_command_line_says_in_one_sentence_what_is_wrong(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "amc_utils", "classify", str(tmp_path / "none.npy")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("FileNotFoundError: recording not found")

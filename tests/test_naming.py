"""Recordings are named with nothing told: trials, genuine ones, and those that had failed."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from files import RECORDINGS
from test_survey import pulses

from amc_utils.__main__ import main
from amc_utils.inference import classify, export
from amc_utils.inference.classifier import load_classifier
from amc_utils.inference.formats import open_recording
from amc_utils.inference.naming import classify_recording, summary
from amc_utils.inference.ood import ood_frames
from amc_utils.inference.page import recording_page
from amc_utils.inference.recordings import Recording
from amc_utils.inference.trials import trial
from amc_utils.signals import CHANNEL_PRESETS, SAMPLES_PER_SYMBOL, generate_frames

# File, modulation, symbol rate and carrier in hertz, as its source says.
GENUINE = [
    ("bpsk_lilacsat1.sigmf-meta", "BPSK", 9600, 0),
    ("satrec_lilacsat1.wav", "BPSK", 9600, 12_360),
    ("qpsk_meteor_lrpt.sigmf-meta", "QPSK", 72_000, 0),
    ("jradio_meteor_small.wav", "QPSK", 72_000, -577),
]


@pytest.fixture(scope="module")
def shipped():
    return load_classifier()


@pytest.fixture(scope="module")
def example(shipped):
    (named,) = classify_recording(classify.EXAMPLE, shipped)
    return named


@pytest.fixture(scope="module")
def samples():
    """Of the recording by GNU Radio: 16QAM, ten samples a symbol, 16 dB."""
    recording = open_recording(classify.EXAMPLE)
    return recording.read(0, recording.length)


def test_recording_of_gnuradio_is_named_with_nothing_told(example):
    assert example.modulation == "16QAM"
    assert example.posterior.iloc[0] > 0.9
    assert example.symbol_rate == pytest.approx(1e5, rel=1e-4)
    assert abs(example.carrier_hz) < 1e3
    assert example.es_n0_db == pytest.approx(16 + 9, abs=2)
    assert not example.is_foreign
    assert "16QAM, probability" in summary(example)
    assert "like the training data" in summary(example)


def test_trials_are_named(shipped):
    found = [(t, classify_recording(t.samples, shipped)) for t in (trial(n, 5) for n in range(34))]
    right = [bool(some) and some[0].modulation == truth.modulation for truth, some in found]
    assert np.mean(right) >= 0.9
    for truth, some in found:
        if some:
            distance = (some[0].carrier_hz - truth.carrier + 0.5) % 1 - 0.5
            assert abs(distance) < 0.04 * truth.symbol_rate


@pytest.mark.parametrize(("name", "modulation", "symbol_rate", "carrier_hz"), GENUINE)
def test_genuine_recordings_are_named(shipped, name, modulation, symbol_rate, carrier_hz):
    if not (RECORDINGS / name).exists():
        pytest.skip("genuine recordings are not here")
    named, *others = classify_recording(RECORDINGS / name, shipped, num_frames=64)
    assert not others
    assert named.modulation == modulation
    assert named.posterior.iloc[0] > 0.9
    assert named.symbol_rate == pytest.approx(symbol_rate, rel=5e-3)
    assert abs(named.carrier_hz - carrier_hz) < 0.01 * symbol_rate
    assert not named.is_foreign


def test_pauses_of_a_packet_are_left_out_and_change_nothing(shipped, samples):
    rng = np.random.default_rng(0)
    scale = np.sqrt(np.mean(np.abs(samples) ** 2) * 0.0314 / 1.0314 / 2)
    gap = (rng.standard_normal((len(samples), 2)) * scale) @ np.array([1, 1j])
    packet = np.concatenate([gap, samples, gap[::-1]])
    alone, inside = (classify_recording(some, shipped)[0] for some in (samples, packet))
    assert inside.left_out["noise alone"] > len(inside.frames)
    first, last = inside.stretch
    assert first > len(samples) - 3000
    assert last < 2 * len(samples) + 3000
    assert inside.modulation == alone.modulation == "16QAM"
    assert abs(inside.es_n0_db - alone.es_n0_db) <= 2
    assert not inside.is_foreign


def test_a_neighbour_in_the_band_is_no_noise(shipped):
    """QPSK and 16QAM side by side, 2 dB apart, at about 25 and 22 dB of Es / N0."""
    rng, time = np.random.default_rng(2), np.arange(80_000)
    qpsk = pulses(rng.choice([1, -1, 1j, -1j], 8_000), 10) * np.exp(-2j * np.pi * 0.2 * time)
    points = np.array([-3, -1, 1, 3])
    grid = (rng.choice(points, 10_000) + 1j * rng.choice(points, 10_000)) / np.sqrt(10)
    qam = pulses(grid, 8) * np.exp(2j * np.pi * 0.22 * time)
    noise = rng.standard_normal((80_000, 2)) @ np.array([1, 1j])
    for level in (0.8, 0.3):
        found = classify_recording(qpsk + level * qam + 0.03 * noise, shipped, num_frames=32)
        names = {some.modulation: some for some in found}
        assert set(names) == {"QPSK", "16QAM"}, level
        assert not any(some.is_foreign for some in found)
        difference = names["QPSK"].es_n0_db - names["16QAM"].es_n0_db
        expected = 20 * np.log10(1 / level) + 10 * np.log10(10 / 8)
        assert difference == pytest.approx(expected, abs=3)


def test_frequency_shifts_are_one_signal_and_unlike_the_training_data(shipped):
    """2FSK of index 1 looks like BPSK behind the equaliser, and its side lobes have lines."""
    generator = torch.Generator().manual_seed(8)
    channel = shipped.config.synthetic_channel
    options = {"generator": generator, "channel": channel, "num_samples": 2**15}
    found = [
        classify_recording(some.numpy(), shipped, num_frames=32)
        for some in ood_frames("2FSK of index 1", 20.0, 10, **options)
    ]
    assert [len(named) for named in found] == [1] * 10
    assert sum(named[0].is_foreign for named in found) >= 9


def test_genuine_frequency_shifts_are_unlike_the_training_data(shipped):
    if not (RECORDINGS / "jradio_is7spino.wav").exists():
        pytest.skip("genuine recordings are not here")
    named = classify_recording(RECORDINGS / "jradio_is7spino.wav", shipped)[0]
    assert named.symbol_rate == pytest.approx(9600, rel=1e-3)
    assert named.is_foreign
    assert "its envelope is constant" in summary(named)


@pytest.mark.parametrize("es_n0_db", [15, 20, 30])
def test_gmsk_has_its_own_symbol_rate_and_oqpsk_too(shipped, es_n0_db):
    """Lines of both squares are alike; the envelope tells, and OQPSK of roll-off 1 comes closest."""
    options = {"modulations": ("GMSK", "OQPSK"), "seed": 3, "num_samples": 2**15}
    channel = replace(CHANNEL_PRESETS["table_1"], rolloff_range=(1.0, 1.0))
    index, snr_db = torch.arange(2), torch.full((2,), es_n0_db - 9.0)
    iq = generate_frames(index, index, snr_db, channel=channel, **options).iq
    (gmsk,), (oqpsk,) = (classify_recording(some.numpy(), shipped, num_frames=32) for some in iq)
    assert (gmsk.modulation, oqpsk.modulation) == ("GMSK", "OQPSK")
    for named in (gmsk, oqpsk):
        assert not named.is_foreign
        assert named.symbol_rate == pytest.approx(1 / SAMPLES_PER_SYMBOL, rel=1e-3)
        assert abs(named.carrier_hz) < 0.01 * named.symbol_rate


@pytest.fixture(scope="module")
def neighbours():
    """64QAM and beside it QPSK, 1 MHz, their carriers at 125 and -150 kHz."""
    rng, time = np.random.default_rng(5), np.arange(100_000)
    points = np.arange(-7, 8, 2) / np.sqrt(42)
    grid = rng.choice(points, 10_000) + 1j * rng.choice(points, 10_000)
    other = pulses(rng.choice([1, -1, 1j, -1j], 12_500), 8) * np.exp(-2j * np.pi * 0.15 * time)
    noise = rng.standard_normal((100_000, 2)) @ np.array([1, 1j])
    return pulses(grid, 10) * np.exp(2j * np.pi * 0.125 * time) + other + 0.02 * noise


@pytest.mark.parametrize("told", [
    {"offset_hz": 125e3}, {"symbol_rate": 100e3}, {"offset_hz": 125e3, "symbol_rate": 100e3}
])  # fmt: skip
def test_a_neighbour_is_taken_out_whatever_is_told(shipped, neighbours, told):
    (named,) = classify_recording(neighbours, shipped, sample_rate=1e6, num_frames=64, **told)
    assert named.modulation == "64QAM"
    assert named.carrier_hz == pytest.approx(125e3, abs=500)
    assert not named.is_foreign


def test_a_neighbour_is_taken_out_of_an_annotated_band(shipped, neighbours):
    recording = replace(open_array(neighbours), band=(50e3, 200e3))
    (named,) = classify_recording(recording, shipped, num_frames=64)
    assert named.modulation == "64QAM"


def test_a_told_carrier_stays(shipped, neighbours):
    (named,) = classify_recording(neighbours, shipped, sample_rate=1e6, offset_hz=125_400.0)
    assert named.carrier_hz == 125_400.0


def test_side_lobes_are_no_signals(shipped):
    """QPSK of rectangular pulses, whose side lobes hold its symbols too."""
    rng = np.random.default_rng(6)
    iq = np.repeat(rng.choice([1, -1, 1j, -1j], 6_000), 32)
    iq = iq + 0.05 * rng.standard_normal((len(iq), 2)) @ np.array([1, 1j])
    (named,) = classify_recording(iq, shipped, num_frames=64)
    assert named.modulation == "QPSK"


def test_rates_in_hertz_need_the_sample_rate(shipped, samples):
    with pytest.raises(ValueError, match="sample_rate must be told with a symbol rate or a carrier in"):
        classify_recording(samples, shipped, symbol_rate=1e5)


def test_frames_unlike_those_of_training_make_a_recording_foreign(example):
    """By the likeness of its frames alone, its envelope being that of its name."""
    assert not example.is_foreign
    lower = example.frames.assign(p_value=np.exp(example.foreign_below - 0.1))
    unlike = replace(example, frames=lower)
    assert not unlike.contradicts_envelope
    assert unlike.is_foreign


def test_trials_and_foreign_recordings_are_measured(shipped, monkeypatch):
    monkeypatch.setattr(export, "_NUM_TRIALS", 4)
    monkeypatch.setattr(export, "_FOREIGN_RECORDINGS", 1)
    found = export._trials(shipped)
    assert found["num_recordings"] == 4
    assert found["right"]["symbol_rate"] == found["right"]["modulation"] == 1
    assert found["foreign"]["2FSK of index 1"] == {"not found": 0, "called OOD": 1}
    assert found["foreign"]["noise alone"]["not found"] == 1


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scale_of_a_recording_changes_no_answer(shipped, samples, example, scale):
    (named,) = classify_recording(samples * np.float32(scale), shipped, sample_rate=1e6)
    assert named.facts()["symbol_rate"] == pytest.approx(example.symbol_rate, rel=1e-6)
    assert named.modulation == "16QAM"


def test_slow_signal_is_found_beside_a_fast_one_and_drawn(shipped):
    """BPSK of 1,000 samples a symbol, beside QPSK of 8; the page of the slow one has its line."""
    rng, time = np.random.default_rng(7), np.arange(2**20)
    fast = pulses(rng.choice([1, -1, 1j, -1j], 2**17), 8)
    slow = pulses(rng.choice([1.0, -1.0], 1049), 1000)[: 2**20] * np.exp(2j * np.pi * 0.3 * time)
    both = (fast + slow + 0.01 * rng.standard_normal(2**20)).astype(np.complex64)
    quick, lazy = classify_recording(both, shipped, num_frames=16)
    assert quick.symbol_rate == pytest.approx(1 / 8, rel=1e-4)
    assert lazy.symbol_rate == pytest.approx(1 / 1000, rel=1e-3)
    lines = recording_page(lazy).axes[2].lines[0].get_xydata()
    assert lines[np.argmax(lines[:, 1]), 0] == pytest.approx(1 / 1000, rel=1e-2)


@pytest.mark.parametrize("wrong", [np.zeros((4000, 2)), np.zeros(4000, np.int16), np.zeros(0, complex)])
def test_arrays_that_are_no_samples_are_refused(shipped, wrong):
    with pytest.raises(ValueError, match="an array must hold complex samples in one axis"):
        classify_recording(wrong, shipped)


def test_facts_of_a_single_bad_file_are_written(tmp_path):
    (tmp_path / "b.wav").write_bytes(b"RIFF\x00")
    with pytest.raises(SystemExit, match="must be a whole WAV file"):
        main(["classify", str(tmp_path / "b.wav"), "--json", str(tmp_path / "f.json")])
    (facts,) = json.loads((tmp_path / "f.json").read_text(encoding="utf8"))
    assert "must be a whole WAV file" in facts["error"]


def test_times_are_those_of_the_whole_recording(shipped, samples):
    part = open_array(samples).stretch(0.01, 0.03)
    (named,) = classify_recording(part, shipped, num_frames=8)
    assert named.facts()["start"] >= 10_000
    assert "frames of 1,024 samples, 0.01 to 0.0" in summary(named)


def open_array(samples):
    return Recording("array", len(samples), 1e6, lambda first, last: samples[first:last])


def test_what_is_told_stands_above_what_is_found(shipped, samples):
    (told,) = classify_recording(samples, shipped, sample_rate=1e6, symbol_rate=1.001e5)
    assert told.symbol_rate == 1.001e5
    (shifted,) = classify_recording(samples, shipped, sample_rate=1e6, symbol_rate=1e5, offset_hz=500)
    assert abs(shifted.carrier_hz) < 1e3, "what is left of the offset is found"


def test_noise_has_no_name(shipped):
    noise = np.random.default_rng(1).standard_normal((50_000, 2)) @ np.array([1, 1j])
    assert classify_recording(noise, shipped) == []


def test_holes_are_left_out_and_said(shipped, samples):
    holed = samples.copy()
    holed[5000] = np.nan
    (named,) = classify_recording(holed, shipped)
    assert named.left_out == {"not finite": 1}
    assert "1 not finite" in summary(named)


def test_frames_of_a_recording_are_no_independent_witnesses(shipped):
    """With b = 0 they would be, with b = 1 they say no more than one."""
    logits = torch.tensor([[2.0, 0.0, -1.0]]).expand(9, 3)
    alone = (logits[:1] / shipped.temperatures[0]).softmax(1)[0]
    same = replace(shipped, combining=(1.0, 1.0)).of_recording(logits)
    torch.testing.assert_close(same, alone)
    independent = replace(shipped, combining=(1.0, 0.0)).of_recording(logits)
    torch.testing.assert_close(independent, (9 * alone.log()).softmax(0))
    between = shipped.of_recording(logits)
    assert same[0] < between[0] < independent[0]


def test_traces_go_through_the_symbols(example):
    """Eight samples a symbol, the first at one."""
    at_symbols = example.traces[:, ::SAMPLES_PER_SYMBOL]
    scale = np.abs(example.symbols).mean() / np.abs(at_symbols).mean()
    assert np.median(np.abs(at_symbols * scale - example.symbols)) < 0.02


def test_page_shows_what_was_found(example):
    fig = recording_page(example)
    titles = [ax.get_title() for ax in fig.axes[:6]]
    assert titles == ["spectrum", "waterfall", "lines of symbol rates", "symbols", "eye", "modulation"]
    assert fig.axes[5].patches[-1].get_width() == pytest.approx(example.posterior.iloc[0])
    assert "signal 1 of 1: 16QAM" in fig.get_suptitle()
    assert "100,000 symbols per second" in fig.get_suptitle()


def test_several_recordings_are_named_and_a_bad_one_is_said(samples, tmp_path, capsys):
    samples[:20_000].tofile(tmp_path / "a_1M.cf32")
    (tmp_path / "b.wav").write_bytes(b"nothing")
    noise = np.random.default_rng(1).standard_normal(2 * 50_000)
    noise.astype(np.float32).tofile(tmp_path / "c.cf32")
    written = tmp_path / "names.json"
    with pytest.raises(SystemExit, match="1 of 3 recordings could not be read"):
        main(["classify", str(tmp_path), "--json", str(written), "--num-frames", "8"])
    said = capsys.readouterr()
    assert (
        "a_1M.cf32, signal 1 of 1, read by open-24, sample rate 1e+06 from its name:\n  16QAM"
        in said.out
    )
    assert "b.wav must be a whole WAV file" in said.err
    facts, bad, empty = json.loads(written.read_text(encoding="utf8"))
    assert (bad["file"], bad["modulation"]) == (str(tmp_path / "b.wav"), None)
    assert "must be a whole WAV file" in bad["error"]
    assert (empty["recording"], empty["modulation"]) == ("c.cf32", None)
    assert facts["modulation"] == "16QAM"
    assert facts["symbol_rate"] == pytest.approx(1e5, rel=1e-3)


def test_annotations_are_written_once_and_name_a_stretch(samples, tmp_path, capsys):
    samples.tofile(tmp_path / "r.sigmf-data")
    told = {"core:datatype": "cf32_le", "core:version": "1.2.0", "core:sample_rate": 1e6}
    kept = {"core:sample_start": 10, "core:sample_count": 5, "core:label": "mine"}
    meta = {"global": told, "captures": [{"core:sample_start": 0, "core:frequency": 1e8}]}
    path = tmp_path / "r.sigmf-meta"
    path.write_text(json.dumps(meta | {"annotations": [kept]}), encoding="utf8")
    for _ in range(2):
        main(["classify", str(path), "--annotate", "--num-frames", "8"])
    mine, found = json.loads(path.read_text(encoding="utf8"))["annotations"]
    assert mine == kept
    assert found["core:label"] == "16QAM"
    assert found["core:freq_lower_edge"] < 1e8 < found["core:freq_upper_edge"]
    main(["classify", str(path), "--annotation", "0", "--num-frames", "8"])
    assert "16QAM" in capsys.readouterr().out
    samples.tofile(tmp_path / "r.cf32")
    with pytest.raises(SystemExit, match="annotations need a SigMF recording in two files"):
        main(["classify", str(tmp_path / "r.cf32"), "--annotate"])


def test_stream_is_named_as_it_comes(samples, monkeypatch, capsys):
    content = np.concatenate([samples, samples, samples, samples]).astype(np.complex64).tobytes()
    stream = io.TextIOWrapper(io.BytesIO(content))
    monkeypatch.setattr(sys, "stdin", stream)
    main(["classify", "-", "--sample-rate", "1e5", "--datatype", "cf32", "--num-frames", "8"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("0.0 s: 16QAM")
    assert lines[1].startswith("1.0 s: 16QAM")
    with pytest.raises(SystemExit, match="datatype and sample_rate must be told"):
        main(["classify", "-"])


def test_pages_are_drawn_into_one_file(samples, tmp_path):
    samples.tofile(tmp_path / "r.cf32")
    main(
        ["classify", str(tmp_path / "r.cf32"), "--figure", str(tmp_path / "p.pdf"), "--num-frames", "8"]
    )
    assert (tmp_path / "p.pdf").read_bytes().startswith(b"%PDF")


def test_rows_of_frames_have_their_recording(samples, tmp_path):
    samples.tofile(tmp_path / "r.cf32")
    main(["classify", str(tmp_path / "r.cf32"), "--csv", str(tmp_path / "f.csv"), "--num-frames", "8"])
    table = pd.read_csv(tmp_path / "f.csv")
    assert (table["recording"] == "r.cf32").all()
    assert len(table) == 8

"""Files of RadioML 2016.10: read safely, audited, trained on, and tested across files."""

from __future__ import annotations

import os
import pickle
import re
from collections import OrderedDict

import numpy as np
import pytest
import torch
from files import radioml_2016_cells, write_radioml, write_radioml_2016

from amc_utils.__main__ import main
from amc_utils.audit.audit import audit, require_passed_audit
from amc_utils.audit.report import page
from amc_utils.data import (
    cached_radioml,
    read_radioml,
    redraw_frames,
    split_fingerprint,
    stratified_split,
    synthesise_frames,
)
from amc_utils.inference.export import export
from amc_utils.radioml.pickled import read_pickled
from amc_utils.radioml.reader import open_radioml
from amc_utils.results import load_run
from amc_utils.signals import CHANNEL_PRESETS, RADIOML_2016_MODULATIONS, generate_frames

LABELS = tuple(range(-20, 20, 2))


@pytest.fixture(scope="module")
def cells():
    return radioml_2016_cells(RADIOML_2016_MODULATIONS, LABELS, 3)


@pytest.fixture(scope="module")
def written(cells, tmp_path_factory):
    path = tmp_path_factory.mktemp("radioml_2016") / "RML2016.10a_dict.pkl"
    write_radioml_2016(path, cells)
    return path


def refusal(path):
    with pytest.raises(ValueError, match=path.name) as refused, open_radioml(path):
        pass
    return str(refused.value)


def python_2(protocol):
    return lambda path, cells: write_radioml_2016(path, cells, protocol)


def python_3(protocol):
    return lambda path, cells: path.write_bytes(pickle.dumps(cells, protocol))


@pytest.mark.parametrize("write", [python_2(0), python_2(2), python_3(2), python_3(4)])
def test_every_frame_is_read_under_its_label(write, cells, tmp_path):
    path = tmp_path / "some.pkl"
    write(path, cells)
    with open_radioml(path) as file:
        assert file.modulations == RADIOML_2016_MODULATIONS
        assert (file.num_rows, file.num_samples) == (3 * len(cells), 128)
        names = np.array(file.modulations)[file.modulation()]
        labels, rows = file.snr_label(), np.arange(file.num_rows)
        samples = torch.cat([block.clone() for _, block in file.blocks(rows)]).numpy()
    assert np.square(samples).sum(2).mean() == pytest.approx(1, rel=0.05)
    for (name, label), frames in cells.items():
        found = samples[(names == name) & (labels == label)].transpose(0, 2, 1)
        np.testing.assert_allclose(found, frames * file.scale, rtol=1e-6)


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("place", ["all", "key", "value", "within an array"])
@pytest.mark.parametrize(
    "function", [os.mkdir, eval, np.load, OrderedDict, np.frombuffer], ids=lambda f: f.__name__
)
def test_pickle_that_calls_anything_is_refused_and_does_nothing(
    function, place, protocol, cells, tmp_path
):
    path, mark = tmp_path / "evil.pkl", tmp_path / "mark"
    text = f"__import__('os').mkdir({str(mark)!r})" if function is eval else str(mark)
    evil = Calls(function, text) if function is not OrderedDict else Calls(function)
    content = {
        "all": evil,
        "key": {(evil, 0): cells["BPSK", 0]},
        "value": dict(cells) | {("QPSK", 0): evil},
        "within an array": {("QPSK", 0): np.array([evil, None])},
    }[place]
    path.write_bytes(pickle.dumps(content, protocol))
    # The first protocol has no sign of its own.
    is_plain = (place, protocol) == ("all", 0)
    sentence = (
        "must be an HDF5 file" if is_plain else f"{function.__name__}, .*nothing of it was carried"
    )
    said = refusal(path)
    assert re.search(sentence, said)
    assert "\n" not in said
    assert not mark.exists()


def test_pickle_cannot_change_how_the_next_one_is_read(written, tmp_path):
    """BUILD sets attributes of what stands in for a name; the next name has another stand-in."""
    change = b"\x80\x02cnumpy\ndtype\n}X\x0c\x00\x00\x00__setstate__K\x01sb."
    (tmp_path / "change.pkl").write_bytes(change)
    assert "must hold a dictionary" in refusal(tmp_path / "change.pkl")
    with open_radioml(written) as file:
        assert file.num_rows == 660


FLOATS = np.zeros((2, 2, 128), np.float32)
NO_DICTIONARY = {
    "a list": ([1, 2], "must hold a dictionary .* got list"),
    "nothing": ({}, "must hold a dictionary"),
    "arrays by name": ({"X": FLOATS}, "it has the key b'X'"),
    "numbers for arrays": ({("QPSK", 0): 3}, "it has the key"),
    "another class": ({("16PSK", 0): FLOATS}, "classes of RadioML 2016.10a .* got '16PSK' at 0"),
    "an odd label": ({("QPSK", 3): FLOATS}, "even SNRs from -20 dB, got 'QPSK' at 3"),
    "complex numbers": ({("QPSK", 0): FLOATS.astype(np.complex64)}, "32 or 64-bit floats, got <c8"),
    "objects": ({("QPSK", 0): np.array([None, 1])}, "32 or 64-bit floats, got |O8"),
    "samples last": ({("QPSK", 0): FLOATS.transpose(0, 2, 1).copy()}, r"arrays \[frames, 2, samples\]"),
    "no frames": ({("QPSK", 0): FLOATS[:0]}, "must hold frames"),
}


@pytest.mark.parametrize("case", NO_DICTIONARY)
def test_another_content_is_refused(case, tmp_path):
    content, sentence = NO_DICTIONARY[case]
    write_radioml_2016(tmp_path / "other.pkl", content)
    assert re.search(sentence, refusal(tmp_path / "other.pkl"))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_cut_pickle_is_refused(share, written, tmp_path):
    content = written.read_bytes()
    (tmp_path / "cut.pkl").write_bytes(content[: int(share * len(content))])
    assert "must be a whole pickle of arrays, it is damaged or cut (" in refusal(tmp_path / "cut.pkl")


CHOICE = {"snr_labels": (10, 18), "num_frames_per_cell": 3, "seed": 1}


def test_class_is_found_under_its_other_name(written):
    options = CHOICE | {"path": written, "num_samples": 128}
    own, other = (read_radioml(modulations=names, **options) for names in (("QAM16",), ("16QAM",)))
    assert torch.equal(own.iq_pairs, other.iq_pairs)
    assert other.modulations == ("16QAM",)
    with pytest.raises(ValueError, match="once, got 16QAM and QAM16"):
        read_radioml(modulations=("16QAM", "QAM16"), **options)
    with pytest.raises(ValueError, match="no frame of GMSK at label 10"):
        read_radioml(modulations=("BPSK", "GMSK"), **options)
    with pytest.raises(ValueError, match="label_order must be corrected"):
        read_radioml(modulations=("BPSK",), label_order="shipped", **options)


@pytest.mark.parametrize("read", [read_radioml, cached_radioml])
def test_first_samples_of_longer_frames_are_taken(read, small_frames, tmp_path):
    write_radioml(tmp_path / "long.h5", small_frames)
    options = {"modulations": small_frames.modulations, "snr_labels": (0, 20), "seed": 1}
    options |= {"path": tmp_path / "long.h5", "num_frames_per_cell": 20}
    long, short = (read(**options, num_samples=number) for number in (1024, 136))
    assert torch.equal(short.iq_pairs, long.iq_pairs[:, :136])
    with pytest.raises(ValueError, match="num_samples must be at most 1024"):
        read(**options, num_samples=1032)


def test_generator_makes_short_frames_and_draws_them_anew():
    choice = {"modulations": ("BPSK", "FM"), "snr_labels": (10,), "num_frames_per_cell": 5, "seed": 4}
    frames, long = synthesise_frames(**choice, num_samples=128), synthesise_frames(**choice)
    index, labels = torch.arange(10), torch.full((10,), 10)
    options = {"modulations": ("BPSK", "FM"), "seed": 4, "channel": CHANNEL_PRESETS["radioml_2018"]}
    for generation in (1, 0):
        redraw_frames(frames, index, generation)
        made = generate_frames(index + 10 * generation, index // 5, labels, **options, num_samples=128)
        assert torch.equal(frames.iq(index), made.iq)
    prints = {split_fingerprint(some, stratified_split(some, seed=1)) for some in (frames, long)}
    assert len(prints) == 2
    with pytest.raises(ValueError, match="synthetic frames, got 'GFSK'"):
        synthesise_frames(**choice | {"modulations": ("BPSK", "GFSK")})


def verdicts(path):
    return {verdict["check"]: verdict for verdict in audit(path)["verdicts"]}


def test_audit_says_what_it_measured_and_what_is_known(written):
    report = audit(written)
    assert report["passed"]
    found = {verdict["check"]: verdict for verdict in report["verdicts"]}
    assert found["balance"]["what"] == "3 frames in each of 220 classes and levels"
    assert found["class names"]["what"] == "the 11 classes of RadioML 2016.10a"
    assert found["SNR labels"] | {"check": ""} == {
        "check": "", "result": "ok", "what": "20 from -20 to 18 dB"
    }  # fmt: skip
    assert "100% of frames the samples' magnitudes sum to 1" in found["scale of frames"]["what"]
    assert "issues 10 and 38" in found["meaning of SNR labels"]["what"]
    assert "issue 19" in found["AM-SSB"]["what"]
    assert found["signals"]["result"] == "cannot tell"
    assert "label order" not in found
    assert "read by their names" in page(report)


def test_audit_of_other_scales_classes_and_labels(cells, tmp_path):
    path = tmp_path / "other.pkl"
    part = {key: frames for key, frames in cells.items() if key[0] != "AM-SSB"}
    root_energy = {
        key: np.sqrt(np.square(some).sum((1, 2), keepdims=True)) for key, some in part.items()
    }
    energy = {key: frames / root_energy[key] for key, frames in part.items()}
    write_radioml_2016(path, energy)
    found = verdicts(path)
    assert found["class names"]["what"] == "the 10 classes of RadioML 2016.10b"
    assert "AM-SSB" not in found
    assert "squares sum to 1: unit energy" in found["scale of frames"]["what"]
    few = {key: 3 * frames for key, frames in part.items() if key[0] in ("BPSK", "GFSK") and key[1] > 0}
    few["BPSK", 2] = few["BPSK", 2][:2]
    write_radioml_2016(path, few)
    found = verdicts(path)
    assert "8PSK, AM-DSB" in found["class names"]["what"]
    assert found["SNR labels"]["what"] == "9 from 2 to 18 dB, where 20 are published"
    assert "magnitudes 3" in found["scale of frames"]["what"]
    assert found["balance"]["result"] == "remark"


def test_broken_and_repeated_frames_fail(cells, tmp_path):
    path, bad = tmp_path / "bad.pkl", {key: frames.copy() for key, frames in cells.items()}
    bad["8PSK", -20][0, 0, 5] = np.nan
    bad["QPSK", 10][2] = 0
    bad["GFSK", 0][0] = bad["GFSK", 2][0]
    write_radioml_2016(path, bad)
    failed = {check for check, verdict in verdicts(path).items() if verdict["result"] == "failed"}
    # One frame alone is: the first, of those that tell the scale.
    assert audit(path)["bad_frames"]["not finite"] == [0]
    assert failed == {"frames not finite", "frames without power", "duplicates across cells"}
    with pytest.raises(ValueError, match="must pass its audit"):
        require_passed_audit(path, "corrected")


TINY = """num_samples: 128
network: test_resnet
snr_range_db: [10, 18, 8]
num_epochs: 8
batch_size: 16
learning_rate: 1.0e-3
num_frames_per_cell: 60
trust_file: true
"""


def test_network_trained_on_one_file_is_tested_on_the_other(tmp_path, capsys):
    """BPSK against FM: a handful of frames teach these, and exchanged names would reverse them."""
    old, new, profile = tmp_path / "old.pkl", tmp_path / "new.h5", tmp_path / "tiny.yaml"
    root = ["--output_root", str(tmp_path)]
    profile.write_text(TINY, encoding="utf8")
    write_radioml_2016(old, radioml_2016_cells(("BPSK", "GFSK", "WBFM"), (10, 14, 18), 60))
    options = {"snr_labels": (10, 18, 20), "num_frames_per_cell": 60, "seed": 9}
    options |= {"modulations": ("BPSK", "QPSK", "FM"), "channel": CHANNEL_PRESETS["table_1"]}
    write_radioml(new, synthesise_frames(**options))
    for path, names, run in ((old, "[BPSK, WBFM]", "from-old"), (new, "[BPSK, FM]", "from-new")):
        words = f"--data_path {path} --run_name {run} --config {profile}".split()
        main(["train", *words, "--modulations", names, *root])
    for path, run in ((new, "from-old"), (old, "from-new")):
        checkpoint = tmp_path / "outputs" / "checkpoints" / run / "best.ckpt"
        words = f"--data_path {path} --run_name {run}-across --checkpoint {checkpoint}".split()
        main(["evaluate", "network", *words, *root])
        tested = load_run(f"{run}-across", str(tmp_path))
        assert tested.facts["test"]["modulation_accuracy"]["value"] > 0.8
        assert len(tested.predictions) == 2 * 2 * 50
    assert "(2 modulations, 2 SNR labels)" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"num_samples must be 1,024 for export.*, got 128"):
        export("from-old", str(tmp_path), str(old))


def test_only_shared_classes_are_tested_and_the_record_says_so(written):
    options = {"path": written, "modulations": ("BPSK", "16QAM", "GMSK"), "only_shared": True}
    options |= {"num_frames_per_cell": 9, "num_samples": 128, "seed": 1}
    shared = read_radioml(snr_labels=(-20, 18, 30), **options)
    assert shared.modulation.bincount(minlength=3).tolist() == [6, 6, 0]
    assert shared.snr_index.bincount(minlength=3).tolist() == [6, 6, 0]
    assert "which has 2 of the modulations and 2 of the labels" in shared.description
    with pytest.raises(ValueError, match="no frame of BPSK at label 20"):
        read_radioml(snr_labels=(20,), **options)


@pytest.mark.parametrize("content", [
    b"\x80\x02})" + b"\x85" * 400_000 + b"K\x01s.",  # a key nested beyond the C stack
    b"\x80\x02})" + b"2\x86" * 40 + b"K\x01s.",  # tuples of themselves, twice as many each time
    b"\x80\x02}r\xff\xff\xff\x7f.",  # a place in a list of two thousand million
    b"}" + b"(" * 9 + b"t" * 9 + b"I1\ns.",
])  # fmt: skip
def test_pickle_that_would_unfold_without_end_is_refused(content, tmp_path):
    (tmp_path / "bomb.pkl").write_bytes(content)
    with pytest.raises(ValueError, match="which they do not need; nothing of it was carried out"):
        read_pickled(tmp_path / "bomb.pkl")


def test_protocol_5_is_refused_with_the_way_out(tmp_path):
    with (tmp_path / "five.pkl").open("wb") as file:
        pickle.dump({("QPSK", 0): np.zeros((3, 2, 128), np.float32)}, file, protocol=5)
    with pytest.raises(ValueError, match="must have pickle protocol 4 or lower, write it again so"):
        read_pickled(tmp_path / "five.pkl")

"""Files that may be trained on, and the audit from the command line."""

from __future__ import annotations

import json
import os

import h5py
import numpy as np
import pytest
from audited import altered, shipped
from files import write_radioml

from amc_utils.__main__ import main
from amc_utils.audit import audit as audit_module
from amc_utils.audit.audit import audit, require_passed_audit
from amc_utils.data import synthesise_frames
from amc_utils.signals import (
    DIGITAL_MODULATIONS,
)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Folder of kept audits, and how many audits were made."""
    monkeypatch.setenv("AMC_CACHE", str(tmp_path / "cache"))
    made = []

    def counted(*arguments, **options):
        made.append(arguments)
        return audit(*arguments, **options)

    monkeypatch.setattr(audit_module, "audit", counted)
    return tmp_path / "cache" / "amc_utils" / "audits", made


def test_training_on_a_failed_file_needs_a_word_and_a_verdict_is_kept(
    gnuradio_slice, tmp_path, own_cache
):
    path = altered(gnuradio_slice, tmp_path / "shipped.h5", shipped)
    for _ in range(2):
        require_passed_audit(gnuradio_slice, "corrected")
        with pytest.raises(ValueError, match=r"must pass its audit .* the shipped list.*trust_file"):
            require_passed_audit(path, "corrected")
        require_passed_audit(path, "shipped")
    assert len(own_cache[1]) == 3, "one for each file and list, and none a second time"
    altered(gnuradio_slice, path, lambda parts: None)
    require_passed_audit(path, "corrected")
    assert len(own_cache[1]) == 4, "the file has changed"


def test_damaged_verdict_is_found_anew(gnuradio_slice, own_cache, capsys):
    require_passed_audit(gnuradio_slice, "corrected")
    (kept,) = own_cache[0].glob("*.json")
    for damage in (
        "",
        "[]",
        '{"verdicts": []}',
        '{"verdicts": {}}',
        '{"verdicts": [{}]}',
        kept.read_text()[:100],
    ):
        kept.write_text(damage)
        require_passed_audit(gnuradio_slice, "corrected")
        assert "was damaged" in capsys.readouterr().out
    assert len(own_cache[1]) == 7


def test_verdict_does_not_outlive_labels_that_changed_in_place(gnuradio_slice, tmp_path, own_cache):
    path = altered(gnuradio_slice, tmp_path / "same.h5", lambda parts: None)
    require_passed_audit(path, "corrected")
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    with h5py.File(path, "r+") as file:
        file["Y"][:] = np.roll(file["Y"][:], 3, 1)
    os.utime(path, ns=times)
    with pytest.raises(ValueError, match="must pass its audit"):
        require_passed_audit(path, "corrected")


def test_what_cannot_be_told_is_said_before_training(small_frames, tmp_path, own_cache, capsys):
    write_radioml(tmp_path / "more.h5", small_frames)

    def one_class(parts):
        for name in parts:
            parts[name] = parts[name][:40]

    altered(tmp_path / "more.h5", tmp_path / "few.h5", one_class)
    require_passed_audit(tmp_path / "few.h5", "corrected")
    assert "audit of few.h5: label order cannot be decided" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("modulations", "grid"),
    [(DIGITAL_MODULATIONS, (22, 26, 30)), (DIGITAL_MODULATIONS, (-20, -18)), (("QPSK",), (30,)),
     (("AM-SSB-WC", "AM-DSB-SC", "FM"), (0, 20, 30)), (("GMSK", "OOK"), (-20, 30))],
)  # fmt: skip
def test_report_on_any_choice_of_classes_and_levels_can_be_written(
    tmp_path, modulations, grid, own_cache
):
    """Where nothing is there to measure, nothing is said, in JSON as well."""
    frames = synthesise_frames(modulations=modulations, snr_labels=grid, num_frames_per_cell=4, seed=4)
    write_radioml(tmp_path / "some.h5", frames)
    main(["audit", str(tmp_path / "some.h5"), "--json", str(tmp_path / "report.json")])
    assert json.loads((tmp_path / "report.json").read_text())["passed"]
    require_passed_audit(tmp_path / "some.h5", "corrected")


def test_command_line_prints_a_page_and_says_by_its_status(gnuradio_slice, tmp_path, capsys):
    main(["audit", str(gnuradio_slice), "--json", str(tmp_path / "report.json")])
    assert "passed" in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text())["passed"]
    path = altered(gnuradio_slice, tmp_path / "shipped.h5", shipped)
    with pytest.raises(SystemExit) as ended:
        main(["audit", str(path)])
    assert ended.value.code == 2
    assert "FAILED" in capsys.readouterr().out
    main(["audit", str(path), "--label-order", "shipped", "--num_frames=200"])
    assert "read by the shipped list" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--num_frames", "0"], "num_frames must be at least 1, got 0"),
        (["--label_order", "wrong"], "label_order must"),
        (["--lable_order", "shipped"], "unknown option --lable_order; did you mean --label_order"),
    ],
)
def test_command_line_refuses_what_it_cannot_do(gnuradio_slice, words, sentence):
    with pytest.raises(SystemExit, match=sentence):
        main(["audit", str(gnuradio_slice), *words])

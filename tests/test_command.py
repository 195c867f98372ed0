"""The command `amc` about itself: its version, its state on this machine, and completion by shells."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from amc_utils.__main__ import COMMANDS, main
from amc_utils.runtime.paths import REPOSITORY
from amc_utils.studies import doctor

BASH = shutil.which("bash")


def test_version_is_that_of_the_package(capsys):
    main(["--version"])
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf8")
    assert capsys.readouterr().out.split() == ["amc", re.search(r'version = "(.+)"', project)[1]]


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """Path of the script for bash; the words of a line come before it, the last one to be completed."""
    path = tmp_path_factory.mktemp("completion") / "amc"
    printed = subprocess.run(
        [sys.executable, "-m", "amc_utils", "completion", "bash"], stdout=subprocess.PIPE, check=True
    )
    path.write_bytes(printed.stdout)
    return path


@pytest.mark.skipif(BASH is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("amc ev", {"evaluate"}),
        ("amc ", set(COMMANDS)),
        ("amc evaluate ", {"bound", "receiver", "network"}),
        ("amc train --sch", {"--schedule"}),
        ("amc train --schedule ", {"constant", "cosine", "one_cycle"}),
        ("amc train --engine.sam", {"--engine.sample_bits", "--engine.samples_in"}),
        ("amc study profiles/studies/ord", {"profiles/studies/order.yaml"}),
        ("amc classify one.wav README", {"README.md"}),
        ("amc train --config READ", {"README.md"}),
        ("amc completion z", {"zsh"}),
    ],
)
def test_bash_completes_without_python(script, line, wanted):
    *words, last = line.split(" ")
    asked = f'source {script}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_amc; '
    command = [BASH, "-c", asked + 'printf "%s\\n" "${COMPREPLY[@]}"', "bash", *words, last]
    # Where programs would be found there are none.
    done = subprocess.run(
        command, cwd=REPOSITORY, env={"PATH": "/nowhere"}, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == wanted


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_every_word(shell, capsys):
    main(["completion", shell])
    told = capsys.readouterr().out
    assert all(re.search(rf"\b{word}\b", told) for word in COMMANDS)
    assert all(name in told for name in ("one_cycle", "symbol_rate", "keep_simulated"))


def test_doctor_finds_nothing_broken_here(tmp_path, capsys):
    threads = torch.get_num_threads()
    main(["doctor", "--output_root", str(tmp_path / "new")])
    told = capsys.readouterr().out
    assert torch.get_num_threads() == threads
    for word in (
        "nothing is broken",
        f"torch {torch.__version__.split('+')[0]}",
        "recording of BPSK BPSK",
    ):
        assert word in told
    assert not (tmp_path / "new").exists()


def test_doctor_says_what_is_broken_and_ends_with_1(tmp_path, capsys, monkeypatch):
    damaged = tmp_path / "model.safetensors"
    damaged.write_bytes(b"nothing")
    monkeypatch.setattr(doctor, "SHIPPED_FOR_RADIOML", damaged)
    (tmp_path / "outputs").write_text("", encoding="utf8")
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--output_root", str(tmp_path)])
    assert ended.value.code == 1
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("broken")]
    assert len(told) == 2
    assert f"{tmp_path}/outputs must be a folder to write to" in told[0]
    assert "shipped networks must classify, got " in told[1]


def test_doctor_says_what_is_slow_and_why(tmp_path, monkeypatch):
    Disk = namedtuple("Disk", "mountpoint fstype")
    disks = [Disk("/", "ext4"), Disk(str(tmp_path.parent), "nfs4")]
    monkeypatch.setattr(doctor.psutil, "disk_partitions", lambda all: disks)
    assert ("slow", "outputs, and so checkpoints, lie on a network disk (nfs4)") in list(
        doctor._disk(tmp_path / "outputs")
    )
    assert len(list(doctor._disk(Path("/usr")))) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "999")
    monkeypatch.setattr(doctor, "_gain", lambda work, threads: 1.0)
    monkeypatch.setattr(doctor.torch, "get_num_threads", lambda: os.cpu_count())
    slow = [text for kind, text in doctor._threads() if kind == "slow"]
    assert slow[0].startswith("OMP_NUM_THREADS asks for 999 threads, which wait for ")

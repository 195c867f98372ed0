"""Studies: every run once, restartable, and a table of what came out."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import yaml
from distributed import LocalCluster

from amc_utils import training
from amc_utils.results import load_run, replace_kept
from amc_utils.runtime.checkpoints import Checkpoints, read_checkpoint
from amc_utils.runtime.command_line import arguments_of
from amc_utils.runtime.paths import REPOSITORY, Workspace
from amc_utils.studies import record, study
from amc_utils.studies.record import PLAN, StudyRecord, named_study, plan_file
from amc_utils.studies.study import read_study, run_study


@pytest.fixture
def study_file(make_config, tmp_path):
    """Two variants of one epoch each, two seeds."""
    own = {"run_name", "output_root", "seed"}
    base = make_config(num_epochs=1, num_frames_per_cell=10).model_dump(exclude=own)
    variants = {"plain": {}, "samples": {"channels": ["iq"], "network": "oshea_resnet"}}
    content = {"question": "Which?", "seeds": [1, 2], "base": base, "variants": variants}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf8")
    return path


def test_study_runs_all_and_again_nothing(study_file, tmp_path, monkeypatch):
    assert run_study(study_file, str(tmp_path), num_jobs=2) == []
    table = named_study(Workspace(tmp_path), "small").table
    runs = set(zip(table["variant"], table["seed"], strict=True))
    assert runs == {("plain", 1), ("plain", 2), ("samples", 1), ("samples", 2)}
    assert table[["joint", "modulation", "snr"]].stack().between(0, 1).all()
    assert not any((tmp_path / "outputs" / "checkpoints" / "small").iterdir())
    monkeypatch.setattr(study, "_run", lambda *arguments: pytest.fail("a finished run was run again"))
    assert run_study(study_file, str(tmp_path)) == []


def test_shards_share_the_runs_and_leave_the_diary_to_the_whole(study_file, tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(study, "_run", lambda config, *rest: done.append(config.run_name))
    for number in range(3):
        assert run_study(study_file, str(tmp_path), shard=(number, 3)) == []
    assert sorted(done) == ["plain-s1", "plain-s2", "samples-s1", "samples-s2"]
    assert not Workspace(tmp_path).runlog.exists()
    monkeypatch.setattr(study, "keep", lambda workspace, runs, plan: None)
    run_study(study_file, str(tmp_path))
    assert Workspace(tmp_path).runlog.exists()


def test_trained_networks_are_assessed_on_other_frames_and_only_once(study_file, tmp_path, capsys):
    content = yaml.safe_load(study_file.read_text(encoding="utf8"))
    content |= {"seeds": [1], "transfers": {"easy": {"num_frames_per_cell": 5}}}
    content["transfers"]["Es-N0"] = {"num_frames_per_cell": 5, "channel": {"snr_offset_db": -9.03}}
    study_file.write_text(yaml.safe_dump(content), encoding="utf8")
    assert run_study(study_file, str(tmp_path)) == []
    record = named_study(Workspace(tmp_path), "small")
    table = record.table
    assert sorted(table["tested_on"]) == ["", "", "Es-N0", "Es-N0", "easy", "easy"]
    other = load_run("plain-s1-on-Es-N0", str(tmp_path), "small")
    assert other.facts["data"]["source"]["generator"]["snr_offset_db"] == -9.03
    diary = Workspace(tmp_path).runlog.read_text(encoding="utf8")
    assert "## Study small" in diary
    assert "- **Question**: Which?" in diary
    assert "| plain | Es-N0 |" in diary
    # Another transfer lost: the trained network is gone, which is said, and the other runs stand.
    replace_kept(
        record.workspace, [run for run in record.runs if run.name != other.name], plan_file(record.plan)
    )
    assert run_study(study_file, str(tmp_path)) == ["plain-s1"]
    assert "checkpoint not found" in capsys.readouterr().err
    assert len(named_study(Workspace(tmp_path), "small").table) == 5


def test_means_over_seeds_have_student_s_interval():
    record, columns = (
        StudyRecord(Workspace(Path("x"), "small")),
        ["variant", "seed", "tested_on", "joint"],
    )
    rows = [("a", 1, "", 0.1), ("a", 2, "", 0.2), ("a", 3, "", 0.3), ("b", 1, "", 0.4)]
    vars(record)["table"] = pd.DataFrame(rows, columns=columns)
    means = record.means()
    means = means.set_index("variant")
    assert means.loc["a", "mean"] == pytest.approx(0.2)
    # Two degrees of freedom: 4.303 standard errors.
    assert means.loc["a", "high"] == pytest.approx(0.2 + 4.303 * 0.1 / 3**0.5, abs=1e-4)
    assert means.loc["b", "mean"] == 0.4
    assert means.loc["b", ["low", "high"]].isna().all()


def test_differences_pair_runs_of_one_seed():
    record, columns = (
        StudyRecord(Workspace(Path("x"), "small")),
        ["variant", "seed", "tested_on", "joint"],
    )
    # Seeds differ much, variants by 0.1 on every seed; the third seed of b is not there yet.
    rows = [("a", seed, "", 0.1 * seed) for seed in (1, 2, 3)]
    rows += [("b", seed, "", 0.1 * seed + 0.1) for seed in (1, 2)]
    vars(record)["table"] = pd.DataFrame(rows, columns=columns)
    means = record.means(minus="a").set_index("variant")
    assert means.loc["b", ["mean", "low", "high"]].tolist() == pytest.approx([0.1] * 3)
    assert (means.loc["a", "mean"], means.loc["b", "num_seeds"]) == (0, 2)
    # Where the reference has no run, there is no difference.
    assert record.means(minus="b").set_index("variant").loc["a", "num_seeds"] == 2


def test_runs_stand_in_the_order_of_the_plan_and_those_no_longer_planned_last(tmp_path):
    folder = tmp_path / "results" / "learning_rate"
    shutil.copytree(Workspace(REPOSITORY).results / "learning_rate", folder)
    plan = named_study(Workspace(tmp_path), "learning_rate").plan
    gone, *kept = reversed(plan["variants"])
    plan |= {"variants": {name: plan["variants"][name] for name in kept}}
    (folder / PLAN).write_text(plan_file(plan)[PLAN], encoding="utf8")
    found = named_study(Workspace(tmp_path), "learning_rate").means()["variant"]
    assert found.tolist() == [*kept, gone]


@pytest.fixture
def finished(study_file, tmp_path):
    """A study of one run, which is done: its file and what the file holds."""
    content = yaml.safe_load(study_file.read_text(encoding="utf8"))
    content |= {"seeds": [1], "variants": {"plain": {}}}
    content["transfers"] = {"easy": {"num_frames_per_cell": 5}}
    study_file.write_text(yaml.safe_dump(content), encoding="utf8")
    assert run_study(study_file, str(tmp_path)) == []
    return study_file, content


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c["base"].update(learning_rate=0.5), "must have been run with learning_rate="),
        (lambda c: c["transfers"]["easy"].update(num_frames_per_cell=6), "transfer easy must stay"),
    ],
)
def test_changed_study_does_not_mix_with_its_old_runs(finished, tmp_path, change, sentence):
    path, content = finished
    change(content)
    path.write_text(yaml.safe_dump(content), encoding="utf8")
    kept = tmp_path / "results" / path.stem / "study.yaml"
    before = kept.read_bytes()
    with pytest.raises(ValueError, match=sentence):
        run_study(path, str(tmp_path))
    assert kept.read_bytes() == before


def test_images_of_another_meaning_do_not_mix_with_old_runs(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "expand_channels", lambda channels: ("polar",))
    with pytest.raises(ValueError, match="must have been run with pictures="):
        run_study(finished[0], str(tmp_path))


@pytest.mark.parametrize(
    ("frames", "sentence"),
    [
        ({"chanel": {}}, "transfer wrong: unknown parameter chanel; did you mean channel?"),
        ({"channel": {"cfo": 1.0}}, "transfer wrong: channel must set some of"),
        ({"modulations": ["BPSK"]}, "transfer wrong: modulations must be left out for network"),
    ],
)
def test_wrong_transfers_are_refused_before_anything_is_trained(study_file, frames, sentence):
    content = yaml.safe_load(study_file.read_text(encoding="utf8")) | {"transfers": {"wrong": frames}}
    study_file.write_text(yaml.safe_dump(content), encoding="utf8")
    with pytest.raises(ValueError, match=sentence):
        read_study(study_file)


def test_failed_runs_are_named_and_the_others_finish(study_file, tmp_path, monkeypatch, capsys):
    whole = study._run

    def fail_on_samples(config, *others):
        if config.run_name.startswith("samples"):
            raise RuntimeError("no such luck")
        whole(config, *others)

    monkeypatch.setattr(study, "_run", fail_on_samples)
    assert run_study(study_file, str(tmp_path)) == ["samples-s1", "samples-s2"]
    assert "no such luck" in capsys.readouterr().err
    assert len(named_study(Workspace(tmp_path), "small").table) == 2


def test_interrupted_run_continues_to_the_same_result(study_file, tmp_path, monkeypatch):
    """Stopped after its first epoch of two; the other workspace is never stopped."""
    content = yaml.safe_load(study_file.read_text(encoding="utf8"))
    content["base"]["num_epochs"], content["seeds"] = 2, [1]
    content["variants"] = {"plain": {}}
    study_file.write_text(yaml.safe_dump(content), encoding="utf8")
    run_study(study_file, str(tmp_path / "whole"))
    with monkeypatch.context() as patched:
        stop = RuntimeError("stopped")
        patched.setattr(training.Experiment, "finish", lambda *a: (_ for _ in ()).throw(stop))
        assert run_study(study_file, str(tmp_path / "stopped")) == ["plain-s1"]
    assert run_study(study_file, str(tmp_path / "stopped")) == []
    kinds = ("whole", "stopped")
    whole, stopped = (load_run("plain-s1", str(tmp_path / kind), "small") for kind in kinds)
    assert whole.history.equals(stopped.history)


@pytest.mark.parametrize(
    "path", sorted(REPOSITORY.glob("profiles/studies/*.yaml")), ids=lambda path: path.stem
)
def test_study_files_have_right_parameters_and_variants_that_differ(path):
    plan = read_study(path)
    configs = list(plan.configs(""))
    bare = [
        config.model_dump_json(exclude={"run_name"})
        # Variants that go on from a checkpoint may be as others that do not.
        + str(plan.resumed.get(config.run_name.rpartition("-s")[0]))
        for config in configs
    ]
    assert len(set(bare)) == len(bare)
    for config in configs:
        assert len(config.modulation_names) * len(config.snr_labels) in (442, 624)


def test_variant_that_is_resumed_equals_one_that_is_not(study_file, tmp_path):
    content = yaml.safe_load(study_file.read_text(encoding="utf8"))
    variants = {"straight": {"num_epochs": 2}, "resumed": {"num_epochs": 2}}
    content |= {"seeds": [1], "variants": variants, "resumed": {"resumed": 1}}
    study_file.write_text(yaml.safe_dump(content), encoding="utf8")
    assert run_study(study_file, str(tmp_path)) == []
    straight, resumed = (load_run(f"{name}-s1", str(tmp_path), "small") for name in variants)
    assert resumed.facts["config"]["resume_from"] == "resumed-s1-begun/last.ckpt"
    assert straight.facts["config"]["resume_from"] == ""
    assert straight.history.equals(resumed.history)
    assert straight.predictions.equals(resumed.predictions)
    assert not any((tmp_path / "outputs" / "checkpoints" / "small").iterdir())


# A network of one's own, slow enough to be killed, that notes which processes build it.
SLOW_NETWORK = """
import os, time
from pathlib import Path
from torch import nn
from amc_utils import register_model

class Slow(nn.Sequential):
    def forward(self, samples):
        time.sleep(0.01)
        return super().forward(samples)

@register_model("slow", reads="iq")
def slow(num_samples):
    with Path("built.txt").open("a") as file:
        print(os.getpid(), file=file)
    return Slow(nn.Conv1d(2, 8, 16, stride=8), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
"""


@pytest.fixture
def slow_study(study_file, tmp_path, monkeypatch):
    """Variants on a plugin's network and on images; files are named as seen from the folder of both."""
    monkeypatch.chdir(tmp_path)
    Path("slow.py").write_text(SLOW_NETWORK, encoding="utf8")
    content = yaml.safe_load(study_file.read_text(encoding="utf8"))
    own = {"plugins": ["slow.py"], "network": "slow", "channels": ["iq"], "num_epochs": 8}
    content |= {"seeds": [1], "variants": {"own": own, "plain": {}}}
    content["transfers"] = {"easy": {"num_frames_per_cell": 5}}
    study_file.write_text(yaml.safe_dump(content), encoding="utf8")
    return Path(study_file.name)


@pytest.fixture
def cluster(tmp_path_factory, monkeypatch):
    """Two worker processes in another folder than the study's."""
    elsewhere = str(tmp_path_factory.mktemp("workers"))
    with monkeypatch.context() as patched:
        patched.chdir(elsewhere)
        patched.setenv("PYTHONPATH", str(REPOSITORY))
        options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
        cluster = LocalCluster(**options, local_directory=elsewhere)
    with cluster:
        yield cluster


def test_dask_study_outlives_a_killed_worker_and_equals_one_without(slow_study, cluster):
    checkpoint = Path("shared/outputs/checkpoints/small/own-s1/last.ckpt")
    with ThreadPoolExecutor(1) as thread:
        address = cluster.scheduler_address
        failed = thread.submit(run_study, slow_study, "shared", dask=address)
        while not checkpoint.exists():
            assert not failed.done(), failed.result()
            time.sleep(0.01)
        first = int(Path("built.txt").read_text(encoding="utf8").split()[0])
        assert first != os.getpid()
        os.kill(first, signal.SIGKILL)
        begun = read_checkpoint(checkpoint)["epoch_seconds"]
        assert failed.result() == []
    builders = [int(word) for word in Path("built.txt").read_text(encoding="utf8").split()]
    assert len(set(builders)) == 2, "another worker did it again"
    assert run_study(slow_study, "alone") == []
    records = {root: named_study(Workspace.at(root), "small") for root in ("shared", "alone")}
    assert [run.name for run in records["shared"].runs] == [
        f"{run}-s1{on}" for run in ("own", "plain") for on in ("", "-on-easy")
    ]
    for one, other in zip(records["shared"].runs, records["alone"].runs, strict=True):
        assert one.history.equals(other.history)
        assert one.predictions.equals(other.predictions)
    # Times are never the same twice: these epochs were not trained again.
    own = load_run("own-s1", "shared", "small")
    assert 0 < len(begun) < 8
    assert own.facts["epoch_seconds"][: len(begun)] == begun


def test_run_that_failed_in_one_process_may_be_tried_by_another(study_file, tmp_path, monkeypatch):
    """A worker of a cluster lives on, and must not keep what it has claimed."""

    def fail(*arguments):
        raise RuntimeError("no such luck")

    with monkeypatch.context() as patched:
        patched.setattr(training.Experiment, "finish", fail)
        assert run_study(study_file, str(tmp_path), shard=(0, 4)) == ["plain-s1"]
    checkpoints = Checkpoints(Workspace(tmp_path, "small").checkpoints / "plain-s1")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as another:
        another.submit(checkpoints.claim).result()


def test_failed_runs_of_a_dask_study_are_named(study_file, tmp_path, monkeypatch, capsys):
    def fail_on_samples(config, *others):
        if config.run_name.startswith("samples"):
            raise RuntimeError("no such luck")

    monkeypatch.setattr(study, "_run", fail_on_samples)
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with LocalCluster(**options) as cluster:
        failed = run_study(study_file, str(tmp_path), dask=cluster.scheduler_address)
    assert failed == ["samples-s1", "samples-s2"]
    said = capsys.readouterr()
    assert "no such luck" in said.err
    assert {"plain-s2: done", "samples-s1: failed, see its worker"} <= set(said.out.splitlines())


@pytest.mark.parametrize("threads", [2, None])
def test_dask_workers_must_have_one_thread(study_file, tmp_path, threads):
    options = {"processes": False, "dashboard_address": None, "threads_per_worker": threads}
    with (
        LocalCluster(n_workers=1 if threads else 0, **options) as cluster,
        pytest.raises(ValueError, match=r"workers have one thread each, got .*--nthreads 1"),
    ):
        run_study(study_file, str(tmp_path), dask=cluster.scheduler_address)


def test_what_dask_asks_for_is_said(study_file, monkeypatch):
    command = arguments_of(study.study, [str(study_file), "--dask", "tcp://x:1", "--jobs", "2"])
    with pytest.raises(ValueError, match="jobs must stay 1 with dask"):
        study.study(**command)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match="dask needs the package: pip install distributed"):
        study.study(**command | {"jobs": 1})

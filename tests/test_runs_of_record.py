"""The runs of record: a plan that matches the results, their status_of, and work that stops in time."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import pytest
import yaml

from amc_utils import training
from amc_utils.data import stratified_split
from amc_utils.results import kept_runs, list_runs, replace_kept
from amc_utils.runtime.paths import REPOSITORY, Workspace
from amc_utils.studies import records
from amc_utils.studies.record import list_studies, named_study, plan_file
from amc_utils.studies.records import Step, read_plan
from amc_utils.studies.study import read_study
from amc_utils.training import Experiment

PLAN = read_plan(REPOSITORY / records.PLAN)
HERE = Workspace.at("")


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    """There, with the handlers of signals put back that a command sets for its whole process."""
    monkeypatch.chdir(REPOSITORY)
    former = {number: signal.getsignal(number) for number in records._SIGNALS}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("step", PLAN, ids=lambda step: step.result)
def test_each_command_is_understood(step):
    if step.config or step.evaluation:
        assert step.result
    elif step.command.startswith("amc study "):
        (file,) = [word for word in step.words if word.endswith(".yaml")]
        assert read_study(REPOSITORY / file).question
    else:
        assert step.leaves
    if not step.command.startswith("amc study "):
        assert step.shows


@pytest.mark.parametrize("step", PLAN, ids=lambda step: step.result)
def test_each_committed_result_is_what_its_command_makes(step):
    now = records.status_of(step, HERE)
    assert "another" not in now.state
    assert now.done or step.needs == "gpu"


def test_plan_holds_every_committed_run_but_those_of_make_record():
    planned = [step.result for step in PLAN]
    assert len(set(planned)) == len(planned)
    own = {run.name for run in kept_runs(HERE) if run.facts["config"]["profile"] != "laptop"}
    studies = {f"results/{path.stem}" for path in REPOSITORY.glob("profiles/studies/*.yaml")}
    assert {f"results/{study.name}" for study in list_studies(HERE)} <= studies
    assert own | studies <= set(planned)


@pytest.mark.parametrize(
    ("preset", "suffix"), [("radioml_2018", "-radioml_2018"), ("table_1", "")], ids=str
)
def test_no_network_is_above_the_bound(preset, suffix):
    """Neither over all labels nor, where the receiver of the bound knows it, at any label."""
    runs = {run.name: run for run in kept_runs(HERE)}
    bound, known = runs[f"genie-bound{suffix}"], runs[f"genie-bound-snr-known{suffix}"]
    of_channel = [
        run
        for run in runs.values()
        if run.channel == known.channel
        and not run.facts["config"]["data_path"]
        and run.facts["data"]["num_classes"] == 442
        and run.kind != "bound"
    ]
    assert len(of_channel) > 5
    bounds = [bound, runs.get(f"genie-bound-phase-unknown{suffix}", bound)]
    most = min(run.facts["test"]["joint_accuracy"]["high"] for run in bounds)
    highest = known.by_label("joint")["high"]
    for run in of_channel:
        assert run.facts["test"]["joint_accuracy"]["low"] <= most, run.name
        lowest = run.by_label("joint")["low"]
        assert (lowest <= highest[lowest.index]).all(), run.name


def step_of(root, *more, run="small"):
    words = ["--config", "profiles/smoke/02_resnet_ceiling.yaml", "--run_name", run]
    words += ["--output_root", str(root), "--network", "test_resnet", *more]
    return Step(needs="cpu", command=f"amc train {shlex.join(words)}")


def test_a_run_is_missing_then_begun_then_done_and_never_another(tmp_path):
    step, workspace = step_of(tmp_path), Workspace(tmp_path)
    assert step.images == int(0.8 * 3 * 3 * 20) * 2
    assert records.status_of(step, workspace) == records.StepStatus("missing")
    limited = step_of(tmp_path, "--engine.minutes", "4.0")
    assert (limited.images, records.status_of(limited, workspace).minutes) == (0, 4.0)

    experiment = Experiment.start(step.config, "02_resnet_ceiling")
    fabric = experiment.fabric()
    frames = experiment.frames(fabric)
    split = stratified_split(frames, seed=step.config.seed)
    trainer = experiment.trainer(experiment.network(), frames, split, fabric)
    next(iter(trainer.fit()))
    other = step_of(tmp_path, "--learning_rate", "0.5")
    assert records.status_of(other, workspace) == records.StepStatus("begun with another learning_rate")
    begun = records.status_of(step, workspace)
    assert (begun.state, begun.done) == ("begun, 1 of 2 epochs", False)
    assert begun.minutes == pytest.approx(trainer.epoch_seconds[0] / 60)

    training.train(step.config, "02_resnet_ceiling")
    done = records.status_of(step, workspace)
    assert done.done
    assert done.state.startswith("done, joint accuracy 0.")
    assert records.status_of(other, workspace) == records.StepStatus("made with another learning_rate")


@pytest.fixture
def study_without(tmp_path):
    """Makes a copy of a committed study without some of its runs; gives its step and workspace."""

    def make(name, *lost):
        (step,) = [step for step in PLAN if step.result == f"results/{name}"]
        shutil.copytree(HERE.root / step.result, tmp_path / step.result)
        workspace = Workspace(tmp_path)
        study = named_study(workspace, name)
        if lost:
            kept = [run for run in study.runs if run.name not in lost]
            replace_kept(study.workspace, kept, plan_file(study.plan))
        return step, workspace

    return make


def test_a_study_counts_the_runs_that_its_file_asks_for(study_without):
    step, workspace = study_without("learning_rate")
    assert records.status_of(step, workspace) == records.StepStatus("10 of 10 runs", done=True)


def test_a_study_says_how_long_its_missing_runs_will_take(study_without):
    step, workspace = study_without("learning_rate", "log-1.2e-2-s1")
    seconds = [run.facts["seconds"] for run in named_study(workspace, "learning_rate").runs]
    now = records.status_of(step, workspace)
    assert (now.state, now.done) == ("9 of 10 runs", False)
    assert min(seconds) / 60 < now.minutes < max(seconds) / 60


@pytest.mark.parametrize("lost", ["log-resnet18-s4", "log-resnet18-s4-on-common"])
def test_a_study_is_done_when_its_networks_are_tested_on_other_frames_too(study_without, lost):
    assert records.status_of(*study_without("networks", lost)).state == "23 of 24 runs"


def test_a_run_of_a_study_with_other_parameters_is_named(study_without):
    step, workspace = study_without("learning_rate")
    path = workspace.results / "learning_rate" / "runs.jsonl"
    first, *others = path.read_text(encoding="utf8").splitlines()
    name = json.loads(first)["run"]
    first = first.replace('"batch_size": 64', '"batch_size": 65')
    path.write_text("\n".join([first, *others]), encoding="utf8")
    state = records.status_of(step, workspace)
    assert state == records.StepStatus(f"{name} made with another batch_size")


def python(text, result):
    step = Step(needs="cpu", command=f"python -c {shlex.quote(text)}")
    vars(step)["result"] = result
    return step


def test_what_is_missing_is_carried_out_in_order_until_the_time_is_up(tmp_path, capsys):
    write = "import pathlib; pathlib.Path({0!r}).write_text('x')"
    wait = "import time; time.sleep(600)"
    steps = [python(write.format("a"), "a"), python(write.format("b"), "b"), python(wait, "c")]
    steps.append(python(write.format("d"), "d"))
    (tmp_path / "a").write_text("was there", encoding="utf8")
    how = records.run_pending(steps, lambda s: (tmp_path / s.result).exists(), tmp_path, minutes=0.1)
    assert how == "stopped in c; the same command goes on there"
    assert (tmp_path / "a").read_text(encoding="utf8") == "was there"
    assert (tmp_path / "b").exists()
    assert not (tmp_path / "d").exists()
    assert capsys.readouterr().out.count("$ python") == 2
    how = records.run_pending(steps[:1], lambda s: False, tmp_path, minutes=0)
    assert how == "time is up before a; the same command goes on there"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_let_the_command_save(tmp_path, number):
    """A scheduler may signal this process alone."""
    (tmp_path / "work.py").write_text(
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path('saved').touch(), sys.exit(75)))\n"
        "pathlib.Path('begun').touch()\n"
        "time.sleep(600)\n"
    )
    (tmp_path / "main.py").write_text(
        "import pathlib, signal\n"
        "from amc_utils.studies import records\n"
        "for number in (signal.SIGTERM, signal.SIGHUP):\n"
        "    signal.signal(number, records.stop_at_once)\n"
        "step = records.Step(needs='cpu', command='python work.py', leaves='work')\n"
        "print(records.run_pending([step], lambda step: False, pathlib.Path(), minutes=9))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "main.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    assert "stopped in work; the same command goes on there" in process.communicate()[0]
    assert (tmp_path / "saved").exists()


def test_what_fails_or_leaves_nothing_is_named_and_the_rest_is_done(tmp_path):
    steps = [python("raise SystemExit(3)", "x"), python("pass", "y"), python("open('z', 'w')", "z")]
    sentence = r"no result as planned, see above: x \(status 3\), y \(status 0\); all done"
    with pytest.raises(RuntimeError, match=sentence):
        records.run_pending(steps, lambda step: (tmp_path / step.result).exists(), tmp_path, minutes=1)
    assert (tmp_path / "z").exists()


def test_work_that_is_stopped_goes_on_where_it_was(tmp_path):
    """Ever more time, at first too little to finish; the run equals one that was made at once."""
    slow = ("--num_epochs", "3", "--num_frames_per_cell", "400")
    step, whole = step_of(tmp_path, *slow), step_of(tmp_path / "whole", *slow)
    workspace = Workspace(tmp_path)
    done = lambda step: records.status_of(step, workspace).done  # noqa: E731
    tries = 0
    while not done(step):
        tries += 1
        how = records.run_pending([step], done, REPOSITORY, minutes=0.025 * 2**tries)
    assert how == "all done"
    assert tries > 1
    training.train(whole.config, "02_resnet_ceiling")
    mine, theirs = (list_runs(Workspace(root))[0] for root in (tmp_path, tmp_path / "whole"))
    assert mine.predictions.equals(theirs.predictions)


def test_runs_of_set_time_are_stopped_go_on_and_are_packed(tmp_path, capsys, monkeypatch):
    """As on a GPU that is there for minutes; the number of epochs that was chosen first stays."""
    plan, archive = tmp_path / "plan.yaml", tmp_path / "results.tar.gz"
    words = ["--engine.minutes", "0.06", "--schedule", "one_cycle", "--num_frames_per_cell", "60"]
    steps = [step_of(tmp_path, *words, run=name) for name in ("first", "second")]
    plan.write_text(yaml.safe_dump({"steps": [step.model_dump() for step in steps]}), encoding="utf8")
    options = {"plan": str(plan), "output_root": str(tmp_path)}
    workspace = Workspace(tmp_path)
    tries = 0
    while not all(records.status_of(step, workspace).done for step in steps):
        tries += 1
        records.records(minutes=0.01 * 2**tries, **options)
    assert tries > 1
    assert "another num_epochs" not in capsys.readouterr().out
    for run in list_runs(workspace):
        config = run.facts["config"]
        assert config["num_epochs"] == run.facts["epochs"]
    half = workspace.runs / ".third.0" / "runs.jsonl"
    half.parent.mkdir()
    half.touch()
    monkeypatch.chdir(tmp_path)
    records.records(pack=archive.name, **options)
    with tarfile.open(archive) as packed:
        names = packed.getnames()
    assert {f"outputs/runs/main/{name}/runs.jsonl" for name in ("first", "second")} <= set(names)
    assert not [name for name in names if name.endswith(".ckpt") or "/." in name]


def test_studies_and_what_was_measured_are_packed(study_without):
    study, workspace = study_without("learning_rate")
    measured = Step(needs="gpu", command="python x.py", leaves="outputs/speed.txt")
    workspace.outputs.mkdir()
    for name in ("speed.csv", "other.csv"):
        (workspace.outputs / name).touch()
    archive = workspace.root / "results.tar.gz"
    on_gpu = study.model_copy(update={"needs": "gpu"})
    records.pack_results(workspace, [on_gpu, measured], archive)
    with tarfile.open(archive) as packed:
        names = packed.getnames()
    assert {"outputs/speed.csv", "results/learning_rate/runs.jsonl"} <= set(names)
    assert "outputs/other.csv" not in names


def test_a_run_that_took_other_time_or_no_gpu_is_not_the_one_wanted(tmp_path):
    small = ("--engine.minutes", "0.001")
    training.train(step_of(tmp_path, *small).config, "02_resnet_ceiling")
    workspace, step = Workspace(tmp_path), step_of(tmp_path, *small)
    assert records.status_of(step, workspace).done
    longer = step_of(tmp_path, "--engine.minutes", "4.0")
    assert records.status_of(longer, workspace).state == "made with another engine.minutes"
    on_gpu = step.model_copy(update={"needs": "gpu"})
    assert records.status_of(on_gpu, workspace) == records.StepStatus("made without a GPU")


def test_nothing_to_pack_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="must hold runs to be packed, it has none"):
        records.pack_results(Workspace(tmp_path), PLAN, tmp_path / "results.tar.gz")
    assert not (tmp_path / "results.tar.gz").exists()


def test_make_paper_prints_where_things_stand_and_the_next_command():
    words = [sys.executable, "-m", "amc_utils", "records"]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert all(step.result in printed for step in PLAN)
    missing = [step for step in PLAN if not records.status_of(step, HERE).done]
    nexts = {step.needs: step for step in reversed(missing)}
    assert all(f"Next on a {needs.upper()}" in printed for needs in nexts)
    assert all(f"\n{step.command}\n" in printed for step in nexts.values())

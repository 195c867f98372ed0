"""Notebooks: their form, their parameters, and that they run, on both kinds of data."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

from amc_utils.config import TrainingParameters
from amc_utils.results import list_runs, load_run
from amc_utils.runtime.paths import REPOSITORY, Workspace
from amc_utils.studies.notebooks import (
    AnalysisParameters,
    AnatomyParameters,
    ChoicesParameters,
    ClaimsParameters,
    ComparedTrainingParameters,
    ExplorationParameters,
    RealFileParameters,
)
from amc_utils.studies.study import run_study

FOLDER = REPOSITORY / "notebooks"
PARAMETERS = {
    "01_data_exploration": ExplorationParameters,
    "02_resnet_ceiling": TrainingParameters,
    "03_swin_training": ComparedTrainingParameters,
    "04_per_class_analysis": AnalysisParameters,
    "05_ceiling_anatomy": AnatomyParameters,
    "06_choices_and_channels": ChoicesParameters,
    "07_claims": ClaimsParameters,
    "08_real_file_curves": RealFileParameters,
}
NAMES = list(PARAMETERS)
SMOKE = REPOSITORY / "profiles" / "smoke"
FORBIDDEN = re.compile(r"^\s*[!%]|sys\.path|os\.chdir|filterwarnings|pip install", re.M)


def load(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(name):
    return [cell for cell in load(name).cells if cell.cell_type == "code"]


def defaults(name):
    """Values of the parameters cell, evaluated as the literals that they must be."""
    lines = ast.parse(code_cells(name)[0].source).body
    assert all(isinstance(line, ast.AnnAssign) for line in lines)
    return {line.target.id: ast.literal_eval(line.value) for line in lines}


def test_no_notebook_is_forgotten():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_notebook_is_stripped_and_short(name):
    notebook, cells = load(name), code_cells(name)
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    assert notebook.metadata.keys() == {"kernelspec"}
    assert notebook.metadata.kernelspec.name == "python3"
    lengths = sorted(len(cell.source.splitlines()) for cell in cells)
    # The parameters cell is a list and may be as long as the list is.
    assert max(len(cell.source.splitlines()) for cell in cells[1:]) <= 25
    assert lengths[len(lengths) // 2] <= 8
    prose = " ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    lines = [line for cell in cells for line in cell.source.splitlines() if line.strip()]
    assert len(prose.split()) >= 3 * len(lines)
    for field in ("**Reads**", "**Writes**", "**Takes**", "**Reaches**"):
        assert field in notebook.cells[0].source


@pytest.mark.parametrize("name", NAMES)
def test_notebook_defines_nothing_and_does_no_magic(name):
    for cell in code_cells(name):
        assert not FORBIDDEN.search(cell.source)
        kinds = {type(node) for node in ast.walk(ast.parse(cell.source))}
        assert not kinds & {ast.ClassDef, ast.FunctionDef, ast.Global, ast.Try}


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_saved_where_they_are_drawn(name):
    for cell in code_cells(name):
        drawn = len(re.findall(r"(plots|browser)\.(figure|gallery|glance)\(", cell.source))
        assert drawn == cell.source.count("plots.save(")


@pytest.mark.parametrize("name", NAMES)
def test_parameters_cell_is_what_papermill_and_the_config_expect(name):
    cells = code_cells(name)
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == cells[:1]
    assert all(line.count("=") == 1 for line in cells[0].source.splitlines())
    inspected = papermill.inspect_notebook(str(FOLDER / f"{name}.ipynb"))
    assert inspected.keys() == defaults(name).keys()
    more = {"config_file", "overrides"} if issubclass(PARAMETERS[name], TrainingParameters) else set()
    assert defaults(name).keys() - more <= PARAMETERS[name].model_fields.keys()
    assert len(inspected) <= 23
    assert all(entry["help"] for entry in inspected.values()), "each parameter says what it is"
    PARAMETERS[name].from_notebook(defaults(name))
    # A later cell that binds a parameter's name would make its set-up cell fail when run again.
    later = ast.parse("\n".join(cell.source for cell in cells[1:]))
    bound = {n.id for n in ast.walk(later) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    assert not bound & defaults(name).keys()


def test_what_stands_above_what(tmp_path):
    """Defaults, then the file, then what the cell changes, overrides, and what papermill injects."""
    file = tmp_path / "c.yaml"
    file.write_text("{num_epochs: 9, batch_size: 8, seed: 3, engine: {accumulate: 2}}", encoding="utf8")
    cell = {"num_epochs": 4, "seed": 2018, "learning_rate": 1e-4, "batch_size": 32}
    space = cell | {"config_file": str(file), "overrides": {"seed": 5, "engine": {"cache": False}}}
    config = TrainingParameters.from_notebook(space)
    assert (config.num_epochs, config.batch_size, config.seed) == (9, 8, 5)
    assert (config.engine.accumulate, config.engine.cache) == (2, False)
    injected = {"In": ["", "# Parameters\nseed = 7\n"], "seed": 7}
    assert TrainingParameters.from_notebook(space | injected).seed == 7
    with pytest.raises(ValueError, match="num_epochs must be said once, got 5 in the cell and 9 in"):
        TrainingParameters.from_notebook(space | {"num_epochs": 5})
    with pytest.raises(ValueError, match="num_epochs must be"):
        TrainingParameters.from_notebook({"num_epochs": 4.0})
    with pytest.raises(ValueError, match="overrides must be a dict of parameters, got None"):
        TrainingParameters.from_notebook(space | {"overrides": None})


@pytest.mark.parametrize(
    "path", sorted(REPOSITORY.glob("profiles/*/0*.yaml")), ids=lambda p: p.parent.name
)
def test_profile_overrides_parameters_that_exist_with_values_that_are_right(path):
    overrides = yaml.safe_load(path.read_text(encoding="utf8"))
    PARAMETERS[path.stem].from_notebook(defaults(path.stem) | {"overrides": overrides})


def test_paper_profile_is_the_full_problem_with_the_log_s_settings():
    for name in ("02_resnet_ceiling", "03_swin_training"):
        text = (REPOSITORY / "profiles" / "paper" / f"{name}.yaml").read_text(encoding="utf8")
        config = TrainingParameters.from_notebook(defaults(name) | {"overrides": yaml.safe_load(text)})
        cells = len(config.modulation_names) * len(config.snr_labels)
        assert (cells, cells * config.num_frames_per_cell) == (442, 1_810_432)
        settings = (config.batch_size, config.learning_rate, config.dropout, config.weight_decay)
        assert settings == (32, 1e-4, 0.3, 1e-5)
        assert config.image_size == 224


def test_02_and_03_offer_the_same_parameters_and_03_repeats_nothing_of_02():
    """One network each; the interruption and what 02 explains stand in 02 alone."""
    ours, theirs = defaults("02_resnet_ceiling"), defaults("03_swin_training")
    assert list(ours) == list(theirs)
    assert {k for k in ours if ours[k] != theirs[k]} == {"network", "config_file"}
    sources = [
        "\n".join(cell.source for cell in load(name).cells)
        for name in ("02_resnet_ceiling", "03_swin_training")
    ]
    assert all("for row in trainer.fit():" in source for source in sources)
    assert ["An interruption, on purpose" in source for source in sources] == [True, False]
    prose = [
        {cell.source for cell in load(name).cells if cell.cell_type == "markdown"}
        for name in ("02_resnet_ceiling", "03_swin_training")
    ]
    assert not prose[0] & prose[1]


def test_03_compares_with_a_run_that_is_there_or_says_its_name(tmp_path):
    values = defaults("03_swin_training") | {"output_root": str(tmp_path)}
    config = ComparedTrainingParameters.from_notebook(values)
    assert type(config.training) is TrainingParameters
    assert config.training.network_options == {"window_size": 4}
    with pytest.raises(FileNotFoundError, match="no run named 'nobody' in"):
        ComparedTrainingParameters.from_notebook(
            values | {"overrides": {"compare_with": "nobody", "output_root": str(tmp_path)}}
        )


def run_papermill(notebook, *arguments, output):
    command = [sys.executable, "-m", "papermill", str(FOLDER / f"{notebook}.ipynb"), str(output)]
    command += ["-k", "python3", "--no-progress-bar", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=output.parent)


def assess(root, what, name, *arguments):
    """A run that trains nothing, on the classes of the smoke profiles."""
    classes = ("--modulations", "[BPSK, QPSK, OQPSK]", "--snr_range_db", "[0, 20, 10]")
    if what == "network":
        classes = ()
    command = ["-m", "amc_utils", "evaluate", what, "--run_name", name, "--output_root", str(root)]
    done = subprocess.run(
        [sys.executable, *command, *classes, "--num_frames_per_cell", "4", *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def study(root, name, variants, **transfers):
    """A study at smoke size; what its variants change follows from their names."""
    own = ("run_name", "seed", "output_root")
    base = yaml.safe_load((SMOKE / "02_resnet_ceiling.yaml").read_text())
    changes = {
        variant: {
            "channels": ["raw" if "raw" in variant and "without" not in variant else "noise"],
            "num_epochs": 2 if "2-epochs" in variant else 1,
            "image_size": {"log-64": 64, "log-96": 96}.get(variant[:6], 32),
            "channel": {"delay_spread": 1.0} if "wide" in variant else {},
        }
        for variant in variants
    }
    content = {
        "question": "Does it run?",
        "seeds": [1, 2],
        "base": {key: value for key, value in base.items() if key not in own},
        "variants": changes,
        "transfers": transfers,
    }
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf8")
    assert run_study(path, str(root)) == []


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Path:
    """All notebooks in order at smoke size, as papermill runs them, and what 05 reads besides."""
    root = tmp_path_factory.mktemp("chain")

    def execute(name, *arguments, output):
        where = ("-f", str(SMOKE / f"{name}.yaml"), "-p", "output_root", str(root))
        done = run_papermill(name, *where, *arguments, output=root / f"{output}.ipynb")
        assert done.returncode == 0, done.stderr[-3000:]

    stack = ("-y", "channels: [stack]", "-p", "run_name", "smoke-stack")
    execute("02_resnet_ceiling", *stack, output="02_stack")
    samples = (
        "-y",
        "channels: [iq]",
        "-p",
        "network",
        "oshea_resnet",
        "-p",
        "run_name",
        "smoke-samples",
    )
    execute("02_resnet_ceiling", *samples, output="02_samples")
    for name in NAMES[:4]:
        execute(name, output=name)
    assess(root, "bound", "smoke-bound")
    assess(root, "bound", "smoke-known", "--snr_known", "true")
    assess(root, "receiver", "smoke-receiver")
    weights = root / "outputs" / "checkpoints" / "smoke-stack" / "best.ckpt"
    assess(root, "network", "smoke-elsewhere", "--checkpoint", str(weights))
    study(root, "smoke-channels", ["stack", "only-raw", "without-raw"])
    study(root, "smoke-frames", ["ordered-1-epoch", "log-1-epoch", "ordered-2-epochs", "log-2-epochs"])
    study(root, "smoke-sizes", ["log-64-1-epoch", "log-64-2-epochs", "log-96-1-epoch"])
    study(root, "smoke-prior", ["stack-narrow", "stack-wide"], **{"narrow-channel": {}})
    for name in NAMES[4:]:
        execute(name, output=name)
    return root


def test_chain_leaves_runs_figures_and_a_diary(chain):
    runs = list_runs(Workspace(chain))
    trained = [run for run in runs if run.kind == "network"]
    notebooks = [run.facts["notebook"] for run in trained]
    assert notebooks == 3 * ["02_resnet_ceiling"] + ["03_swin_training"]
    assert all(run.facts["config"]["profile"] == "smoke" for run in trained)
    assert [run.kind for run in runs[4:]] == ["bound", "bound", "receiver", "transfer"]
    assert "## Study smoke-channels" in (chain / "RUNLOG.md").read_text(encoding="utf8")
    figures = {path.stem for path in (chain / "figures").glob("*.pdf")}
    assert figures == {path.stem for path in (chain / "figures").glob("*.png")}
    executed = [*NAMES, "02_resnet_ceiling", "02_resnet_ceiling"]
    cells = [cell.source for name in executed for cell in code_cells(name)]
    drawn = sum(source.count("plots.save(") + source.startswith('show("') for source in cells)
    assert len(figures) == drawn


def test_03_puts_its_run_beside_that_of_02(chain):
    """The newest ResNet on the same image; both stand in the paired table."""
    cells = nbformat.read(chain / "03_swin_training.ipynb", as_version=4).cells
    text = "".join(str(cell.get("outputs", "")) for cell in cells)
    assert "beside run smoke-plain" in text
    (paired,) = [str(c.outputs) for c in cells if "metrics.paired_comparison" in c.source]
    assert all(f"{network}, counts_8_bit" in paired for network in ("swin_tiny", "resnet18"))


@pytest.mark.parametrize("name", NAMES)
def test_executed_notebook_is_readable(chain, name):
    """No error, no dead widget, no leftover warning, and a result under every cell that shows one."""
    notebook = nbformat.read(chain / f"{name}.ipynb", as_version=4)
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    assert not [out for out in outputs if out.output_type == "error"]
    assert not [out for out in outputs if "widget-view" in str(out.get("data", {}).keys())]
    assert not [out for out in outputs if out.get("name") == "stderr"]


def test_01_looks_at_a_radioml_file_and_audits_it(gnuradio_slice, tmp_path):
    settings = {"data_path": str(gnuradio_slice), "modulations": ["all"], "snr_range_db": [10, 30, 20]}
    yaml_text = yaml.safe_dump(settings | {"output_root": str(tmp_path)})
    done = run_papermill("01_data_exploration", "-y", yaml_text, output=tmp_path / "out.ipynb")
    assert done.returncode == 0, done.stderr[-3000:]
    text = (tmp_path / "out.ipynb").read_text(encoding="utf8")
    assert "labels follow the corrected list, confidence 1.0000" in text
    assert "share that looks like its name" in text


def test_03_runs_on_a_radioml_file_and_resumes_to_the_same_run(gnuradio_slice, tmp_path):
    """One epoch, then three more from the checkpoint, against four at once; bit for bit."""
    settings = {
        "data_path": str(gnuradio_slice),
        "modulations": ["BPSK", "QPSK", "OQPSK", "16QAM"],
        "snr_range_db": [10, 30, 20],
        "batch_size": 4,
    }
    swin = {"network_options": {"window_size": 2, "embed_dim": 12}}
    yaml_text = yaml.safe_dump(settings | swin | {"output_root": str(tmp_path)})
    first = ("-y", yaml_text, "-p", "run_name", "one", "-p", "num_epochs", "1")
    second = ("-y", yaml_text, "-p", "run_name", "three-more", "-p", "num_epochs", "4")
    checkpoint = tmp_path / "outputs" / "checkpoints" / "one" / "last.ckpt"
    straight = ("-y", yaml_text, "-p", "run_name", "four", "-p", "num_epochs", "4")
    for arguments in (first, (*second, "-p", "resume_from", str(checkpoint)), straight):
        done = run_papermill("03_swin_training", *arguments, output=tmp_path / "out.ipynb")
        assert done.returncode == 0, done.stderr[-3000:]
    resumed, whole = (load_run(name, str(tmp_path)) for name in ("three-more", "four"))
    assert resumed.history.equals(whole.history)
    assert resumed.predictions.equals(whole.predictions)
    assert resumed.facts["data"]["source"]["label"] == "frames of gnuradio_slice.h5"
    config = resumed.facts["config"]
    assert (config["data_path"], config["resume_from"]) == ("gnuradio_slice.h5", "one/last.ckpt")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["-p", "learning_rat", "1.0e-3"],
            "unknown parameter learning_rat; did you mean learning_rate?",
        ),
        (["-r", "learning_rate", "1e-4"], "learning_rate must be a valid number, got '1e-4'"),
        (["-p", "data_path", "nowhere.h5"], "RadioML file not found: nowhere.h5; README"),
        (["-y", "modulations: [QPKS]"], "modulations must name classes .*, got 'QPKS'"),
        (["-p", "image_size", "30"], "image_size must be a multiple of 32 for swin_tiny .*, got 30"),
    ],
)
def test_wrong_parameter_stops_with_one_sentence_and_leaves_nothing(arguments, sentence, tmp_path):
    written = tmp_path / "written"
    done = run_papermill(
        "03_swin_training", *arguments, "-p", "output_root", str(written), output=tmp_path / "out.ipynb"
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert re.search(rf"^(ValueError|FileNotFoundError): {sentence}", last), last
    assert not written.exists()

"""The architecture, read from the source: who may import whom, and how long things may get."""

from __future__ import annotations

import ast

import pytest

from amc_utils.runtime.paths import REPOSITORY

# A module imports from earlier rows only.
ROWS = (
    {
        "paths",
        "labels",
        "channel",
        "engine",
        "storage",
        "progress",
        "interruption",
        "locking",
        "losses",
        "yaml_text",
    },
    {"parameters", "symbol_maps", "one_dimensional", "analogue", "site"},
    {"config"},
    {"signals", "optimisation", "metrics", "models", "records", "checkpoints"},
    {
        "recording",
        "synchronisation",
        "bounds",
        "frames",
        "features",
        "file_measures",
        "plots",
        "study_records",
        "claim_measures",
        "synthetic_file",
        "hdf5_checks",
        "novelty",
        "foreign",
        "attribution",
    },
    {"radioml", "claim_rules", "captures", "file_facts"},
    {"data", "sharding", "runlog", "audit_report", "claim_table", "kept_frames", "trace"},
    {"carrier", "receiver", "cache", "claims"},
    {"views", "recognition", "audit_channel", "audit_snr"},
    {"constellation", "audit_measures"},
    {"evaluation", "signal_plots", "audit_signal"},
    {"audit_presets"},
    {"audit_verdicts", "frame_board", "live", "opinion_board"},
    {"audit", "explorer"},
    {"learning", "trust", "tracking"},
    {"training"},
    {"experiment"},
    {"decisions", "train", "classifier"},
    {"shared_scaling", "assess", "study_plan", "classify", "model_report", "frame_browser"},
    {"study", "export", "paper_plan"},
    {"paper"},
    {"__main__"},
)
# Each heavy package has one home (or one per purpose).
HOMES = {
    "h5py": {"data", "radioml", "hdf5_checks", "synthetic_file"},
    "timm": {"models"},
    "matplotlib": {
        "plots",
        "signal_plots",
        "frame_board",
        "explorer",
        "live",
        "opinion_board",
        "frame_browser",
    },
    "ipywidgets": {"explorer", "frame_browser"},
    "captum": {"attribution"},
    "seaborn": {"plots"},
    "lightning": {"evaluation", "learning", "training", "checkpoints", "experiment", "tracking"},
    "pydantic": {"parameters", "config", "engine", "study_plan", "claim_rules", "paper_plan"},
    "sklearn": {"metrics", "novelty", "model_report"},
    "sigmf": {"captures"},
    "safetensors": {"classifier"},
    "coolname": {"records"},
    "joblib": {"study"},
    "tqdm": {"progress"},
    "filelock": {"checkpoints", "locking"},
    "psutil": {"storage"},
    "nbconvert": {"site"},
    "papermill": set(),
    "IPython": set(),
}
MODULES = {p.stem: p for p in sorted((REPOSITORY / "amc_utils").glob("*.py")) if p.stem != "__init__"}


def imported(tree):
    """Full names of imported modules; `from amc_utils import x` counts as amc_utils.x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module == "amc_utils":
                yield from (f"amc_utils.{alias.name}" for alias in node.names)
            else:
                yield node.module


def test_every_module_has_a_row():
    assert set().union(*ROWS) == set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_module_imports_from_earlier_rows_only(name):
    row = next(number for number, members in enumerate(ROWS) if name in members)
    allowed = set().union(*ROWS[:row])
    names = imported(ast.parse(MODULES[name].read_text(encoding="utf8")))
    own = {full.split(".")[1] for full in names if full.startswith("amc_utils.")}
    assert own <= allowed


@pytest.mark.parametrize("name", MODULES)
def test_heavy_packages_stay_at_home(name):
    names = imported(ast.parse(MODULES[name].read_text(encoding="utf8")))
    for package in {full.split(".")[0] for full in names} & HOMES.keys():
        assert name in HOMES[package], f"{package} belongs to {HOMES[package]}"


@pytest.mark.parametrize("name", MODULES)
def test_functions_fit_on_a_screen(name):
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf8"))):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 50, f"{node.name} is too long"


@pytest.mark.parametrize("name", MODULES)
def test_importing_runs_no_statement(name):
    """Top level holds definitions and constants; calls there only build constants."""
    for node in ast.parse(MODULES[name].read_text(encoding="utf8")).body:
        guard = isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        defined = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
        assert guard or docstring or isinstance(node, defined), ast.unparse(node)

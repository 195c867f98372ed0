"""Runs and studies: tables of facts, histories and predictions, written whole or not at all.

A folder of results holds one run or many, in the same three files: runs.jsonl (a line of facts a run),
history.csv (a row an epoch) and predictions.npz (see `Run.predictions`). A new run has a folder of its
own in outputs/runs/; what is kept of them lies in results/, a folder a study, single runs in
results/main/.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import coolname
import numpy as np
import pandas as pd

from amc_utils.metrics import accuracy_table, metrics_table
from amc_utils.runtime.paths import Workspace, one_at_a_time
from amc_utils.signals import Channel, channel_from

_SAID_BY_ALL = {"run", "config", "data", "started"}
_COLUMNS = ("predicted_modulation", "predicted_snr_label", "modulation_confidence", "snr_confidence")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: where its tables lie, its own or those of many runs.
        facts: its line of runs.jsonl: parameters, data, environment, test scores with intervals.
        workspace: of its study, or of single runs.
    """

    folder: Path
    facts: Mapping[str, Any] = field(repr=False)
    workspace: Workspace

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.facts["run"]

    @property
    def place(self) -> Path:
        """Where figures say that numbers come from, kept or not yet: its study's folder, its name."""
        return self.workspace.kept / self.name

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch; none where nothing was trained.

        Raises:
            ValueError: the file is missing or damaged; so for predictions.
        """
        with _explaining(self.folder, "history.csv"):
            table = self._table("history.csv")
            mine = table[table["run"] == self.name].drop(columns="run").dropna(axis=1, how="all")
            return mine.reset_index(drop=True).astype({"epoch": int} if len(mine) else {})

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Tidy test metrics, see amc_utils.metrics.metrics_table."""
        return metrics_table(self.predictions)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """Test predictions, see amc_utils.metrics.

        In the file, runs stand one after the other (`start`), and so do the distinct sets of test
        frames (`set_start`); `test_set` says which set each run was tested on. Modulations are codes of
        the run's own list of names. Confidences have half precision, low and high bytes apart,
        which packs better.
        """
        with _explaining(self.folder, "predictions.npz"):
            stored = self._table("predictions.npz")
            number = list(stored["run"]).index(self.name)
            rows = slice(*stored["start"][number : number + 2])
            chosen = stored["test_set"][number]
            frames = slice(*stored["set_start"][chosen : chosen + 2])
            columns = {name: stored[name][frames] for name in ("frame", "modulation", "snr_label")}
            columns |= {name: stored[name][..., rows] for name in _COLUMNS}
            for name in _COLUMNS[2:]:
                columns[name] = columns[name].T.copy().view(np.float16)[:, 0]
            names = self.facts["data"]["modulations"]
            for name in ("modulation", "predicted_modulation"):
                columns[name] = pd.Categorical.from_codes(columns[name], names, ordered=True)
            kinds = {"frame": np.int64, "snr_label": np.int64, "predicted_snr_label": np.int64}
            kinds |= dict.fromkeys(_COLUMNS[2:], np.float32)
            return pd.DataFrame(columns).astype(kinds)

    def _table(self, name: str) -> Any:
        path = self.folder / name
        return _read_table(path, self.facts["files"][name], path.stat().st_mtime_ns)

    @property
    def kind(self) -> str:
        """What was tested: "network", "bound", "receiver", or "transfer" to other frames."""
        return self.facts.get("kind", "network")

    @property
    def label(self) -> str:
        """Who decided, in a few words: network and images, or the name of the receiver."""
        if self.kind in ("bound", "receiver"):
            return self.facts["network"]["name"]
        return f"{self.facts['network']['name']}, {'+'.join(self.facts['config']['channels'])}"

    def by_label(self, task: str) -> pd.DataFrame:
        """Accuracy of a task ("joint", "modulation", "snr") with its interval, a row an SNR label."""
        rows = accuracy_table(self.predictions, "snr_label").query(f"metric == '{task}_accuracy'")
        return rows.set_index(rows["level"].rename("snr_label")).sort_index()

    @cached_property
    def trained(self) -> Run:
        """The run that trained the network: itself, or that whose weights were tested elsewhere."""
        return named_run(self.workspace, self.facts["parent"]) if self.kind == "transfer" else self

    @property
    def frames_seen(self) -> int:
        """Frames that training went through, each time counted; none where nothing was trained."""
        return self.facts.get("epochs", 0) * self.facts["data"]["counts"].get("train", 0)

    @property
    def channel(self) -> Channel:
        """Channel of its frames: the generator's, or for a file the one that its parameters name."""
        named = self.facts["config"].get("channel", {})
        settings = dict(self.facts["data"]["source"].get("generator", named))
        if "pulse_exponent" in settings:
            # A run from before there could be several pulses, when fades changed a frame's power.
            settings["pulse_exponents"] = settings.pop("pulse_exponent")
            settings["fades_power"] = True
        return channel_from(settings)

    @property
    def scope(self) -> str:
        """Classes, SNR labels and source, to stand beside every number of the run."""
        return self.facts["data"]["description"]


# Many runs share a file; each would unpack all of it. A file that changes is read anew.
@lru_cache(maxsize=8)
def _read_table(path: Path, digest: str, _written: int) -> pd.DataFrame | dict[str, np.ndarray]:
    content = path.read_bytes()
    if digest != hashlib.sha256(content).hexdigest():
        raise ValueError("it was changed after the run")
    if path.suffix == ".csv":
        names = {"dtype": {"run": str}, "keep_default_na": False, "na_values": [""]}
        return pd.read_csv(io.BytesIO(content), **names)
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return dict(stored)


@contextmanager
def _explaining(folder: Path, name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        problem = "is missing"
    except (ValueError, LookupError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        problem = f"is damaged ({(str(error) or repr(error)).splitlines()[0]})"
    else:
        return
    raise ValueError(
        f"results in {folder} must be as they were written, {name} {problem}; restore it, or move the "
        f"folder away"
    )


def _read(folder: Path, workspace: Workspace) -> list[Run]:
    """Runs of a folder of results.

    Raises:
        ValueError: a damaged table of facts.
    """
    with _explaining(folder, "runs.jsonl"):
        lines = (folder / "runs.jsonl").read_text(encoding="utf8").splitlines()
        facts = [json.loads(line) for line in lines]
        if not all(run.keys() >= _SAID_BY_ALL for run in facts):
            raise ValueError("it lacks what every run says of itself")
        return [Run(folder, run, workspace) for run in facts]


def kept_runs(workspace: Workspace) -> list[Run]:
    """Runs in results/, of the workspace's study or single ones."""
    if not workspace.kept.exists() and _former(workspace.kept).exists():
        with one_at_a_time(workspace.outputs / ".keep.lock", "putting runs into results/"):
            _recover(workspace.kept)
    is_there = (workspace.kept / "runs.jsonl").is_file()
    return _read(workspace.kept, workspace) if is_there else []


def new_runs(workspace: Workspace) -> list[Run]:
    """Runs in outputs/runs/, of the workspace's study or single ones."""
    folders = sorted(path.parent for path in workspace.runs.glob("[!.]*/runs.jsonl"))
    return [run for folder in folders for run in _read(folder, workspace)]


def list_runs(workspace: Workspace) -> list[Run]:
    """Finished runs of the workspace's study or single ones, kept or new, oldest first."""
    # A run whose keeping was interrupted lies in both places.
    runs = {run.name: run for run in (*new_runs(workspace), *kept_runs(workspace))}
    return sorted(runs.values(), key=lambda run: (run.facts["started"], run.name))


def new_run_name(workspace: Workspace) -> str:
    """Unused name of the kind adjective-noun-number; the number counts the runs that exist."""
    return f"{coolname.generate_slug(2)}-{len(list_runs(workspace)) + 1}"


def claim_run_name(wanted: str, workspace: Workspace) -> str:
    """The wanted name if it is free, or a new one if none is wanted.

    Raises:
        ValueError: the name belongs to a finished run, which is never overwritten.
    """
    for run in list_runs(workspace):
        if run.name == wanted:
            raise ValueError(
                f"run_name must be new, got {wanted!r}, which names a finished run in {run.folder}; "
                f"choose another, or leave run_name empty to be given one"
            )
    return wanted or new_run_name(workspace)


def named_run(workspace: Workspace, name: str) -> Run:
    """The run of that name.

    Raises:
        FileNotFoundError: there is none.
    """
    runs = {run.name: run for run in list_runs(workspace)}
    if name not in runs:
        raise FileNotFoundError(
            f"no run named {name!r} in {workspace.kept} or {workspace.runs}; there are "
            f"{', '.join(runs) or 'none'}"
        )
    return runs[name]


def load_run(name: str, output_root: str = "", study: str = "") -> Run:
    """The run of that name below `output_root`, or of the repository; of a study if one is named.

    Raises:
        FileNotFoundError: there is none.
    """
    return named_run(Workspace.at(output_root, study), name)


def select_runs(workspace: Workspace, names: Sequence[str]) -> list[Run]:
    """The named runs, or the newest of each network and images tested like the newest trained run.

    Raises:
        FileNotFoundError: a name without a run, or no run at all.
        ValueError: named runs that were not tested on the same frames, so cannot be compared.
    """
    if names:
        chosen = [named_run(workspace, name) for name in names]
        if len({_test_frames(run) for run in chosen}) > 1:
            raise ValueError(f"runs must share their test frames to be compared, got {list(names)}")
        return chosen
    trained = [run for run in list_runs(workspace) if run.kind == "network"]
    if not trained:
        raise FileNotFoundError(f"no finished run in {workspace.root}; run notebook 02 or 03 first")
    alike = [run for run in trained if _test_frames(run) == _test_frames(trained[-1])]
    newest = {run.label: run for run in alike}
    return sorted(newest.values(), key=lambda run: run.facts["network"]["flops_per_frame"])


def other_network(
    workspace: Workspace, config: Mapping[str, Any], test_frames: str, name: str = ""
) -> Run | None:
    """The run beside which one of these parameters is put: another network, the same test frames.

    Args:
        workspace: of single runs.
        config: parameters network, channels and image_size of the run itself.
        test_frames: its test frames, by amc_utils.data.split_fingerprint.
        name: run to take, whatever it was given; empty for the newest of another network that was given
            the same images.

    Returns:
        The run, or None if none is named and there is none.

    Raises:
        FileNotFoundError: there is no run of that name.
        ValueError: the named run was tested on other frames, so cannot be compared.
    """
    if name:
        run = named_run(workspace, name)
        if _test_frames(run) != test_frames:
            raise ValueError(
                f"compare_with must name a run tested on the same frames, got {name!r}, tested "
                f"on others ({run.scope}); the same data parameters and seed give the same frames"
            )
        return run
    images = {name: config[name] for name in ("channels", "image_size")}
    found = [
        run
        for run in list_runs(workspace)
        if run.kind == "network"
        and _test_frames(run) == test_frames
        and run.facts["network"]["name"] != config["network"]
        and images.items() <= run.facts["config"].items()
    ]
    return found[-1] if found else None


def _test_frames(run: Run) -> str:
    return run.facts["data"].get("test_sha256", run.name)


def by_label(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by their label, or by their own name where two have the same."""
    labels = [run.label for run in runs]
    return {
        label if labels.count(label) == 1 else run.name: run
        for label, run in zip(labels, runs, strict=True)
    }


def differing_parameters(runs: Mapping[str, Run]) -> pd.DataFrame:
    """Parameters that are not the same in all runs, a row each; what a comparison compares.

    One that a run has not, being older than the parameter, counts as the same.
    """
    configs = {label: run.facts["config"] for label, run in runs.items()}
    table = pd.DataFrame({n: pd.Series(own | own.get("engine", {})) for n, own in configs.items()})
    same = table.map(str, na_action="ignore").nunique(axis=1) <= 1
    return table[~same].drop(index=["run_name", "resume_from", "engine"], errors="ignore")


def write_run(
    workspace: Workspace,
    *,
    facts: Mapping[str, Any],
    predictions: pd.DataFrame,
    history: pd.DataFrame | None = None,
) -> Run:
    """Write a new run's folder below outputs/runs/; it appears whole or not at all.

    Args:
        workspace: of its study, or of single runs.
        facts: its line of runs.jsonl, to which its modulations and test scores are added.
        predictions: see amc_utils.metrics.
        history: one row per epoch; None where nothing was trained.

    Raises:
        FileExistsError: the folder exists.
        ValueError: facts that are no JSON.
    """
    overall = metrics_table(predictions).query("group == 'all'").set_index("metric")
    scores = overall[["value", "low", "high"]].astype(float).to_dict("index")
    names = {"modulations": list(predictions["modulation"].cat.categories)}
    facts = {**facts, "test": facts.get("test", {}) | scores, "data": facts["data"] | names}
    folder = workspace.runs / facts["run"]
    if folder.exists():
        raise FileExistsError(f"{folder} holds a finished run, which is never overwritten")
    content = (facts, pd.DataFrame() if history is None else history, predictions)
    with _new_folder(folder) as temporary:
        _write(temporary, [content])
    return _read(folder, workspace)[0]


def keep(workspace: Workspace, names: Sequence[str], beside: Mapping[str, str] | None = None) -> Path:
    """Put new runs into the workspace's folder of results/; returns the folder.

    One process at a time does so. Folders of the new runs go once they are there; whatever interrupts
    it, each run is in one place at least.

    Args:
        workspace: of a study, or of single runs.
        names: of runs, in the order in which they shall stand there, after others.
        beside: other files of the folder, as name and text.

    Raises:
        FileNotFoundError: there is no such run.
    """
    with one_at_a_time(workspace.outputs / ".keep.lock", "putting runs into results/"):
        _recover(workspace.kept)
        found = [named_run(workspace, name) for name in names]
        others = [run for run in kept_runs(workspace) if run.name not in names]
        replace_kept(workspace, [*others, *found], beside)
        for run in found:
            if run.folder != workspace.kept:
                shutil.rmtree(run.folder)
    return workspace.kept


def replace_kept(
    workspace: Workspace, runs: Sequence[Run], beside: Mapping[str, str] | None = None
) -> None:
    """Let the workspace's folder of results/ hold these runs, and files beside them, alone."""
    with _new_folder(workspace.kept) as temporary:
        _write(temporary, [(run.facts, run.history, run.predictions) for run in runs])
        for name, text in (beside or {}).items():
            (temporary / name).write_text(text, encoding="utf8")


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Temporary folder that takes the place of `folder` when the block succeeds."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if folder.exists():
            folder.rename(_former(folder))
        temporary.rename(folder)
    finally:
        _recover(folder)
        shutil.rmtree(temporary, ignore_errors=True)


def _former(folder: Path) -> Path:
    """Where a folder is while another takes its place."""
    return folder.with_name(f".{folder.name}.former")


def _recover(folder: Path) -> None:
    """Finish what was interrupted: the former folder returns if no other has come, else it goes."""
    former = _former(folder)
    if former.exists() and not folder.exists():
        former.rename(folder)
    shutil.rmtree(former, ignore_errors=True)


def _write(folder: Path, runs: Sequence[tuple[Mapping, pd.DataFrame, pd.DataFrame]]) -> None:
    """Tables of facts, histories and predictions, and check sums of the last two in the first."""
    histories = [history.assign(run=facts["run"]) for facts, history, _ in runs if len(history)]
    table = pd.concat(histories) if histories else pd.DataFrame(columns=["epoch", "run"])
    columns = ["run", *table.columns.drop("run")]
    table[columns].to_csv(folder / "history.csv", index=False, lineterminator="\n")
    with zipfile.ZipFile(folder / "predictions.npz", "w") as packed:
        for name, column in _columns(runs).items():
            # A sixth smaller than what numpy's own function makes, and as easily read.
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_LZMA
            with packed.open(entry, "w") as file:
                np.lib.format.write_array(file, column, allow_pickle=False)
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    lines = [
        json.dumps({**facts, "files": files}, ensure_ascii=False, allow_nan=False) for facts, *_ in runs
    ]
    (folder / "runs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf8")


def _columns(runs: Sequence[tuple[Mapping, pd.DataFrame, pd.DataFrame]]) -> dict[str, np.ndarray]:
    """Arrays of predictions.npz, see Run.predictions."""
    sets: dict[bytes, tuple[int, dict[str, np.ndarray]]] = {}
    test_set, found = [], {name: [] for name in _COLUMNS}
    for _, _, table in runs:
        frames = {
            "frame": table["frame"].to_numpy(np.int32),
            "modulation": table["modulation"].cat.codes.to_numpy(np.uint8),
            "snr_label": table["snr_label"].to_numpy(np.int16),
        }
        key = b"".join(column.tobytes() for column in frames.values())
        test_set.append(sets.setdefault(key, (len(sets), frames))[0])
        found["predicted_modulation"].append(table["predicted_modulation"].cat.codes.to_numpy(np.uint8))
        found["predicted_snr_label"].append(table["predicted_snr_label"].to_numpy(np.int16))
        for name in _COLUMNS[2:]:
            halves = table[name].to_numpy(np.float16)
            found[name].append(halves[:, None].view(np.uint8).T)
    distinct = [frames for _, frames in sets.values()]
    return {
        "run": np.array([facts["run"] for facts, *_ in runs], dtype=str),
        "start": np.cumsum([0, *(len(table) for *_, table in runs)]),
        "test_set": np.array(test_set),
        "set_start": np.cumsum([0, *(len(frames["frame"]) for frames in distinct)]),
        **{name: np.concatenate([frames[name] for frames in distinct]) for name in distinct[0]},
        **{n: np.ascontiguousarray(np.concatenate(p, axis=-1)) for n, p in found.items()},
    }

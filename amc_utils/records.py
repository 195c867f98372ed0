"""Run folders results/<run>/, read: run.json, history.csv, metrics.csv, predictions.npz."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import coolname
import numpy as np
import pandas as pd

from amc_utils.channel import Channel, channel_from


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder."""

    folder: Path

    @property
    def name(self) -> str:
        """Name of the run and of its folder."""
        return self.folder.name

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Content of run.json.

        Raises:
            ValueError: the file is missing or damaged; so for the other files of the folder.
        """
        with self._explaining("run.json"):
            facts = json.loads((self.folder / "run.json").read_text(encoding="utf8"))
            if not {"run", "config", "data", "started"} <= facts.keys():
                raise ValueError("it lacks what every run says of itself")
            return facts

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch."""
        with self._explaining("history.csv"):
            return pd.read_csv(self._content("history.csv"))

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Tidy test metrics, see amc_utils.metrics.metrics_table."""
        with self._explaining("metrics.csv"):
            return pd.read_csv(self._content("metrics.csv"))

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """Test predictions, see amc_utils.metrics."""
        with (
            self._explaining("predictions.npz"),
            np.load(self._content("predictions.npz"), allow_pickle=False) as stored,
        ):
            names, grid = list(stored["modulations"]), stored["snr_grid_db"].astype(np.int64)
            return pd.DataFrame({
                "frame": stored["frame"],
                "modulation": pd.Categorical.from_codes(stored["modulation"], names, ordered=True),
                "snr_label": grid[stored["snr_index"]],
                "predicted_modulation": pd.Categorical.from_codes(
                    stored["predicted_modulation"], names, ordered=True
                ),
                "predicted_snr_label": grid[stored["predicted_snr_index"]],
                "modulation_confidence": stored["modulation_confidence"].astype(np.float32),
                "snr_confidence": stored["snr_confidence"].astype(np.float32),
            })  # fmt: skip

    def _content(self, name: str) -> io.BytesIO:
        content = (self.folder / name).read_bytes()
        # Runs from before their files were recorded say nothing of them.
        recorded = self.facts.get("files", {}).get(name)
        if recorded and recorded != hashlib.sha256(content).hexdigest():
            raise ValueError("it was changed after the run")
        return io.BytesIO(content)

    @contextmanager
    def _explaining(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            problem = "is missing"
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            problem = f"is damaged ({str(error).splitlines()[0] if str(error) else error!r})"
        else:
            return
        raise ValueError(
            f"run folder {self.folder} must be as it was written, its {name} {problem}; restore it, or "
            f"remove the folder"
        )

    @property
    def kind(self) -> str:
        """What was tested: "network", "bound", "receiver", or "transfer" to other frames."""
        return self.facts.get("kind", "network")

    @property
    def label(self) -> str:
        """Who decided, in a few words: network and pictures, or the name of the receiver."""
        if self.kind in ("bound", "receiver"):
            return self.facts["network"]["name"]
        return f"{self.facts['network']['name']}, {'+'.join(self.facts['config']['channels'])}"

    def by_label(self, task: str) -> pd.DataFrame:
        """Accuracy of a task ("joint", "modulation", "snr") with its interval, a row an SNR label."""
        rows = self.metrics.query(f"group == 'snr_label' and metric == '{task}_accuracy'")
        rows = rows.assign(level=rows["level"].astype(int))
        return rows.set_index(rows["level"].rename("snr_label")).sort_index()

    @property
    def frames_seen(self) -> int:
        """Frames that training went through, each time counted; none where nothing was trained."""
        return self.facts["epochs"] * self.facts["data"]["counts"].get("train", 0)

    @property
    def channel(self) -> Channel:
        """Channel of its frames: the generator's, or of a file that which its parameters name."""
        named = self.facts["config"].get("channel", {})
        return channel_from(self.facts["data"]["source"].get("generator", named))

    @property
    def scope(self) -> str:
        """Classes, SNR labels and source, to stand beside every number of the run."""
        return self.facts["data"]["description"]


def new_run_name(results: Path) -> str:
    """Unused name of the kind adjective-noun-number; the number counts the runs that exist."""
    return f"{coolname.generate_slug(2)}-{len(list_runs(results)) + 1}"


def claim_run_name(wanted: str, results: Path) -> str:
    """The wanted name if it is free, or a new one if none is wanted.

    Raises:
        ValueError: the name belongs to a finished run, which is never overwritten.
    """
    if wanted and (results / wanted).exists():
        raise ValueError(
            f"run_name must be new, got {wanted!r}, which names a finished run in {results}; "
            f"choose another, or leave run_name empty to be given one"
        )
    return wanted or new_run_name(results)


def is_run(folder: Path) -> bool:
    """Whether a folder holds a finished run."""
    return (folder / "run.json").is_file()


def list_runs(results: Path) -> list[Run]:
    """Finished runs, oldest first."""
    runs = [Run(path.parent) for path in results.glob("[!.]*/run.json")]
    return sorted(runs, key=lambda run: (run.facts["started"], run.name))


def named_run(results: Path, name: str) -> Run:
    """The run of that name.

    Raises:
        FileNotFoundError: there is none.
    """
    if not is_run(results / name):
        known = ", ".join(run.name for run in list_runs(results)) or "none"
        raise FileNotFoundError(f"no run named {name!r} in {results}; there are {known}")
    return Run(results / name)


def select_runs(results: Path, names: Sequence[str]) -> list[Run]:
    """The named runs, or the newest of each network and pictures tested like the newest trained run.

    Raises:
        FileNotFoundError: a name without a run, or no run at all.
        ValueError: named runs that were not tested on the same frames, so cannot be compared.
    """
    runs = list_runs(results)
    if names:
        chosen = [named_run(results, name) for name in names]
        if len({_test_frames(run) for run in chosen}) > 1:
            raise ValueError(f"runs must share their test frames to be compared, got {list(names)}")
        return chosen
    trained = [run for run in runs if run.kind == "network"]
    if not trained:
        raise FileNotFoundError(f"no finished run in {results}; run notebook 02 or 03 first")
    alike = [run for run in trained if _test_frames(run) == _test_frames(trained[-1])]
    newest = {run.label: run for run in alike}
    return sorted(newest.values(), key=lambda run: run.facts["network"]["flops_per_frame"])


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
    """Parameters that are not the same in all runs, a row each; what a comparison compares."""
    table = pd.DataFrame({label: pd.Series(run.facts["config"]) for label, run in runs.items()})
    same = table.astype(str).nunique(axis=1) == 1
    return table[~same].drop(index=["run_name", "resume_from"], errors="ignore")

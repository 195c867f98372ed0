"""Model cards, README.md beside each shipped network: what its record and its run say."""

from __future__ import annotations

import json
from dataclasses import asdict
from textwrap import fill
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from amc_utils.inference.classifier import SHIPPED
from amc_utils.results import Run
from amc_utils.runtime.pages import markdown_table, with_interval
from amc_utils.runtime.paths import REPOSITORY

_WIDTH = 120
_METRICS = {
    "joint_accuracy": "modulation and SNR label both right",
    "modulation_accuracy": "modulation right",
    "snr_accuracy": "SNR label right",
}


def records() -> dict[str, dict[str, Any]]:
    """What `amc export` measured of each shipped network, by the name of its card's file."""
    paths = sorted(SHIPPED.parents[1].glob("*/model.json"))
    return {
        path.with_name("README.md").relative_to(REPOSITORY).as_posix(): json.loads(
            path.read_text(encoding="utf8")
        )
        for path in paths
    }


def with_results(page: str, record: dict[str, Any]) -> str:
    """A card whose front matter has the accuracies of the record, as Hugging Face lists results.

    Raises:
        ValueError: the card has no front matter.
    """
    card, test = ModelCard(page), record["test"]
    if not card.data.to_dict():
        raise ValueError("a model card must begin with front matter between two lines of ---, got none")
    card.data.model_name = record["run"]
    card.data.eval_results = [
        EvalResult(
            task_type="other",
            task_name="modulation and SNR label of a frame",
            dataset_type="synthetic",
            dataset_name=f"{test['num_frames']:,} test frames of {record['trained_on']}",
            metric_type="accuracy",
            metric_name=what,
            metric_value=round(test[metric]["value"], 4),
        )
        for metric, what in _METRICS.items()
    ]
    return str(card)


def evaluation(record: dict[str, Any]) -> str:
    """Accuracies on test frames, with 95 % Wilson intervals."""
    rows = [[what, with_interval(**record["test"][metric])] for metric, what in _METRICS.items()]
    return markdown_table([f"of {record['test']['num_frames']:,} test frames", "share"], rows)


def training(run: Run) -> str:
    """What a network was trained on, how, and the channel of its frames."""
    facts, config = run.facts, run.facts["config"]
    images = ", ".join(f"`{name}`" for name in facts["pictures"])
    told = fill(
        f"{run.scope}. Training saw {run.frames_seen:,} frames in {facts['epochs']} epochs"
        f"{', each a new one' if config['fresh_frames'] else ''}. Validation and test have "
        f"{facts['data']['counts']['validation']:,} and {facts['data']['counts']['test']:,} others. "
        f"`{config['network']}` of timm reads the images {images} at "
        f"{config['image_size']} pixels; seed {config['seed']}, batches of {config['batch_size']}, "
        f"learning rate {config['learning_rate']:g} at most, precision {config['precision']}, "
        f"{facts['seconds'] / 60:.0f} minutes on {facts['environment']['threads']} core. "
        f"Run `{run.name}` in the run log.",
        _WIDTH,
    )
    rows = [[f"`{name}`", _plain(value)] for name, value in asdict(run.channel).items()]
    return f"{told}\n\n{markdown_table(['parameter of the channel', 'value'], rows)}"


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def file_facts(record: dict[str, Any]) -> str:
    """The file, and the versions that wrote it."""
    made = record["environment"]
    return markdown_table(
        ["file", "bytes", "parameters", "SHA-256", "commit", "torch", "timm"],
        [[
            "`model.safetensors`", f"{record['bytes']:,}", f"{record['parameters']:,}",
            f"`{record['sha256']}`", f"`{made['commit'][:7]}`", made["versions"]["torch"],
            made["versions"]["timm"],
        ]],
    )  # fmt: skip

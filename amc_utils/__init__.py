"""Automatic modulation classification: what notebooks and commands share.

Files here are the science: `signals` makes frames, `images` draws them, `models`, `losses`, `training`
and `metrics` learn from them and measure, `results` keeps runs, `plots` shows them; `data` and `config`
say which frames and how. Folders are what that rests on (`modulation`, `dsp`, `radioml`, `audit`,
`runtime`) or what is built around it (`baselines`, `inference`, `studies`, `widgets`).

The names below are imported when they are first used, so one part costs no more than it needs.
"""

from importlib import import_module
from typing import Any

_HOME_OF_NAME = {
    "Channel": "signals",
    "channel_from": "signals",
    "generate_frames": "signals",
    "receiver_settings": "dsp.receiver_settings",
    "constellation_images": "images",
    "network_input": "images",
    "register_image": "images",
    "build_model": "models",
    "register_model": "models",
    "register_loss": "losses",
    "load_frames": "data",
    "stratified_split": "data",
    "TrainingParameters": "config",
    "train": "training",
    "metrics_table": "metrics",
    "Run": "results",
    "load_run": "results",
    "load_classifier": "inference.classifier",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF_NAME:
        raise AttributeError(f"module 'amc_utils' has no attribute {name!r}")
    return getattr(import_module(f"amc_utils.{_HOME_OF_NAME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF_NAME])

"""A user's own Python files: they register networks, images and losses before a name is looked up."""

from __future__ import annotations

import sys
from collections.abc import Collection
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def load_plugins(files: list[str]) -> list[str]:
    """Run Python files, each once in a process; returns their names, as validators of parameters do.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no Python file, or one that fails; says how.
    """
    for file in files:
        path = Path(file).expanduser().resolve()
        if not path.is_file():
            raise FileNotFoundError(f"plugin not found: {file}; it must be a Python file")
        if path.suffix != ".py":
            raise ValueError(f"plugins must be Python files, got {file}")
        _run(path)
    return files


def refuse_taken(name: str, taken: Collection[str], what: str) -> None:
    """Refuse a plugin's name that this project uses itself.

    Raises:
        ValueError: the name is taken.
    """
    if name in taken:
        raise ValueError(f"{what} must have a name of its own, got {name!r}, which is this project's")


@cache
def _run(path: Path) -> None:
    spec = spec_from_file_location(f"amc_plugin_{path.stem}", path)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"plugin {path.name} must run, got {type(error).__name__}: {error}") from error

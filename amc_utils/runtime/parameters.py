"""Base of parameters: where their values come from, and one sentence for what is wrong."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from amc_utils.runtime.paths import REPOSITORY
from amc_utils.runtime.yaml_text import read_yaml

Checked = TypeVar("Checked", bound=BaseModel)


class Parameters(BaseModel):
    """Base of every notebook's parameters: frozen, no unknown names, no conversion of types."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, strict=True, extra="forbid")

    output_root: str = ""

    @classmethod
    def from_notebook(cls, namespace: Mapping[str, Any]) -> Self:
        """Parameters from the globals() of a notebook whose first code cell set them.

        What papermill injects stands above `overrides`, that above `config_file`, a YAML file, and that
        above what the cell leaves at its default. papermill only warns of an override that no
        parameters cell declares; here it is an error.

        Raises:
            ValueError: an unknown name, or a value of the wrong type, range or meaning.
            FileNotFoundError: no such config_file.
        """
        injected = _injected_names(namespace.get("In", ()))
        cell = {name: namespace[name] for name in cls.model_fields if name in namespace}
        defaults = cls.with_defaults({})
        cell = {n: v for n, v in cell.items() if n not in defaults or repr(v) != repr(defaults[n])}
        overrides = namespace.get("overrides", {})
        if not isinstance(overrides, dict):
            raise ValueError(f"overrides must be a dict of parameters, got {overrides!r}")
        given = {name: namespace[name] for name in injected if name not in ("config_file", "overrides")}
        above = merged(overrides, given)
        file = read_config(namespace["config_file"]) if namespace.get("config_file") else {}
        for name in cell.keys() & file.keys() - above.keys():
            if cell[name] != file[name]:
                raise ValueError(
                    f"{name} must be said once, got {cell[name]!r} in the cell and {file[name]!r} in "
                    f"{namespace['config_file']}; say it in overrides"
                )
        return cls.checked(merged(file, cell, above))

    @classmethod
    def from_words(cls, words: Sequence[str], *, prog: str = "amc", description: str = "") -> Self:
        """Parameters that a command line asks for: defaults, files that --config names, options.

        Raises:
            ValueError: an unknown name, or a value of the wrong type, range or meaning.
            FileNotFoundError: no such file.
        """
        # Commands alone need it; whoever loads a classifier in Python does not pay for it.
        from amc_utils.runtime.command_line import given_values

        files, given = given_values(cls, words, prog=prog, description=description)
        return cls.checked(merged(*map(read_config, files), given))

    @classmethod
    def with_defaults(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values, as plain data, with the defaults of parameters that they do not set."""
        optional = {n: f for n, f in cls.model_fields.items() if not f.is_required() and n != "engine"}
        return {n: f.get_default(call_default_factory=True) for n, f in optional.items()} | dict(values)

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> Self:
        """Parameters from a mapping, with pydantic's report cut down to one sentence.

        Raises:
            ValueError: see from_notebook.
        """
        return checked(cls, values)


def checked(parameters: type[Checked], values: Mapping[str, Any]) -> Checked:
    """A pydantic model from a mapping, with pydantic's report cut down to one sentence.

    Raises:
        ValueError: see Parameters.from_notebook.
    """
    try:
        return parameters.model_validate(dict(values))
    except ValidationError as error:
        raise ValueError(_sentence(error, parameters)) from None


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Values of which later ones stand above earlier ones, those of `engine` one by one."""
    values = {name: value for part in parts for name, value in part.items()}
    engines = [part["engine"] for part in parts if isinstance(part.get("engine"), Mapping)]
    if engines and isinstance(values["engine"], Mapping):
        values["engine"] = {name: value for engine in engines for name, value in engine.items()}
    return values


def read_config(file: str) -> dict[str, Any]:
    """Values of a YAML file, by its path or by that in the repository.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no YAML mapping of text in UTF-8.
    """
    path = next((p for p in (Path(file), REPOSITORY / file) if p.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"profile not found: {file}; those of the repository lie in profiles/")
    try:
        return read_yaml(path.read_text(encoding="utf8"), f"profile {file}")
    except UnicodeDecodeError:
        raise ValueError(f"profile {file} must be text in UTF-8, it is not") from None


def _injected_names(cells: Any) -> list[str]:
    """Names set by papermill's cell of overrides, found in IPython's list of executed cells."""
    injected = [cell for cell in cells if cell.startswith("# Parameters\n")]
    nodes = ast.parse(injected[-1]).body if injected else []
    return [
        node.targets[0].id
        for node in nodes
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    ]


def _sentence(error: ValidationError, parameters: type[BaseModel]) -> str:
    """What is wrong with the first bad parameter, and how many more there are."""
    first, *others = error.errors(include_url=False)
    name = str(first["loc"][0]) if first["loc"] else "parameters"
    known = list(parameters.model_fields)
    parts = getattr(getattr(parameters.model_fields.get(name), "annotation", None), "model_fields", ())
    if parts and len(first["loc"]) > 1:
        known = [f"{name}.{part}" for part in parts]
        name = ".".join(first["loc"])
    if first["type"] == "extra_forbidden":
        name = name if name.isprintable() else repr(name)
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
        text = f"unknown parameter {name}; {hint}"
    elif first["type"] == "missing":
        text = f"parameter {name} is missing from the parameters cell"
    elif first["type"] == "value_error":
        text = str(first["ctx"]["error"])
    else:
        requirement = first["msg"].removeprefix("Input should ")
        text = f"{name} must {requirement}, got {first['input']!r}"
        if first["type"].startswith("bool"):
            text += "; write True or False after -p, true or false in YAML"
        if isinstance(first["input"], str) and first["type"].startswith("float"):
            text += "; write a number without quotes, in YAML as 1.0e-4"
    return text + (f" (and {len(others)} more)" if others else "")


def existing_file(value: str, what: str, way_out: str) -> str:
    """The path of a file that is there, or nothing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no path.
    """
    try:
        missing = value and not Path(value).exists()
    except OSError as error:
        raise ValueError(f"{what} {value} must be a file that can be read ({error.strerror})") from None
    if missing:
        raise FileNotFoundError(f"{what} not found: {value}; {way_out}")
    return value

"""What all notebooks' parameters have in common: they are checked, one sentence says what is wrong."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from amc_utils.engine import Engine


class Parameters(BaseModel):
    """Base of every notebook's parameters: frozen, no unknown names, no conversion of types."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, strict=True, extra="forbid")

    output_root: str

    @classmethod
    def from_notebook(cls, namespace: Mapping[str, Any]) -> Self:
        """Parameters from the globals() of a notebook whose first code cell set them.

        papermill only warns of an override that no parameters cell declares; here it is an error.

        Raises:
            ValueError: an unknown name, or a value of the wrong type, range or meaning.
        """
        names = [*cls.model_fields, *_injected_names(namespace.get("In", ()))]
        return cls.checked({name: namespace[name] for name in names if name in namespace})

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
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            sentence = _sentence(error, list(cls.model_fields))
        raise ValueError(sentence)


def _injected_names(cells: Any) -> list[str]:
    """Names set by papermill's cell of overrides, found in IPython's list of executed cells."""
    injected = [cell for cell in cells if cell.startswith("# Parameters\n")]
    nodes = ast.parse(injected[-1]).body if injected else []
    return [node.targets[0].id for node in nodes if isinstance(node, ast.Assign)]


def _sentence(error: ValidationError, known: list[str]) -> str:
    """What is wrong with the first bad parameter, and how many more there are."""
    first, *others = error.errors(include_url=False)
    name = str(first["loc"][0]) if first["loc"] else "parameters"
    if name == "engine" and len(first["loc"]) > 1:
        name = ".".join(first["loc"])
        known = [f"engine.{setting}" for setting in Engine.model_fields]
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

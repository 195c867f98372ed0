"""Options of a command from a class of parameters, by jsonargparse."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser
from pydantic import BaseModel


def given_values(
    parameters: type[BaseModel], arguments: Sequence[str] | None, *, prog: str, description: str
) -> tuple[list[str], dict[str, Any]]:
    """Files that --config names, in order, and values that options give; nothing that is not given.

    Args:
        parameters: a field is an option; a field that is a class has options of its own, name.part.
        arguments: words of the command line; None for those of this process.
        prog: the command.
        description: what it does.

    Raises:
        ValueError: an unknown option, or a value of the wrong type.
        SystemExit: after help was asked for.
    """
    parser = ArgumentParser(prog=prog, description=description, exit_on_error=False, allow_abbrev=False)
    parser.add_argument(
        "--config", action="append", default=[], help="YAML file of values, may be there several times"
    )
    parser.add_class_arguments(parameters, as_group=False)
    try:
        given = parser.parse_args(arguments, defaults=False).as_dict()
    except Exception as error:
        # jsonargparse has no public class of its own for what a user typed wrongly.
        if type(error).__name__ not in ("ArgumentError", "NSKeyError"):
            raise
        known = list(parameters.model_fields)
        for name, field in parameters.model_fields.items():
            parts = getattr(field.annotation, "model_fields", ())
            known += [f"{name}.{part}" for part in parts]
        raise ValueError(_sentence(str(error), known)) from None
    files = given.pop("config", None) or []
    return files, given


def _sentence(text: str, known: list[str]) -> str:
    """Jsonargparse's report cut down to one sentence."""
    if text.lower().startswith("unrecognized arguments"):
        word = text.split(": ", 1)[1].split()[0]
        name = word.split("=")[0].removeprefix("--")
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean --{close[0]}?" if close else "`--help` lists all"
        return f"unknown option {word}; {hint}"
    name = re.search(r'[Kk]ey "([\w.]+)"', text)
    wanted = re.search(r"Input should (.+?) \[type", text)
    got = re.search(r"input_value=(.+?), input_type|Got value: (.+)", text)
    if not (name and got):
        return " ".join(text.split())
    other = "be a value that `--help` names"
    for kind, form in {
        "dict": "a mapping, like {preset: table_1}",
        "list": "a list, like [this]",
    }.items():
        other = f"be {form}" if kind in text.split("Got value")[0] else other
    requirement = wanted[1] if wanted else other
    return f"{name[1]} must {requirement}, got {got[1] or got[2]}"

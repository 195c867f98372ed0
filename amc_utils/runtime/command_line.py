"""A command from a typed function: options from its parameters, help from its docstring."""

from __future__ import annotations

import difflib
import inspect
import json
import re
import signal
import sys
from argparse import Action, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, get_origin

from jsonargparse import ArgumentParser, DefaultHelpFormatter
from pydantic import BaseModel

from amc_utils.runtime.interruption import EXIT_RESUMABLE, Stopped, stop_at_once


class _HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Examples in a description keep their lines, and types are those of Python alone."""

    def _expand_help(self, action: Action) -> str:
        # Of Annotated[float, Ge(ge=0), ...] what a value is, not pydantic's conditions.
        text = super()._expand_help(action)
        return re.sub(r"Annotated\[([\w.]+(?:\[\w+\])?)[^()]*(?:\([^()]*\)[^()\]]*)*\]", r"\1", text)


def run(function: Callable[..., int | None], words: Sequence[str], *, prog: str) -> None:
    """Call a function with what the words of a command line say, and end as it ends.

    A parameter without default is a positional word, any other an option of its name. A single
    parameter whose class has `from_words` (see amc_utils.config.Parameters) is made by that.

    Args:
        function: the command; returns its exit status, or None for success.
        words: of the command line, after the command's own.
        prog: the command, for its help.

    Raises:
        SystemExit: bad input and failures, with one sentence; requests to stop, with status 75.
    """
    signal.signal(signal.SIGTERM, stop_at_once)
    try:
        if status := function(**arguments_of(function, words, prog)):
            sys.exit(status)
    except Stopped as stopped:
        print(stopped, file=sys.stderr, flush=True)
        sys.exit(EXIT_RESUMABLE)
    except KeyboardInterrupt:
        sys.exit(EXIT_RESUMABLE)
    except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def arguments_of(function: Callable, words: Sequence[str], prog: str = "amc") -> dict[str, Any]:
    """What `run` calls the function with.

    Raises:
        ValueError: an unknown option, or a value of the wrong type or range.
        SystemExit: after help was asked for.
    """
    parameters = inspect.signature(function, eval_str=True).parameters
    for name, parameter in parameters.items():
        if from_words := getattr(parameter.annotation, "from_words", None):
            return {name: from_words(words, prog=prog, description=_description(function))}
    parser = _function_parser(function, prog)
    flags = {f"--{name}" for name, parameter in parameters.items() if parameter.annotation is bool}
    words = [f"{word}=true" if _named(word) in flags else word for word in words]
    return _parsed(parser, words, list(parameters))


def _gathered(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Words with those that belong to no option as one list, the first; flags need no value."""
    alone, others, words = [], [], list(words)
    while words:
        word = words.pop(0)
        if word == "-" or not word.startswith("-"):
            alone.append(word)
        elif _named(word) in {f"--{name}" for name in flags}:
            others.append(f"{word}={words.pop(0) if words[:1] in (['true'], ['false']) else 'true'}")
        else:
            others.append(word)
            if "=" not in word and words and word not in ("-h", "--help"):
                others.append(words.pop(0))
    return [*([json.dumps(alone)] if alone else []), *others]


def given_values(
    parameters: type[BaseModel], words: Sequence[str], *, prog: str, description: str
) -> tuple[list[str], dict[str, Any]]:
    """Files that --config names, in order, and values that options give; nothing that is not given.

    Args:
        parameters: a field is an option, without default a positional word; a field that is a class has
            options of its own, name.part.
        words: of the command line.
        prog: the command.
        description: what it does.

    Raises:
        ValueError: an unknown option, or a value of the wrong type.
        SystemExit: after help was asked for.
    """
    parser = _class_parser(parameters, prog, description)
    known = list(parameters.model_fields)
    required = [name for name, field in parameters.model_fields.items() if field.is_required()]
    words = list(words)
    if required and parameters.model_fields[required[0]].annotation == list[str]:
        words = _gathered(
            words, [n for n, f in parameters.model_fields.items() if f.annotation is bool]
        )
    for place, name in enumerate(required):
        if place < len(words) and not words[place].startswith("-"):
            words[place] = f"--{name}={words[place]}"
    for name, field in parameters.model_fields.items():
        known += [f"{name}.{part}" for part in getattr(field.annotation, "model_fields", ())]
    given = _parsed(parser, words, known, defaults=False)
    return given.pop("config", None) or [], given


def completion_script(
    commands: Mapping[str, tuple[Callable, str]], shell: str, *, prog: str, version: str
) -> str:
    """Script by which a shell completes words, options and values; it runs without Python.

    Args:
        commands: by word, what does it, and what that is.
        shell: one that shtab knows.
        prog: the program that takes the words.
        version: of the program, which has an option to say it.
    """
    import shtab  # slow to import, and seldom asked for

    parser = ArgumentParser(prog=prog, version=version)
    words = parser.add_subcommands()
    for word, (function, what) in commands.items():
        part = _completed_parser(function, f"{prog} {word}")
        for action in part._actions:
            # Text may be the name of a file, as shells take it where nothing else is known.
            if _bare_type(action) in (str, list[str]) or action.dest == "config":
                action.complete = shtab.FILE
        words.add_subcommand(word, part, help=what)
    return parser.get_completion_script(f"shtab-{shell}")


def _completed_parser(function: Callable, prog: str) -> ArgumentParser:
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        if hasattr(parameter.annotation, "from_words"):
            fields = parameter.annotation.model_fields
            parser = _class_parser(parameter.annotation, prog, "")
            # What has no default is a positional word as well, see given_values.
            for action in [a for a in parser._actions if a.dest in fields]:
                if fields[action.dest].is_required():
                    action.option_strings = []
                    action.nargs = "+" if _bare_type(action) == list[str] else None
            return parser
    return _function_parser(function, prog)


def _bare_type(action: Action) -> Any:
    """Type of what an option takes, without conditions; None where it takes nothing, or anything."""
    found = getattr(action, "_typehint", None)
    return found.__origin__ if get_origin(found) is Annotated else found


def _description(function: Callable) -> str:
    return re.split(r"\n\n(?:Args|Raises):", inspect.getdoc(function))[0]


def _function_parser(function: Callable, prog: str) -> ArgumentParser:
    parser = _parser(prog, _description(function))
    parser.add_function_arguments(function, as_group=False, as_positional=True)
    return parser


def _class_parser(parameters: type[BaseModel], prog: str, description: str) -> ArgumentParser:
    parser = _parser(prog, description)
    parser.add_argument(
        "--config", action="append", default=[], help="YAML file of values, may be there several times"
    )
    parser.add_class_arguments(parameters, as_group=False)
    return parser


def _parser(prog: str, description: str | None) -> ArgumentParser:
    return ArgumentParser(
        prog=prog,
        description=description,
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )


def _parsed(
    parser: ArgumentParser, words: Sequence[str], known: list[str], **how: bool
) -> dict[str, Any]:
    words = [_named(word) for word in words]
    try:
        return parser.parse_args(words, **how).as_dict()
    except Exception as error:
        # jsonargparse has no public class of its own for what a user typed wrongly.
        if type(error).__name__ not in ("ArgumentError", "NSKeyError"):
            raise
        raise ValueError(_sentence(str(error), known)) from None


def _named(word: str) -> str:
    """A word of which an option has the name of its parameter: --symbol-rate is --symbol_rate."""
    return re.sub(r"^--[\w-]+", lambda option: "--" + option[0][2:].replace("-", "_"), word)


def _sentence(text: str, known: list[str]) -> str:
    """Jsonargparse's report cut down to one sentence."""
    if text.lower().startswith("unrecognized arguments"):
        word = text.split(": ", 1)[1].split()[0]
        name = word.split("=")[0].removeprefix("--")
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean --{close[0]}?" if close else "`--help` lists all"
        return f"unknown option {word}; {hint}"
    if told := re.search(r"Value error, (.+?) \[type", text, re.DOTALL):
        return told[1]
    name = re.search(r'[Kk]ey "([\w.]+)"', text)
    wanted = re.search(r"Input should (.+?) \[type", text)
    got = re.search(r"input_value=(.+?), input_type|Got value: (.+)", text)
    if not (name and got):
        return " ".join(text.split())
    other = "be a value that `--help` names"
    for kind, form in {
        "dict": "a mapping, like {preset: table_1}",
        "list": "a list, like [this]",
        "float": "a number, like 1.0e5",
    }.items():
        other = f"be {form}" if kind in text.split("Got value")[0] else other
    requirement = wanted[1] if wanted else other
    return f"{name[1]} must {requirement}, got {got[1] or got[2]}"

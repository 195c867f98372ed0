"""The command `amc`, also `python -m amc_utils`: a word says what to do, `amc WORD --help` how."""

from __future__ import annotations

import atexit
import difflib
import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Literal

# Word: the typed function that does it, and what that is. Modules are imported when their turn comes,
# so that help takes no seconds.
COMMANDS = {
    "train": ("training:train_command", "train a network, test it, and record the run"),
    "evaluate": (
        "studies.evaluate:evaluate_command",
        "record the bound, the receiver, or a network on other frames",
    ),
    "study": ("studies.study:study", "carry out a study: variants and seeds"),
    "records": ("studies.records:records", "runs of record: what is done, what comes next"),
    "keep": ("studies.records:keep_run", "put a new run into results/ and RUNLOG.md"),
    "compare": ("studies.compare:compare", "numbers of `make reproduce` beside the committed ones"),
    "report": ("studies.claims:report", "write RUNLOG.md and the tables of pages from results/"),
    "audit": ("audit.audit:audit_file", "is a file in RadioML's layout what it says?"),
    "generate": ("radioml.writer:write_synthetic_file", "write a synthetic file in RadioML's layout"),
    "export": (
        "inference.export:export_command",
        "make a finished run's network one small file for use",
    ),
    "classify": (
        "inference.classify:classify_command",
        "name the modulation and SNR of a recording or of frames",
    ),
    "facts": ("radioml.facts:write_facts", "measure excerpts of the real file beside simulations"),
    "gpu-check": ("studies.gpu_check:gpu_check", "compare a GPU with the CPU before a long run"),
    "doctor": ("studies.doctor:doctor", "is this machine fit, and what is slow on it?"),
    "completion": ("__main__:completion", "print a script by which a shell completes all this"),
    "grey": ("studies.shared_scaling:shared_scaling", "what grey levels tell that others share"),
}


def program() -> None:
    """`main` as a process, that ends before the interpreter takes apart what was imported: a second."""
    status = 1

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    # The first to be registered is the last to be called.
    atexit.register(leave)
    try:
        main()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise


def main(arguments: Sequence[str] | None = None) -> None:
    """Hand the words that follow the first to what it names.

    Raises:
        SystemExit: no such word; else as the command ends.
    """
    word, *rest = [*(sys.argv[1:] if arguments is None else arguments), "--help"]
    if word in ("-h", "--help"):
        lines = (f"  {name:10}{what}" for name, (_, what) in COMMANDS.items())
        print(
            "usage: amc WORD ... | amc --version\n\n"
            + "\n".join(lines)
            + "\n\n`amc WORD --help` says more."
        )
        return
    if word == "--version":
        print(f"amc {_version()}")
        return
    if word not in COMMANDS:
        close = difflib.get_close_matches(word, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(COMMANDS)}"
        sys.exit(f"amc has no command {word!r}; {hint}")
    try:
        function = function_of(word)
        command_line = import_module("amc_utils.runtime.command_line")
    except KeyboardInterrupt:
        # Imports take seconds, in which nothing has been begun.
        sys.exit(130)
    command_line.run(function, rest[:-1], prog=f"amc {word}")


def function_of(word: str) -> Callable[..., int | None]:
    """What a word of COMMANDS does."""
    module, name = COMMANDS[word][0].split(":")
    # Of the hundreds of thousands of objects that imports make none is garbage: no search among them.
    gc.disable()
    function = getattr(import_module(f"amc_utils.{module}"), name)
    gc.freeze()
    gc.enable()
    atexit.register(gc.unfreeze)
    return function


def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print a script by which a shell completes words, options, values and file names.

        amc completion bash > ~/.local/share/bash-completion/completions/amc
        amc completion zsh > ~/.zfunc/_amc
        amc completion fish > ~/.config/fish/completions/amc.fish

    The first needs the package bash-completion, or a line `source FILE` in .bashrc; the second a folder
    of zsh's fpath. The script starts no Python; print it anew when the commands have changed.

    Args:
        shell: bash, zsh or fish.
    """
    script = import_module("amc_utils.runtime.command_line").completion_script
    commands = {word: (function_of(word), what) for word, (_, what) in COMMANDS.items()}
    print(script(commands, shell, prog="amc", version=_version()))


def _version() -> str:
    # Only here, since it takes as long as all of help.
    return import_module("importlib.metadata").version("amc-utils")


if __name__ == "__main__":
    program()

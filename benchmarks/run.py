"""All measurements of speed, or those named: pictures, generation, training, reading, growth.

    python benchmarks/run.py
    python benchmarks/run.py pictures reading --torchsig .venv-torchsig/bin/python

Where there is a GPU, pictures, generation and training are measured on it alone. Prints medians and
ratios; keeps every repeat in benchmarks/<device>.csv, each table as soon as it is there, and what it
prints, when all is done, in benchmarks/<device>.txt.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import pandas as pd
import torch
from timing import summarise

from amc_utils.runtime.environment import environment
from amc_utils.runtime.paths import atomic_write

NAMES = ("pictures", "generation", "training", "reading", "growth")


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=NAMES, metavar="name", help="default: all")
    parser.add_argument("--torchsig", default="", help="Python of an environment that has TorchSig")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    if unknown := set(options.names) - {*NAMES}:
        parser.error(f"name must be one of {', '.join(NAMES)}, got {sorted(unknown)[0]}")
    facts = environment()
    about = {"device": facts["device"], "commit": facts["commit"][:12]}
    path = options.output / f"{'gpu' if torch.cuda.is_available() else 'cpu'}.csv"
    tables = []
    for name in options.names:
        module = importlib.import_module(name)
        extra = (options.torchsig,) if name == "generation" else ()
        for table in module.measure(*extra):
            tables.append(table.assign(**about))
            keep(tables[-1], path)
    printed = summarise(pd.concat(tables)).round(3).to_string(index=False)
    with atomic_write(path.with_suffix(".txt")) as temporary:
        temporary.write_text(printed + "\n", encoding="utf8")
    print(printed)
    print(f"every repeat: {path.name}")


def keep(table: pd.DataFrame, path: Path) -> None:
    """Put a table into the file; what was not measured now stays as it was."""
    if path.exists():
        before = pd.read_csv(path)
        table = pd.concat([before[~before["benchmark"].isin(table["benchmark"])], table])
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()

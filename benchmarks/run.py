"""All measurements of speed, or those named: pictures, generation, training, reading, growth.

    python benchmarks/run.py
    python benchmarks/run.py pictures reading --torchsig .venv-torchsig/bin/python

Prints a table of medians and ratios; keeps every repeat in benchmarks/<device>.csv.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import pandas as pd
import torch
from timing import summarise

from amc_utils.paths import replacing
from amc_utils.recording import environment

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
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"name must be one of {', '.join(NAMES)}, got {sorted(unknown)[0]}")
    tables = []
    for name in options.names:
        module = importlib.import_module(name)
        extra = (options.torchsig,) if name == "generation" else ()
        tables += module.measure(*extra)
    facts = environment()
    raw = pd.concat(tables).assign(device=facts["device"], commit=facts["commit"][:12])
    print(summarise(raw).round(3).to_string(index=False))
    path = options.output / f"{'gpu' if torch.cuda.is_available() else 'cpu'}.csv"
    if path.exists():
        # What was not measured now stays as it was.
        before = pd.read_csv(path)
        raw = pd.concat([before[~before["benchmark"].isin(raw["benchmark"])], raw])
    with replacing(path) as temporary:
        raw.to_csv(temporary, index=False, float_format="%.6g")
    print(f"every repeat: {path.name}")


if __name__ == "__main__":
    main()

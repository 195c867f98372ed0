"""Modulation and SNR of a recording, from the command line.

    python -m amc_utils.classify recording.sigmf-meta --symbol-rate 125e3
    python -m amc_utils.classify samples.npy
    python -m amc_utils.classify samples.cf32 --sample-rate 1e6 --symbol-rate 125e3 --csv frames.csv

Without a symbol rate the recording is taken to have eight samples a symbol.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from amc_utils.captures import open_capture
from amc_utils.classifier import SHIPPED, Classifier, load_classifier
from amc_utils.novelty import FALSE_ALARMS, is_foreign
from amc_utils.paths import REPOSITORY, replacing
from amc_utils.signals import SAMPLES_PER_SYMBOL

# 16QAM, ten samples a symbol, 16 dB, made by GNU Radio; see the README beside it.
EXAMPLE_SYMBOL_RATE = 100e3
EXAMPLE = REPOSITORY / "tests" / "data" / "gnuradio_16qam.sigmf-meta"
# More than this share of unusual frames, though it may be chance, is not called usual.
_MANY = 0.05


def summary(table: pd.DataFrame) -> str:
    """A few lines on a recording, from the frames of Classifier.table."""
    count = len(table)
    names = table["modulation"].value_counts(normalize=True)
    sure = table.groupby("modulation")["modulation_confidence"].mean()
    lines = [
        f"  {name:<10} {share:>4.0%} of frames, mean confidence {sure[name]:.2f}"
        for name, share in names.head(3).items()
    ]
    low, middle, high = table["snr_label"].quantile([0.1, 0.5, 0.9])
    es_n0 = 10 * np.log10(SAMPLES_PER_SYMBOL)
    lines.append(
        f"  SNR per sample {middle:.0f} dB (8 of 10 frames from {low:.0f} to {high:.0f} dB), "
        f"Es/N0 {middle + es_n0:.0f} dB"
    )
    foreign = int((table["usual"] < FALSE_ALARMS).sum())
    seen = f"{foreign} of {count} frames are unusual, {FALSE_ALARMS:.0%} are expected"
    if is_foreign(foreign, count):
        lines.append(f"  UNLIKE THE TRAINING DATA: {seen}; do not trust names and SNRs of such frames")
    elif foreign > _MANY * count:
        lines.append(f"  too few frames to tell whether this is like the training data: {seen}")
    else:
        lines.append(f"  like the training data: {seen}")
    return "\n".join(lines)


def classify(
    path: Path | str,
    classifier: Classifier,
    *,
    sample_rate: float | None = None,
    symbol_rate: float | None = None,
    offset_hz: float = 0.0,
    num_frames: int = 256,
) -> pd.DataFrame:
    """What a classifier makes of a recording: one row a frame, `start` is its first sample.

    For the arguments see open_capture and Capture.frames, for the other columns Classifier.table.

    Raises:
        FileNotFoundError: no such recording.
        ValueError: see open_capture and Capture.frames.
    """
    capture = open_capture(path, sample_rate)
    cut = capture.frames(symbol_rate=symbol_rate, offset_hz=offset_hz, num_frames=num_frames)
    table = classifier.table(classifier(cut.iq))
    table.insert(0, "start", cut.start)
    table.attrs["num_silent"] = cut.num_silent
    return table


def parser() -> argparse.ArgumentParser:
    """Options of the command line."""
    options = argparse.ArgumentParser(
        prog="python -m amc_utils.classify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("recording", help="SigMF, .npy, or complex64")
    options.add_argument("--sample-rate", type=float, help="samples per second, if the file has none")
    options.add_argument("--symbol-rate", type=float, help="symbols per second")
    options.add_argument(
        "--offset-hz",
        type=float,
        default=0.0,
        help="carrier to take out, as --offset-hz=-12e3",
    )
    options.add_argument("--num-frames", type=int, default=256, help="frames at most, evenly spread")
    options.add_argument("--model", default=SHIPPED, help="of amc_utils.export; the shipped one")
    options.add_argument("--csv", type=Path, help="write a row a frame to this file")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Classify from the command line."""
    given = vars(parser().parse_args(arguments))
    file, path, model = (given.pop(name) for name in ("csv", "recording", "model"))
    try:
        classifier = load_classifier(model)
        table = classify(path, classifier, **given)
        silent = (
            f", {table.attrs['num_silent']} silent ones left out" if table.attrs["num_silent"] else ""
        )
        print(
            f"{Path(path).name}: {len(table)} frames of 1,024 samples{silent}, read by {classifier.run}"
        )
        print(summary(table))
        if file:
            with replacing(file) as temporary:
                table.to_csv(temporary, index=False, float_format="%.4f", lineterminator="\n")
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()

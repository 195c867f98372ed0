"""TorchSig's narrowband signals with noise, timed inside its own Python; started by generation.py.

Prints a line when ready, then for every line read, "bare" or "channel", the seconds that one round of
such frames took: signal and noise alone, or with the impairments that RadioML's frames have.
"""

from __future__ import annotations

import sys
import time
import types

import numpy as np

try:
    import torchaudio  # noqa: F401
except OSError:
    # TorchSig asks it for spectrograms only; builds of it for another torch do not load.
    sys.modules["torchaudio"] = types.ModuleType("torchaudio")

from torchsig.signals.builders.constellation import constellation_modulator
from torchsig.transforms.functional import awgn, clock_drift, phase_offset
from torchsig.utils.dsp import frequency_shift

NAMES = ("bpsk", "qpsk", "8psk", "16qam", "64qam", "256qam")


def generate(count: int, kind: str, rng: np.random.Generator) -> None:
    """Frames of 1,024 samples, eight samples a symbol, at 10 dB."""
    for number in range(count):
        signal = constellation_modulator(
            NAMES[number % len(NAMES)], "srrc", 1 / 8, 1.0, 1024, rng.uniform(0.1, 0.4), rng
        )
        if kind == "channel":
            signal = clock_drift(signal, 100, rng)
            signal = frequency_shift(signal, rng.normal(0, 1e-4), 1.0)
            signal = phase_offset(signal, rng.uniform(-np.pi, np.pi))
        awgn(signal, -10, rng)


def main() -> None:
    """Serve rounds until the input ends."""
    count, rng = int(sys.argv[1]), np.random.default_rng(1)
    for kind in ("bare", "channel"):
        generate(count, kind, rng)
    print("ready", flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        generate(count, line.strip(), rng)
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()

"""Recordings whose truth is known, on which naming is tried with nothing told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from scipy.signal import resample_poly

from amc_utils.signals import (
    CHANNEL_PRESETS,
    DIGITAL_MODULATIONS,
    SAMPLES_PER_SYMBOL,
    generate_frames,
)

# Samples of a recording, samples a symbol, roll-off, and Es / N0 in dB, each from one to another.
_LENGTH = 20_000
_SAMPLES, _ROLLOFF, _ES_N0_DB = (2.0, 50.0), (0.1, 1.0), (15.0, 30.0)
# Without noise to speak of; that of the trial is added to all samples.
_CLEAN_DB = 80.0
# Samples at either end in which the resampling filter is not at rest.
_SETTLING = 400


@dataclass(frozen=True)
class Trial:
    """A recording of one signal; frequencies in cycles per sample.

    Attributes:
        samples: complex64 [num_samples].
        modulation: its name.
        symbol_rate: symbols per sample.
        carrier: anywhere where the whole band is in the recording.
        rolloff: of its pulse.
        es_n0_db: energy of a symbol over noise density.
    """

    samples: np.ndarray
    modulation: str
    symbol_rate: float
    carrier: float
    rolloff: float
    es_n0_db: float


def trial(number: int, seed: int, length: int = _LENGTH) -> Trial:
    """Recording of that number, of each linear modulation in turn; a seed always makes the same."""
    rng = np.random.default_rng([seed, number])
    modulation = DIGITAL_MODULATIONS[number % len(DIGITAL_MODULATIONS)]
    per_symbol = Fraction(np.exp(rng.uniform(*np.log(_SAMPLES)))).limit_denominator(64)
    rolloff, es_n0_db = rng.uniform(*_ROLLOFF), rng.uniform(*_ES_N0_DB)
    channel = replace(
        CHANNEL_PRESETS["table_1"], rolloff_range=(rolloff, rolloff), cfo_std=0.0, clock_std=0.0
    )
    factor = per_symbol / SAMPLES_PER_SYMBOL
    clean = generate_frames(
        torch.tensor([number]),
        torch.tensor([0]),
        torch.tensor([_CLEAN_DB]),
        modulations=(modulation,),
        seed=seed,
        channel=channel,
        num_samples=int((length + 2 * _SETTLING) / factor) + 1,
    ).iq[0]
    samples = resample_poly(clean.numpy(), factor.numerator, factor.denominator)[_SETTLING:][:length]
    symbol_rate = 1 / float(per_symbol)
    room = max(1 - (1 + rolloff) * symbol_rate, 0.0)
    carrier = rng.uniform(-0.5, 0.5) * room
    samples = samples * np.exp(2j * np.pi * (carrier * np.arange(length) + rng.random()))
    density = np.mean(np.abs(samples) ** 2) / symbol_rate / 10 ** (es_n0_db / 10)
    noise = rng.standard_normal((length, 2)) @ np.array([1, 1j]) * np.sqrt(density / 2)
    return Trial(
        (samples + noise).astype(np.complex64), modulation, symbol_rate, carrier, rolloff, es_n0_db
    )

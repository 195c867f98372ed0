"""A name for every frame of high SNR, from its signal alone: all 24 classes of RadioML 2018.01A.

What a spectrum or an envelope shows is asked first, a likelihood receiver decides on the rest:

    constant envelope   GMSK where its square has the two lines of a modulation index of 0.5, else FM
    a strong carrier    AM with carrier, single sideband where the rest lies on one side of it
    one side alone      AM-SSB-SC
    a real signal       AM-DSB-SC where the envelope varies more than that of any symbols
    all else            what the receiver of amc_utils.receiver finds likeliest

The thresholds lie in gaps between the classes, the same for our frames and for GNU Radio's, from 20 dB
up.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from amc_utils.channel import Channel
from amc_utils.features import (
    CONSTANT_ENVELOPE,
    envelope_std,
    power_spectrum,
    squared_line,
)
from amc_utils.labels import FAMILY_OF_MODULATION, RADIOML_2018_MODULATIONS
from amc_utils.progress import progress
from amc_utils.receiver import receiver_log_likelihoods
from amc_utils.signals import SAMPLES_PER_SYMBOL
from amc_utils.symbol_maps import LINEAR_MODULATIONS

# Share of the power in the carrier: OOK has a half, AM four fifths and more.
_CARRIER = 0.7
# Difference of the powers on the two sides of the carrier over their sum: AM-SSB above 0.9.
_ONE_SIDED = 0.7
# Share of the power of iq^2 in its strongest line: real signals from 0.23 up, others to 0.16.
_REAL = 0.2
# Spread of the envelope: AM-DSB-SC from 0.67 up, 8ASK to 0.68, OOK more but with a carrier.
_MESSAGE = 0.68
# Share of the power of iq^2 in lines half a symbol rate from the carrier: GMSK 0.2, FM 0.03.
_HALF_RATE = 0.1
_OWN_CARRIER = 0.3

# Kinds of signals: families, but for those that one takes for each other without a wrong label.
_KIND_OF_FAMILY = {"APSK": "amplitude and phase", "QAM": "amplitude and phase", "ASK": "real"}
_KIND_OF_NAME = {
    "BPSK": "real", "AM-DSB-WC": "real", "AM-DSB-SC": "real", "AM-SSB-WC": "one-sided",
    "AM-SSB-SC": "one-sided", "FM": "constant envelope", "GMSK": "constant envelope",
}  # fmt: skip
_KINDS = tuple(
    _KIND_OF_NAME.get(name)
    or _KIND_OF_FAMILY.get(FAMILY_OF_MODULATION[name], FAMILY_OF_MODULATION[name])
    for name in RADIOML_2018_MODULATIONS
)


def sidedness(iq: Tensor) -> Tensor:
    """Power above the carrier less that below it, over their sum, float32 [B], in [-1, 1].

    Args:
        iq: complex64 [B, num_samples], carrier offset below three bins of the spectrum.
    """
    frequency, power = power_spectrum(iq)
    edge = 3.5 / iq.shape[1]
    above, below = (power[:, side].sum(1) for side in (frequency > edge, frequency < -edge))
    return (above - below) / (above + below)


def carrier_share(iq: Tensor) -> Tensor:
    """Share of the power in the strongest line of the spectrum, float32 [B]."""
    power = power_spectrum(iq)[1]
    # The window spreads a line over three bins.
    return torch.nn.functional.avg_pool1d(power[:, None], 3, 1)[:, 0].amax(1) * 3 / power.sum(1)


def half_rate_lines(iq: Tensor) -> Tensor:
    """Share of the power of iq^2 half a symbol rate above and below the carrier, float32 [B].

    The square of a continuous-phase modulation of index 0.5 has lines there.
    """
    power = torch.fft.fft(iq.square()).abs().square()
    half_rate = iq.shape[1] // (2 * SAMPLES_PER_SYMBOL)
    around = torch.arange(-2, 3)
    return power[:, torch.cat([half_rate + around, -half_rate + around])].sum(1) / power.sum(1)


def name_frames(iq: Tensor, snr_db: np.ndarray) -> np.ndarray:
    """The class that each frame looks like, int64 [B], index into RADIOML_2018_MODULATIONS.

    Args:
        iq: complex64 [B, num_samples], of 20 dB or more; below, names mean less.
        snr_db: float [B], per sample, to half a decibel. That of many frames alike: the symbols of one
            frame have more energy or less by chance, which is no other amplitude.
    """
    constant = envelope_std(iq) < CONSTANT_ENVELOPE
    real, carrier = squared_line(iq) > _REAL, carrier_share(iq)
    with_carrier, one_sided = carrier > _CARRIER, sidedness(iq).abs() > _ONE_SIDED
    is_message = real & (envelope_std(iq) > _MESSAGE) & (carrier < _OWN_CARRIER)
    names = {
        "AM-DSB-SC": is_message,
        "AM-SSB-SC": one_sided & ~with_carrier,
        "AM-DSB-WC": with_carrier & ~one_sided,
        "AM-SSB-WC": with_carrier & one_sided,
        "FM": constant,
        "GMSK": constant & (half_rate_lines(iq) > _HALF_RATE),
    }
    found = np.full(len(iq), -1)
    for name, where in names.items():
        found[where.numpy()] = RADIOML_2018_MODULATIONS.index(name)
    rest = np.flatnonzero(found < 0)
    found[rest] = likeliest_linear(iq[torch.from_numpy(rest)], snr_db[rest])
    return found


def likeliest_linear(iq: Tensor, snr_db: np.ndarray) -> np.ndarray:
    """The likeliest linear modulation of each frame; arguments and result as those of name_frames."""
    snr_db = torch.from_numpy(np.round(4 * snr_db) / 4)
    found = np.zeros(len(iq), np.int64)
    with progress(total=len(iq), desc="naming frames", unit=" frames") as bar:
        for one in snr_db.unique().tolist():
            some = torch.nonzero(snr_db == one)[:, 0]
            likelihood = receiver_log_likelihoods(
                iq[some], modulations=LINEAR_MODULATIONS, snr_grid_db=(one,), channel=Channel()
            )
            found[some.numpy()] = likelihood[:, :, 0].argmax(1).numpy()
            bar.update(len(some))
    return np.array([RADIOML_2018_MODULATIONS.index(name) for name in LINEAR_MODULATIONS])[found]


def foreign(names: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether frames look like another kind of signal than their label says, bool [B].

    Kinds are real signals, PSK, APSK and QAM together, OQPSK, one sideband, constant envelope: noise
    takes one class for another within a kind, hardly across.

    Args:
        names: int64 [B], see name_frames.
        labels: int64 [B], index into RADIOML_2018_MODULATIONS.
    """
    kinds = np.array(_KINDS)
    return kinds[names] != kinds[labels]

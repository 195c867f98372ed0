"""A name for every frame of high SNR, from its signal alone: all 24 classes of RadioML 2018.01A.

What a spectrum or an envelope shows is asked first, a likelihood receiver decides on the rest:

    constant envelope   GMSK where its square has the two lines of a modulation index of 0.5, else FM
    a strong carrier    AM with carrier, single sideband where the rest lies on one side of it
    one side alone      AM-SSB-SC
    a real signal       AM-DSB-SC where the envelope varies more than that of any symbols
    all else            what the receiver of amc_utils.baselines.receiver finds likeliest

The thresholds lie in gaps between the classes, the same for our frames of either channel and for GNU
Radio's, from 20 dB up. ASK may send a carrier or not: both are tried.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from amc_utils.baselines.receiver import receiver_log_likelihoods
from amc_utils.dsp.features import (
    CONSTANT_ENVELOPE,
    envelope_std,
    power_spectrum,
    squared_line,
)
from amc_utils.modulation.constellations import LINEAR_MODULATIONS
from amc_utils.runtime.progress import progress
from amc_utils.signals import (
    CHANNEL_PRESETS,
    DEFAULT_PRESET,
    FAMILY_OF_MODULATION,
    RADIOML_2018_MODULATIONS,
    RECEIVERS,
    SAMPLES_PER_SYMBOL,
    Channel,
    ReceiverSettings,
)

# Share of the power in the carrier, and spread of the envelope: AM with carrier has 0.75 and more, and
# 0.4 at most. ASK that sends a carrier may have as much of it, up to 0.83, but an envelope from 0.5 up.
_CARRIER, _CARRIED_MESSAGE = 0.6, 0.45
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
# Levels of ASK that begin at zero tell apart only where their scale is known to a fiftieth: of real
# signals these errors of the SNR are tried as well, in dB.
_ASK, _REAL_LINEAR = ("4ASK", "8ASK"), ("4ASK", "8ASK", "OOK", "BPSK")
_ERRORS_DB = (-0.3, 0.3)
# Pulses of an exponent nearer to 0.5 than this are taken for root-raised cosines of any roll-off.
_ROOT_ROOM = 0.25


@dataclass(frozen=True)
class Known:
    """What is known about the channel of frames that are named.

    Attributes:
        channel: gives the carrier offsets, and which SNR a class has beyond that of the frames, see
            Channel.unit_mean_magnitude; its labels mean nothing here.
        receiver: gives the pulse.
    """

    channel: Channel
    receiver: ReceiverSettings


def known_preset(preset: str = DEFAULT_PRESET) -> Known:
    """The channel and receiver of a preset of signals.CHANNEL_PRESETS."""
    return Known(CHANNEL_PRESETS[preset], RECEIVERS[preset])


def known_pulse(exponent: float, rolloff: float, *, unit_mean_magnitude: bool) -> Known:
    """Channel and receiver for a measured pulse, and for carrier offsets as wide as any preset's.

    For the exponent 0.5 the receiver estimates the roll-off of every frame.

    Args:
        exponent: power of the raised-cosine spectrum; rounded to halves.
        rolloff: roll-off, rounded to hundredths.
        unit_mean_magnitude: see Channel.
    """
    if abs(exponent - 0.5) < _ROOT_ROOM:
        known = known_preset("table_1")
    else:
        exponent, rolloff = max(round(2 * exponent) / 2, 0.5), min(max(round(rolloff, 2), 0.05), 1.0)
        known = known_preset("radioml_2018")
        receiver = replace(
            known.receiver,
            rolloffs=(rolloff,),
            mean_rolloff=rolloff,
            pulse_exponent=exponent,
            max_cfo=RECEIVERS["table_1"].max_cfo,
        )
        known = Known(replace(known.channel, cfo_std=CHANNEL_PRESETS["table_1"].cfo_std), receiver)
    return replace(known, channel=replace(known.channel, unit_mean_magnitude=unit_mean_magnitude))


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


def name_frames(iq: Tensor, snr_db: np.ndarray, known: Known | None = None) -> np.ndarray:
    """The class that each frame looks like, int64 [B], index into RADIOML_2018_MODULATIONS.

    Args:
        iq: complex64 [B, num_samples], of 20 dB or more; below, names mean less.
        snr_db: float [B], per sample, to half a decibel, without what a class has beyond it, see
            Channel.unit_mean_magnitude. That of many frames alike: the symbols of one frame have more
            energy or less by chance, which is no other amplitude.
        known: channel and receiver; those of the default preset if left out.
    """
    known, envelope = known or known_preset(), envelope_std(iq)
    constant = envelope < CONSTANT_ENVELOPE
    real, carrier = squared_line(iq) > _REAL, carrier_share(iq)
    with_carrier = (carrier > _CARRIER) & (envelope < _CARRIED_MESSAGE)
    one_sided = sidedness(iq).abs() > _ONE_SIDED
    is_message = real & (envelope > _MESSAGE) & (carrier < _OWN_CARRIER)
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
    some = iq[torch.from_numpy(rest)]
    found[rest] = likeliest_linear(some, snr_db[rest], known, errors_db=_ERRORS_DB)
    return found


def likeliest_linear(
    iq: Tensor,
    snr_db: np.ndarray,
    known: Known | None = None,
    *,
    errors_db: tuple[float, ...] = (),
) -> np.ndarray:
    """The likeliest linear modulation of each frame; arguments and result as those of name_frames.

    Args:
        iq: see name_frames, as the next two.
        snr_db: float [B].
        known: channel and receiver.
        errors_db: of the SNR of real signals, of which the likeliest is taken.
    """
    known = known or known_preset()
    places = [LINEAR_MODULATIONS.index(name) for name in _REAL_LINEAR]
    snr_db = torch.from_numpy(np.round(4 * snr_db) / 4)
    found = np.zeros(len(iq), np.int64)
    with progress(total=len(iq), desc="naming frames", unit=" frames") as bar:
        for one in snr_db.unique().tolist():
            some = torch.nonzero(snr_db == one)[:, 0]
            likelihood = _likelihoods(iq[some], one, LINEAR_MODULATIONS, known)
            real = torch.nonzero(squared_line(iq[some]) > _REAL)[:, 0]
            if len(real):
                other = _real_likelihoods(iq[some[real]], one, errors_db, known)
                likelihood[real[:, None], places] = likelihood[real[:, None], places].maximum(other)
            found[some.numpy()] = likelihood.argmax(1).numpy()
            bar.update(len(some))
    return np.array([RADIOML_2018_MODULATIONS.index(name) for name in LINEAR_MODULATIONS])[found]


def _real_likelihoods(iq: Tensor, snr_db: float, errors_db: tuple[float, ...], known: Known) -> Tensor:
    """Greatest log-likelihood of each of _REAL_LINEAR, with the other ASK or SNR; float32 [B, 4]."""
    other = replace(known, channel=replace(known.channel, unipolar_ask=not known.channel.unipolar_ask))
    best = iq.real.new_full((len(iq), len(_REAL_LINEAR)), -torch.inf)
    for error_db in (0.0, *errors_db):
        if error_db:
            best = best.maximum(_likelihoods(iq, snr_db + error_db, _REAL_LINEAR, known))
        ask = _likelihoods(iq, snr_db + error_db, _ASK, other)
        best[:, : len(_ASK)] = best[:, : len(_ASK)].maximum(ask)
    return best


def _likelihoods(iq: Tensor, snr_db: float, names: tuple[str, ...], known: Known) -> Tensor:
    """Log-likelihood of each modulation, float32 [B, len(names)], up to a constant a frame."""
    label = (snr_db - known.channel.snr_offset_db) / known.channel.snr_slope
    return receiver_log_likelihoods(
        iq, modulations=names, snr_labels=(label,), channel=known.channel, receiver=known.receiver
    )[:, :, 0]


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

"""Which class a frame looks like, from its signal alone: all 24 classes of RadioML 2018.01A.

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

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax
from torch import Tensor

from amc_utils.baselines.receiver import receiver_log_likelihoods
from amc_utils.dsp.features import (
    CONSTANT_ENVELOPE,
    carrier_share,
    envelope_std,
    power_spectrum,
    signature,
    squared_line,
)
from amc_utils.dsp.receiver_settings import RECEIVERS, ReceiverSettings
from amc_utils.modulation.constellations import LINEAR_MODULATIONS
from amc_utils.radioml.reader import LABEL_ORDERS, evenly_spaced
from amc_utils.runtime.progress import progress
from amc_utils.signals import (
    CHANNEL_PRESETS,
    DEFAULT_PRESET,
    RADIOML_2018_MODULATIONS,
    SAMPLES_PER_SYMBOL,
    Channel,
    magnitude_excess_db,
)

# From here on a frame shows its class, and synchronisation finds what there is to find.
HIGH_SNR_DB = 19.5
# From here on the likelihood receiver tells kinds of linear modulations apart, if not all orders.
MIDDLE_SNR_DB = 9.5
# Frames of a class that are named; the receiver takes some milliseconds each.
_FRAMES_PER_CLASS, _MIDDLE_FRAMES_PER_CLASS = 64, 12
# How often a class that is right is taken for another, as on frames of makers other than ours.
_ERROR_RATE = 0.05
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

# Kinds of signals: noise takes one class for another within a kind, hardly across.
_KINDS = (
    "OOK 4ASK 8ASK BPSK AM-DSB-WC AM-DSB-SC",
    "QPSK 8PSK 16PSK 32PSK",
    "16APSK 32APSK 64APSK 128APSK 16QAM 32QAM 64QAM 128QAM 256QAM",
    "AM-SSB-WC AM-SSB-SC",
    "FM GMSK",
    "OQPSK",
)
# Levels of ASK that begin at zero tell apart only where their scale is known to a fiftieth: of real
# signals these errors of the SNR are tried as well, in dB.
_ASK, _REAL_LINEAR = ("4ASK", "8ASK"), ("4ASK", "8ASK", "OOK", "BPSK")
_ERRORS_DB = (-0.3, 0.3)
# Pulses of an exponent nearer to 0.5 than this are taken for root-raised cosines of any roll-off.
_ROOT_ROOM = 0.25


@dataclass(frozen=True)
class KnownChannel:
    """What is known about the channel of frames that are named.

    Attributes:
        channel: gives the carrier offsets, and which SNR a class has beyond that of the frames, see
            Channel.unit_mean_magnitude; its labels mean nothing here.
        receiver: gives the pulse.
    """

    channel: Channel
    receiver: ReceiverSettings


def known_preset(preset: str = DEFAULT_PRESET) -> KnownChannel:
    """The channel and receiver of a preset of signals.CHANNEL_PRESETS."""
    return KnownChannel(CHANNEL_PRESETS[preset], RECEIVERS[preset])


def with_pulse(known: KnownChannel, pulse: dict[str, float] | None) -> KnownChannel:
    """Channel and receiver for a measured pulse, and for carrier offsets as wide as any preset's.

    For the exponent 0.5 the receiver estimates the roll-off of every frame.

    Args:
        known: says which SNR a class has beyond that of the frames; all of it where there is no pulse.
        pulse: exponent, rounded to halves, and rolloff, rounded to hundredths, see measures.fit_pulse.
    """
    if not pulse:
        return known
    wide, by_magnitude = known_preset("table_1"), known.channel.unit_mean_magnitude
    if abs(pulse["exponent"] - 0.5) < _ROOT_ROOM:
        return replace(wide, channel=replace(wide.channel, unit_mean_magnitude=by_magnitude))
    rolloff = min(max(round(pulse["rolloff"], 2), 0.05), 1.0)
    twin = known_preset("radioml_2018")
    receiver = replace(
        twin.receiver,
        rolloffs=(rolloff,),
        mean_rolloff=rolloff,
        pulse_exponent=max(round(2 * pulse["exponent"]) / 2, 0.5),
        max_cfo=wide.receiver.max_cfo,
    )
    cfo_std = wide.channel.cfo_std
    channel = replace(twin.channel, cfo_std=cfo_std, unit_mean_magnitude=by_magnitude)
    return KnownChannel(channel, receiver)


def sidedness(iq: Tensor) -> Tensor:
    """Power above the carrier less that below it, over their sum, float32 [B], in [-1, 1].

    Args:
        iq: complex64 [B, num_samples], carrier offset below three bins of the spectrum.
    """
    frequency, power = power_spectrum(iq)
    edge = 3.5 / iq.shape[1]
    above, below = (power[:, side].sum(1) for side in (frequency > edge, frequency < -edge))
    return (above - below) / (above + below)


def half_rate_lines(iq: Tensor) -> Tensor:
    """Share of the power of iq^2 half a symbol rate above and below the carrier, float32 [B].

    The square of a continuous-phase modulation of index 0.5 has lines there.
    """
    power = torch.fft.fft(iq.square()).abs().square()
    half_rate = iq.shape[1] // (2 * SAMPLES_PER_SYMBOL)
    around = torch.arange(-2, 3)
    return power[:, torch.cat([half_rate + around, -half_rate + around])].sum(1) / power.sum(1)


def name_frames(iq: Tensor, snr_db: np.ndarray, known: KnownChannel) -> np.ndarray:
    """The class that each frame looks like, int64 [B], index into RADIOML_2018_MODULATIONS.

    Args:
        iq: complex64 [B, num_samples], of 20 dB or more; below, names mean less.
        snr_db: float [B], per sample, to half a decibel, without what a class has beyond it, see
            Channel.unit_mean_magnitude. That of many frames alike: the symbols of one frame have more
            energy or less by chance, which is no other amplitude.
        known: channel and receiver.
    """
    envelope = envelope_std(iq)
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
    found[rest] = likeliest_linear(some, snr_db[rest], known, _ERRORS_DB)
    return found


def likeliest_linear(
    iq: Tensor, snr_db: np.ndarray, known: KnownChannel, errors_db: tuple[float, ...] = ()
) -> np.ndarray:
    """The likeliest linear modulation of each frame; result and first arguments as in name_frames.

    Of real signals the likeliest of some errors of the SNR is taken, in dB.
    """
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


def _real_likelihoods(
    iq: Tensor, snr_db: float, errors_db: tuple[float, ...], known: KnownChannel
) -> Tensor:
    """Greatest log-likelihood of each of _REAL_LINEAR, with the other ASK or SNR; float32 [B, 4]."""
    other = replace(known, channel=replace(known.channel, unipolar_ask=not known.channel.unipolar_ask))
    best = iq.real.new_full((len(iq), len(_REAL_LINEAR)), -torch.inf)
    for error_db in (0.0, *errors_db):
        if error_db:
            best = best.maximum(_likelihoods(iq, snr_db + error_db, _REAL_LINEAR, known))
        ask = _likelihoods(iq, snr_db + error_db, _ASK, other)
        best[:, : len(_ASK)] = best[:, : len(_ASK)].maximum(ask)
    return best


def _likelihoods(iq: Tensor, snr_db: float, names: tuple[str, ...], known: KnownChannel) -> Tensor:
    """Log-likelihood of each modulation, float32 [B, len(names)], up to a constant a frame."""
    label = (snr_db - known.channel.snr_offset_db) / known.channel.snr_slope
    return receiver_log_likelihoods(
        iq, modulations=names, snr_labels=(label,), channel=known.channel, receiver=known.receiver
    )[:, :, 0]


def of_another_kind(named: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether frames look like another kind of signal than their label says, see _KINDS; bool [B].

    Args:
        named: int64 [B], see name_frames.
        labels: int64 [B], index into RADIOML_2018_MODULATIONS.
    """
    kind_of = {name: kind for kind, names in enumerate(_KINDS) for name in names.split()}
    kinds = np.array([kind_of[name] for name in RADIOML_2018_MODULATIONS])
    return kinds[named] != kinds[labels]


def mean_excess_db(frames: pd.DataFrame, known: KnownChannel) -> float:
    """SNR of a level beyond that of the frames, in dB, from what its classes have, see KnownChannel."""
    names = sorted(set(frames.loc[frames["digital"], "name"]))
    if not names:
        return 0.0
    excess = np.array(magnitude_excess_db(names, known.channel))
    return float(10 * np.log10(np.mean(10 ** (excess / 10))))


def by_single_snr(frames: pd.DataFrame, known: KnownChannel) -> tuple[KnownChannel, np.ndarray]:
    """What is known, and the SNR in dB of each frame, where every frame has one of its own.

    What its class has beyond others is part of it. To half a decibel, as names need it, since frames of
    the same SNR are named together.
    """
    single_db = 10 * np.log10(frames["snr_ratio"].clip(lower=1e-3).to_numpy())
    channel = replace(known.channel, unit_mean_magnitude=False)
    return replace(known, channel=channel), np.round(2 * single_db) / 2


def mismatch_at_lower_snr(
    iq: Tensor, modulation: np.ndarray, snr_db: np.ndarray, known: KnownChannel
) -> dict[str, Any]:
    """Of how many frames of linear classes which share looks like another kind of signal.

    Arguments are those of class_evidence.
    """
    linear = [RADIOML_2018_MODULATIONS.index(name) for name in LINEAR_MODULATIONS]
    index = _some_of_each(modulation, linear, _MIDDLE_FRAMES_PER_CLASS)
    named = likeliest_linear(iq[torch.from_numpy(index)], snr_db[index], known)
    other = of_another_kind(named, modulation[index])
    return {"frames": len(index), "share": float(other.mean()) if len(index) else 0.0}


def class_evidence(
    iq: Tensor, modulation: np.ndarray, snr_db: np.ndarray, known: KnownChannel
) -> tuple[pd.DataFrame, float | None]:
    """What the frames of each class look like at high SNR.

    Args:
        iq: complex64 [N, num_samples], frames of high SNR.
        modulation: int64 [N], class that the labels say, index into RADIOML_2018_MODULATIONS.
        snr_db: float [N], measured, see name_frames.
        known: channel and receiver.

    Returns:
        A row a class: name; signature, squared_line and envelope_std, see features.signature;
        looks_like: the class that most frames look like, and their share; own_share: of frames that
        look like their label; mismatch_share: of those of another kind; frames: how many. And the
        median sidedness of frames that look like a single sideband, None without any.
    """
    index = _some_of_each(modulation, np.unique(modulation), _FRAMES_PER_CLASS)
    iq, labels = iq[torch.from_numpy(index)], modulation[index]
    named = name_frames(iq, snr_db[index], known)
    other = of_another_kind(named, labels)
    frames = pd.DataFrame({"label": labels, "named": named, "own": named == labels, "other": other})
    rows = []
    for label, some in frames.groupby("label"):
        votes = some["named"].value_counts()
        looks_like, share = RADIOML_2018_MODULATIONS[votes.index[0]], votes.iloc[0] / len(some)
        name, shares = RADIOML_2018_MODULATIONS[label], some[["own", "other"]].mean()
        seen = signature(iq[torch.from_numpy(labels == label)])
        rows.append((name, *seen, looks_like, share, *shares, len(some)))
    columns = ["name", "signature", "squared_line", "envelope_std", "looks_like", "share", "own_share"]
    single = [RADIOML_2018_MODULATIONS.index(name) for name in ("AM-SSB-WC", "AM-SSB-SC")]
    sides = sidedness(iq)[torch.from_numpy(np.isin(named, single))]
    table = pd.DataFrame(rows, columns=[*columns, "mismatch_share", "frames"])
    return table, float(sides.median()) if len(sides) else None


def _some_of_each(modulation: np.ndarray, numbers: Iterable[int], at_most: int) -> np.ndarray:
    """Places of frames of some classes, all over the levels and rows of each, however ordered."""
    places = (np.flatnonzero(modulation == number) for number in numbers)
    return np.concatenate([of_class[evenly_spaced(len(of_class), at_most)] for of_class in places])


def label_order_confidence(evidence: pd.DataFrame, names: tuple[str, ...]) -> dict[str, float]:
    """Probability of each list of names, and of neither, given what the classes look like.

    All are as likely beforehand. A class looks like its name but for an error rate; where the labels
    follow neither list, it does so by chance alone.

    Args:
        evidence: see class_evidence.
        names: the list by which it was read.
    """
    column = [names.index(name) for name in evidence["name"]]
    hits = {
        order: int((np.array(listed)[column] == evidence["looks_like"]).sum())
        for order, listed in LABEL_ORDERS.items()
    }
    # Hits, and the probability of one.
    chances = {order: (hit, 1 - _ERROR_RATE) for order, hit in hits.items()}
    chances["neither"] = max(hits.values()), 1 / len(RADIOML_2018_MODULATIONS)
    log_likelihood = [
        hit * np.log(chance) + (len(evidence) - hit) * np.log(1 - chance)
        for hit, chance in chances.values()
    ]
    return dict(zip(chances, softmax(log_likelihood).tolist(), strict=True))

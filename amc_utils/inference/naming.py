"""What signals a recording holds, and the modulation of each, with nothing told."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import gammaincinv
from torch import Tensor

from amc_utils.dsp.carrier import recover_carrier
from amc_utils.dsp.equalisation import Equalised
from amc_utils.dsp.features import carrier_share, envelope_kurtosis, power_spectrum
from amc_utils.dsp.survey import Signal
from amc_utils.dsp.synchronisation import ReceivedBatch
from amc_utils.inference.classifier import Classifier, load_classifier
from amc_utils.inference.formats import open_recording
from amc_utils.inference.ood import mean_log_p_value
from amc_utils.inference.recordings import Recording, can_be_cut
from amc_utils.radioml.reader import evenly_spaced
from amc_utils.signals import DIGITAL_MODULATIONS, NUM_SAMPLES, SAMPLES_PER_SYMBOL, unit_phasor

# So many times more frames than wanted are cut; those of noise alone are left out.
_SPARE = 4
# Density within the symbol rate's band over that beside it below which a frame is noise.
_LEAST_DENSITY = 1.4
# Where a symbol rate's band ends, and where noise beside any signal is heard, in cycles per sample;
# farther out a recording may have none.
_WITHIN, _BESIDE = 0.05, ((0.146, 0.165), (0.165, 0.45))
# A told symbol rate is that of a signal found if both are so close.
_SAME_RATE = 0.02
# Symbols whose mean square is that share of their power are real.
_REAL = 0.5
# Frames that pulse and carrier offset are taken from.
_FRAMES_MEASURED = 64
# Symbol rates to either side of a carrier that frames hold.
_CUT_BAND = SAMPLES_PER_SYMBOL / 2
# Kurtosis below which an envelope is constant, that of such a signal beside another 20 dB weaker; OQPSK
# comes closest, with 1.03. Modulations that have such an envelope; those whose parts are not staggered,
# and what they have at least (QPSK from a satellite has 1.10, that of training 1.15).
_CONSTANT, _LEAST_KURTOSIS = 1.02, 1.06
_OF_CONSTANT_ENVELOPE = ("FM", "GMSK")
_OF_ONE_PULSE = tuple(name for name in DIGITAL_MODULATIONS if name != "OQPSK")
# Share of the spectrum's bins that are taken to hold noise alone.
_QUIET = 0.1
# Of fewer frames the spread says nothing.
_FEW = 4
# Share of power in a line of the spectrum from which on it is a tone.
_TONE = 0.1


@dataclass(frozen=True)
class NamedSignal:
    """One signal of a recording, and what was made of it.

    Attributes:
        recording: that holds it.
        symbol_rate: symbols per second, or per sample where the recording's rate is not known.
        carrier_hz: its carrier, in the same unit.
        found: what told these; None where they were told.
        posterior: probability of each modulation, of the recording and not of a frame, largest first.
        frames: a row a frame as Classifier.table has it, and `start`, its first sample.
        left_out: how many frames were left out, by reason.
        rolloff: roll-off of its pulse; NaN where the network's front end does not find one.
        symbols: synchronised symbols of some frames, complex64 [frames, symbols], up to quarter turns.
        foreign_below: see Classifier.
        kurtosis, kurtosis_error: see envelope_kurtosis, and the standard error of it.
        has_tones: whether a tenth of its power lies in a line of its spectrum.
        traces: the same frames between symbols, eight samples a symbol, complex64 [frames, samples];
            empty where the network's front end does not find the pulse.
        number, count: which of how many of its recording it is.
    """

    recording: Recording
    symbol_rate: float
    carrier_hz: float
    found: Signal | None
    posterior: pd.Series
    frames: pd.DataFrame
    left_out: dict[str, int]
    rolloff: float
    symbols: np.ndarray
    traces: np.ndarray
    foreign_below: float
    kurtosis: float
    kurtosis_error: float
    has_tones: bool
    number: int = 1
    count: int = 1

    @property
    def modulation(self) -> str:
        """The likeliest."""
        return str(self.posterior.index[0])

    @property
    def title(self) -> str:
        """Its recording, and which signal of it."""
        return f"{self.recording.name}, signal {self.number} of {self.count}"

    @property
    def bandwidth_hz(self) -> float:
        """Of the band in which the line was found, else the symbol rate."""
        rate = self.recording.sample_rate or 1.0
        return self.found.bandwidth * rate if self.found else self.symbol_rate

    @property
    def stretch(self) -> tuple[int, int]:
        """First sample and end of what was named in the recording, to the length of a frame."""
        start = self.frames["start"]
        per_symbol = (self.recording.sample_rate or 1.0) / self.symbol_rate
        length = int(NUM_SAMPLES / SAMPLES_PER_SYMBOL * per_symbol)
        return int(start.min()), min(int(start.max()) + length, self.recording.length)

    @property
    def es_n0_db(self) -> float:
        """Energy of a symbol over noise density, the median of frames."""
        return float(self.frames["snr_db"].median()) + 10 * np.log10(SAMPLES_PER_SYMBOL)

    @property
    def likeness(self) -> float:
        """See mean_log_p_value."""
        return mean_log_p_value(self.frames["p_value"].to_numpy())

    @property
    def is_foreign(self) -> bool:
        """Whether it is no signal of the kinds that the network was trained on."""
        return self.likeness < self.foreign_below or self.contradicts_envelope

    @property
    def contradicts_envelope(self) -> bool:
        """Whether its envelope is surely more constant than that of the named modulation can be."""
        limit = _LEAST_KURTOSIS if self.modulation in _OF_ONE_PULSE else _CONSTANT
        is_constant = self.kurtosis + 2 * self.kurtosis_error < limit
        return is_constant and self.modulation not in _OF_CONSTANT_ENVELOPE

    @property
    def may_be_msk(self) -> bool:
        """Whether it is called OQPSK, or else wrongly, and its envelope may be constant."""
        is_in_question = self.modulation == "OQPSK" or self.contradicts_envelope
        return (
            is_in_question
            and not self.has_tones
            and self.kurtosis - 2 * self.kurtosis_error < _CONSTANT
        )

    def facts(self) -> dict[str, Any]:
        """What was found, as plain values."""
        found = self.found
        return {
            "recording": self.recording.name,
            "signal": self.number,
            "modulation": self.modulation,
            "posterior": {str(name): float(share) for name, share in self.posterior.head(5).items()},
            "start": self.recording.first + self.stretch[0],
            "stop": self.recording.first + self.stretch[1],
            "symbol_rate": self.symbol_rate,
            "carrier_hz": self.carrier_hz,
            "bandwidth_hz": self.bandwidth_hz,
            "line": found.line if found else None,
            "runner_up": found.runner_up if found else None,
            "rolloff": None if np.isnan(self.rolloff) else self.rolloff,
            "es_n0_db": self.es_n0_db,
            "num_frames": len(self.frames),
            "left_out": self.left_out,
            "likeness": self.likeness,
            "kurtosis": self.kurtosis,
            "is_foreign": self.is_foreign,
            "notes": list(self.recording.notes),
        }


def classify_recording(
    source: str | os.PathLike[str] | np.ndarray | Recording,
    classifier: Classifier | None = None,
    *,
    sample_rate: float | None = None,
    symbol_rate: float | None = None,
    offset_hz: float | None = None,
    datatype: str = "",
    num_frames: int = 256,
    most: int = 8,
) -> list[NamedSignal]:
    """The signals of one carrier in a recording, each named; those with the strongest lines first.

    Args:
        source: file, see open_recording; or complex samples; or what is open already.
        classifier: the shipped one, if none is given.
        sample_rate: samples per second, where the file does not say it.
        symbol_rate: symbols per second, where it is known; else it is found, from 2 to 4,096 samples a
            symbol.
        offset_hz: carrier, where it is known.
        datatype: see open_recording.
        num_frames: frames of each signal at most, evenly spread.
        most: signals at most, those with the strongest lines.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see open_recording and Recording.frames.
    """
    if isinstance(source, np.ndarray):
        if source.ndim != 1 or not np.iscomplexobj(source) or not source.size:
            raise ValueError(
                f"an array must hold complex samples in one axis, got {source.dtype} of shape "
                f"{source.shape}; make I and Q i + 1j * q"
            )
        samples = source
        source = Recording("array", len(samples), sample_rate, lambda a, b: samples[a:b])
    recording = (
        source if isinstance(source, Recording) else open_recording(source, sample_rate, datatype)
    )
    classifier = classifier or load_classifier()
    found = _without_parts(recording, recording.signals(most))
    wanted = _told_or_found(recording, found, symbol_rate, offset_hz)
    named = []
    for one in wanted:
        others = [other for other in found if other is not one.found and not other.overlaps(one.band)]
        named.append(_named_at_its_rate(recording, classifier, one, others, num_frames))
    return [replace(some, number=n, count=len(wanted)) for n, some in enumerate(named, 1)]


@dataclass(frozen=True)
class _Wanted:
    """A signal that is to be named.

    Attributes:
        symbol_rate: symbols per second, or per sample where the recording's rate is not known.
        carrier_hz: its carrier, in the same unit.
        found: what told these, None where they were told.
        band: its band, in cycles per sample.
        keeps_carrier: whether the carrier was told.
    """

    symbol_rate: float
    carrier_hz: float
    found: Signal | None
    band: Signal
    keeps_carrier: bool


def _told_or_found(
    recording: Recording, found: list[Signal], symbol_rate: float | None, offset_hz: float | None
) -> list[_Wanted]:
    """What is told, else what was found in the band of the recording."""
    rate = recording.sample_rate
    if rate is None and (symbol_rate or 0) + abs(offset_hz or 0) > 1:
        raise ValueError(
            f"sample_rate must be told with a symbol rate or a carrier in hertz, {recording.name} does "
            f"not say its own"
        )
    # Where nobody knows the rate, frequencies are per sample.
    rate, is_told = rate or 1.0, offset_hz is not None
    found = [signal for signal in found if can_be_cut(signal.symbol_rate)]
    if recording.band:
        low, high = recording.band
        found = [signal for signal in found if low <= signal.carrier * rate <= high]
    if symbol_rate is not None:
        same = [s for s in found if abs(s.symbol_rate * rate / symbol_rate - 1) < _SAME_RATE]
        carrier = offset_hz if is_told else same[0].carrier * rate if same else 0.0
        band = Signal(carrier / rate, symbol_rate / rate, 0.0, symbol_rate / rate, 0.0, 0.0)
        return [_Wanted(symbol_rate, carrier, None, band, is_told)]
    if is_told:
        found = [s for s in found if abs(s.carrier * rate - offset_hz) < s.bandwidth * rate / 2][:1]
    return [
        _Wanted(s.symbol_rate * rate, offset_hz if is_told else s.carrier * rate, s, s, is_told)
        for s in found
    ]


def _without_parts(recording: Recording, found: list[Signal]) -> list[Signal]:
    """What is no part of a stronger one: side lobes of a signal of constant envelope have lines too.

    A sum of signals has no constant envelope.
    """
    rate = recording.sample_rate or 1.0
    known, found, kept = replace(recording, sample_rate=rate), list(found), []
    while found:
        strongest = found.pop(0)
        kept.append(strongest)
        reach = _CUT_BAND * strongest.symbol_rate
        beside = [some for some in found if abs(some.carrier - strongest.carrier) < reach]
        if beside and can_be_cut(strongest.symbol_rate):
            cut = known.frames(
                symbol_rate=strongest.symbol_rate * rate,
                offset_hz=strongest.carrier * rate,
                num_frames=_FRAMES_MEASURED,
            )
            kurtosis, error = _envelope(cut.iq)
            if kurtosis + 2 * error < _CONSTANT:
                found = [some for some in found if some not in beside]
    return kept


def _envelope(iq: Tensor) -> tuple[float, float]:
    """Kurtosis of the envelope of frames [B, num_samples], and the standard error of it.

    The median of frames, since some may hold an end of the signal. Noise lies beside all signals.
    """
    density = np.quantile(power_spectrum(iq)[1].mean(0).numpy(), _QUIET)
    # Of the mean of so many frames' noise that is that quantile; up to half the band is no noise.
    noise = density / (gammaincinv(len(iq), 1.5 * _QUIET) / len(iq))
    kurtosis = envelope_kurtosis(iq, torch.full((len(iq),), float(noise)))
    middle = kurtosis.median()
    # Of a median, from that of the distances to it, as for Gaussian errors.
    error = 1.86 * (kurtosis - middle).abs().median() / len(iq) ** 0.5
    return float(middle), float(error) if len(iq) >= _FEW else np.inf


def _named_at_its_rate(
    recording: Recording, classifier: Classifier, one: _Wanted, others: list[Signal], num_frames: int
) -> NamedSignal:
    """A signal named, at twice the symbol rate that was found if it is MSK.

    The square of MSK has lines half its symbol rate beside the carrier, as that of OQPSK. So has that
    of other shifts of frequency, which have tones.
    """
    some = _named(recording, classifier, one, others, num_frames)
    is_staggered = one.found is not None and one.found.is_staggered
    if is_staggered and some.may_be_msk and can_be_cut(2 * one.band.symbol_rate):
        faster = replace(one, symbol_rate=2 * one.symbol_rate)
        twice = _named(recording, classifier, faster, others, num_frames)
        is_msk = twice.modulation in _OF_CONSTANT_ENVELOPE and not twice.is_foreign
        return twice if is_msk else some
    return some


def _named(
    recording: Recording, classifier: Classifier, one: _Wanted, others: list[Signal], num_frames: int
) -> NamedSignal:
    known = replace(recording, sample_rate=recording.sample_rate or 1.0).without(others, one.band)
    symbol_rate, carrier_hz = one.symbol_rate, one.carrier_hz
    cut = known.frames(symbol_rate=symbol_rate, offset_hz=carrier_hz, num_frames=_SPARE * num_frames)
    heard = np.flatnonzero(_holds_signal(cut.iq).numpy())
    left_out = {"noise alone": len(cut.iq) - len(heard)} if len(heard) else {}
    # Where all is noise, or what there is lies elsewhere, better all frames than none.
    chosen = heard if len(heard) else np.arange(len(cut.iq))
    chosen = chosen[evenly_spaced(len(chosen), num_frames)]
    iq = (cut.at_record_scale() if classifier.keeps_scale else cut.iq)[chosen]
    features, logits = classifier.look(iq)
    table = classifier.table(classifier.prediction(features, logits))
    table.insert(0, "start", cut.start[chosen])
    posterior = pd.Series(
        classifier.of_recording(logits.modulation).numpy(), classifier.config.modulation_names
    ).sort_values(ascending=False)
    left_out |= {"silent": cut.num_silent, "not finite": cut.num_broken}
    some = ReceivedBatch(iq[evenly_spaced(len(iq), _FRAMES_MEASURED)], classifier.config.receiver)
    rolloff, traces = float("nan"), torch.empty(0, 0)
    symbols = _upright(recover_carrier(some.timed))
    if classifier.config.receiver.is_blind:
        rolloff = float(some.blind.rolloff.median())
        traces = _between_symbols(some.blind, symbols, classifier.config.receiver.guard_symbols)
        if not (one.keeps_carrier or posterior.index[0] in _OF_CONSTANT_ENVELOPE):
            carrier_hz += float(some.blind.cfo.median()) * SAMPLES_PER_SYMBOL * symbol_rate
        if posterior.index[0] not in _OF_ONE_PULSE:
            rolloff = float("nan")
    kurtosis, error = _envelope(iq)
    return NamedSignal(
        recording=recording,
        symbol_rate=symbol_rate,
        carrier_hz=carrier_hz,
        found=one.found,
        posterior=posterior,
        frames=table,
        left_out={reason: count for reason, count in left_out.items() if count},
        rolloff=rolloff,
        symbols=symbols.numpy(),
        traces=traces.numpy(),
        foreign_below=classifier.foreign_below,
        kurtosis=kurtosis,
        kurtosis_error=error,
        has_tones=float(carrier_share(iq).median()) > _TONE,
    )


def _upright(symbols: Tensor) -> Tensor:
    """Symbols [B, K], real ones turned along the in-phase axis."""
    square = symbols.square().mean(1)
    is_real = square.abs() > _REAL * symbols.abs().square().mean(1)
    turn = torch.where(is_real, -square.angle() / 2, 0.0)
    return symbols * unit_phasor(turn)[:, None]


def _between_symbols(found: Equalised, symbols: Tensor, guard: int) -> Tensor:
    """Equalised frames at eight samples a symbol, the first at a symbol, in phase with the symbols."""
    upper, lower = found.bands.unbind(1)
    number = upper.shape[1]
    spectrum = torch.zeros(len(upper), SAMPLES_PER_SYMBOL * number, dtype=upper.dtype)
    spectrum[:, :number], spectrum[:, -number:] = upper, lower
    late = torch.fft.fftfreq(SAMPLES_PER_SYMBOL * number) * SAMPLES_PER_SYMBOL
    advance = unit_phasor(2 * torch.pi / SAMPLES_PER_SYMBOL * found.timing[:, None] * late)
    traces = torch.fft.ifft(spectrum * advance) * SAMPLES_PER_SYMBOL
    traces = traces[:, SAMPLES_PER_SYMBOL * guard :][:, : SAMPLES_PER_SYMBOL * symbols.shape[1]]
    at_symbols = traces[:, ::SAMPLES_PER_SYMBOL]
    # Symbols are these turned by what was left of the carrier.
    turn = unit_phasor((symbols * at_symbols.conj()).angle())
    scale = at_symbols.abs().square().mean(1, keepdim=True).rsqrt()
    return traces * scale * turn.repeat_interleave(SAMPLES_PER_SYMBOL, 1)


def _holds_signal(iq: Tensor) -> Tensor:
    """Whether frames [B, num_samples] have more power in the symbol rate's band than beside it."""
    frequency, power = power_spectrum(iq)
    distance = frequency.abs()
    near, far = (power[:, (distance > a) & (distance < b)].mean(1) for a, b in _BESIDE)
    return power[:, distance < _WITHIN].mean(1) > _LEAST_DENSITY * torch.maximum(near, far)


def summary(named: NamedSignal) -> str:
    """A few lines on a signal."""
    rate, found = named.recording.sample_rate, named.found
    unit = " per sample" if rate is None else " Hz"
    first = f"  {named.modulation}, probability {named.posterior.iloc[0]:.2f}"
    others = [
        f"{name} {share:.2f}" for name, share in named.posterior.iloc[1:4].items() if share >= 0.01
    ]
    lines = [first + (f" (then {', '.join(others)})" if others else "")]
    text = f"  {at_rate(named)}"
    if not np.isnan(named.rolloff):
        text += f", roll-off {named.rolloff:.2f}"
    lines.append(text)
    if rate is None:
        lines.append("  its sample rate is not known: sample_rate tells it")
    if found:
        lines.append(
            f"  line of the symbol rate {found.line:.0f} above chance, the next "
            f"{max(found.runner_up, 0):.0f}, in a band of {_number(named.bandwidth_hz)}{unit}"
        )
    snr = float(named.frames["snr_db"].median())
    lines.append(f"  SNR in the band of 8 samples a symbol {snr:.0f} dB, Es/N0 {named.es_n0_db:.0f} dB")
    count = len(named.frames)
    left = ", ".join(
        f"{number:,} of {reason}" if reason == "noise alone" else f"{number:,} {reason}"
        for reason, number in named.left_out.items()
    )
    seen = f"mean log p-value of frames {named.likeness:.1f}, limit {named.foreign_below:.1f}"
    if named.contradicts_envelope:
        seen = f"its envelope is constant, that of {named.modulation} is not; {seen}"
    first, last = ((named.recording.first + place) / (rate or 1.0) for place in named.stretch)
    where = f"{first:.3g} to {last:.3g} s" if rate else f"samples {first:,.0f} to {last:,.0f}"
    lines.append(
        f"  from {count} frames of 1,024 samples, {where}" + (f"; left out: {left}" if left else "")
    )
    lines.append(
        f"  UNLIKE THE TRAINING DATA: {seen}; do not trust the name"
        if named.is_foreign
        else f"  like the training data: {seen}"
    )
    return "\n".join(lines)


def at_rate(named: NamedSignal) -> str:
    """Symbol rate and carrier of a signal, in words."""
    per, unit = ("sample", " per sample") if named.recording.sample_rate is None else ("second", " Hz")
    # As fine as it is found at best.
    step = 10.0 ** np.floor(np.log10(named.symbol_rate * 1e-4))
    carrier = round(named.carrier_hz / step) * step
    rate = _number(named.symbol_rate, 6)
    return f"{rate} symbols per {per}, carrier at {_number(carrier, 12)}{unit}"


def _number(value: float, digits: int = 4) -> str:
    """With so many digits; whole where it is large."""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:.4g}"

"""The genie-aided bound: the mean accuracy over all classes that no receiver is expected to beat.

The genie tells the receiver roll-off, timing, carrier phase and carrier offset, and gives it whole
symbols: a cyclic frame, so that no pulse is cut off at an end and no neighbour interferes. Where the
pulse lets symbols interfere even so, as that of RadioML 2018.01A does, the genie takes the interference
away: symbols come with a pulse of the same energy that has none (the matched filter bound). Unknown
remain the symbols, the level of the noise and the class. A matched filter turns the N samples of
such a frame into K symbols z_k = A s_k + w_k and leaves N - K dimensions of noise alone; nothing is
lost, so the receiver that decides for the class of greatest likelihood has the greatest mean joint
accuracy of all receivers of such frames when classes are equally frequent. That a real receiver,
which must estimate what the genie tells from a frame with cut-off ends, gets no more is argued here,
not proved: what parts of further symbols reach into the frame is energy that its own symbols lose.

It is a bound on the mean alone. A single SNR, or a single task, is not bounded: whoever always says
"BPSK at -18 dB" is right there in one frame of 17, and wrong everywhere else. A receiver that knows
the SNR as well bounds every SNR by itself, see amc_utils.studies.evaluate.

A genie that keeps the carrier phase to itself leaves less: the likelihood is averaged over all phases,
on a grid and in float32. That is a bound as well, and a tighter one, where all are equally likely.

Where frames are scaled to unit power, which says nothing of the class, the level is a nuisance
parameter: the likelihood is averaged over all levels, every logarithm equally likely. Where they keep
the scale of their record, each class has the level that its SNR leaves, and the receiver knows it.

All else is in float64: at an SNR of 60 dB the energy beside the band is a millionth of a frame's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from amc_utils.dsp.likelihood import PHASE_ALONE, phase_averaged_ratio
from amc_utils.dsp.receiver_settings import (
    ReceiverSettings,
    class_es_n0_db,
    class_snr_db,
    symbol_energy_share,
)
from amc_utils.modulation.constellations import symbol_map
from amc_utils.signals import (
    NUM_SAMPLES,
    SAMPLES_PER_SYMBOL,
    Channel,
    ChannelState,
    modulate,
    raised_cosine,
    symbol_table,
)

# SNR levels per frame that are compared in full; the test of this module compares all of them too.
_NUM_CANDIDATES = 8
# Expectation-maximisation steps for the level; more change no decision in the tests.
_NUM_STEPS = 4
# Elements of the largest temporary: it stays in a CPU's cache, and small on a GPU.
_ELEMENTS_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 27}


@dataclass(frozen=True)
class MatchedFilterOutput:
    """All that a frame says about its class once its channel is known.

    Attributes:
        aligned: complex128 [B, K], unit-energy matched filter at the symbol instants.
        late: complex128 [B, K], the same half a symbol later.
        energy: float64 [B], energy of the whole frame, signal and noise.
        num_dimensions: complex dimensions of the whole frame, N.
    """

    aligned: Tensor
    late: Tensor
    energy: Tensor
    num_dimensions: int

    @property
    def offset(self) -> Tensor:
        """Complex128 [B, K], the quadrature part taken half a symbol later."""
        return torch.complex(self.aligned.real, self.late.imag)


def genie_frames(
    modulation: Tensor,
    level: Tensor,
    *,
    snr_labels: Sequence[float],
    modulations: Sequence[str],
    generator: torch.Generator,
    channel: Channel,
    num_symbols: int = NUM_SAMPLES // SAMPLES_PER_SYMBOL,
) -> MatchedFilterOutput:
    """Cyclic frames as the genie-aided receiver sees them; the roll-off is random, the rest undone.

    Args:
        modulation: int64 [B], index into `modulations`.
        level: int64 [B], index into `snr_labels`.
        snr_labels: SNR labels, of which the channel makes SNRs.
        modulations: names of linear modulations.
        generator: source of symbols, roll-off and noise, on the device of the frames.
        channel: gives the range of the roll-off, the SNRs and the scale of the frames.
        num_symbols: symbols per frame.
    """
    device, size = modulation.device, len(modulation)
    num_samples = num_symbols * SAMPLES_PER_SYMBOL
    options = {"generator": generator, "device": device}
    points, orders = symbol_table(tuple(modulations), device, channel.unipolar_ask)
    uniform = torch.rand(size, num_symbols, **options)
    symbols = points[modulation[:, None], (uniform * orders[modulation][:, None]).long()]
    zero = torch.zeros(size, device=device)
    rolloff = torch.rand(size, **options)
    rolloff = torch.lerp(*(rolloff.new_full((), end) for end in channel.rolloff_range), rolloff)
    state = ChannelState(rolloff, zero, zero, zero, zero)
    is_offset = modulation == [*modulations, "OQPSK"].index("OQPSK")
    iq = modulate(symbols, state, is_offset=is_offset, num_samples=num_samples)
    noise = torch.randn(size, num_samples, dtype=torch.complex128, **options)
    iq = iq * symbol_energy_share(modulations, channel).to(device)[modulation].sqrt()[:, None]
    snr_db = class_snr_db(modulations, snr_labels, channel).to(device)[modulation, level]
    iq = iq + noise * 10 ** (-snr_db / 20)[:, None]
    if channel.record_scale:
        levels = noise_levels(modulations, snr_labels, channel).to(device)[modulation, level]
        iq = iq * (levels.sqrt() * 10 ** (snr_db / 20))[:, None]
    return matched_filter(iq, rolloff)


def noise_levels(modulations: Sequence[str], snr_labels: Sequence[float], channel: Channel) -> Tensor:
    """Noise variance per sample of each class at the scale of a record, float64 [M, G].

    A record is divided by its standard deviation: carriers that symbols of non-zero mean send are no
    part of it.
    """
    maps = [symbol_map(name, unipolar_ask=channel.unipolar_ask) for name in modulations]
    varying = torch.tensor([1 - abs(points.mean()) ** 2 for points in maps], dtype=torch.float64)
    varying = varying * symbol_energy_share(modulations, channel)
    noise = 10 ** (-class_snr_db(modulations, snr_labels, channel) / 10)
    return noise / (varying[:, None] + noise)


def matched_filter(iq: Tensor, rolloff: Tensor) -> MatchedFilterOutput:
    """Matched filter of cyclic frames, complex [B, num_samples], with their roll-off, float32 [B]."""
    num_symbols = iq.shape[1] // SAMPLES_PER_SYMBOL
    iq, rolloff = iq.to(torch.complex128), rolloff.double()
    frequency = torch.fft.fftfreq(
        iq.shape[1], 1 / SAMPLES_PER_SYMBOL, device=iq.device, dtype=torch.float64
    )
    spectrum = torch.fft.fft(iq, norm="ortho") * raised_cosine(frequency, rolloff[:, None]).sqrt()
    late = torch.polar(torch.ones_like(frequency), torch.pi * frequency)
    # Sampling once per symbol folds the spectrum.
    folded, folded_late = (
        part.view(len(iq), SAMPLES_PER_SYMBOL, num_symbols).sum(1)
        for part in (spectrum, spectrum * late)
    )
    aligned = torch.fft.ifft(folded, norm="ortho")
    half_later = torch.fft.ifft(folded_late, norm="ortho")
    energy = torch.view_as_real(iq).square().sum((1, 2))
    return MatchedFilterOutput(aligned, half_later, energy, iq.shape[1])


def log_likelihoods(
    output: MatchedFilterOutput,
    *,
    modulations: Sequence[str],
    snr_labels: Sequence[float],
    channel: Channel,
    num_candidates: int = _NUM_CANDIDATES,
    snr_level: Tensor | None = None,
    phase_known: bool = True,
) -> Tensor:
    """Log-likelihood of every class, float64 [B, num_modulations, num_labels], but for a constant.

    Only the `num_candidates` SNR labels that fit the energies best are compared, or the label that the
    receiver knows; the others are -inf.

    Args:
        output: matched filter output of the frames.
        modulations: hypotheses.
        snr_labels: hypotheses.
        channel: gives the SNRs of the labels, the levels of ASK and the scale of the frames.
        num_candidates: SNR labels per frame that are compared.
        snr_level: int64 [B], index of the true SNR label of each frame if the receiver may know it.
        phase_known: whether the receiver knows the carrier phase; if not, it must know the scale.

    Raises:
        ValueError: neither the phase nor the scale of the frames is known.
    """
    result = output.energy.new_full((len(output.energy), len(modulations), len(snr_labels)), -math.inf)
    symbol_snr = 10 ** (class_es_n0_db(modulations, snr_labels, channel) / 10).to(result.device)
    levels, still = [None] * len(modulations), replace(channel, cfo_std=0.0)
    if channel.record_scale:
        levels = noise_levels(modulations, snr_labels, channel).to(result.device)
    for number, (name, snr, level) in enumerate(zip(modulations, symbol_snr, levels, strict=True)):
        symbols = output.offset if name == "OQPSK" else output.aligned
        if snr_level is None:
            outside = output.energy - torch.view_as_real(symbols).square().sum((1, 2))
            fit = energy_fit(symbols, outside[:, None], output.num_dimensions, snr, level)
            chosen = fit.topk(min(num_candidates, len(snr_labels)), dim=1).indices
        else:
            chosen = snr_level[:, None]
        if phase_known:
            points = torch.from_numpy(symbol_map(name, unipolar_ask=channel.unipolar_ask).copy())
            of_frames = [symbols, output.energy, snr[chosen], None if level is None else level[chosen]]
            found = _likelihood(*of_frames, points.to(symbols), output.num_dimensions)
        else:
            # The genie takes interference away, as if the pulse had this exponent, and the offset.
            genie = ReceiverSettings(pulse_exponent=0.5, channel=still, snr_labels=tuple(snr_labels))
            found = _phase_averaged(output, name, chosen, snr, level, genie).double()
        result[:, number].scatter_(1, chosen, found)
    return result


def energy_fit(
    symbols: Tensor,
    outside: Tensor | float,
    num_dimensions: int,
    symbol_snr: Tensor,
    level: Tensor | None = None,
) -> Tensor:
    """Log-likelihood of each SNR if symbols were Gaussian, [B, num_snrs]: energies alone.

    Args:
        symbols: complex [B, K].
        outside: energy of the other dimensions, noise alone; [B, 1], or the same for all.
        num_dimensions: complex dimensions of a whole frame.
        symbol_snr: [num_snrs], Es/N0 as a ratio.
        level: [num_snrs], noise variance of each where it is known; else the best one is taken.
    """
    inside = torch.view_as_real(symbols).square().sum((1, 2))[:, None]
    noise = outside + inside / (1 + symbol_snr)
    spread = symbols.shape[1] * (1 + symbol_snr).log()
    if level is not None:
        return -num_dimensions * level.log() - noise / level - spread
    return -num_dimensions * (noise / num_dimensions).log() - spread


def _likelihood(
    symbols: Tensor,
    energy: Tensor,
    symbol_snr: Tensor,
    level: Tensor | None,
    points: Tensor,
    num_dimensions: int,
) -> Tensor:
    """Log-likelihood of one modulation at each SNR, [B, G].

    With c the scale that brings the noise to unit variance and a^2 the symbol SNR it is at one level
    2 N log c - c^2 E + sum_k log mean_s exp(2 a c Re(z_k s*) - a^2 |s|^2).

    Args:
        symbols: complex128 [B, K].
        energy: float64 [B].
        symbol_snr: float64 [B, G], Es/N0 as a ratio.
        level: float64 [B, G], noise variance of each class; None where it is not known.
        points: complex128 [M], the symbol map.
        num_dimensions: N.
    """
    size = symbols.shape[1] * len(points) * symbol_snr.shape[1]
    step = max(1, _ELEMENTS_AT_ONCE.get(symbols.device.type, 1 << 19) // size)
    found = []
    for part in torch.arange(len(symbols), device=symbols.device).split(step):
        z, snr = symbols[part], symbol_snr[part]
        inner = z.real[..., None] * points.real + z.imag[..., None] * points.imag
        terms = _Terms(inner[:, None], snr, points, energy[part, None], num_dimensions)
        if level is not None:
            found.append(terms.at(level[part].rsqrt()))
            continue
        outside = energy[part] - torch.view_as_real(z).square().sum((1, 2))
        first = ((num_dimensions - z.shape[1]) / outside).sqrt()[:, None].expand(snr.shape)
        found.append(terms.averaged(first))
    return torch.cat(found)


def _phase_averaged(
    output: MatchedFilterOutput,
    name: str,
    chosen: Tensor,
    symbol_snr: Tensor,
    level: Tensor | None,
    receiver: ReceiverSettings,
) -> Tensor:
    """Log-likelihood of one modulation at some SNRs without knowledge of the phase, float64 [B, G].

    Args:
        output: matched filter output of the frames.
        name: the modulation.
        chosen: int64 [B, G], which SNRs.
        symbol_snr: float64 [num_labels], Es/N0 as a ratio.
        level: float64 [num_labels], noise variance; None if it is not known.
        receiver: see phase_averaged_ratio.

    Raises:
        ValueError: the noise variance is not known either.
    """
    if level is None:
        raise ValueError(
            f"phase_known must be true for channels without record_scale, whose level is averaged over "
            f"already, got {receiver.channel}"
        )
    seen = symbol_snr.clamp(max=10 ** (PHASE_ALONE.es_n0_range_db[1] / 10))
    # Where frames are judged as if they had less SNR, symbols are scaled to have it.
    scale = (seen / symbol_snr / level / (1 + seen)).sqrt()
    num_symbols, found = output.aligned.shape[1], []
    for one in chosen.T:
        parts = [part * scale[one, None] for part in (output.aligned, output.late)]
        ratio = phase_averaged_ratio(name, *parts, one, receiver)
        energy, late_energy = (torch.view_as_real(part).square().sum((1, 2)) for part in parts)
        inside = energy
        if name == "OQPSK":
            # Energy of the in-phase part of one and the quadrature part of the other depends on the
            # phase. The mean stands in the ratio; the greatest is taken for the signal's, and cancels
            # where the SNR is not limited.
            energy = (energy + late_energy) / 2
            inside = energy + (parts[0].square().sum(1) - parts[1].square().sum(1)).abs() / 2
        snr = seen[one]
        shape = ratio + snr * energy - (1 + snr) * inside - num_symbols * (1 + snr).log()
        scaled = num_symbols * (snr / symbol_snr[one]).log()
        outside = (output.energy - inside / scale[one].square()) / level[one]
        found.append(shape + scaled - outside - output.num_dimensions * level[one].log())
    return torch.stack(found, 1)


@dataclass(frozen=True)
class _Terms:
    """Likelihood of some frames under one modulation as a function of the scale c, see _likelihood.

    Attributes:
        inner: float64 [B, 1, K, M], Re(z_k s*).
        symbol_snr: float64 [B, G], a^2.
        points: complex128 [M].
        energy: float64 [B, 1].
        num_dimensions: N.
    """

    inner: Tensor
    symbol_snr: Tensor
    points: Tensor
    energy: Tensor
    num_dimensions: int

    def exponent(self, scale: Tensor) -> Tensor:
        """Exponents of all symbols and points, [B, G, K, M], at scales [B, G]."""
        shift = self.symbol_snr[..., None, None] * torch.view_as_real(self.points).square().sum(-1)
        return (2 * (self.symbol_snr.sqrt() * scale)[..., None, None]) * self.inner - shift

    def at(self, scale: Tensor, exponent: Tensor | None = None) -> Tensor:
        """Log-likelihood at scales, [B, G]."""
        exponent = self.exponent(scale) if exponent is None else exponent
        symbols = exponent.logsumexp(-1).sum(-1) - exponent.shape[2] * math.log(len(self.points))
        return symbols + 2 * self.num_dimensions * scale.log() - scale.square() * self.energy

    def averaged(self, scale: Tensor) -> Tensor:
        """Log-likelihood averaged over all levels, from a first guess of the scale; [B, G].

        The average over log c is that of a Gaussian of the same maximum and curvature, exact to the
        order 1 / N.
        """
        num, energy = self.num_dimensions, self.energy
        for _ in range(_NUM_STEPS):
            weights = self.exponent(scale).softmax(-1)
            # Expected correlation with the symbols; the scale then solves c^2 E - c a R - N = 0.
            correlation = (weights * self.inner).sum((2, 3)) * self.symbol_snr.sqrt()
            root = (correlation.square() + 4 * num * energy).sqrt()
            scale = (correlation + root) / (2 * energy)
        exponent = self.exponent(scale)
        weights = exponent.softmax(-1)
        mean = (weights * self.inner).sum(-1, keepdim=True)
        variance = (weights * (self.inner - mean).square()).sum((2, 3))
        gain = scale * self.symbol_snr.sqrt()
        curvature = 4 * num + 2 * gain * mean.sum((2, 3)) - 4 * gain.square() * variance
        # Far from the truth the likelihood need not be concave at the last step; it is tiny there.
        return self.at(scale, exponent) - 0.5 * curvature.clamp_min(num).log()

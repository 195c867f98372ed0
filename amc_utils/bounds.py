"""The genie-aided bound: the mean accuracy over all classes that no receiver is expected to beat.

The genie tells the receiver roll-off, timing, carrier phase and carrier offset, and gives it whole
symbols: a cyclic frame, so that no pulse is cut off at an end and no neighbour interferes. Unknown
remain the symbols, the level of the noise and the class. A matched filter turns the N samples of
such a frame into K symbols z_k = A s_k + w_k and leaves N - K dimensions of noise alone; nothing is
lost, so the receiver that decides for the class of greatest likelihood has the greatest mean joint
accuracy of all receivers of such frames when classes are equally frequent. That a real receiver,
which must estimate what the genie tells from a frame with cut-off ends, gets no more is argued here,
not proved: what parts of further symbols reach into the frame is energy that its own symbols lose.

It is a bound on the mean alone. A single SNR, or a single task, is not bounded: whoever always says
"BPSK at -18 dB" is right there in one frame of 17, and wrong everywhere else. A receiver who is told
the SNR as well bounds every SNR by itself, see amc_utils.decisions.

The level is a nuisance parameter: the frames of a data set are scaled to unit power, which says
nothing of the class. The likelihood is averaged over all levels, every logarithm equally likely.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from amc_utils.channel import Channel, ChannelState
from amc_utils.signals import NUM_SAMPLES, SAMPLES_PER_SYMBOL, modulate, raised_cosine, symbol_table
from amc_utils.symbol_maps import symbol_map

# SNR levels per frame that are compared in full; the test of this module compares all of them too.
_NUM_CANDIDATES = 5
# Expectation-maximisation steps for the level; more change no decision in the tests.
_NUM_STEPS = 4
# Elements of the largest temporary: it stays in a CPU's cache, and small on a GPU.
_ELEMENTS_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 27}


@dataclass(frozen=True)
class MatchedFilterOutput:
    """All that a frame says about its class once its channel is known.

    Attributes:
        aligned: complex64 [B, K], unit-energy matched filter at the symbol instants.
        offset: complex64 [B, K], the same with the quadrature part taken half a symbol later.
        energy: float32 [B], energy of the whole frame, signal and noise.
        num_dimensions: complex dimensions of the whole frame, N.
    """

    aligned: Tensor
    offset: Tensor
    energy: Tensor
    num_dimensions: int


def genie_frames(
    modulation: Tensor,
    snr_db: Tensor,
    *,
    modulations: Sequence[str],
    generator: torch.Generator,
    channel: Channel,
    num_symbols: int = NUM_SAMPLES // SAMPLES_PER_SYMBOL,
) -> MatchedFilterOutput:
    """Cyclic frames as the genie-aided receiver sees them; the roll-off is random, the rest undone.

    Args:
        modulation: int64 [B], index into `modulations`.
        snr_db: [B], per complex sample over the whole sampled band.
        modulations: names of linear modulations.
        generator: source of symbols, roll-off and noise, on the device of the frames.
        channel: gives the range of the roll-off.
        num_symbols: symbols per frame.
    """
    device, size = modulation.device, len(modulation)
    num_samples = num_symbols * SAMPLES_PER_SYMBOL
    options = {"generator": generator, "device": device}
    points, orders = symbol_table(tuple(modulations), device)
    uniform = torch.rand(size, num_symbols, **options)
    symbols = points[modulation[:, None], (uniform * orders[modulation][:, None]).long()]
    zero = torch.zeros(size, device=device)
    rolloff = torch.lerp(
        *torch.tensor(channel.rolloff_range, device=device), torch.rand(size, **options)
    )
    state = ChannelState(rolloff, zero, zero, zero, zero)
    is_offset = torch.tensor([name == "OQPSK" for name in modulations], device=device)[modulation]
    iq = modulate(symbols, state, is_offset=is_offset, num_samples=num_samples)
    noise = torch.randn(size, num_samples, dtype=torch.complex64, **options)
    return matched_filter(iq + noise * 10 ** (-snr_db.to(torch.float32) / 20)[:, None], rolloff)


def matched_filter(iq: Tensor, rolloff: Tensor) -> MatchedFilterOutput:
    """Matched filter of cyclic frames, complex64 [B, num_samples], with their roll-off, float32 [B]."""
    num_symbols = iq.shape[1] // SAMPLES_PER_SYMBOL
    frequency = torch.fft.fftfreq(iq.shape[1], 1 / SAMPLES_PER_SYMBOL, device=iq.device)
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
    return MatchedFilterOutput(
        aligned, torch.complex(aligned.real, half_later.imag), energy, iq.shape[1]
    )


def log_likelihoods(
    output: MatchedFilterOutput,
    *,
    modulations: Sequence[str],
    snr_grid_db: Sequence[float],
    num_candidates: int = _NUM_CANDIDATES,
    told: Tensor | None = None,
) -> Tensor:
    """Log-likelihood of every class, float32 [B, num_modulations, num_snrs], up to a constant a frame.

    Only the `num_candidates` SNR levels that fit the energies best are compared, or the level that the
    receiver is told; the others are -inf.

    Args:
        output: matched filter output of the frames.
        modulations: hypotheses.
        snr_grid_db: hypotheses, per complex sample.
        num_candidates: SNR levels per frame that are compared.
        told: int64 [B], index of the true SNR level of each frame if the receiver may know it.
    """
    result = output.energy.new_full((len(output.energy), len(modulations), len(snr_grid_db)), -math.inf)
    symbol_snr = SAMPLES_PER_SYMBOL * 10 ** (
        torch.tensor(snr_grid_db, device=result.device, dtype=torch.float32) / 10
    )
    num_candidates = 1 if told is not None else min(num_candidates, len(snr_grid_db))
    for symbols, is_offset in ((output.aligned, False), (output.offset, True)):
        outside = (output.energy - torch.view_as_real(symbols).square().sum((1, 2)))[:, None]
        fit = energy_fit(symbols, outside, output.num_dimensions, symbol_snr)
        chosen = fit.topk(num_candidates, dim=1).indices if told is None else told[:, None]
        for number, name in enumerate(modulations):
            if (name == "OQPSK") != is_offset:
                continue
            points = torch.from_numpy(symbol_map(name).copy()).to(symbols)
            size = symbols.shape[1] * len(points) * num_candidates
            step = max(1, _ELEMENTS_AT_ONCE.get(result.device.type, 1 << 19) // size)
            parts = zip(
                *(t.split(step) for t in (symbols, output.energy, symbol_snr[chosen])), strict=True
            )
            found = torch.cat([
                _marginal_likelihood(*part, points, output.num_dimensions) for part in parts
            ])  # fmt: skip
            result[:, number].scatter_(1, chosen, found)
    return result


def energy_fit(
    symbols: Tensor, outside: Tensor | float, num_dimensions: int, symbol_snr: Tensor
) -> Tensor:
    """Log-likelihood of each SNR level if symbols were Gaussian, [B, num_snrs]: energies alone.

    Args:
        symbols: complex64 [B, K].
        outside: energy of the other dimensions, noise alone; float32 [B, 1], or the same for all.
        num_dimensions: complex dimensions of a whole frame.
        symbol_snr: float32 [num_snrs], Es/N0 as a ratio.
    """
    inside = torch.view_as_real(symbols).square().sum((1, 2))[:, None]
    # The best noise level given the SNR, and the likelihood there.
    level = (outside + inside / (1 + symbol_snr)) / num_dimensions
    return -num_dimensions * level.log() - symbols.shape[1] * (1 + symbol_snr).log()


def _marginal_likelihood(
    symbols: Tensor, energy: Tensor, symbol_snr: Tensor, points: Tensor, num_dimensions: int
) -> Tensor:
    """Log-likelihood of one modulation at each SNR, averaged over all levels; [B, G].

    With c the scale that brings the noise to unit variance and a^2 the symbol SNR it is at one level
    2 N log c - c^2 E + sum_k log mean_s exp(2 a c Re(z_k s*) - a^2 |s|^2). The average over log c is
    that of a Gaussian of the same maximum and curvature, exact to the order 1 / N.

    Args:
        symbols: complex64 [B, K].
        energy: float32 [B].
        symbol_snr: float32 [B, G], Es/N0 as a ratio.
        points: complex64 [M], the symbol map.
        num_dimensions: N.
    """
    amplitude = symbol_snr.sqrt()[:, :, None, None]
    inner = (symbols.real[..., None] * points.real + symbols.imag[..., None] * points.imag)[:, None]
    shift = symbol_snr[:, :, None, None] * torch.view_as_real(points).square().sum(-1)
    num_noise = num_dimensions - symbols.shape[1]
    inside = torch.view_as_real(symbols).square().sum((1, 2))
    scale = (num_noise / (energy - inside)).sqrt()[:, None].expand(symbol_snr.shape)
    for _ in range(_NUM_STEPS):
        exponent = (2 * amplitude * scale[..., None, None]) * inner - shift
        weights = exponent.softmax(-1)
        # Expected correlation with the symbols; the scale then solves c^2 E - c a R - N = 0.
        correlation = (weights * inner).sum((2, 3)) * symbol_snr.sqrt()
        root = (correlation.square() + 4 * num_dimensions * energy[:, None]).sqrt()
        scale = (correlation + root) / (2 * energy[:, None])
    exponent = (2 * amplitude * scale[..., None, None]) * inner - shift
    weights = exponent.softmax(-1)
    mean = (weights * inner).sum(-1, keepdim=True)
    variance = (weights * (inner - mean).square()).sum((2, 3))
    gain = scale * symbol_snr.sqrt()
    curvature = 4 * num_dimensions + 2 * gain * mean.sum((2, 3)) - 4 * gain.square() * variance
    # Far from the truth the likelihood need not be concave at the last step; it is tiny there.
    curvature = curvature.clamp_min(num_dimensions)
    likelihood = exponent.logsumexp(-1).sum(-1) - symbols.shape[1] * math.log(len(points))
    likelihood = likelihood + 2 * num_dimensions * scale.log() - scale.square() * energy[:, None]
    return likelihood - 0.5 * curvature.log()

"""Synthetic frames of all classes through the channel of RadioML 2018.01A, or another.

A frame is made in the frequency domain. The symbols of a periodic sequence, a little longer than the
frame, have a discrete spectrum; pulse shaping, timing, the half-symbol delay of OQPSK
and multipath are products with that spectrum, and a chirp-z transform evaluates the resulting
trigonometric polynomial at the receiver's sample instants, so a symbol-rate offset is exact too.
The spectra of AM, FM and GMSK come from amc_utils.dsp.analogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from amc_utils.channel import Channel, ChannelState, draw_randomness
from amc_utils.dsp.analogue import (
    ANALOGUE_MODULATIONS,
    FIRST_ANGLE_MODULATION,
    analogue_kind,
    with_analogue_spectra,
    with_messages,
)
from amc_utils.dsp.constellations import symbol_map

NUM_SAMPLES = 1024
SAMPLES_PER_SYMBOL = 8
# Symbols beyond each end of the frame, so that the ends of the periodic sequence never meet in it.
MARGIN_IN_SYMBOLS = 8


@dataclass(frozen=True)
class GeneratedFrames:
    """Frames with the truth behind them.

    Attributes:
        iq: complex64 [B, num_samples]; unit mean power per frame, or the scale of a record, see
            Channel.record_scale.
        symbols: complex64 [B, num_symbols], the periodic sequence that was sent, unit mean power;
            symbol k peaks at sample (k - MARGIN_IN_SYMBOLS) * SAMPLES_PER_SYMBOL - timing_offset.
            Of an analogue class the message before any filter, with its carrier; of GMSK the bits.
        state: what the channel did.
    """

    iq: Tensor
    symbols: Tensor
    state: ChannelState


def raised_cosine(frequency: Tensor, rolloff: Tensor) -> Tensor:
    """Raised-cosine power response at `frequency` (cycles per symbol): 1 in band, 0 out of band."""
    slope = (frequency.abs() - (1 - rolloff) / 2) / rolloff
    return 0.5 * (1 + torch.cos(torch.pi * slope.clamp(0, 1)))


def pulse_energy(rolloff: Tensor, exponent: float) -> Tensor:
    """Energy of the pulse whose spectrum is a raised cosine to a power, float32 like `rolloff`.

    In units of that of a brick-wall spectrum of the symbol rate: the power of a signal of uncorrelated
    symbols of unit power. It is 1 for the exponent 0.5.
    """
    if exponent == 0.5:
        return torch.ones_like(rolloff)
    place = (torch.arange(4096, device=rolloff.device, dtype=rolloff.dtype) + 0.5) / 4096
    slope = (0.5 * (1 + torch.cos(torch.pi * place))).pow(2 * exponent).mean()
    return 1 - rolloff + 2 * rolloff * slope


def magnitude_excess_db(modulations: Sequence[str], channel: Channel) -> tuple[float, ...]:
    """Power over squared mean magnitude of noiseless signals in dB, for each modulation.

    So much SNR a class has beyond Channel.snr_db where signals are scaled to unit mean magnitude, not
    unit power, before noise is added; zero for channels that scale them to unit power. Measured on 512
    frames of a fixed seed, within 0.02 dB.
    """
    if not channel.unit_mean_magnitude:
        return (0.0,) * len(modulations)
    plain = replace(
        channel, unit_mean_magnitude=False, record_scale=False, cfo_std=0.0, delay_spread=0.0
    )
    return tuple(_excess_db(name, plain) for name in modulations)


def class_snr_db(modulations: Sequence[str], snr_labels: Sequence[float], channel: Channel) -> Tensor:
    """SNR per sample in dB of each class, float64 [num_modulations, num_labels]."""
    excess_db = torch.tensor(magnitude_excess_db(modulations, channel), dtype=torch.float64)
    return excess_db[:, None] + channel.snr_db(torch.tensor(snr_labels, dtype=torch.float64))


def class_es_n0_db(modulations: Sequence[str], snr_labels: Sequence[float], channel: Channel) -> Tensor:
    """Energy of a symbol over noise density in dB of each linear class, float64 [M, num_labels].

    10 log10(SAMPLES_PER_SYMBOL) above the SNR per sample, but for a sent carrier: of a pulse that
    is narrower than the symbol rate's band it makes more power than of symbols.
    """
    return class_snr_db(modulations, snr_labels, channel) + 10 * torch.log10(
        SAMPLES_PER_SYMBOL * symbol_energy_share(modulations, channel)[:, None]
    )


def symbol_energy_share(modulations: Sequence[str], channel: Channel) -> Tensor:
    """Energy of a symbol over that of SAMPLES_PER_SYMBOL samples, float64 [M]; 1 without carrier."""
    maps = [symbol_map(name, unipolar_ask=channel.unipolar_ask) for name in modulations]
    direct = torch.tensor([abs(points.mean()) ** 2 for points in maps], dtype=torch.float64)
    middle = torch.tensor(sum(channel.rolloff_range) / 2, dtype=torch.float64)
    energy = pulse_energy(middle, channel.pulse_exponent)
    return energy / (direct + (1 - direct) * energy)


@cache
def _excess_db(modulation: str, channel: Channel) -> float:
    index, noiseless = torch.arange(512), torch.full((512,), 200.0)
    made = generate_frames(
        index, index * 0, noiseless, modulations=(modulation,), seed=0, channel=channel
    )
    magnitude = made.iq.abs().double()
    # Of the whole record, not frame by frame: its scale is one number.
    return float(10 * (magnitude.square().mean() / magnitude.mean().square()).log10())


def generate_frames(
    frame_index: Tensor,
    modulation: Tensor,
    snr_label: Tensor,
    *,
    modulations: Sequence[str],
    seed: int,
    channel: Channel,
    num_samples: int = NUM_SAMPLES,
) -> GeneratedFrames:
    """Noisy frames; the same seed and frame index give the same frame in any batch, order or call.

    Args:
        frame_index: int64 [B], non-negative; its device is where the frames are made. The random
            streams of a CPU and a GPU differ, so frames agree between devices of one kind only.
        modulation: int64 [B], index into `modulations`.
        snr_label: [B], SNR label; the SNR per complex sample over the whole sampled band follows from
            it by Channel.snr_db.
        modulations: names, any of RadioML 2018.01A's.
        seed: seed of the whole set.
        channel: spread of the channel.
        num_samples: samples per frame, a multiple of SAMPLES_PER_SYMBOL.
    """
    device = frame_index.device
    num_symbols = num_samples // SAMPLES_PER_SYMBOL + 2 * MARGIN_IN_SYMBOLS
    uniform, noise, state = draw_randomness(
        frame_index, seed=seed, channel=channel, num_samples=num_samples, num_symbols=num_symbols
    )
    kind = analogue_kind(modulations, device)
    # Messages take the place of the symbols that are drawn for analogue classes too.
    drawn = tuple("BPSK" if name in ANALOGUE_MODULATIONS else name for name in modulations)
    points, orders = symbol_table(drawn, device, channel.unipolar_ask)
    choice = (uniform * orders[modulation][:, None]).long()
    symbols = points[modulation[:, None], choice]
    if kind is not None:
        kind = kind[modulation]
        symbols = with_messages(symbols, kind, uniform)
    is_offset = torch.tensor([name == "OQPSK" for name in modulations], device=device)[modulation]
    options = {"num_samples": num_samples, "pulse_exponent": channel.pulse_exponent}
    iq = modulate(symbols, state, is_offset=is_offset, kind=kind, **options)
    noise_std = _noise_std(modulation, snr_label, modulations, channel)
    direct, varying = _expected_powers(points, orders, modulation, kind, state.rolloff, channel)
    total = direct + varying
    if channel.pulse_exponent != 0.5:
        iq = iq / total.sqrt()[:, None]
    iq = iq + noise * noise_std[:, None]
    deviation = (varying / total + noise_std.square()).sqrt() if channel.record_scale else None
    return GeneratedFrames(_scaled(iq, deviation), symbols, state)


def _scaled(iq: Tensor, deviation: Tensor | None) -> Tensor:
    """Frames over the standard deviation of their record, or at unit mean power each."""
    if deviation is not None:
        return iq / deviation[:, None]
    root_energy = torch.linalg.vector_norm(torch.view_as_real(iq), dim=(1, 2))
    return iq * (iq.shape[1] ** 0.5 / root_energy)[:, None]


def _noise_std(
    modulation: Tensor, snr_label: Tensor, modulations: Sequence[str], channel: Channel
) -> Tensor:
    """Standard deviation of the noise beside a signal of unit power, float32 [B]."""
    noise_std = 10 ** (-channel.snr_db(snr_label.to(torch.float32)) / 20)
    if not channel.unit_mean_magnitude:
        return noise_std
    excess_db = torch.tensor(magnitude_excess_db(modulations, channel), device=noise_std.device)
    return noise_std * 10 ** (-excess_db[modulation] / 20)


def _expected_powers(
    points: Tensor,
    orders: Tensor,
    modulation: Tensor,
    kind: Tensor | None,
    rolloff: Tensor,
    channel: Channel,
) -> tuple[Tensor, Tensor]:
    """Power of the carrier that symbols of non-zero mean send, and of the rest; float32 [B] each."""
    direct = (points.sum(1) / orders).abs().square()[modulation]
    varying = (1 - direct) * pulse_energy(rolloff, channel.pulse_exponent)
    if kind is not None:
        # Analogue signals have unit power, of which no part is told apart: the real file's are unknown.
        direct = torch.where(kind >= 0, 0, direct)
        is_shaped = (kind >= 0) & (kind < FIRST_ANGLE_MODULATION)
        energy = torch.where(is_shaped, pulse_energy(rolloff, channel.pulse_exponent), 1)
        varying = torch.where(kind >= 0, energy, varying)
    return direct, varying


def modulate(
    symbols: Tensor,
    state: ChannelState,
    *,
    is_offset: Tensor,
    kind: Tensor | None = None,
    num_samples: int = NUM_SAMPLES,
    pulse_exponent: float = 0.5,
) -> Tensor:
    """Noiseless received frames, complex64 [B, num_samples].

    Their mean power is that of the pulse, see pulse_energy: 1 in expectation for the exponent 0.5.

    Args:
        symbols: complex64 [B, num_symbols], sent periodically, see GeneratedFrames.
        state: the channel of each frame.
        is_offset: bool [B], whether the quadrature part is half a symbol late (OQPSK).
        kind: int64 [B], see analogue_kind; None where all are linear.
        num_samples: samples per frame.
        pulse_exponent: see Channel.
    """
    num_symbols = symbols.shape[1]
    # Every bin that a pulse of roll-off 1 occupies, whatever the batch needs: the arithmetic, and so
    # the last bit of a frame, must not depend on the frames beside it. The one bin more, always empty,
    # makes the rows whole vectors of a CPU, which rounds what is left over at the end otherwise.
    bins = torch.arange(1 - num_symbols, num_symbols + 1, device=symbols.device)
    frequency = bins / num_symbols
    spectrum = torch.fft.fft(symbols)
    direct, mirrored = spectrum[:, bins % num_symbols], spectrum[:, -bins % num_symbols].conj()
    late = torch.where(is_offset[:, None], unit_phasor(-torch.pi * frequency), 1)
    shaped = (direct + mirrored + (direct - mirrored) * late) / (2 * num_symbols)
    shaped = shaped * raised_cosine(frequency, state.rolloff[:, None]) ** pulse_exponent
    if kind is not None:
        shaped = with_analogue_spectra(shaped, kind, symbols)
    if state.multipath is not None:
        taps = torch.arange(state.multipath.shape[1], device=symbols.device)
        delay = torch.outer(taps, frequency) / SAMPLES_PER_SYMBOL
        shaped = shaped * (state.multipath @ unit_phasor(-2 * torch.pi * delay))
    return _sample(shaped, bins, state, num_symbols * SAMPLES_PER_SYMBOL, num_samples)


def _sample(
    spectrum: Tensor, bins: Tensor, state: ChannelState, period: int, num_samples: int
) -> Tensor:
    """The signal of `spectrum` [B, F] at the receiver's sample instants, with its carrier.

    Chirp-z transform: f n = (f^2 + n^2 - (n - f)^2) / 2 makes the sum over f a convolution with a
    chirp. Source: Rabiner, Schafer, Rader, "The chirp z-transform algorithm", 1969.
    """
    reach = (len(bins) - 1) // 2
    ramp = torch.arange(num_samples + reach, device=spectrum.device, dtype=torch.float32)
    # The chirp of a perfect clock has large phases, so it comes from float64; the rest is small.
    drift = unit_phasor(torch.pi * state.clock_offset[:, None] * (ramp.square() / period))
    chirp = _base_chirp(len(ramp), period, spectrum.device) * drift

    start = MARGIN_IN_SYMBOLS * SAMPLES_PER_SYMBOL + state.timing_offset
    advance = unit_phasor(2 * torch.pi / period * start[:, None] * bins)
    length = next_fast_len(num_samples + 2 * reach)
    # The chirp is even; at lags -reach to num_samples + reach - 1.
    both_sides = torch.cat([chirp[:, 1 : reach + 1].flip(1), chirp], 1)
    front = torch.fft.fft(spectrum * advance * both_sides[:, : len(bins)], length)
    kernel = torch.fft.fft(both_sides.conj(), length)
    swept = torch.fft.ifft(front * kernel)[:, 2 * reach : 2 * reach + num_samples]
    turn = 2 * torch.pi * state.cfo[:, None] * ramp[:num_samples] + state.phase_rad[:, None]
    return swept * chirp[:, :num_samples] * unit_phasor(turn)


def unit_phasor(angle_rad: Tensor) -> Tensor:
    """exp(j angle), complex64, of angles in radians."""
    return torch.complex(angle_rad.cos(), angle_rad.sin())


@cache
def _base_chirp(length: int, period: int, device: torch.device) -> Tensor:
    ramp = torch.arange(length, dtype=torch.float64)
    return unit_phasor(torch.pi * ramp.square() / period).to(torch.complex64).to(device)


@cache
def symbol_table(
    modulations: tuple[str, ...], device: torch.device, unipolar_ask: bool = False
) -> tuple[Tensor, Tensor]:
    """Symbol maps padded to one table, complex64 [num_modulations, max order], and the orders."""
    maps = [symbol_map(name, unipolar_ask=unipolar_ask) for name in modulations]
    orders = torch.tensor([len(points) for points in maps])
    table = torch.zeros(len(maps), int(orders.max()), dtype=torch.complex64)
    for row, points in enumerate(maps):
        table[row, : len(points)] = torch.from_numpy(points.copy())
    return table.to(device), orders.to(device)

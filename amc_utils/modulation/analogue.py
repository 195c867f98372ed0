"""The six classes of RadioML 2018.01A that no map of symbols makes: AM, FM and GMSK.

Each begins with a real message at the symbol rate, periodic as the symbols of a linear modulation are:
white and Gaussian, bits for GMSK. What comes out is a spectrum at the bins of signals.modulate, so that
timing, symbol-rate offset, multipath, carrier and noise are those of all classes.

AM sends its message as a linear modulation sends symbols, so the frame's own pulse limits the band;
single sideband then leaves the negative frequencies out. With carrier (WC), the message has a third of
the carrier's amplitude (rms), so that peaks of three standard deviations modulate it fully.

FM limits its message to a sixth of the symbol rate, and its rms deviation is as large. By Carson's rule
five standard deviations then just reach one cycle per symbol, where the bins end: an eighth of the
sample rate. On average a millionth of the power lies beyond.

GMSK is that of GSM: bandwidth-time product 0.3, modulation index 0.5. -51 dB of its power lies beyond
the bins. Source: ETSI GSM 05.04, now 3GPP TS 45.004, section 2.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

# GMSK sends bits, but the way FM sends its message.
ANALOGUE_MODULATIONS = ("AM-SSB-WC", "AM-SSB-SC", "AM-DSB-WC", "AM-DSB-SC", "FM", "GMSK")
_WITH_CARRIER, _SINGLE_SIDEBAND, _FM, _GMSK = (0, 2), (0, 1), 4, 5
# From here on the pulse of linear modulations shapes nothing.
FIRST_ANGLE_MODULATION = _FM

AM_INDEX = 1 / 3  # rms of the message over the carrier
FM_BAND = 1 / 6  # cycles per symbol
FM_DEVIATION = 1 / 6  # rms, cycles per symbol
GMSK_BANDWIDTH = 0.3  # of the Gaussian filter, 3 dB, cycles per symbol
GMSK_INDEX = 0.5
# Of the phase that FM and GMSK turn into a spectrum: twice the rate that the bins need.
_POINTS_PER_SYMBOL = 4


@cache
def analogue_kind(modulations: tuple[str, ...], device: torch.device) -> Tensor | None:
    """Place of each in ANALOGUE_MODULATIONS, int64, -1 for a linear one; None where all are linear."""
    place = {name: number for number, name in enumerate(ANALOGUE_MODULATIONS)}
    kind = [place.get(name, -1) for name in modulations]
    return torch.tensor(kind, device=device) if max(kind) >= 0 else None


def with_messages(symbols: Tensor, kind: Tensor, uniform: Tensor) -> Tensor:
    """Symbols in which analogue frames have their messages, unit mean power, complex64.

    Args:
        symbols: complex64 [B, num_symbols], as drawn for linear modulations.
        kind: int64 [B], see analogue_kind.
        uniform: float32 [B, num_symbols] in [0, 1), from which messages are made.
    """
    # For all frames, since a GPU would make the host wait to hear which are analogue.
    kind = kind[:, None]
    # The inverse normal distribution; a zero, one draw of 17 million, must not become infinite.
    gaussian = math.sqrt(2) * torch.erfinv(2 * uniform.clamp(min=2**-25) - 1)
    with_carrier = (1 + AM_INDEX * gaussian) / math.sqrt(1 + AM_INDEX**2)
    message = torch.where(_is_one_of(kind, _WITH_CARRIER), with_carrier, gaussian)
    message = torch.where(kind == _GMSK, _bits(uniform), message)
    return torch.where(kind >= 0, message.to(symbols.dtype), symbols)


def with_analogue_spectra(spectrum: Tensor, kind: Tensor, symbols: Tensor) -> Tensor:
    """Spectra in which analogue frames have theirs, complex64, unit power in expectation.

    Args:
        spectrum: complex64 [B, 2 * num_symbols], of the symbols sent by linear modulation, at bins
            1 - num_symbols to num_symbols, of which the last stays empty.
        kind: int64 [B], see analogue_kind.
        symbols: complex64 [B, num_symbols], see with_messages.
    """
    num_symbols = symbols.shape[1]
    bins = torch.arange(1 - num_symbols, num_symbols + 1, device=kind.device)
    # The analytic signal: message and power stay what they are, and so does the carrier.
    sideband = math.sqrt(2) * (bins > 0) + (bins == 0)
    is_single = _is_one_of(kind, _SINGLE_SIDEBAND)[:, None]
    spectrum = torch.where(is_single, spectrum * sideband, spectrum)

    phase = _phase(symbols.real, (kind == _GMSK)[:, None])
    turned = torch.fft.fft(torch.polar(torch.ones_like(phase), phase), norm="forward")
    turned = turned[:, bins % phase.shape[1]] * (bins < num_symbols)
    return torch.where(kind[:, None] >= _FM, turned, spectrum)


def _is_one_of(kind: Tensor, pair: tuple[int, int]) -> Tensor:
    return (kind == pair[0]) | (kind == pair[1])


def _bits(uniform: Tensor) -> Tensor:
    """Bits, -1 or 1, whose quarter turns add up to whole ones: the periodic phase must not jump.

    The last one sees to that. It lies beyond the frame, and is no bit if their number is odd.
    """
    bits = torch.where(uniform < 0.5, -1.0, 1.0)
    bits[:, -1] = (2 - bits[:, :-1].sum(1)) % 4 - 2
    return bits


def _phase(message: Tensor, is_gmsk: Tensor) -> Tensor:
    """Phase in rad from symbol 0 on, float32 [B, num_symbols * _POINTS_PER_SYMBOL].

    Args:
        message: float32 [B, num_symbols].
        is_gmsk: bool [B, 1], GMSK or FM.
    """
    num_symbols = message.shape[1]
    num_points = num_symbols * _POINTS_PER_SYMBOL
    frequency = torch.arange(num_symbols, device=message.device) / num_symbols
    # A bit is held for a symbol, hence the sinc.
    gaussian = torch.exp(-math.log(2) / 2 * (frequency / GMSK_BANDWIDTH).square())
    gmsk = GMSK_INDEX / 2 * gaussian * torch.sinc(frequency)
    fm = FM_DEVIATION / math.sqrt(2 * FM_BAND) * (frequency <= FM_BAND)
    # The phase is the integral of 2 pi times the deviation, so its spectrum is divided by j frequency.
    gain = torch.where(is_gmsk, gmsk, fm) / frequency.clamp(min=1 / num_symbols) * (frequency > 0)
    spectrum = torch.fft.fft(message, norm="forward") * torch.complex(torch.zeros_like(gain), -gain)
    phase = torch.fft.irfft(spectrum, num_points, norm="forward")
    # The mean of GMSK's bits is a trend of its phase, whole turns in all; an FM message has no mean.
    turning = math.pi * GMSK_INDEX * is_gmsk * message.mean(1, keepdim=True)
    return phase + turning * torch.arange(num_points, device=message.device) / _POINTS_PER_SYMBOL

"""Views of frames: sets of complex points to be counted in a picture, each made on any device.

Every view maps a batch of frames to points, complex64 [B, P], in a plane that its docstring explains.
All planes share the window [-WINDOW, WINDOW]^2.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from amc_utils.channel import DEFAULT_RECEIVER, ReceiverSettings
from amc_utils.dsp.carrier import power_lines, recover_carrier
from amc_utils.dsp.synchronisation import (
    Synchronised,
    offset_lines,
    out_of_band,
    synchronise,
    synchronise_offset,
)
from amc_utils.signals import SAMPLES_PER_SYMBOL, raised_cosine

# Half width of the window, as in the runs under test. Frames are taken at the scale that they have.
WINDOW = 2.5
# Symbols of unit mean power reach 1.7 at most; enlarged they fill the window, noise included.
_SYMBOL_SCALE = 1.25
# Lines of OQPSK's square reach a twentieth of the power; this lifts them by 15 dB.
_OFFSET_LINES_GAIN = 10 ** (15 / 20)


class Views:
    """A batch of frames and what is made of it, each made once however many channels need it.

    Attributes:
        iq: complex64 [B, num_samples], of about unit mean power.
        receiver: what is known about their channel.
    """

    def __init__(self, iq: Tensor, receiver: ReceiverSettings = DEFAULT_RECEIVER) -> None:
        self.iq, self.receiver = iq, receiver

    @cached_property
    def timed(self) -> Synchronised:
        """Symbols after timing recovery."""
        return synchronise(self.iq, self.receiver)

    @cached_property
    def recovered(self) -> Tensor:
        """Symbols after carrier recovery, complex64 [B, K]."""
        return recover_carrier(self.timed)


def samples(frames: Views, scale: float = 1.0) -> Tensor:
    """The samples as they come: in-phase and quadrature, in units of the root mean square / scale."""
    return frames.iq if scale == 1 else frames.iq * scale


def symbols(frames: Views) -> Tensor:
    """Symbols after timing and carrier recovery; the window ends at twice their root mean square."""
    return frames.recovered * _SYMBOL_SCALE


def offset_symbols(frames: Views) -> Tensor:
    """Symbols synchronised as OQPSK, at unit mean power; the window ends at twice that."""
    return synchronise_offset(frames.iq, frames.receiver).symbols * _SYMBOL_SCALE


def differential_symbols(frames: Views) -> Tensor:
    """Each symbol times the conjugate of the one before, over the square root of the magnitude.

    A carrier offset turns all of them alike, by less than a degree; the phase is gone. The window
    ends at twice the root mean square of the symbols.
    """
    symbols = frames.timed.symbols
    product = symbols[:, 1:] * symbols[:, :-1].conj()
    return product * (_SYMBOL_SCALE / product.abs().sqrt().clamp_min(1e-12))


def polar_symbols(frames: Views) -> Tensor:
    """Symbols after carrier recovery as angle modulo a quarter turn (across) and magnitude (up).

    The window spans a quarter turn, and magnitudes from zero to twice the root mean square.
    """
    symbols = frames.recovered
    quarter = symbols.angle() * (2 / torch.pi)
    quarter = quarter - quarter.floor()
    return torch.complex(quarter * 2 - 1, symbols.abs() - 1) * WINDOW


def line_strengths(frames: Views) -> Tensor:
    """Lines of powers of the symbols, -30 to 0 dB (across), one for each carrier offset (up).

    From the bottom the powers 2, 4, 8, 12 to 32 of all symbols; at 0 dB they all agree, and angles that
    have nothing to do with each other leave -21 dB. On top the lines of OQPSK's square, twice the
    symbol rate apart; they are weak and shown 15 dB up.
    """
    powers = power_lines(frames.timed).abs() / frames.timed.symbols.shape[1] ** 0.5
    offset = offset_lines(frames.iq, frames.receiver).abs().sum(1) * _OFFSET_LINES_GAIN
    level = 20 * torch.cat([powers.flatten(1), offset], 1).clamp_min(1e-12).log10()
    num_rows = level.shape[1]
    up = (torch.arange(num_rows, device=level.device) + 0.5) * (2 / num_rows) - 1
    return torch.complex(level / 15 + 1, up.expand_as(level)) * WINDOW


def levels(frames: Views) -> Tensor:
    """Level through the matched filter (across) and outside the signal's band (up), sample by sample.

    The window spans the receiver's level_range_db. Noise reaches both, the signal the first only, so
    SNR is a displacement. Both levels are those of the noise alone when there is no signal.
    """
    iq, receiver = frames.iq, frames.receiver
    frequency = torch.fft.fftfreq(iq.shape[1], 1 / SAMPLES_PER_SYMBOL, device=iq.device)
    rolloff = torch.tensor(receiver.mean_rolloff, device=iq.device)
    matched = raised_cosine(frequency, rolloff) ** receiver.pulse_exponent
    inside = torch.fft.ifft(torch.fft.fft(iq) * matched) / matched.square().mean().sqrt()
    outside = out_of_band(iq)
    first = (iq.shape[1] - outside.shape[1]) // 2
    inside = inside[:, first : first + outside.shape[1]]
    low, high = receiver.level_range_db
    parts = []
    for signal in (inside, outside):
        level = 10 * torch.view_as_real(signal).square().sum(-1).clamp_min(1e-12).log10()
        parts.append((2 * (level - low) / (high - low) - 1) * WINDOW)
    return torch.complex(*parts)

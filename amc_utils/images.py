"""Images for networks: points of the complex plane, 2-D histograms of them, and stacks of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from amc_utils.dsp.carrier import power_lines, recover_carrier
from amc_utils.dsp.likelihood import COARSE, blind_label, likelihood_ratios
from amc_utils.dsp.receiver_settings import DEFAULT_RECEIVER, ReceiverSettings
from amc_utils.dsp.synchronisation import (
    ReceivedBatch,
    offset_lines,
    squared_magnitude,
    synchronise_offset,
)
from amc_utils.runtime.plugins import refuse_taken
from amc_utils.signals import NUM_SAMPLES, SAMPLES_PER_SYMBOL, raised_cosine, to_unit_power

# Half width of the window, as in the runs under test. Frames are taken at the scale that they have.
WINDOW = 2.5
# Symbols of unit mean power reach 1.7 at most; enlarged they fill the window, noise included.
_SYMBOL_SCALE = 1.25
# Lines of OQPSK's square reach a twentieth of the power; this lifts them by 15 dB.
_OFFSET_LINES_GAIN = 10 ** (15 / 20)
# Logarithm of how much less likely a modulation at the left edge is.
_LEAST_LIKELY = 60.0


class SynchronizedBatch(ReceivedBatch):
    """A batch of frames, of about unit mean power, and what images are made of, each made once."""

    @cached_property
    def recovered(self) -> Tensor:
        """Symbols after carrier recovery, complex64 [B, K]."""
        return recover_carrier(self.timed)


def samples(frames: SynchronizedBatch, scale: float = 1.0) -> Tensor:
    """The samples as they come, in-phase and quadrature, times `scale`."""
    return frames.iq if scale == 1 else frames.iq * scale


def symbols(frames: SynchronizedBatch) -> Tensor:
    """Symbols after timing and carrier recovery; the window ends at twice their root mean square."""
    return frames.recovered * _SYMBOL_SCALE


def offset_symbols(frames: SynchronizedBatch) -> Tensor:
    """Symbols synchronised as OQPSK, at unit mean power; the window ends at twice that."""
    return synchronise_offset(frames.iq, frames.receiver).symbols * _SYMBOL_SCALE


def differential_symbols(frames: SynchronizedBatch) -> Tensor:
    """Each symbol times the conjugate of the one before, over the square root of the magnitude.

    A carrier offset turns all of them alike, by less than a degree; the phase is gone. The window
    ends at twice the root mean square of the symbols.
    """
    symbols = frames.timed.symbols
    product = symbols[:, 1:] * symbols[:, :-1].conj()
    return product * (_SYMBOL_SCALE / product.abs().sqrt().clamp_min(1e-12))


def polar_symbols(frames: SynchronizedBatch) -> Tensor:
    """Symbols after carrier recovery as angle modulo a quarter turn (across) and magnitude (up).

    The window spans a quarter turn, and magnitudes from zero to twice the root mean square.
    """
    symbols = frames.recovered
    quarter = symbols.angle() * (2 / torch.pi)
    quarter = quarter - quarter.floor()
    return torch.complex(quarter * 2 - 1, symbols.abs() - 1) * WINDOW


def power_line_map(frames: SynchronizedBatch) -> Tensor:
    """Lines of powers of the symbols, -30 to 0 dB (across), one for each carrier offset (up).

    From the bottom the powers 2, 4, 8, 12 to 32 of all symbols; at 0 dB they all agree, and angles that
    have nothing to do with each other leave -21 dB. On top the lines of OQPSK's square, twice the
    symbol rate apart; they are weak and shown 15 dB up.
    """
    powers = squared_magnitude(power_lines(frames.timed)) / frames.timed.symbols.shape[1]
    offset = (offset_lines(frames).abs().sum(1) * _OFFSET_LINES_GAIN).square()
    level = 10 * torch.cat([powers.flatten(1), offset], 1).clamp_min(1e-24).log10()
    num_rows = level.shape[1]
    up = (torch.arange(num_rows, device=level.device) + 0.5) * (2 / num_rows) - 1
    return torch.complex(level / 15 + 1, up.expand_as(level)) * WINDOW


def band_levels(frames: SynchronizedBatch) -> Tensor:
    """Level through the matched filter (across) and outside the signal's band (up), sample by sample.

    The window spans the receiver's level_range_db. Noise reaches both, the signal the first only, so
    SNR is a displacement. Both levels are those of the noise alone when there is no signal.
    """
    receiver, outside = frames.receiver, frames.outside
    num_samples = frames.iq.shape[1]
    first = (num_samples - outside.shape[1]) // 2
    inside = torch.fft.ifft(frames.spectrum * _matched_filter(frames))
    inside = inside[:, first : first + outside.shape[1]]
    low, high = receiver.level_range_db
    scale, parts = 2 * WINDOW / (high - low), []
    for signal in (inside, outside):
        level = squared_magnitude(signal).clamp_min_(1e-12).log10_()
        parts.append(level.mul_(10 * scale).sub_(low * scale + WINDOW))
    return torch.complex(*parts)


def likelihood_map(frames: SynchronizedBatch) -> Tensor:
    """Log-likelihood (across) of each linear modulation (up), averaged over timing and carrier.

    At the right edge lies the likeliest modulation, at the left one e^-60 times as likely; in between
    distances count by their root, so that small ones show. A modulation has eight points, one above the
    other: from 144 pixels on, rows between them stay empty. Best where SNRs are those of labels.
    """
    ratios = likelihood_ratios(frames, blind_label(frames), COARSE)
    behind = ratios.amax(1, keepdim=True) - ratios
    across = (1 - 2 * (behind / _LEAST_LIKELY).clamp(max=1).sqrt()).repeat_interleave(8, 1)
    num_rows = across.shape[1]
    up = (torch.arange(num_rows, device=across.device) + 0.5) * (2 / num_rows) - 1
    return torch.complex(across, up.expand_as(across)) * WINDOW


def _matched_filter(frames: SynchronizedBatch) -> Tensor:
    """Frequency response that white noise passes at its power, float32 [B or 1, num_samples]."""
    num_samples, receiver, device = frames.iq.shape[1], frames.receiver, frames.iq.device
    frequency = torch.fft.fftfreq(num_samples, 1 / SAMPLES_PER_SYMBOL, device=device)[None]
    if receiver.is_blind:
        found = frames.blind
        frequency = frequency - found.cfo[:, None] * SAMPLES_PER_SYMBOL
        matched = raised_cosine(frequency, found.rolloff[:, None]) ** found.exponent[:, None]
    else:
        matched = raised_cosine(frequency, frequency.new_full((), receiver.mean_rolloff))
        matched = matched**receiver.pulse_exponent
    return matched / matched.square().mean(1, keepdim=True).sqrt()


# On a CPU the temporaries of synchronisation of so many frames stay in the cache, and while images
# are drawn so many bytes of them: 4 a pixel, and 64 a point on its way to its pixel.
_FRAMES_IN_CACHE = 64
_BYTES_IN_CACHE = 2**23
# In bins; more than the rounding of double precision, and times the bins of an axis still less than any
# float32 is away from an edge that it does not lie on, but for those within 1e-11 of zero.
_HAIR = 1e-12


def _to_8_bit_of_maximum(counts: Tensor) -> Tensor:
    """Counts over the frame's largest count, rounded to 8 bits: the image of the runs under test."""
    return (counts * (255 / counts.amax(1, keepdim=True).clamp_min(1))).round_().div_(255)


def _to_counts(counts: Tensor) -> Tensor:
    """Counts in sixteenths, at most one: neither the logarithm nor the frame's maximum."""
    return (counts / 16).clamp_(max=1)


def _to_presence(counts: Tensor) -> Tensor:
    """One wherever there is a point."""
    return counts.clamp_(max=1)


def _to_log_of_maximum(counts: Tensor) -> Tensor:
    """log(1 + count) over its largest possible value, log(1 + points): no level is lost."""
    return counts.log1p().mul_(1 / np.log1p(counts.shape[1]).item())


# Points of a batch, complex64 [B, P], and grey levels in [0, 1] of the counts at the points.
IMAGE_CHANNELS: dict[str, tuple[Callable[[SynchronizedBatch], Tensor], Callable[[Tensor], Tensor]]] = {
    "counts_8_bit": (samples, _to_8_bit_of_maximum),
    "counts": (samples, _to_counts),
    "raw": (samples, _to_log_of_maximum),
    "raw_wide": (partial(samples, scale=0.5), _to_log_of_maximum),
    "raw_narrow": (partial(samples, scale=1.5625), _to_log_of_maximum),
    "synchronised": (symbols, _to_log_of_maximum),
    "offset": (offset_symbols, _to_log_of_maximum),
    "differential": (differential_symbols, _to_log_of_maximum),
    "polar": (polar_symbols, _to_log_of_maximum),
    "lines": (power_line_map, _to_log_of_maximum),
    "noise": (band_levels, _to_log_of_maximum),
    "likelihoods": (likelihood_map, _to_presence),
}


# Not an image but the samples themselves, for the network that reads them.
RAW_SAMPLES = "iq"
CHANNEL_GROUPS = {
    "stack": ("polar", "lines", "noise"),
}
_OWN_NAMES = frozenset({*IMAGE_CHANNELS, *CHANNEL_GROUPS, RAW_SAMPLES})


def register_image(
    name: str, grey: Callable[[Tensor], Tensor] = _to_log_of_maximum
) -> Callable[[Callable[[SynchronizedBatch], Tensor]], Callable[[SynchronizedBatch], Tensor]]:
    """Decorator that makes a function an image channel of that name.

    The function gives the points of a SynchronizedBatch, complex64 [B, P]; `grey` gives grey levels in
    [0, 1] from the counts at the points, float [B, P]. Pixels without points stay 0.
    """
    refuse_taken(name, _OWN_NAMES, "an image channel")

    def keep(points: Callable[[SynchronizedBatch], Tensor]) -> Callable[[SynchronizedBatch], Tensor]:
        IMAGE_CHANNELS[name] = (points, grey)
        return points

    return keep


def expand_channels(channels: Sequence[str]) -> tuple[str, ...]:
    """Names of channels with the groups expanded; "iq" stands for the samples and stands alone.

    Raises:
        ValueError: an empty list, or a name that is no channel.
    """
    if list(channels) == [RAW_SAMPLES]:
        return (RAW_SAMPLES,)
    unknown = [name for name in channels if name not in (*IMAGE_CHANNELS, *CHANNEL_GROUPS)]
    if unknown or not channels:
        got = repr(unknown[0]) if unknown else "an empty list"
        known = ", ".join([*CHANNEL_GROUPS, *IMAGE_CHANNELS])
        raise ValueError(f"channels must be some of {known}, got {got}")
    return tuple(member for name in channels for member in CHANNEL_GROUPS.get(name, (name,)))


def input_shape(
    channels: Sequence[str], image_size: int, num_samples: int = NUM_SAMPLES
) -> tuple[int, ...]:
    """Shape of what a network is given for one frame, see network_input.

    Raises:
        ValueError: see expand_channels.
    """
    if list(channels) == [RAW_SAMPLES]:
        return 2, num_samples
    return len(expand_channels(channels)), image_size, image_size


def network_input(
    iq: Tensor,
    channels: Sequence[str],
    image_size: int,
    *,
    receiver: ReceiverSettings = DEFAULT_RECEIVER,
    unit_power: bool = False,
) -> Tensor:
    """Images of a batch, float32 [B, C, H, W], or for the channel "iq" alone [B, 2, num_samples].

    Args:
        iq: complex64 [B, num_samples].
        channels: names from IMAGE_CHANNELS or CHANNEL_GROUPS, or "iq" alone.
        image_size: bins per axis of the images.
        receiver: what the images of symbols know about the channel.
        unit_power: whether every frame is scaled to unit mean power first; else it keeps its scale.

    Raises:
        ValueError: see expand_channels.
    """
    if unit_power:
        iq = to_unit_power(iq)
    if list(channels) == [RAW_SAMPLES]:
        return torch.view_as_real(iq).transpose(1, 2).contiguous()
    images = constellation_images(iq, channels, image_size, receiver=receiver)
    return images.contiguous(memory_format=torch.channels_last)


def constellation_images(
    iq: Tensor,
    channels: Sequence[str],
    image_size: int,
    *,
    receiver: ReceiverSettings = DEFAULT_RECEIVER,
    out: Tensor | None = None,
) -> Tensor:
    """Images of a batch, float32 [B, C, image_size, image_size] in [0, 1].

    Row r of an image is the bin of the imaginary part (quadrature), column c that of the real part
    (in-phase), both ascending, so show it with origin="lower". The bins are those of
    numpy.histogram2d over [-2.5, 2.5]^2: half open but for the last, which holds its right edge.
    Points outside the window are not counted, nor are NaNs.

    Args:
        iq: complex64 [B, num_samples], of about unit mean power.
        channels: names from IMAGE_CHANNELS or CHANNEL_GROUPS.
        image_size: bins per axis.
        receiver: what the images of symbols know about the channel.
        out: float32 buffer of the result's shape to draw into; spares allocating one per batch.

    Raises:
        ValueError: unknown channel, points that are no complex numbers, or `out` of another shape.
    """
    channels = expand_channels(channels)
    if RAW_SAMPLES in channels:
        raise ValueError(f"channels must be images, got {RAW_SAMPLES!r}, which network_input gives")
    shape = (iq.shape[0], len(channels), image_size, image_size)
    out = torch.empty(shape, device=iq.device) if out is None else out
    if out.shape != shape:
        raise ValueError(f"out must have the shape of the images {shape}, got {tuple(out.shape)}")
    # A graph for export has no number of frames to be split by.
    in_parts = iq.device.type == "cpu" and not torch.compiler.is_exporting()
    drawings = [IMAGE_CHANNELS[name] for name in channels]
    parts = iq.split(_FRAMES_IN_CACHE) if in_parts else (iq,)
    batches = (SynchronizedBatch(part, receiver) for part in parts)
    points_of_parts = [[points_of(batch) for points_of, _ in drawings] for batch in batches]
    for number, (_, grey) in enumerate(drawings):
        points = torch.cat([points[number] for points in points_of_parts])
        if not points.is_complex():
            name = channels[number]
            raise ValueError(f"image channel {name} must give complex points, got {points.dtype}")
        if not in_parts:
            _draw(points, grey, out[:, number])
            continue
        drawn = max(_BYTES_IN_CACHE // (4 * image_size**2 + 64 * points.shape[1]), 1)
        for some, image in zip(points.split(drawn), out[:, number].split(drawn), strict=True):
            _draw(some, grey, image)
    return out


def _draw(points: Tensor, grey: Callable[[Tensor], Tensor], out: Tensor) -> None:
    size = out.shape[-1]
    pixel = pixel_index(points, size)
    image = torch.zeros(points.shape[0], (size + 2) ** 2, device=points.device)
    image.scatter_add_(1, pixel, torch.ones(pixel.shape, device=points.device))
    # Points of the border are no part of the image, nor of its largest count.
    image = image.view(-1, size + 2, size + 2)
    for border in (image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]):
        border.zero_()
    image = image.view(-1, (size + 2) ** 2)
    image.scatter_(1, pixel, grey(image.gather(1, pixel)))
    out.copy_(image.view(-1, size + 2, size + 2)[:, 1:-1, 1:-1])


def pixel_index(points: Tensor, image_size: int) -> Tensor:
    """Flat pixel of each point in an image with a border of one pixel, int64 [B, P].

    Points outside the window, and NaNs, lie in the border: rows and columns 0 and image_size + 1.
    """
    # A hair above the integers on the left, and below on the right, whose edge the last bin holds:
    # double precision then puts every float32 where exact arithmetic does, as a test tries on and
    # beside the edges.
    first, last = 1 + image_size * _HAIR, image_size + 1 - _HAIR
    middle = torch.full((), (first + last) / 2, dtype=torch.float64, device=points.device)
    pairs = torch.view_as_real(points).double()
    bins = torch.add(middle, pairs, alpha=(last - first) / (2 * WINDOW))
    # NaN, and what is too large for 32 bits, become the least or the greatest integer, or zero. By way
    # of 32 bits it is twice as fast.
    bins = bins.to(torch.int32).clamp_(0, image_size + 1)
    return torch.add(bins[..., 0], bins[..., 1], alpha=image_size + 2).to(torch.int64)

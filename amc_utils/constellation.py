"""Constellation images: batched two-dimensional histograms of complex samples, on any device.

A frame of 1,024 samples touches at most 1,024 of an image's pixels, so scaling (logarithm, division
by the maximum, 8 bits) is done on the touched pixels only; the rest stay zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

# Half width of the picture, as in the runs under test. Frames are drawn as they are: synthetic ones
# have unit mean power, and notebook 01 measures that of a file.
WINDOW = 2.5
# On a CPU the pictures of this many frames at 224 x 224 stay in the cache while they are drawn.
_FRAMES_IN_CACHE = 32


def _to_8_bit_of_maximum(counts: Tensor) -> Tensor:
    """Counts over the frame's largest count, rounded to 8 bits: the picture of the runs under test."""
    return (counts * (255 / counts.amax(1, keepdim=True).clamp_min(1))).round_().div_(255)


def _to_log_of_maximum(counts: Tensor) -> Tensor:
    """log(1 + count) over its largest possible value, log(1 + num_samples): no level is lost."""
    return _log_table(counts.shape[1], counts.device).take(counts.long())


# Each channel is a function from the counts at the samples [B, num_samples] to grey levels in [0, 1].
CHANNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "counts_8_bit": _to_8_bit_of_maximum,
    "log_counts": _to_log_of_maximum,
}


def check_channels(channels: Sequence[str]) -> None:
    """Refuse an empty list and names that are no channel.

    Raises:
        ValueError: see above.
    """
    unknown = [name for name in channels if name not in CHANNELS]
    if unknown or not channels:
        got = repr(unknown[0]) if unknown else "an empty list"
        raise ValueError(f"channels must be some of {', '.join(CHANNELS)}, got {got}")


def constellation_images(
    iq: Tensor, channels: Sequence[str], image_size: int, *, out: Tensor | None = None
) -> Tensor:
    """Pictures of a batch, float32 [B, C, image_size, image_size] in [0, 1].

    Row r of a picture is the quadrature bin, column c the in-phase bin, both ascending, so show it
    with origin="lower". The bins are those of numpy.histogram2d over [-2.5, 2.5]^2: half open but for
    the last, which holds its right edge. Samples outside the window are not counted, nor are NaNs.

    Args:
        iq: complex64 [B, num_samples], of about unit mean power.
        channels: names from CHANNELS.
        image_size: bins per axis.
        out: float32 buffer of the result's shape to draw into; spares allocating one per batch.

    Raises:
        ValueError: unknown channel, or `out` of another shape.
    """
    check_channels(channels)
    shape = (len(iq), len(channels), image_size, image_size)
    if out is None:
        out = torch.empty(shape, device=iq.device)
    elif out.shape != shape:
        raise ValueError(f"out must have the shape of the pictures {shape}, got {tuple(out.shape)}")
    step = _FRAMES_IN_CACHE if iq.device.type == "cpu" else max(len(iq), 1)
    for part, images in zip(iq.split(step), out.split(step), strict=True):
        _draw(part, channels, images)
    return out


def _draw(iq: Tensor, channels: Sequence[str], out: Tensor) -> None:
    pixel, counted = pixel_index(iq, out.shape[-1])
    flat = out.zero_().view(len(iq), len(channels), -1)
    flat[:, 0].scatter_add_(1, pixel, counted)
    counts = flat[:, 0].gather(1, pixel)
    for number, name in enumerate(channels):
        flat[:, number].scatter_(1, pixel, CHANNELS[name](counts))


def pixel_index(iq: Tensor, image_size: int) -> tuple[Tensor, Tensor]:
    """Flat pixel of each sample, int64 [B, num_samples], and 1 for samples inside the window, else 0.

    Samples outside are given some pixel of the picture, to be counted with weight 0.
    """
    in_phase, quadrature = iq.real.contiguous(), iq.imag.contiguous()
    inside = torch.maximum(in_phase.abs(), quadrature.abs()) <= WINDOW
    row, column = _bin(quadrature, image_size), _bin(in_phase, image_size)
    return row.mul_(image_size).add_(column), inside.to(torch.float32)


def _bin(values: Tensor, image_size: int) -> Tensor:
    """Bin of each value along one axis, clamped to the picture, int64."""
    # The product lands in the right bin or, thanks to the small shift, in the one below; comparing
    # with the upper edge settles it. A thousandth of a bin exceeds every rounding error here.
    shift = torch.tensor(image_size / 2 - 1e-3, device=values.device)
    guess = torch.add(shift, values, alpha=image_size / (2 * WINDOW))
    guess = guess.to(torch.int64).clamp_(0, image_size - 1)
    return guess.add_(values >= _upper_edges(image_size, values.device).take(guess))


@cache
def _upper_edges(image_size: int, device: torch.device) -> Tensor:
    """Numpy's float64 upper bin edges as float32 thresholds that split float32 values the same way."""
    exact = np.linspace(-WINDOW, WINDOW, image_size + 1)[1:]
    rounded = exact.astype(np.float32)
    rounded = np.where(rounded < exact, np.nextafter(rounded, np.float32(np.inf)), rounded)
    rounded[-1] = np.inf  # the last bin holds its right edge
    return torch.from_numpy(rounded).to(device)


@cache
def _log_table(num_samples: int, device: torch.device) -> Tensor:
    return (torch.arange(num_samples + 1.0).log1p() / np.log1p(num_samples)).to(device)

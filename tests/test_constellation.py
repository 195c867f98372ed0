"""Images against numpy.histogram2d, edges included."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from amc_utils.images import IMAGE_CHANNELS, WINDOW, constellation_images, pixel_index

SIZES = [8, 31, 64, 223, 224]


def reference_counts(iq, image_size):
    window = [[-WINDOW, WINDOW]] * 2
    return np.stack([
        np.histogram2d(frame.imag, frame.real, bins=image_size, range=window)[0] for frame in iq.numpy()
    ])  # fmt: skip


def counts(iq, image_size):
    pixel = pixel_index(iq, image_size)
    flat = torch.zeros(len(iq), (image_size + 2) ** 2).scatter_add_(1, pixel, torch.ones(pixel.shape))
    return flat.view(len(iq), image_size + 2, image_size + 2)[:, 1:-1, 1:-1].numpy()


@pytest.mark.parametrize("image_size", SIZES)
def test_counts_equal_numpy_on_noise(image_size, rng):
    iq = 1.3 * torch.randn(40, 1024, dtype=torch.complex64, generator=rng)
    expected = reference_counts(iq, image_size)
    assert expected.sum() < iq.numel(), "some samples must fall outside for the test to mean anything"
    np.testing.assert_array_equal(counts(iq, image_size), expected)


def beside_edges(image_size):
    """Values on the edges and next to them; those closer than 1e-11 to zero count as zero."""
    edges = np.linspace(-WINDOW, WINDOW, image_size + 1).astype(np.float32)
    up, down = (np.nextafter(edges, np.float32(side)) for side in (9, -9))
    values = np.concatenate([edges, up, down])
    return values[(values == 0) | (np.abs(values) > 1e-11)]


def test_bins_are_those_of_exact_arithmetic():
    """Numpy's own edges are off by a rounding error at some sizes, as at 1.25 for 116 pixels."""
    for image_size in (*range(8, 1025, 9), *SIZES):
        values = beside_edges(image_size)
        bins = [(Fraction(v) + Fraction(5, 2)) * image_size / 5 for v in values.tolist()]
        expected = np.array([min(max(math.floor(b) + 1, 0), image_size + 1) for b in bins])
        expected[values == WINDOW] = image_size
        points = torch.complex(torch.from_numpy(values), torch.zeros(len(values)))
        column = pixel_index(points[None], image_size)[0] % (image_size + 2)
        np.testing.assert_array_equal(column.numpy(), expected)


@pytest.mark.parametrize("image_size", SIZES)
def test_counts_equal_numpy_on_and_beside_every_edge(image_size):
    values = np.append(beside_edges(image_size), np.float32([0, 1e-11, -1e-11, 3, -2.6, 1e30]))
    order = np.random.default_rng(0).permutation(len(values))
    iq = torch.complex(torch.from_numpy(values), torch.from_numpy(values[order]))[None]
    np.testing.assert_array_equal(counts(iq, image_size), reference_counts(iq, image_size))


def test_samples_that_are_no_numbers_are_not_counted():
    bad = torch.tensor([[complex(np.nan, 0), complex(0, np.inf), complex(-np.inf, np.nan), 1 + 1j]])
    assert counts(bad.to(torch.complex64), 16).sum() == 1


def test_eight_bit_channel_is_count_over_maximum(rng):
    iq = torch.randn(5, 1024, dtype=torch.complex64, generator=rng)
    expected = reference_counts(iq, 48)
    expected = np.rint(255 * expected / expected.max((1, 2), keepdims=True)) / 255
    image = constellation_images(iq, ["counts_8_bit"], 48)[:, 0].numpy()
    # Float32 may tip a value that lies half way between two grey levels.
    np.testing.assert_allclose(image, expected, atol=1.01 / 255)
    assert np.mean(np.abs(image - expected) > 1e-6) < 1e-3


def test_log_channel_is_log_count(rng):
    iq = torch.randn(5, 1024, dtype=torch.complex64, generator=rng)
    expected = np.log1p(reference_counts(iq, 48)) / np.log(1025)
    np.testing.assert_allclose(constellation_images(iq, ["raw"], 48)[:, 0], expected, atol=1e-6)


def test_stack_holds_each_channel_and_buffer_is_wiped(rng):
    iq = torch.randn(70, 1024, dtype=torch.complex64, generator=rng)
    out = torch.full((70, len(IMAGE_CHANNELS), 32, 32), 7.0)
    stack = constellation_images(iq, list(IMAGE_CHANNELS), 32, out=out)
    assert stack.data_ptr() == out.data_ptr()
    for number, name in enumerate(IMAGE_CHANNELS):
        torch.testing.assert_close(stack[:, number], constellation_images(iq, [name], 32)[:, 0])


def test_row_is_quadrature_and_column_is_in_phase():
    image = constellation_images(torch.full((1, 1024), 1.0 - 2.0j), ["raw"], 5)[0, 0]
    assert image.nonzero().tolist() == [[0, 3]]


@pytest.mark.parametrize("channels", [[], ["raw_pixels"]])
def test_unknown_channel_is_refused(channels):
    with pytest.raises(ValueError, match="channels must be some of stack, counts_8_bit, counts, raw"):
        constellation_images(torch.zeros(1, 1024, dtype=torch.complex64), channels, 8)


def test_buffer_of_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="out must have the shape"):
        constellation_images(
            torch.zeros(1, 16, dtype=torch.complex64), ["raw"], 8, out=torch.zeros(1, 1, 9, 9)
        )


def test_windows_and_plain_counts_of_the_raw_image(rng):
    iq = torch.randn(4, 1024, dtype=torch.complex64, generator=rng)
    plain = constellation_images(iq, ["counts"], 32)[:, 0].numpy()
    np.testing.assert_allclose(plain, np.minimum(reference_counts(iq, 32) / 16, 1))
    for channel, half_width in (("raw_wide", 5.0), ("raw_narrow", 1.6)):
        scaled = reference_counts(iq * (WINDOW / half_width), 32)
        expected = np.log1p(scaled) / np.log(1025)
        np.testing.assert_allclose(constellation_images(iq, [channel], 32)[:, 0], expected, atol=1e-6)


def test_points_that_are_no_complex_numbers_are_refused(monkeypatch):
    monkeypatch.setitem(IMAGE_CHANNELS, "real", (lambda frames: frames.iq.abs(), lambda counts: counts))
    with pytest.raises(ValueError, match=r"channel real must give complex points, got torch\.float"):
        constellation_images(torch.zeros(2, 1024, dtype=torch.complex64), ["real"], 32)


def test_no_frames_make_no_images():
    nothing = torch.zeros(0, 1024, dtype=torch.complex64)
    assert constellation_images(nothing, ["stack", "likelihoods"], 32).shape == (0, 4, 32, 32)

"""Figures as they are printed: size of letters, colours for every eye, and without colour."""

from __future__ import annotations

import re
import zlib
from itertools import combinations, pairwise

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from amc_utils import plots
from amc_utils.runtime.paths import REPOSITORY

PDFS = sorted((REPOSITORY / "figures").glob("*.pdf"))
# Linear RGB as somebody without one kind of cones sees it. Source: Machado, Oliveira, Fernandes, "A
# Physiologically-based Model for Simulation of Color Vision Deficiency", 2009, severity 1.
EYES = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
# Linear sRGB to CIE XYZ under D65.
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour, eye):
    """CIE L*a*b* of a colour as that eye sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(np.array(EYES[eye]) @ linear, 0, 1) / TO_XYZ.sum(1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def nearest(colours, eye):
    """Least distance of two colours; 2.3 can just be told apart side by side."""
    return min(np.linalg.norm(lab(a, eye) - lab(b, eye)) for a, b in combinations(colours, 2))


@pytest.mark.parametrize("eye", EYES)
def test_colours_differ_for_every_eye(eye):
    assert nearest(plots._RUN_COLOURS, eye) > 9
    assert nearest(plots.COLOUR_OF_FAMILY.values(), eye) > 9
    assert nearest([*plots._STEP_COLOURS, "0.35"], eye) > 9
    assert nearest(plots.COLOUR_OF_TASK.values(), eye) > 20


def test_without_colour_runs_differ_by_marker_and_line():
    styles = [plots.run_style(number) for number in range(len(plots._RUN_COLOURS))]
    assert len({style["marker"] for style in styles}) == len(styles)
    assert all(a["linestyle"] != b["linestyle"] for a, b in pairwise(styles))


def test_neighbours_of_a_waterfall_differ_in_grey():
    lightness = [lab(colour, "normal")[0] for colour in [*plots._STEP_COLOURS, "0.35"]]
    assert np.abs(np.diff(lightness)).min() > 5


@pytest.mark.parametrize("path", PDFS, ids=lambda path: path.stem)
def test_printed_figure_has_the_papers_width_and_letters_to_read(path):
    content = path.read_bytes()
    width = float(re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ", content)[1]) / 72
    assert min(abs(width - inches) for inches in plots.WIDTH_INCHES.values()) < 0.01
    pages = []
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", content, re.S):
        unpacked = zlib.decompressobj()
        try:
            pages.append(unpacked.decompress(stream))
        except zlib.error:
            continue
    points = {float(size) for page in pages for size in re.findall(rb"/F\S+ ([\d.]+) Tf", page)}
    assert points
    assert min(points) >= 5.5
    assert b"/Type3" not in content, "letters stay letters in the journal's software"

"""Images of symbols as the blind front end gives them without its equalisers, for a study.

Names end with how many of the two equalisers, for magnitudes and for parts, are left.
"""

import torch

from amc_utils import register_image
from amc_utils.dsp.equalisation import LEAST_GAINS, equalise
from amc_utils.images import SynchronizedBatch, polar_symbols, power_line_map


def _with_equalisers(number, points):
    def draw(frames):
        gains = LEAST_GAINS[:number] + (torch.inf,) * (len(LEAST_GAINS) - number)
        other = SynchronizedBatch(frames.iq, frames.receiver)
        other.blind = equalise(frames.iq, frames.noise, gains)
        return points(other)

    return draw


for number in (0, 1):
    register_image(f"polar_{number}")(_with_equalisers(number, polar_symbols))
    register_image(f"lines_{number}")(_with_equalisers(number, power_line_map))

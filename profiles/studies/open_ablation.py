"""Images of a blind front end that has less or shows more, for the study of the open channel.

polar_0, polar_1, lines_0, lines_1 are those without its equalisers, and with that for magnitudes alone.
alphabets shows the log-likelihood (across) of symbols under each alphabet (up), before its equaliser
and after, less what loose taps gain from noise; at the left edge it is 0.6 a symbol below the best.
"""

import torch

from amc_utils import register_image
from amc_utils.dsp.equalisation import LEAST_GAINS, equalise
from amc_utils.images import WINDOW, SynchronizedBatch, polar_symbols, power_line_map


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


@register_image("alphabets", lambda counts: counts.clamp(max=1))
def alphabet_map(frames):
    """Points of the image `alphabets`, complex64 [B, 400]."""
    likelihoods = frames.blind.likelihoods.flatten(1)
    behind = likelihoods.amax(1, keepdim=True) - likelihoods
    across = (1 - 2 * (behind / 0.6).clamp(max=1).sqrt()).repeat_interleave(8, 1)
    up = torch.linspace(-1, 1, across.shape[1], device=across.device) * 0.99
    return torch.complex(across, up.expand_as(across)) * WINDOW

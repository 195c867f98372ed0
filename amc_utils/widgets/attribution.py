"""What a network looks at: how much each pixel of a frame's pictures speaks for a class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from captum.attr import IntegratedGradients, Occlusion
from torch import Tensor

from amc_utils.models import Logits, TwoHeadNetwork

METHODS = ("occlusion", "integrated gradients")
# Points between the empty picture and the frame's; the sum of attributions is then within a few
# percent of the difference of the logits.
_NUM_STEPS = 24
# Of a picture of 64 px; others in proportion.
_PATCH, _STRIDE = 8, 4
_AT_ONCE = 64


def attribution(
    network: TwoHeadNetwork, pictures: Tensor, *, head: str, target: int, method: str
) -> Tensor:
    """Share of each pixel in the logit of a class, float32 [C, H, W]; positive speaks for the class.

    Args:
        network: in evaluation mode.
        pictures: float [C, H, W], of one frame.
        head: "modulation" or "snr".
        target: index of the class.
        method: one of METHODS: what is lost when a patch of one channel is emptied (Zeiler, Fergus,
            "Visualizing and Understanding Convolutional Networks", 2014), or gradients along the way
            from a picture without points (Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep
            Networks", 2017).

    Raises:
        ValueError: another method, or inputs that are no pictures.
    """
    if pictures.ndim != 3:
        raise ValueError(f"attribution needs pictures [C, H, W], got shape {tuple(pictures.shape)}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    forward = _logit_of(network, head)
    batch = pictures[None]
    if method == "occlusion":
        patch, stride = (max(size * pictures.shape[-1] // 64, 1) for size in (_PATCH, _STRIDE))
        shape = {"sliding_window_shapes": (1, patch, patch), "strides": (1, stride, stride)}
        with torch.no_grad():
            found = Occlusion(forward).attribute(
                batch, target=target, perturbations_per_eval=_AT_ONCE, **shape
            )
    else:
        found = IntegratedGradients(forward).attribute(batch, target=target, n_steps=_NUM_STEPS)
    return found[0].detach().float()


def _logit_of(network: TwoHeadNetwork, head: str) -> Callable[[Tensor], Tensor]:
    if head not in Logits._fields:
        raise ValueError(f"head must be one of {', '.join(Logits._fields)}, got {head!r}")
    return lambda inputs: getattr(network(inputs), head)

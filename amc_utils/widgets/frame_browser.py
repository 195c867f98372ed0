"""Test frames of a trained network, one by one: truth, prediction, and which pixels it rests on."""

from __future__ import annotations

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from captum.attr import IntegratedGradients, Occlusion
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from amc_utils import plots
from amc_utils.data import load_frames, stratified_split
from amc_utils.images import expand_channels, network_input
from amc_utils.inference.classifier import Classifier, Prediction
from amc_utils.models import Logits, TwoHeadNetwork
from amc_utils.widgets.live import LOOK, Board, choice

METHODS = ("occlusion", "integrated gradients")
# Points between the empty image and the frame's; the sum of attributions is then within a few percent
# of the difference of the logits.
_NUM_STEPS = 24
# Of an image of 64 px; others in proportion.
_PATCH, _STRIDE = 8, 4
_AT_ONCE = 64
_WRONG, _ALL = "wrong ones", "all"


class FrameBrowser(Board):
    """The frames of one class and SNR that the network was tested on, with controls to leaf through.

    Controls: modulation, snr_label, show, frame, head, method.
    """

    def __init__(self, classifier: Classifier, modulation: str, snr_label: int) -> None:
        """Draw the network's test frames again, and begin with those of one class and level.

        Of a network that was trained on a file, synthetic frames of the same classes take their place.

        Raises:
            ValueError: a network that reads samples instead of images.
        """
        config = classifier.config
        self._classifier, self._channels = classifier, expand_channels(config.channels)
        if len(classifier.network.input_shape) != 3:
            raise ValueError("the browser shows images, and this network reads samples")
        self._frames = load_frames(
            config, shard=lambda labelled: stratified_split(labelled, seed=config.seed).test
        )
        grid = config.snr_labels
        level = {"options": grid, "value": snr_label, "description": "SNR label"}
        self._words = ipywidgets.HTML()
        controls = {
            "modulation": choice("modulation", config.modulation_names, modulation),
            "snr_label": ipywidgets.SelectionSlider(**level, **LOOK),
            "show": choice("show", (_ALL, _WRONG), _ALL),
            "frame": ipywidgets.IntSlider(0, 0, 0, description="frame", **LOOK),
            "head": choice("looks for", Logits._fields, "modulation"),
            "method": choice("map by", METHODS, METHODS[0]),
        }
        super().__init__(controls, self._words)
        self._still = False
        self._select()
        for name, control in self.controls.items():
            choosing = name in ("modulation", "snr_label", "show")
            control.observe(self._select if choosing else self._redraw, "value")

    @property
    def description(self) -> str:
        """Classes, SNR range and source of the frames that are shown."""
        return self._frames.description

    def figure(self) -> Figure:
        """The frame that the controls ask for: images, attributions, and what both heads predict."""
        value = self.values
        row, config = self._shown[value["frame"]], self._classifier.config
        images, maps = self._explained(
            self._index, self._prediction, row, value["head"], value["method"]
        )
        kinds = ("image", "map")
        rows = [[f"{kind} {name}" for name in self._channels] + list(Logits._fields) for kind in kinds]
        widths = {"width_ratios": [1.0] * len(self._channels) + [1.1, 1.1]}
        size = (plots.WIDTH_INCHES["page"], 3.0)
        figure, axes = plt.subplot_mosaic(rows, figsize=size, gridspec_kw=widths)
        reach = float(maps.abs().amax()) or 1.0
        for name, image, attributions in zip(self._channels, images, maps, strict=True):
            plots.image(axes[f"image {name}"], image.numpy(), ticks=False).set_title(name)
            ax = axes[f"map {name}"]
            ax.imshow(attributions.numpy(), origin="lower", cmap="PuOr_r", vmin=-reach, vmax=reach)
            ax.set(xticks=[], yticks=[])
        axes[f"image {self._channels[0]}"].set_ylabel("image")
        axes[f"map {self._channels[0]}"].set_ylabel("speaks for (orange)\nor against (violet)")
        for task, names, truth, label in (
            ("modulation", config.modulation_names, value["modulation"], "modulation"),
            ("snr", config.snr_labels, value["snr_label"], "SNR label"),
        ):
            probability = getattr(self._prediction, task)[row].numpy()
            _bars(axes[task], probability, names, truth, plots.COLOUR_OF_TASK[task]).set_xlabel(label)
        return figure

    def shares(self, modulation: str, snr_label: int, *, num_frames: int = 8) -> pd.DataFrame:
        """Share of each channel in the positive attributions to a head's prediction; one row a head.

        By occlusion, summed over the first frames of a class and level.
        """
        index, prediction = self._cell(modulation, snr_label)
        rows, totals = range(min(num_frames, len(index))), {}
        for head in Logits._fields:
            maps = [self._explained(index, prediction, row, head, "occlusion")[1] for row in rows]
            totals[head] = torch.stack(maps).clamp_min(0).sum((0, 2, 3)).numpy()
        table = pd.DataFrame.from_dict(totals, orient="index", columns=list(self._channels))
        return table.div(table.sum(axis=1), axis=0)

    def _cell(self, modulation: str, snr_label: int) -> tuple[Tensor, Prediction]:
        """Test frames of a class and level, int64 [B], and the prediction on them."""
        index = self._frames.local(self._frames.select(modulation, snr_label))
        return index, self._classifier(self._frames.iq(index))

    def _explained(
        self, index: Tensor, prediction: Prediction, row: int, head: str, method: str
    ) -> tuple[Tensor, Tensor]:
        """Images of a frame, float [C, H, W], and attributions to the predicted class."""
        config = self._classifier.config
        iq = self._frames.iq(index[row : row + 1])
        images = network_input(iq, **config.image_options)[0]
        target = int(prediction.level[row] if head == "snr" else prediction.modulation[row].argmax())
        network = self._classifier.network
        return images, attribution(network, images, head=head, target=target, method=method)

    def words(self) -> str:
        """Truth and prediction of the frame that is shown, in one line."""
        value = self.values
        row, count = self._shown[value["frame"]], len(self._shown)
        said = self._classifier.table(self._prediction).iloc[row]
        return (
            f"frame {value['frame'] + 1} of {count} ({self._count}): is {value['modulation']} at label "
            f"{value['snr_label']}, read as {said['modulation']} ({said['modulation_confidence']:.2f}) "
            f"at label {said['snr_label']} ({said['snr_confidence']:.2f}), p-value {said['p_value']:.2}"
        )

    def _select(self, _: object = None) -> None:
        """Take the frames of the class and level that the controls name."""
        name, snr_label = self.controls["modulation"].value, self.controls["snr_label"].value
        self._index, self._prediction = self._cell(name, snr_label)
        said = self._classifier.table(self._prediction)
        wrong = ((said["modulation"] != name) | (said["snr_label"] != snr_label)).to_numpy()
        only_wrong = self.controls["show"].value == _WRONG and wrong.any()
        self._shown = np.flatnonzero(wrong if only_wrong else np.ones_like(wrong)).tolist()
        self._count = f"{wrong.sum()} of {len(wrong)} wrong"
        # Once, whether the slider moves or stays.
        self._still = True
        self.controls["frame"].max = len(self._shown) - 1
        self.controls["frame"].value = 0
        self._still = False
        self._redraw()

    def _redraw(self, _: object = None) -> None:
        if not self._still:
            self._words.value = self.words()
            super()._redraw()


def attribution(
    network: TwoHeadNetwork, images: Tensor, *, head: str, target: int, method: str
) -> Tensor:
    """Share of each pixel in the logit of a class, float32 [C, H, W]; positive speaks for the class.

    Args:
        network: in evaluation mode.
        images: float [C, H, W], of one frame.
        head: "modulation" or "snr".
        target: index of the class.
        method: one of METHODS: what is lost when a patch of one channel is emptied (Zeiler, Fergus,
            "Visualizing and Understanding Convolutional Networks", 2014), or gradients along the way
            from an image without points (Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep
            Networks", 2017).

    Raises:
        ValueError: another method, or inputs that are no images.
    """
    if images.ndim != 3:
        raise ValueError(f"attribution needs images [C, H, W], got shape {tuple(images.shape)}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if head not in Logits._fields:
        raise ValueError(f"head must be one of {', '.join(Logits._fields)}, got {head!r}")
    batch = images[None]

    def forward(inputs: Tensor) -> Tensor:
        return getattr(network(inputs), head)

    if method == "occlusion":
        patch, stride = (max(size * images.shape[-1] // 64, 1) for size in (_PATCH, _STRIDE))
        shape = {"sliding_window_shapes": (1, patch, patch), "strides": (1, stride, stride)}
        with torch.no_grad():
            found = Occlusion(forward).attribute(
                batch, target=target, perturbations_per_eval=_AT_ONCE, **shape
            )
    else:
        found = IntegratedGradients(forward).attribute(batch, target=target, n_steps=_NUM_STEPS)
    return found[0].detach().float()


def _bars(ax: Axes, probability: np.ndarray, names: tuple, truth: str | int, colour: str) -> Axes:
    """Probabilities, one bar a class; the true class is named in bold and marked."""
    place, true_place = np.arange(len(names)), names.index(truth)
    ax.barh(place, probability, color=colour, alpha=0.7)
    ax.plot(1.06, true_place, "<", color="black", clip_on=False, markersize=5)
    ax.set_yticks(place, names, fontsize=5.5)
    ax.get_yticklabels()[true_place].set_fontweight("bold")
    ax.set(xlim=(0, 1), ylim=(-0.7, len(names) - 0.3))
    return ax

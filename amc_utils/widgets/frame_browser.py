"""Test frames of a trained network, one by one: truth, opinion, and what it was read from."""

from __future__ import annotations

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from amc_utils.data import load_frames, stratified_split
from amc_utils.images import expand_channels, network_input
from amc_utils.inference.classifier import Classifier, Opinion
from amc_utils.models import Logits
from amc_utils.widgets.attribution import METHODS, attribution
from amc_utils.widgets.explorer import is_live
from amc_utils.widgets.opinion_board import as_png, opinion_board

_WRONG, _ALL = "wrong ones", "all"


class FrameBrowser:
    """The frames of one class and SNR that the network was tested on, with controls to leaf through.

    Attributes:
        controls: widgets by name: modulation, snr_label, show, frame, head, method.
        widget: controls and picture, to be shown by JupyterLab.
    """

    def __init__(self, classifier: Classifier, modulation: str, snr_label: int) -> None:
        """Draw the network's test frames again, and begin with those of one class and level.

        Of a network that was trained on a file, synthetic frames of the same classes take their place.

        Raises:
            ValueError: a network that reads samples instead of pictures.
        """
        config = classifier.config
        self._classifier, self._channels = classifier, expand_channels(config.channels)
        if len(classifier.network.input_shape) != 3:
            raise ValueError("the browser shows pictures, and this network reads samples")
        self._frames = load_frames(
            config, hold=lambda labelled: stratified_split(labelled, seed=config.seed).test
        )
        option = {"layout": {"width": "300px"}, "style": {"description_width": "90px"}}
        names, grid = config.modulation_names, config.snr_labels

        def choice(name: str, options: tuple, value: object) -> ipywidgets.Dropdown:
            return ipywidgets.Dropdown(options=options, value=value, description=name, **option)

        self.controls: dict[str, ipywidgets.ValueWidget] = {
            "modulation": choice("modulation", names, modulation),
            "snr_label": ipywidgets.SelectionSlider(
                options=grid, value=snr_label, description="SNR label (dB)", **option
            ),
            "show": choice("show", (_ALL, _WRONG), _ALL),
            "frame": ipywidgets.IntSlider(0, 0, 0, description="frame", **option),
            "head": choice("looks for", Logits._fields, "modulation"),
            "method": choice("map by", METHODS, METHODS[0]),
        }
        self._picture, self._words = ipywidgets.Image(format="png"), ipywidgets.HTML()
        self._still = False
        self._select()
        for name, control in self.controls.items():
            choosing = name in ("modulation", "snr_label", "show")
            control.observe(self._select if choosing else self._redraw, "value")
        box = ipywidgets.GridBox(
            list(self.controls.values()), layout={"grid_template_columns": "repeat(3, 310px)"}
        )
        self.widget = ipywidgets.VBox([box, self._words, self._picture])

    @property
    def description(self) -> str:
        """Classes, SNR range and source of the frames that are shown."""
        return self._frames.description

    def show(self) -> ipywidgets.VBox | None:
        """The widget in JupyterLab; elsewhere nothing, so that the first frame stands as a picture."""
        if not is_live():
            return None
        plt.close(self._board)
        return self.widget

    def figure(self) -> Figure:
        """The board of the frame that the controls ask for."""
        config, row = self._classifier.config, self._shown[self.controls["frame"].value]
        head, method = (self.controls[name].value for name in ("head", "method"))
        pictures, maps = self._explained(self._index, self._opinion, row, head, method)
        index = self._index[row]
        truth = int(self._frames.modulation[index]), int(self._frames.snr_index[index])
        self._board = opinion_board(
            pictures,
            maps,
            channels=self._channels,
            modulation=(self._opinion.modulation[row].numpy(), config.modulation_names, truth[0]),
            snr=(self._opinion.snr[row].numpy(), config.snr_labels, truth[1]),
        )
        return self._board

    def shares(self, modulation: str, snr_label: int, *, num_frames: int = 8) -> pd.DataFrame:
        """Of all that speaks for a head's decision, the share of each channel; one row a head.

        Occlusion of the first frames of a class and level, positive attributions added up.
        """
        index, opinion = self._cell(modulation, snr_label)
        rows, totals = range(min(num_frames, len(index))), {}
        for head in Logits._fields:
            maps = [self._explained(index, opinion, row, head, "occlusion")[1] for row in rows]
            totals[head] = torch.stack(maps).clamp_min(0).sum((0, 2, 3)).numpy()
        table = pd.DataFrame.from_dict(totals, orient="index", columns=list(self._channels))
        return table.div(table.sum(axis=1), axis=0)

    def _cell(self, modulation: str, snr_label: int) -> tuple[Tensor, Opinion]:
        """Test frames of a class and level, int64 [B], and the opinion on them."""
        index = self._frames.here(self._frames.select(modulation, snr_label))
        return index, self._classifier(self._frames.iq(index))

    def _explained(
        self, index: Tensor, opinion: Opinion, row: int, head: str, method: str
    ) -> tuple[Tensor, Tensor]:
        """Pictures of a frame, float [C, H, W], and what speaks for the class decided for."""
        config = self._classifier.config
        iq = self._frames.iq(index[row : row + 1])
        pictures = network_input(iq, **config.picture_options)[0]
        target = int(opinion.level[row] if head == "snr" else opinion.modulation[row].argmax())
        network = self._classifier.network
        return pictures, attribution(network, pictures, head=head, target=target, method=method)

    def words(self) -> str:
        """Truth and opinion of the frame that is shown, in one line."""
        row, count = self._shown[self.controls["frame"].value], len(self._shown)
        said = self._classifier.table(self._opinion).iloc[row]
        return (
            f"frame {self.controls['frame'].value + 1} of {count} ({self._count}): is "
            f"{self.controls['modulation'].value} at label {self.controls['snr_label'].value}, read as "
            f"{said['modulation']} ({said['modulation_confidence']:.2f}) at label {said['snr_label']} "
            f"({said['snr_confidence']:.2f}); {said['usual']:.0%} of its like are as unusual"
        )

    def _select(self, _: object = None) -> None:
        """Take the frames of the class and level that the controls name."""
        name, snr_label = self.controls["modulation"].value, self.controls["snr_label"].value
        self._index, self._opinion = self._cell(name, snr_label)
        said = self._classifier.table(self._opinion)
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
        if is_live() and not self._still:
            self._words.value, self._picture.value = self.words(), as_png(self.figure())

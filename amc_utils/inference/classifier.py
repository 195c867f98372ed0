"""A trained network in one file, ready for use: calibrated, with a detector of OOD signals."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from amc_utils.config import TrainingParameters
from amc_utils.dsp.equalisation import line_incoherence
from amc_utils.dsp.synchronisation import ReceivedBatch
from amc_utils.images import network_input
from amc_utils.inference.ood import SIGNIFICANCE, MahalanobisDetector
from amc_utils.losses import predict_snr_index
from amc_utils.models import Logits, TwoHeadNetwork, untrained_network
from amc_utils.runtime.paths import atomic_write

# The networks that come with the project: for recordings, and for frames of RadioML 2018.01A.
SHIPPED, SHIPPED_FOR_RADIOML = (
    Path(__file__).parent / "shipped" / run / "model.safetensors"
    for run in ("open-24", "radioml_2018-likelihoods")
)
_FRAMES_AT_ONCE = 64


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of frames.

    Attributes:
        modulation: float32 [B, num_modulations], calibrated probabilities.
        snr: float32 [B, num_snrs], the same of the SNR levels.
        level: int64 [B], index of the predicted SNR level.
        p_value: float32 [B], share of frames like those of training that look as unlike them as this
            one or more; small for out-of-distribution (OOD) signals.
    """

    modulation: Tensor
    snr: Tensor
    level: Tensor
    p_value: Tensor

    @property
    def level_probability(self) -> Tensor:
        """Probability of the predicted SNR level, float32 [B]."""
        return self.snr.gather(1, self.level[:, None])[:, 0]


@dataclass(frozen=True)
class Classifier:
    """A trained network with its calibration.

    Attributes:
        network: in evaluation mode.
        config: parameters of its training.
        temperatures: divisors of the logits, of modulation and SNR.
        combining: a and b of `of_recording`.
        foreign_below: see mean_log_p_value; recordings below are called OOD, one in a hundred of known
            ones.
        detector: tells OOD frames; None while it is not fitted.
        run: name of the run that trained it.
        trained_on: classes, SNR range and source of its frames.
    """

    network: TwoHeadNetwork
    config: TrainingParameters
    temperatures: tuple[float, float] = (1.0, 1.0)
    combining: tuple[float, float] = (1.0, 0.5)
    foreign_below: float = float(np.log(SIGNIFICANCE))
    detector: MahalanobisDetector | None = None
    run: str = ""
    trained_on: str = ""

    def __call__(self, iq: Tensor) -> Prediction:
        """Prediction for frames, complex64 [B, num_samples], 8 samples a symbol.

        Frames have unit mean power each, or the scale of their record where the network keeps_scale.
        """
        return self.prediction(*self.look(iq))

    @torch.no_grad()
    def look(self, iq: Tensor, *, statistics: bool = True) -> tuple[Tensor, Logits]:
        """Last features, float32 [B, W + S], and logits before calibration, of frames.

        With `statistics` what the detector needs too: where the front end must find the band, the
        incoherence of the symbol-rate line, which shows a wrong rate better than features do.
        """
        seen = []
        for part in iq.split(_FRAMES_AT_ONCE):
            inputs = network_input(part, **self.config.image_options)
            features = self.network.backbone(inputs)
            logits = self.network.heads(features)
            if statistics and self.num_statistics:
                noise = ReceivedBatch(part, self.config.receiver).noise
                features = torch.cat([features, line_incoherence(part, noise)[:, None]], 1)
            seen.append((features, *logits))
        features, modulation, snr = (torch.cat(parts) for parts in zip(*seen, strict=True))
        return features, Logits(modulation, snr)

    @property
    def num_statistics(self) -> int:
        """S, how many columns `look` may append to the features."""
        return int(self.config.receiver.is_blind)

    def prediction(self, features: Tensor, logits: Logits) -> Prediction:
        """Prediction for frames from what `look` returned.

        Raises:
            ValueError: the detector is not fitted.
        """
        if self.detector is None:
            raise ValueError("a classifier needs a fitted detector to predict; amc export fits one")
        both = zip(logits, self.temperatures, strict=True)
        modulation, snr = ((part / temperature).softmax(1) for part, temperature in both)
        p_value = self.detector.p_value(features, self.joint_class(logits))
        return Prediction(modulation, snr, predict_snr_index(logits.snr, self.config.snr_loss), p_value)

    def of_recording(self, logits: Tensor) -> Tensor:
        """Probabilities of the modulation that all N frames have, [num_modulations], from their logits.

        Frames say the same of a recording again and again, since they share its channel: their
        log-probabilities are added and multiplied by a N^-b. With b = 0 they would be independent, with
        b = 1 no more than one frame.
        """
        factor, power = self.combining
        total = (logits / self.temperatures[0]).log_softmax(1).sum(0)
        return (factor * len(logits) ** -power * total).softmax(0)

    def joint_class(self, logits: Logits) -> Tensor:
        """Predicted joint class, int64 [B], as in Frames.joint_class."""
        level = predict_snr_index(logits.snr, self.config.snr_loss)
        return logits.modulation.argmax(1) * logits.snr.shape[1] + level

    @property
    def keeps_scale(self) -> bool:
        """Whether frames must come at the scale of their record, as they did in training."""
        return self.config.synthetic_channel.record_scale and not self.config.unit_power

    def table(self, prediction: Prediction) -> pd.DataFrame:
        """One row a frame: modulation, snr_label, snr_db, confidences, and p_value.

        snr_db is the SNR per sample that the label means in the channel of training.
        """
        prediction = Prediction(*(part.cpu() for part in vars(prediction).values()))
        modulation = prediction.modulation.max(1)
        label = np.array(self.config.snr_labels)[prediction.level]
        return pd.DataFrame({
            "modulation": np.array(self.config.modulation_names)[modulation.indices],
            "modulation_confidence": modulation.values,
            "snr_label": label,
            "snr_db": self.config.synthetic_channel.snr_db(label),
            "snr_confidence": prediction.level_probability,
            "p_value": prediction.p_value,
        })  # fmt: skip

    def save(self, path: Path) -> None:
        """Write a safetensors file; weights of two and more axes in half precision, the rest whole."""
        weights = {
            f"network.{name}": weight.half() if weight.ndim > 1 else weight
            for name, weight in self.network.state_dict().items()
        }
        tensors = weights | (self.detector.tensors() if self.detector else {})
        described = {
            "run": self.run,
            "trained_on": self.trained_on,
            "config": self.config.model_dump(exclude={"plugins"})
            | {"data_path": "", "output_root": ""},
            "temperatures": self.temperatures,
            "combining": self.combining,
            "foreign_below": self.foreign_below,
        }
        with atomic_write(path) as temporary:
            save_file(
                {n: x.contiguous() for n, x in tensors.items()},
                temporary,
                {"amc_utils": json.dumps(described)},
            )


def load_classifier(path: Path | str = SHIPPED) -> Classifier:
    """Classifier from a file that `amc export` wrote, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another file, or a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"model not found: {path}; amc export makes one of a run")
    try:
        with safe_open(path, "pt") as file:
            described = json.loads((file.metadata() or {})["amc_utils"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = TrainingParameters.checked(described["config"] | {"resume_from": ""})
        network = untrained_network(config, pretrained=False)
        own = {n.removeprefix("network."): t for n, t in tensors.items() if n.startswith("network.")}
        network.load_state_dict(own)
        network = network.eval().to(memory_format=torch.channels_last)
        facts = {name: described[name] for name in ("run", "trained_on")}
        facts["temperatures"] = tuple(described["temperatures"])
        # Files from before recordings had probabilities of their own have none.
        facts["combining"] = tuple(described.get("combining", (1.0, 0.5)))
        facts["foreign_below"] = described.get("foreign_below", float(np.log(SIGNIFICANCE)))
        return Classifier(network, config, detector=MahalanobisDetector.from_tensors(tensors), **facts)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} must be a model that amc export wrote: {problem}; what a plugin registers needs "
            f"that plugin here too"
        ) from error

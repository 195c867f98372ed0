"""How well an exported network is calibrated, and what it calls foreign: the content of model.json."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from amc_utils.data import Frames
from amc_utils.inference.classifier import Classifier
from amc_utils.inference.foreign import foreign_frames, foreign_kinds
from amc_utils.inference.novelty import FALSE_ALARMS, is_foreign
from amc_utils.metrics import calibration_table, expected_calibration_error, wilson_interval
from amc_utils.runtime.progress import progress

_FRAMES_A_KIND = 500
_FOREIGN_SNRS_DB = (20, 10, 0)


def report(
    written: Classifier, tested: tuple[Frames, Tensor], recorded: tuple[Frames, Tensor]
) -> dict[str, Any]:
    """All that is measured: on test frames, on foreign signals, on recordings of a class each.

    Args:
        written: the network as it was exported.
        tested: a set of frames, and an index into it, int64.
        recorded: the same of frames that stand for recordings; frames of a class are one.
    """
    return {
        "test": _tested(written, *tested),
        "foreign": _foreign(written, *tested).to_dict("records"),
        "recordings": _recordings(written, *recorded),
    }


def _tested(written: Classifier, frames: Frames, index: Tensor) -> dict[str, Any]:
    """Accuracies with 95 % intervals and expected calibration errors on some frames."""
    seen = written.look(frames.iq(index))
    found: dict[str, Any] = {"num_frames": len(index)}
    uncalibrated = replace(written, temperatures=(1.0, 1.0))
    for name, classifier in (("uncalibrated", uncalibrated), ("calibrated", written)):
        opinion = classifier.opinion(*seen)
        snr = opinion.snr.gather(1, opinion.level[:, None])[:, 0]
        sure = {"modulation": opinion.modulation.amax(1), "snr": snr}
        right = {
            "modulation": opinion.modulation.argmax(1) == frames.modulation[index],
            "snr": opinion.level == frames.snr_index[index],
        }
        sure["joint"] = sure["modulation"] * sure["snr"]
        right["joint"] = right["modulation"] & right["snr"]
        for task, hits in right.items():
            low, high = wilson_interval(int(hits.sum()), len(index))
            found[f"{task}_accuracy"] = {"value": float(hits.float().mean()), "low": low, "high": high}
        found[f"calibration_error_{name}"] = {
            task: expected_calibration_error(
                calibration_table(pd.Series(sure[task].numpy()), pd.Series(hits.numpy()))
            )
            for task, hits in right.items()
        }
    return found


def _foreign(written: Classifier, frames: Frames, index: Tensor) -> pd.DataFrame:
    """Share of frames called foreign, and how well two scores tell them from test frames of any SNR.

    Energy is the logarithm of the sum of exponentials of both heads' logits. Source: Liu, Wang, Owens,
    Li, "Energy-based Out-of-distribution Detection", 2020, equation 4.
    """
    generator = torch.Generator().manual_seed(written.config.seed)
    own, channel = _scores(written, frames.iq(index)), written.config.synthetic_channel
    rows = [_row("test frames", "all", own, own)]
    for kind in progress(foreign_kinds(written.config.modulation_names), desc="foreign signals"):
        for snr_db in _FOREIGN_SNRS_DB:
            iq = foreign_frames(kind, snr_db, _FRAMES_A_KIND, generator=generator, channel=channel)
            rows.append(_row(kind, snr_db, _scores(written, iq), own))
    return pd.DataFrame(rows)


def _scores(classifier: Classifier, iq: Tensor) -> dict[str, np.ndarray]:
    features, logits = classifier.look(iq)
    usual = classifier.novelty.usual(features, classifier.decided(logits))
    energy = sum(part.logsumexp(1) for part in logits)
    return {"distance": 1 - usual.numpy(), "energy": -energy.numpy()}


def _row(
    kind: str, snr_db: int | str, some: dict[str, np.ndarray], own: dict[str, np.ndarray]
) -> dict[str, Any]:
    flagged = some["distance"] > 1 - FALSE_ALARMS
    areas = {
        f"auroc_{name}": float(
            roc_auc_score(
                np.repeat([0, 1], [len(own[name]), len(score)]), np.concatenate([own[name], score])
            )
        )
        for name, score in some.items()
    }
    return {
        "signal": kind,
        "snr_db": snr_db,
        "num_frames": len(flagged),
        "called_foreign": float(flagged.mean()),
        **areas,
    }


def _recordings(written: Classifier, frames: Frames, index: Tensor) -> dict[str, int]:
    """How many recordings, all frames of a class in each, are called foreign though they are not."""
    cell, classes = frames.cell[index], frames.num_classes
    usual = torch.cat([written(frames.iq(part)).usual for part in index.split(2048)])
    unusual = torch.bincount(cell[usual < FALSE_ALARMS], minlength=classes)
    counts = torch.bincount(cell, minlength=classes)
    called = [is_foreign(int(n), int(count)) for n, count in zip(unusual, counts, strict=True) if count]
    return {
        "num_recordings": len(called),
        "frames_each": int(counts.max()),
        "unusual_frames": int(unusual.sum()),
        "most_unusual_frames": int(unusual.max()),
        "called_foreign": sum(called),
    }

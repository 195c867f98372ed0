"""What an image tells when its grey levels are shared by frames of one class and label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from amc_utils.data import synthesise_frames
from amc_utils.images import pixel_index
from amc_utils.inference.classifier import Classifier
from amc_utils.runtime.paths import Workspace, atomic_write
from amc_utils.runtime.progress import progress
from amc_utils.signals import Channel, generate_frames
from amc_utils.training import trained_network

BATCH_SIZE = 512
# Batches of each class from which the spread of their largest counts is taken, and others to be tried.
_NUM_FITTED, _NUM_TRIED = 4, 2
_NUM_FRAMES_PER_CELL, _SEED = 40, 3_000_003
_FIRST_LABEL = 0


def largest_counts(
    modulations: Sequence[str],
    snr_labels: Sequence[float],
    channel: Channel,
    *,
    image_size: int,
    num_batches: int,
    seed: int,
) -> Tensor:
    """Largest count of any pixel in each batch of images, float32 [M, num_labels, num_batches].

    Args:
        modulations: names.
        snr_labels: labels; with the names they make the cells, a batch holds frames of one.
        channel: makes the frames.
        image_size: bins per axis of the images of samples.
        num_batches: batches of BATCH_SIZE frames of each cell.
        seed: of the frames.
    """
    num_cells = len(modulations) * len(snr_labels)
    cell = torch.arange(num_cells).repeat_interleave(num_batches)
    found = torch.empty(len(cell))
    labels = torch.tensor(snr_labels)
    for number, one in enumerate(progress(cell.tolist(), desc="largest counts")):
        index = torch.arange(BATCH_SIZE)
        made = generate_frames(
            index + number * BATCH_SIZE,
            torch.full_like(index, one // len(snr_labels)),
            labels[one % len(snr_labels)].expand(BATCH_SIZE),
            modulations=modulations,
            seed=seed,
            channel=channel,
        )
        pixel = pixel_index(made.iq, image_size)
        counts = torch.zeros(BATCH_SIZE, (image_size + 2) ** 2).scatter_add_(
            1, pixel, torch.ones(pixel.shape)
        )
        found[number] = counts.view(-1, image_size + 2, image_size + 2)[:, 1:-1, 1:-1].amax()
    return found.view(len(modulations), len(snr_labels), num_batches)


def grey_log_likelihoods(observed: Tensor, fitted: Tensor) -> Tensor:
    """Log-likelihood of every class given largest counts, [B, M, num_labels].

    Args:
        observed: float [B], largest counts.
        fitted: [M, num_labels, num_batches], largest counts of each class, taken for log-normal.
    """
    logs = fitted.log()
    # A few batches may agree by chance; the spread common to all classes keeps them from certainty.
    spread = (0.5 * logs.var(2) + 0.5 * logs.var(2).mean()).sqrt()
    apart = (observed.log()[:, None, None] - logs.mean(2)) / spread
    return -0.5 * apart.square() - spread.log()


def accuracies_by_label(classifier: Classifier) -> pd.DataFrame:
    """Accuracies of a network alone, of the shared grey alone, and of both, by label.

    Returns:
        Columns knows ("image", "grey", "both"), task ("joint", "modulation", "snr"), snr_label, value
        and num_frames.
    """
    config = classifier.config
    labels = [label for label in config.snr_labels if label >= _FIRST_LABEL]
    cells = {"modulations": config.modulation_names, "snr_labels": labels}
    channel = config.synthetic_channel
    frames = synthesise_frames(
        **cells, num_frames_per_cell=_NUM_FRAMES_PER_CELL, seed=config.seed + _SEED, channel=channel
    )
    _, logits = classifier.look(frames.iq(torch.arange(len(frames))))
    modulation, snr = logits.modulation.log_softmax(1), logits.snr[:, -len(labels) :].log_softmax(1)
    image = modulation[:, :, None] + snr[:, None]
    options = {
        "channel": channel,
        "image_size": config.image_size,
        "num_batches": _NUM_FITTED + _NUM_TRIED,
    }
    counts = largest_counts(*cells.values(), seed=config.seed + 2 * _SEED, **options)
    tried = torch.arange(len(frames)) % _NUM_TRIED + _NUM_FITTED
    observed = counts[frames.modulation, frames.snr_index, tried]
    grey = grey_log_likelihoods(observed, counts[..., :_NUM_FITTED])
    label, tables = np.array(labels)[frames.snr_index], {}
    for knows, score in (("image", image), ("grey", grey), ("both", image + grey)):
        right = {
            "joint": score.flatten(1).argmax(1) == frames.joint_class,
            "modulation": score.logsumexp(2).argmax(1) == frames.modulation,
            "snr": score.logsumexp(1).argmax(1) == frames.snr_index,
        }
        hits = pd.DataFrame(right | {"snr_label": label}).melt("snr_label", var_name="task")
        values = hits.groupby(["task", "snr_label"])["value"]
        tables[knows] = values.agg(value="mean", num_frames="size")
    return pd.concat(tables, names=["knows"]).reset_index()


def shared_scaling(runs: list[str], output_root: str = "") -> None:
    """Measure what grey levels tell that images of one class and label share.

        amc grey "[log-picture-64, log-picture-128-quarter]"

    Later runs of the log's authors divide the counts of each image by the largest count in a batch of
    512 frames of one class and label, before frames are mixed. The grey of a single count then tells
    class and label a little, which no receiver of single frames knows. This command adds that knowledge
    to what a network says: its posterior, among the classes with labels from 0 on, times the likelihood
    of the batch's largest count. Accuracies by label go to
    results/radioml_2018_facts/shared_scaling.csv.

    Args:
        runs: on the log's image, whose checkpoints are there.
        output_root: where they were written; empty is the repository.
    """
    workspace, tables = Workspace.at(output_root), []
    for run in runs:
        network, config, _ = trained_network(workspace.checkpoints / run / "best.ckpt")
        table = accuracies_by_label(Classifier(network, config, run=run))
        table.insert(0, "run", run)
        tables.append(table)
    path = workspace.results / "radioml_2018_facts" / "shared_scaling.csv"
    with atomic_write(path) as temporary:
        pd.concat(tables).to_csv(temporary, index=False, float_format="%.5f", lineterminator="\n")
    print(path)

"""Classification accuracy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError, first_line
from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree.measure.forward import describe, evaluating


@dataclass(frozen=True)
class Accuracy:
    """Shares of images whose label is the first, or among the first five, of the network's answers.

    Attributes
    ----------
    images
        Number of images looked at.
    top1, top5
        In percent.
    """

    images: int
    top1: float
    top5: float


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    device: torch.device | str = "cpu",
    images: int = 0,
    tick: ProgressCallback = no_progress,
) -> Accuracy:
    """Measure a classifier on labelled batches.

    Parameters
    ----------
    model
        Gives logits ``[batch, classes]``; it must be on ``device`` already.
    batches
        Pairs of images ``[batch, ...]`` and labels ``[batch]``.
    images
        How many images are to come, for the progress bar alone.

    Raises
    ------
    TuckertreeError
        If there are no images, the output is not ``[batch, classes]``, or a label is none of its classes.

    Examples
    --------
    >>> import tuckertree as tt
    >>> from tuckertree.tools.data import batches, open_images
    >>> from tuckertree.tools.models import resolve
    >>> images = open_images("demo", resolve("demo").preprocessing, limit=200)
    >>> accuracy = tt.evaluate(tt.build("demo"), batches(images, batch_size=100))
    >>> accuracy.images, accuracy.top1 > 90
    (200, True)
    """
    first, five, seen = 0, 0, 0
    with evaluating(model):
        for inputs, labels in batches:
            logits = _logits(model, inputs.to(device, copy=True), len(inputs))
            _check_labels(labels, logits.shape[1])
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices.cpu() == labels[:, None]
            first += int(best[:, 0].sum())
            five += int(best.any(dim=1).sum())
            seen += len(labels)
            tick("evaluating", seen, images or seen)
    if not seen:
        raise TuckertreeError("there are no images to evaluate on")
    return Accuracy(seen, 100 * first / seen, 100 * five / seen)


def _logits(model: nn.Module, inputs: Tensor, batch: int) -> Tensor:
    try:
        logits = model(inputs)
    except (RuntimeError, ValueError) as error:
        raise TuckertreeError(
            f"the model does not run on images {describe(inputs)}: {first_line(error)}"
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != batch:
        raise TuckertreeError(f"accuracy needs logits [batch, classes]; the model gives {describe(logits)}")
    return logits


def _check_labels(labels: Tensor, classes: int) -> None:
    if labels.min() < 0:
        raise TuckertreeError("these images have no labels, so there is no accuracy to measure")
    if labels.max() >= classes:
        raise TuckertreeError(
            f"label {int(labels.max())} does not exist for a network of {classes} classes; "
            "the data belong to another model"
        )

"""Classification accuracy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError, first_line
from tuckertree._base.names import refuse_name_of_images
from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree.measure.forward import describe, evaluating
from tuckertree.measure.intervals import wilson


@dataclass(frozen=True)
class Accuracy:
    """Shares of images whose label is the first, or among the first five, of the network's answers.

    Attributes
    ----------
    images
        Number of images looked at.
    top1, top5
        In percent.
    top1_interval, top5_interval
        Wilson's 95 % confidence intervals of them, in percent: what other images of the kind might have given.

    Examples
    --------
    >>> from tuckertree.measure import Accuracy
    >>> accuracy = Accuracy(images=1000, top1=90.0, top5=99.0)
    >>> [round(limit, 1) for limit in accuracy.top1_interval]
    [88.0, 91.7]
    >>> print(accuracy.text("top1"))
    90.00 % (88.0 to 91.7)
    """

    images: int
    top1: float
    top5: float

    @property
    def top1_interval(self) -> tuple[float, float]:
        """Of :attr:`top1`."""
        return share_interval(self.top1, self.images)

    @property
    def top5_interval(self) -> tuple[float, float]:
        """Of :attr:`top5`."""
        return share_interval(self.top5, self.images)

    def text(self, which: str = "top1") -> str:
        """``top1`` or ``top5`` with its interval, for people."""
        return percent(getattr(self, which), self.images)

    def to_json(self) -> dict[str, object]:
        """As JSON data, intervals included."""
        return {
            **asdict(self),
            "top1_interval": list(self.top1_interval),
            "top5_interval": list(self.top5_interval),
        }


def share_interval(share: float, images: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, both in percent."""
    low, high = wilson(round(share / 100 * images), images)
    return 100 * low, 100 * high


def percent(share: float, images: int) -> str:
    """A share in percent with its interval: ``90.00 % (88.0 to 91.7)``."""
    low, high = share_interval(share, images)
    digits = 1 if high - low >= 1 else 2
    return f"{share:.2f} % ({low:.{digits}f} to {high:.{digits}f})"


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
    UsageError
        If the batches are the name of some.
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
    refuse_name_of_images(batches)
    first, five, seen = 0, 0, 0
    with evaluating(model):
        for inputs, labels in batches:
            logits = _logits(model, inputs.to(device, copy=True), len(inputs))
            check_labels(labels, logits.shape[1])
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


def check_labels(labels: Tensor, classes: int) -> None:
    """Refuse labels that are none of a network's classes.

    Raises
    ------
    TuckertreeError
        If there are such, or none at all (-1).
    """
    if labels.min() < 0:
        raise TuckertreeError("these images have no labels, so there is no accuracy to measure")
    if labels.max() >= classes:
        raise TuckertreeError(
            f"label {int(labels.max())} does not exist for a network of {classes} classes; "
            "the data belong to another model"
        )

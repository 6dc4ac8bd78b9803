"""Network and images by their names, opened in every process anew."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from tuckertree._base.errors import UsageError
from tuckertree._base.names import TrustedName
from tuckertree.tools.comparison.cell import Task
from tuckertree.tools.data import ImageSet, open_calibration, open_images
from tuckertree.tools.data.splits import halves, is_same_place
from tuckertree.tools.models import build, resolve
from tuckertree.tools.opening import Sizes, open_model


@dataclass(frozen=True)
class NamedTask:
    """What the user named; called, it is opened.

    Attributes
    ----------
    model, weights, architecture, input_size
        As of :func:`tuckertree.tools.opening.open_model`.
    data, data_images
        Images to measure on, and how many of them at the most; None for all.
    calibration, calibration_images
        Images to fit to, likewise; None where methods have the weights alone. Where both would be the same images, one
        half is fitted to and the other measured on.
    preprocessing
        What is done to images otherwise than the network's name says.
    """

    model: TrustedName
    data: str
    data_images: int | None = None
    calibration: str | None = None
    calibration_images: int | None = None
    weights: Path | None = None
    architecture: TrustedName | None = None
    input_size: Sizes = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> Task:
        """Open network and images.

        Raises
        ------
        TuckertreeError
            If one of them cannot be opened.
        """
        opened = open_model(
            self.model, weights=self.weights, architecture=self.architecture, input_size=self.input_size
        )
        preprocessing = replace(opened.preprocessing, **self.preprocessing)
        images = open_images(self.data, preprocessing, limit=self.data_images)
        fitted = None
        if self.calibration is not None:
            is_same = is_same_place(self.calibration, self.data)
            with warnings.catch_warnings():
                if is_same:  # then it need not be said that there are no training images: they are divided
                    warnings.simplefilter("ignore", UserWarning)
                named = self.data if is_same else self.calibration
                fitted = open_calibration(named, preprocessing, limit=self.calibration_images)
            images, fitted = _apart(images, fitted, self.calibration_images)
        return Task(
            str(self.model),
            opened.model,
            opened.example,
            images,
            fitted,
            {"preprocessing": asdict(preprocessing)},
        )


def _apart(images: ImageSet, fitted: ImageSet, count: int | None) -> tuple[ImageSet, ImageSet]:
    """Images to measure on, and to fit to, none of them in both."""
    if images.source != fitted.source:
        return images, fitted
    if len(images) < 2:
        raise UsageError(f"{images.source} has one image, which cannot be both fitted to and measured on")
    ours, theirs = halves(len(images), count)
    return images.subset(theirs), images.subset(ours)


def demo_task(images: int | None = None) -> Task:
    """The packaged network, and packaged images to measure and to fit to: at most so many of each.

    Examples
    --------
    >>> from tuckertree.tools.comparison import demo_task
    >>> len(demo_task(20).images)
    20
    """
    known = resolve("demo")
    return Task(
        "demo",
        build("demo").eval(),
        torch.zeros_like(known.example_inputs()),
        open_images("demo", known.preprocessing, limit=images),
        open_calibration("demo", known.preprocessing, limit=images),
    )

"""A data set of the Hugging Face hub as a stream: read shard by shard while training, never kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tuckertree.data.hub import HUB, STREAMING, open_hub
from tuckertree.data.images import ImageSet, decoded, open_calibration
from tuckertree.data.parquet import IMAGE_COLUMNS, LABEL_COLUMNS
from tuckertree.data.preprocessing import Preprocessing
from tuckertree.data.splits import choose_split
from tuckertree.errors import TuckertreeError
from tuckertree.extras import require_extra

BUFFER = 1000
"""Images that are held to be drawn from, still encoded."""


class ImageStream:
    """Labelled images in an order that depends on seed and epoch, without access by number.

    Parameters
    ----------
    rows
        A ``datasets.IterableDataset``.
    source
        What it is, for messages.
    preprocessing
        What is done to each image.
    buffer
        The shards are shuffled, and the images of a shard within so many.

    Raises
    ------
    TuckertreeError
        If there is no column of images, or none of labels.
    """

    labelled = True

    def __init__(self, rows: Any, source: str, preprocessing: Preprocessing, buffer: int = BUFFER) -> None:
        datasets = require_extra("datasets", extra="training")
        names = rows.column_names or []
        image = next((name for name in IMAGE_COLUMNS if name in names), None)
        label = next((name for name in LABEL_COLUMNS if name in names), None)
        if image is None or label is None:
            raise TuckertreeError(
                f"{source}: no columns of images and labels to train with; it has {', '.join(names)}"
            )
        self.source, self.preprocessing, self.buffer = source, preprocessing, buffer
        self.classes: list[str] | None = getattr((rows.features or {}).get(label), "names", None)
        self._image, self._label = image, label
        self._rows = rows.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
        known = (rows.info.splits or {}).get(str(rows.split))
        # Most data sets of the hub say how many they are; others are gone through once.
        self._count = known.num_examples if known else sum(1 for _ in self._rows)

    def __len__(self) -> int:
        return self._count

    def encoded(self, seed: int, epoch: int, rank: int, world: int) -> Iterator[tuple[Any, int]]:
        """The share of one process in an epoch: what :meth:`pixels` takes, and the label.

        Shards are split over the processes if their number is a multiple of theirs; otherwise each takes every
        ``world``-th image. Within a worker of a DataLoader it is that worker's share of the shards.
        """
        # Not by set_epoch, which adds the epoch to the seed: the runs of two seeds would share their orders.
        drawn = np.random.default_rng([seed, epoch])
        rows = self._rows.shuffle(generator=drawn, buffer_size=self.buffer)
        for row in self._share(rows, rank, world):
            label = row[self._label]
            if label is None or label < 0 or (self.classes is not None and label >= len(self.classes)):
                raise TuckertreeError(f"{self.source}: an image has the label {label}, which is no class")
            yield row[self._image], label

    def shards(self, rank: int, world: int) -> int:
        """How many worker processes can share what one process reads."""
        return int(self._share(self._rows, rank, world).n_shards)

    def pixels(self, value: Any) -> Tensor:
        """Return an image as it is before normalisation: uint8 [3, H, W], RGB.

        Raises
        ------
        TuckertreeError
            If it cannot be decoded, or has a wrong size and is not to be resized.
        """
        return self._decoded(value, self.preprocessing.fit)

    def picture(self, value: Any) -> Tensor:
        """Return an image in the size it is stored in: uint8 [3, h, w], RGB.

        Raises
        ------
        TuckertreeError
            If it cannot be decoded.
        """

        def whole(image: Any) -> Tensor:
            return replace(self.preprocessing, size=(image.height, image.width), resize=None).fit(image)

        return self._decoded(value, whole)

    def _decoded(self, value: Any, fit: Callable[[Any], Tensor]) -> Tensor:
        path = value.get("path") if value else None
        try:
            if not value or value.get("bytes") is None:
                raise TuckertreeError("a row holds no image bytes")
            return fit(decoded(value["bytes"]))
        except TuckertreeError as error:
            raise TuckertreeError(f"{self.source}{f', {path}' if path else ''}: {error}") from error

    @staticmethod
    def _share(rows: Any, rank: int, world: int) -> Any:
        distributed = require_extra("datasets.distributed", extra="training")
        return distributed.split_dataset_by_node(rows, rank=rank, world_size=world)


def open_training(source: str | Path, preprocessing: Preprocessing) -> ImageSet | ImageStream:
    """Open images to train on: a stream for ``hf:NAME?streaming``, a set for all else.

    Raises
    ------
    UsageError, TuckertreeError
        As :func:`~tuckertree.data.open_calibration`; for a stream also if it has no training split or labels.
    """
    if not is_stream(source):
        return open_calibration(source, preprocessing)
    name = str(source).removesuffix(STREAMING)
    splits = open_hub(name, streaming=True)
    rows = choose_split({split: partial(splits.__getitem__, split) for split in splits}, "train", name)()
    return ImageStream(rows, f"{name} (train)", preprocessing)


def is_stream(source: str | Path) -> bool:
    """Whether a source is to be read as a stream: ``hf:NAME?streaming``."""
    return str(source).startswith(HUB) and str(source).endswith(STREAMING)

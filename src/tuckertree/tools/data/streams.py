"""A data set of the Hugging Face hub as a stream: read shard by shard while training, never kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import get_worker_info

from tuckertree._base.errors import TuckertreeError, one_line
from tuckertree._base.extras import require_extra
from tuckertree.tools.data.hub import HUB, STREAMING, hub_shards
from tuckertree.tools.data.images import ImageSet, decoded, open_train
from tuckertree.tools.data.parquet import arrow_errors, class_names, image_column, label_column
from tuckertree.tools.data.preprocessing import Preprocessing
from tuckertree.tools.data.splits import choose_split

BUFFER = 1000
"""Images that are held to be drawn from, still encoded."""
_ROWS = 64


class ImageStream:
    """Labelled images in an order that depends on seed and epoch, without access by number.

    Shards are parquet files, read here and not by the package ``datasets``: that one leaves a scanner with
    threads of its own behind wherever a stream is not read to its end, and such scanners may crash the
    process (https://github.com/apache/arrow/issues/45214).

    Parameters
    ----------
    shards
        Paths or addresses of parquet files, all with the columns of the first.
    source
        What they are, for messages.
    preprocessing
        What is done to each image.
    count
        Images in all shards; None has it read from them.
    buffer
        The shards are shuffled, and the images of the shards of one reader within so many.

    Raises
    ------
    TuckertreeError
        If a shard cannot be read, or there is no column of images, or none of labels.
    """

    labelled = True

    def __init__(
        self,
        shards: Sequence[str],
        source: str,
        preprocessing: Preprocessing,
        *,
        count: int | None = None,
        buffer: int = BUFFER,
    ) -> None:
        self.source, self.preprocessing, self.buffer = source, preprocessing, buffer
        self._shards = list(shards)
        with _open_shard(shards[0]) as first:
            schema = first.schema_arrow
        self._image, label = image_column(schema, source), label_column(schema, source)
        if label is None:
            raise TuckertreeError(
                f"{source}: no column of labels to train with; it has {', '.join(schema.names)}"
            )
        self._label = label
        self.classes = class_names(schema.metadata or {}, label)
        self._count = sum(map(_rows_of, shards)) if count is None else count

    def __len__(self) -> int:
        return self._count

    def encoded(self, seed: int, epoch: int, rank: int, world: int) -> Iterator[tuple[object, int]]:
        """The share of one process in an epoch: what :meth:`pixels` takes, and the label.

        Shards are split over the processes if their number is a multiple of theirs; otherwise each takes every
        ``world``-th image. Within a worker of a DataLoader it is that worker's share of the shards.

        Raises
        ------
        TuckertreeError
            If a shard cannot be read, or a label is no class.
        """
        order = np.random.default_rng([seed, epoch]).permutation(len(self._shards))
        shards, step = self._share([self._shards[i] for i in order], rank, world)
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        rows = islice(self._rows(shards[worker::workers]), rank if step > 1 else 0, None, step)
        drawn = np.random.default_rng([seed, epoch, rank, worker])
        for value, label in _shuffled(rows, self.buffer, drawn):
            if label is None or label < 0 or (self.classes is not None and label >= len(self.classes)):
                raise TuckertreeError(f"{self.source}: an image has the label {label}, which is no class")
            yield value, label

    def shards(self, rank: int, world: int) -> int:
        """How many worker processes can share what one process reads."""
        return len(self._share(self._shards, rank, world)[0])

    @staticmethod
    def _share(shards: list[str], rank: int, world: int) -> tuple[list[str], int]:
        """The shards that a process reads, and of how many of their images it takes one."""
        return (shards, world) if len(shards) % world else (shards[rank::world], 1)

    def _rows(self, shards: Sequence[str]) -> Iterator[tuple[object, int | None]]:
        columns = [self._image, self._label]
        for shard in shards:
            with _open_shard(shard) as file:
                # Without threads, because pyarrow's thread pool does not survive the fork of a worker.
                batches = file.iter_batches(_ROWS, columns=columns, use_threads=False)
                rows = (zip(*(b.column(name).to_pylist() for name in columns), strict=True) for b in batches)
                for number, (value, label) in enumerate(chain.from_iterable(rows)):
                    yield _named(value, f"{Path(shard).name}, row {number}"), label

    def pixels(self, value: object) -> Tensor:
        """Return an image as it is before normalisation: uint8 [3, H, W], RGB.

        Raises
        ------
        TuckertreeError
            If it cannot be decoded, or has a wrong size and is not to be resized.
        """
        return self._decoded(value, self.preprocessing.fit)

    def picture(self, value: object) -> Tensor:
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
        try:
            if value["bytes"] is None:
                raise TuckertreeError("a row holds no image bytes")
            return fit(decoded(value["bytes"]))
        except TuckertreeError as error:
            raise TuckertreeError(f"{self.source}, {value['path']}: {error}") from error


def _named(value: Any, place: str) -> dict[str, object]:
    """Bytes of an image, and a path to speak of it by: where it is, if the file names none."""
    value = value or {}
    return {"bytes": value.get("bytes"), "path": value.get("path") or place}


@contextmanager
def _open_shard(shard: str) -> Iterator[Any]:
    """A pyarrow ParquetFile; what goes wrong while it is open names the shard."""
    fsspec = require_extra("fsspec", extra="training")
    parquet = require_extra("pyarrow.parquet", extra="vision")
    try:
        with fsspec.open(shard, "rb") as content, parquet.ParquetFile(content) as file:
            yield file
    except arrow_errors() as error:
        raise TuckertreeError(f"{shard}: cannot be read: {one_line(error)}") from error


def _rows_of(shard: str) -> int:
    with _open_shard(shard) as file:
        return int(file.metadata.num_rows)


def _shuffled(rows: Iterator[object], buffer: int, drawn: np.random.Generator) -> Iterator[Any]:
    """Draw from so many of the rows at a time."""
    held = list(islice(rows, buffer))
    for row in rows:
        place = int(drawn.integers(len(held)))
        yield held[place]
        held[place] = row
    for place in drawn.permutation(len(held)):
        yield held[place]


def open_training(source: str | Path, preprocessing: Preprocessing) -> ImageSet | ImageStream:
    """Open images to train on: a stream for ``hf:NAME?streaming``, a set for all else.

    Raises
    ------
    UsageError, TuckertreeError
        As :func:`~tuckertree.tools.data.images.open_train`; for a stream also if it has no training split or labels,
        or is not kept in parquet files.
    """
    if not is_stream(source):
        return open_train(source, preprocessing)
    name = str(source).removesuffix(STREAMING)
    shards, count = choose_split(hub_shards(name), "train", name)
    return ImageStream(shards, f"{name} (train)", preprocessing, count=count)


def is_stream(source: str | Path) -> bool:
    """Whether a source is to be read as a stream: ``hf:NAME?streaming``."""
    return str(source).startswith(HUB) and str(source).endswith(STREAMING)

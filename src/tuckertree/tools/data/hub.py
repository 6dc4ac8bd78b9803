"""Data sets of the Hugging Face hub, by the package ``datasets``, which keeps them on disk and maps them."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from tuckertree._base.errors import TuckertreeError, UsageError, first_line
from tuckertree._base.extras import require_extra
from tuckertree.tools.data.parquet import IMAGE_COLUMNS, LABEL_COLUMNS
from tuckertree.tools.data.records import Splits

HUB = "hf:"
STREAMING = "?streaming"


def hub_splits(source: str) -> Splits:
    """Return the splits of ``hf:NAME``; fetched when they are not in the cache.

    Raises
    ------
    TuckertreeError
        If the data set is unknown, cannot be fetched, or is not made of images.
    UsageError
        If a stream is asked for: it has no images by number (see :mod:`tuckertree.tools.data.streams`).
    """
    if source.endswith(STREAMING):
        raise UsageError(f"{source}: a stream is only to be trained on; leave out {STREAMING} here")
    splits = _opened(source, "load_dataset")
    return {split: partial(HubRecords, rows, f"{source} ({split})") for split, rows in splits.items()}


def hub_shards(source: str) -> dict[str, tuple[list[str], int | None]]:
    """The files of each split of ``hf:NAME``, none of them fetched, and how many images they hold, if known.

    Raises
    ------
    TuckertreeError
        If the data set is unknown or cannot be reached, or is not kept in parquet files.
    """
    builder = _opened(source, "load_dataset_builder")
    known = builder.info.splits or {}
    splits: dict[str, tuple[list[str], int | None]] = {}
    for split, files in (builder.config.data_files or {}).items():
        if not all(str(file).endswith(".parquet") for file in files):
            raise TuckertreeError(
                f"{source}: only parquet files can be streamed, and {files[0]} is none; leave out {STREAMING}"
            )
        count = known[split].num_examples if split in known else None
        splits[str(split)] = [str(file) for file in files], count or None
    return splits


def _opened(source: str, how: str) -> Any:
    """What a function of the package gives for ``hf:NAME``."""
    datasets = require_extra("datasets", extra="training")
    try:
        # No code of a data set is run: the package reads files of data alone unless it is told to trust more.
        return getattr(datasets, how)(source.removeprefix(HUB))
    except Exception as error:  # whatever the package, the network and the file formats raise
        raise TuckertreeError(f"{source} cannot be opened: {first_line(error)}") from error


class HubRecords:
    """The rows of one split, read and decoded when they are asked for.

    Raises
    ------
    TuckertreeError
        If there is no column of images.
    """

    def __init__(self, rows: Any, source: str) -> None:
        datasets = require_extra("datasets", extra="training")
        image = next((name for name in IMAGE_COLUMNS if name in rows.column_names), None)
        if image is None or not isinstance(rows.features[image], datasets.Image):
            names = ", ".join(rows.column_names)
            raise TuckertreeError(
                f"{source}: no image column; it has {names}, and images must be in 'img' or 'image'"
            )
        label = next((name for name in LABEL_COLUMNS if name in rows.column_names), None)
        self.source = source
        self.labels: Tensor | None = None
        self.classes: list[str] | None = None
        if label is not None:
            labels = torch.tensor(rows.with_format("numpy")[label][:], dtype=torch.int64)
            self.labels = None if (labels < 0).all() else labels  # the hub marks withheld labels with -1
            self.classes = getattr(rows.features[label], "names", None)
        self.mixed = self.labels is None or not bool((self.labels.diff() >= 0).all())
        self._image = image
        self._rows = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> bytes:
        """Return the bytes of the image file in row ``index``."""
        value = self._rows[index][self._image]
        if value is None or value["bytes"] is None:
            raise TuckertreeError(f"{self.where(index)}: holds no image bytes; drop the row or fill it")
        encoded: bytes = value["bytes"]
        return encoded

    def where(self, index: int) -> str:
        """Return the source and the row of image ``index``."""
        return f"{self.source}, row {index}"

"""Parquet files in the layout of Hugging Face data sets: a column of encoded images, a column of labels."""

import json
import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tuckertree._base.errors import TuckertreeError, one_line
from tuckertree._base.extras import require_extra
from tuckertree._base.reading import check_regular
from tuckertree.tools.data.records import Splits
from tuckertree.tools.data.splits import ALIASES

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "labels", "fine_label")
CACHE_BYTES = 512 * 2**20
_FILE_NAME = re.compile(r"(?P<split>.+?)(-\d+(-of-(?P<files>\d+))?)?\.parquet")


def parquet_file_splits(path: Path) -> Splits:
    """Return the split of one parquet file: the one its name begins with, if that is a usual name."""
    split = _split_and_count(path)[0]
    return {split if split in ALIASES else None: partial(ParquetRecords, [path], str(path))}


def parquet_folder_splits(folder: Path) -> Splits | None:
    """Return the splits of a folder with files ``{split}-*.parquet`` in it, or in ``data`` in it, or None."""
    splits: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*.parquet")) or sorted(folder.glob("data/*.parquet")):
        splits.setdefault(_split_and_count(file)[0], []).append(file)
    return {split: partial(_open_files, folder, split, files) for split, files in splits.items()} or None


class ParquetRecords:
    """The rows of some parquet files, in order.

    Labels are read at once, images when they are asked for: whole row groups, of which the latest stay in
    memory (at most 512 MiB in each process, or one group). No file stays open, so worker processes may be
    forked or spawned.

    Raises
    ------
    TuckertreeError
        If a file is damaged, has no image column or no rows, or holds labels that are not integers.
    """

    def __init__(self, files: Sequence[Path], source: str) -> None:
        contents = [_inspect(file) for file in files]
        self.source = source
        self.classes = contents[0].classes
        self.labels = _joined_labels([content.labels for content in contents])
        self.mixed = self.labels is None or not _sorted_by_class(self.labels)
        self._groups = [group for content in contents for group in content.groups]
        self._ends = list(accumulate(group.rows for group in self._groups))
        self._cache = _Cache()
        if not len(self):
            raise TuckertreeError(f"{source}: no images in it; give a file with rows")

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, index: int) -> bytes:
        """Return the bytes of the image file in row ``index``."""
        group, row = self._locate(index)
        try:
            value = self._cache.images(group)[row].as_py()
        except arrow_errors() as error:
            raise TuckertreeError(f"{self.where(index)}: cannot be read: {one_line(error)}") from error
        if value is None or value["bytes"] is None:
            raise TuckertreeError(f"{self.where(index)}: holds no image bytes; drop the row or fill it")
        encoded: bytes = value["bytes"]
        return encoded

    def where(self, index: int) -> str:
        """Return the file and the row, counted from 0 in that file, of image ``index``."""
        group, row = self._locate(index)
        return f"{group.file}, row {group.first_row + row}"

    def _locate(self, index: int) -> "tuple[_RowGroup, int]":
        number = bisect_right(self._ends, index)
        group = self._groups[number]
        return group, index - (self._ends[number] - group.rows)


@dataclass(frozen=True)
class _RowGroup:
    file: Path
    number: int
    column: str
    first_row: int
    rows: int


@dataclass(frozen=True)
class _Contents:
    groups: list[_RowGroup]
    labels: Tensor | None
    classes: list[str] | None


class _Cache:
    """The row groups read last."""

    def __init__(self) -> None:
        self._columns: OrderedDict[_RowGroup, Any] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        # A spawned worker reads for itself: sending it the images would cost more.
        return {"_columns": OrderedDict()}

    def images(self, group: _RowGroup) -> Any:
        """Return the image column of a row group, a pyarrow ChunkedArray of {bytes}."""
        if group not in self._columns:
            self._columns[group] = _read_images(group)
            while len(self._columns) > 1 and self._bytes() > CACHE_BYTES:
                self._columns.popitem(last=False)
        self._columns.move_to_end(group)
        return self._columns[group]

    def _bytes(self) -> int:
        return sum(column.nbytes for column in self._columns.values())


def _read_images(group: _RowGroup) -> object:
    parquet = require_extra("pyarrow.parquet", extra="vision")
    with parquet.ParquetFile(group.file) as file:
        # Without threads, because pyarrow's thread pool does not survive the fork of a worker.
        table = file.read_row_group(group.number, columns=[f"{group.column}.bytes"], use_threads=False)
    return table.column(0)


def _inspect(path: Path) -> _Contents:
    """Read all of a file but its images."""
    check_regular(path)
    parquet = require_extra("pyarrow.parquet", extra="vision")
    try:
        with parquet.ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
            image, label = image_column(schema, path), label_column(schema, path)
            table = file.read(columns=[label], use_threads=False) if label else None
    except arrow_errors() as error:
        raise TuckertreeError(f"{path}: not a whole parquet file: {one_line(error)}") from error
    rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    starts = accumulate(rows, initial=0)
    return _Contents(
        groups=[_RowGroup(path, number, image, next(starts), count) for number, count in enumerate(rows)],
        labels=None if table is None else _label_tensor(table.column(0), path),
        classes=class_names(schema.metadata or {}, label),
    )


def image_column(schema: Any, path: Path | str) -> str:
    """Return the name of the column of encoded images.

    Raises
    ------
    TuckertreeError
        If there is none of that name and type.
    """
    arrow = require_extra("pyarrow", extra="vision")
    for name in IMAGE_COLUMNS:
        if name in schema.names:
            kind = schema.field(name).type
            if arrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                return name
            raise TuckertreeError(f"{path}: column {name!r} is {kind}; it must be a struct of bytes and path")
    names = ", ".join(schema.names)
    raise TuckertreeError(f"{path}: no image column; it has {names}, and images must be in 'img' or 'image'")


def label_column(schema: Any, path: Path | str) -> str | None:
    """Return the name of the column of labels, if there is one.

    Raises
    ------
    TuckertreeError
        If it is not one of integers.
    """
    arrow = require_extra("pyarrow", extra="vision")
    for name in LABEL_COLUMNS:
        if name in schema.names:
            kind = schema.field(name).type
            if not arrow.types.is_integer(kind):
                raise TuckertreeError(f"{path}: column {name!r} is {kind}; labels must be integers")
            return name
    return None


def _label_tensor(column: Any, path: Path) -> Tensor | None:
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise TuckertreeError(f"{path}, row {row}: has no label; drop the row, or the whole column")
    labels = torch.tensor(column.to_pylist(), dtype=torch.int64)
    # Hugging Face marks the withheld labels of a test split with -1.
    return None if (labels < 0).all() else labels


def class_names(metadata: dict[bytes, bytes], label: str | None) -> list[str] | None:
    """Return the names that the ``datasets`` library keeps in the schema, if they are there."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def _joined_labels(parts: list[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if len(present) == len(parts) else None


def _sorted_by_class(labels: Tensor) -> bool:
    return len(labels) > len(labels.unique()) > 1 and bool((labels.diff() >= 0).all())


def _open_files(folder: Path, split: str, files: list[Path]) -> ParquetRecords:
    expected = _split_and_count(files[0])[1]
    if expected not in (None, len(files)):
        raise TuckertreeError(
            f"{folder}: only {len(files)} of the {expected} files of split {split!r}; fetch the others too"
        )
    return ParquetRecords(files, f"{folder} ({split})")


def _split_and_count(file: Path) -> tuple[str, int | None]:
    """Return the split, and the number of its files, that a name like ``train-00000-of-00003`` tells."""
    match = _FILE_NAME.fullmatch(file.name)
    if match is None:
        return file.stem, None
    return match["split"], int(match["files"]) if match["files"] else None


def arrow_errors() -> tuple[type[Exception], ...]:
    """What pyarrow raises for a file that is damaged or cannot be read."""
    arrow = require_extra("pyarrow", extra="vision")
    return (arrow.ArrowException, OSError)

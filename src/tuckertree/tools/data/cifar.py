"""CIFAR-10 as its authors publish it: the Python batches and the binary batches.

Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch

from tuckertree._base.errors import TuckertreeError
from tuckertree._base.extras import require_extra
from tuckertree.tools.data.arrays import ArrayRecords
from tuckertree.tools.data.records import Splits

PYTHON_BATCHES = "cifar-10-batches-py"
BINARY_BATCHES = "cifar-10-batches-bin"
_BINARY_FILES = {
    "test": ("test_batch.bin",),
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
}
_RECORD = 1 + 3 * 32 * 32  # one byte for the label, then the red, the green and the blue plane


def cifar_splits(folder: Path) -> Splits | None:
    """Return the splits of a folder that is, or holds, one of the two forms; None for another folder."""
    for batches in (folder, folder / BINARY_BATCHES, folder / PYTHON_BATCHES):
        if batches.name == BINARY_BATCHES and batches.is_dir():
            return {split: partial(_open_binary, batches, split) for split in _BINARY_FILES}
        if batches.name == PYTHON_BATCHES and batches.is_dir():
            return {split: partial(_open_python, batches, split) for split in _BINARY_FILES}
    return None


def _open_python(batches: Path, split: str) -> ArrayRecords:
    datasets = require_extra("torchvision.datasets", extra="vision")
    try:
        with warnings.catch_warnings():
            # The official pickles are older than the types numpy now wants in a dtype, and numpy says so.
            warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
            # These files are pickles, and unpickling runs whatever a file asks for. It is allowed here, and
            # nowhere else, because torchvision unpickles a file only if its md5 is the official one.
            dataset = datasets.CIFAR10(batches.parent, train=split == "train", download=False)
    except RuntimeError as error:
        raise TuckertreeError(
            f"{batches}: a file is missing or is not the official one (its md5 differs); "
            "unpack cifar-10-python.tar.gz again"
        ) from error
    return ArrayRecords(
        source=f"{batches} ({split})",
        pixels=torch.from_numpy(dataset.data).permute(0, 3, 1, 2),
        labels=torch.tensor(dataset.targets),
        classes=list(dataset.classes),
    )


def _open_binary(batches: Path, split: str) -> ArrayRecords:
    records = np.concatenate([_read_binary(batches / name) for name in _BINARY_FILES[split]])
    return ArrayRecords(
        source=f"{batches} ({split})",
        pixels=torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32)),
        labels=torch.from_numpy(records[:, 0].astype(np.int64)),
        classes=_binary_classes(batches / "batches.meta.txt"),
    )


def _read_binary(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise TuckertreeError(f"{path}: cannot be read ({error.strerror}); unpack it again") from error
    if content.size == 0 or content.size % _RECORD:
        raise TuckertreeError(
            f"{path}: truncated ({content.size} bytes, not whole records of {_RECORD}); unpack it again"
        )
    records = content.reshape(-1, _RECORD)
    if records[:, 0].max() > 9:
        row = int(records[:, 0].argmax())
        raise TuckertreeError(
            f"{path}, record {row}: the label {records[row, 0]} is not 0..9; unpack it again"
        )
    return records


def _binary_classes(path: Path) -> list[str] | None:
    return path.read_text().split() if path.is_file() else None

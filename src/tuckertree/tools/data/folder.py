"""Folders of image files: one folder for each class, or one flat folder without labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tuckertree._base.errors import TuckertreeError
from tuckertree._base.reading import check_regular
from tuckertree.tools.data.records import Splits
from tuckertree.tools.data.splits import ALIASES

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
LARGEST_IMAGE = 2**28
"""Bytes of a file: a larger one would fill the memory before Pillow sees that it is no picture."""


@dataclass(frozen=True)
class FolderRecords:
    """Image files, read when they are asked for."""

    source: str
    files: Sequence[Path]
    labels: Tensor | None
    classes: list[str] | None
    mixed: bool = False

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> bytes:
        """Return the bytes of the file of image ``index``."""
        path = self.files[index]
        check_regular(path)
        try:
            if path.stat().st_size > LARGEST_IMAGE:
                raise TuckertreeError(f"{path}: larger than any image; leave it out")
            return path.read_bytes()
        except OSError as error:
            raise TuckertreeError(f"{path}: cannot be read ({error.strerror})") from error

    def where(self, index: int) -> str:
        """Return the path of the file of image ``index``."""
        return str(self.files[index])


def folder_splits(folder: Path) -> Splits:
    """Return the splits of ``root/split/class/*.jpg``, ``root/class/*.jpg`` or ``root/*.jpg``.

    A split folder without class folders holds unlabelled images. Labels are places in the sorted names of
    the classes of all splits together, so that a split which lacks a class has the labels of the others.
    """
    splits = {path.name: path for path in _subfolders(folder) if path.name in ALIASES}
    if not splits:
        return {None: partial(_open_folder, folder, _class_names(folder))}
    classes = sorted({name for path in splits.values() for name in _class_names(path)})
    return {name: partial(_open_folder, path, classes) for name, path in splits.items()}


def _open_folder(folder: Path, classes: list[str]) -> FolderRecords:
    present = set(_class_names(folder))
    if not present:
        return FolderRecords(str(folder), _some(_image_files(folder), folder), labels=None, classes=None)
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if name in present:
            of_class = _image_files(folder / name)
            files += of_class
            labels += [label] * len(of_class)
    return FolderRecords(str(folder), _some(files, folder), torch.tensor(labels), classes)


def _class_names(folder: Path) -> list[str]:
    return [path.name for path in _subfolders(folder)]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _image_files(folder: Path) -> list[Path]:
    """Return the images in the folder and below it, in the order of their paths, without hidden files."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in files if not path.name.startswith("."))


def _some(files: list[Path], folder: Path) -> list[Path]:
    if not files:
        raise TuckertreeError(f"{folder}: no images in it; give a folder of images, or a parquet file")
    return files

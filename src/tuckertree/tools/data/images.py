"""Images and labels by the name of their source."""

import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree._base.extras import require_extra
from tuckertree._base.names import warn_of_namesake
from tuckertree.tools.data.cifar import cifar_splits
from tuckertree.tools.data.folder import folder_splits
from tuckertree.tools.data.hub import HUB, hub_splits
from tuckertree.tools.data.parquet import parquet_file_splits, parquet_folder_splits
from tuckertree.tools.data.preprocessing import Preprocessing
from tuckertree.tools.data.records import Records, Splits
from tuckertree.tools.data.sample import sample_splits
from tuckertree.tools.data.splits import SAMPLE, canonical, choose_split

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded; Pillow knows formats, such as EPS, for which it starts other programs on the file."""
_TO_CALIBRATE = ("train", "val", "test")
"""The first of these that is present: results are measured on test images."""

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageSet(Dataset[tuple[Tensor, int]]):
    """Images as a network takes them, with their labels; decoded when they are asked for.

    Item ``i`` is ``(image, label)``: float32 [3, H, W], preprocessed, and an integer, -1 if there are no
    labels. Made by :func:`open_images`.

    Attributes
    ----------
    source
        Where the images come from, for messages.
    classes
        The names of the classes in the order of the labels, or None if they are not known.
    preprocessing
        What is done to each image.
    """

    def __init__(self, records: Records, preprocessing: Preprocessing, chosen: Sequence[int]) -> None:
        self.source = records.source
        self.classes = records.classes
        self.preprocessing = preprocessing
        self._records = records
        self._chosen = chosen

    @property
    def labelled(self) -> bool:
        """Whether the images have labels."""
        return self._records.labels is not None

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.preprocessing.normalise(self.pixels(index)[None])[0], self.label(index)

    def label(self, index: int) -> int:
        """Return the label of image ``index``, or -1, without decoding the image."""
        labels = self._records.labels
        return -1 if labels is None else int(labels[self._chosen[index]])

    def pixels(self, index: int) -> Tensor:
        """Return image ``index`` as it is before normalisation: uint8 [3, H, W], RGB.

        Raises
        ------
        TuckertreeError
            If the image cannot be decoded, or has a wrong size and is not to be resized. The message names
            the file, and the row.
        """
        number = self._chosen[index]
        record = self._records.read(number)
        try:
            if isinstance(record, Tensor):
                return self.preprocessing.fit_pixels(record)
            return self.preprocessing.fit(decoded(record))
        except TuckertreeError as error:
            raise TuckertreeError(f"{self._records.where(number)}: {error}") from error

    def picture(self, index: int) -> Tensor:
        """Return image ``index`` in the size it is stored in: uint8 [3, h, w], RGB.

        Raises
        ------
        TuckertreeError
            If the image cannot be decoded. The message names the file, and the row.
        """
        number = self._chosen[index]
        record = self._records.read(number)
        if isinstance(record, Tensor):
            return record
        try:
            image = decoded(record)
            return replace(self.preprocessing, size=(image.height, image.width), resize=None).fit(image)
        except TuckertreeError as error:
            raise TuckertreeError(f"{self._records.where(number)}: {error}") from error

    def subset(self, numbers: Sequence[int]) -> "ImageSet":
        """Return some of these images, by their numbers here, as a set of its own."""
        return ImageSet(self._records, self.preprocessing, [self._chosen[number] for number in numbers])


def open_images(
    source: str | Path, preprocessing: Preprocessing, *, split: str | None = None, limit: int | None = None
) -> ImageSet:
    """Open the images of one split of a source.

    Parameters
    ----------
    source
        What is there decides how it is read:

        - the word ``demo``: the packaged sample of CIFAR-10 (splits test and train);
        - a parquet file, or a folder with files ``{split}-*.parquet`` in it or in its folder ``data``, in the
          layout of Hugging Face: a column ``img`` or ``image`` of {bytes, path}, and maybe ``label``,
          ``labels`` or ``fine_label``;
        - a folder that is or holds ``cifar-10-batches-py`` or ``cifar-10-batches-bin``;
        - a folder ``root/{train,val,test}/class/*.jpg`` or ``root/class/*.jpg``, the classes numbered in the
          order of their names;
        - a folder of images, without labels;
        - ``hf:NAME``: a data set of the Hugging Face hub, or a folder of one, read with their package
          ``datasets``, which keeps it in its cache.
    preprocessing
        What the network expects.
    split
        Which split; ``val``, ``valid`` and ``validation`` are one. By default the first that is there of
        test, val and train.
    limit
        At most so many images: the first ones, where the source is in mixed order, and evenly spaced ones
        where it is sorted, as image folders are, and parquet files with ascending labels, of which the first
        n would all be of one class.

    Returns
    -------
    ImageSet
        A data set for torch's DataLoader, with or without worker processes.

    Raises
    ------
    UsageError
        If there is no such split (the message names those there are), or ``limit`` is not positive.
    TuckertreeError
        If the source is missing, holds no images, is damaged, or needs a package that is not installed.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit must be at least 1, not {limit}")
    records = choose_split(_splits(source), split, str(source))()
    return ImageSet(records, preprocessing, _chosen(len(records), limit, mixed=records.mixed))


def open_calibration(
    source: str | Path, preprocessing: Preprocessing, *, limit: int | None = None
) -> ImageSet:
    """Open images to calibrate with: those of the training split, or whatever images there are.

    Parameters as of :func:`open_images`. Labels are not needed, so neither are splits. What is measured later on
    images that took part here is flattered, so a warning says where the training split is missing.

    Raises
    ------
    UsageError, TuckertreeError
        As :func:`open_images`.
    """
    names = list(_splits(source))
    known = [name for name in _TO_CALIBRATE if name in map(canonical, names)]
    split = next(iter([*known, *sorted(filter(None, names))]), None)
    images = open_images(source, preprocessing, split=split, limit=limit)
    if split not in (None, "train"):
        warnings.warn(
            f"{source} has no training images, so those of {split!r} are calibrated with; measure on others",
            stacklevel=2,
        )
    return images


def open_train(source: str | Path, preprocessing: Preprocessing) -> ImageSet:
    """Open images to train with: those of the training split, or what an undivided source holds.

    Never the test or validation split, on which results are measured. Parameters as of :func:`open_images`.

    Raises
    ------
    UsageError, TuckertreeError
        As :func:`open_images`; also if the source is divided and has no training split.
    """
    undivided = list(_splits(source)) == [None]
    return open_images(source, preprocessing, split=None if undivided else "train")


def batches(images: ImageSet, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Go through all images once, in order.

    Parameters
    ----------
    images
        The images.
    batch_size
        How many make a batch; the last may be smaller.

    Returns
    -------
    Iterator of (Tensor, Tensor)
        Images, float32 [N, 3, H, W], and labels, int64 [N], -1 where there are none.

    Raises
    ------
    UsageError
        If ``batch_size`` is not positive.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")
    starts = range(0, len(images), batch_size)
    return (_batch(images, range(start, min(start + batch_size, len(images)))) for start in starts)


def _batch(images: ImageSet, numbers: range) -> tuple[Tensor, Tensor]:
    # Normalising a whole batch is several times faster than normalising image by image.
    pixels = torch.stack([images.pixels(number) for number in numbers])
    labels = torch.tensor([images.label(number) for number in numbers])
    return images.preprocessing.normalise(pixels), labels


def _splits(source: str | Path) -> Splits:
    if source == SAMPLE:
        warn_of_namesake(SAMPLE)
        return sample_splits()
    if str(source).startswith(HUB):
        return hub_splits(str(source))
    path = Path(source)
    if path.is_dir():
        return parquet_folder_splits(path) or cifar_splits(path) or folder_splits(path)
    if not path.exists():
        raise TuckertreeError(f"{path}: no such file or folder; give a path of images, or {SAMPLE!r}")
    if path.suffix != ".parquet":
        raise TuckertreeError(f"{path}: not a parquet file; give one, or a folder of images")
    return parquet_file_splits(path)


def _chosen(available: int, limit: int | None, *, mixed: bool) -> Sequence[int]:
    if limit is None or limit >= available:
        return range(available)
    return range(limit) if mixed else [number * available // limit for number in range(limit)]


def decoded(encoded: bytes) -> "Image":
    """Decode the bytes of an image file.

    Raises
    ------
    TuckertreeError
        If they are not an image, or a damaged one.
    """
    pillow = require_extra("PIL.Image", extra="vision")
    try:
        image: Image = pillow.open(io.BytesIO(encoded), formats=FORMATS)
        image.load()
    # What Pillow raises for damaged files of one format or another; SyntaxError is its "broken PNG".
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, pillow.DecompressionBombError) as error:
        reason = "not an image" if isinstance(error, pillow.UnidentifiedImageError) else str(error)
        raise TuckertreeError(f"damaged image ({reason}); replace it or leave it out") from error
    return image

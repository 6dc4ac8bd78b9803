"""Training images: small ones held in memory on the device, others decoded by worker processes."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tuckertree._base.errors import TuckertreeError
from tuckertree._base.extras import require_extra
from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree.tools.data import ImageSet
from tuckertree.tools.training.augment import cutout, flip_crop
from tuckertree.tools.training.randomness import draw_moves, seed_of, shuffled

UNREADABLE = 0.01
"""Share of the images that may be unreadable; more end the run."""
RESIDENT_BYTES = 2**31
VALIDATION_BATCH = 256

Batches = Callable[[], Iterator[tuple[int | None, Tensor]]]
"""Epoch (None: do not augment) and image numbers of one batch after the other."""


class BatchSource(Protocol):
    """Images that batches are made of."""

    def __len__(self) -> int: ...

    def loader(self, batches: Batches, workers: int) -> object:
        """Something to iterate over once in each epoch."""
        ...

    def prepare(self, batch: object, device: torch.device) -> tuple[Tensor, Tensor]:
        """Turn what the loader gives into images, float32 [N, 3, H, W], and labels, int64 [N]."""
        ...


@dataclass(frozen=True)
class Order:
    """Which images make which batch.

    Attributes
    ----------
    count, batch_size
        Images, and how many of them make a batch, over all devices.
    seed
        The order of an epoch depends on it and on the epoch.
    """

    count: int
    batch_size: int
    seed: int

    @property
    def batches(self) -> int:
        """Batches of an epoch; images that do not fill the last are left out of it."""
        return max(1, self.count // self.batch_size)

    def epoch(self, epoch: int, first: int, rank: int, world: int) -> Iterator[tuple[int, Tensor]]:
        """The share of one process in the batches of an epoch, from batch ``first`` on."""
        order = shuffled(self.count, self.seed, epoch)
        size = min(self.batch_size, self.count) // world * world
        for number in range(first, self.batches):
            yield epoch, order[number * size : (number + 1) * size][rank::world]


def in_order(count: int, rank: int, world: int) -> Iterator[tuple[None, Tensor]]:
    """All images once, in order, for validation; each process takes its share."""
    own = torch.arange(rank, count, world)
    for start in range(0, len(own), VALIDATION_BATCH):
        yield None, own[start : start + VALIDATION_BATCH]


def make_source(
    images: ImageSet, augment: str, seed: int, tick: ProgressCallback = no_progress
) -> BatchSource:
    """Hold images in memory if they are small and all of one size, otherwise decode them as they are needed.

    Raises
    ------
    TuckertreeError
        If more than 1 % of the images (and more than one) cannot be read.
    """
    size = images.preprocessing.size
    small = (
        images.preprocessing.resize in (None, min(size))
        and 3 * size[0] * size[1] * len(images) <= RESIDENT_BYTES
    )
    if small and augment != "imagenet":
        return ResidentImages(images, augment, seed, tick)
    return DecodedImages(images, augment, seed)


class ResidentImages:
    """Images as one tensor of bytes on the device, augmented there, a batch in one pass."""

    def __init__(
        self, images: ImageSet, augment: str, seed: int, tick: ProgressCallback = no_progress
    ) -> None:
        self.preprocessing = images.preprocessing
        self.augment, self.seed = augment, seed
        unreadable = Unreadable(len(images))
        pixels, labels = [], []
        for number in range(len(images)):
            try:
                pixels.append(images.pixels(number))
                labels.append(images.label(number))
            except TuckertreeError as error:
                unreadable.add(str(error))
            if number % 256 == 255:
                tick("reading images", number + 1, len(images))
        self.pixels, self.labels = torch.stack(pixels), torch.tensor(labels)
        self._moves: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def loader(self, batches: Batches, workers: int) -> object:  # noqa: ARG002
        """Iterate over the numbers alone; the images are where they are needed."""
        return _Repeated(batches)

    def prepare(self, batch: Any, device: torch.device) -> tuple[Tensor, Tensor]:
        """Gather, augment and normalise on the device."""
        epoch, numbers = batch
        if self.pixels.device != device:
            self.pixels, self.labels = self.pixels.to(device), self.labels.to(device)
        numbers = numbers.to(device, non_blocking=True)
        pixels = self.pixels[numbers]
        moves = None if epoch is None else self._moves_of(epoch)[numbers]
        return augmented(pixels, moves, self.augment, self.preprocessing.normalise), self.labels[numbers]

    def _moves_of(self, epoch: int) -> Tensor:
        # One table for all images: the numbers of an image do not depend on the batch it comes in.
        if self._moves is None or self._moves[0] != epoch:
            table = draw_moves(len(self), self.preprocessing.size, self.seed, epoch)
            self._moves = epoch, table.to(self.pixels.device)
        return self._moves[1]


class DecodedImages:
    """Images that worker processes read, decode and resize; the rest is done on the device."""

    def __init__(self, images: ImageSet, augment: str, seed: int) -> None:
        self.images, self.augment, self.seed = images, augment, seed
        self._unreadable = Unreadable(len(images))

    def __len__(self) -> int:
        return len(self.images)

    def loader(self, batches: Batches, workers: int) -> Any:
        """A DataLoader whose workers stay from epoch to epoch."""
        return DataLoader(
            _Items(self.images, self.augment, self.seed),
            batch_sampler=_Pairs(batches),
            num_workers=workers,
            generator=torch.Generator(),  # or it would draw from the global one
            collate_fn=collate,
            persistent_workers=workers > 0,
            worker_init_fn=leave_signals,
            pin_memory=torch.cuda.is_available(),
        )

    def prepare(self, batch: Any, device: torch.device) -> tuple[Tensor, Tensor]:
        """Augment and normalise on the device, and tell of images that could not be read."""
        pixels, labels, moves, complaints = batch
        for complaint in complaints:
            self._unreadable.add(complaint)
        pixels, labels = (x.to(device, non_blocking=True) for x in (pixels, labels))
        moves = None if moves is None else moves.to(device, non_blocking=True)
        return augmented(pixels, moves, self.augment, self.images.preprocessing.normalise), labels


def augmented(
    pixels: Tensor, moves: Tensor | None, augment: str, normalise: Callable[[Tensor], Tensor]
) -> Tensor:
    """Normalised images, moved and mirrored where ``augment`` says so; ``moves`` None leaves them alone."""
    moved = moves is not None and augment in ("flip-crop", "cutout")
    images = normalise(flip_crop(pixels, moves) if moved and moves is not None else pixels)
    return cutout(images, moves) if augment == "cutout" and moves is not None else images


class _Repeated:
    """Iterable, once in each epoch, without a length: a resumed epoch is shorter."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[object]:
        return self._batches()


class _Pairs:
    """The same for a DataLoader: an item is asked for by its number and the epoch."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[list[tuple[int, int | None]]]:
        for epoch, numbers in self._batches():
            yield [(number, epoch) for number in numbers.tolist()]


class _Items(Dataset[object]):
    """One decoded image; for one that cannot be read, the next that can, and the complaint."""

    def __init__(self, images: ImageSet, augment: str, seed: int) -> None:
        self.images, self.augment, self.seed = images, augment, seed

    def __getitem__(self, place: tuple[int, int | None]) -> object:
        number, epoch = place
        complaints: list[str] = []
        for offset in range(len(self.images)):
            other = (number + offset) % len(self.images)
            try:
                return self._read(other, epoch), self.images.label(other), self._moves(place), complaints
            except TuckertreeError as error:
                complaints.append(str(error))
                if len(complaints) > _allowed(len(self.images)):
                    break
        raise TuckertreeError(f"{complaints[0]}; {len(complaints)} images in a row cannot be read")

    def _read(self, number: int, epoch: int | None) -> Tensor:
        if epoch is None or self.augment != "imagenet":
            return self.images.pixels(number)
        picture = self.images.picture(number)
        return random_crop(picture, self.images.preprocessing.size, self.seed, epoch, number)

    def _moves(self, place: tuple[int, int | None]) -> Tensor | None:
        number, epoch = place
        if epoch is None:
            return None
        return draw_moves(1, self.images.preprocessing.size, self.seed, epoch, number)[0]


def random_crop(picture: Tensor, size: tuple[int, int], *place: int) -> Tensor:
    """A part of a picture resized to the input, mirrored or not: a function of the place."""
    transforms = require_extra("torchvision.transforms.v2", extra="vision")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("crop", *place))
        crop = transforms.RandomResizedCrop(size, scale=(0.08, 1.0), antialias=True)
        cropped: Tensor = transforms.RandomHorizontalFlip()(crop(picture))
    return cropped


def leave_signals(worker: int) -> None:  # noqa: ARG001
    """Let a worker process go on when the whole group is told to end: the run saves first, and ends it then."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def collate(items: list[object]) -> Any:
    """A batch of items: images, labels, moves and complaints."""
    pixels, labels, moves, complaints = zip(*items, strict=True)
    return (
        torch.stack(pixels),
        torch.tensor(labels),
        None if moves[0] is None else torch.stack(moves),
        [complaint for some in complaints for complaint in some],
    )


class Unreadable:
    """Images that could not be read: each is named once, and too many are an error."""

    def __init__(self, images: int) -> None:
        self._images = images
        self._seen: set[str] = set()

    def add(self, complaint: str) -> None:
        """Tell of one, and end the run where they are too many."""
        if complaint in self._seen:
            return
        self._seen.add(complaint)
        if len(self._seen) > _allowed(self._images):
            raise TuckertreeError(
                f"{complaint}; it is number {len(self._seen)} of {self._images} images that cannot be read, "
                f"more than {UNREADABLE:.0%}"
            )
        warnings.warn(f"left out: {complaint}", stacklevel=2)


def _allowed(images: int) -> int:
    return max(1, int(UNREADABLE * images))

"""Training images from a stream: batches of what comes next, each process and worker from its own shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tuckertree._base.errors import TuckertreeError
from tuckertree.tools.data import ImageStream
from tuckertree.tools.training.randomness import draw_moves
from tuckertree.tools.training.sources import Unreadable, augmented, collate, leave_signals, random_crop


@dataclass(frozen=True)
class Share:
    """What one process is to see of an epoch: of ``world`` processes the one of number ``rank``.

    Attributes
    ----------
    epoch, first, batches
        The epoch, its first batch that has not been seen yet, and its batches in all.
    size
        Images of one batch in this process.
    """

    epoch: int
    first: int
    batches: int
    size: int
    rank: int
    world: int


class StreamedImages:
    """A source without image numbers: an epoch is so many batches of the stream, in a new order each time.

    Every process sees as many batches: one whose shards end early begins with them anew, and what is left of
    the others' is left out. Which worker reads what depends on their number, and so does the order.
    """

    def __init__(self, images: ImageStream, augment: str, seed: int, classes: int) -> None:
        self.images, self.augment, self.seed, self._classes = images, augment, seed, classes
        self._unreadable = Unreadable(len(images))

    def __len__(self) -> int:
        return len(self.images)

    def loader(self, share: Callable[[], Share], workers: int) -> object:
        """Something to iterate over once in each epoch: the batches that are left of it."""
        return _Epochs(self, share, workers)

    def prepare(self, batch: Any, device: torch.device) -> tuple[Tensor, Tensor]:
        """Augment and normalise on the device, and tell of images that could not be read."""
        pixels, labels, moves, complaints = batch
        for complaint in complaints:
            self._unreadable.add(complaint)
        largest = int(labels.max())
        if largest >= self._classes:
            raise TuckertreeError(
                f"{self.images.source}: an image has the label {largest}, the network {self._classes} outputs"
            )
        pixels, moves, labels = (x.to(device, non_blocking=True) for x in (pixels, moves, labels))
        return augmented(pixels, moves, self.augment, self.images.preprocessing.normalise), labels


class _Epochs:
    """Iterable, once in each epoch."""

    def __init__(self, source: StreamedImages, share: Callable[[], Share], workers: int) -> None:
        self._source, self._share, self._workers = source, share, workers

    def __iter__(self) -> Iterator[object]:
        share = self._share()
        images = _Batches(self._source.images, self._source.augment, self._source.seed, share)
        loader = DataLoader(
            images,
            batch_size=None,  # the batches are made in the workers
            num_workers=min(self._workers, images.images.shards(share.rank, share.world)),
            generator=torch.Generator(),  # or it would draw from the global one
            worker_init_fn=leave_signals,
            pin_memory=torch.cuda.is_available(),
        )
        return islice(loader, share.first, share.batches)


class _Batches(IterableDataset[object]):
    """Batches without end; those that a resumed run has seen are passed over undecoded, and are None."""

    def __init__(self, images: ImageStream, augment: str, seed: int, share: Share) -> None:
        self.images, self.augment, self.seed, self.share = images, augment, seed, share

    def __iter__(self) -> Iterator[object]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        rows = enumerate(self._rows())
        for number in count(worker, workers):  # the DataLoader takes from its workers in turn
            taken = list(islice(rows, self.share.size))
            yield None if number < self.share.first else self._batch(taken, worker)

    def _rows(self) -> Iterator[tuple[object, int]]:
        while True:
            row = None
            for row in self.images.encoded(self.seed, self.share.epoch, self.share.rank, self.share.world):
                yield row
            if row is None:
                raise TuckertreeError(
                    f"{self.images.source} has no images for process {self.share.rank + 1} "
                    f"of {self.share.world}; train with fewer devices"
                )

    def _batch(self, taken: list[tuple[int, tuple[object, int]]], worker: int) -> object:
        """Decode a batch; in the place of an image that cannot be read another of the batch is taken again."""
        items: list[object] = []
        complaints: list[str] = []
        for position, (value, label) in taken:
            place = (self.seed, self.share.epoch, self.share.rank, worker, position)
            try:
                pixels = self._read(value, place)
            except TuckertreeError as error:
                complaints.append(str(error))
                continue
            items.append((pixels, label, draw_moves(1, self.images.preprocessing.size, *place)[0], []))
        if not items:
            raise TuckertreeError(f"{complaints[0]}; {len(complaints)} images in a row cannot be read")
        items += [items[i % len(items)] for i in range(len(complaints))]
        pixels, labels, moves, _ = collate(items)
        return pixels, labels, moves, complaints

    def _read(self, value: object, place: tuple[int, ...]) -> Tensor:
        if self.augment == "imagenet":
            return random_crop(self.images.picture(value), self.images.preprocessing.size, *place)
        return self.images.pixels(value)

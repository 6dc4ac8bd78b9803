"""Images divided in parts: drawn evenly over the source, so that one that is sorted by class is no trap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from tuckertree.calibration.batches import batch_size, is_free, join, narrow, same_form
from tuckertree.measure.nested import tensors

MEMORY = 2**30
"""Bytes up to which the images of a part are held, so that they are read and decoded once and not for every network."""
_SEED = 0


class Part:
    """One part of whatever can be iterated again and again in batches.

    Of every few images in a row each part gets its share, which of them is drawn. Where batches cannot be taken apart
    they are dealt out whole.

    Parameters
    ----------
    source
        Batches of inputs, or of inputs and labels.
    shares
        How many of ``sum(shares)`` images in a row each part gets.
    number
        Which part this is.
    size
        Images of a batch that is given; the last may be smaller.
    memory
        Bytes of images that may be held.

    Examples
    --------
    >>> import torch
    >>> from tuckertree.compression.accuracy.parts import Part
    >>> source = [torch.arange(12)[:, None]]
    >>> to_fit, to_try = (list(Part(source, (2, 1), number, size=8)) for number in (0, 1))
    >>> len(to_fit[0]), len(to_try[0]), torch.cat([to_fit[0], to_try[0]]).flatten().sort().values.tolist()
    (8, 4, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    """

    def __init__(
        self, source: Iterable[Any], shares: Sequence[int], number: int, size: int, memory: int = MEMORY
    ) -> None:
        self._source, self._number, self._size, self._memory = source, number, size, memory
        self._dealt = torch.tensor([part for part, share in enumerate(shares) for _ in range(share)])
        self._batches: list[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        if self._batches is not None:
            yield from self._batches
            return
        batches, left = list[Any](), self._memory
        for batch in self._read():
            left -= sum(x.numel() * x.element_size() for x in tensors(batch))
            if left >= 0:
                batches.append(batch)
            else:
                batches.clear()
            yield batch
        if left >= 0:
            self._batches = batches

    def _read(self) -> Iterator[Any]:
        places, held = self._places(), list[Any]()
        for batch in self._source:
            if not is_free(batch):
                if next(places) == self._number:
                    yield batch
                continue
            chosen = [row for row in range(batch_size(batch)) if next(places) == self._number]
            rows = [narrow(batch, row, 1) for row in chosen]
            if held and rows and not same_form(held[0], rows[0]):
                yield join(held)
                held = []
            held += rows
            while len(held) >= self._size:
                yield join(held[: self._size])
                held = held[self._size :]
        if held:
            yield join(held)

    def _places(self) -> Iterator[int]:
        """The part of one image after the other."""
        generator = torch.Generator().manual_seed(_SEED)
        while True:
            order = torch.randperm(len(self._dealt), generator=generator)
            yield from self._dealt[order].tolist()

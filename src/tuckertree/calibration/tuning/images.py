"""The images that a network is tuned on: some to learn from, the last ones held out, moved a little where that is safe."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuckertree.calibration.batches import batch_size, is_free, join, narrow, same_form
from tuckertree.calibration.sources import Calibration, to_model
from tuckertree.measure import ExampleInputs, count_macs
from tuckertree.measure.nested import leaves

BATCH = 64
_LARGE_BATCH = 16
_LARGE = 3 * 64 * 64
"""Numbers of an input above which a batch is smaller."""
_MUCH_WORK = 5 * 10**8
"""Multiply-accumulates for an image, the same: a step of more than 64 of them takes seconds on a CPU."""
HELD_OUT = 5
"""One in so many images is held out, the last ones."""
_SHIFT = 8
"""Images are moved by at most this part of their size."""


class TuningImages:
    """Unlabelled images in batches, all held in memory.

    Attributes
    ----------
    size
        Images of a step.
    at_once
        Images of a batch: fewer where they cannot be put together, as where a file prescribes their number.
    learned
        Those that the network learns from, in their order.
    held
        The last fifth, at least a batch where there are four of them.
    """

    def __init__(self, images: Calibration, size: int) -> None:
        self.size = size
        given = list(images.in_batches(self.size))
        self._joined = all(is_free(each) and same_form(given[0], each) for each in given)
        if self._joined:
            given = [narrow(batch, place, 1) for batch in given for place in range(batch_size(batch))]
        largest = max(map(batch_size, given))
        self._count = max(self.size // largest, 1)
        least = min(self._count, len(given) // 4)
        left = len(given) - max(len(given) // HELD_OUT, least, 1)
        self._given, held = given[:left], given[left:]
        self.at_once = min(self.size, left) if self._joined else largest
        self.learned, self.held = (
            Calibration(self._in_batches(part), self.size, images.example) for part in (self._given, held)
        )

    def __len__(self) -> int:
        """Number of images to learn from; none where there is but one."""
        return sum(map(batch_size, self._given))

    def _in_batches(self, parts: list[ExampleInputs]) -> list[ExampleInputs]:
        if not self._joined:
            return parts
        return [join(parts[start : start + self.size]) for start in range(0, len(parts), self.size)]

    @property
    def first(self) -> ExampleInputs:
        """A batch, as it is."""
        return next(iter(self.held))

    def steps(self, generator: torch.Generator, *, moved: bool) -> Iterator[list[ExampleInputs]]:
        """Batches of each step, without end; each time through the images the order is another."""
        count = min(self._count, len(self._given))
        while True:
            order = torch.randperm(len(self._given), generator=generator).tolist()
            for start in range(0, len(order) - count + 1, count):
                chosen = [self._given[number] for number in order[start : start + count]]
                batches = [join(chosen)] if self._joined else chosen
                yield [
                    flip_and_shift(x, generator) if moved and isinstance(x, Tensor) else x for x in batches
                ]


def usual_size(model: nn.Module, images: Calibration) -> int:
    """Images of a step: 64, and 16 of those that are large or much work for the model."""
    few = to_model(next(iter(images.in_batches(2))), model)
    count = max(batch_size(few), 1)
    numbers = sum(x.numel() for x in leaves(few) if isinstance(x, Tensor))
    light = numbers <= count * _LARGE and count_macs(model, few) <= count * _MUCH_WORK
    return BATCH if light else _LARGE_BATCH


def can_move(batch: ExampleInputs, outputs: list[Tensor]) -> bool:
    """Whether images may be mirrored and shifted: colour images of a network that classifies."""
    return (
        isinstance(batch, Tensor)
        and batch.is_floating_point()
        and batch.ndim == 4
        and batch.shape[1] == 3
        and [y.ndim for y in outputs] == [2]
    )


def flip_and_shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images ``[N, C, H, W]`` and move each by up to an eighth; what comes in is mirrored."""
    number, _, height, width = images.shape
    reach = (height // _SHIFT, width // _SHIFT)
    padded = functional.pad(images, (reach[1], reach[1], reach[0], reach[0]), mode="reflect")

    def drawn(count: int) -> Tensor:
        return torch.randint(count, (number, 1), generator=generator)

    rows = torch.arange(height) + drawn(2 * reach[0] + 1)
    columns = torch.arange(width) + drawn(2 * reach[1] + 1)
    columns = torch.where(drawn(2) == 1, columns.flip(1), columns)
    image = torch.arange(number)[:, None, None]
    return (
        padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]
        .permute(0, 3, 1, 2)
        .contiguous()
    )

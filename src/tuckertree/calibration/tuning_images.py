"""The images that a network is tuned on: some to learn from, the last ones held out, moved a little where that is safe."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from tuckertree.calibration.batches import Batch, Samples, batch_size, join, narrow, same_form
from tuckertree.calibration.sources import Calibration
from tuckertree.measure import ExampleInputs
from tuckertree.measure.nested import leaves

BATCH = 64
_LARGE_BATCH = 16
_LARGE = 3 * 64 * 64
"""Numbers of an input from which on a batch is smaller."""
HELD_OUT = 5
"""One in so many images is held out, the last ones."""
_SHIFT = 8
"""Images are moved by at most this part of their size."""


class TuningImages:
    """Unlabelled images in batches, all held in memory.

    Attributes
    ----------
    size
        Of a batch.
    held
        The last fifth, at least a batch where there are four of them.
    """

    def __init__(self, images: Calibration, size: int | None) -> None:
        first = next(iter(images))
        self.size = size or _usual_size(first)
        given = [first] if len(images) == batch_size(first) else list(images.in_batches(self.size))
        whole = [part for batch in given for part in _parts(batch, self.size)]
        units = [one for batch in whole for one in _parts(batch, 1)]
        joined = len(units) > len(whole) and all(same_form(units[0], one) for one in units)
        if not joined:
            units = whole
        least = min(self.size, len(units) // 4) if joined else 1
        count = max(len(units) // HELD_OUT, least, 1)
        self._units, held = units[: len(units) - count], units[len(units) - count :]
        self._joined = joined
        self.held = Calibration(held, self.size, images.example)
        if joined:
            batches = [join(held[start : start + self.size]) for start in range(0, len(held), self.size)]
            self.held = Calibration(batches, self.size, images.example)

    def __len__(self) -> int:
        """Number of images to learn from; none where there is but one."""
        return sum(map(batch_size, self._units))

    @property
    def first(self) -> ExampleInputs:
        """A batch, as it is."""
        return next(iter(self.held))

    def batches(self, generator: torch.Generator, *, moved: bool) -> Iterator[ExampleInputs]:
        """Go through the images without end, each time in another order."""
        size = min(self.size, len(self._units)) if self._joined else 1
        while True:
            order = torch.randperm(len(self._units), generator=generator).tolist()
            for start in range(0, len(order) - size + 1, size):
                chosen = [self._units[number] for number in order[start : start + size]]
                batch = join(chosen) if self._joined else chosen[0]
                yield flip_and_shift(batch, generator) if moved and isinstance(batch, Tensor) else batch


def _usual_size(first: ExampleInputs) -> int:
    each = sum(x.numel() for x in leaves(first) if isinstance(x, Tensor)) / max(batch_size(first), 1)
    return BATCH if each <= _LARGE else _LARGE_BATCH


def _parts(batch: ExampleInputs, size: int) -> list[ExampleInputs]:
    """A batch in parts; whole where it knows by itself how it is divided."""
    count = batch_size(batch)
    if isinstance(batch, Batch) or any(isinstance(x, Samples) for x in leaves(batch)):
        return [batch]
    return [narrow(batch, start, min(size, count - start)) for start in range(0, count, size)]


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

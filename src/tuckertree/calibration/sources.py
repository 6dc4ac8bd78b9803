"""Calibration images: whatever holds them, iterated as often as needed, their labels dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import ceil
from typing import Any, NamedTuple
from warnings import warn

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from tuckertree._base.errors import TuckertreeError, UsageError, first_line
from tuckertree._base.names import refuse_name_of_images
from tuckertree.calibration.batches import (
    as_inputs,
    batch_size,
    divided,
    is_single,
    join,
    narrow,
    same_form,
)
from tuckertree.measure import ExampleInputs
from tuckertree.measure.nested import each_leaf, results

CalibrationData = Tensor | np.ndarray[Any, Any] | Iterable[object] | Dataset[object]
"""A tensor ``[images, ...]``, a data set, or batches: a list, a DataLoader, whatever iterates twice."""

UNREADABLE = 0.1
"""At most this share of the images of a data set may be unreadable."""


class CalibrationWarning(UserWarning):
    """The calibration images are fewer than one would like, or something is left out of the calibration."""


class Calibration:
    """Calibration images in batches of at most ``batch_size``; never their labels.

    Attributes
    ----------
    source
        A tensor or array ``[images, ...]``; a torch data set; or an iterable of batches or of single images. Each of
        them is a tensor or array, a tuple of positional inputs, or a mapping of keyword inputs.
    batch_size
        Larger batches are divided, single images are put together.
    example
        Inputs of the model. What a batch has beside them, in its end or under other names, are labels and is
        dropped; without an example only integer labels in a pair are known as such.

    Raises
    ------
    UsageError
        If the source can be iterated only once, or is of no use as one.
    """

    def __init__(
        self,
        source: CalibrationData | Calibration,
        batch_size: int = 64,
        example: ExampleInputs | None = None,
    ) -> None:
        self.source: Tensor | Iterable[object]
        self.batch_size, self.example = batch_size, example
        self._count: int | None = None
        if isinstance(source, Calibration):
            vars(self).update(vars(source))
            return
        refuse_name_of_images(source)
        if isinstance(source, np.ndarray):
            source = torch.from_numpy(np.array(source, order="C"))
        if isinstance(source, Tensor) and source.ndim < 2:
            raise UsageError(f"calibration images are [images, ...]; this tensor is {list(source.shape)}")
        if isinstance(source, Iterator):
            raise UsageError(
                "the calibration source can be iterated only once; give a list of batches, a DataLoader "
                "or a tensor"
            )
        if isinstance(source, IterableDataset):
            source = DataLoader(source, batch_size=batch_size)
        elif isinstance(source, Dataset):
            source = DataLoader(_Readable(source), batch_size=batch_size, collate_fn=_collate)
        if not isinstance(source, Iterable):
            raise UsageError(f"calibration images cannot come from a {type(source).__name__}")
        if isinstance(source, Tensor) and is_single(source, example):
            source = source[None]
        self.source = source
        if isinstance(source, Tensor):
            self._count = len(source)

    def in_batches(self, size: int) -> Calibration:
        """The same images in batches of at most another size."""
        other = Calibration(self)
        other.batch_size = size
        return other

    def __iter__(self) -> Iterator[ExampleInputs]:
        """Go through all images once.

        Raises
        ------
        TuckertreeError
            If there are none, fewer than the time before, or too many that cannot be read.

        Warns
        -----
        CalibrationWarning
            If some cannot be read.
        """
        seen = 0
        for inputs in self.whole():
            size = batch_size(inputs)
            for start in range(0, size, self.batch_size):
                yield narrow(inputs, start, min(self.batch_size, size - start))
            seen += size
        if not seen:
            raise TuckertreeError("there are no calibration images")
        if self._count is not None and seen < self._count:
            raise TuckertreeError(
                f"the calibration source ended after {seen} images; it gave {self._count} the first time"
            )
        self._count = seen

    def __len__(self) -> int:
        """Number of images."""
        if self._count is None:
            for _ in self:
                pass
        assert self._count is not None
        return self._count

    @property
    def batches(self) -> int:
        """Number of batches of the last time, 0 if it is not known: for progress bars."""
        return -(-(self._count or 0) // self.batch_size)

    def part(self, start: int, stop: int) -> Iterator[ExampleInputs]:
        """Go through the images ``start`` to ``stop - 1`` alone, in batches."""
        first = 0
        for inputs in self:
            size = batch_size(inputs)
            begin, end = max(start - first, 0), min(stop - first, size)
            if begin < end:
                yield narrow(inputs, begin, end - begin)
            first += size

    def parts(self, size: int | None, *, start: int = 0, cuts: Sequence[int] = ()) -> Iterator[Part]:
        """Go through the images from ``start`` on in parts of batches, none across the images ``cuts``."""
        for inputs in self.part(start, len(self)):
            for number, some in enumerate(divided(inputs, size, [cut - start for cut in cuts])):
                count = batch_size(some)
                yield Part(some, (start, count), number > 0)
                start += count

    def whole(self) -> Iterator[ExampleInputs]:
        """Inputs as the source has them; single images of one form are put together."""
        held: list[ExampleInputs] = []
        for batch in self._given():
            inputs = as_inputs(batch, self.example)
            single = is_single(batch, self.example)
            if held and (not single or len(held) == self.batch_size or not same_form(held[0], inputs)):
                yield join(held)
                held = []
            if single:
                held.append(inputs)
            else:
                yield inputs
        if held:
            yield join(held)

    def _given(self) -> Iterator[object]:
        """What the source gives; what goes wrong in it is said in one line."""
        if isinstance(self.source, Tensor):
            yield self.source
            return
        readable = self.source.dataset if isinstance(self.source, DataLoader) else None
        iterator = iter(self.source)
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                break
            except TuckertreeError:
                raise
            except Exception as error:
                raise TuckertreeError(f"the calibration source fails: {first_line(error)}") from error
            if isinstance(readable, _Readable):
                readable.check()
            if batch is not None:
                yield batch
        if isinstance(readable, _Readable):
            readable.warn()


class Part(NamedTuple):
    """Some images of a batch.

    Attributes
    ----------
    inputs
        The images.
    place
        Number of the first of them, and how many they are.
    continues
        Whether the same batch has images before them.
    """

    inputs: ExampleInputs
    place: tuple[int, int]
    continues: bool


class _Readable(Dataset[object]):
    """A data set in which None stands for what cannot be read."""

    def __init__(self, images: Dataset[object]) -> None:
        self._images, self._errors, self._warned = images, dict[int, str](), False

    def __len__(self) -> int:
        return len(self._images)  # type: ignore[arg-type]

    def __getitem__(self, number: int) -> object:
        try:
            return self._images[number]
        except Exception as error:  # whatever its reader raises
            self._errors[number] = first_line(error)
            return None

    def check(self) -> None:
        """Refuse a data set of which too much cannot be read."""
        if len(self._errors) > ceil(UNREADABLE * len(self)) or len(self._errors) == len(self):
            raise TuckertreeError(f"{self._said()}; at most {UNREADABLE:.0%} of them may be left out")

    def warn(self) -> None:
        """Say once what was left out."""
        if self._errors and not self._warned:
            self._warned = True
            warn(f"{self._said()}; left out", CalibrationWarning, stacklevel=2)

    def _said(self) -> str:
        first = self._errors[min(self._errors)]
        return f"{len(self._errors)} of {len(self)} calibration images cannot be read: {first}"


def _collate(items: list[object]) -> object:
    read = [item for item in items if item is not None]
    if not read:
        return None
    try:
        return default_collate(read)
    except (RuntimeError, TypeError):  # images of several sizes, which detectors take as a list
        return tuple(zip(*read, strict=True)) if all(isinstance(item, tuple) for item in read) else read


def to_model(inputs: ExampleInputs, model: nn.Module) -> ExampleInputs:
    """Inputs on the device of a model's first floating-point parameter; floating ones in its type."""
    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    if like is None:
        return inputs

    def move(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        return value.to(like.device, like.dtype if value.is_floating_point() else value.dtype)

    return each_leaf(inputs, move)


def floating_outputs(output: object) -> list[Tensor]:
    """All floating-point tensors in what a model returns, in their order, however they are nested."""
    return [x for x in results(output) if isinstance(x, Tensor) and x.is_floating_point()]

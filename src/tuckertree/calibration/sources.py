"""Calibration images: whatever holds them, gone through again and again, their labels dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tuckertree.errors import TuckertreeError, UsageError
from tuckertree.measure import ExampleInputs

Source = Tensor | Iterable[Any] | Dataset[Any]
"""A tensor ``[images, ...]``, a data set, or batches: a list, a DataLoader, whatever iterates twice."""


class Calibration:
    """Calibration images in batches of at most ``batch_size``; never their labels.

    Attributes
    ----------
    source
        A tensor ``[images, ...]``; a torch data set; or an iterable of batches, each a tensor, a pair of
        inputs and integer labels (dropped), a tuple of positional or a mapping of keyword arguments.
    batch_size
        Larger batches are divided.

    Raises
    ------
    UsageError
        If the source can be gone through only once, or is of no use as one.
    """

    def __init__(self, source: Source | Calibration, batch_size: int = 64) -> None:
        self.source: Tensor | Iterable[Any]
        self.batch_size: int
        self._count: int | None = None
        if isinstance(source, Calibration):
            self.source, self.batch_size, self._count = source.source, source.batch_size, source._count
            return
        if isinstance(source, Tensor) and source.ndim < 2:
            raise UsageError(f"calibration images are [images, ...]; this tensor is {list(source.shape)}")
        if isinstance(source, Iterator):
            raise UsageError(
                "the calibration source can be gone through only once; give a list of batches, a DataLoader "
                "or a tensor"
            )
        if isinstance(source, Dataset):
            source = DataLoader(source, batch_size=batch_size)
        if not isinstance(source, Iterable):
            raise UsageError(f"calibration images cannot come from a {type(source).__name__}")
        self.source, self.batch_size = source, batch_size
        if isinstance(source, Tensor):
            self._count = len(source)

    def __iter__(self) -> Iterator[ExampleInputs]:
        """Go through all images once.

        Raises
        ------
        TuckertreeError
            If there are none, or fewer than the time before.
        """
        seen = 0
        for batch in self._whole_batches():
            inputs = _without_labels(batch)
            size = self._size(inputs)
            for start in range(0, size, self.batch_size):
                yield self._cut(inputs, start, min(self.batch_size, size - start))
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
            size = self._size(inputs)
            begin, end = max(start - first, 0), min(stop - first, size)
            if begin < end:
                yield self._cut(inputs, begin, end - begin)
            first += size

    def _size(self, inputs: ExampleInputs) -> int:
        """Number of images in a batch."""
        return batch_size(inputs)

    def _cut(self, inputs: ExampleInputs, start: int, length: int) -> ExampleInputs:
        """So many images of a batch."""
        return _narrow(inputs, start, length)

    def _whole_batches(self) -> Iterator[Any]:
        return iter([self.source] if isinstance(self.source, Tensor) else self.source)


def to_model(inputs: ExampleInputs, model: nn.Module) -> ExampleInputs:
    """Inputs on the device of a model's first parameter; floating ones in its type."""
    like = next(model.parameters(), None)
    if like is None:
        return inputs

    def move(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(like.device, like.dtype if value.is_floating_point() else value.dtype)

    return each_tensor(inputs, move)


def floating_outputs(output: Any) -> list[Tensor]:
    """All floating-point tensors in what a model returns, in their order."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    parts = (
        output.values() if isinstance(output, Mapping) else output if isinstance(output, list | tuple) else ()
    )
    return [tensor for part in parts for tensor in floating_outputs(part)]


def _without_labels(batch: Any) -> ExampleInputs:
    if isinstance(batch, Tensor | Mapping):
        return batch
    if not isinstance(batch, list | tuple) or not batch or not isinstance(batch[0], Tensor):
        raise TuckertreeError(
            f"a calibration batch is a tensor, (images, labels) or a mapping, not {type(batch).__name__}"
        )
    is_pair = len(batch) == 2 and isinstance(batch[1], Tensor) and not batch[1].is_floating_point()
    return batch[0] if len(batch) == 1 or (is_pair and batch[1].ndim <= 1) else batch


def _tensors(inputs: ExampleInputs) -> list[Tensor]:
    if isinstance(inputs, Tensor):
        return [inputs]
    values = inputs.values() if isinstance(inputs, Mapping) else inputs
    return [value for value in values if isinstance(value, Tensor) and value.ndim]


def batch_size(inputs: ExampleInputs) -> int:
    """Number of images in a batch."""
    tensors = _tensors(inputs)
    if not tensors or any(len(tensor) != len(tensors[0]) for tensor in tensors):
        raise TuckertreeError("the tensors of a calibration batch must share their first size, the images")
    return len(tensors[0])


def _narrow(inputs: ExampleInputs, start: int, length: int) -> ExampleInputs:
    def narrow(value: Any) -> Any:
        return value.narrow(0, start, length) if isinstance(value, Tensor) and value.ndim else value

    return each_tensor(inputs, narrow)


def each_tensor(inputs: ExampleInputs, change: Any) -> ExampleInputs:
    """Inputs of the same form with every value changed."""
    if isinstance(inputs, Tensor):
        return torch.as_tensor(change(inputs))
    if isinstance(inputs, Mapping):
        return {key: change(value) for key, value in inputs.items()}
    return tuple(change(value) for value in inputs)

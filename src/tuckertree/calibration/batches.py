"""Batches in the form that a model takes: labels dropped, arrays made tensors, single images made batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from math import ceil
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from tuckertree._base.errors import TuckertreeError
from tuckertree.measure import ExampleInputs
from tuckertree.measure.forward import describe
from tuckertree.measure.nested import each_leaf, tensors

_TAKEN = (
    "a calibration batch is a tensor or an array [images, ...], a tuple of the model's positional inputs, "
    "labels last, or a mapping of its keyword inputs"
)


class Batch(Mapping[str, Tensor]):
    """Inputs that know by themselves along which axes their samples lie."""

    @property
    @abstractmethod
    def samples(self) -> int:
        """Number of samples."""

    @property
    @abstractmethod
    def is_free(self) -> bool:
        """Whether samples of several batches can be put together: they lie along the first axis of every input."""

    @abstractmethod
    def narrow(self, start: int, length: int) -> Batch:
        """Samples ``start`` to ``start + length - 1``.

        Raises
        ------
        TuckertreeError
            If they cannot be taken apart.
        """


class Samples(list[object]):
    """A list of images, each a tensor or a mapping of its own, that a model takes in the place of a batch."""


def as_inputs(batch: object, example: ExampleInputs | None = None) -> ExampleInputs:
    """What of a batch goes into the model.

    Parameters
    ----------
    batch
        What a source gave.
    example
        Inputs of the model: of a batch as much is taken as there is in them, the rest are labels. Without it the
        labels are what is integer and one for each image, in a pair.

    Raises
    ------
    TuckertreeError
        If nothing in the batch can be inputs; the message says what can.
    """
    if isinstance(batch, Batch):
        return batch
    batch = each_leaf(batch, _as_tensor)
    if isinstance(example, Mapping):
        if _is_list(batch) and batch and isinstance(batch[0], Mapping):
            batch = batch[0]
        if isinstance(batch, Mapping):
            inputs: ExampleInputs = _like(batch, example)
            return inputs
    wanted = () if isinstance(example, Mapping | None) else _arguments(example)
    if isinstance(batch, Mapping) and not (wanted and isinstance(wanted[0], Mapping)):
        return batch
    if not wanted:
        return _without_labels(batch)
    parts = _positional(batch, wanted)
    if isinstance(parts, Mapping):
        return parts
    found = tuple(map(_like, parts, wanted))
    return found[0] if len(found) == 1 and isinstance(found[0], Tensor) else found


def is_single(batch: object, example: object) -> bool:
    """Whether what a source gave is one image, without the axis of the batch that the example has."""
    if example is None:
        return False
    batch = batch[0] if isinstance(batch, tuple) and batch else batch
    if isinstance(batch, Mapping) and _is_list(example) and example:
        example = example[0]
    if isinstance(batch, Mapping) and isinstance(example, Mapping):
        key = next((key for key in example if key in batch), None)
        batch, example = batch.get(key), example.get(key)
    theirs = next(iter(tensors(example)), None)
    return (
        theirs is not None
        and isinstance(batch, Tensor | np.ndarray)
        and isinstance(example, Tensor | list | tuple)
        and batch.ndim == theirs.ndim - 1
    )


def join(batches: Sequence[ExampleInputs]) -> ExampleInputs:
    """Batches of the same form as one."""
    first = batches[0]
    columns = [iter(tensors(batch)) for batch in batches]

    def joined(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        parts = [next(column) for column in columns]
        return torch.cat(parts) if value.ndim else value

    return each_leaf(first, joined)


def same_form(one: ExampleInputs, other: ExampleInputs) -> bool:
    """Whether the tensors of two batches differ in nothing but the number of images."""
    shapes = [[(x.shape[1:], x.dtype) for x in tensors(batch)] for batch in (one, other)]
    return shapes[0] == shapes[1]


def batch_size(inputs: ExampleInputs) -> int:
    """Number of images in a batch.

    Raises
    ------
    TuckertreeError
        If there are no tensors in it, or they differ in it.
    """
    if isinstance(inputs, Batch):
        return inputs.samples
    sizes: list[int] = []

    def look(value: object) -> object:
        if isinstance(value, Samples) or (isinstance(value, Tensor) and value.ndim):
            sizes.append(len(value))
        return value

    each_leaf(inputs, look, whole=(Samples,))
    if not sizes or len(set(sizes)) > 1:
        found = f"; they are {', '.join(map(str, sizes))}" if sizes else ""
        raise TuckertreeError(
            f"the tensors of a calibration batch must share their first size, the images{found}"
        )
    return sizes[0]


def divided(inputs: ExampleInputs, size: int | None, cuts: Collection[int] = ()) -> list[ExampleInputs]:
    """A batch in parts of at most so many images, each of which may begin at an image of ``cuts`` but not go across.

    It stays whole without a size, and unless its images surely lie along the first axis of every input.
    """
    if size is None or not (isinstance(inputs, Tensor) or (isinstance(inputs, Batch) and inputs.is_free)):
        return [inputs]
    count = batch_size(inputs)
    inner = {cut for cut in cuts if 0 < cut < count}
    if count <= size and not inner:
        return [inputs]
    size = ceil(count / ceil(count / size))
    ends = sorted({*range(size, count, size), count} | inner)
    return [narrow(inputs, start, end - start) for start, end in pairwise([0, *ends])]


def narrow(inputs: ExampleInputs, start: int, length: int) -> ExampleInputs:
    """Images ``start`` to ``start + length - 1`` of a batch."""
    if isinstance(inputs, Batch):
        return inputs.narrow(start, length)

    def cut(value: object) -> object:
        if isinstance(value, Samples):
            return Samples(value[start : start + length])
        return value[start : start + length] if isinstance(value, Tensor) and value.ndim else value

    return each_leaf(inputs, cut, whole=(Samples,))


def is_free(batch: ExampleInputs) -> bool:
    """Whether a batch can be taken apart, and put together with others."""
    return batch.is_free if isinstance(batch, Batch) else not _holds_samples(batch)


def _holds_samples(value: object) -> bool:
    """Whether some of a batch is a list of images, each of its own size."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return isinstance(value, Samples) or any(map(_holds_samples, parts))


def _as_tensor(value: object) -> object:
    """Arrays as tensors, all else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    try:
        return torch.from_numpy(np.array(value, order="C"))
    except TypeError as error:
        raise TuckertreeError(f"a calibration array of {value.dtype} is of no type that torch has") from error


def _arguments(example: ExampleInputs) -> tuple[object, ...]:
    return (example,) if isinstance(example, Tensor) else tuple(example)


def _positional(batch: object, wanted: Sequence[object]) -> Any:
    """The parts of a batch that are positional inputs, or a mapping of keyword inputs."""
    first = wanted[0]
    if isinstance(batch, Tensor) or (isinstance(batch, Mapping) and isinstance(first, Mapping)):
        return (batch,)
    if not _is_list(batch) or not batch:
        if len(wanted) == 1 and type(batch) is type(first) and tensors(batch):
            return (batch,)
        raise TuckertreeError(f"{_TAKEN}; not {type(batch).__name__}")
    if isinstance(first, Tensor):
        if isinstance(batch, list) and len(wanted) == 1 and _are_images(batch, first):
            return (batch,)
        if isinstance(batch[0], Mapping):
            return batch[0]
        if _is_list(batch[0]) and not _are_images(batch[0], first):
            batch = batch[0]  # (inputs, labels)
    elif len(wanted) == 1 and _is_list(first) and _are_samples(batch, first):
        return (batch,)
    if not tensors(batch[0]):
        raise TuckertreeError(f"{_TAKEN}; not {type(batch).__name__} of {type(batch[0]).__name__}")
    return tuple(batch[: len(wanted)])


def _like(value: object, example: object) -> Any:
    """One input in the form it has in the example."""
    if isinstance(example, Mapping) and isinstance(value, Mapping):
        known = {key: _like(part, example[key]) for key, part in value.items() if key in example}
        if not known:
            raise TuckertreeError(
                f"a calibration batch holds {', '.join(map(str, value))}; the model takes {', '.join(map(str, example))}"
            )
        return known
    if isinstance(example, Tensor):
        if isinstance(value, Tensor) and value.ndim == example.ndim - 1:
            return value[None]
        if _is_list(value) and _are_images(value, example):
            sizes = {tuple(image.shape) for image in value}
            if len(sizes) > 1:
                shown = " and ".join(str(list(size)) for size in sorted(sizes)[:2])
                raise TuckertreeError(f"the images of a calibration batch must be of one size, not {shown}")
            return torch.stack(list(value))
        if isinstance(value, Tensor) and value.ndim != example.ndim:
            raise TuckertreeError(
                f"a calibration batch is {describe(value)}, the example input is {describe(example)}"
            )
    if _is_list(example) and isinstance(value, Tensor):
        if _are_samples([value], example):
            return Samples([value])
        return Samples(value) if value.ndim and _are_samples(value[:1], example) else value
    if _is_list(value) and _is_list(example) and _are_samples(value, example):
        return Samples(value)
    return value


def _are_samples(values: Any, example: Any) -> bool:
    """Whether these are images, each of its own size, such as the example holds."""
    if not len(values) or not len(example):
        return False
    if isinstance(example[0], Mapping):
        return all(isinstance(value, Mapping) for value in values)
    if not (_are_tensors(values) and _are_tensors(example)):
        return False
    images = all(value.ndim == 3 and value.shape[0] == example[0].shape[0] for value in values)
    # As many tensors as in the example may also be several inputs, each of a whole batch.
    return images or (len(values) != len(example) and all(value.ndim == example[0].ndim for value in values))


def _is_list(value: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    return isinstance(value, list | tuple)


def _are_tensors(values: Any) -> bool:
    return len(values) > 0 and all(isinstance(value, Tensor) and value.ndim for value in values)


def _are_images(values: Any, example: Tensor) -> bool:
    """Whether these are images without the axis of the batch."""
    return _are_tensors(values) and all(value.ndim == example.ndim - 1 for value in values)


def _without_labels(batch: object) -> ExampleInputs:
    if isinstance(batch, Tensor):
        return batch
    if not _is_list(batch) or not batch or not tensors(batch[0]):
        raise TuckertreeError(f"{_TAKEN}; not {type(batch).__name__}")
    is_pair = len(batch) == 2 and isinstance(batch[1], Tensor) and not batch[1].is_floating_point()
    dropped = is_pair and batch[1].ndim <= 1
    parts = batch[:1] if dropped else batch
    return parts[0] if len(parts) == 1 and isinstance(parts[0], Tensor) else tuple(parts)

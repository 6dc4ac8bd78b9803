"""The inputs of a model: their sizes, which axis is the batch, and examples of them.

A symbol that stands for an open size has one value in the whole model. The batch is the first axis of the first
input that has axes, and every other axis with its symbol; where that axis has none, the first axes that have none
either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree._base.extras import require_extra
from tuckertree.network.onnx.graph import Graph

if TYPE_CHECKING:
    from onnx import ValueInfoProto

Array = np.ndarray[Any, Any]
Feed = dict[str, Array]
Sizes = Sequence[int] | Mapping[str, Sequence[int]] | None
"""Size of the one input that leaves it open, or sizes by the names of inputs, without the batch."""
Values = Mapping[str, Array | tuple[float, float]] | None
"""Values of inputs by name, or the least and largest of random ones; '' is the only input."""

_MADE_UP = re.compile(r".*_dynamic_axes_\d+|unk__\d+|p2o\.DynamicDimension\.\d+")
"""Symbols that exporters give to each open axis, whether or not it is the same as another."""


def dims_of(value: ValueInfoProto) -> list[int | str | None]:
    """Sizes of a value: a number, a symbol, or None for an open one that has no name."""

    def size(dim: Any) -> int | str | None:
        if dim.dim_value > 0:
            return int(dim.dim_value)
        return dim.dim_param if dim.dim_param and not _MADE_UP.fullmatch(dim.dim_param) else None

    return [size(dim) for dim in value.type.tensor_type.shape.dim]


def required_inputs(graph: Graph) -> dict[str, ValueInfoProto]:
    """Inputs that a caller must give, by name."""
    names = {*graph.inputs}
    return {value.name: value for value in graph.proto.graph.input if value.name in names}


def batch_axes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Axes of each input that are the batch."""
    inputs = required_inputs(graph)
    dims = {name: dims_of(value) for name, value in inputs.items()}
    batch = _first_axis(graph)
    axes = {
        name: tuple(a for a, size in enumerate(sizes) if size == batch and (a == 0 or isinstance(batch, str)))
        for name, sizes in dims.items()
    }
    # A value whose number of axes the file does not say has the batch in front.
    return {name: axes[name] if _has_shape(value) else (0,) for name, value in inputs.items()}


def fixed_batch(graph: Graph) -> int | None:
    """Batch size that the file prescribes for its first input, or None."""
    batch = _first_axis(graph)
    return batch if isinstance(batch, int) else None


def _first_axis(graph: Graph) -> int | str | None:
    """Size of the first axis there is; a number alone, as a threshold, has none."""
    leading = next(filter(None, map(dims_of, required_inputs(graph).values())), [None])
    return leading[0]


def samples_of(feed: Feed) -> int:
    """Batch size of inputs."""
    return next((len(x) for x in feed.values() if x.ndim), 1)


def is_divisible(feed: Feed, graph: Graph) -> bool:
    """Whether it is known which axes hold the samples: no other axis without a name is as long."""
    samples, axes = samples_of(feed), batch_axes(graph)
    return samples == 1 or not any(
        size is None and axis not in axes[name] and feed[name].shape[axis] == samples
        for name, value in required_inputs(graph).items()
        for axis, size in enumerate(dims_of(value))
        if axis < feed[name].ndim
    )


def samples_from(feed: Feed, graph: Graph, samples: Sequence[int]) -> Feed:
    """These samples, taken along the axes of the batch; other inputs are whole.

    Raises
    ------
    TuckertreeError
        If inputs differ in the number of samples.
    """
    count, parts = samples_of(feed), dict(feed)
    dims = {name: dims_of(value) for name, value in required_inputs(graph).items()}
    for name, axes in batch_axes(graph).items():
        for axis in axes:
            if axis >= feed[name].ndim:
                continue
            if feed[name].shape[axis] == count:
                parts[name] = np.ascontiguousarray(parts[name].take(samples, axis))
            elif axis < len(dims[name]) and isinstance(dims[name][axis], str):
                raise TuckertreeError(
                    f"the inputs differ in the batch, {dims[name][axis]!r}: "
                    f"{next(iter(feed))} has {count} samples, {name} {list(feed[name].shape)} has not"
                )
    return parts


def repeated(feed: Feed, graph: Graph, batch: int) -> Feed:
    """The first sample ``batch`` times.

    Raises
    ------
    UsageError
        If the file prescribes another batch.
    """
    prescribed = fixed_batch(graph)
    if prescribed not in (None, batch):
        raise UsageError(
            f"the model takes {prescribed} samples at a time, so --batch {batch} cannot be timed"
        )
    return feed if prescribed else samples_from(feed, graph, [0] * batch)


def element_type(graph: Graph, name: str) -> np.dtype[Any]:
    """Type of an input.

    Raises
    ------
    TuckertreeError
        If it is no tensor.
    """
    helper = require_extra("onnx.helper", extra="onnx")
    try:
        return np.dtype(
            helper.tensor_dtype_to_np_dtype(required_inputs(graph)[name].type.tensor_type.elem_type)
        )
    except KeyError as error:
        raise TuckertreeError("the model takes an input that is no tensor of numbers") from error


def as_feed(inputs: Any, graph: Graph) -> Feed:
    """Inputs of a batch by name, in the order and the types that the model takes.

    Raises
    ------
    TuckertreeError
        If they do not belong to the model's inputs.
    """
    names = graph.inputs
    if isinstance(inputs, Mapping):
        given = dict(inputs)
    else:
        parts = [inputs] if isinstance(inputs, torch.Tensor | np.ndarray) else list(inputs)
        given = dict(zip(names, parts, strict=False))
    if set(given) != set(names):
        raise TuckertreeError(f"the model takes {', '.join(names)}; the calibration gives {', '.join(given)}")
    return {name: _as_array(given[name], element_type(graph, name), name) for name in names}


def _as_array(value: object, dtype: np.dtype[Any], name: str) -> Array:
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    # Not ascontiguousarray, which makes a vector of a number alone.
    return np.asarray(as_type(array, dtype, f"the input {name}"), order="C")


def as_type(array: Array, dtype: np.dtype[Any], where: str) -> Array:
    """Values in the type of an input; integers are never rounded ones.

    Raises
    ------
    UsageError
        If the type does not hold them.
    """
    if array.dtype.kind not in "fiub":
        raise UsageError(f"{where} takes {dtype}, not {array.dtype}")
    with np.errstate(invalid="ignore"):
        found = array.astype(dtype, copy=False)
    if dtype.kind != "f" and not np.array_equal(found, array):
        raise UsageError(f"{where} takes {dtype}, which does not hold all of the values")
    return found


def _has_shape(value: ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.HasField("shape"))

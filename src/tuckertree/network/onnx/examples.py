"""Example inputs of a model: sizes that the file leaves open are given, values made up or given too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.inputs import (
    Array,
    Feed,
    Sizes,
    Values,
    as_type,
    batch_axes,
    dims_of,
    element_type,
    fixed_batch,
    required_inputs,
)

if TYPE_CHECKING:
    from onnx import ValueInfoProto

Given = TypeVar("Given")


def example_feed(graph: Graph, input_size: Sizes = None, seed: int = 0, input_values: Values = None) -> Feed:
    """Inputs of one sample, or of as many as the values that are given hold.

    Parameters
    ----------
    input_size
        Sizes of inputs that leave something open.
    seed
        Of the numbers that are not given: normal ones, bytes for uint8, zeros for other integers.
    input_values
        Values of inputs, or the range of random ones.

    Raises
    ------
    UsageError
        If the size of an input is not known, or what is given does not fit.
    """
    inputs = required_inputs(graph)
    for name, value in inputs.items():
        if not value.type.HasField("tensor_type"):
            raise TuckertreeError(f"the model takes {name}, which is no tensor of numbers")
    values = _by_name(input_values or {}, graph, "--input-values")
    arrays = {name: _given(v, graph, name) for name, v in values.items() if not isinstance(v, tuple)}
    shapes = _shapes(graph, input_size, {name: array.shape for name, array in arrays.items()})
    generator = np.random.default_rng(seed)
    feed = {}
    for name in inputs:
        made_up = _random(shapes[name], element_type(graph, name), generator, values.get(name))
        feed[name] = arrays.get(name, made_up)
    return feed


def is_made_up(graph: Graph, input_values: Values) -> bool:
    """Whether some floating-point numbers of the example are random."""
    values = _by_name(input_values or {}, graph, "--input-values")
    return any(not isinstance(values.get(name), np.ndarray) for name in graph.inputs)


def _by_name(given: Mapping[str, Given], graph: Graph, option: str) -> dict[str, Given]:
    names = graph.inputs
    found: dict[str, Given] = {}
    for name, value in given.items():
        if not name and len(names) != 1:
            raise UsageError(f"{option} needs the name of an input: {', '.join(names)}")
        if name and name not in names:
            raise UsageError(f"{option}: the model has no input {name!r}; its inputs are {', '.join(names)}")
        found[name or names[0]] = value
    return found


def _sizes(graph: Graph, input_size: Sizes) -> dict[str, tuple[int, ...]]:
    """Sizes by name; one without a name is that of the first input that leaves something open."""
    if input_size is None:
        return {}
    if isinstance(input_size, Mapping):
        return _by_name({n: tuple(size) for n, size in input_size.items()}, graph, "--input-size")
    axes = batch_axes(graph)
    inputs = required_inputs(graph)
    sized = [n for n, value in inputs.items() if not _is_whole(value, axes[n])] or list(inputs)
    return {name: tuple(input_size) for name in sized[:1]}


def _is_whole(value: ValueInfoProto, batch: Sequence[int]) -> bool:
    """Whether the file says all sizes of an input but the batch."""
    open_axes = [axis for axis, size in enumerate(dims_of(value)) if not isinstance(size, int)]
    return bool(value.type.tensor_type.HasField("shape")) and not {*open_axes} - {*batch}


class _Symbols(dict[str, tuple[int, str]]):
    """Values of symbols, and the inputs that they are known from."""

    def bind(self, symbol: str, size: int, name: str) -> None:
        known, where = self.setdefault(symbol, (size, name))
        if known != size:
            raise UsageError(
                f"{symbol!r} is one size wherever it stands in the file; it would be {known} in {where} "
                f"and {size} in {name}"
            )


def _shapes(
    graph: Graph, input_size: Sizes, known: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Shapes of all inputs.

    Raises
    ------
    UsageError
        If one is not known, or what is given does not fit.
    """
    inputs, axes = required_inputs(graph), batch_axes(graph)
    first, fixed = next((n for n in inputs if 0 in axes[n]), ""), fixed_batch(graph) or 1
    batch = next((known[n][axis] for n in inputs if n in known for axis in axes[n] if known[n]), fixed)
    shapes, symbols = dict(known), _Symbols()
    for name, size in _sizes(graph, input_size).items():
        shapes[name] = _completed(inputs[name], size, axes[name], batch, is_first=name == first)
    for name, shape in shapes.items():
        dims = dims_of(inputs[name])
        for declared, found in zip(dims, shape, strict=False):
            if isinstance(declared, str):
                symbols.bind(declared, found, name)
    missing = []
    for name, value in inputs.items():
        if name in shapes:
            continue
        sizes = [
            symbols[size][0]
            if isinstance(size, str) and size in symbols
            else batch
            if axis in axes[name]
            else size
            for axis, size in enumerate(dims_of(value))
        ]
        if not value.type.tensor_type.HasField("shape") or not all(isinstance(s, int) for s in sizes):
            missing.append(value)
        shapes[name] = tuple(size for size in sizes if isinstance(size, int))
    if missing:
        form = "--input-size" if len(inputs) == 1 else "--input-size NAME:SIZE"
        which = "; ".join(map(_described, missing))
        raise UsageError(f"give {form}: the model leaves the size of its input {which} open")
    return shapes


def _completed(
    value: ValueInfoProto, size: tuple[int, ...], axes: Sequence[int], batch: int, *, is_first: bool
) -> tuple[int, ...]:
    """A size with the batch in its place."""
    dims = dims_of(value)
    if not value.type.tensor_type.HasField("shape"):
        return (batch, *size)
    shape = list(size)
    if len(size) == len(dims) - len(axes):
        for axis in sorted(axes):
            shape.insert(axis, batch)
    elif is_first or any(isinstance(dims[axis], str) for axis in axes) or len(size) != len(dims):
        shape = []
    if len(shape) != len(dims) or any(
        isinstance(d, int) and d != found for d, found in zip(dims, shape, strict=True)
    ):
        without = ", the first of which is the batch" if is_first else ", without the batch"
        if not axes:
            without = ", in which no axis is known to be the batch: give all of them"
        raise UsageError(f"--input-size does not fit the input {_described(value)}{without}")
    return tuple(shape)


def _described(value: ValueInfoProto) -> str:
    return f"{value.name} [{', '.join(str(d) if isinstance(d, int) else '?' for d in dims_of(value))}]"


def _given(array: Array, graph: Graph, name: str) -> Array:
    """Values of an input in its type.

    Raises
    ------
    UsageError
        If they do not fit.
    """
    dtype, value = element_type(graph, name), required_inputs(graph)[name]
    if array.dtype.kind == "f" and dtype.kind != "f":
        raise UsageError(f"--input-values: {name} takes {dtype}, not {array.dtype}")
    found, dims = as_type(array, dtype, f"--input-values: {name}"), dims_of(value)
    fits = len(dims) == array.ndim and all(
        d == size or not isinstance(d, int) for d, size in zip(dims, array.shape, strict=True)
    )
    if value.type.tensor_type.HasField("shape") and not fits:
        raise UsageError(f"--input-values: {list(array.shape)} does not fit the input {_described(value)}")
    return found


def _random(
    shape: Sequence[int], dtype: np.dtype[Any], generator: np.random.Generator, given: object
) -> Array:
    if isinstance(given, tuple):
        return _within(shape, dtype, generator, *given)
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    if dtype == np.uint8:
        return generator.integers(0, 256, shape, dtype=np.uint8)
    if dtype.kind not in "biu":
        raise TuckertreeError(f"the model takes an input of type {dtype}; only numbers can be made up")
    return np.zeros(shape, dtype)


def _within(
    shape: Sequence[int], dtype: np.dtype[Any], generator: np.random.Generator, low: float, high: float
) -> Array:
    """Random numbers of a range, its ends included."""
    least, most = _limits(dtype)
    if not least <= low <= high <= most or (dtype.kind != "f" and (low % 1 or high % 1)):
        raise UsageError(f"--input-values: {low:g}..{high:g} is no range of {dtype}")
    if dtype.kind == "f":
        return (low + (high - low) * generator.random(shape)).astype(dtype)
    kind = np.uint8 if dtype.kind == "b" else dtype
    return generator.integers(int(low), int(high), shape, dtype=kind, endpoint=True).astype(dtype)


def _limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype.kind == "b":
        return 0, 1
    if dtype.kind == "f":
        return float(np.finfo(dtype).min), float(np.finfo(dtype).max)
    return np.iinfo(dtype).min, np.iinfo(dtype).max

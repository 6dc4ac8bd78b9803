"""Reductions, sorting and cumulative sums."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tuckertree._base.errors import TuckertreeError
from tuckertree.network.onnx.operators.operation import Function, Operation, Table, integers

TABLE = Table()
Axes = tuple[int, ...]


def _product(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keep, dtype=x.dtype)
    return x


def _sum(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    return x.sum(axes, keep, dtype=x.dtype)


_REDUCE: dict[str, Callable[[Tensor, Axes, bool], Tensor]] = {
    "ReduceL1": lambda x, axes, keep: _sum(x.abs(), axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: _sum(x, axes, keep).log(),
    "ReduceLogSumExp": torch.logsumexp,
    "ReduceMax": torch.amax,
    "ReduceMean": torch.mean,
    "ReduceMin": torch.amin,
    "ReduceProd": _product,
    "ReduceSum": _sum,
    "ReduceSumSquare": lambda x, axes, keep: _sum(x.square(), axes, keep),
}
_FRACTIONS = {"ReduceL2", "ReduceLogSum", "ReduceMean"}
"""Those computed with fractions, whatever the type."""
_KEEPING = {"ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"}
"""Those that leave a single element as it is."""


@TABLE.add(*_REDUCE)
def _reduce(operation: Operation) -> Function | None:
    keep, given = bool(operation.get("keepdims", 1)), operation.get("axes")
    may_do_nothing = operation.get("noop_with_empty_axes", 0)
    if may_do_nothing and operation.kind not in _KEEPING:
        return None
    function = _REDUCE[operation.kind]

    def reduce(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = tuple(given or integers(axes))
        if may_do_nothing and not chosen:
            return x
        chosen = chosen or tuple(range(x.dim()))
        if operation.kind == "ReduceLogSumExp" and not x.is_floating_point():
            raise TuckertreeError("ReduceLogSumExp of integers has no exact value; cast them to float first")
        if x.is_floating_point() or operation.kind not in _FRACTIONS:
            return function(x, chosen, keep)
        return function(x.double(), chosen, keep).to(x.dtype)

    return reduce


@TABLE.add("ArgMax", "ArgMin")
def _arg(operation: Operation) -> Function | None:
    function = torch.argmax if operation.kind == "ArgMax" else torch.argmin
    axis, keep = operation.get("axis", 0), bool(operation.get("keepdims", 1))
    if not operation.get("select_last_index", 0):
        return lambda x: function(x, axis, keep)
    return lambda x: x.shape[axis] - 1 - function(x.flip(axis), axis, keep)


@TABLE.add("CumSum")
def _cumulative_sum(operation: Operation) -> Function | None:
    exclusive, reverse = operation.get("exclusive", 0), operation.get("reverse", 0)

    def cumulative_sum(x: Tensor, axis: Tensor) -> Tensor:
        (at,) = integers(axis)
        x = x.flip(at) if reverse else x
        if exclusive:
            first = torch.zeros_like(x.narrow(at, 0, 1))
            x = torch.cat([first, x.narrow(at, 0, x.shape[at] - 1)], at)
        y = x.cumsum(at, dtype=x.dtype)
        return y.flip(at) if reverse else y

    return cumulative_sum


@TABLE.add("TopK")
def _top_k(operation: Operation) -> Function | None:
    axis, given = operation.get("axis", -1), operation.get("k")
    largest = bool(operation.get("largest", 1))
    if not operation.get("sorted", 1):
        return None

    def top_k(x: Tensor, k: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        (count,) = [given] if k is None else integers(k)
        # Of equal elements ONNX takes the first; torch.topk takes any.
        values, indices = x.sort(dim=axis, descending=largest, stable=True)
        values, indices = values.narrow(axis, 0, count), indices.narrow(axis, 0, count)
        return values if operation.outputs == 1 else (values, indices)

    return top_k

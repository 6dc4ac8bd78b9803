"""Operators that read and write at indices."""

from __future__ import annotations

from itertools import repeat

import torch
from torch import Tensor

from tuckertree.network.onnx.operators.operation import Function, Operation, Table, along, integers

TABLE = Table()
_OPEN = (2**31 - 1, 2**63 - 1)
"""Ends that mean all that is left, in either direction."""
_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _wrapped(indices: Tensor, size: int) -> Tensor:
    """Indices from the end, which are negative, as ones from the start."""
    return torch.where(indices < 0, indices + size, indices).long()


def _written(x: Tensor, axis: int, indices: Tensor, updates: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return x.scatter(axis, indices, updates)
    return x.scatter_reduce(axis, indices, updates, _REDUCTIONS[reduction])


@TABLE.add("Gather")
def _gather(operation: Operation) -> Function | None:
    axis = operation.get("axis", 0)

    def gather(x: Tensor, indices: Tensor) -> Tensor:
        at = axis % x.dim()
        found = x.index_select(at, _wrapped(indices, x.shape[at]).flatten())
        return found.reshape(x.shape[:at] + indices.shape + x.shape[at + 1 :])

    return gather


@TABLE.add("GatherElements")
def _gather_elements(operation: Operation) -> Function | None:
    axis = operation.get("axis", 0)
    return lambda x, indices: torch.gather(x, axis, _wrapped(indices, x.shape[axis]))


@TABLE.add("GatherND")
def _gather_nd(operation: Operation) -> Function | None:
    batch = operation.get("batch_dims", 0)

    def gather_nd(x: Tensor, indices: Tensor) -> Tensor:
        rank = indices.dim() - 1
        own = [along(torch.arange(x.shape[axis], device=x.device), axis, rank) for axis in range(batch)]
        return x[(*own, *indices.long().unbind(-1))]

    return gather_nd


@TABLE.add("Scatter", "ScatterElements")
def _scatter_elements(operation: Operation) -> Function | None:
    axis, reduction = operation.get("axis", 0), operation.text("reduction", "none")

    def scatter_elements(x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        return _written(x, axis, _wrapped(indices, x.shape[axis]), updates, reduction)

    return scatter_elements


@TABLE.add("ScatterND")
def _scatter_nd(operation: Operation) -> Function | None:
    reduction = operation.text("reduction", "none")

    def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        depth = indices.shape[-1]
        rows = torch.zeros_like(indices[..., 0], dtype=torch.int64)
        for place, size in zip(indices.unbind(-1), x.shape[:depth], strict=True):
            rows = rows * size + _wrapped(place, size)
        width = x.shape[depth:].numel()
        spread = rows.reshape(-1, 1).expand(-1, width)
        flat = x.reshape(x.shape[:depth].numel(), width)
        return _written(flat, 0, spread, updates.reshape(-1, width), reduction).reshape(x.shape)

    return scatter_nd


@TABLE.add("Slice")
def _slice(operation: Operation) -> Function | None:
    given: list[list[int]] = [operation.get(name, []) for name in ("starts", "ends", "axes")]

    def cut(x: Tensor, *bounds: Tensor | None) -> Tensor:
        lists = [integers(each) for each in bounds] if operation.opset >= 10 else given
        starts, ends, axes, steps = [*lists, [], []][:4]
        for start, end, axis, step in zip(
            starts, ends, axes or range(len(starts)), steps or repeat(1), strict=False
        ):
            x = _cut(x, axis, _kept(start, end, step, x.shape[axis]))
        return x

    return cut


def _kept(start: int, end: int, step: int, size: int) -> range:
    """The indices of an axis that a slice keeps; bounds out of reach are drawn in."""
    start, end = (bound + size if bound < 0 else bound for bound in (start, end))
    if step > 0:
        return range(min(max(start, 0), size), min(max(end, 0), size), step)
    end = -1 if end in _OPEN else end
    return range(min(max(start, 0), size - 1), min(max(end, -1), size - 1), step)


def _cut(x: Tensor, axis: int, kept: range) -> Tensor:
    rising = kept if kept.step > 0 else kept[::-1]
    part = slice(rising.start, max(rising.start, rising.stop), rising.step)
    x = x[(slice(None),) * (axis % x.dim()) + (part,)]
    return x if kept.step > 0 else x.flip(axis)


@TABLE.add("Trilu")
def _trilu(operation: Operation) -> Function | None:
    triangle = torch.triu if operation.get("upper", 1) else torch.tril
    return lambda x, k=None: triangle(x, 0 if k is None else int(k))

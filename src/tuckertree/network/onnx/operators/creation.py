"""Operators whose values come from attributes, shapes or indices alone."""

from __future__ import annotations

import torch
from torch import Tensor

from tuckertree.network.onnx.operators.operation import (
    Function,
    Operation,
    Table,
    along,
    dtype_of,
    integers,
    tensor_of,
)

TABLE = Table()


def _range(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    length = max(0, int(((limit - start).double() / delta.double()).ceil()))
    return start + delta * torch.arange(length, dtype=start.dtype, device=start.device)


TABLE.plain(
    {
        "NonZero": lambda x: torch.nonzero(x).T,
        "Range": _range,
        "Size": lambda x: torch.tensor(x.numel(), device=x.device),
    }
)


@TABLE.add("Constant")
def _constant(operation: Operation) -> Function | None:
    name, given = next(iter(operation.attributes.items()), ("", None))
    if name == "value":
        value = tensor_of(given)
    elif name in ("value_float", "value_floats"):
        value = torch.tensor(given, dtype=torch.float32)
    elif name in ("value_int", "value_ints"):
        value = torch.tensor(given, dtype=torch.int64)
    else:
        value = None
    return None if value is None else lambda: value


@TABLE.add("ConstantOfShape")
def _constant_of_shape(operation: Operation) -> Function | None:
    given = operation.get("value")
    value = torch.zeros(1) if given is None else tensor_of(given)
    if value is None:
        return None
    return lambda shape: value.to(shape.device).reshape(()).expand(integers(shape))


@TABLE.add("EyeLike")
def _eye_like(operation: Operation) -> Function | None:
    diagonal, to = operation.get("k", 0), operation.get("dtype")
    dtype = None if to is None else dtype_of(to)
    if to is not None and dtype is None:
        return None

    def eye_like(x: Tensor) -> Tensor:
        rows, columns = (torch.arange(size, device=x.device) for size in x.shape)
        return (columns - rows[:, None] == diagonal).to(dtype or x.dtype)

    return eye_like


@TABLE.add("OneHot")
def _one_hot(operation: Operation) -> Function | None:
    axis = operation.get("axis", -1)

    def one_hot(indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
        size, rank = int(depth), indices.dim() + 1
        classes = along(torch.arange(size, device=indices.device), axis, rank)
        wrapped = torch.where(indices < 0, indices + size, indices).unsqueeze(axis)
        off, on = values.unbind()
        return torch.where(wrapped == classes, on, off)

    return one_hot


@TABLE.add("Shape")
def _shape(operation: Operation) -> Function | None:
    part = slice(operation.get("start", 0), operation.get("end"))
    return lambda x: torch.tensor(x.shape[part], dtype=torch.int64, device=x.device)

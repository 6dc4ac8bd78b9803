"""Operators that change shapes and orders, join and part."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from tuckertree.network.onnx.operators.operation import Function, Operation, Result, Table, integers

TABLE = Table()


def _expand(x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(integers(shape))))


TABLE.plain(
    {
        "Expand": _expand,
        "Tile": lambda x, repeats: x.repeat(integers(repeats)),
    }
)


@TABLE.add("Concat")
def _concat(operation: Operation) -> Function | None:
    axis = operation.get("axis")
    return lambda *inputs: torch.cat(inputs, axis)


@TABLE.add("DepthToSpace")
def _depth_to_space(operation: Operation) -> Function | None:
    block = operation.get("blocksize")
    depth_first = operation.text("mode", "DCR") == "DCR"

    def depth_to_space(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if depth_first:
            parts = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
        else:
            parts = x.reshape(n, c // block**2, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
        return parts.reshape(n, c // block**2, h * block, w * block)

    return depth_to_space


@TABLE.add("Flatten")
def _flatten(operation: Operation) -> Function | None:
    axis = operation.get("axis", 1)

    def flatten(x: Tensor) -> Tensor:
        return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))

    return flatten


@TABLE.add("Reshape")
def _reshape(operation: Operation) -> Function | None:
    keep = not operation.get("allowzero", 0)

    def reshape(x: Tensor, shape: Tensor) -> Tensor:
        sizes = integers(shape)
        return x.reshape([x.shape[axis] if keep and not size else size for axis, size in enumerate(sizes)])

    return reshape


@TABLE.add("SpaceToDepth")
def _space_to_depth(operation: Operation) -> Function | None:
    block = operation.get("blocksize")

    def space_to_depth(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        parts = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
        return parts.reshape(n, c * block**2, h // block, w // block)

    return space_to_depth


@TABLE.add("Split")
def _split(operation: Operation) -> Function | None:
    axis, given = operation.get("axis", 0), operation.get("split")
    parts = operation.get("num_outputs", operation.outputs)

    def split(x: Tensor, sizes: Tensor | None = None) -> Result:
        chosen = given or integers(sizes)
        found = torch.split(x, chosen or -(-x.shape[axis] // parts), axis)
        return found[0] if operation.outputs == 1 else found[: operation.outputs]

    return split


@TABLE.add("Squeeze")
def _squeeze(operation: Operation) -> Function | None:
    given = operation.get("axes")

    def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = given or integers(axes)
        return x.squeeze(tuple(chosen)) if chosen else x.squeeze()

    return squeeze


@TABLE.add("Transpose")
def _transpose(operation: Operation) -> Function | None:
    order = operation.get("perm")
    return lambda x: x.permute(order or tuple(reversed(range(x.dim()))))


@TABLE.add("Unsqueeze")
def _unsqueeze(operation: Operation) -> Function | None:
    given = operation.get("axes")

    def unsqueeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = given or integers(axes)
        rank = x.dim() + len(chosen)
        for axis in sorted(axis % rank for axis in chosen):
            x = x.unsqueeze(axis)
        return x

    return unsqueeze

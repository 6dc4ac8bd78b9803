"""Pad, and the padding of convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tuckertree._base.errors import TuckertreeError
from tuckertree.network.onnx.operators.operation import Function, Operation, Table, integers

TABLE = Table()
Pads = Sequence[tuple[int, int]]
"""How much stands before and after each axis; what is negative is cut off."""


def padded(x: Tensor, pads: Pads, value: float = 0) -> Tensor:
    """Constant padding of the last axes."""
    flat = [size for pair in reversed(pads) for size in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


def pads_of(
    operation: Operation, sizes: Sequence[int], reaches: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """What ``pads`` or ``auto_pad`` of a convolution or pooling comes to.

    Parameters
    ----------
    sizes, reaches, strides
        Of the input, of the (dilated) kernel and of the steps, for each spatial axis.
    """
    order, auto_pad = len(sizes), operation.text("auto_pad", "NOTSET")
    if auto_pad == "VALID":
        return [(0, 0)] * order
    if auto_pad == "NOTSET":
        pads = operation.get("pads", (0,) * 2 * order)
        return list(zip(pads[:order], pads[order:], strict=True))
    pairs = []
    for size, reach, stride in zip(sizes, reaches, strides, strict=True):
        total = max(((size - 1) // stride) * stride + reach - size, 0)
        less = total // 2
        pairs.append((less, total - less) if auto_pad == "SAME_UPPER" else (total - less, less))
    return pairs


@TABLE.add("Pad")
def _pad(operation: Operation) -> Function | None:
    mode = operation.text("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap"):
        return None

    def pad(
        x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None
    ) -> Tensor:
        sizes = operation.get("pads") or integers(pads)
        half = len(sizes) // 2
        given = zip(sizes[:half], sizes[half:], strict=True)
        at = [axis % x.dim() for axis in integers(axes)] if axes is not None else range(half)
        pairs = dict(zip(at, given, strict=True))
        every = [pairs.get(axis, (0, 0)) for axis in range(x.dim())]
        if mode != "constant":
            return _extended(x, every, mode)
        if value is None:
            return padded(x, every, operation.get("value", 0.0))
        inside = padded(torch.ones_like(x, dtype=torch.bool), every)
        return torch.where(inside, padded(x, every), value.reshape(()))

    return pad


def _extended(x: Tensor, pads: Pads, mode: str) -> Tensor:
    """Padding with the tensor's own values; what is negative is cut off first."""
    x = padded(x, [(min(before, 0), min(after, 0)) for before, after in pads])
    for axis, pair in enumerate(pads):
        before, after = (max(each, 0) for each in pair)
        if not before and not after:
            continue
        size = x.shape[axis]
        places = torch.arange(-before, size + after, device=x.device)
        if mode == "edge":
            places = places.clamp(0, size - 1)
        elif mode == "wrap":
            places = places % size
        elif max(before, after) < size:
            places = size - 1 - (size - 1 - places.abs()).abs()
        else:
            raise TuckertreeError(f"Pad reflects {max(before, after)} elements of an axis of {size}")
        x = x.index_select(axis, places)
    return x

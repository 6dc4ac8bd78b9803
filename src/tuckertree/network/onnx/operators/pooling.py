"""Pooling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tuckertree.network.onnx.operators.operation import Function, Operation, Table
from tuckertree.network.onnx.operators.padding import Pads, padded, pads_of

TABLE = Table()
_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@dataclass(frozen=True)
class _Windows:
    """The windows of a pooling operator, each list by spatial axis."""

    operation: Operation
    kernel: list[int]
    strides: list[int]
    dilations: list[int]

    def pads(self, x: Tensor) -> tuple[Pads, Pads]:
        """The padding asked for, and that which the windows of ``ceil_mode`` reach into beyond it."""
        sizes = x.shape[2:]
        reaches = [(k - 1) * step + 1 for k, step in zip(self.kernel, self.dilations, strict=True)]
        pads = pads_of(self.operation, sizes, reaches, self.strides)
        if not self.operation.get("ceil_mode", 0):
            return pads, [(0, 0)] * len(sizes)
        beyond = []
        for size, (before, after), reach, stride in zip(sizes, pads, reaches, self.strides, strict=True):
            steps = -((reach - size - before - after) // stride)
            if steps * stride >= size + before:  # it would lie in the padding alone
                steps -= 1
            beyond.append((0, max(steps * stride + reach - size - before - after, 0)))
        return pads, beyond


def _windows(operation: Operation) -> _Windows | None:
    kernel = operation.get("kernel_shape")
    ones = [1] * len(kernel)
    windows = _Windows(operation, kernel, operation.get("strides", ones), operation.get("dilations", ones))
    if max(windows.dilations) > 1 and operation.kind != "MaxPool":
        return None
    if operation.text("auto_pad", "NOTSET").startswith("SAME"):
        # ONNX Runtime leaves dilations out here, and lets the padding be negative.
        gaps = any(stride > k for stride, k in zip(windows.strides, kernel, strict=True))
        return None if gaps or max(windows.dilations) > 1 else windows
    return windows


@TABLE.add("MaxPool")
def _max_pool(operation: Operation) -> Function | None:
    windows = _windows(operation)
    if windows is None:
        return None

    def max_pool(x: Tensor) -> Tensor:
        lowest = -torch.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
        for pads in windows.pads(x):
            x = padded(x, pads, lowest)
        pool = _MAX[len(windows.kernel)]
        return pool(x, windows.kernel, windows.strides, dilation=windows.dilations)

    return max_pool


def _averages(windows: _Windows, x: Tensor) -> Tensor:
    return _AVERAGE[len(windows.kernel)](x, windows.kernel, windows.strides)


@TABLE.add("AveragePool")
def _average_pool(operation: Operation) -> Function | None:
    windows = _windows(operation)
    if windows is None:
        return None
    counted = float(operation.get("count_include_pad", 0))

    def average_pool(x: Tensor) -> Tensor:
        pads, beyond = windows.pads(x)
        share = padded(padded(torch.ones_like(x[:1, :1]), pads, counted), beyond)
        return _averages(windows, padded(padded(x, pads), beyond)) / _averages(windows, share)

    return average_pool


@TABLE.add("LpPool")
def _lp_pool(operation: Operation) -> Function | None:
    windows, p = _windows(operation), operation.get("p", 2)
    if windows is None:
        return None
    taps = torch.Size(windows.kernel).numel()

    def lp_pool(x: Tensor) -> Tensor:
        for pads in windows.pads(x):
            x = padded(x, pads)
        sums = taps * _averages(windows, x.abs() ** p)
        root = torch.where(sums > 0, sums, 1) ** (1 / p)  # at 0 the derivative would be infinite
        return torch.where(sums > 0, root, 0)

    return lp_pool


def _spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


TABLE.plain(
    {
        "GlobalAveragePool": lambda x: x.mean(_spatial(x), keepdim=True),
        "GlobalMaxPool": lambda x: x.amax(_spatial(x), keepdim=True),
    }
)


@TABLE.add("GlobalLpPool")
def _global_lp_pool(operation: Operation) -> Function | None:
    p = operation.get("p", 2)
    return lambda x: torch.linalg.vector_norm(x, p, _spatial(x), keepdim=True)

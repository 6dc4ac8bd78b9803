"""Convolutions and matrix products whose weights are tensors like any other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tuckertree.network.onnx.operators.operation import Function, Operation, Table, along
from tuckertree.network.onnx.operators.padding import Pads, padded, pads_of

TABLE = Table()
TABLE.plain({"MatMul": torch.matmul})
_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@TABLE.add("Conv")
def _conv(operation: Operation) -> Function | None:
    groups = operation.get("group", 1)

    def conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        order = x.dim() - 2
        strides = operation.get("strides", [1] * order)
        dilations = operation.get("dilations", [1] * order)
        reaches = [(k - 1) * step + 1 for k, step in zip(weight.shape[2:], dilations, strict=True)]
        x = padded(x, pads_of(operation, x.shape[2:], reaches, strides))
        return _CONVOLVE[order](x, weight, bias, strides, 0, dilations, groups)

    return conv


@TABLE.add("ConvTranspose")
def _conv_transpose(operation: Operation) -> Function | None:
    groups = operation.get("group", 1)

    def conv_transpose(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        order = x.dim() - 2
        strides = operation.get("strides", [1] * order)
        dilations = operation.get("dilations", [1] * order)
        y = _TRANSPOSED[order](x, weight, None, strides, 0, 0, groups, dilations)
        same = [size * step for size, step in zip(x.shape[2:], strides, strict=True)]
        y = padded(y, _margins(operation, y.shape[2:], same))
        return y if bias is None else y + along(bias, 1, y.dim())

    return conv_transpose


def _margins(operation: Operation, sizes: Sequence[int], same: Sequence[int]) -> Pads:
    """What to add to an unpadded transposed convolution, or to cut off where it is negative.

    Parameters
    ----------
    sizes
        Its spatial sizes.
    same
        Those that ``SAME_UPPER`` and ``SAME_LOWER`` ask for at most.
    """
    order, auto_pad = len(sizes), operation.text("auto_pad", "NOTSET")
    longer = operation.get("output_padding", [0] * order)
    full = [size + extra for size, extra in zip(sizes, longer, strict=True)]
    wanted = operation.get("output_shape")
    if wanted is None and auto_pad.startswith("SAME"):
        wanted = [min(pair) for pair in zip(full, same, strict=True)]
    if wanted is None:
        pads = operation.get("pads", [0] * 2 * order) if auto_pad == "NOTSET" else [0] * 2 * order
        ends = zip(pads[:order], pads[order:], longer, strict=True)
        return [(-before, extra - after) for before, after, extra in ends]
    margins = []
    for size, most, target in zip(sizes, full, wanted[-order:], strict=True):
        total = max(most - target, 0)
        before = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
        margins.append((-before, target - size + before))
    return margins


@TABLE.add("Einsum")
def _einsum(operation: Operation) -> Function | None:
    equation = operation.text("equation", "")
    return lambda *inputs: torch.einsum(equation, *inputs)


@TABLE.add("Gemm")
def _gemm(operation: Operation) -> Function | None:
    alpha, beta = operation.get("alpha", 1.0), operation.get("beta", 1.0)
    turn_a, turn_b = operation.get("transA", 0), operation.get("transB", 0)

    def gemm(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        y = alpha * ((a.T if turn_a else a) @ (b.T if turn_b else b))
        return y if c is None else y + beta * c

    return gemm

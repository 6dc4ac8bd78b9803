"""What the attributes of convolutions and matrix products say of their geometry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from tuckertree._base.extras import require_extra
from tuckertree.core.layers import LayerSpec
from tuckertree.network.onnx.constants import Constants, is_standard
from tuckertree.planning import Call

if TYPE_CHECKING:
    from onnx import NodeProto

QUANTIZED = {"ConvInteger": 1, "MatMulInteger": 1, "QLinearConv": 3, "QLinearMatMul": 3}
PRODUCTS = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, **QUANTIZED}
"""Convolutions and matrix products, and which input is the weight."""
Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of values by name."""


def is_product(node: NodeProto) -> bool:
    """Whether a node is a convolution or a matrix product."""
    return node.op_type in PRODUCTS and is_standard(node.domain)


def weight_place(node: NodeProto, constants: Constants) -> int | None:
    """Which input of a convolution or product is a constant weight: 0 for the left one of a product."""
    place = PRODUCTS[node.op_type]
    if node.input[place] in constants:
        return place
    return 0 if node.op_type in ("Gemm", "MatMul") and node.input[0] in constants else None


def lacking(node: NodeProto, place: int | None, dims: Sequence[int]) -> str:
    """What a node lacks to be a layer, or ''; ``place`` and ``dims`` are those of its weight."""
    if place is None:
        return "its weight is computed" if "Conv" in node.op_type else "both values are computed"
    if len(dims) < (3 if "Conv" in node.op_type else 2):
        return "its weight is a vector"
    if not all(dims) or dims[0] % attributes_of(node).get("group", 1):
        return "its weight is empty or cannot be divided into groups"
    return ""


def is_row_major(node: NodeProto) -> bool:
    """Whether the weight of a matrix product is ``[T, C]``, as in torch."""
    return bool(attributes_of(node).get("transB", 0))


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Values of a node's attributes by name."""
    helper = require_extra("onnx.helper", extra="onnx")
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def auto_pad_of(node: NodeProto) -> str:
    """Value of ``auto_pad``."""
    value: bytes = attributes_of(node).get("auto_pad", b"NOTSET")
    return value.decode()


def spec_of(
    node: NodeProto, dims: tuple[int, ...], x: Sequence[int], y: Sequence[int], *, left: bool = False
) -> LayerSpec:
    """Structure of a layer that lacks nothing, without a bias.

    Parameters
    ----------
    dims, x, y
        Shapes of weight, input and output.
    left
        Whether the weight is the left one of the two that are multiplied.
    """
    given = attributes_of(node)
    if "Conv" not in node.op_type:
        as_in_torch = not given.get("transA") if left else given.get("transB")
        inputs, outputs = dims[:-3:-1] if as_in_torch else dims[-2:]
        return LayerSpec(inputs, outputs, bias=False)
    order = len(dims) - 2
    groups, transposed = given.get("group", 1), node.op_type == "ConvTranspose"
    spec = LayerSpec(
        in_channels=dims[0] if transposed else dims[1] * groups,
        out_channels=dims[1] * groups if transposed else dims[0],
        kernel_size=dims[2:],
        stride=tuple(given.get("strides", (1,) * order)),
        padding=(0,) * order,
        dilation=tuple(given.get("dilations", (1,) * order)),
        output_padding=tuple(given.get("output_padding", (0,) * order)),
        groups=groups,
        transposed=transposed,
        bias=False,
    )
    before = tuple(begin for begin, _ in pads_of(node, spec, x[2:], y[2:]))
    return replace(spec, padding=before)


def pads_of(
    node: NodeProto, spec: LayerSpec, size_in: Sequence[int], size_out: Sequence[int]
) -> list[tuple[int, int]]:
    """Padding before and after each axis, as it comes out at the given sizes."""
    auto_pad = auto_pad_of(node)
    if auto_pad == "VALID":
        return [(0, 0)] * spec.order
    if auto_pad == "NOTSET":
        pads = attributes_of(node).get("pads", (0,) * 2 * spec.order)
        return list(zip(pads[: spec.order], pads[spec.order :], strict=True))
    pairs = []
    for axis, (inside, outside) in enumerate(zip(size_in, size_out, strict=True)):
        reach = spec.dilation[axis] * (spec.kernel_size[axis] - 1) + 1
        if spec.transposed:
            total = spec.stride[axis] * (inside - 1) + spec.output_padding[axis] + reach - outside
        else:
            total = (outside - 1) * spec.stride[axis] + reach - inside
        total = max(total, 0)
        less = total // 2
        pairs.append((less, total - less) if auto_pad == "SAME_UPPER" else (total - less, less))
    return pairs


def call_of(
    node: NodeProto, spec: LayerSpec, x: tuple[int, ...], y: tuple[int, ...], *, left: bool = False
) -> Call:
    """How a layer is used; the parameters are those of :func:`spec_of`."""
    if left:
        positions = (y[-1] if len(x) > 1 else 1,)
        return Call(prod(y[:-2]) if len(x) > 1 else prod(y[:-1]), positions, positions)
    if spec.order:
        return Call(x[0], x[2:], y[2:])
    x = x[::-1] if attributes_of(node).get("transA") else x
    positions = (prod(x[1:-1]),)
    return Call(x[0] if len(x) > 1 else 1, positions, positions)


def macs_of(node: NodeProto, shapes: Shapes) -> int:
    """Multiply-accumulates of a convolution or a product."""
    x, w, y = (shapes[name] for name in (node.input[0], node.input[PRODUCTS[node.op_type]], node.output[0]))
    if node.op_type == "ConvTranspose":
        return prod(x) * prod(w[1:])
    if "Conv" in node.op_type:
        return prod(y) * prod(w[1:])
    return prod(y) * (x[0] if attributes_of(node).get("transA") else x[-1])

"""What counts as a parameter in an ONNX file, in floating point or in 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

from tuckertree.network.onnx.constants import SAME_NUMBERS, is_standard
from tuckertree.network.onnx.files import all_graphs, all_nodes

if TYPE_CHECKING:
    from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

FLOATS = {1: "float32", 10: "float16", 11: "float64"}
"""Types of weights that can be compressed, by their number in ``TensorProto.DataType``."""
_FLOATING = {*FLOATS, 16, 17, 18, 19, 20}  # bfloat16 and the 8-bit floats too
_FLOAT = 1
_QUANTIZED = {
    "DequantizeLinear": ((0,), (1,)),
    "QuantizeLinear": ((), (1,)),
    "QLinearConv": ((3, 8), (1, 4, 6)),
    "QLinearMatMul": ((0, 3), (1, 4, 6)),
    "ConvInteger": ((1,), ()),
    "MatMulInteger": ((0, 1), ()),
}
"""Which inputs of a node are numbers that were quantized, and which are scales."""
_RUNTIME = "com.microsoft"
"""ONNX Runtime's domain, which has the first two as well."""


def count_parameters(proto: ModelProto) -> int:
    """Numbers in all floating-point constants of a model, and in those that were quantized, each once.

    The scales and zero points of a quantized model are none: it has as many parameters as before.
    """
    return sum(_of_place(place) for place in (proto.graph, *proto.functions))


def _of_place(place: GraphProto | FunctionProto) -> int:
    """The same of a graph or a function with its subgraphs, in which a name means one value."""
    nodes = list(all_nodes(place))
    quantized, scales = _roles(nodes)
    return sum(
        numbers
        for name, kind, numbers in _constants(place, nodes)
        if (kind in _FLOATING and name not in scales) or name in quantized
    )


def _roles(nodes: list[NodeProto]) -> tuple[set[str], set[str]]:
    """Names of the values that quantized numbers, and that scales come from."""
    same = {
        node.output[0]: node.input[0] for node in nodes if node.op_type in SAME_NUMBERS and any(node.input)
    }
    roles: tuple[set[str], set[str]] = (set(), set())
    for node in nodes:
        if is_standard(node.domain) or node.domain == _RUNTIME:
            for names, places in zip(roles, _QUANTIZED.get(node.op_type, ((), ())), strict=True):
                names.update(_source(node.input[place], same) for place in places if place < len(node.input))
    return roles


def _source(name: str, same: dict[str, str]) -> str:
    """The value that another has its numbers from."""
    seen: set[str] = set()
    while name in same and name not in seen:
        seen.add(name)
        name = same[name]
    return name


def _constants(place: GraphProto | FunctionProto, nodes: list[NodeProto]) -> Iterator[tuple[str, int, int]]:
    """Name, type and count of all constants: initializers, and tensors and numbers in attributes."""
    for graph in all_graphs(place):
        for tensor in (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)):
            yield tensor.name, tensor.data_type, prod(tensor.dims)
    for node in nodes:
        name = node.output[0] if node.op_type == "Constant" else ""
        for attribute in node.attribute:
            for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors):
                yield name, tensor.data_type, prod(tensor.dims)
            if attribute.name in ("value_float", "value_floats"):
                yield name, _FLOAT, len(attribute.floats) + (attribute.name == "value_float")

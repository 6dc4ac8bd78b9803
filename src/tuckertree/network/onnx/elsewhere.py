"""Convolutions and products that are left as they are: in subgraphs, in functions, in other domains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tuckertree._base.errors import TuckertreeError
from tuckertree.core.layers import LayerSpec
from tuckertree.network.onnx.constants import Constants, is_standard
from tuckertree.network.onnx.files import OnnxFile, all_nodes, subgraphs
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.nodes import is_product, lacking, spec_of, weight_place
from tuckertree.network.onnx.runtime import constant_of

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

Unlisted = Counter[tuple[str, str]]
"""How many nodes of an operator are no layers, and why."""
_LIKE_PRODUCTS = ("Conv", "Gemm", "MatMul")


def inner_layers(
    file: OnnxFile, graph: Graph, unlisted: Unlisted
) -> Iterator[tuple[NodeProto, LayerSpec, str]]:
    """Nodes in subgraphs with constant weights, their structure, and where they are; others are counted."""
    yield from _inner(file, graph.proto.graph, graph.values, unlisted)


def _inner(
    file: OnnxFile, graph: GraphProto, constants: Constants, unlisted: Unlisted
) -> Iterator[tuple[NodeProto, LayerSpec, str]]:
    for outer in graph.node:
        for inner in subgraphs(outer):
            where = f"inside the {outer.op_type} {outer.name}".rstrip()
            own = Constants(inner, constants)
            for node in filter(is_product, inner.node):
                place = weight_place(node, own)
                dims = () if place is None else _dims(file, own, node.input[place])
                lacks = lacking(node, place, dims)
                if lacks:
                    unlisted[node.op_type, f"{where}, {lacks}"] += 1
                else:
                    flat = (1,) * len(dims)
                    yield node, spec_of(node, dims, flat, flat, left=not place), where
            yield from _inner(file, inner, own, unlisted)


def _dims(file: OnnxFile, constants: Constants, name: str) -> tuple[int, ...]:
    """Shape of a constant, () if it cannot be computed."""
    try:
        return tuple(constant_of(file, constants, name).dims)
    except TuckertreeError:
        return ()


def count_elsewhere(graph: Graph, unlisted: Unlisted) -> None:
    """Count products in functions, and operators of other domains that are named like products."""
    functions = {(function.domain, function.name) for function in graph.proto.functions}
    for node in all_nodes(graph.proto.graph):
        named = any(name in node.op_type for name in _LIKE_PRODUCTS)
        if named and not is_product(node) and (node.domain, node.op_type) not in functions:
            whose = (
                "of no kind that is compressed"
                if is_standard(node.domain)
                else f"of the domain {node.domain}"
            )
            unlisted[node.op_type, whose] += 1
    for function in graph.proto.functions:
        for node in all_nodes(function):
            if is_product(node):
                unlisted[node.op_type, f"inside the function {function.domain}.{function.name}"] += 1

"""Values of an ONNX graph that choose rows: where they are equal, layers behind them see the same rows.

What :mod:`tuckertree.measure.control_flow` follows in a forward pass of torch can here be read off the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from tuckertree.network.onnx.files import subgraphs
from tuckertree.network.onnx.graph import Graph

if TYPE_CHECKING:
    from onnx import NodeProto

_CHOOSING = {
    **dict.fromkeys(("Gather", "GatherElements", "GatherND", "Compress", "ReverseSequence"), (1,)),
    **dict.fromkeys(("Scatter", "ScatterElements", "ScatterND"), (1,)),
    "Slice": (1, 2, 3, 4),
    "OneHot": (0,),
    "RoiAlign": (2,),
    "If": (0,),
    "Loop": (0, 1),
}
"""The inputs of operators that say which rows are taken, or whether any are."""
_OTHER_WAY = "?"


def choosing_values(graph: Graph, value: str) -> tuple[str, ...]:
    """Values in the middle of the graph that say which rows are in a value; "?" if one is inside a subgraph."""
    found: dict[str, None] = {}
    seen, waiting = {value}, [value]
    while waiting:
        node = graph.producer(waiting.pop())
        if node is None:
            continue
        if any(_chooses(inner) for inner in _inner_nodes(node)):
            found[_OTHER_WAY] = None
        chosen = (node.input[i] for i in _CHOOSING.get(node.op_type, ()) if i < len(node.input))
        found.update(dict.fromkeys(name for name in chosen if graph.producer(name) is not None))
        inputs = {*node.input, *(name for inner in _inner_nodes(node) for name in inner.input)} - seen
        seen |= inputs
        waiting += inputs
    return tuple(found)


def control_flow_of(names: tuple[str, ...], values: Mapping[str, Any], *, compressed: bool) -> int:
    """Digest of choosing values; those inside subgraphs are taken to differ in another network."""
    contents = [_content(values.get(name)) for name in names if name != _OTHER_WAY]
    return hash((compressed and _OTHER_WAY in names, *contents))


def _content(value: Any) -> Any:
    return (
        (*value.shape, crc32(np.ascontiguousarray(value).tobytes()))
        if isinstance(value, np.ndarray)
        else None
    )


def _chooses(node: NodeProto) -> bool:
    return node.op_type in _CHOOSING


def _inner_nodes(node: NodeProto) -> list[NodeProto]:
    """Nodes of a node's subgraphs, at all depths."""
    inner = [each for graph in subgraphs(node) for each in graph.node]
    return inner + [deeper for each in inner for deeper in _inner_nodes(each)]

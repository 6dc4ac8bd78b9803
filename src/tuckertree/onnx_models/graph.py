"""The main graph of an ONNX model: what is constant, who uses what, which names are taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

from tuckertree.onnx_models.files import all_tensors, subgraphs

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

FLOATS = {1: "float32", 10: "float16", 11: "float64"}
"""Types of weights that can be compressed, by their number in ``TensorProto.DataType``."""
_COUNTED = {*FLOATS, 16, 17, 18, 19, 20}  # bfloat16 and the 8-bit floats too
_SAME_VALUES = ("Identity", "Cast", "DequantizeLinear")


class Graph:
    """An index of a model's main graph.

    Attributes
    ----------
    proto
        The model.
    constants
        Tensors by the name of their value: initializers, and what Constant nodes give.
    uses
        How many inputs of nodes (in subgraphs too) and outputs of the graph a value is.
    opset
        Version of the standard operators.
    """

    def __init__(self, proto: ModelProto) -> None:
        self.proto = proto
        graph = proto.graph
        self.opset = next((o.version for o in proto.opset_import if is_standard(o.domain)), 0)
        self.constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self._producers: dict[str, NodeProto] = {}
        for node in graph.node:
            self._producers.update(dict.fromkeys(node.output, node))
            if node.op_type == "Constant" and is_standard(node.domain):
                value = next((a.t for a in node.attribute if a.name == "value"), None)
                if value is not None:
                    self.constants[node.output[0]] = value
        self.uses = Counter(_used(graph))
        self._names = {*_names(graph)}

    @property
    def nodes(self) -> list[NodeProto]:
        """Nodes of the main graph in their order."""
        return list(self.proto.graph.node)

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs a caller must give."""
        initializers = {tensor.name for tensor in self.proto.graph.initializer}
        return [value.name for value in self.proto.graph.input if value.name not in initializers]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return [value.name for value in self.proto.graph.output]

    @property
    def parameters(self) -> int:
        """Numbers in all floating-point constants of the file."""
        return sum(prod(tensor.dims) for tensor in all_tensors(self.proto) if tensor.data_type in _COUNTED)

    def origin(self, name: str) -> tuple[TensorProto | None, str]:
        """Constant behind a value, through nodes that keep its shape, and the operator that stands before it."""
        step = ""
        while name not in self.constants:
            node = self._producers.get(name)
            if node is None or node.op_type not in _SAME_VALUES or not is_standard(node.domain):
                return None, step
            step, name = step or node.op_type, node.input[0]
        return self.constants[name], step

    def producer(self, name: str) -> NodeProto | None:
        """The node of the main graph that gives a value; None for inputs and constants."""
        return None if name in self.constants else self._producers.get(name)

    def consumers(self, name: str) -> list[NodeProto]:
        """Nodes of the main graph that a value goes into."""
        return [node for node in self.proto.graph.node if name in node.input]

    def new_name(self, wanted: str) -> str:
        """A name that no value or node has, and which is taken from now on."""
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        self._names.add(name)
        return name


def is_standard(domain: str) -> bool:
    """Whether a domain is that of the standard operators."""
    return domain in ("", "ai.onnx")


def _used(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from node.input
        for inner in subgraphs(node):
            yield from _used(inner)
    yield from (value.name for value in graph.output)


def _names(graph: GraphProto) -> Iterator[str]:
    yield from (value.name for values in (graph.input, graph.output, graph.value_info) for value in values)
    yield from (tensor.name for tensor in graph.initializer)
    yield from (sparse.values.name for sparse in graph.sparse_initializer)
    for node in graph.node:
        yield from (node.name, *node.output)
        for inner in subgraphs(node):
            yield from _names(inner)

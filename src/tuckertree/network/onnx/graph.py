"""The main graph of an ONNX model: what is constant, who uses what, which names are taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tuckertree._base.extras import require_extra
from tuckertree.network.onnx.constants import Constants, is_standard
from tuckertree.network.onnx.files import subgraphs
from tuckertree.network.onnx.parameters import count_parameters

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

INPUTS_LISTED = 4
"""Before this version of the format every initializer must be an input too, which no caller may replace."""


class Graph:
    """An index of a model's main graph.

    Attributes
    ----------
    proto
        The model.
    values
        What is constant.
    uses
        How many inputs of nodes (in subgraphs too) and outputs of the graph a value is.
    opset
        Version of the standard operators.
    """

    def __init__(self, proto: ModelProto) -> None:
        self.proto = proto
        graph = proto.graph
        self.opset = next((o.version for o in proto.opset_import if is_standard(o.domain)), 0)
        inputs = {value.name for value in graph.input} if proto.ir_version >= INPUTS_LISTED else set()
        self.values = Constants(graph, given={t.name for t in graph.initializer if t.name in inputs})
        self._producers = {name: node for node in graph.node for name in node.output}
        self.uses = Counter(used_values(graph))
        self._names = {*_names(graph)}
        self._kinds: dict[str, int] | None = None

    @property
    def constants(self) -> Mapping[str, TensorProto]:
        """Tensors by the name of their value: initializers, and what Constant nodes give."""
        return self.values.tensors

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
        """As :func:`~tuckertree.network.onnx.parameters.count_parameters`."""
        return count_parameters(self.proto)

    def kind(self, name: str) -> int:
        """Type of a value as ``onnx.TensorProto`` numbers it, by inference; 0 where it is not known."""
        if self._kinds is None:
            self._kinds = _inferred(self.proto)
        return self._kinds.get(name, 0)

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


def _inferred(proto: ModelProto) -> dict[str, int]:
    shape_inference = require_extra("onnx.shape_inference", extra="onnx")
    try:
        graph = shape_inference.infer_shapes(proto).graph
    except Exception:  # more than 2 GiB, or an operator that it does not know in this place
        graph = proto.graph
    values = (*graph.input, *graph.value_info, *graph.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    return {**kinds, **{tensor.name: tensor.data_type for tensor in graph.initializer}}


def used_values(graph: GraphProto) -> Iterator[str]:
    """Name of a value once for each input of a node, in subgraphs too, and each output of the graph that it is."""
    for node in graph.node:
        yield from node.input
        for inner in subgraphs(node):
            yield from used_values(inner)
    yield from (value.name for value in graph.output)


def _names(graph: GraphProto) -> Iterator[str]:
    yield from (value.name for values in (graph.input, graph.output, graph.value_info) for value in values)
    yield from (tensor.name for tensor in graph.initializer)
    yield from (sparse.values.name for sparse in graph.sparse_initializer)
    for node in graph.node:
        yield from (node.name, *node.output)
        for inner in subgraphs(node):
            yield from _names(inner)

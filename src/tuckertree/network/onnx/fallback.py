"""A node that torch does not do: a model of that node alone, run by ONNX Runtime, without a gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tuckertree._base.errors import TuckertreeError
from tuckertree._base.extras import require_extra
from tuckertree.measure.control_flow import note
from tuckertree.network.onnx.files import OnnxFile, subgraphs
from tuckertree.network.onnx.graph import INPUTS_LISTED, Graph
from tuckertree.network.onnx.runtime import Session

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

_HALF = 10
"""``TensorProto.FLOAT16``."""


class NodeSession:
    """Runs one node in ONNX Runtime; made when it is first needed, shared by copies of a module.

    Inputs that are constants of the file are constants of its model, with the type that they have there; float32
    values that the graph has as float16 are given as such.
    """

    def __init__(self, file: OnnxFile, graph: Graph, node: NodeProto) -> None:
        self._file, self._graph, self._node = file, graph, node
        self._sessions: dict[tuple[str, ...], Session] = {}
        self.chooses = any(True for _ in _inner(node))

    def __deepcopy__(self, memo: dict[int, object]) -> NodeSession:
        return self

    def run(self, names: Sequence[str], values: Sequence[object]) -> tuple[object, ...]:
        """Outputs of the node, in their order; those that are left out are None.

        Raises
        ------
        TuckertreeError
            If ONNX Runtime cannot run the node.
        """
        feed = {
            name: self._typed(name, value)
            for name, value in zip(names, values, strict=True)
            if name and name not in self._graph.constants
        }
        kinds = tuple(_kind(value) for value in feed.values())
        session = self._sessions.get(kinds)
        if session is None:
            session = self._sessions[kinds] = self._made(feed)
        found = session.run(feed)
        return tuple(found.get(name) for name in self._node.output)

    def _typed(self, name: str, value: Any) -> Any:
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        is_half = (
            isinstance(array, np.ndarray) and array.dtype == np.float32 and self._graph.kind(name) == _HALF
        )
        return array.astype(np.float16) if is_half else array

    def _made(self, feed: dict[str, object]) -> Session:
        onnx = require_extra("onnx", extra="onnx")
        helper = require_extra("onnx.helper", extra="onnx")
        source, model = self._file.proto, onnx.ModelProto()
        model.ir_version = max(source.ir_version, INPUTS_LISTED)
        model.opset_import.extend(source.opset_import)
        model.functions.extend(source.functions)
        model.graph.name = "node"
        model.graph.node.append(self._node)
        wanted = {*self._node.input, *captured_values(self._node)}
        for name in sorted(wanted & self._graph.constants.keys()):
            model.graph.initializer.add().CopyFrom(self._graph.constants[name])
            model.graph.initializer[-1].name = name
        for name, value in feed.items():
            model.graph.input.append(_described(name, value, helper))
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self._node.output if name)
        try:
            return Session(model.SerializeToString(), self._file.folder)
        except TuckertreeError as error:
            raise TuckertreeError(f"the node {self._node.name or self._node.output[0]}: {error}") from error


def note_choice(session: NodeSession, owner: object, values: Sequence[object]) -> None:
    """Tell whoever follows the forward pass what a node may choose rows by: the whole numbers it takes and gives.

    What is chosen in a subgraph nobody sees; so behind one the ways of two networks differ.
    """
    if session.chooses:
        note(id(owner))
    for value in values:
        if isinstance(value, np.ndarray) and value.dtype.kind in "iub":
            value = torch.from_numpy(value)
        if isinstance(value, Tensor):
            whole = not value.is_floating_point()
            note(tuple(value.shape), value.cpu().numpy().tobytes() if whole else None)


def captured_values(node: NodeProto, known: Sequence[str] = ()) -> tuple[str, ...]:
    """Values of the graph around a node that its subgraphs use, beside those that it takes itself."""
    found: dict[str, None] = {}
    for inner in subgraphs(node):
        made = {value.name for value in inner.input} | {tensor.name for tensor in inner.initializer}
        made |= {name for each in inner.node for name in each.output}
        found.update(dict.fromkeys(name for name in _used_within(inner) if name and name not in made))
    return tuple(name for name in found if name not in known)


def _used_within(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from node.input
        yield from captured_values(node)
    yield from (value.name for value in graph.output)


def _inner(node: NodeProto) -> Iterator[NodeProto]:
    for graph in subgraphs(node):
        for each in graph.node:
            yield each
            yield from _inner(each)


def _kind(value: object) -> str:
    return value.dtype.name if isinstance(value, np.ndarray) else type(value).__name__


def _described(name: str, value: object, helper: Any) -> object:
    if isinstance(value, np.ndarray):
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        return helper.make_tensor_value_info(name, kind, None)
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        kind = helper.np_dtype_to_tensor_dtype(value[0].dtype)
        return helper.make_tensor_sequence_value_info(name, kind, None)
    raise TuckertreeError(f"the value {name} is no tensor; such models can be compressed without images")

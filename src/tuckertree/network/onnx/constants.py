"""What is constant in a graph: tensors of the file, and what nodes make of them alone."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tuckertree._base.extras import require_extra
from tuckertree.network.onnx.files import subgraphs

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto

SAME_NUMBERS = {"Identity", "Cast", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"}
"""Operators that give the numbers of their first input, in another order, shape or type."""
_DRAWN = {"RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}
"""Operators that give other numbers each time."""
_NUMBERS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}
_VALUES = _NUMBERS.keys() | {"value"}


@dataclass(frozen=True)
class Origin:
    """Where a value comes from that no input has a part in.

    Attributes
    ----------
    path
        Names of the values whose numbers it has, in another order, shape or type: itself first, the one they come
        from last.
    steps
        All nodes that compute it, in order; none for a constant itself.
    leaves
        Names of all constants that they begin with.
    foreign
        Operator of the node that made other numbers of them, or ''.
    """

    path: tuple[str, ...]
    steps: tuple[NodeProto, ...]
    leaves: frozenset[str]
    foreign: str


class Constants:
    """The constants of a graph; of an inner graph those of the outer one too.

    Parameters
    ----------
    given
        Names of initializers that a caller may replace.

    Attributes
    ----------
    tensors
        By the name of their value: initializers, and what Constant nodes give.
    sparse
        Names of constants that are not written out number by number.
    given
        Names of initializers that a caller may replace.
    """

    def __init__(
        self, graph: GraphProto, outer: Constants | None = None, given: Collection[str] = ()
    ) -> None:
        self.tensors: ChainMap[str, TensorProto] = outer.tensors.new_child() if outer else ChainMap()
        self._producers: ChainMap[str, tuple[int, NodeProto]] = (
            outer._producers.new_child() if outer else ChainMap()
        )
        self.given: frozenset[str] = (outer.given if outer else frozenset()) | {*given}
        self.sparse: set[str] = {*outer.sparse} if outer else set()
        self.sparse.update(each.values.name for each in graph.sparse_initializer)
        self.tensors.update({t.name: t for t in graph.initializer if t.name not in self.given})
        self._known: set[str] = {*(outer._known if outer else ()), *self.given, *self.sparse, *self.tensors}
        first: int = outer._count if outer else 0
        self._count: int = first + len(graph.node)
        for place, node in enumerate(graph.node, start=first):
            value = value_of(node)
            if value is not None:
                self.tensors[node.output[0]] = value
            elif node.op_type == "Constant" and is_standard(node.domain):
                self.sparse.update(node.output)
            elif _is_fixed(node) and all(name in self._known for name in node.input if name):
                self._producers.update(dict.fromkeys(node.output, (place, node)))
            else:
                continue
            self._known.update(node.output)

    def __contains__(self, name: str) -> bool:
        """Whether no input has a part in a value."""
        return name != "" and name in self._known

    def origin(self, name: str) -> Origin:
        """Where a value comes from that is in here."""
        steps, leaves, todo = dict[int, "NodeProto"](), set[str](), [name]
        while todo:
            value = todo.pop()
            place, node = self._producers.get(value, (-1, None))
            if node is None:
                leaves.add(value)
            elif place not in steps:
                steps[place] = node
                todo += [each for each in node.input if each]
        path, foreign = [name], ""
        while path[-1] in self._producers:
            node = self._producers[path[-1]][1]
            if node.op_type not in SAME_NUMBERS or not is_standard(node.domain):
                foreign = node.op_type
                break
            path.append(node.input[0])
        return Origin(tuple(path), tuple(steps[p] for p in sorted(steps)), frozenset(leaves), foreign)


def is_standard(domain: str) -> bool:
    """Whether a domain is that of the standard operators."""
    return domain in ("", "ai.onnx")


def value_of(node: NodeProto) -> TensorProto | None:
    """What a Constant node gives, if that is a tensor of numbers that is not sparse."""
    if node.op_type != "Constant" or not is_standard(node.domain):
        return None
    helper = require_extra("onnx.helper", extra="onnx")
    numpy_helper = require_extra("onnx.numpy_helper", extra="onnx")
    for attribute in node.attribute:
        if attribute.name == "value":
            return attribute.t
        if attribute.name in _NUMBERS:
            value = np.array(helper.get_attribute_value(attribute), _NUMBERS[attribute.name])
            tensor: TensorProto = numpy_helper.from_array(value)
            return tensor
    return None


def set_value(node: NodeProto, tensor: TensorProto) -> None:
    """Let a Constant node give another tensor."""
    helper = require_extra("onnx.helper", extra="onnx")
    attribute = next(each for each in node.attribute if each.name in _VALUES)
    tensor.name = attribute.t.name
    attribute.CopyFrom(helper.make_attribute("value", tensor))


def _is_fixed(node: NodeProto) -> bool:
    """Whether a node gives the same for the same inputs, which it must have, and nothing else."""
    drawn = node.op_type in _DRAWN and is_standard(node.domain)
    return any(node.input) and not drawn and not any(subgraphs(node))

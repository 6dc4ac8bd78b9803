"""Where the mean of a node's output can be corrected at no cost: its bias, or the constant that is added next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from tuckertree.network.onnx.constants import is_standard
from tuckertree.network.onnx.graph import Graph

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto


@dataclass(frozen=True)
class Bias:
    """A constant that holds one number for each output channel, and serves nothing else.

    Attributes
    ----------
    name
        Of its value.
    tensor
        The constant.
    factor
        What it is to be multiplied by to be the bias of the product: ``beta / alpha`` of a Gemm, -1 where it is
        subtracted.
    """

    name: str
    tensor: TensorProto
    factor: float


def bias_of(
    node: NodeProto,
    attributes: Mapping[str, Any],
    weight: TensorProto,
    outputs: int,
    rank: int,
    graph: Graph,
) -> Bias | None:
    """Find the bias of a node with ``outputs`` channels, whose output has ``rank`` dimensions."""
    if len(node.input) > 2 and node.input[2]:
        alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
        factor = beta / alpha if alpha else 0.0
        return _checked(node.input[2], factor, -1, weight, outputs, graph)
    after = _only_consumer(node, graph)
    if after is None:
        return None
    given = {attribute.name for attribute in after.attribute}
    if after.op_type in ("Add", "Sub") and not given and after.input[0] == node.output[0]:
        sign, name = (1.0 if after.op_type == "Add" else -1.0), after.input[1]
    elif after.op_type == "Add" and not given:
        sign, name = 1.0, after.input[0]
    else:
        return None
    axis = 1 - rank if "Conv" in node.op_type else -1
    return _checked(name, sign, axis, weight, outputs, graph)


def _checked(
    name: str, factor: float, axis: int, weight: TensorProto, outputs: int, graph: Graph
) -> Bias | None:
    """A bias, if the value is a constant of its own that varies along the channels' axis alone."""
    tensor = graph.constants.get(name)
    if tensor is None or tensor.data_type != weight.data_type or graph.uses[name] != 1 or not factor:
        return None
    lies = len(tensor.dims) >= -axis and tensor.dims[axis] == outputs == prod(tensor.dims)
    return Bias(name, tensor, factor) if lies else None


def _only_consumer(node: NodeProto, graph: Graph) -> NodeProto | None:
    output = node.output[0]
    consumers = graph.consumers(output) if graph.uses[output] == 1 else []
    return consumers[0] if consumers and is_standard(consumers[0].domain) else None

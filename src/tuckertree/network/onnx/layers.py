"""The convolutions and matrix products of an ONNX graph as layers, with their weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

import torch
from torch import nn

from tuckertree.core.layers import Chain, LayerSpec, weight_of
from tuckertree.network.onnx.biases import Bias, bias_of
from tuckertree.network.onnx.constants import Origin
from tuckertree.network.onnx.elsewhere import Unlisted, count_elsewhere, inner_layers
from tuckertree.network.onnx.files import OnnxFile
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.inputs import Feed
from tuckertree.network.onnx.nodes import (
    PRODUCTS,
    QUANTIZED,
    Shapes,
    attributes_of,
    call_of,
    is_product,
    is_row_major,
    lacking,
    macs_of,
    spec_of,
    weight_place,
)
from tuckertree.network.onnx.parameters import FLOATS
from tuckertree.network.onnx.runtime import constant_of, shapes_of
from tuckertree.planning import DEPTHWISE, Inventory, Layer

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

_QUANTIZING = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
_WRONG_TYPE = "its weight is of a type that is not compressed"
_TRANSPOSED_A = 11
"""First opset in which Gemm needs no C, so that a first product with transA can be written."""


@dataclass(frozen=True)
class OnnxLayer:
    """A node with a constant weight.

    Attributes
    ----------
    node
        The node itself.
    layer
        What it is to the planner.
    weight
        Its weight; None if it is no module of its own, and stays as it is.
    bias
        Where the mean of its output can be corrected, if there is such a constant.
    origin
        Where the weight comes from.
    stored
        Type in which the file holds the weight.
    """

    node: NodeProto
    layer: Layer
    weight: TensorProto | None = None
    bias: Bias | None = None
    origin: Origin | None = None
    stored: torch.dtype = torch.float32


@dataclass(frozen=True)
class OnnxInventory:
    """The layers of an ONNX model: for the planner, and with their nodes by name."""

    inventory: Inventory
    layers: Mapping[str, OnnxLayer]


def take_onnx_inventory(file: OnnxFile, graph: Graph, feed: Feed) -> OnnxInventory:
    """List the convolutions and matrix products of a model by running it once on an example input.

    Parameters are all floating-point constants of the file, statistics of BatchNormalization included, and those
    that were quantized, but no scales; MACs those of convolutions and matrix products outside subgraphs and
    functions. Those with no constant weight are counted in the notes.

    Raises
    ------
    TuckertreeError
        If the model does not run.
    """
    nodes = [node for node in graph.nodes if is_product(node)]
    values = [
        name
        for node in nodes
        for name in (*node.input[:2], node.input[PRODUCTS[node.op_type]], node.output[0])
    ]
    shapes = shapes_of(file, graph, values, feed)
    first = next((node for node in nodes if "Conv" in node.op_type), None)
    layers: dict[str, OnnxLayer] = {}
    unlisted = Unlisted()
    for node, name in zip(nodes, _layer_names(nodes), strict=True):
        place = weight_place(node, graph.values)
        lacks = lacking(node, place, () if place is None else shapes[node.input[place]])
        if lacks or place is None:
            unlisted[node.op_type, lacks] += 1
        else:
            layers[name] = _read_layer(file, node, name, place, graph, shapes, is_first=node is first)
    for node, spec, where in inner_layers(file, graph, unlisted):
        name = _free(node.name or node.output[0], layers)
        layers[name] = OnnxLayer(node, Layer(name, (), spec, (), where, False))
    count_elsewhere(graph, unlisted)
    inventory = Inventory(
        layers=tuple(found.layer for found in layers.values()),
        parameters=graph.parameters,
        macs=sum(macs_of(node, shapes) for node in nodes),
        notes=(*file.notes, *(f"{times} {kind} left out: {why}" for (kind, why), times in unlisted.items())),
    )
    return OnnxInventory(inventory, layers)


@torch.no_grad()
def layer_module(file: OnnxFile, layer: OnnxLayer, padding: tuple[int, ...]) -> nn.Module:
    """A layer of torch with a node's weight and bias; float16 as float32."""
    assert layer.weight is not None
    weight = torch.from_numpy(file.array(layer.weight).copy())
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    if not layer.layer.spec.order and not is_row_major(layer.node):
        weight = weight.T
    module = replace(layer.layer.spec, padding=padding).build(dtype=weight.dtype)
    weight_of(module).copy_(weight)
    if layer.bias is not None:
        bias = torch.from_numpy(file.array(layer.bias.tensor).copy()).flatten()
        module.get_parameter("bias").copy_(bias * layer.bias.factor)
    return module


@torch.no_grad()
def round_as_stored(layers: Mapping[str, OnnxLayer], compressed: nn.Module) -> None:
    """Round chains to the types that the file holds their layers' weights in, where it computes in another."""
    for name, found in layers.items():
        chain = None if found.weight is None else compressed.get_submodule(name)
        for stage in chain if isinstance(chain, Chain) else ():
            weight = weight_of(stage)
            rounded = weight.to(found.stored)
            if rounded.isfinite().all():
                weight.copy_(rounded)


def folded_notes(layers: Mapping[str, OnnxLayer], names: Iterable[str]) -> tuple[str, ...]:
    """What to say of nodes that stood before the weights of these layers."""
    origins = (layers[name].origin for name in names)
    steps = Counter(step.op_type for origin in origins if origin for step in origin.steps)
    listed = ", ".join(f"{times} {kind}" for kind, times in steps.items())
    return (f"folded into the weights: {listed}",) if listed else ()


def _layer_names(nodes: Sequence[NodeProto]) -> list[str]:
    """Names of nodes; where they have none of their own, of what they give."""
    times = Counter(node.name for node in nodes)
    names = [node.name if node.name and times[node.name] == 1 else node.output[0] for node in nodes]
    return names if len({*names}) == len(names) else [node.output[0] for node in nodes]


def _free(name: str, taken: Collection[str]) -> str:
    """A name that is not taken: those in subgraphs need not be unique."""
    numbered = (f"{name}_{number}" for number in count(2))
    return name if name not in taken else next(each for each in numbered if each not in taken)


def _read_layer(
    file: OnnxFile, node: NodeProto, name: str, place: int, graph: Graph, shapes: Shapes, *, is_first: bool
) -> OnnxLayer:
    """Layer of a node whose input ``place`` is a constant weight."""
    value = node.input[place]
    origin = graph.values.origin(value)
    x, y = shapes[node.input[0 if place else 1]], shapes[node.output[0]]
    spec = spec_of(node, shapes[value], x, y, left=not place)
    call = call_of(node, spec, x, y, left=not place)
    if len(shapes[value]) > 2 and not spec.order:
        skip_reason = "its weight is a stack of matrices"
    else:
        skip_reason = _skip_reason(node, spec, place, origin, graph)
    layer = Layer(name, (), spec, (call,), skip_reason, is_first)
    if skip_reason and skip_reason != DEPTHWISE:
        return OnnxLayer(node, layer)
    weight = constant_of(file, graph.values, value)
    if weight.data_type not in FLOATS:
        return OnnxLayer(node, replace(layer, skip_reason=_WRONG_TYPE))
    bias = bias_of(node, attributes_of(node), weight, spec.out_channels, len(y), graph)
    layer = replace(layer, spec=replace(spec, bias=bias is not None))
    stored = getattr(torch, FLOATS[graph.constants[origin.path[-1]].data_type])
    return OnnxLayer(node, layer, weight, bias, origin, stored)


def _skip_reason(node: NodeProto, spec: LayerSpec, place: int, origin: Origin, graph: Graph) -> str:
    """Why a node cannot be replaced by a chain that does exactly the same, or ''."""
    quantized = next((step.op_type for step in origin.steps if step.op_type in _QUANTIZING), "")
    if quantized or node.op_type in QUANTIZED:
        return f"quantized ({quantized or node.op_type}): compress before quantizing"
    if not place:
        return "its weight is on the left"
    if origin.leaves & graph.values.given:
        return "its weight is an input too, which a caller may replace"
    if origin.leaves & graph.values.sparse:
        return "its weight is sparse"
    if origin.foreign:
        return f"its weight goes through {origin.foreign} first"
    if graph.constants[origin.path[-1]].data_type not in FLOATS:
        return _WRONG_TYPE
    if node.input[0] in graph.values:
        return "its input is constant"
    if any(graph.uses[name] > 1 for name in origin.path):
        return "shares its weight with another node"
    given = attributes_of(node)
    if spec.order > 3:
        return "has more than three spatial dimensions"
    if "output_shape" in given:
        return "has output_shape; pads and output_padding can be compressed"
    if given.get("transA") and graph.opset < _TRANSPOSED_A:
        return f"has transA in opset {graph.opset}; opset {_TRANSPOSED_A} can be compressed"
    if not given.get("alpha", 1.0):
        return "alpha is 0"
    if spec.groups > 1 and spec.kernel_shape[1] == 1:
        return DEPTHWISE
    return ""

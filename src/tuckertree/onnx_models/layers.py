"""The convolutions and matrix products of an ONNX graph as layers, with their weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from tuckertree.extras import require_extra
from tuckertree.layers import LayerSpec
from tuckertree.onnx_models.biases import Bias, bias_of
from tuckertree.onnx_models.files import OnnxFile, subgraphs
from tuckertree.onnx_models.graph import FLOATS, Graph, is_standard
from tuckertree.onnx_models.runtime import Feed, shapes_of
from tuckertree.planning import Call, Inventory, Layer

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto

_WEIGHT_INPUT = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
_QUANTISED_INPUT = {"ConvInteger": 1, "MatMulInteger": 1, "QLinearConv": 3, "QLinearMatMul": 3}
_PRODUCTS = _WEIGHT_INPUT | _QUANTISED_INPUT
_TRANSPOSED_A = 11
"""First opset in which Gemm needs no C, so that a first product with transA can be written."""
Shapes = Mapping[str, tuple[int, ...]]


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
        Its weight.
    bias
        Where the mean of its output can be corrected, if there is such a constant.
    """

    node: NodeProto
    layer: Layer
    weight: TensorProto
    bias: Bias | None


@dataclass(frozen=True)
class OnnxInventory:
    """The layers of an ONNX model: for the planner, and with their nodes by name."""

    inventory: Inventory
    layers: Mapping[str, OnnxLayer]


def take_onnx_inventory(file: OnnxFile, graph: Graph, feed: Feed) -> OnnxInventory:
    """List the convolutions and matrix products of a model by running it once on an example input.

    Parameters are all floating-point constants of the file, statistics of BatchNormalization included; MACs those
    of convolutions and matrix products outside subgraphs.

    Raises
    ------
    TuckertreeError
        If the model does not run.
    """
    nodes = [node for node in graph.nodes if node.op_type in _PRODUCTS and is_standard(node.domain)]
    values = [
        name
        for node in nodes
        for name in (node.input[0], node.input[_PRODUCTS[node.op_type]], node.output[0])
    ]
    shapes = shapes_of(file, graph, values, feed)
    names = _layer_names(nodes)
    first = next((node for node in nodes if "Conv" in node.op_type), None)
    layers: dict[str, OnnxLayer] = {}
    for node, name in zip(nodes, names, strict=True):
        found = _read_layer(node, name, graph, shapes, is_first=node is first)
        if found is not None:
            layers[name] = found
    _add_inner(graph.proto.graph, graph, layers)
    macs = sum(_macs(node, shapes) for node in nodes)
    inventory = Inventory(tuple(found.layer for found in layers.values()), graph.parameters, macs)
    return OnnxInventory(inventory, layers)


class Skeleton(nn.Module):
    """Torch modules with the weights of layers, by the layers' names: what planner and calibration work on.

    It is never run. A name of a node may be anything, so it is no path of modules here.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._places = {name: place for place, name in enumerate(modules)}
        self._list = nn.ModuleList(modules.values())

    def get_submodule(self, target: str) -> nn.Module:
        """The module of the layer named ``target``."""
        if target not in self._places:
            raise AttributeError(target)
        return self._list[self._places[target]]


def build_skeleton(file: OnnxFile, layers: Sequence[OnnxLayer]) -> Skeleton:
    """Read the weights of layers, in the types they are stored in."""
    return Skeleton({layer.layer.name: _module(file, layer) for layer in layers})


@torch.no_grad()
def _module(file: OnnxFile, layer: OnnxLayer) -> nn.Module:
    weight = torch.from_numpy(file.array(layer.weight).copy())
    if not layer.layer.spec.order and not is_row_major(layer.node):
        weight = weight.T
    module = layer.layer.spec.build(dtype=weight.dtype)
    cast("Tensor", module.weight).copy_(weight)
    if layer.bias is not None:
        bias = torch.from_numpy(file.array(layer.bias.tensor).copy()).flatten()
        cast("Tensor", module.bias).copy_(bias * layer.bias.factor)
    return module


def is_row_major(node: NodeProto) -> bool:
    """Whether the weight of a matrix product is ``[T, C]``, as in torch."""
    return bool(attributes_of(node).get("transB", 0))


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Values of a node's attributes by name."""
    helper = require_extra("onnx.helper", extra="onnx")
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def auto_pad_of(node: NodeProto) -> str:
    """Value of ``auto_pad``."""
    return cast("bytes", attributes_of(node).get("auto_pad", b"NOTSET")).decode()


def _layer_names(nodes: Sequence[NodeProto]) -> list[str]:
    """Names of nodes; where they have none of their own, of what they give."""
    count = Counter(node.name for node in nodes)
    names = [node.name if node.name and count[node.name] == 1 else node.output[0] for node in nodes]
    return names if len({*names}) == len(names) else [node.output[0] for node in nodes]


def _read_layer(
    node: NodeProto, name: str, graph: Graph, shapes: Shapes, *, is_first: bool
) -> OnnxLayer | None:
    """Layer of a node, or None if there is no constant behind its weight."""
    weight_name = node.input[_PRODUCTS[node.op_type]]
    weight, step = graph.origin(weight_name)
    if weight is None or len(weight.dims) < 2 or not all(weight.dims):
        return None
    x, y = shapes[node.input[0]], shapes[node.output[0]]
    spec = _spec(node, tuple(weight.dims), x, y)
    if spec is None:
        return None
    bias = bias_of(node, attributes_of(node), weight, spec.out_channels, len(y), graph)
    spec = replace(spec, bias=bias is not None)
    call = _call(node, spec, x, y)
    refusal = _refusal(node, spec, weight, step, graph)
    return OnnxLayer(node, Layer(name, (), spec, (call,), refusal, is_first), weight, bias)


def _refusal(node: NodeProto, spec: LayerSpec, weight: TensorProto, step: str, graph: Graph) -> str:
    """Why a node cannot be replaced by a chain that does exactly the same, or ''."""
    name = node.input[_PRODUCTS[node.op_type]]
    given = attributes_of(node)
    if node.op_type in _QUANTISED_INPUT or step == "DequantizeLinear":
        return f"quantised ({step or node.op_type}): compress before quantising"
    if step:
        return f"its weight goes through {step} first"
    if weight.data_type not in FLOATS:
        return "its weight is of a type that is not compressed"
    if node.input[0] in graph.constants:
        return "its input is constant"
    if graph.uses[name] > 1:
        return "shares its weight with another node"
    if len(weight.dims) != (spec.order + 2 if spec.order else 2):
        return "its weight is a stack of matrices"
    if spec.order > 3:
        return "has more than three spatial dimensions"
    if "output_shape" in given:
        return "has output_shape; pads and output_padding can be compressed"
    if given.get("transA") and graph.opset < _TRANSPOSED_A:
        return f"has transA in opset {graph.opset}; opset {_TRANSPOSED_A} can be compressed"
    if not given.get("alpha", 1.0):
        return "its product counts for nothing (alpha is 0)"
    if spec.groups > 1 and spec.kernel_shape[1] == 1:
        return "depthwise: no channel mode to compress"
    return ""


def _spec(node: NodeProto, dims: tuple[int, ...], x: Sequence[int], y: Sequence[int]) -> LayerSpec | None:
    given = attributes_of(node)
    if "Conv" not in node.op_type:
        inputs, outputs = dims[-2:] if not given.get("transB") else dims[::-1][:2]
        return LayerSpec(inputs, outputs, bias=False)
    order = len(dims) - 2
    groups, transposed = given.get("group", 1), node.op_type == "ConvTranspose"
    if order < 1 or dims[0] % groups:
        return None
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


def _call(node: NodeProto, spec: LayerSpec, x: tuple[int, ...], y: tuple[int, ...]) -> Call:
    if spec.order:
        return Call(x[0], x[2:], y[2:])
    x = x[::-1] if attributes_of(node).get("transA") else x
    positions = (prod(x[1:-1]),)
    return Call(x[0] if len(x) > 1 else 1, positions, positions)


def _macs(node: NodeProto, shapes: Shapes) -> int:
    x, w, y = (shapes[name] for name in (node.input[0], node.input[_PRODUCTS[node.op_type]], node.output[0]))
    if node.op_type == "ConvTranspose":
        return prod(x) * prod(w[1:])
    if "Conv" in node.op_type:
        return prod(y) * prod(w[1:])
    return prod(y) * (x[0] if attributes_of(node).get("transA") else x[-1])


def _add_inner(graph: GraphProto, outer: Graph, layers: dict[str, OnnxLayer]) -> None:
    """List layers in subgraphs, which stay as they are."""
    for node in graph.node:
        for inner in subgraphs(node):
            constants = {**outer.constants, **{tensor.name: tensor for tensor in inner.initializer}}
            for found in inner.node:
                weight = constants.get(found.input[1]) if found.op_type in _WEIGHT_INPUT else None
                if weight is None or len(weight.dims) < 2:
                    continue
                flat = (1,) * len(weight.dims)
                spec = _spec(found, tuple(weight.dims), flat, flat)
                name = found.name or found.output[0]
                if spec is not None and name not in layers:
                    layer = Layer(
                        name, (), spec, (), f"inside the {node.op_type} {node.name}".rstrip(), False
                    )
                    layers[name] = OnnxLayer(found, layer, weight, None)
            _add_inner(inner, outer, layers)

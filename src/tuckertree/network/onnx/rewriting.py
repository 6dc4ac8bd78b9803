"""Chains in the place of nodes: a new message in which nothing else is touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tuckertree._base.extras import require_extra
from tuckertree.core.layers import Chain, LayerSpec, Stage, weight_of
from tuckertree.network.onnx.constants import set_value, value_of
from tuckertree.network.onnx.graph import INPUTS_LISTED, Graph, used_values
from tuckertree.network.onnx.layers import OnnxLayer
from tuckertree.network.onnx.module import OnnxModule
from tuckertree.network.onnx.nodes import attributes_of, auto_pad_of, is_row_major
from tuckertree.network.onnx.parameters import FLOATS

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto


def rewrite(
    graph: Graph, layers: Mapping[str, OnnxLayer], before: OnnxModule, after: nn.Module
) -> ModelProto:
    """Copy a model with what has changed in its module: chains, weights, biases, norms, numbers of channels.

    Parameters
    ----------
    graph
        The model; it is not changed.
    layers
        Its layers by name.
    before, after
        Its module, and a copy with chains in the place of some layers, or other values. The last node of a chain gives
        the value that the node gave, under the same name.
    """
    index = Graph(graph.proto)  # names taken for this copy are free again for the next
    proto = type(graph.proto)()
    proto.CopyFrom(graph.proto)
    writers: dict[str, _Writer] = {}
    values: dict[str, TensorProto] = {}
    for name, found in layers.items():
        if found.weight is None:
            continue
        old, new = before.get_submodule(name), after.get_submodule(name)
        if isinstance(new, Chain) or not _same(old.weight, new.weight):
            writers[found.node.output[0]] = _Writer(index, found, new)
        last = new[-1] if isinstance(new, Chain) else new
        if found.bias is not None and not _same(old.bias, last.bias):
            bias = last.get_parameter("bias").detach() / found.bias.factor
            values[found.bias.name] = _like(found.bias.tensor, bias)
    for name, norm in before.norms.items():
        old, new = before.get_submodule(name), after.get_submodule(name)
        for own, constant in norm.named().items():
            if not _same(getattr(old, own), getattr(new, own)):
                values[constant] = _like(graph.constants[constant], getattr(new, own))
    nodes: list[NodeProto] = []
    tensors: list[TensorProto] = []
    for node in graph.nodes:
        writer = writers.get(node.output[0]) if node.output else None
        if writer is None:
            nodes.append(node)
        else:
            nodes += writer.nodes()
            tensors += writer.tensors
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(tensors)
    if proto.ir_version < INPUTS_LISTED:
        helper = require_extra("onnx.helper", extra="onnx")
        proto.graph.input.extend(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in tensors
        )
    _drop_unused(proto, [writer.layer for writer in writers.values()])
    _set_values(proto, values)
    if any(writer.is_narrower for writer in writers.values()):
        del proto.graph.value_info[:]  # it tells of the sizes that were
    return proto


def _same(old: object, new: object) -> bool:
    return isinstance(old, Tensor) and isinstance(new, Tensor) and torch.equal(old, new)


def _like(tensor: TensorProto, values: Tensor) -> TensorProto:
    """Values in the type of a constant, along the axis that it has."""
    numpy_helper = require_extra("onnx.numpy_helper", extra="onnx")
    shape = [size if size == 1 else len(values) for size in tensor.dims]
    array = values.reshape(shape).to(getattr(torch, FLOATS[tensor.data_type]))
    made: TensorProto = numpy_helper.from_array(array.numpy(force=True))
    return made


class _Writer:
    """Writes one node anew as nodes and tensors: a chain, or the node with another weight."""

    def __init__(self, graph: Graph, layer: OnnxLayer, module: nn.Module) -> None:
        self.layer, self.tensors, self._casts = layer, list[Any](), list[Any]()
        self._graph, self._module = graph, module
        self._node = layer.node
        self._given = attributes_of(layer.node)

    @property
    def is_narrower(self) -> bool:
        """Whether the layer has fewer channels than it had."""
        if isinstance(self._module, Chain):
            return False
        spec = LayerSpec.of(self._module)
        return (spec.kernel_shape, spec.groups) != (
            self.layer.layer.spec.kernel_shape,
            self.layer.layer.spec.groups,
        )

    def nodes(self) -> Iterator[NodeProto]:
        """The nodes in their order; their tensors are in ``tensors`` afterwards."""
        if isinstance(self._module, Chain):
            yield from self._chain(self._module)
            return
        node = type(self._node)()
        node.CopyFrom(self._node)
        weight = weight_of(self._module)
        is_row = bool(self.layer.layer.spec.order) or is_row_major(self._node)
        node.input[1] = self._tensor(f"{self.layer.layer.name}/weight", weight if is_row else weight.T)
        for attribute in node.attribute:
            if attribute.name == "group":
                attribute.i = LayerSpec.of(self._module).groups
        yield from self._casts
        yield node

    def _chain(self, chain: Chain) -> Iterator[NodeProto]:
        value = self._node.input[0]
        last = len(chain.stages) - 1
        for number, (stage, module) in enumerate(zip(chain.stages, chain, strict=True)):
            name = f"{self.layer.layer.name}/{stage.name}"
            weight = weight_of(module)
            inputs = [value, self._tensor(f"{name}/weight", self._laid_out(weight, first=number == 0))]
            yield from self._casts
            self._casts.clear()
            if number == last:
                inputs += self._node.input[2:]
                value = self._node.output[0]
            else:
                value = self._graph.new_name(f"{name}/output")
            kind, attributes = (
                self._convolution(stage)
                if chain.dense.order
                else self._product(first=number == 0, last=number == last)
            )
            yield self._make(kind, inputs, value, self._graph.new_name(name), attributes, last=number == last)

    def _make(
        self,
        kind: str,
        inputs: list[str],
        output: str,
        name: str,
        attributes: dict[str, object],
        *,
        last: bool,
    ) -> NodeProto:
        helper = require_extra("onnx.helper", extra="onnx")
        node: NodeProto = helper.make_node(
            kind, inputs, [output], name=name, domain=self._node.domain, **attributes
        )
        if last:
            node.doc_string = self._node.doc_string
            node.metadata_props.extend(self._node.metadata_props)
        return node

    def _tensor(self, wanted: str, values: Tensor) -> str:
        """Add a tensor, in the type that the file held the weight in if its values are of that type."""
        numpy_helper = require_extra("onnx.numpy_helper", extra="onnx")
        helper = require_extra("onnx.helper", extra="onnx")
        assert self.layer.weight is not None
        values = values.to(
            getattr(torch, FLOATS[self.layer.weight.data_type])
        )  # float16 is computed in float32
        name, stored = self._graph.new_name(wanted), values.to(self.layer.stored)
        if stored.itemsize < values.itemsize and stored.to(values.dtype).equal(values):
            kind = helper.np_dtype_to_tensor_dtype(values.numpy(force=True).dtype)
            held = self._graph.new_name(f"{name}/stored")
            cast_name = self._graph.new_name(f"{name}/cast")
            self._casts.append(helper.make_node("Cast", [held], [name], name=cast_name, to=kind))
        else:
            held, stored = name, values
        self.tensors.append(numpy_helper.from_array(stored.contiguous().numpy(force=True), held))
        return name

    def _laid_out(self, weight: Tensor, *, first: bool) -> Tensor:
        """A stage's weight as its node takes it; the first of two products is always ``[C, R]``."""
        if self.layer.layer.spec.order or (is_row_major(self._node) and not first):
            return weight
        return weight.T

    def _product(self, *, first: bool, last: bool) -> tuple[str, dict[str, object]]:
        """The second product of a Gemm has what the node had but ``transA``, which is the first one's."""
        if self._node.op_type == "MatMul":
            return "MatMul", {}
        if last:
            return "Gemm", {key: value for key, value in self._given.items() if key != "transA"}
        return ("Gemm", {"transA": 1}) if first and self._given.get("transA") else ("MatMul", {})

    def _convolution(self, stage: Stage) -> tuple[str, dict[str, object]]:
        spec = stage.spec
        attributes: dict[str, object] = {
            "kernel_shape": spec.kernel_size,
            "strides": spec.stride,
            "group": spec.groups,
        }
        if any(rate > 1 for rate in spec.dilation):
            attributes["dilations"] = spec.dilation
        auto_pad = auto_pad_of(self._node)
        if auto_pad == "NOTSET":
            pads = self._given.get("pads", (0,) * 2 * spec.order)
            attributes["pads"] = [
                pad if place % spec.order in stage.axes else 0 for place, pad in enumerate(pads)
            ]
        elif stage.axes:
            attributes["auto_pad"] = auto_pad
        if spec.transposed and any(spec.output_padding):
            attributes["output_padding"] = spec.output_padding
        return ("ConvTranspose" if spec.transposed else "Conv"), attributes


def _set_values(proto: ModelProto, values: Mapping[str, TensorProto]) -> None:
    """Give constants other values under their old names."""
    for tensor in proto.graph.initializer:
        if tensor.name in values:
            name = tensor.name
            tensor.CopyFrom(values[name])
            tensor.name = name
    for node in proto.graph.node:
        if value_of(node) is not None and node.output[0] in values:
            set_value(node, values[node.output[0]])


def _drop_unused(proto: ModelProto, replaced: Sequence[OnnxLayer]) -> None:
    """Remove what only weights of replaced nodes were made of, and what is said of it elsewhere."""
    graph, origins = proto.graph, [layer.origin for layer in replaced if layer.origin]
    made = {name for origin in origins for step in origin.steps for name in step.output}
    left = {name for origin in origins for name in (*origin.path, *origin.leaves)} | made
    while gone := left - {*used_values(graph)}:
        left -= gone
        for values in (graph.initializer, graph.value_info, graph.input):
            _remove(values, lambda value: value.name in gone)
        _remove(graph.node, lambda node: any(node.output) and {*filter(None, node.output)} <= gone)
        _remove(graph.quantization_annotation, lambda value: value.tensor_name in gone)


def _remove(values: Any, is_gone: Any) -> None:
    for place in reversed([place for place, value in enumerate(values) if is_gone(value)]):
        del values[place]

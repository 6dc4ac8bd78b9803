"""Plain layers, one after the other, written as ONNX nodes: what torch's exporter takes a second for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tuckertree._base.extras import require_extra
from tuckertree.core.layers import DENSE_TYPES, LayerSpec, bias_of, weight_of

_OPSET, _IR_VERSION = 20, 10
_INPUT = "inputs_0"
_TYPES = (torch.float16, torch.float32, torch.float64)


def is_plain(model: nn.Module, inputs: Sequence[Tensor]) -> bool:
    """Whether a module is convolutions that pad with zeros, or linear layers, and takes one batch."""
    layers = list(_layers(model))
    return (
        len(inputs) == 1
        and bool(layers)
        and all(type(layer) in DENSE_TYPES and _is_written(layer, inputs[0]) for layer in layers)
    )


def plain_to_onnx(model: nn.Module, inputs: Sequence[Tensor]) -> Any:
    """Convert plain layers, for exactly this shape of input.

    Parameters
    ----------
    model
        Of which :func:`is_plain` is true.

    Returns
    -------
    onnx.ModelProto
        The same nodes as torch's exporter makes.

    Raises
    ------
    TuckertreeError
        If the extra is not installed.
    """
    helper = require_extra("onnx.helper", extra="onnx")
    numpy_helper = require_extra("onnx.numpy_helper", extra="onnx")
    nodes, tensors, value = [], list[Any](), _INPUT

    def stored(name: str, values: Tensor) -> str:
        tensors.append(numpy_helper.from_array(values.detach().contiguous().numpy(force=True), name))
        return name

    for number, layer in enumerate(_layers(model)):
        weight, bias, result = weight_of(layer), bias_of(layer), f"output_{number}"
        held = [] if bias is None else [stored(f"bias_{number}", bias)]
        name = f"weight_{number}"
        if not isinstance(layer, nn.Linear):
            kind = "ConvTranspose" if LayerSpec.of(layer).transposed else "Conv"
            given = [value, stored(name, weight), *held]
            nodes.append(helper.make_node(kind, given, [result], **_attributes(LayerSpec.of(layer))))
        elif inputs[0].ndim == 2:
            nodes.append(helper.make_node("Gemm", [value, stored(name, weight), *held], [result], transB=1))
        else:
            product = f"product_{number}" if held else result
            nodes.append(helper.make_node("MatMul", [value, stored(name, weight.T)], [product]))
            if held:
                nodes.append(helper.make_node("Add", [product, *held], [result]))
        value = result
    kind = helper.np_dtype_to_tensor_dtype(inputs[0].numpy(force=True).dtype)
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info(_INPUT, kind, list(inputs[0].shape))],
        [helper.make_tensor_value_info(value, kind, [None] * inputs[0].ndim)],
        tensors,
    )
    opsets = [helper.make_opsetid("", _OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    """The layers of sequences in sequences, in their order; any other module as it is."""
    if isinstance(model, nn.Sequential) and type(model).forward is nn.Sequential.forward:
        for child in model:
            yield from _layers(child)
    else:
        yield model


def _is_written(layer: nn.Module, x: Tensor) -> bool:
    spec = LayerSpec.of(layer)
    if x.dtype not in _TYPES or any(p.dtype != x.dtype for p in layer.parameters()):
        return False
    if not spec.order:
        return x.ndim > 1
    return x.ndim == spec.order + 2 and spec.padding_mode == "zeros"


def _attributes(spec: LayerSpec) -> dict[str, object]:
    before, after = _padding(spec)
    attributes: dict[str, object] = {
        "kernel_shape": spec.kernel_size,
        "strides": spec.stride,
        "dilations": spec.dilation,
        "group": spec.groups,
        "pads": (*before, *after),
    }
    if spec.transposed:
        attributes["output_padding"] = spec.output_padding
    return attributes


def _padding(spec: LayerSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Zeros before and behind each axis; what is odd of ``"same"`` torch puts behind."""
    if not isinstance(spec.padding, str):
        return spec.padding, spec.padding
    if spec.padding == "valid":
        return (0,) * spec.order, (0,) * spec.order
    totals = [rate * (taps - 1) for rate, taps in zip(spec.dilation, spec.kernel_size, strict=True)]
    return tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)

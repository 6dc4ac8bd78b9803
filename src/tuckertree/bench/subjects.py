"""What can be timed: a network of torch, or an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tuckertree.errors import TuckertreeError, UsageError
from tuckertree.extras import require_extra
from tuckertree.formats.folder import TENSORS
from tuckertree.measure import count_macs
from tuckertree.opening import open_model


@dataclass(frozen=True)
class Subject:
    """Something to time.

    Attributes
    ----------
    name
        As the user named it.
    model
        A module in evaluation mode on the CPU, or None for a file.
    file
        An ONNX file, or None for a module.
    inputs
        What it runs on, of the batch that is timed.
    macs
        Multiply-accumulates for one sample.
    size
        Bytes of its file; for a network that has none, of its parameters and buffers.
    """

    name: str
    model: nn.Module | None
    file: Path | None
    inputs: Tensor
    macs: int
    size: int


def open_subject(
    source: str,
    *,
    batch: int = 1,
    architecture: str | None = None,
    input_size: tuple[int, ...] | None = None,
) -> Subject:
    """Open a network by its name, its saved folder or its ONNX file.

    Raises
    ------
    TuckertreeError
        If it cannot be opened, or an ONNX file has other inputs than one of floating-point numbers.
    UsageError
        If an ONNX file has another batch, or free sizes and no ``input_size`` is given.
    """
    if source.lower().endswith(".onnx"):
        return _open_onnx(Path(source), batch, input_size)
    folder = Path(source) if Path(source).is_dir() else None
    opened = open_model(source, architecture=architecture if folder else None, input_size=input_size)
    inputs = _random((batch, *opened.example_inputs.shape[1:]), opened.example_inputs.dtype)
    size = (folder / TENSORS).stat().st_size if folder else None
    return of_model(source, opened.model, inputs, size)


def of_model(name: str, model: nn.Module, inputs: Tensor, size: int | None = None) -> Subject:
    """Make a subject of a module, without ``size`` of the size of its parameters and buffers."""
    if size is None:
        tensors = (*model.parameters(), *model.buffers())
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return Subject(name, model, None, inputs, count_macs(model, inputs) // len(inputs), size)


def _open_onnx(path: Path, batch: int, input_size: tuple[int, ...] | None) -> Subject:
    if not path.is_file():
        raise TuckertreeError(f"there is no file {path}")
    onnx = require_extra("onnx", extra="onnx")
    try:
        proto = onnx.load(path)
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TuckertreeError(f"{path} is not an ONNX model that can be read: {first}") from error
    shape = _input_shape(proto, path, batch, input_size)
    inputs = _random(shape, torch.float32)
    return Subject(str(path), None, path, inputs, onnx_macs(proto, inputs) // batch, path.stat().st_size)


def _input_shape(proto: Any, path: Path, batch: int, input_size: tuple[int, ...] | None) -> tuple[int, ...]:
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type != 1:  # FLOAT
        raise TuckertreeError(f"{path} must have one input, of single-precision numbers, to be timed")
    sizes = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]  # 0 where it is free
    wanted = [batch, *(input_size if input_size is not None else sizes[1:])]
    if len(wanted) != len(sizes) or any(a and a != b for a, b in zip(sizes, wanted, strict=True)):
        raise UsageError(f"{path} takes inputs {[n or '?' for n in sizes]}, not {wanted}")
    if not all(wanted):
        raise UsageError(f"give --input-size: {path} takes inputs of several sizes")
    return tuple(wanted)


def onnx_macs(proto: Any, inputs: Tensor) -> int:
    """Multiply-accumulates of an ONNX model's convolutions and matrix products, on one input.

    The model is run once with the tensors around them as outputs: shape inference knows less where sizes are free.

    Parameters
    ----------
    proto
        An ``onnx.ModelProto`` with one input.

    Raises
    ------
    TuckertreeError
        If ONNX Runtime cannot run the model.
    """
    onnx, ort = (require_extra(name, extra="onnx") for name in ("onnx", "onnxruntime"))
    nodes = [node for node in proto.graph.node if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    shapes |= {value.name: tuple(inputs.shape) for value in proto.graph.input if value.name not in shapes}
    wanted = sorted({name for node in nodes for name in (*node.input[:2], node.output[0])} - set(shapes))
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    del copied.graph.output[:]
    copied.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in wanted)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3  # errors alone
    try:
        runnable = ort.InferenceSession(
            copied.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        found = runnable.run(wanted, {runnable.get_inputs()[0].name: inputs.numpy()}) if wanted else []
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TuckertreeError(f"the ONNX model does not run: {first}") from error
    shapes |= {name: tuple(value.shape) for name, value in zip(wanted, found, strict=True)}
    return sum(_node_macs(node, shapes) for node in nodes)


def _node_macs(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    first, second, out = (shapes[name] for name in (*node.input[:2], node.output[0]))
    if node.op_type == "Conv":
        return prod(out) * prod(second[1:])
    if node.op_type == "ConvTranspose":
        return prod(first) * prod(second[1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return prod(out) * first[0 if transposed else -1]


def _random(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)

"""What can be timed: a network of torch, or an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tuckertree.errors import TuckertreeError, UsageError
from tuckertree.formats.folder import TENSORS
from tuckertree.measure import count_macs
from tuckertree.onnx_models import read_onnx
from tuckertree.onnx_models.graph import Graph
from tuckertree.onnx_models.layers import take_onnx_inventory
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
        Bytes of its file, external data included; for a network that has none, of its parameters and buffers.
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
    file = read_onnx(path)
    graph = Graph(file.proto)
    inputs = _random(_input_shape(graph, path, batch, input_size), torch.float32)
    found = take_onnx_inventory(file, graph, {graph.inputs[0]: inputs.numpy()})
    return Subject(str(path), None, path, inputs, found.inventory.macs // batch, file.size)


def _input_shape(graph: Graph, path: Path, batch: int, input_size: tuple[int, ...] | None) -> tuple[int, ...]:
    inputs = [value for value in graph.proto.graph.input if value.name in graph.inputs]
    if len(inputs) != 1 or inputs[0].type.tensor_type.elem_type != 1:  # FLOAT
        raise TuckertreeError(f"{path} must have one input, of single-precision numbers, to be timed")
    sizes = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]  # 0 where it is free
    wanted = [batch, *(input_size if input_size is not None else sizes[1:])]
    if len(wanted) != len(sizes) or any(a and a != b for a, b in zip(sizes, wanted, strict=True)):
        raise UsageError(f"{path} takes inputs {[n or '?' for n in sizes]}, not {wanted}")
    if not all(wanted):
        raise UsageError(f"give --input-size: {path} takes inputs of several sizes")
    return tuple(wanted)


def _random(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)

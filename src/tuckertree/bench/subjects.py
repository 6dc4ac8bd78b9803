"""What can be timed: a network of torch, or an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tuckertree.errors import TuckertreeError
from tuckertree.formats.folder import TENSORS
from tuckertree.measure import count_macs
from tuckertree.names import TrustedName
from tuckertree.onnx_models import read_onnx
from tuckertree.onnx_models.graph import Graph
from tuckertree.onnx_models.layers import take_onnx_inventory
from tuckertree.onnx_models.runtime import example_feed, repeated
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
    source: TrustedName | Path,
    *,
    batch: int = 1,
    architecture: TrustedName | None = None,
    input_size: tuple[int, ...] | None = None,
) -> Subject:
    """Open a network by its name, its saved folder or its ONNX file.

    Raises
    ------
    TuckertreeError
        If it cannot be opened, or an ONNX file has several inputs.
    UsageError
        If an ONNX file has another batch, or free sizes and no ``input_size`` is given.
    """
    if str(source).lower().endswith(".onnx"):
        return _open_onnx(Path(source), batch, input_size)
    folder = Path(source) if Path(source).is_dir() else None
    opened = open_model(source, architecture=architecture if folder else None, input_size=input_size)
    inputs = _random((batch, *opened.example_inputs.shape[1:]), opened.example_inputs.dtype)
    size = (folder / TENSORS).stat().st_size if folder else None
    return of_model(str(source), opened.model, inputs, size)


def of_model(name: str, model: nn.Module, inputs: Tensor, size: int | None = None) -> Subject:
    """Make a subject of a module, without ``size`` of the size of its parameters and buffers."""
    if size is None:
        tensors = (*model.parameters(), *model.buffers())
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return Subject(name, model, None, inputs, count_macs(model, inputs) // len(inputs), size)


def _open_onnx(path: Path, batch: int, input_size: tuple[int, ...] | None) -> Subject:
    file = read_onnx(path)
    graph = Graph(file.proto)
    if len(graph.inputs) != 1:
        raise TuckertreeError(f"{path} has {len(graph.inputs)} inputs; a model of one can be timed")
    feed = repeated(example_feed(graph, input_size), graph, batch)
    found = take_onnx_inventory(file, graph, feed)
    inputs = torch.from_numpy(feed[graph.inputs[0]])
    return Subject(str(path), None, path, inputs, found.inventory.macs // batch, file.size)


def _random(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)

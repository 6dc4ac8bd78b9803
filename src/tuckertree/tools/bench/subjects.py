"""What can be timed: a network of torch, or an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree._base.names import TrustedName
from tuckertree.io import local_folder
from tuckertree.io.folder import TENSORS
from tuckertree.measure import count_macs
from tuckertree.network.onnx import read_onnx
from tuckertree.network.onnx.examples import example_feed
from tuckertree.network.onnx.functions import inlined
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.inputs import Sizes, Values, repeated
from tuckertree.network.onnx.layers import take_onnx_inventory
from tuckertree.planning import Plan
from tuckertree.tools.opening import names_a_folder, open_model


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
    inputs, more_inputs
        What it runs on, of the batch that is timed: the first input, and the others of an ONNX file.
    macs
        Multiply-accumulates for one sample.
    size
        Bytes of its file, external data included; for a network that has none, of its parameters and buffers.
    plan
        For a saved folder, the plan that made it.
    """

    name: str
    model: nn.Module | None
    file: Path | None
    inputs: Tensor
    macs: int
    size: int
    more_inputs: tuple[Tensor, ...] = ()
    plan: Plan | None = None

    @property
    def all_inputs(self) -> list[Tensor]:
        """All inputs in their order."""
        return [self.inputs, *self.more_inputs]


def open_subject(
    source: TrustedName | Path,
    *,
    batch: int = 1,
    architecture: TrustedName | None = None,
    input_size: Sizes = None,
    input_values: Values = None,
    fused: bool = False,
) -> Subject:
    """Open a network by its name, its saved folder, ``fused`` or in its factors, or its ONNX file.

    Raises
    ------
    TuckertreeError
        If it cannot be opened.
    UsageError
        If an ONNX file has another batch, or free sizes and no ``input_size`` is given, or another network is given
        what belongs to an ONNX file.
    """
    if str(source).lower().endswith(".onnx"):
        return _open_onnx(Path(source), batch, input_size, input_values)
    if isinstance(input_size, Mapping) or input_values:
        raise UsageError(f"sizes and values by the names of inputs belong to ONNX models, not to {source}")
    folder = local_folder(source) if names_a_folder(source) else None
    opened = open_model(
        folder or source,
        architecture=architecture if folder else None,
        input_size=None if input_size is None else tuple(input_size),
        fused=fused,
    )
    inputs = _random((batch, *opened.example.shape[1:]), opened.example.dtype)
    if opened.int8 is not None:
        file = read_onnx(opened.int8)
        subject = of_model(str(source), opened.model, inputs, file.size)
        return replace(subject, model=None, file=opened.int8, plan=opened.plan)
    size = (folder / TENSORS).stat().st_size if folder and not opened.fused else None
    return replace(of_model(str(source), opened.model, inputs, size), plan=opened.plan)


def of_model(name: str, model: nn.Module, inputs: Tensor, size: int | None = None) -> Subject:
    """Make a subject of a module, without ``size`` of the size of its parameters and buffers."""
    if size is None:
        tensors = (*model.parameters(), *model.buffers())
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return Subject(name, model, None, inputs, count_macs(model, inputs) // len(inputs), size)


def _open_onnx(path: Path, batch: int, input_size: Sizes, input_values: Values) -> Subject:
    file = read_onnx(path)
    graph = Graph(file.proto)
    if not graph.inputs:
        raise TuckertreeError(f"{path} has no inputs: it computes a constant, which is not timed")
    feed = repeated(example_feed(graph, input_size, input_values=input_values), graph, batch)
    file = inlined(file, feed)
    found = take_onnx_inventory(file, Graph(file.proto), feed)
    first, *others = (torch.from_numpy(feed[name]) for name in graph.inputs)
    return Subject(str(path), None, path, first, found.inventory.macs // batch, file.size, tuple(others))


def _random(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)

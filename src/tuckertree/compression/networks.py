"""What compress() takes: a network of torch, or an ONNX file as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from tuckertree._base.errors import UsageError
from tuckertree.calibration import Calibration, CalibrationData, check_images, rebalance_for_int8
from tuckertree.compression.int8 import Fits, Int8Network, check_positional, quantize_file, quantize_network
from tuckertree.compression.network import Network
from tuckertree.compression.onnx_batches import FeedBatch, first_sample, onnx_calibration, trial_feeds
from tuckertree.compression.onnx_output import OnnxOutput
from tuckertree.io.sizes import Size, size_of
from tuckertree.latency import LatencyTarget, fuse_as_planned
from tuckertree.latency.files import FileBenchmark, count_as_run, layer_benchmark, onnx_runtime_of
from tuckertree.measure import ExampleInputs, preserved
from tuckertree.measure.snapshot import Snapshot
from tuckertree.network.hidden import find_hidden, may_go
from tuckertree.network.onnx.files import read_onnx
from tuckertree.network.onnx.functions import inlined
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.inputs import Array, Feed, Sizes, Values, fixed_batch
from tuckertree.network.onnx.layers import OnnxInventory, round_as_stored, take_onnx_inventory
from tuckertree.network.onnx.module import OnnxModule
from tuckertree.network.onnx.rewriting import rewrite
from tuckertree.network.onnx.writing import check_onnx_output, data_file, written
from tuckertree.network.probing import check_hidden, check_result, probe
from tuckertree.network.surgery import is_compressed, to_dense
from tuckertree.planning import Budget, Inventory, Layer, Options, Plan, check_model, take_inventory
from tuckertree.planning.channels import HiddenChannels
from tuckertree.runtimes import INT8

if TYPE_CHECKING:
    from onnx import ModelProto

_OPSET = 13
"""In which ONNX quantizes with a scale for each channel."""
_IMAGES = 32
"""That the factors of chains are chosen by, before a file is quantized."""


class TorchNetwork(Network):
    """A torch model, called with example inputs; one that is compressed already is multiplied out."""

    layers_are = "torch convolution or linear layer"

    def __init__(self, model: nn.Module, example_inputs: ExampleInputs) -> None:
        check_model(model)
        self._model = to_dense(model) if is_compressed(model) else model
        self._inputs = example_inputs
        self._state: Snapshot | None = None

    @property
    def module(self) -> nn.Module:
        """As :attr:`Network.module`."""
        return self._model

    @property
    def example(self) -> ExampleInputs:
        """As :attr:`Network.example`."""
        return self._inputs

    @property
    def input_size(self) -> Size | None:
        """As :attr:`Network.input_size`."""
        return size_of(self._inputs)

    def images(self, source: CalibrationData) -> Calibration:
        """As :meth:`Network.images`."""
        return Calibration(source, example=self._inputs)

    @contextmanager
    def opened(self, images: Calibration | None) -> Iterator[None]:  # noqa: ARG002
        """As :meth:`Network.opened`."""
        with preserved(self._model) as state:
            self._state = state
            yield

    def inventory(self) -> Inventory:
        """As :meth:`Network.inventory`."""
        return take_inventory(self._model, self._inputs)

    def probed(self, inventory: Inventory, options: Options | None = None) -> Inventory:
        """As :meth:`Network.probed`."""
        return probe(self._model, inventory, self._inputs, options, state=self._state)

    def hidden(self, inventory: Inventory, options: Options) -> list[HiddenChannels]:
        """As :meth:`Network.hidden`."""
        found = find_hidden(self._model, inventory, self._inputs)
        found = check_hidden(self._model, may_go(self._model, found, inventory, options), self._inputs)
        self.settle()
        return found

    def settle(self) -> None:
        """As :meth:`Network.settle`."""
        assert self._state is not None
        self._state.restore()

    def check_images(self, images: Calibration) -> None:
        """As :meth:`Network.check_images`."""
        check_images(self._model, images, self._inputs)

    def target(self, rule: Budget) -> LatencyTarget:
        """As :meth:`Network.target`."""
        return LatencyTarget.of_model(self._model, self._inputs, rule)

    def check_precision(self, precision: str) -> None:
        """As :meth:`Network.check_precision`."""
        if precision == INT8:
            check_positional(self._inputs)
            if any(p.dtype == torch.float64 for p in self._model.parameters()):
                raise UsageError(
                    "int8 is for networks in single precision, this one is in double; leave int8 out"
                )

    def in_int8(
        self, compressed: nn.Module, plan: Plan, images: Calibration, fits: Fits | None = None
    ) -> Int8Network:
        """As :meth:`Network.in_int8`."""
        return quantize_network(compressed, self._model, plan, self._inputs, images, fits)

    def finished(self, compressed: nn.Module, plan: Plan, inventory: Inventory) -> tuple[nn.Module, Plan]:  # noqa: ARG002
        """As :meth:`Network.finished`."""
        check_result(compressed, plan, self._inputs)
        return compressed, plan


class OnnxNetwork(Network):
    """An ONNX file; nothing of the framework that made it is needed.

    Parameters
    ----------
    path
        The file.
    input_size
        Size of the input without the batch, in the model's own order of axes, where the file leaves it open; for
        several such inputs a mapping by their names. MACs are counted at it.
    input_values
        Values by the names of inputs, or ``(low, high)`` for random ones, where the model is run without
        calibration: by themselves floating-point numbers are normal ones and integers, but for bytes, zeros.

    Raises
    ------
    TuckertreeError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile, torch, tuckertree as tt
    >>> image = torch.zeros(1, 3, 32, 32)
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = tt.export(model, f"{folder}/net.onnx", image, dynamic="size").path
    ...     network = tt.OnnxNetwork(file, input_size=(3, 32, 32))  # height and width are open
    ...     result = tt.compress(network, rule=tt.Budget(macs=0.5))
    ...     written = result.save(f"{folder}/small.onnx")
    >>> result.plan.macs[1] <= 0.5 * result.plan.macs[0]
    True
    """

    layers_are = "convolution or matrix product with a constant weight"

    def __init__(self, path: str | Path, *, input_size: Sizes = None, input_values: Values = None) -> None:
        self.file = read_onnx(path)
        self.graph = Graph(self.file.proto)
        self._size, self._values = input_size, input_values
        self._example: Feed = {}
        self._found: OnnxInventory | None = None
        self._module: OnnxModule | None = None

    def check_output(self, path: Path, *, overwrite: bool) -> None:
        """Refuse an output that cannot be written, before any work is done for it.

        Raises
        ------
        TuckertreeError
            If it is no ONNX file, the model itself or a part of it, or exists and may not be replaced.
        """
        check_onnx_output(path, self.file.path, overwrite=overwrite)
        self.file.check_apart(path, data_file(path))

    @property
    def module(self) -> nn.Module:
        """As :attr:`Network.module`."""
        return self._onnx_module()

    def write(self, compressed: nn.Module, path: Path) -> Path:
        """Write the file with what has changed in a copy of :attr:`module`: chains, weights, numbers of channels.

        Unlike what :func:`~tuckertree.compress` gives, it is not compared with the original.

        Raises
        ------
        TuckertreeError
            If it cannot be written, or would not be a valid model.
        """
        with written(path, self._rewritten(compressed), self.file, overwrite=False):
            return path

    def _rewritten(self, compressed: nn.Module) -> ModelProto:
        layers = self._open(None).layers
        round_as_stored(layers, compressed)
        return rewrite(self.graph, layers, self._onnx_module(), compressed)

    @property
    def example(self) -> ExampleInputs:
        """As :attr:`Network.example`."""
        self._open(None)
        return FeedBatch.of(self._example, self.graph)

    @property
    def batch(self) -> int | None:
        """As :attr:`Network.batch`."""
        return fixed_batch(self.graph)

    def images(self, source: CalibrationData) -> Calibration:
        """As :meth:`Network.images`."""
        return onnx_calibration(source, self.graph)

    @contextmanager
    def opened(self, images: Calibration | None) -> Iterator[None]:
        """As :meth:`Network.opened`."""
        self._open(images)
        yield

    def inventory(self) -> Inventory:
        """As :meth:`Network.inventory`."""
        return self._open(None).inventory

    def hidden(self, inventory: Inventory, options: Options) -> list[HiddenChannels]:
        """As :meth:`Network.hidden`; of a norm a file counts the statistics, too."""
        module, example = self._onnx_module(), self._example
        found = may_go(module, find_hidden(module, inventory, example), inventory, options)
        return [
            replace(
                each,
                beside=each.beside
                + sum(2 * each.times(name) for name in each.between if name in module.norms),
            )
            for each in check_hidden(module, found, example)
        ]

    def check_images(self, images: Calibration) -> None:
        """As :meth:`Network.check_images`; and that torch computes what ONNX Runtime does."""
        self._onnx_module().check(self._example)
        check_images(self._onnx_module(), images, self._example)

    def target(self, rule: Budget) -> LatencyTarget:
        """As :meth:`Network.target`.

        Raises
        ------
        UsageError
            If the file prescribes another batch than the budget, or the runtime reads no ONNX.
        TuckertreeError
            If the runtime cannot run the file.
        """
        runtime, module = onnx_runtime_of(rule), self._onnx_module()
        layers = self._open(None).layers
        plans = FileBenchmark(self.file, self.graph, layers, module, self._example, runtime, rule.batch)
        return LatencyTarget(rule, plans, layer_benchmark(runtime, module))

    def check_precision(self, precision: str) -> None:
        """As :meth:`Network.check_precision`."""
        if precision == INT8 and self.file.external:
            raise UsageError(f"{self.file.path} has weights in files of their own, and cannot be quantized")
        opset = next((each.version for each in self.file.proto.opset_import if not each.domain), 0)
        if precision == INT8 and opset < _OPSET:
            raise UsageError(
                f"{self.file.path} is of opset {opset}; int8 needs {_OPSET} or later: convert it by "
                "onnx.version_converter, or leave int8 out"
            )

    def in_int8(
        self, compressed: nn.Module, plan: Plan, images: Calibration, fits: Fits | None = None
    ) -> Int8Network:
        """As :meth:`Network.in_int8`."""
        example = next(iter(images.part(0, min(len(images), _IMAGES))))
        proto = self._rewritten(rebalance_for_int8(fuse_as_planned(compressed, plan), example))
        return quantize_file(proto, self._onnx_module(), self.graph, plan, images, fits)

    def weighs(self, layer: Layer) -> bool:
        """As :meth:`Network.weighs`."""
        return not layer.skip_reason

    def finished(self, compressed: nn.Module, plan: Plan, inventory: Inventory) -> tuple[nn.Module, Plan]:
        """As :meth:`Network.finished`: as it was timed, in the types that the file holds."""
        if plan.latency is not None:
            compressed, plan = fuse_as_planned(compressed, plan), count_as_run(plan, inventory)
        round_as_stored(self._open(None).layers, compressed)
        return compressed, plan

    def output(
        self, compressed: nn.Module, plan: Plan, images: Calibration | None, int8: Int8Network | None
    ) -> OnnxOutput:
        """As :meth:`Network.output`."""
        return OnnxOutput(
            self.file,
            self.graph,
            self._open(None),
            plan,
            (self._onnx_module(), compressed),
            trial_feeds(self.graph, self._size, self._values, images),
            None if int8 is None else int8.content,
        )

    def _open(self, images: Calibration | None) -> OnnxInventory:
        if self._found is None:
            self._example = first_sample(self.graph, self._size, self._values, images)
            self.file = inlined(self.file, self._example)
            self.graph = Graph(self.file.proto)
            self._found = take_onnx_inventory(self.file, self.graph, self._example)
        return self._found

    def _onnx_module(self) -> OnnxModule:
        if self._module is None:
            self._module = OnnxModule(self.file, self.graph, self._open(None).layers).eval()
        return self._module


def network_of(model: nn.Module | str | Path | Network, example_inputs: ExampleInputs | None) -> Network:
    """A network to compress, of whatever names one.

    Raises
    ------
    UsageError
        If it is a path of no ONNX file, or a torch model comes without example inputs.
    TuckertreeError
        If it cannot be compressed.
    """
    if isinstance(model, Network):
        return model
    if isinstance(model, str | Path):
        if Path(model).suffix.lower() != ".onnx":
            raise UsageError(
                f"{str(model)!r} is no ONNX file; give a torch model: tuckertree.build({str(model)!r}) makes one of a known "
                "name, tuckertree.load one of a saved folder"
            )
        return OnnxNetwork(model, input_values=_values(example_inputs))
    if example_inputs is None:
        raise UsageError("a torch model needs example inputs to be called with")
    return TorchNetwork(model, example_inputs)


def _values(example_inputs: ExampleInputs | None) -> Values:
    if example_inputs is None:
        return None
    if not isinstance(example_inputs, Mapping):
        example_inputs = {"": example_inputs}
    return {name: x if isinstance(x, tuple) else _array(x) for name, x in example_inputs.items()}


def _array(x: object) -> Array:
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)

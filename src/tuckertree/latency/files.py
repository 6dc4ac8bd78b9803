"""Latency as a target for an ONNX file: its layers and the rewritten file, timed on what will run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError, UsageError, one_line
from tuckertree.core.layers import FusionVariant, chain_parameters, get_method
from tuckertree.latency.network import PlanBenchmark, random_as_planned
from tuckertree.latency.time_model import LayerBenchmark, RuntimeBenchmark
from tuckertree.network.onnx.files import OnnxFile
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.inputs import Feed, repeated, samples_of
from tuckertree.network.onnx.layers import OnnxLayer
from tuckertree.network.onnx.module import OnnxModule
from tuckertree.network.onnx.rewriting import rewrite
from tuckertree.network.onnx.writing import written
from tuckertree.planning import Budget, Inventory, LayerPlan, Plan
from tuckertree.runtimes import INT8, CandidateTime, Runtime, get_runtime, quantized, runtimes
from tuckertree.runtimes.quantization import batches_for_time


def onnx_runtime_of(rule: Budget) -> Runtime:
    """The runtime that a budget names, in the first of its precisions, if it runs ONNX files.

    Raises
    ------
    UsageError
        If it is unknown, or reads no ONNX files.
    TuckertreeError
        If it is not installed.
    """
    runtime = get_runtime(rule.runtime, threads=rule.threads, precision=rule.precision[0])
    if not runtime.reads_onnx:
        known = " or ".join(name for name, kind in runtimes().items() if kind.reads_onnx)
        raise UsageError(f"an ONNX file runs on {known}, not on {rule.runtime}")
    return runtime


def layer_benchmark(runtime: Runtime, module: nn.Module) -> LayerBenchmark:
    """Times forms of a file's layers."""
    layers = RuntimeBenchmark(runtime, next(p.dtype for p in module.parameters()))

    def benchmark(shape: tuple[int, ...], forms: Sequence[FusionVariant]) -> Sequence[CandidateTime]:
        return layers(_with_room(shape, forms[0]), forms)

    return benchmark


class FileBenchmark(PlanBenchmark):
    """Times plans for an ONNX file, written as the output will be, against the file as it is.

    Parameters
    ----------
    layers, module
        Layers of the file by name, and the file in torch.
    example
        Inputs by name.
    batch
        Samples in one run; the first sample of the example that many times. None: as they are.

    Raises
    ------
    UsageError
        If the file prescribes another batch.
    TuckertreeError
        If the runtime cannot run the file.
    """

    def __init__(
        self,
        file: OnnxFile,
        graph: Graph,
        layers: Mapping[str, OnnxLayer],
        module: OnnxModule,
        example: Feed,
        runtime: Runtime,
        batch: int | None = None,
    ) -> None:
        self._file, self._graph, self._layers, self._module = file, graph, layers, module
        feed = example if batch is None else repeated(example, graph, batch)
        self._inputs = [torch.from_numpy(feed[name]) for name in graph.inputs]
        dense = _ready(runtime, file.path, self._inputs)
        super().__init__(runtime, dense, samples_of(feed), samples_of(example))

    def planned(self, plan: Plan) -> Callable[[], object]:
        """As :meth:`PlanBenchmark.planned`; only the chains are random, all else is the file's own."""
        proto = rewrite(self._graph, self._layers, self._module, random_as_planned(self._module, plan))
        with (
            TemporaryDirectory(prefix="tuckertree-") as folder,
            written(Path(folder) / self._file.path.name, proto, self._file, overwrite=False) as new,
        ):
            if self.runtime.precision == INT8:
                new.write_bytes(quantized(new, batches_for_time(self._inputs)).SerializeToString())
            return _ready(self.runtime, new, self._inputs)

    def opened(self, path: Path) -> Callable[[], object]:
        """As :meth:`PlanBenchmark.opened`."""
        return _ready(self.runtime, path, self._inputs)


def _ready(runtime: Runtime, path: Path, inputs: Sequence[Tensor]) -> Callable[[], object]:
    run = runtime.open(path).bind(inputs)
    try:
        run()
    except Exception as error:  # errors of the runtimes have no class in common but this
        shapes = ", ".join(str(list(x.shape)) for x in inputs)
        raise TuckertreeError(
            f"{runtime.name} cannot run {path.name} on {shapes}: {one_line(error)}"
        ) from error
    return run


def count_as_run(plan: Plan, inventory: Inventory) -> Plan:
    """A plan with the parameters and MACs of the forms that its chains are written in."""
    by_name = {layer.name: layer for layer in inventory.layers}

    def counted(planned: LayerPlan) -> LayerPlan:
        if planned.form is None:
            return planned
        layer = by_name[planned.name]
        stages = get_method(planned.method).run_as(layer.spec, planned.ranks, planned.form)
        return replace(
            planned,
            parameters=(planned.parameters[0], chain_parameters(stages)),
            macs=(planned.macs[0], layer.chain_macs(stages)),
        )

    layers = tuple(map(counted, plan.layers))
    more_parameters = sum(b.parameters[1] - a.parameters[1] for a, b in zip(plan.layers, layers, strict=True))
    more_macs = sum(b.macs[1] - a.macs[1] for a, b in zip(plan.layers, layers, strict=True))
    return replace(
        plan,
        layers=layers,
        parameters=(plan.parameters[0], plan.parameters[1] + more_parameters),
        macs=(plan.macs[0], plan.macs[1] + more_macs),
    )


def _with_room(shape: tuple[int, ...], dense: FusionVariant) -> tuple[int, ...]:
    """Shape of an input that the kernel fits in: a file may pad one side alone, torch pads both alike."""
    spec = dense.stages[0].spec
    if not spec.order or spec.transposed or isinstance(spec.padding, str):
        return shape
    axes = zip(spec.dilation, spec.kernel_size, spec.padding, strict=True)
    least = [rate * (taps - 1) + 1 - 2 * pad for rate, taps, pad in axes]
    return (*shape[:2], *map(max, shape[2:], least))

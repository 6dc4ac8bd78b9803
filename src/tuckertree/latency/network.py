"""The whole network on its runtime: a plan's structure against the dense one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.core.layers import Chain, contract_chain, fusion_variants
from tuckertree.latency.time_model import fill
from tuckertree.measure import ExampleInputs, Timing, copy_for_inference, time_in_turns, time_until_steady
from tuckertree.network.surgery import build_structure, replace_layers
from tuckertree.planning import Plan
from tuckertree.runtimes import FP32, INT8, Runtime

_ROUNDS = 25
_SHORTEST, _PAUSE = 2e-3, 0.05


def fuse_as_planned(model: nn.Module, plan: Plan) -> nn.Module:
    """Fuse every chain of a compressed model as its plan says: the same function up to rounding.

    Parameters
    ----------
    model
        What :func:`~tuckertree.compress` or :func:`~tuckertree.load` gave; it is not changed.
    plan
        Its plan. A layer whose fusion variant is not named stays as it is.

    Returns
    -------
    torch.nn.Module
        A copy that shares no memory with the model; the model itself where the plan names no variant.

    Raises
    ------
    TuckertreeError
        If the plan names a variant of a layer that is no such chain here.
    """
    if all(layer.form is None for layer in plan.compressed):
        return model
    contracted: dict[str, nn.Module] = {}
    for layer in plan.compressed:
        if layer.form is None:
            continue
        chain = model.get_submodule(layer.name)
        known = fusion_variants(chain.stages, chain.cuts) if isinstance(chain, Chain) else ()
        variant = next((variant for variant in known if variant.cuts == layer.form), None)
        if variant is None:
            raise TuckertreeError(f"{layer.name} cannot be run cut at {list(layer.form)}, as the plan says")
        assert isinstance(chain, Chain)
        contracted[layer.name] = contract_chain(chain, variant)
    return replace_layers(model, contracted)


def is_measured(plan: Plan) -> bool:
    """Whether a plan was made for a latency: it names the fusion variants of its layers, or is in another precision."""
    return is_int8(plan) or any(layer.form is not None for layer in plan.compressed)


def is_int8(plan: Plan) -> bool:
    """Whether a plan was measured in 8 bits."""
    return plan.latency is not None and plan.latency.precision == INT8


class PlanBenchmark(ABC):
    """Times plans for a network on a runtime against the dense network, which is made ready once.

    Parameters
    ----------
    runtime
        What runs them, in its precision.
    dense
        Runs the dense network once, in single precision.
    batch, example_batch
        Samples in one run, and in the example inputs that the inventory was taken at.
    """

    def __init__(self, runtime: Runtime, dense: Callable[[], object], batch: int, example_batch: int) -> None:
        self.runtime, self.batch, self.example_batch = runtime, batch, example_batch
        self._dense = dense

    @abstractmethod
    def planned(self, plan: Plan) -> Callable[[], object]:
        """Make a plan's structure ready: what is returned runs it once.

        Weights of chains may be random: a time does not depend on them.
        """

    @abstractmethod
    def opened(self, path: Path) -> Callable[[], object]:
        """Make an ONNX file that was made of the network ready: what is returned runs it once."""

    def seconds(self) -> float:
        """Least time of the dense network: what disturbs a run, or many in a row, only ever adds to it."""
        with self.runtime.active():
            (times,) = time_in_turns([self._dense], repeats=_ROUNDS, shortest=_SHORTEST, pause=_PAUSE)
        return min(times)

    def __call__(self, plan: Plan) -> Timing:
        """Time of the network as planned over that of the dense one, both in turns."""
        return self._against_dense(self.planned(plan))

    def time_file(self, path: Path) -> Timing:
        """Time of an ONNX file that was made of the network over that of the dense one, both in turns."""
        return self._against_dense(self.opened(path))

    def _against_dense(self, run: Callable[[], object]) -> Timing:
        runs = [self._dense, run]
        with self.runtime.active():
            _, (_, ratio) = time_until_steady(runs, repeats=_ROUNDS, shortest=_SHORTEST, pause=_PAUSE)
        return ratio


class NetworkBenchmark(PlanBenchmark):
    """Times plans for a network of torch.

    Parameters
    ----------
    model
        The dense network; it is not changed.
    example_inputs
        What it is called with, a tensor or several.
    batch
        Samples in one run; the first sample of the example inputs that many times. None: as they are.

    Raises
    ------
    UsageError
        If the inputs are not tensors by position.
    """

    def __init__(
        self, model: nn.Module, example_inputs: ExampleInputs, runtime: Runtime, batch: int | None = None
    ) -> None:
        inputs = [example_inputs] if isinstance(example_inputs, Tensor) else example_inputs
        if isinstance(inputs, Mapping) or not all(isinstance(x, Tensor) and x.ndim for x in inputs):
            raise UsageError("a budget of latency needs a model that is called with tensors by position")
        self._inputs = [x.cpu() if batch is None else _of_batch(x.cpu(), batch) for x in inputs]
        self._model = copy_for_inference(model).cpu()
        dense = runtime.at(FP32).load(self._model, self._inputs).bind(self._inputs)
        super().__init__(runtime, dense, batch or len(inputs[0]), len(inputs[0]))

    def planned(self, plan: Plan) -> Callable[[], object]:
        """As :meth:`PlanBenchmark.planned`."""
        return self.runtime.load(random_as_planned(self._model, plan), self._inputs).bind(self._inputs)

    def opened(self, path: Path) -> Callable[[], object]:
        """As :meth:`PlanBenchmark.opened`."""
        return self.runtime.open(path).bind(self._inputs)


def random_as_planned(model: nn.Module, plan: Plan) -> nn.Module:
    """Copy a dense model with chains of random weights, each in the variant that the plan names.

    Raises
    ------
    TuckertreeError
        If the plan is not one for this model.
    """
    structure = build_structure(model, plan)
    for layer in plan.compressed:
        fill(structure.get_submodule(layer.name))
    return fuse_as_planned(structure, plan)


def _of_batch(x: Tensor, batch: int) -> Tensor:
    return x[:1].expand(batch, *x.shape[1:]).contiguous()

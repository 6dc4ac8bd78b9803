"""A target of latency for one network in one precision: what times it, and its plans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree.latency.network import NetworkBenchmark, PlanBenchmark
from tuckertree.latency.target import TOO_SLOW, measured_latency, meet_target
from tuckertree.latency.time_model import LayerBenchmark, RuntimeBenchmark, TimeModel
from tuckertree.measure import ExampleInputs, Timing
from tuckertree.planning import DENSE, Budget, Decisions, Inventory, Options, Plan
from tuckertree.planning.planner import leave_dense
from tuckertree.runtimes import FP32, Runtime, find_runtime, get_runtime


class LatencyTarget:
    """A budget of latency for one network in one precision: the times of its layers, and a plan that keeps the target.

    Parameters
    ----------
    rule
        A budget of latency.
    network
        Times plans for the whole network.
    layers
        Times variants of its layers, on the same runtime and in the same precision.
    """

    def __init__(self, rule: Budget, network: PlanBenchmark, layers: LayerBenchmark) -> None:
        self.rule = rule
        self._network, self._layers = network, layers

    @classmethod
    def of_model(cls, model: nn.Module, example_inputs: ExampleInputs, rule: Budget) -> LatencyTarget:
        """The target of a network of torch.

        Raises
        ------
        UsageError
            If the runtime is unknown, or the inputs are not tensors by position.
        TuckertreeError
            If the runtime is not installed or cannot run the network.
        """
        runtime = runtime_of(rule, model)
        network = NetworkBenchmark(model, example_inputs, runtime, rule.batch)
        dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        return cls(rule, network, RuntimeBenchmark(runtime, dtype))

    def at(self, rule: Budget) -> LatencyTarget:
        """The same times for another target."""
        return LatencyTarget(rule, self._network, self._layers)

    def measure(
        self, inventory: Inventory, options: Options, *, tick: ProgressCallback = no_progress
    ) -> tuple[Inventory, TimeModel]:
        """The inventory with the time of the network, and the times of the layers that may be compressed.

        Where the plan that factors nothing has been measured (:meth:`alone`), the time is known already.
        """
        model = TimeModel(self._layers, (self._network.batch, self._network.example_batch), options.of_layers)
        model.measure([x for x in inventory.layers if options.method(x)[0] != DENSE], tick=tick)
        if inventory.seconds is None:
            inventory = replace(inventory, seconds=self._network.seconds())
        return inventory, model

    def alone(self, inventory: Inventory, options: Options) -> tuple[Inventory, Plan | None]:
        """The inventory with the time of the network, and the plan of the precision alone, measured: it factors nothing.

        In single precision that is the dense network, and there is no plan.
        """
        precision = self._network.runtime.precision
        if precision == FP32:
            return inventory, None
        inventory = replace(inventory, seconds=self._network.seconds())
        reasons = [(layer, options.method(layer)) for layer in inventory.layers]
        plan = Plan(
            layers=tuple(
                leave_dense(layer, reason if method == DENSE else f"budget: {precision} alone")
                for layer, (method, reason) in reasons
            ),
            rule=self.rule.describe(),
            parameters=(inventory.parameters, inventory.parameters),
            macs=(inventory.macs, inventory.macs),
        )
        measured = self._network(plan)
        target = float(self.rule.latency or 1)
        latency = measured_latency(inventory, target, measured.median, measured, 1, fastest=False)
        return inventory, self._on_runtime(replace(plan, latency=latency))

    def keeps(self, path: Path) -> tuple[bool, Timing]:
        """Whether an ONNX file that was made of the network keeps the target, and its time over the dense network's."""
        found = self._network.time_file(path)
        return found.median <= TOO_SLOW * float(self.rule.latency or 1), found

    def plan(
        self,
        inventory: Inventory,
        candidates: Decisions,
        options: Options,
        *,
        alone: Plan | None = None,
        tick: ProgressCallback = no_progress,
    ) -> Plan:
        """A plan that was measured to keep the target; as :func:`meet_target`."""
        plan = meet_target(inventory, candidates, self.rule, options, self._network, alone=alone, tick=tick)
        return self._on_runtime(plan)

    def _on_runtime(self, plan: Plan) -> Plan:
        """A measured plan with what it was measured on."""
        assert plan.latency is not None
        runtime = self._network.runtime
        latency = replace(
            plan.latency,
            runtime=f"{runtime.name} {runtime.version}",
            threads=runtime.threads,
            batch=self._network.batch,
            precision=runtime.precision,
        )
        return replace(plan, latency=latency)


def runtime_of(rule: Budget, model: nn.Module) -> Runtime:
    """The runtime that a budget names, in the first of its precisions, where it can on the model's device.

    Raises
    ------
    UsageError
        If it is unknown, or has no such precision.
    TuckertreeError
        If it is not installed.
    """
    device = next((str(p.device) for p in model.parameters()), "cpu")
    there = find_runtime(rule.runtime).devices
    return get_runtime(
        rule.runtime,
        threads=rule.threads,
        device=device if device.partition(":")[0] in there else there[0],
        precision=rule.precision[0],
    )

"""A network in 8 bits for a target of latency: layers that lose most by it stay in single precision while time allows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from tuckertree.calibration import Calibration
from tuckertree.compression.int8 import Int8Network
from tuckertree.compression.network import Network
from tuckertree.io.folder import QUANTIZED
from tuckertree.latency import LatencyTarget
from tuckertree.measure import Timing
from tuckertree.planning import Budget, Plan
from tuckertree.runtimes import INT8


def in_int8(
    network: Network, compressed: nn.Module, plan: Plan, rule: object, images: Calibration
) -> tuple[Int8Network, Plan]:
    """A compressed network in 8 bits, and its plan with the precision of each layer and the time of the file.

    Parameters
    ----------
    rule
        The budget of latency whose target is kept.

    Raises
    ------
    TuckertreeError
        If it cannot be exported or quantized.
    """
    assert isinstance(rule, Budget)
    timed = _TimedFiles(network, replace(rule, precision=(INT8,)))
    int8 = network.in_int8(compressed, plan, images, timed.keep)
    plan = plan_of(int8, plan)
    measured = timed.found.get(int8.content)
    if int8.layers.fp32 and measured is not None and plan.latency is not None:
        latency = replace(plan.latency, measured=measured.median, low=measured.low, high=measured.high)
        plan = replace(plan, latency=replace(latency, rounds=latency.rounds + len(timed.found)))
    return int8, plan


class _TimedFiles:
    """Times quantized models against the dense network, which is made ready once there is one."""

    def __init__(self, network: Network, rule: Budget) -> None:
        self._network, self._rule = network, rule
        self._target: LatencyTarget | None = None
        self.found: dict[bytes, Timing] = {}

    def keep(self, proto: Any) -> bool:
        """Whether a model keeps the target."""
        self._target = self._target or self._network.target(self._rule)
        with TemporaryDirectory(prefix="tuckertree-") as folder:
            path = Path(folder) / QUANTIZED
            path.write_bytes(content := proto.SerializeToString())
            kept, self.found[content] = self._target.keeps(path)
        return kept


def plan_of(int8: Int8Network, plan: Plan) -> Plan:
    """A plan with the precision of each layer, as it is in a file."""
    fp32, known = set(int8.layers.fp32), set(int8.layers.layers)
    layers = (
        replace(layer, precision="fp32" if layer.name in fp32 else "int8") if layer.name in known else layer
        for layer in plan.layers
    )
    return replace(plan, layers=tuple(layers))

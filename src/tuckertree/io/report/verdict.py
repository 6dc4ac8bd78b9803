"""What a result must not be used without knowing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tuckertree.planning import Plan

_LOST = 0.25
"""Relative error of all weights from which on a network that was fitted to no images has lost much, as
docs/results/energy.md shows: from 5 % of the answers upwards, most of them at 0.4."""
_WIPED_OUT = 0.95
"""Relative error from which on a layer keeps less than a tenth of its energy."""
_APART = 1.5
"""Times as far from the original on images held out as on those fitted to. EfficientNet-Lite0: 1.9 for 64 images."""
_NAMED = 3


class Compressed(Protocol):
    """What is needed of a result."""

    @property
    def plan(self) -> Plan:
        """What was done to each layer."""

    @property
    def errors(self) -> Mapping[str, float]:
        """True relative error of each compressed layer's weight."""

    @property
    def relative_error(self) -> float:
        """The same over all layers together."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """Time of each phase."""

    @property
    def fitted(self) -> bool:
        """Whether factors were fitted to images."""


@dataclass(frozen=True)
class NotMade:
    """A plan that was not carried out, where a result would be: no errors are known."""

    plan: Plan
    errors: Mapping[str, float] = field(default_factory=dict)
    relative_error: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=dict)
    fitted: bool = False


def is_weighted(result: Compressed) -> bool:
    """Whether a budget measured errors in another metric than that of the weights."""
    return bool(result.plan.rule.get("weighs", False))


def bounds_hold(result: Compressed) -> bool:
    """Whether the error planned for a layer bounds that of its weight."""
    return not is_weighted(result) and not result.fitted


def warnings_of(result: Compressed) -> list[str]:
    """Reasons to doubt that the network is of use, one line each."""
    return [*_lost_without_images(result), *_wiped_out(result), *latency_warnings(result.plan)]


def too_few_images(distances: Mapping[str, float]) -> list[str]:
    """A warning where fitted outputs and those on images held out part."""
    if not distances or distances["held out"] <= _APART * distances["fitted"]:
        return []
    return [
        f"on images held out the outputs are {distances['held out']:.1%} from the original's, on those fitted to "
        f"{distances['fitted']:.1%}: {distances['images fitted']:.0f} images say too little of this network; give more"
    ]


def latency_warnings(plan: Plan) -> list[str]:
    """Reasons to doubt what was done for a target of time."""
    if plan.latency is None:
        return []
    found = plan.latency
    lines = []
    if found.missed:
        lines.append(
            f"the target of {1 / found.target:.3g}x was not reached: {1 / found.measured:.2f}x is the fastest plan measured"
        )
    if found.fastest:
        lines.append("this is close to the fastest plan there is; check the accuracy")
    return lines


def _lost_without_images(result: Compressed) -> list[str]:
    if result.fitted or result.relative_error < _LOST:
        return []
    return [
        f"without images {result.relative_error:.0%} of the weights' norm was lost, which few networks stand: "
        "give unlabelled images (--calibration), or fine-tune, and measure before you use it"
    ]


def _wiped_out(result: Compressed) -> list[str]:
    hold = bounds_hold(result)
    errors = {layer: result.errors[layer.name] if hold else layer.bound for layer in result.plan.compressed}
    worst = sorted((each for each in errors.items() if each[1] >= _WIPED_OUT), key=lambda each: -each[1])
    if not worst:
        return []
    named = [f"{layer.name} (ranks {'/'.join(map(str, layer.ranks))}, error {e:.3f})" for layer, e in worst]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return [
        f"next to nothing is left of {', '.join(named[:_NAMED])}{more}: "
        "leave such layers out (--exclude), or give a larger budget"
    ]

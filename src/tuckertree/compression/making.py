"""From a plan to a network, and from that to a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from warnings import warn

from torch import nn

from tuckertree._base.progress import ProgressCallback
from tuckertree.calibration import (
    Calibration,
    CalibrationWarning,
    Length,
    Tuning,
    calibrate,
    learned_images,
    tune_network,
)
from tuckertree.calibration.distances import IncomparableError
from tuckertree.compression.choosing import Choosing
from tuckertree.compression.int8 import InPrecision, Int8Network, distances_held_out
from tuckertree.compression.int8_timed import in_int8
from tuckertree.compression.measures import measure_errors
from tuckertree.compression.result import CompressionResult
from tuckertree.core.decomposition import Spectra
from tuckertree.latency import is_int8
from tuckertree.network.surgery import apply
from tuckertree.planning import Inventory, Plan, record_survey


@dataclass(frozen=True)
class Made:
    """A network as planned.

    Attributes
    ----------
    model, plan
        The network, and its plan with notes of what was done.
    distances
        Of its outputs on images fitted to and on others (:attr:`CompressionResult.distances`).
    int8
        The network in 8 bits, if that is what was planned.
    precisions
        What became of each precision, if there were several.
    """

    model: nn.Module
    plan: Plan
    distances: Mapping[str, float] = field(default_factory=dict)
    int8: Int8Network | None = None
    precisions: tuple[InPrecision, ...] = ()


def make_network(
    chosen: Choosing,
    plan: Plan,
    spectra: Mapping[str, Spectra] | None,
    length: Length | None,
    tick: ProgressCallback,
) -> Made:
    """A network as planned, fitted to the images if there are any; to those that tuning learns from, if it follows."""
    network, images, stopwatch = chosen.network, chosen.images, chosen.stopwatch
    network.settle()
    if images is None:
        compressed = apply(network.module, plan, spectra=spectra, tick=tick)
        stopwatch.lap("factors")
        return Made(compressed, plan)
    notes, distances = dict[str, str](), dict[str, float]()
    if plan.compressed or plan.pruned:
        fitted = images if length is None else learned_images(network.module, images)
        compressed = calibrate(network.module, plan, fitted, notes=notes, distances=distances, tick=tick)
        stopwatch.lap("calibration")
    else:  # 8 bits alone: there is nothing to fit
        compressed = apply(network.module, plan)
    int8, plan = None, plan.noted(notes)
    if is_int8(plan):
        int8, plan = in_int8(network, compressed, plan, chosen.rule, images)
    stopwatch.lap("int8" if int8 else "calibration")
    return Made(compressed, plan, distances, int8)


def nearest(chosen: Choosing, found: Sequence[Made]) -> Made:
    """Of networks in several precisions the one whose outputs are nearest to the original's on images held out.

    Where that cannot be seen, the first of them.
    """
    images, original = chosen.images, chosen.network.module
    if images is None or (len(found) == 1 and not chosen.others):
        return found[0]
    plain = [made.model for made in found if made.int8 is None]
    measured = iter(distances_held_out(original, plain, images) if plain else [])
    distances = [next(measured) if made.int8 is None else made.int8.distance for made in found]
    tried = [
        InPrecision(
            made.plan.latency.precision,
            made.plan.latency.measured,
            kept=not made.plan.latency.missed,
            distance=distance,
        )
        for made, distance in zip(found, distances, strict=True)
        if made.plan.latency is not None
    ]
    best = min(range(len(found)), key=lambda i: inf if (far := distances[i]) is None else far)
    return replace(found[best], precisions=(*tried, *chosen.others))


def make_result(
    chosen: Choosing, made: Made, inventory: Inventory, length: Length | None, tick: ProgressCallback
) -> CompressionResult:
    """A network tuned if that is asked for, checked, and with all that is known about it."""
    network, images, stopwatch = chosen.network, chosen.images, chosen.stopwatch
    compressed, plan, int8 = made.model, made.plan, made.int8
    tuning: Tuning | None = None
    if length is not None and images is not None:
        compressed, tuning = _tuned(compressed, network.module, plan, images, length, tick)
        if int8 is not None:  # the same layers in single precision, while the outputs stay near enough
            int8, plan = in_int8(network, compressed, plan, chosen.rule, images)
        stopwatch.lap("tuning")
    compressed, plan = network.finished(compressed, plan, inventory)
    layers = filter(network.weighs, inventory.layers)
    errors, relative_error = measure_errors(network.module, compressed, layers)
    stopwatch.lap("errors")
    return CompressionResult(
        model=compressed,
        plan=plan,
        errors=errors,
        relative_error=relative_error,
        seconds=stopwatch.seconds,
        architecture=getattr(network.module, "architecture_name", None),
        input_size=network.input_size,
        output=network.output(compressed, plan, images, int8),
        tuning=tuning,
        distances=made.distances,
        int8=int8,
        precisions=made.precisions,
        survey=record_survey(plan, inventory, chosen.spectra, chosen.offered, chosen.curve),
    )


def _tuned(
    compressed: nn.Module,
    original: nn.Module,
    plan: Plan,
    images: Calibration,
    length: Length,
    tick: ProgressCallback,
) -> tuple[nn.Module, Tuning | None]:
    """Tune what was calibrated; where outputs have no distance, as those of detectors that drop boxes, it stays."""
    try:
        return tune_network(compressed, original, images, length, plan=plan, tick=tick)
    except IncomparableError as error:
        warn(f"not tuned: {error}", CalibrationWarning, stacklevel=3)
        return compressed, None

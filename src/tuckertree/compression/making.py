"""From a plan to a network, and from that to a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
from tuckertree.compression.measures import measure_errors
from tuckertree.compression.result import CompressionResult
from tuckertree.core.decomposition import Spectra
from tuckertree.network.surgery import apply
from tuckertree.planning import Inventory, Plan


@dataclass(frozen=True)
class Made:
    """A network as planned.

    Attributes
    ----------
    model, plan
        The network, and its plan with notes of what was done.
    distances
        Of its outputs on images fitted to and on others (:attr:`CompressionResult.distances`).
    """

    model: nn.Module
    plan: Plan
    distances: Mapping[str, float] = field(default_factory=dict)


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
    fitted = images if length is None else learned_images(network.module, images)
    compressed = calibrate(network.module, plan, fitted, notes=notes, distances=distances, tick=tick)
    stopwatch.lap("calibration")
    return Made(compressed, plan.noted(notes), distances)


def make_result(
    chosen: Choosing, made: Made, inventory: Inventory, length: Length | None, tick: ProgressCallback
) -> CompressionResult:
    """A network tuned if that is asked for, checked, and with all that is known about it."""
    network, images, stopwatch = chosen.network, chosen.images, chosen.stopwatch
    compressed, plan = made.model, made.plan
    tuning: Tuning | None = None
    if length is not None and images is not None:
        compressed, tuning = _tuned(compressed, network.module, plan, images, length, tick)
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
        output=network.output(compressed, plan, images),
        tuning=tuning,
        distances=made.distances,
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

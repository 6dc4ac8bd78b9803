"""What a budget makes small: the losses of all layers' candidates, from weights alone or from images too."""

from __future__ import annotations

from pathlib import Path
from warnings import warn

from torch import nn

from tuckertree._base.errors import UsageError
from tuckertree._base.progress import ProgressCallback, no_progress, progress_bar
from tuckertree.calibration import (
    Calibration,
    CalibrationData,
    CalibrationWarning,
    NotDifferentiableError,
    collect_metrics,
    measure_sensitivity,
)
from tuckertree.compression.networks import Network, network_of
from tuckertree.measure import ExampleInputs
from tuckertree.planning import (
    DENSE,
    Candidates,
    Inventory,
    NetworkRule,
    Options,
    Rule,
    Timer,
    TradeOff,
    survey_candidates,
    trade_off,
)

OBJECTIVES = ("outputs", "sensitivity", "moments", "weight")
AnyRule = Rule | NetworkRule


def survey_network(
    model: nn.Module,
    inventory: Inventory,
    options: Options,
    objective: str = "weight",
    images: Calibration | None = None,
    *,
    timer: Timer | None = None,
    tick: ProgressCallback = no_progress,
) -> dict[str, Candidates]:
    """Candidates of all layers with their losses in an objective (:func:`compress`), by name.

    A ``timer`` is for a budget of latency.

    Raises
    ------
    TuckertreeError
        If a weight or an activation is not finite, or the images cannot be used.
    """
    if images is None or objective == "weight":
        return survey_candidates(model, inventory, options, timer=timer, tick=tick)
    layers = [layer for layer in inventory.layers if options.method(layer)[0] != DENSE]
    metrics = collect_metrics(model, layers, images, gradients=objective == "outputs", tick=tick)
    candidates = survey_candidates(
        model,
        inventory,
        options,
        metric=lambda layer, kernel: metrics[layer.name].of(kernel),
        timer=timer,
        tick=tick,
    )
    if objective == "moments":
        return candidates
    if objective == "sensitivity":
        return measure_sensitivity(model, layers, candidates, metrics, images, tick=tick)
    # Errors are relative to the kernel in its metric; its norm there is what the network's output sees.
    return {name: found.weighted(found.spectra.squared_norm) for name, found in candidates.items()}


def survey_by_default(
    model: nn.Module,
    inventory: Inventory,
    options: Options,
    images: Calibration | None,
    *,
    timer: Timer | None = None,
    tick: ProgressCallback = no_progress,
) -> tuple[dict[str, Candidates], str]:
    """Candidates as :func:`survey_network` gives them, in the objective that nobody asked for, and its name.

    It is ``weight`` without images, and ``outputs`` with them, or ``moments`` where outputs have no derivatives.

    Raises
    ------
    TuckertreeError
        As :func:`survey_network`.

    Warns
    -----
    CalibrationWarning
        If outputs have no derivatives.
    """
    objective = "weight" if images is None else "outputs"
    try:
        found = survey_network(model, inventory, options, objective, images, timer=timer, tick=tick)
    except NotDifferentiableError as error:
        said = str(error).rpartition(";")[0]
        warn(f"{said}; the objective is moments instead", CalibrationWarning, stacklevel=3)
        objective = "moments"
        found = survey_network(model, inventory, options, objective, images, timer=timer, tick=tick)
    return found, objective


def trade_off_curve(
    model: nn.Module | str | Path | Network,
    example_inputs: ExampleInputs | None = None,
    *,
    by: str = "params",
    points: int = 25,
    calibration: CalibrationData | None = None,
    progress: bool | None = None,
) -> tuple[TradeOff, ...]:
    """Predict what every budget would cost, without compressing anything.

    Parameters
    ----------
    by
        What is budgeted: ``params``, ``macs`` or ``both``.
    points
        At most so many, from the smallest network within reach to the whole.
    calibration
        With images the loss is the predicted squared change of the network's output, otherwise the sum of the
        layers' squared relative weight errors. Other arguments as of :func:`compress`.

    Raises
    ------
    TuckertreeError
        As :func:`compress`.
    """
    network = network_of(model, example_inputs)
    images = None if calibration is None else network.images(calibration)
    with progress_bar(progress) as tick, network.opened(images):
        inventory = network.probed(network.inventory(), Options())
        candidates, _ = survey_by_default(network.module, inventory, Options(), images, tick=tick)
    return trade_off(inventory, candidates, by=by, points=points)


def check_objective(rule: AnyRule, objective: str | None, *, calibrated: bool) -> str:
    """The objective that holds: the one asked for, or the default.

    Raises
    ------
    UsageError
        If it is unknown, does not belong to the rule, or needs images that are not there.
    """
    if objective is None:
        return "outputs" if calibrated else "weight"
    if objective not in OBJECTIVES:
        raise UsageError(f"unknown objective {objective!r}; known: {', '.join(OBJECTIVES)}")
    if not isinstance(rule, NetworkRule):
        raise UsageError("an objective belongs to a budget")
    if objective != "weight" and not calibrated:
        raise UsageError(f"objective {objective!r} needs calibration images")
    return objective

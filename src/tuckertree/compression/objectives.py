"""What a budget makes small: the losses of all layers' candidates, from weights alone or from images too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from warnings import warn

from torch import nn

from tuckertree._base.errors import UsageError
from tuckertree._base.progress import ProgressCallback, no_progress, progress_bar
from tuckertree.calibration import (
    Calibration,
    CalibrationData,
    CalibrationWarning,
    KroneckerMetric,
    NotDifferentiableError,
    collect_metrics,
    measure_sensitivity,
)
from tuckertree.compression.hidden import hidden_groups
from tuckertree.compression.network import Network
from tuckertree.compression.networks import network_of
from tuckertree.core.layers import weight_of
from tuckertree.measure import ExampleInputs
from tuckertree.planning import (
    DENSE,
    Candidates,
    Group,
    Inventory,
    Layer,
    NetworkRule,
    Options,
    Plan,
    Rule,
    Timer,
    TradeOff,
    layer_candidates,
    survey_candidates,
    trade_off,
)
from tuckertree.planning.candidates import sample_candidates
from tuckertree.planning.channels import HiddenChannels

AnyRule = Rule | NetworkRule | Plan
"""What ranks are chosen by; a plan has them."""


@dataclass(frozen=True)
class Survey:
    """What an objective looks at: the model, those of its layers that may be compressed, and images, if any."""

    model: nn.Module
    layers: Sequence[Layer]
    images: Calibration | None
    tick: ProgressCallback = no_progress


class Objective:
    """What a budget makes small: the sum of the losses of the layers' candidates.

    A subclass says in which metric the errors of the layers are measured, what loss an error means, or both.
    By themselves errors are those of the weights and the loss is the squared relative error. One that takes an
    error for the worse the more work its layer does, for ``compress(..., objective=Work())``::

        class Work(Objective):
            needs_images = False

            def losses(self, survey, candidates, metrics):
                macs = {layer.name: layer.macs for layer in survey.layers}
                return {name: found.weighted(macs[name]) for name, found in candidates.items()}

    Attributes
    ----------
    needs_images
        Whether there is nothing to be had of it without calibration images.
    instead
        What is taken where the network's outputs have no derivatives; None: that is refused.
    """

    needs_images: bool = True
    instead: Objective | None = None

    @property
    def name(self) -> str:
        """The name of its class in small letters, by which plans and reports call it."""
        return type(self).__name__.lower()

    @property
    def weighs(self) -> bool:
        """Whether errors are measured in another metric than that of the weights."""
        return type(self).metrics is not Objective.metrics

    def metrics(self, survey: Survey) -> Mapping[str, KroneckerMetric]:  # noqa: ARG002
        """The metric of each layer's kernel, by name.

        Raises
        ------
        NotDifferentiableError
            If it takes derivatives that there are not.
        """
        return {}

    def losses(
        self,
        survey: Survey,  # noqa: ARG002
        candidates: Mapping[str, Candidates],
        metrics: Mapping[str, KroneckerMetric],  # noqa: ARG002
    ) -> Mapping[str, Candidates]:
        """The same candidates with their losses (:meth:`Candidates.measured <tuckertree.planning.Candidates.measured>`)."""
        return candidates

    def describe(self) -> dict[str, object]:
        """What a plan's rule says of it, as JSON data."""
        return {"objective": self.name, "weighs": self.weighs}


class Weight(Objective):
    """The sum of the layers' squared relative weight errors."""

    needs_images = False


class Moments(Objective):
    """The sum of the layers' squared relative output errors, from the second moment of their inputs."""

    def metrics(self, survey: Survey) -> Mapping[str, KroneckerMetric]:
        """As :meth:`Objective.metrics`."""
        return _metrics(survey, gradients=False)


class Sensitivity(Moments):
    """The change of the network's output, measured by trying each layer alone."""

    def losses(
        self, survey: Survey, candidates: Mapping[str, Candidates], metrics: Mapping[str, KroneckerMetric]
    ) -> Mapping[str, Candidates]:
        """As :meth:`Objective.losses`."""
        assert survey.images is not None
        return measure_sensitivity(
            survey.model, survey.layers, candidates, metrics, survey.images, tick=survey.tick
        )


class Outputs(Objective):
    """The change of the network's output, predicted from its derivatives by the layers' weights."""

    def __init__(self, instead: Objective | None = None) -> None:
        self.instead = instead

    def metrics(self, survey: Survey) -> Mapping[str, KroneckerMetric]:
        """As :meth:`Objective.metrics`."""
        return _metrics(survey, gradients=True)

    def losses(
        self,
        survey: Survey,  # noqa: ARG002
        candidates: Mapping[str, Candidates],
        metrics: Mapping[str, KroneckerMetric],  # noqa: ARG002
    ) -> Mapping[str, Candidates]:
        """Errors are relative to the kernel in its metric; its norm there is what the network's output sees."""
        return {name: found.weighted(found.spectra.squared_norm) for name, found in candidates.items()}


def _metrics(survey: Survey, *, gradients: bool) -> Mapping[str, KroneckerMetric]:
    assert survey.images is not None
    return collect_metrics(survey.model, survey.layers, survey.images, gradients=gradients, tick=survey.tick)


OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "outputs": Outputs,
    "sensitivity": Sensitivity,
    "moments": Moments,
    "weight": Weight,
}


def default_objective(*, calibrated: bool) -> Objective:
    """What is made small if nobody says: ``outputs`` with images, or ``moments`` where these have no derivatives."""
    return Outputs(instead=Moments()) if calibrated else Weight()


def find_objective(objective: str | Objective | None, rule: AnyRule | None, *, calibrated: bool) -> Objective:
    """The objective that holds: the one asked for, by its name or itself, or the default.

    Raises
    ------
    UsageError
        If it is unknown, does not belong to the rule, or needs images that are not there.
    """
    if objective is None:
        return default_objective(calibrated=calibrated)
    if not isinstance(objective, Objective):
        if objective not in OBJECTIVES:
            raise UsageError(f"unknown objective {objective!r}; known: {', '.join(OBJECTIVES)}")
        objective = OBJECTIVES[objective]()
    if not isinstance(rule, NetworkRule):
        raise UsageError("an objective belongs to a budget")
    if objective.needs_images and not calibrated:
        raise UsageError(f"objective {objective.name!r} needs calibration images")
    return objective


def survey_network(
    model: nn.Module,
    inventory: Inventory,
    options: Options,
    objective: Objective,
    images: Calibration | None = None,
    *,
    hidden: Sequence[HiddenChannels] = (),
    timer: Timer | None = None,
    tick: ProgressCallback = no_progress,
) -> tuple[dict[str, Candidates | Group], Objective]:
    """Candidates of all layers by name and of groups with their losses, and the objective that these are of.

    It is the one given, or :attr:`Objective.instead`. A ``timer`` is for a budget of latency. ``hidden`` channels may go
    where the objective weighs errors.

    Raises
    ------
    TuckertreeError
        If a weight or an activation is not finite, or the images cannot be used.
    UsageError
        If the objective loses a layer, or a loss cannot be one.

    Warns
    -----
    CalibrationWarning
        If outputs have no derivatives, and another objective is taken.
    """
    layers = [layer for layer in inventory.layers if options.method(layer)[0] != DENSE]
    known = Survey(model, layers, images, tick)
    try:
        metrics = objective.metrics(known)
    except NotDifferentiableError as error:
        if objective.instead is None:
            raise
        said, instead = str(error).rpartition(";")[0], objective.instead
        warn(f"{said}; the objective is {instead.name} instead", CalibrationWarning, stacklevel=3)
        return survey_network(
            model, inventory, options, instead, images, hidden=hidden, timer=timer, tick=tick
        )

    candidates = survey_candidates(
        model,
        inventory,
        options,
        metric=(lambda layer, kernel: metrics[layer.name].of(kernel)) if objective.weighs else None,
        timer=timer,
        tick=tick,
    )
    found = objective.losses(known, candidates, metrics)
    if missing := sorted(candidates.keys() - found.keys()):
        raise UsageError(f"the objective {objective.name} gives no losses for {', '.join(missing[:3])}")
    decisions: dict[str, Candidates | Group] = {name: found[name] for name in candidates}
    if objective.weighs and hidden:
        decisions |= _of_hidden(known, inventory, options, objective, hidden, found, metrics, timer)
    return decisions, objective


def _of_hidden(
    known: Survey,
    inventory: Inventory,
    options: Options,
    objective: Objective,
    hidden: Sequence[HiddenChannels],
    candidates: Mapping[str, Candidates],
    metrics: Mapping[str, KroneckerMetric],
    timer: Timer | None,
) -> dict[str, Candidates | Group]:
    """Groups of layers with hidden channels between them, and the layers of these that have no other choice."""
    by_name = {layer.name: layer for layer in inventory.layers}
    kernels = {
        name: by_name[name].spec.kernel(weight_of(known.model.get_submodule(name)))
        for each in hidden
        for name in each.modules
        if name in by_name
    }
    consumers = {name for each in hidden for name in each.consumers if name in metrics}
    others = candidates
    alone = {name for name in consumers if len(candidates[name]) == 1}
    samples = {name: sample_candidates(by_name[name], metrics[name].of(kernels[name])) for name in alone}
    if samples:
        looked_at = replace(known, layers=[by_name[name] for name in samples])
        candidates = {**candidates, **objective.losses(looked_at, samples, metrics)}
    groups = hidden_groups(
        known.model,
        inventory.layers,
        hidden,
        candidates,
        metrics,
        others=others,
        round_to=options.round_to,
        timer=timer,
    )
    rest = {name for group in groups.values() for name in group.layers} - candidates.keys()
    return groups | {
        name: layer_candidates(by_name[name], kernels[name], methods=(), timer=timer) for name in rest
    }


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

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3))
    >>> smallest, *between, whole = tt.trade_off_curve(model, torch.zeros(1, 3, 16, 16), by="macs", points=5)
    >>> smallest.macs < 0.1 * whole.macs, smallest.loss > between[0].loss, whole.loss
    (True, True, 0.0)
    """
    network, options = network_of(model, example_inputs), Options()
    images = None if calibration is None else network.images(calibration)
    with progress_bar(progress) as tick, network.opened(images):
        inventory = network.probed(network.inventory(), options)
        hidden: list[HiddenChannels] = []
        if images is not None:
            network.check_images(images)
            hidden = network.hidden(inventory, options)
        objective = default_objective(calibrated=images is not None)
        found, _ = survey_network(
            network.module, inventory, options, objective, images, hidden=hidden, tick=tick
        )
    return trade_off(inventory, found, by=by, points=points)

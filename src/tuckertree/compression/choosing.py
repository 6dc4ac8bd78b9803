"""What a compression is to do: options checked, layers surveyed, methods and ranks chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from tuckertree._base.errors import UnreachableTargetError, UsageError
from tuckertree._base.progress import ProgressCallback
from tuckertree.calibration import Calibration, CalibrationData
from tuckertree.compression.measures import Stopwatch
from tuckertree.compression.networks import Network, network_of
from tuckertree.compression.objectives import AnyRule, Objective, find_objective, survey_network
from tuckertree.core.decomposition import Spectra
from tuckertree.measure import ExampleInputs
from tuckertree.network.channels import gone_from
from tuckertree.planning import (
    DENSE,
    Budget,
    Candidates,
    Energy,
    Inventory,
    NetworkRule,
    Options,
    Plan,
    Ranks,
    make_plan,
    survey,
)
from tuckertree.planning.channels import CHANNELS, DEFAULT_METHODS
from tuckertree.planning.plan import list_reasons
from tuckertree.planning.planner import Choice


@dataclass
class Choosing:
    """What a compression is to do, checked."""

    network: Network
    rule: AnyRule
    options: Options
    objective: Objective
    images: Calibration | None
    stopwatch: Stopwatch

    @classmethod
    def of(
        cls,
        model: nn.Module | str | Path | Network,
        example_inputs: ExampleInputs | None,
        rule: AnyRule | None,
        *,
        energy: float | None = None,
        include: str | Sequence[str] | Choice = ("*",),
        exclude: str | Sequence[str] | Choice = (),
        first: str = "svd",
        round_to: int | None = None,
        methods: Sequence[str] = DEFAULT_METHODS,
        calibration: CalibrationData | None = None,
        objective: str | Objective | None = None,
    ) -> Choosing:
        """Check what was asked for, before any work is done; arguments as of :func:`tuckertree.compress`."""
        if energy is not None and rule is None:
            rule = Energy(energy)
        elif energy is not None or rule is None:
            raise UsageError("give either a rule or an energy, such as energy=0.9")
        timed = isinstance(rule, Budget) and rule.latency is not None
        round_to = 1 if round_to is None and not timed else round_to
        options = Options(_patterns(include), _patterns(exclude), first, round_to, methods).for_rule(rule)
        if not options.of_layers and calibration is None:
            raise UsageError(
                "the method channels needs images to choose by: give calibration, or other methods too"
            )
        found = find_objective(objective, rule, calibrated=calibration is not None)
        stopwatch = Stopwatch()
        network = network_of(model, example_inputs)
        images = None if calibration is None else network.images(calibration)
        return cls(network, rule, options, found, images, stopwatch)

    def planned(self, tick: ProgressCallback) -> tuple[Plan, Inventory, Mapping[str, Spectra] | None]:
        """The plan, the inventory it was made for, and spectra that its factors can be made of."""
        network, rule, images, stopwatch = self.network, self.rule, self.images, self.stopwatch
        inventory = network.inventory()
        options = self.options.among(inventory.layers)
        _refuse_if_all_stay(inventory, options, network.layers_are)
        dense = network.module
        stopwatch.lap("inventory")
        inventory = network.probed(inventory, options)
        stopwatch.lap("probe")
        if images is not None:
            network.check_images(images)
            stopwatch.lap("images")
        spectra: Mapping[str, Spectra] | None
        if isinstance(rule, NetworkRule):
            target = timer = None
            if isinstance(rule, Budget) and rule.latency is not None:
                target = network.target(rule)
                inventory, timer = target.measure(inventory, options, tick=tick)
                stopwatch.lap("times")
            may_prune = CHANNELS in options.methods and images is not None
            hidden = network.hidden(inventory, options) if may_prune else []
            candidates, objective = survey_network(
                dense, inventory, options, self.objective, images, hidden=hidden, timer=timer, tick=tick
            )
            if target is not None:
                plan = target.plan(inventory, candidates, options, tick=tick)
            else:
                plan = make_plan(inventory, candidates, rule, options)
            plan = replace(plan, rule={**plan.rule, **objective.describe()})
            spectra = (
                None
                if objective.weighs
                else {name: x.spectra for name, x in candidates.items() if isinstance(x, Candidates)}
            )
        else:
            spectra = survey(dense, inventory, options, tick=tick)
            plan = make_plan(inventory, spectra, rule, options)
        if not plan.changes:
            raise UnreachableTargetError(_nothing_to_compress(plan))
        stopwatch.lap("plan")
        return replace(plan, before=gone_from(dense)), inventory, spectra


def _patterns(wanted: str | Sequence[str] | Choice) -> Sequence[str] | Choice:
    return (wanted,) if isinstance(wanted, str) else wanted


def _refuse_if_all_stay(inventory: Inventory, options: Options, layers_are: str) -> None:
    """Say why nothing can be compressed before a rule says that its target cannot be reached."""
    if not inventory.layers:
        notes = f" ({'; '.join(inventory.notes)})" if inventory.notes else ""
        raise UnreachableTargetError(f"nothing to compress: the model has no {layers_are}{notes}")
    if all(options.method(layer)[0] == DENSE for layer in inventory.layers):
        raise UnreachableTargetError(_nothing_to_compress(make_plan(inventory, {}, Ranks({"*": 1}), options)))


def _nothing_to_compress(plan: Plan) -> str:
    """Say why a plan leaves everything as it is."""
    reasons = list_reasons(layer.reason for layer in plan.layers if layer.method == DENSE)
    return f"nothing to compress: all {len(plan.layers)} layers stay dense ({reasons})"

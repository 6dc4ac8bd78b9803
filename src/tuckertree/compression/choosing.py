"""What a compression is to do: options checked, layers surveyed, methods and ranks chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from warnings import warn

from torch import nn

from tuckertree._base.errors import TuckertreeError, UnreachableTargetError, UsageError, advice
from tuckertree._base.progress import ProgressCallback
from tuckertree.calibration import Calibration, CalibrationData
from tuckertree.compression.accuracy.trials import LabelledData, Trial
from tuckertree.compression.checking import (
    check_precisions,
    nothing_to_compress,
    refuse_choices,
    refuse_if_all_stay,
    refuse_int8_plan,
    trial_for,
)
from tuckertree.compression.int8 import InPrecision
from tuckertree.compression.measures import Stopwatch
from tuckertree.compression.network import Network
from tuckertree.compression.networks import network_of
from tuckertree.compression.objectives import AnyRule, Objective, find_objective, survey_network
from tuckertree.core.decomposition import Spectra
from tuckertree.core.layers import Choices
from tuckertree.latency import LatencyNotKeptError, LatencyTarget, keeps_target, least_latency
from tuckertree.measure import ExampleInputs
from tuckertree.network.channels import gone_from
from tuckertree.planning import (
    Budget,
    Candidates,
    Decisions,
    Energy,
    Inventory,
    NetworkRule,
    Options,
    Plan,
    Timer,
    TradeOff,
    make_plan,
    survey,
    trade_off,
)
from tuckertree.planning.budget import SINGLE
from tuckertree.planning.channels import CHANNELS, DEFAULT_METHODS, Pruning
from tuckertree.planning.edited import plan_again
from tuckertree.planning.options import Choice
from tuckertree.planning.survey_record import values_alone
from tuckertree.runtimes import INT8, find_runtime


@dataclass(frozen=True)
class Surveyed:
    """What budgets choose from: any number of plans can be made of it."""

    inventory: Inventory
    candidates: Decisions
    options: Options
    objective: Objective
    target: LatencyTarget | None
    before: tuple[tuple[Pruning, ...], ...] = ()

    def plan(self, rule: NetworkRule, tick: ProgressCallback, alone: Plan | None = None) -> Plan:
        """The plan of a rule; ``alone`` is that of its precision without any factors.

        Raises
        ------
        UnreachableTargetError
            If it cannot be met.
        """
        if self.target is not None and isinstance(rule, Budget):
            plan = self.target.at(rule).plan(
                self.inventory, self.candidates, self.options, alone=alone, tick=tick
            )
        else:
            plan = make_plan(self.inventory, self.candidates, rule, self.options)
        return replace(plan, rule={**plan.rule, **self.objective.describe()}, before=self.before)

    @property
    def spectra(self) -> Mapping[str, Spectra] | None:
        """Spectra that factors can be made of, where errors were measured in the metric of the weights."""
        if self.objective.weighs:
            return None
        return {name: x.spectra for name, x in self.candidates.items() if isinstance(x, Candidates)}

    def least(self, cost: str) -> float:
        """The smallest share of the whole network's cost that candidates can reach."""
        if cost == "latency":
            return least_latency(self.inventory, self.candidates)
        smallest = trade_off(self.inventory, self.candidates, by=cost, points=2)[0]
        if cost == "macs":
            return smallest.macs / self.inventory.macs
        return smallest.parameters / self.inventory.parameters


@dataclass(frozen=True)
class Planned:
    """A plan, the inventory it was made for, and spectra that its factors can be made of."""

    plan: Plan
    inventory: Inventory
    spectra: Mapping[str, Spectra] | None = None


@dataclass
class Choosing:
    """What a compression is to do, checked."""

    network: Network
    rule: AnyRule
    options: Options
    objective: Objective
    images: Calibration | None
    stopwatch: Stopwatch
    trial: Trial | None = None
    others: tuple[InPrecision, ...] = ()
    spectra: Mapping[str, Spectra] = field(default_factory=dict)
    offered: Mapping[str, Mapping[str, Choices]] = field(default_factory=dict)
    curve: tuple[TradeOff, ...] = ()

    @property
    def some_images(self) -> Calibration | None:
        """Images of the form that the network takes, if there are any."""
        return self.trial.images if self.images is None and self.trial else self.images

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
        data: LabelledData | None = None,
    ) -> Choosing:
        """Check what was asked for, before any work is done; arguments as of :func:`tuckertree.compress`."""
        if isinstance(example_inputs, Energy | NetworkRule | Plan):
            raise UsageError("example inputs come before the rule: compress(model, example_inputs, rule)")
        if energy is not None and rule is None:
            rule = Energy(energy)
        elif energy is not None or rule is None:
            raise UsageError("give either a rule or an energy, such as energy=0.9")
        timed = isinstance(rule, Budget) and rule.is_timed
        round_to = 1 if round_to is None and not timed else round_to
        options = Options(_patterns(include), _patterns(exclude), first, round_to, methods)
        if isinstance(rule, Plan):
            refuse_choices(options, objective)
            refuse_int8_plan(rule)
        else:
            options = options.for_rule(rule)
        if not options.of_layers and calibration is None:
            raise UsageError(
                "the method channels needs images to choose by: give calibration, or other methods too"
            )
        found = find_objective(objective, rule, calibrated=calibration is not None)
        stopwatch = Stopwatch()
        network = network_of(model, example_inputs)
        if isinstance(rule, Budget) and rule.latency is not None:
            check_precisions(rule, network, calibrated=calibration is not None)
        images = None if calibration is None else network.images(calibration)
        images, trial = trial_for(rule, network, images, calibration, data)
        return cls(network, rule, options, found, images, stopwatch, trial)

    def planned(self, tick: ProgressCallback) -> list[Planned]:
        """The plan; of a budget that allows several precisions one for each that keeps the target.

        What there was of the others is in :attr:`others`.
        """
        inventory, options = self._looked_at()
        if isinstance(self.rule, Budget) and self.rule.latency is not None:
            found = self._in_precisions(self.rule, inventory, options, tick)
        elif isinstance(self.rule, NetworkRule):
            surveyed = self._survey(inventory, options, None, None, tick)
            found = [Planned(surveyed.plan(self.rule, tick), inventory, surveyed.spectra)]
        elif isinstance(self.rule, Plan):
            hidden = self.network.hidden(inventory, options) if self.rule.pruned else ()
            given = plan_again(self.network.module, inventory, self.rule, hidden)
            found = [Planned(given, inventory)]
        else:
            spectra = survey(self.network.module, inventory, options, tick=tick)
            self._note(spectra)
            plan = make_plan(inventory, spectra, self.rule, options)
            found = [Planned(replace(plan, before=gone_from(self.network.module)), inventory, spectra)]
        changing = [each for each in found if each.plan.changes]
        self.others += tuple(
            InPrecision(each.plan.latency.precision, _measured(each.plan), kept=True, unchanged=True)
            for each in found
            if each not in changing and each.plan.latency is not None
        )
        if not changing:
            raise UnreachableTargetError(nothing_to_compress(found[0].plan))
        self.stopwatch.lap("plan")
        return changing

    def surveyed(self, tick: ProgressCallback) -> Surveyed:
        """What a budget of accuracy chooses from."""
        inventory, options = self._looked_at()
        target = timer = None
        if isinstance(self.rule, Budget) and self.rule.is_timed:
            target = self.network.target(self.rule)
            inventory, timer = target.measure(inventory, options, tick=tick)
            self.stopwatch.lap("times")
        return self._survey(inventory, options, target, timer, tick)

    def _in_precisions(
        self, rule: Budget, inventory: Inventory, options: Options, tick: ProgressCallback
    ) -> list[Planned]:
        """Plans that keep a target of latency, in each precision that can; the nearest where none does."""
        found, refused = dict[str, Planned](), dict[str, UnreachableTargetError]()
        for precision in rule.precision:
            try:
                found[precision] = self._timed(
                    replace(rule, precision=(precision,)), inventory, options, tick
                )
            except UnreachableTargetError as error:
                refused[precision] = error
            except TuckertreeError as error:
                if precision == rule.precision[-1] and not found:
                    raise
                warn(f"not in {precision}: {error}", UserWarning, stacklevel=2)
        shares = {name: _measured(each.plan) for name, each in found.items()}
        shares |= {
            name: error.nearest for name, error in refused.items() if isinstance(error, LatencyNotKeptError)
        }
        if not found:
            nearest = refused[min(refused, key=lambda name: shares.get(name, inf))]
            if isinstance(nearest, LatencyNotKeptError) and self._may_do_more(rule):
                how = advice(typed="--precision fp32,int8", called="Budget(precision=('fp32', 'int8'))")
                more = self._in_8_bits(rule, inventory, options)
                raise LatencyNotKeptError(f"{nearest}; {more}: {how}", nearest.nearest)
            raise nearest
        missed = [name for name, each in found.items() if each.plan.latency and each.plan.latency.missed]
        if len(missed) == len(found):
            missed.remove(min(missed, key=shares.__getitem__))
        self.others += tuple(
            InPrecision(name, share, kept=False)
            for name, share in shares.items()
            if name in missed or name in refused
        )
        said = {} if rule.precision == SINGLE else {"precision": list(rule.precision)}
        return [
            replace(each, plan=replace(each.plan, rule={**each.plan.rule, **said}))
            for name, each in found.items()
            if name not in missed
        ]

    def _may_do_more(self, rule: Budget) -> bool:
        """Whether 8 bits, which a budget does not allow, could be allowed."""
        if INT8 in rule.precision or INT8 not in find_runtime(rule.runtime).precisions:
            return False
        try:
            self.network.check_precision(INT8)
        except UsageError:
            return False
        return True

    def _in_8_bits(self, rule: Budget, inventory: Inventory, options: Options) -> str:
        """What 8 bits alone, which a budget does not allow, were measured to do."""
        try:
            _, alone = self.network.target(replace(rule, precision=(INT8,))).alone(inventory, options)
        except TuckertreeError:
            alone = None
        if alone is None:
            return "8 bits may do more"
        faster = f"8 bits alone were measured at {1 / _measured(alone):.3g}x"
        return f"{faster} and keep it" if keeps_target(alone) else f"{faster}, with chains they may do more"

    def _timed(self, rule: Budget, inventory: Inventory, options: Options, tick: ProgressCallback) -> Planned:
        """A plan that keeps a target of latency in the one precision of a rule."""
        target = self.network.target(rule)
        inventory, alone = target.alone(inventory, options)
        self.stopwatch.lap("times")
        if alone is not None and keeps_target(alone):  # then no layer need be timed
            return Planned(replace(alone, before=gone_from(self.network.module)), inventory)
        if alone is not None:  # it may be near enough to be preferred to what keeps the target
            self.others += (InPrecision(f"{rule.precision[0]} alone", _measured(alone), kept=False),)
        inventory, timer = target.measure(inventory, options, tick=tick)
        self.stopwatch.lap("times")
        surveyed = self._survey(inventory, options, target, timer, tick)
        return Planned(surveyed.plan(rule, tick, alone), inventory, surveyed.spectra)

    def _survey(
        self,
        inventory: Inventory,
        options: Options,
        target: LatencyTarget | None,
        timer: Timer | None,
        tick: ProgressCallback,
    ) -> Surveyed:
        dense, images = self.network.module, self.images
        may_prune = CHANNELS in options.methods and images is not None and self.objective.weighs
        hidden = self.network.hidden(inventory, options) if may_prune else []
        candidates, objective = survey_network(
            dense, inventory, options, self.objective, images, hidden=hidden, timer=timer, tick=tick
        )
        single = {name: x for name, x in candidates.items() if isinstance(x, Candidates)}
        self._note({name: x.spectra for name, x in single.items()})
        self.offered = {name: x.offered for name, x in single.items()}
        if timer is None and isinstance(self.rule, Budget):
            self.curve = trade_off(inventory, candidates, by=self.rule.curve_by)
        return Surveyed(inventory, candidates, options, objective, target, gone_from(dense))

    def _note(self, spectra: Mapping[str, Spectra]) -> None:
        self.spectra = {name: values_alone(each) for name, each in spectra.items()}

    def _looked_at(self) -> tuple[Inventory, Options]:
        """The layers, tried, and the options for them; images are checked by then."""
        network, stopwatch = self.network, self.stopwatch
        inventory = network.inventory()
        options = self.options.among(inventory.layers)
        if not isinstance(self.rule, Budget) or INT8 not in self.rule.precision:
            refuse_if_all_stay(inventory, options, network.layers_are)
        stopwatch.lap("inventory")
        inventory = network.probed(inventory, options)
        stopwatch.lap("probe")
        if (images := self.some_images) is not None:
            network.check_images(images)
            stopwatch.lap("images")
        return inventory, options


def _measured(plan: Plan) -> float:
    assert plan.latency is not None
    return plan.latency.measured


def _patterns(wanted: str | Sequence[str] | Choice) -> Sequence[str] | Choice:
    return (wanted,) if isinstance(wanted, str) else wanted

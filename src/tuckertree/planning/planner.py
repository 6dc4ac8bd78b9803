"""From an inventory and a rule to a plan."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Any, TypeVar, overload

from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree._base.progress import ProgressCallback, no_progress, parallel_map
from tuckertree.core.decomposition import Spectra, kernel_spectra
from tuckertree.core.decomposition.matricization import mode_sizes
from tuckertree.core.layers import chain_parameters, get_method, weight_of
from tuckertree.planning.candidates import Candidates, layer_candidates
from tuckertree.planning.channels import CHANNELS, DEFAULT_METHODS, Pruning
from tuckertree.planning.groups import Decisions, Group
from tuckertree.planning.inventory import Inventory, Layer
from tuckertree.planning.patterns import fits
from tuckertree.planning.plan import DENSE, EXCLUDED, NOT_INCLUDED, LayerPlan, Plan
from tuckertree.planning.rules import NetworkRule, Ranks, Rule
from tuckertree.planning.timing import Timer

FIRST_LAYER = ("svd", "ht2", DENSE)
Choice = Callable[[Layer], bool]
Metric = Callable[[Layer, Tensor], Tensor]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Options:
    """Which layers are compressed, and how, apart from their ranks.

    Attributes
    ----------
    include, exclude
        Name patterns as in a shell, or a predicate on :class:`~tuckertree.planning.inventory.Layer`; by
        default every layer is included and none excluded. A layer's very name fits that layer alone.
    first
        The first convolution: ``svd`` of the T-mode (the paper), ``ht2``, or left ``dense``. To a
        budget it is a layer like any other, unless it is left dense.
    round_to
        Ranks are rounded up to a multiple of this where there is room. None leaves it to the width of each
        layer (:func:`~tuckertree.planning.timing.rank_step`), for a budget.
    methods
        Names of the methods that a budget chooses among; ``channels`` among them lets hidden channels go. Other rules
        have HT-2, and the SVD for the first convolution, pointwise and linear layers (the paper).

    Raises
    ------
    UsageError
        If an option has a value it cannot have.
    """

    include: Sequence[str] | Choice = ("*",)
    exclude: Sequence[str] | Choice = ()
    first: str = "svd"
    round_to: int | None = 1
    methods: Sequence[str] = DEFAULT_METHODS

    def __post_init__(self) -> None:
        if self.first not in FIRST_LAYER:
            raise UsageError(f"the first layer can be {', '.join(FIRST_LAYER)}, not {self.first!r}")
        if self.round_to is not None and self.round_to < 1:
            raise UsageError(f"ranks can be rounded to a multiple of 1 or more, not {self.round_to}")
        if isinstance(self.methods, str) or not self.methods:
            raise UsageError(f"methods are several names, such as ('ht2', 'svd'), not {self.methods!r}")
        for name in self.of_layers:
            get_method(name)

    @property
    def of_layers(self) -> tuple[str, ...]:
        """The methods that are about one layer."""
        return tuple(name for name in self.methods if name != CHANNELS)

    def for_rule(self, rule: Rule | NetworkRule) -> Options:
        """The same, where the methods are such as the rule can use.

        Raises
        ------
        UsageError
            If it sees one layer at a time, and its two methods are not among them.
        """
        if not isinstance(rule, NetworkRule) and not {"ht2", "svd"} <= set(self.methods):
            raise UsageError(
                "methods belong to a budget, such as Budget(macs=0.5); other rules use ht2 and svd"
            )
        return self

    def among(self, layers: Sequence[Layer]) -> Options:
        """The same for these layers: a pattern that is a layer's very name is that name.

        Raises
        ------
        UsageError
            Naming a pattern that fits no layer: it is a slip of the pen.
        """
        # The pattern of the default is all layers, even if one is called so.
        names = {name for layer in layers for name in (layer.name, *layer.aliases)} - {"*"}

        def known(patterns: Sequence[str] | Choice) -> Sequence[str] | Choice:
            if callable(patterns) or not layers:
                return patterns
            for pattern in patterns:
                if not any(fits(name, pattern, names) for name in names):
                    raise UsageError(f"no layer is named {pattern!r}; `tuckertree inspect` lists the names")
            return lambda layer: _fits(layer, patterns, names)

        return replace(self, include=known(self.include), exclude=known(self.exclude))

    def method(self, layer: Layer) -> tuple[str, str]:
        """Method for a layer (``dense`` to leave it) and the reason."""
        if _fits(layer, self.exclude):
            return DENSE, EXCLUDED
        if not _fits(layer, self.include):
            return DENSE, NOT_INCLUDED
        if layer.skip_reason:
            return DENSE, layer.skip_reason
        if layer.is_first:
            return self.first, "first convolution"
        if not layer.spec.nontrivial_modes:
            return "svd", "linear" if layer.spec.kind == "linear" else "pointwise"
        return "ht2", ""


def survey(
    model: nn.Module, inventory: Inventory, options: Options, *, tick: ProgressCallback = no_progress
) -> dict[str, Spectra]:
    """Spectra of every layer that is to be compressed, by name; the weights are only read.

    Raises
    ------
    TuckertreeError
        If a weight holds NaN or infinite values, with the name of the layer.
    """

    def spectra(layer: Layer, kernel: Tensor) -> Spectra:
        return kernel_spectra(kernel, get_method(options.method(layer)[0]).cuts(layer.spec))

    return _each_kernel(model, inventory, options, spectra, doing="spectra", tick=tick)


def survey_candidates(
    model: nn.Module,
    inventory: Inventory,
    options: Options,
    *,
    metric: Metric | None = None,
    timer: Timer | None = None,
    tick: ProgressCallback = no_progress,
) -> dict[str, Candidates]:
    """Candidates of every layer that may be compressed, by name; the weights are only read.

    Parameters
    ----------
    model, inventory, options
        As for :func:`survey`. The first convolution is a layer like any other, or left dense.
    metric
        Gives the kernel of a layer in the metric that errors are to be measured in; by default as it is.
    timer
        Knows times: for a budget of latency.

    Raises
    ------
    TuckertreeError
        If a weight holds NaN or infinite values, with the name of the layer.
    """

    def candidates(layer: Layer, kernel: Tensor) -> Candidates:
        kernel = metric(layer, kernel) if metric else kernel
        return layer_candidates(
            layer, kernel, round_to=options.round_to, methods=options.of_layers, timer=timer
        )

    return _each_kernel(model, inventory, options, candidates, doing="candidates", tick=tick)


def _each_kernel(
    model: nn.Module,
    inventory: Inventory,
    options: Options,
    work: Callable[[Layer, Tensor], Found],
    *,
    doing: str,
    tick: ProgressCallback,
) -> dict[str, Found]:
    """What ``work`` finds in the kernel of every layer that may be compressed; its errors name the layer."""
    chosen = [layer for layer in inventory.layers if options.method(layer)[0] != DENSE]

    def named(layer: Layer) -> Found:
        weight = weight_of(model.get_submodule(layer.name))
        try:
            return work(layer, layer.spec.kernel(weight))
        except TuckertreeError as error:
            raise type(error)(f"{layer.name}: {error}") from error

    found = parallel_map(named, chosen, doing=doing, tick=tick, size=_eigenproblem)
    return {layer.name: each for layer, each in zip(chosen, found, strict=True)}


@overload
def make_plan(
    inventory: Inventory, surveyed: Mapping[str, Spectra], rule: Rule, options: Options | None = None
) -> Plan: ...
@overload
def make_plan(
    inventory: Inventory,
    surveyed: Decisions,
    rule: NetworkRule,
    options: Options | None = None,
) -> Plan: ...
def make_plan(
    inventory: Inventory,
    surveyed: Mapping[str, Any],
    rule: Rule | NetworkRule,
    options: Options | None = None,
) -> Plan:
    """Choose methods and ranks for every layer, and keep dense what would not get smaller.

    Parameters
    ----------
    inventory, options
        Of the same model.
    surveyed
        For a rule that sees one layer at a time its spectra (:func:`survey`), for one that chooses for the
        whole network the candidates of all layers (:func:`survey_candidates`), by the layers' names, and of
        groups of layers, by names of their own.
    rule
        Chooses.

    Raises
    ------
    UsageError
        If the rule's ranks do not fit a layer, or a pattern fits none.
    UnreachableTargetError
        If no candidates are within a budget.
    """
    options = (options or Options()).among(inventory.layers)
    optimality = None
    pruned: tuple[Pruning, ...] = ()
    if isinstance(rule, NetworkRule):
        allocation = rule.choose(inventory, surveyed)
        optimality = allocation.optimality
        plans: dict[str, LayerPlan] = {}
        by_name = {layer.name: layer for layer in inventory.layers}
        for name, pick in allocation.picks.items():
            if isinstance(decision := surveyed[name], Group):
                plans |= {plan.name: replace(plan, group=decision.layers) for plan in decision.plans[pick]}
                pruned += decision.pruned[pick] if decision.pruned else ()
            else:
                plans[name] = _plan_candidate(by_name[name], decision, pick, options)
        layers = tuple(
            plans.get(layer.name) or _leave_dense(layer, options.method(layer)[1])
            for layer in inventory.layers
        )
    else:
        names = {layer.name for layer in inventory.layers}
        chosen = replace(rule, names=names) if isinstance(rule, Ranks) else rule
        layers = tuple(
            _plan_layer(layer, surveyed.get(layer.name), chosen, options) for layer in inventory.layers
        )
    saved_parameters = sum(layer.parameters[0] - layer.parameters[1] for layer in layers)
    saved_parameters += sum((each.hidden.channels - len(each.kept)) * each.hidden.beside for each in pruned)
    saved_macs = sum(layer.macs[0] - layer.macs[1] for layer in layers)
    return Plan(
        layers=layers,
        rule=rule.describe(),
        parameters=(inventory.parameters, inventory.parameters - saved_parameters),
        macs=(inventory.macs, inventory.macs - saved_macs),
        optimality=optimality,
        pruned=pruned,
    )


def _plan_layer(layer: Layer, spectra: Spectra | None, rule: Rule, options: Options) -> LayerPlan:
    method, reason = options.method(layer)
    if spectra is None or method == DENSE:
        return _leave_dense(layer, reason)
    ranks = rule.ranks(layer.name, spectra)
    if ranks is None:
        return _leave_dense(layer, "no ranks given")
    how, step = get_method(method), options.round_to or 1
    ranks = how.checked_ranks(layer.spec, [ceil(rank / step) * step for rank in ranks])
    stages = how.stages(layer.spec, ranks)
    parameters, macs = chain_parameters(stages), layer.chain_macs(stages)
    if parameters >= layer.spec.weights:
        return _leave_dense(layer, f"ranks {_row(ranks)} would not save parameters")
    if macs > layer.macs:
        return _leave_dense(layer, f"ranks {_row(ranks)} would add MACs")
    bound = spectra.bound(dict(zip(spectra.bonds, ranks, strict=True)))
    return replace(
        _leave_dense(layer, reason),
        method=method,
        ranks=ranks,
        parameters=(layer.spec.weights, parameters),
        macs=(layer.macs, macs),
        bound=bound,
    )


def _plan_candidate(layer: Layer, candidates: Candidates, pick: int, options: Options) -> LayerPlan:
    method, parameters = candidates.methods[pick], int(candidates.parameters[pick])
    seconds = None if candidates.seconds is None else candidates.seconds.tolist()
    before = max(seconds) if seconds else 0.0  # nothing slower than the dense layer is a candidate
    if method == DENSE and layer.skip_reason:  # it is there for the groups that it belongs to
        return _leave_dense(layer, layer.skip_reason)
    if method == DENSE:
        fits = any(get_method(name).applies(layer.spec) for name in options.of_layers)
        reason = (
            "best left as it is" if fits else f"none of the methods {', '.join(options.methods)} is for it"
        )
        dense = _leave_dense(layer, f"budget: {reason}")
        return replace(dense, seconds=(before, before)) if seconds else dense
    get_method(method).checked_costs(layer.spec, candidates.ranks[pick], parameters)
    return replace(
        _leave_dense(layer, "budget"),
        method=method,
        ranks=candidates.ranks[pick],
        parameters=(layer.spec.weights, parameters),
        macs=(layer.macs, int(candidates.macs[pick])),
        bound=float(candidates.error[pick]) ** 0.5,
        form=candidates.forms[pick] if seconds else None,
        seconds=(before, seconds[pick]) if seconds else None,
    )


def _leave_dense(layer: Layer, reason: str) -> LayerPlan:
    return LayerPlan(
        name=layer.name,
        kind=layer.spec.kind,
        kernel=layer.spec.kernel_shape,
        groups=layer.spec.groups,
        method=DENSE,
        ranks=(),
        parameters=(layer.spec.weights, layer.spec.weights),
        macs=(layer.macs, layer.macs),
        bound=0.0,
        reason=reason,
    )


def _fits(layer: Layer, wanted: Sequence[str] | Choice, names: Collection[str] = ()) -> bool:
    if callable(wanted):
        return wanted(layer)
    return any(fits(name, pattern, names) for pattern in wanted for name in (layer.name, *layer.aliases))


def _eigenproblem(layer: Layer) -> float:
    """A number that grows with the time of a layer's largest eigendecomposition."""
    sizes = mode_sizes(layer.spec.nontrivial_shape)
    sides = (min(prod(sizes[:bond]), prod(sizes[bond:])) for bond in range(1, len(sizes)))
    return float(layer.spec.groups * max(sides) ** 3)


def _row(ranks: Sequence[int]) -> str:
    return "/".join(map(str, ranks))

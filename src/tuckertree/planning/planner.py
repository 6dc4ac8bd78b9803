"""From an inventory and a rule to a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import ceil, prod
from typing import Any, TypeVar, overload

from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError
from tuckertree._base.progress import ProgressCallback, no_progress, parallel_map
from tuckertree.core.decomposition import Spectra, kernel_spectra
from tuckertree.core.decomposition.matricization import mode_sizes
from tuckertree.core.layers import LayerSpec, chain_parameters, get_method, weight_of
from tuckertree.planning.candidates import Candidates, layer_candidates
from tuckertree.planning.channels import Pruning, Side
from tuckertree.planning.groups import Decisions, Group
from tuckertree.planning.inventory import Inventory, Layer
from tuckertree.planning.options import Options
from tuckertree.planning.plan import DENSE, LayerPlan, Optimality, Plan
from tuckertree.planning.rules import NetworkRule, Ranks, Rule
from tuckertree.planning.timing import Timer

Metric = Callable[[Layer, Tensor], Tensor]
Found = TypeVar("Found")


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
    optimality: Optimality | None = None
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
            plans.get(layer.name) or leave_dense(layer, options.method(layer)[1])
            for layer in inventory.layers
        )
    else:
        names = {layer.name for layer in inventory.layers}
        chosen = replace(rule, names=names) if isinstance(rule, Ranks) else rule
        layers = tuple(
            _plan_layer(layer, surveyed.get(layer.name), chosen, options) for layer in inventory.layers
        )
    return plan_of(inventory, layers, rule.describe(), pruned, optimality)


def plan_of(
    inventory: Inventory,
    layers: Iterable[LayerPlan],
    rule: Mapping[str, object],
    pruned: tuple[Pruning, ...] = (),
    optimality: Optimality | None = None,
) -> Plan:
    """The plan of a network, of the plans of its layers: totals are counted."""
    layers = tuple(layers)
    saved_parameters = sum(layer.parameters[0] - layer.parameters[1] for layer in layers)
    saved_parameters += sum((each.hidden.channels - len(each.kept)) * each.hidden.beside for each in pruned)
    saved_macs = sum(layer.macs[0] - layer.macs[1] for layer in layers)
    return Plan(
        layers=layers,
        rule=rule,
        parameters=(inventory.parameters, inventory.parameters - saved_parameters),
        macs=(inventory.macs, inventory.macs - saved_macs),
        optimality=optimality,
        pruned=pruned,
    )


def _plan_layer(layer: Layer, spectra: Spectra | None, rule: Rule, options: Options) -> LayerPlan:
    method, reason = options.method(layer)
    if spectra is None or method == DENSE:
        return leave_dense(layer, reason)
    ranks = rule.ranks(layer.name, spectra)
    if ranks is None:
        return leave_dense(layer, "no ranks given")
    step = options.round_to or 1
    plan = factored(layer, method, [ceil(rank / step) * step for rank in ranks], reason)
    if plan.method == DENSE:
        return plan
    return replace(plan, bound=spectra.bound(dict(zip(spectra.bonds, plan.ranks, strict=True))))


def _plan_candidate(layer: Layer, candidates: Candidates, pick: int, options: Options) -> LayerPlan:
    method, parameters = candidates.methods[pick], int(candidates.parameters[pick])
    seconds = None if candidates.seconds is None else candidates.seconds.tolist()
    before = max(seconds) if seconds else 0.0  # nothing slower than the dense layer is a candidate
    if method == DENSE and layer.skip_reason:  # it is there for the groups that it belongs to
        return leave_dense(layer, layer.skip_reason)
    if method == DENSE:
        fits = any(get_method(name).applies(layer.spec) for name in options.of_layers)
        reason = (
            "best left as it is" if fits else f"none of the methods {', '.join(options.methods)} is for it"
        )
        dense = leave_dense(layer, f"budget: {reason}")
        return replace(dense, seconds=(before, before)) if seconds else dense
    get_method(method).checked_costs(layer.spec, candidates.ranks[pick], parameters)
    return replace(
        leave_dense(layer, "budget"),
        method=method,
        ranks=candidates.ranks[pick],
        parameters=(layer.spec.weights, parameters),
        macs=(layer.macs, int(candidates.macs[pick])),
        bound=float(candidates.error[pick]) ** 0.5,
        form=candidates.forms[pick] if seconds else None,
        seconds=(before, seconds[pick]) if seconds else None,
    )


def factored(layer: Layer, method: str, ranks: Sequence[int], reason: str) -> LayerPlan:
    """The plan of a layer that becomes a chain of feasible ranks, or stays dense where that would not be smaller.

    Of the chain's error nothing is known: it is at most 1.

    Raises
    ------
    UsageError
        If the method is not for the layer, or has not so many ranks.
    """
    how = get_method(method)
    feasible = how.checked_ranks(layer.spec, ranks)
    stages = how.stages(layer.spec, feasible)
    parameters, macs = chain_parameters(stages), layer.chain_macs(stages)
    if parameters >= layer.spec.weights:
        return leave_dense(layer, f"ranks {_row(feasible)} would not save parameters")
    if macs > layer.macs:
        return leave_dense(layer, f"ranks {_row(feasible)} would add MACs")
    return replace(
        leave_dense(layer, reason),
        method=method,
        ranks=feasible,
        parameters=(layer.spec.weights, parameters),
        macs=(layer.macs, macs),
        bound=1.0,
    )


def thinned(layer: Layer, pruned: Sequence[Pruning], reason: str) -> LayerPlan:
    """The plan of a layer that some hidden channels go from, and nothing else."""
    spec = layer.spec
    for each in pruned:
        if (side := each.hidden.side(layer.name)) is not None:
            spec = narrowed(spec, side, len(each.gone(layer.name)))
    return replace(
        leave_dense(layer, reason),
        parameters=(layer.spec.weights, spec.weights),
        macs=(layer.macs, replace(layer, spec=spec).macs),
    )


def narrowed(spec: LayerSpec, side: Side, less: int) -> LayerSpec:
    """A layer's structure with so many fewer channels on a side."""
    inputs, outputs = spec.in_channels - less, spec.out_channels - less
    if side == "channels":
        return replace(spec, in_channels=inputs, out_channels=outputs, groups=spec.groups - less)
    return replace(spec, out_channels=outputs) if side == "outputs" else replace(spec, in_channels=inputs)


def leave_dense(layer: Layer, reason: str) -> LayerPlan:
    """The plan of a layer that stays as it is."""
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


def _eigenproblem(layer: Layer) -> float:
    """A number that grows with the time of a layer's largest eigendecomposition."""
    sizes = mode_sizes(layer.spec.nontrivial_shape)
    sides = (min(prod(sizes[:bond]), prod(sizes[bond:])) for bond in range(1, len(sizes)))
    return float(layer.spec.groups * max(sides) ** 3)


def _row(ranks: Sequence[int]) -> str:
    return "/".join(map(str, ranks))

"""A plan that is given instead of a rule: read from a file, and made true for the network that it is carried out on."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree._base.reading import read_json_text
from tuckertree.core.decomposition import kernel_spectra
from tuckertree.core.layers import get_method, weight_of
from tuckertree.core.layers.methods import CutMethod
from tuckertree.planning.channels import HiddenChannels, Pruning
from tuckertree.planning.inventory import Inventory, Layer
from tuckertree.planning.plan import DENSE, LayerPlan, Plan
from tuckertree.planning.planner import factored, leave_dense, plan_of, thinned

GIVEN = "plan"
"""The rule of a plan that was given, not chosen."""
_OF_LAYER = re.compile(r"plan\.layers\.(\d+)")


def read_plan(path: Path) -> Plan:
    """Read a file that holds :meth:`Plan.dumps`, perhaps edited.

    Raises
    ------
    TuckertreeError
        If it cannot be read, or is not a plan; of a layer the message has the line.
    """
    data, text = read_json_text(path)
    try:
        return Plan.from_json(data)
    except TuckertreeError as error:
        found = _OF_LAYER.search(str(error))
        line = _line(text, int(found[1])) if found else None
        where = "" if line is None else f", line {line}"
        raise TuckertreeError(f"{path}{where}: {_OF_LAYER.sub('layer', str(error), 1)}") from error


def _line(text: str, number: int) -> int | None:
    """The line on which an entry of ``layers`` begins, in text that is JSON."""
    start = None
    for key, position in _entries(text, 0):
        if json.loads(key) == "layers" and text[position] == "[":  # of several the last counts
            start = next((at for i, (_, at) in enumerate(_entries(text, position)) if i == number), None)
    return None if start is None else text.count("\n", 0, start) + 1


def _entries(text: str, position: int) -> Iterator[tuple[str, int]]:
    """Keys, as they stand, and places of the values of the object or list that begins behind this place."""
    decoder, ends = json.JSONDecoder(), re.compile(r"\s*[,\]}]?\s*")
    position = _skip(text, position)
    is_object = text[position] == "{"
    position = _skip(text, position + 1)
    while position < len(text) and text[position] not in "]}":
        key = ""
        if is_object:
            end = decoder.raw_decode(text, position)[1]
            key, position = text[position:end], _skip(text, _skip(text, end) + 1)
        yield key, position
        position = decoder.raw_decode(text, position)[1]
        separator = ends.match(text, position)
        if separator is None or "," not in separator[0]:
            return
        position = separator.end()


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def plan_again(
    model: nn.Module, inventory: Inventory, plan: Plan, hidden: Sequence[HiddenChannels] = ()
) -> Plan:
    """A plan with figures that are true for a network.

    Costs are counted, and bounds are those of the weights. What else a plan says of the network that it was made for, times and a
    certificate, is left out; the forms in which layers run stay.

    Parameters
    ----------
    model, inventory
        The network, and its layers as probed.
    plan
        Made for a network with the same layers, and perhaps edited.
    hidden
        The channels of the network that may go.

    Raises
    ------
    UsageError
        If a layer is missing, named twice, unknown, of another shape, or cannot be what the plan makes of it, or channels cannot
        go; the message names the layer.
    """
    named = Counter(layer.name for layer in plan.layers)
    if twice := [name for name, count in named.items() if count > 1]:
        raise UsageError(f"the plan names a layer twice: {twice[0]}")
    if unknown := named.keys() - {layer.name for layer in inventory.layers}:
        names = ", ".join(sorted(unknown)[:3])
        raise UsageError(f"the plan names layers that this network does not have: {names}")
    _check_pruned(plan.pruned, hidden)
    wanted = {layer.name: layer for layer in plan.layers}
    layers = []
    for layer in inventory.layers:
        if layer.name not in wanted:
            raise UsageError(
                f"the plan says nothing of the layer {layer.name}; the method dense leaves it as it is"
            )
        if strangers := set(wanted[layer.name].group or ()) - named.keys():
            raise UsageError(
                f"the plan's layer {layer.name}: its group names {min(strangers)}, which is no layer"
            )
        try:
            found = _counted(layer, wanted[layer.name], plan.pruned)
            layers.append(_bounded(model, layer, found))
        except TuckertreeError as error:
            raise UsageError(f"the plan's layer {layer.name}: {error}") from error
    rule = plan.rule if plan.rule.get("rule") == GIVEN else {"rule": GIVEN, "plan": dict(plan.rule)}
    return replace(plan_of(inventory, layers, rule, plan.pruned), before=plan.before)


def _check_pruned(pruned: Sequence[Pruning], hidden: Sequence[HiddenChannels]) -> None:
    """Refuse channels that the network does not have so, or that something else reads."""
    for number, each in enumerate(pruned):
        of = f"channels of {', '.join(each.hidden.producers)}"
        if each.hidden not in hidden:
            raise UsageError(f"the plan takes {of} out, which cannot go from this network so")
        if any(each.hidden == other.hidden for other in pruned[:number]):
            raise UsageError(f"the plan takes {of} out twice")


def _counted(layer: Layer, plan: LayerPlan, pruned: Sequence[Pruning]) -> LayerPlan:
    """The plan of a layer with its costs."""
    dense = leave_dense(layer, plan.reason)
    if (plan.kind, plan.kernel, plan.groups) != (dense.kind, dense.kernel, dense.groups):
        raise UsageError(
            f"it is {dense.kind} {list(dense.kernel)} in {dense.groups} groups; the plan says {plan.kind} "
            f"{list(plan.kernel)} in {plan.groups}"
        )
    concerned = [each for each in pruned if layer.name in each.hidden.modules]
    if plan.method == DENSE:
        if plan.ranks:
            raise UsageError(f"it is dense, and has ranks: {list(plan.ranks)}; they become []")
        return replace(thinned(layer, concerned, plan.reason), group=plan.group)
    if concerned:
        raise UsageError(f"channels go from it, so it cannot be {plan.method} too")
    if layer.skip_reason:
        raise UsageError(f"it must stay dense: {layer.skip_reason}")
    found = factored(layer, plan.method, plan.ranks, plan.reason)
    return found if found.method == DENSE else replace(found, form=plan.form, group=plan.group)


def _bounded(model: nn.Module, layer: Layer, plan: LayerPlan) -> LayerPlan:
    """The plan of a layer with the bound of its weight's error, or the error where its method has no bound."""
    if plan.method == DENSE:
        return plan
    how, kernel = get_method(plan.method), layer.spec.kernel(weight_of(model.get_submodule(layer.name)))
    if not isinstance(how, CutMethod):
        return replace(plan, bound=min(how.factors(kernel, plan.ranks).relative_error(kernel), 1.0))
    spectra = kernel_spectra(kernel, how.cuts(layer.spec))
    return replace(plan, bound=spectra.bound(dict(zip(spectra.bonds, plan.ranks, strict=True))))

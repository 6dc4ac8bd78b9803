"""A plan that was read or edited, made true for a network again, or refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from torch import nn

from tuckertree._base.errors import TuckertreeError, UsageError, first_line
from tuckertree._base.reading import LARGEST_JSON, check_regular
from tuckertree.core.decomposition import kernel_spectra
from tuckertree.core.layers import get_method, weight_of
from tuckertree.core.layers.methods import CutMethod
from tuckertree.planning.inventory import Inventory, Layer
from tuckertree.planning.plan import DENSE, LayerPlan, Plan
from tuckertree.planning.planner import factored, leave_dense, plan_of

EDITED = "plan"
"""The rule of a plan that was given, not chosen."""


def read_plan(path: Path) -> Plan:
    """Read a file that holds :meth:`Plan.dumps`, perhaps edited.

    Raises
    ------
    TuckertreeError
        If it cannot be read, or is not a plan; the message has the line.
    """
    check_regular(path)
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise TuckertreeError(f"{path} is larger than any plan; refused")
        text = path.read_text(encoding="utf-8")
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise TuckertreeError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from error
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise TuckertreeError(f"{path} cannot be read: {reason}") from error
    layers = data.get("layers") if isinstance(data, dict) else None
    try:
        if isinstance(layers, list):
            for number, layer in enumerate(layers):
                _check_layer(layer, data, f"{path}, line {_line(text, number)}")
        return Plan.from_json(data)
    except TuckertreeError as error:
        where = "" if str(error).startswith(str(path)) else f"{path}: "
        raise TuckertreeError(f"{where}{error}") from error


def _check_layer(layer: object, data: dict[str, object], where: str) -> None:
    """Refuse the plan of a layer, by the line it is on."""
    try:
        Plan.from_json({**data, "layers": [layer]})
    except TuckertreeError as error:
        if "plan.layers.0" in str(error):
            raise TuckertreeError(f"{where}: {str(error).replace('plan.layers.0', 'layer')}") from error


def _line(text: str, number: int) -> int:
    """The line on which an entry of ``layers`` begins."""
    return text.count("\n", 0, list(_starts(text))[number]) + 1


def _starts(text: str) -> Iterator[int]:
    """Where the entries of ``layers`` begin; the text is known to be JSON that has them."""
    decoder, end = json.JSONDecoder(), text.index("[", text.rindex('"layers"'))
    while text[end := _skip(text, end + 1)] != "]":
        yield end
        end = _skip(text, decoder.raw_decode(text, end)[1])
        if text[end] == "]":
            return


def _skip(text: str, position: int) -> int:
    while text[position].isspace():
        position += 1
    return position


def plan_again(model: nn.Module, inventory: Inventory, plan: Plan) -> Plan:
    """The plan for a network with true figures: costs counted anew, bounds of what was edited.

    Parameters
    ----------
    model, inventory
        The network, and its layers as probed.
    plan
        Made for it, or for one with the same layers.

    Returns
    -------
    Plan
        ``plan`` itself where that was not edited. Of one that was the times and the certificate are left out.

    Raises
    ------
    UsageError
        If a layer is missing, unknown, of another shape, cannot be compressed, or its method or ranks cannot be; the
        message names the layer.
    """
    wanted = {layer.name: layer for layer in plan.layers}
    if unknown := wanted.keys() - {layer.name for layer in inventory.layers}:
        names = ", ".join(sorted(unknown)[:3])
        raise UsageError(f"the plan names layers that this network does not have: {names}")
    found: dict[str, LayerPlan] = {}
    for layer in inventory.layers:
        if layer.name not in wanted:
            raise UsageError(
                f"the plan says nothing of the layer {layer.name}; the method dense leaves it as it is"
            )
        try:
            found[layer.name] = _counted(layer, wanted[layer.name])
        except TuckertreeError as error:
            raise UsageError(f"the plan's layer {layer.name}: {error}") from error
    counted = replace(plan_of(inventory, found.values(), plan.rule, plan.pruned), before=plan.before)
    if counted == replace(plan, optimality=None, latency=None):
        return plan
    layers = [_bounded(model, layer, found[layer.name]) for layer in inventory.layers]
    edited = plan.rule if plan.rule.get("rule") == EDITED else {"rule": EDITED, "plan": dict(plan.rule)}
    return replace(counted, layers=tuple(layers), rule=edited)


def _counted(layer: Layer, plan: LayerPlan) -> LayerPlan:
    """The plan of a layer with its costs; as it was where these are equal."""
    dense = leave_dense(layer, plan.reason)
    if (plan.kind, plan.kernel, plan.groups) != (dense.kind, dense.kernel, dense.groups):
        raise UsageError(
            f"it is {dense.kind} {list(dense.kernel)} in {dense.groups} groups; the plan says {plan.kind} "
            f"{list(plan.kernel)} in {plan.groups}"
        )
    if plan.group is not None and plan.method == DENSE:
        return plan  # it may have fewer channels
    if plan.method == DENSE:
        if plan.ranks:
            raise UsageError(f"it is dense, and has ranks: {list(plan.ranks)}")
        return replace(dense, seconds=plan.seconds)
    if layer.skip_reason:
        raise UsageError(f"it must stay dense: {layer.skip_reason}")
    found = factored(layer, plan.method, plan.ranks, plan.reason)
    is_same = (found.ranks, found.parameters, found.macs) == (plan.ranks, plan.parameters, plan.macs)
    return plan if is_same else replace(found, group=plan.group)


def _bounded(model: nn.Module, layer: Layer, plan: LayerPlan) -> LayerPlan:
    """The plan of a layer with the bound of its weight's error, and no times: those were of the plan as it was."""
    if plan.method == DENSE:
        return replace(plan, seconds=None)
    how, bound = get_method(plan.method), 1.0
    if isinstance(how, CutMethod):
        kernel = layer.spec.kernel(weight_of(model.get_submodule(layer.name)))
        spectra = kernel_spectra(kernel, how.cuts(layer.spec))
        bound = spectra.bound(dict(zip(spectra.bonds, plan.ranks, strict=True)))
    return replace(plan, bound=bound, seconds=None)

"""The one energy of the paper at which a network is reduced so far."""

from __future__ import annotations

from torch import nn

from tuckertree._base.errors import UnreachableTargetError
from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree.measure import ExampleInputs
from tuckertree.planning import Budget, Energy, Options, Plan, make_plan, survey, take_inventory

_DIGITS = 10_000


def energy_for(
    model: nn.Module,
    example_inputs: ExampleInputs,
    reduction: Budget,
    options: Options,
    *,
    tick: ProgressCallback = no_progress,
) -> Energy:
    """Find the largest energy, to four digits, whose ranks keep the whole network within a budget.

    Higher energies give higher ranks in every layer, so both costs grow with it, and it is bisected; the
    spectra are computed once.

    Raises
    ------
    UnreachableTargetError
        If no energy reduces the network so far.
    TuckertreeError
        If the model does not run on the inputs, or a weight is not finite.
    """
    inventory = take_inventory(model, example_inputs)
    options = options.among(inventory.layers)
    spectra = survey(model, inventory, options, tick=tick)

    def plan(step: int) -> Plan:
        return make_plan(inventory, spectra, Energy(step / _DIGITS), options)

    if not _within(plan(1), reduction):
        least = plan(1)
        raise UnreachableTargetError(
            f"no energy reduces this network so far; the least is {least.parameters[1] / least.parameters[0]:.4g} "
            f"of the parameters and {least.macs[1] / least.macs[0]:.4g} of the MACs"
        )
    within, beyond = 1, _DIGITS + 1
    while beyond - within > 1:
        middle = (within + beyond) // 2
        if _within(plan(middle), reduction):
            within = middle
        else:
            beyond = middle
    return Energy(within / _DIGITS)


def _within(plan: Plan, reduction: Budget) -> bool:
    costs = ((reduction.params, plan.parameters), (reduction.macs, plan.macs))
    # A budget has turned factors such as "2.5x" into shares.
    return all(after <= float(share) * before for share, (before, after) in costs if share is not None)

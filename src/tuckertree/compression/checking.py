"""What is refused before any work is done for it, and the images that a budget of accuracy is tried on."""

from __future__ import annotations

from tuckertree._base.errors import UnreachableTargetError, UsageError, advice
from tuckertree.calibration import Calibration, CalibrationData
from tuckertree.compression.accuracy.trials import (
    LabelledData,
    LabelledTrial,
    Trial,
    UnlabelledTrial,
    refuse_shuffled,
)
from tuckertree.compression.network import Network
from tuckertree.compression.objectives import AnyRule
from tuckertree.latency import is_int8
from tuckertree.planning import DENSE, Budget, Inventory, Options, Plan, Ranks, make_plan
from tuckertree.planning.plan import list_reasons
from tuckertree.runtimes import INT8, check_precision


def check_precisions(rule: Budget, network: Network, *, calibrated: bool) -> None:
    """Refuse precisions that the runtime or the network does not have, or that nothing could be quantized by.

    Raises
    ------
    UsageError
        If there is one.
    """
    for precision in rule.precision:
        check_precision(rule.runtime, precision)
        network.check_precision(precision)
    if INT8 in rule.precision and not calibrated:
        how = advice(typed="--calibration", called="calibration=images")
        raise UsageError(f"int8 needs unlabelled images to quantize by: give {how}")


def refuse_choices(options: Options, objective: object) -> None:
    """Refuse options by which ranks are chosen where a plan has them.

    Raises
    ------
    UsageError
        If one was given.
    """
    if options != Options() or objective is not None:
        raise UsageError(
            "a plan says what becomes of each layer: include, exclude, first, round_to, methods and objective belong to a "
            "rule"
        )


def refuse_int8_plan(plan: Plan) -> None:
    """Refuse a plan of a network in 8 bits: that precision was kept by what was measured, for that network.

    Raises
    ------
    UsageError
        If it is one.
    """
    if is_int8(plan):
        how = advice(
            typed="--latency with --precision fp32,int8", called="Budget(latency=..., precision=...)"
        )
        raise UsageError(f"the plan is of a network in 8 bits, which measurements decide: give {how} itself")


def trial_for(
    rule: AnyRule,
    network: Network,
    images: Calibration | None,
    calibration: CalibrationData | None,
    data: LabelledData | None,
) -> tuple[Calibration | None, Trial | None]:
    """Images to fit to, and those on which a budget of accuracy is tried.

    Raises
    ------
    UsageError
        If those that it needs are missing, or there are some that nothing needs.
    """
    if not (isinstance(rule, Budget) and rule.keeps_accuracy):
        if data is not None:
            raise UsageError("labelled images belong to a budget of accuracy, such as Budget(max_drop=1.0)")
        return images, None
    if data is not None and data is calibration:
        raise UsageError(
            "data and calibration are the same: an accuracy takes images that were not fitted to"
        )
    if rule.max_drop is not None:
        if data is None:
            how = advice(typed="--data", called="compress(..., data=batches)")
            raise UsageError(f"a budget of max_drop needs labelled images: give {how}")
        return images, LabelledTrial(network, data)
    if data is not None:
        return images, UnlabelledTrial.of_labelled(network, data)
    if images is None:
        raise UsageError("a budget of agreement needs unlabelled images: give calibration too")
    refuse_shuffled(calibration)
    return UnlabelledTrial.divided(images)


def refuse_if_all_stay(inventory: Inventory, options: Options, layers_are: str) -> None:
    """Say why nothing can be compressed before a rule says that its target cannot be reached."""
    if not inventory.layers:
        notes = f" ({'; '.join(inventory.notes)})" if inventory.notes else ""
        raise UnreachableTargetError(f"nothing to compress: the model has no {layers_are}{notes}")
    if all(options.method(layer)[0] == DENSE for layer in inventory.layers):
        raise UnreachableTargetError(nothing_to_compress(make_plan(inventory, {}, Ranks({"*": 1}), options)))


def nothing_to_compress(plan: Plan) -> str:
    """Say why a plan leaves everything as it is."""
    reasons = list_reasons(layer.reason for layer in plan.layers if layer.method == DENSE)
    return f"nothing to compress: all {len(plan.layers)} layers stay dense ({reasons})"

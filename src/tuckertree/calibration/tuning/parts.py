"""What of a compressed network may change."""

from __future__ import annotations

from torch import nn

from tuckertree._base.errors import TuckertreeError, first_line
from tuckertree.calibration.kept import changeable
from tuckertree.core.layers import Chain
from tuckertree.measure import ExampleInputs, copy_model
from tuckertree.network.surgery import layer_for
from tuckertree.planning import Plan, take_inventory


def free_parts(
    student: nn.Module, original: nn.Module, plan: Plan | None, first: ExampleInputs
) -> tuple[list[nn.Parameter], list[nn.Module]]:
    """The parameters that may change, and the BatchNorms whose statistics may."""
    plan = plan or Plan((), {}, (0, 0), (0, 0))
    for layer in (
        () if plan.before else plan.compressed
    ):  # made for a network with fewer channels than the original
        layer_for(original, layer)
    layers = take_inventory(original, first).layers
    free = changeable(original, plan, layers, first)
    try:
        modules = {layer.name: student.get_submodule(layer.name) for layer in layers}
        norms = [student.get_submodule(name) for name in sorted(free.norms)]
    except AttributeError as error:
        raise TuckertreeError(
            f"the original has a layer that the compressed network lacks: {first_line(error)}"
        ) from error
    found: dict[int, nn.Parameter] = {}
    for name, module in modules.items():
        parts = list(module) if isinstance(module, Chain) else [module]
        chosen = [part._parameters.get("weight") for part in parts if name in free.kernels]
        chosen += [parts[-1]._parameters.get("bias")] if name in free.biases else []
        found |= {id(p): p for p in chosen if p is not None}
    found |= {id(p): p for norm in norms for p in norm.parameters(recurse=False)}
    kept = [p for name in modules.keys() - free.kernels for p in modules[name].parameters()]
    trained = any(p.requires_grad for p in student.parameters())
    return [
        p
        for p in found.values()
        if p.is_floating_point()
        and (p.requires_grad or not trained)
        and all(p is not other for other in kept)
    ], norms


def in_single_precision(model: nn.Module) -> nn.Module:
    """The model, or a copy in float32 where it is in a type of half the size."""
    small = any(p.is_floating_point() and p.itemsize < 4 for p in model.parameters())
    return copy_model(model).float() if small else model

"""The networks as they are tuned: in which type and layout, and what of the compressed one may change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError, first_line
from tuckertree.calibration.kept import changeable
from tuckertree.calibration.sources import floating_outputs
from tuckertree.core.layers import Chain
from tuckertree.measure import ExampleInputs, copy_model, run
from tuckertree.measure.forward import modes_of, set_modes, uncompiled
from tuckertree.measure.frozen import may_change
from tuckertree.network.surgery import layer_for
from tuckertree.planning import Plan, take_inventory

_ROUNDING = 1e-3
NO_DERIVATIVE = "no derivative leads from the network's outputs to its weights, so it cannot be tuned"


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
    is_free = may_change(student)
    return [
        p
        for p in found.values()
        if p.is_floating_point() and is_free(p) and all(p is not other for other in kept)
    ], norms


def in_single_precision(model: nn.Module) -> nn.Module:
    """A copy, in float32 where it is in a type of half the size."""
    small = any(p.is_floating_point() and p.itemsize < 4 for p in model.parameters())
    return copy_model(model).float() if small else copy_model(model)


def lay_channels_last(model: nn.Module, first: ExampleInputs) -> None:
    """On the CPU, bring the kernels of 2-D convolutions to the NHWC (channels last) memory format if the model runs so.

    None was found that is slower in it there, and steps of ResNet-20's chains take two thirds of the time. The choice
    depends on the model alone, not on times: the layout decides the last digits, and a run is to be repeatable.
    """
    plain = {
        module.weight: module.weight.data
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and _is_alone(module.weight)
    }
    if not plain:
        return
    before = _outputs(model, first)
    for weight, values in plain.items():
        weight.data = values.contiguous(memory_format=torch.channels_last)
    try:
        same = all(map(_alike, before, _outputs(model, first)))
    except TuckertreeError:  # as where activations are viewed as if their channels came first
        same = False
    if not same:
        for weight, values in plain.items():
            weight.data = values


def _is_alone(weight: Tensor) -> bool:
    """Whether a weight is an ordinary parameter in the CPU's memory of which nothing else is a part."""
    return (
        type(weight) is nn.Parameter
        and weight.device.type == "cpu"
        and weight.untyped_storage().nbytes() == weight.numel() * weight.itemsize
    )


def _outputs(model: nn.Module, inputs: ExampleInputs) -> list[Tensor]:
    return floating_outputs(run(model, inputs, "the calibration images"))


def _alike(x: Tensor, y: Tensor) -> bool:
    """Whether outputs are equal but for rounding."""
    if x.shape != y.shape:
        return False
    usual = x.isfinite() & y.isfinite()
    whole = x[usual].double().square().sum()
    return bool((x - y)[usual].double().square().sum() <= _ROUNDING**2 * whole)


def backward(loss: Tensor) -> None:
    """Send the loss back; raises TuckertreeError where that cannot be."""
    if not loss.requires_grad:
        raise TuckertreeError(NO_DERIVATIVE)
    try:
        loss.backward()
    except RuntimeError as error:
        raise TuckertreeError(
            f"the network's outputs cannot be differentiated: {first_line(error)}"
        ) from error


@contextmanager
def tunable(student: nn.Module, norms: list[nn.Module]) -> Iterator[None]:
    """Evaluation mode but for some norms."""
    modes = modes_of(student)
    # In evaluation mode cuDNN does not differentiate recurrent layers.
    recurrent = any(isinstance(module, nn.RNNBase) for module in student.modules())
    cudnn = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
    try:
        set_modes(dict.fromkeys(modes, False) | dict.fromkeys(norms, True))
        with cudnn, uncompiled(), torch.enable_grad():
            yield
    finally:
        set_modes(modes)

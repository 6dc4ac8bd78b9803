"""What can be compressed: torch modules with layers in Python and weights in memory; all else is refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tuckertree._base.errors import TuckertreeError
from tuckertree.core.layers import DENSE_TYPES


def check_model(model: object) -> None:
    """Refuse what is no network of torch modules with weights.

    Raises
    ------
    TuckertreeError
        If it is no module; if it, or a part of it, is a program of ``torch.export``; if it is TorchScript or
        quantized, with no layer that is not; if a parameter or buffer is lazy or on the meta device.
    """
    if not isinstance(model, nn.Module):
        kind = "a state dict" if isinstance(model, Mapping) else _one(type(model).__name__)
        raise TuckertreeError(f"only a network, a torch.nn.Module, can be compressed; this is {kind}")
    for name, module in model.named_modules():
        place = name or "the model"
        if _is_program(module):
            raise TuckertreeError(
                f"{place} is a program of torch.export, which has no layers; compress the module it was exported from"
            )
        tensors = *module.named_parameters(recurse=False), *module.named_buffers(recurse=False)
        for _, tensor in tensors:
            if is_lazy(tensor):
                raise TuckertreeError(
                    f"{place} is lazy and has no weights yet; run the model once on real input"
                )
        for own, tensor in tensors:
            if tensor.is_meta:
                raise TuckertreeError(
                    f"{name + '.' if name else ''}{own} is on the meta device, where it has no values; load the weights first"
                )
    if not any(isinstance(module, DENSE_TYPES) for module in model.modules()):
        for name, what, remedy in _converted(model):
            raise TuckertreeError(
                f"{name or 'the model'} is {what}; compress the module it was made from, {remedy}"
            )


def peculiarity(module: nn.Module) -> str:
    """What kind of tensor a layer's weight or bias is, where it is not the usual one: ``its weight is an Int8Tensor``."""
    for name, tensor in module.named_parameters(recurse=False):
        if type(tensor) not in (Tensor, nn.Parameter):
            return f"its {name} is {_one(type(tensor).__name__)}"
        if tensor.layout != torch.strided:
            return f"its {name} is {str(tensor.layout).removeprefix('torch.')}"
    return ""


def _one(noun: str) -> str:
    return f"{'an' if noun[0] in 'AEIOUaeiou' else 'a'} {noun}"


def _is_program(module: nn.Module) -> bool:
    """Whether a module comes from ``torch.export``; it may be a graph whose ``train`` has been taken away."""
    is_theirs = any(kind.__module__.startswith("torch.export") for kind in type(module).__mro__)
    return is_theirs or (isinstance(module, torch.fx.GraphModule) and "train" in vars(module))


def _converted(model: nn.Module) -> Iterator[tuple[str, str, str]]:
    """Modules whose layers are no torch layers any more, what they are, and what to do first and last."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            yield name, "TorchScript, whose layers cannot be replaced", "and script or trace the result"
        elif type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.nn.quantized")):
            yield name, f"quantized already ({type(module).__name__})", "and quantize the result"

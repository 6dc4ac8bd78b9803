"""Hidden channels taken out of a model: what its layers give and read of them becomes smaller."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tuckertree._base.errors import TuckertreeError
from tuckertree.core.layers import DENSE_TYPES, weight_of
from tuckertree.measure import copy_model
from tuckertree.planning.channels import Pruning

BETWEEN: tuple[type[nn.Module], ...] = (_NormBase, _ConvNd, nn.PReLU)
"""Modules that may treat each channel by itself, with numbers of its own."""


def prune(model: nn.Module, pruned: Sequence[Pruning]) -> nn.Module:
    """Copy a model without the hidden channels that go; it computes what :func:`silence` makes it compute.

    What has gone from it, now and before, is in its attribute ``pruned_channels``.

    Raises
    ------
    TuckertreeError
        If a module is not in the model, or has another number of channels.
    """
    if not pruned:
        return model
    replaced: dict[str, nn.Module] = {}

    def part(name: str) -> nn.Module:
        return replaced.setdefault(name, copy_model(_find(model, name)))

    for pruning in pruned:
        hidden, index = pruning.hidden, torch.tensor(pruning.kept)
        for name in hidden.producers:
            _slice_layer(part(name), index, hidden.channels, name, outputs=True)
        for name in hidden.consumers:
            _slice_layer(part(name), index, hidden.channels, name, outputs=False)
        for name in hidden.between:
            _slice_between(part(name), index, hidden.channels, name)
    result = copy_model(model, {_find(model, name): module for name, module in replaced.items()})
    vars(result)["pruned_channels"] = (*gone_from(model), *pruned)
    return result


def gone_from(model: nn.Module) -> tuple[Pruning, ...]:
    """What has been pruned from a model, in this order."""
    found = vars(model).get("pruned_channels", ())
    return tuple(found)


@torch.no_grad()
def silence(model: nn.Module, pruned: Sequence[Pruning]) -> None:
    """Let consumers read nothing of the channels that go, in place; all sizes stay."""
    for pruning in pruned:
        for name in pruning.hidden.consumers:
            module = _find(model, name)
            weight = weight_of(module)
            weight.index_fill_(_axis(module, outputs=False), _gone(pruning).to(weight.device), 0.0)


def _gone(pruning: Pruning) -> Tensor:
    kept = set(pruning.kept)
    return torch.tensor([c for c in range(pruning.hidden.channels) if c not in kept], dtype=torch.long)


def _find(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise TuckertreeError(
            f"the plan names a module {name!r} that this model does not have; it was made for another"
        ) from error


def _axis(module: nn.Module, *, outputs: bool) -> int:
    """Where a weight has the channels that the layer gives or reads."""
    return int(outputs == isinstance(module, _ConvTransposeNd))


def _slice_layer(module: nn.Module, index: Tensor, channels: int, name: str, *, outputs: bool) -> None:
    """A layer that gives or reads some of its channels, in place."""
    if not isinstance(module, DENSE_TYPES) or getattr(module, "groups", 1) != 1:
        raise TuckertreeError(f"{name} is a {type(module).__name__} here, of which no channels can go")
    own = counter(module, outputs=outputs)
    _check(getattr(module, own), channels, name)
    _select(module, "weight", index, _axis(module, outputs=outputs))
    if outputs:
        _select(module, "bias", index)
    setattr(module, own, len(index))


def _slice_between(module: nn.Module, index: Tensor, channels: int, name: str) -> None:
    """A module that treats each channel by itself, for some of them, in place."""
    if not isinstance(module, BETWEEN):
        raise TuckertreeError(
            f"{name} is a {type(module).__name__} here, which is not for each channel apart"
        )
    for own in counters(module):
        _check(getattr(module, own), channels, name)
        setattr(module, own, len(index))
    for own in ("weight", "bias", "running_mean", "running_var"):
        _select(module, own, index)


def counter(layer: nn.Module, *, outputs: bool) -> str:
    """The attribute in which a layer has the number of channels that it gives or reads."""
    return ("out_" if outputs else "in_") + ("features" if isinstance(layer, nn.Linear) else "channels")


def counters(module: nn.Module) -> tuple[str, ...]:
    """The attributes in which one of :data:`BETWEEN` has its number of channels."""
    if isinstance(module, _ConvNd):
        return "groups", "in_channels", "out_channels"
    return ("num_features",) if isinstance(module, _NormBase) else ("num_parameters",)


def _check(found: int, wanted: int, name: str) -> None:
    if found != wanted:
        raise TuckertreeError(f"{name} has {found} channels here; the plan says {wanted}")


@torch.no_grad()
def _select(module: nn.Module, own: str, index: Tensor, axis: int = 0) -> None:
    """Some numbers of a parameter or buffer, in its place."""
    tensor = getattr(module, own, None)
    if not isinstance(tensor, Tensor):
        return
    if own not in {**module._parameters, **module._buffers}:
        raise TuckertreeError(
            f"the {own} of a {type(module).__name__} is made of others, which channels cannot go from"
        )
    some = tensor.detach().index_select(axis, index.to(tensor.device))
    is_parameter = isinstance(tensor, nn.Parameter)
    setattr(module, own, nn.Parameter(some, requires_grad=tensor.requires_grad) if is_parameter else some)

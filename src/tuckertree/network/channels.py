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
from tuckertree.planning.channels import HiddenChannels, Pruning, Side, left_of

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
    for name, side in dict.fromkeys(
        (name, each.hidden.side(name)) for each in pruned for name in each.hidden.modules
    ):
        found = _find(model, name)
        assert side is not None
        own = _counters(found, name, side)
        for each in pruned:
            if each.hidden.side(name) == side:
                _check(found, own, each.hidden, name)
        count = getattr(found, own[0])
        left = left_of(pruned, name, side, count)
        gone = sum(len(each.gone(name)) for each in pruned if each.hidden.side(name) == side)
        if not left or len(left) + gone != count:
            raise TuckertreeError(f"{name}: hidden channels that go overlap, or none is left")
        index = torch.tensor(left)
        _slice(replaced.setdefault(name, copy_model(found)), own, side, index)
    result = copy_model(model, {_find(model, name): module for name, module in replaced.items()})
    vars(result)["pruned_channels"] = (*gone_from(model), tuple(pruned))
    return result


def gone_from(model: nn.Module) -> tuple[tuple[Pruning, ...], ...]:
    """What has been pruned from a model, each time that some was."""
    found = vars(model).get("pruned_channels", ())
    return tuple(found)


@torch.no_grad()
def silence(model: nn.Module, pruned: Sequence[Pruning]) -> None:
    """Let consumers read nothing of the channels that go, in place; all sizes stay."""
    for each in pruned:
        for name in each.hidden.consumers:
            weight = weight_of(_find(model, name))
            gone = torch.tensor(each.gone(name), dtype=torch.long, device=weight.device)
            weight.index_fill_(_axis(_find(model, name), outputs=False), gone, 0.0)


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


def _counters(module: nn.Module, name: str, side: Side) -> tuple[str, ...]:
    """The attributes in which a module has its number of channels on a side, if some of these can go."""
    if side == "channels":
        if not isinstance(module, BETWEEN):
            raise TuckertreeError(
                f"{name} is a {type(module).__name__} here, which is not for each channel apart"
            )
        return counters(module)
    if not isinstance(module, DENSE_TYPES) or getattr(module, "groups", 1) != 1:
        raise TuckertreeError(f"{name} is a {type(module).__name__} here, of which no channels can go")
    return (counter(module, outputs=side == "outputs"),)


def _check(module: nn.Module, own: Sequence[str], hidden: HiddenChannels, name: str) -> None:
    """Refuse a module that has other channels than a plan was made for."""
    starts = hidden.starts(name)
    wanted = hidden.channels + (starts[-1] if starts else 0)
    for found in (getattr(module, each) for each in own):
        if found < wanted or (starts is None and found > wanted):
            least = "" if starts is None else " or more"
            raise TuckertreeError(f"{name} has {found} channels here; the plan says {wanted}{least}")


def _slice(module: nn.Module, own: Sequence[str], side: Side, index: Tensor) -> None:
    """Let a module give or read some of its channels, in place."""
    if side == "channels":
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            _select(module, tensor, index)
    else:
        _select(module, "weight", index, _axis(module, outputs=side == "outputs"))
    if side == "outputs":
        _select(module, "bias", index)
    for each in own:
        setattr(module, each, len(index))


def counter(layer: nn.Module, *, outputs: bool) -> str:
    """The attribute in which a layer has the number of channels that it gives or reads."""
    return ("out_" if outputs else "in_") + ("features" if isinstance(layer, nn.Linear) else "channels")


def counters(module: nn.Module) -> tuple[str, ...]:
    """The attributes in which one of :data:`BETWEEN` has its number of channels."""
    if isinstance(module, _ConvNd):
        return "groups", "in_channels", "out_channels"
    return ("num_features",) if isinstance(module, _NormBase) else ("num_parameters",)


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

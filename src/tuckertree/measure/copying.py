"""Deep copies of models, and which part it is where one cannot be copied."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tuckertree._base.errors import TuckertreeError, first_line
from tuckertree.measure.forward import modes_of, set_modes
from tuckertree.measure.reach import overlapping, reach


def copy_model(model: nn.Module, replaced: Mapping[nn.Module, nn.Module] | None = None) -> nn.Module:
    """Deep copy of a model in which some modules are others; the modules replaced are never copied.

    Results of a forward pass that the model keeps, wherever it does, are copied without the graph that hangs on them;
    tensors that share memory share it in the copy, too. The copy's modules are in the modes of the model's.

    Raises
    ------
    TuckertreeError
        If the model holds something that cannot be copied, such as a lock or an open file, or copies itself in a
        way of its own, by which modules get lost; the message says where.
    """
    replaced = replaced or {}
    if model in replaced:
        return replaced[model]

    known: dict[int, object] = {id(old): new for old, new in replaced.items()}
    known.update(_tied(model, known))

    def copied(part: object) -> Any:
        with _CopyResults():
            return copy.deepcopy(part, dict(known))

    try:
        twin: nn.Module = copied(model)
    except Exception as error:
        place, part = _first_uncopyable("", model, copied, set())
        raise TuckertreeError(
            f"the model cannot be copied: {place.removeprefix('.') or 'it'} is a {type(part).__name__} "
            f"({first_line(error)}); take it off the model first, and put it back afterwards"
        ) from error
    modes = modes_of(model)
    pairs = _pairs(model, twin, replaced)
    set_modes({other: modes[own] for own, other in pairs if own in modes and hasattr(other, "training")})
    return twin


def copy_for_inference(model: nn.Module) -> nn.Module:
    """Deep copy of a model, in evaluation mode; models of others may return nothing from ``eval()``."""
    twin = copy_model(model)
    twin.eval()
    return twin


def _tied(model: nn.Module, replaced: Mapping[int, object]) -> dict[int, Tensor]:
    """Copies of tensors that overlap in memory: they overlap again, as torch's own copies do not."""
    found: dict[int, Tensor] = {}
    tensors = (x for _, x in reach(model, skip=replaced, code=False) if isinstance(x, Tensor))
    for group in overlapping(tensors):
        types = {(x.dtype, x.device, x.is_leaf, x.untyped_storage().data_ptr()) for x in group}
        if len(group) == 1 or len(types) > 1 or not group[0].is_leaf:
            continue
        first = group[0].detach()
        ends = [x.storage_offset() + sum(_reach(x)) for x in group]
        numbers = first.as_strided((max(ends) + 1 - first.storage_offset(),), (1,)).clone()
        for tensor in group:
            offset = tensor.storage_offset() - first.storage_offset()
            twin = numbers.as_strided(tensor.shape, tensor.stride(), offset)
            is_parameter = isinstance(tensor, nn.Parameter)
            found[id(tensor)] = nn.Parameter(twin, tensor.requires_grad) if is_parameter else twin
    return found


def _reach(tensor: Tensor) -> Iterator[int]:
    """How far from its first number the last lies, along each axis."""
    return (step * (size - 1) for step, size in zip(tensor.stride(), tensor.shape, strict=True))


def _pairs(
    model: nn.Module, twin: nn.Module, replaced: Mapping[nn.Module, nn.Module]
) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Each module that is copied, and its copy."""
    below: tuple[str, ...] = ()
    others = dict(twin.named_modules(remove_duplicate=False))
    for name, module in model.named_modules():
        if name.startswith(below):
            continue
        if name not in others:
            raise TuckertreeError(f"the model cannot be copied: its copy has no {name}")
        other = others[name]
        if module not in replaced:
            yield module, other
        elif other is replaced[module]:
            below = (*below, f"{name}.")
        else:
            raise TuckertreeError(f"the model cannot be copied with another layer in the place of {name}")


class _CopyResults(TorchFunctionMode):
    """Lets tensors with a graph, which torch refuses to copy, be copied without it."""

    def __torch_function__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def _first_uncopyable(
    place: str, part: object, copied: Callable[[object], object], seen: set[int]
) -> tuple[str, object]:
    """Go down from a part that cannot be copied to the innermost one, by the first at each level."""
    seen.add(id(part))
    for name, inner in _parts(part):
        if id(inner) in seen:
            continue
        try:
            copied(inner)
        except Exception:
            return _first_uncopyable(place + name, inner, copied, seen)
    return place, part


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """What an object holds, under the words that one would reach it by."""
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", inner) for key, inner in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{number}]", inner) for number, inner in enumerate(value))
    elif not isinstance(value, type | ModuleType):
        for name, inner in getattr(value, "__dict__", {}).items():
            if isinstance(value, nn.Module) and name in ("_modules", "_parameters", "_buffers"):
                yield from ((f".{key}", own) for key, own in inner.items())
            else:
                yield f".{name}", inner

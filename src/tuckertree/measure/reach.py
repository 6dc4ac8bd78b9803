"""What a model can get at: every object behind its attributes, its containers and the code of its hooks."""

from __future__ import annotations

import sys
import types
import weakref
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type, types.ModuleType)
_ATOMS = (*_PLAIN, torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format)
_LIBRARIES = sys.stdlib_module_names | {"torch", "numpy", "lightning", "pytorch_lightning", "__future__"}
_REGISTERED = ("_parameters", "_buffers", "_modules")
Part = tuple[str, object]


def reach(
    root: nn.Module, *, skip: Collection[int] = (), code: bool = True, outside: bool = False
) -> Iterator[tuple[str, object]]:
    """Go to every object a model can get at, each once, the nearest first.

    Parameters
    ----------
    skip
        ``id`` of objects that are passed by, with all that is behind them alone.
    code
        Whether functions are gone into, to the variables of their closures.
    outside
        Whether what the model's code names in its modules and classes counts, too: globals, class attributes.

    Yields
    ------
    str, object
        The path to it, such as ``tied[0]`` or ``relu's hook keep, global ACTS``, and the object.
    """
    atoms = _ATOMS if code else (*_ATOMS, types.FunctionType)
    seen: dict[int, object] = {}  # objects made on the way are kept, so that no id comes twice
    queue: deque[Part] = deque([("", root)])
    while queue:
        path, item = queue.popleft()
        if id(item) in seen or id(item) in skip or isinstance(item, atoms):
            continue
        seen[id(item)] = item
        yield path.removeprefix(".") if path[:2] != "'s" else f"the model{path}", item
        queue.extend((path + step, part) for step, part in _parts(item, outside=outside))


def _parts(item: object, *, outside: bool) -> Iterator[Part]:
    if isinstance(item, nn.Module):
        yield from _parts_of_module(item, outside=outside)
    elif isinstance(item, dict):
        yield from ((f"[{key!r}]", value) for key, value in list(item.items()))
    elif isinstance(item, list | tuple | set | frozenset | deque):
        yield from ((f"[{number}]", value) for number, value in enumerate(list(item)))
    elif isinstance(item, types.FunctionType):
        yield from _parts_of_function(item, outside=outside)
    elif isinstance(item, types.MethodType):
        yield from (("", item.__func__), (".__self__", item.__self__))
    elif isinstance(item, partial):
        yield from ((".func", item.func), (".args", item.args), (".keywords", item.keywords))
    elif isinstance(item, types.CellType):
        yield "", cell_contents(item)
    elif isinstance(item, weakref.ref):
        yield "()", item()
    elif not isinstance(item, Tensor) and is_plain(item):
        yield "", vars(item)
        yield from ((f".{name}", value) for name, value in list(vars(item).items()))


def _parts_of_module(module: nn.Module, *, outside: bool) -> Iterator[Part]:
    own = vars(module)
    for registered in _REGISTERED:
        yield from ((f".{name}", value) for name, value in list(own.get(registered, {}).items()))
    for name, value in list(own.items()):
        if name.endswith("_hooks") and isinstance(value, dict):
            yield from ((f"'s hook {_name(hook)}", hook) for hook in list(value.values()))
        yield f".{name}", value
    yield "", own
    for kind in type(module).__mro__:
        if kind.__module__.partition(".")[0] not in _LIBRARIES and kind is not object:
            for name, value in sorted(vars(kind).items(), key=lambda pair: pair[0] != "forward"):
                if name.startswith("__") and name != "__call__":
                    continue
                if isinstance(value, types.FunctionType):
                    yield f"'s {name}", value
                elif outside:
                    yield f"'s class attribute {name}", value


def _parts_of_function(function: types.FunctionType, *, outside: bool) -> Iterator[Part]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield f", variable {name}", cell
    yield ", default", function.__defaults__
    yield ", default", function.__kwdefaults__
    if outside and function.__module__ and function.__module__.partition(".")[0] not in _LIBRARIES:
        for name in _names_in(function.__code__):
            if name in function.__globals__:
                yield f", global {name}", function.__globals__[name]


def _names_in(code: types.CodeType) -> Iterator[str]:
    inner = (_names_in(part) for part in code.co_consts if isinstance(part, types.CodeType))
    return chain(code.co_names, *inner)


def overlapping(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Sort tensors into groups by the memory they lie in: those of two groups have none in common.

    Tensors without memory of their own, such as meta tensors and those of other layouts, are left out.
    """
    placed = [(*place, number, x) for number, x in enumerate(tensors) if (place := _place(x)) is not None]
    groups: list[list[Tensor]] = []
    end = 0
    for start, stop, _, tensor in sorted(placed, key=lambda each: each[:3]):
        if start >= end:
            groups.append([])
        groups[-1].append(tensor)
        end = max(end, stop)
    return groups


def _place(tensor: Tensor) -> tuple[int, int] | None:
    """First byte of a tensor's numbers in memory, and the one after the last."""
    if is_lazy(tensor) or tensor.is_meta or tensor.layout is not torch.strided or not tensor.numel():
        return None
    if type(tensor.data) is not Tensor:
        return None
    last = sum(step * (size - 1) for step, size in zip(tensor.stride(), tensor.shape, strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def cell_contents(cell: types.CellType) -> object:
    """What a variable of a closure holds; None where it has no value yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _name(hook: object) -> str:
    return getattr(hook, "__name__", type(hook).__name__)


def is_plain(item: object) -> bool:
    """Whether an object is one of the user's own, such as a dataclass, and not a part of a library."""
    home = (type(item).__module__ or "").partition(".")[0]
    return hasattr(item, "__dict__") and (home not in _LIBRARIES or isinstance(item, types.SimpleNamespace))

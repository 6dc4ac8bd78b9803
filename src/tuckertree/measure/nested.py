"""Values in nested containers: what models take and give back."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tuckertree.measure.reach import is_plain


def leaves(value: object) -> Iterator[Any]:
    """All that is held by mappings, lists, tuples, sets and dataclasses within each other, in their order."""
    parts: Iterable[object]
    if isinstance(value, Mapping):
        parts = value.values()
    elif isinstance(value, list | tuple | deque | set | frozenset):
        parts = value
    elif (names := _attributes(value)) is not None:
        parts = [getattr(value, name) for name in names]
    else:
        yield value
        return
    for part in parts:
        yield from leaves(part)


def tensors(value: object) -> list[Tensor]:
    """The tensors among :func:`leaves`."""
    return [leaf for leaf in leaves(value) if isinstance(leaf, Tensor)]


def results(value: object, seen: set[int] | None = None) -> Iterator[object]:
    """What a model has returned, for comparison: the leaves, and the tensors in objects of its own classes.

    Tensors are ordinary ones: sparse and quantized ones with all their values, nested ones taken apart.
    """
    seen = set() if seen is None else seen
    for leaf in leaves(value):
        if isinstance(leaf, Tensor):
            yield from _ordinary(leaf)
            continue
        yield leaf
        if is_plain(leaf) and not isinstance(leaf, nn.Module) and id(leaf) not in seen:
            seen.add(id(leaf))
            yield from (part for part in results(vars(leaf), seen) if isinstance(part, Tensor))


def _ordinary(x: Tensor) -> Iterable[Tensor]:
    if x.is_nested:
        return x.unbind()
    if x.is_quantized:
        return (x.dequantize(),)
    return (x if x.layout == torch.strided else x.to_dense(),)


def each_leaf(value: Any, change: Callable[[object], object], whole: tuple[type, ...] = ()) -> Any:
    """The same containers anew, with every leaf changed; those of the types ``whole`` count as leaves.

    Mappings, lists, tuples and dataclasses are gone into; the containers given stay as they are.
    """
    if isinstance(value, whole):
        return change(value)
    if isinstance(value, Mapping):
        found = {key: each_leaf(part, change, whole) for key, part in value.items()}
        if type(value) is dict or not isinstance(value, MutableMapping):
            return found
        same = copy.copy(value)  # of its own type, which a model may ask for
        same.update(found)
        return same
    if isinstance(value, list | tuple | deque):
        parts = [each_leaf(part, change, whole) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if (names := _attributes(value)) is not None:
        same = copy.copy(value)
        for name in names:
            object.__setattr__(same, name, each_leaf(getattr(value, name), change, whole))
        return same
    return change(value)


def _attributes(value: object) -> list[str] | None:
    """Names of what a dataclass or namespace holds; None of anything else."""
    if is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in fields(value) if hasattr(value, field.name)]
    return list(vars(value)) if isinstance(value, SimpleNamespace) else None

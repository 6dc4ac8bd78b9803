"""What a model and its copy have in common: what is named where they cannot be told apart."""

from __future__ import annotations

import types
from collections import deque
from enum import Enum
from functools import partial
from weakref import ref

from torch import Tensor, nn

from tuckertree.core.layers import weight_of
from tuckertree.measure.reach import overlapping, reach

_SAME_IN_COPIES = (tuple, frozenset, Enum, partial, ref, types.FunctionType, types.MethodType, types.CellType)


def shared(model: nn.Module, copy: nn.Module) -> str | None:
    """The path by which a copy gets at something that belongs to the original, or None if none is found."""
    own = {id(item): item for _, item in reach(model, code=False)}
    found: list[tuple[int, str]] = []
    for path, item in reach(copy, outside=True):
        if id(item) in own and (rank := _rank(item)) is not None:
            found.append((rank, path))
    return min(found, key=lambda each: each[0])[1] if found else None


def kept_elsewhere(model: nn.Module, layer: nn.Module) -> str | None:
    """The path to a tensor with a layer's weight, other than by the layer itself, or None."""
    weight = weight_of(layer)
    for path, item in reach(model, skip={id(layer)}, outside=True):
        if isinstance(item, Tensor) and (item is weight or len(overlapping([weight, item])) == 1):
            return path
    return None


def _rank(item: object) -> int | None:
    """How likely it is to matter that two models have it in common; None for what copies always have."""
    if isinstance(item, nn.Module | Tensor):
        return 0
    if isinstance(item, dict | list | set | deque):
        return 1
    return None if isinstance(item, _SAME_IN_COPIES) else 2

"""The state of a model, kept and put back: whatever a forward pass writes on the way."""

from __future__ import annotations

import random
import types
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from operator import eq
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tuckertree.measure.forward import modes_of, set_modes
from tuckertree.measure.reach import cell_contents, reach

Undo = Callable[[], bool]
"""Puts an object back; says whether it had changed."""


class Snapshot:
    """All that a model can get at by its attributes and the variables of its hooks, as it is now.

    Modes, tensors to the bit, attributes and the contents of containers; not what is global, or in objects of
    libraries. It takes the memory of the model's tensors once more.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._modes = modes_of(model)
        self._tensors: dict[int, tuple[Tensor, Tensor]] = {}
        self._undo: list[tuple[str, Undo]] = []
        for path, item in reach(model):
            undo = self._keep_tensor(item) if isinstance(item, Tensor) else _keeper(item)
            if undo is not None:
                self._undo.append((path, undo))

    def restore(self) -> list[str]:
        """Put everything back, and say where something had changed."""
        set_modes(self._modes)
        return [path for path, undo in self._undo if undo()]

    def has_changed(self, tensor: Tensor) -> bool:
        """Whether a tensor of the model holds other numbers than it did."""
        kept = self._tensors.get(id(tensor))
        return kept is not None and not _are_same(tensor, kept[1])

    def _keep_tensor(self, tensor: Tensor) -> Undo | None:
        if is_lazy(tensor) or tensor.is_meta or type(tensor.data) is not Tensor:
            return None
        data, copy = tensor.data, tensor.detach().clone()
        requires_grad, grad = tensor.requires_grad, tensor.grad if tensor.is_leaf else None
        self._tensors[id(tensor)] = tensor, copy

        def undo() -> bool:
            changed = not _are_same(tensor, copy)
            if _place(tensor) != _place(data):
                tensor.data = data
            if changed and not _are_same(data, copy):
                data.copy_(copy)
            if tensor.is_leaf:
                if tensor.requires_grad != requires_grad:
                    tensor.requires_grad_(requires_grad)
                if tensor.grad is not grad:
                    tensor.grad = grad
            return changed

        return undo


@contextmanager
def preserved(model: nn.Module) -> Iterator[Snapshot]:
    """Leave a model, and the generators of random numbers, as they were before, whatever happens inside."""
    with _random_numbers_kept():
        snapshot = Snapshot(model)
        try:
            yield snapshot
        finally:
            snapshot.restore()


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (the model may use it)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _place(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _are_same(tensor: Tensor, other: Tensor) -> bool:
    try:
        return torch.equal(tensor, other) or (
            tensor.shape == other.shape and torch.allclose(tensor, other, 0, 0, equal_nan=True)
        )
    except (RuntimeError, NotImplementedError):  # not every layout can be compared
        return False


def _keeper(item: object) -> Undo | None:
    """What puts an object back to what it holds now; None for one that holds nothing, or whose parts do."""
    if isinstance(item, dict):
        return _put_back(
            lambda: [x for pair in item.items() for x in pair], partial(_refill, item), _are_identical
        )
    if isinstance(item, list | set | deque):
        return _put_back(lambda: list(item), partial(_refill, item), _are_identical)
    if isinstance(item, types.CellType):
        return _put_back(
            lambda: [cell_contents(item)], lambda x: setattr(item, "cell_contents", x[0]), _are_identical
        )
    if isinstance(item, np.ndarray):
        return _put_back(item.copy, partial(np.copyto, item), np.array_equal)
    if isinstance(item, torch.Generator):
        return _put_back(item.get_state, item.set_state, torch.equal)
    if isinstance(item, random.Random):
        return _put_back(item.getstate, item.setstate, eq)
    if isinstance(item, np.random.Generator):
        bits = item.bit_generator
        return _put_back(lambda: deepcopy(bits.state), lambda x: setattr(bits, "state", x), eq)
    return None


def _put_back(
    read: Callable[[], object], write: Callable[[Any], object], are_same: Callable[[Any, Any], bool]
) -> Undo:
    """Writes what was read at first, if something else is read by then."""
    before = read()

    def undo() -> bool:
        changed = not are_same(read(), before)
        if changed:
            write(before)
        return changed

    return undo


def _are_identical(now: list[object], before: list[object]) -> bool:
    return len(now) == len(before) and all(x is y for x, y in zip(now, before, strict=True))


def _refill(item: Any, values: list[object]) -> None:
    item.clear()
    if isinstance(item, dict):
        item.update(zip(values[::2], values[1::2], strict=True))
    elif isinstance(item, set):
        item.update(values)
    else:
        item.extend(values)

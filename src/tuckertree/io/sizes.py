"""The size of a network's inputs, as a saved folder remembers it."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from torch import Tensor

from tuckertree._base.errors import TuckertreeError

Size = tuple[int, ...] | dict[str, tuple[int, ...]]
"""Of the one input without the batch, or of each by its keyword."""

LARGEST = 2**28
"""Numbers in one input; a file that says more is not to fill the memory with them."""


def size_of(example_inputs: object) -> Size | None:
    """Size of inputs of floating-point numbers; None for several without names and for others."""
    if isinstance(example_inputs, Tensor):
        return tuple(example_inputs.shape[1:]) if _is_batch(example_inputs) else None
    if isinstance(example_inputs, Mapping) and all(_is_batch(x) for x in example_inputs.values()):
        return {str(name): tuple(x.shape[1:]) for name, x in example_inputs.items()} or None
    if isinstance(example_inputs, list | tuple) and len(example_inputs) == 1:
        return size_of(example_inputs[0]) if isinstance(example_inputs[0], Tensor) else None
    return None


def read_size(data: Any) -> Size | None:
    """Read a size from JSON data.

    Raises
    ------
    TuckertreeError
        If it is none, or one of an input too large for any memory.
    """
    if data is None:
        return None
    sizes = data if isinstance(data, dict) else {"": data}
    for size in sizes.values():
        if not isinstance(size, list) or not all(type(n) is int and 0 < n <= LARGEST for n in size):
            raise TuckertreeError(
                f"input_size must be a list of positive integers, or several by name, not {data!r:.60}"
            )
        if prod(size) > LARGEST:
            raise TuckertreeError(f"input_size {size!r:.60} is larger than any input; refused")
    found = {name: tuple(size) for name, size in sizes.items()}
    return found if isinstance(data, dict) else found[""]


def _is_batch(x: object) -> bool:
    return isinstance(x, Tensor) and x.ndim > 0 and x.is_floating_point()

"""Hypothesis strategies that several folders of tests share."""

from typing import NamedTuple

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from tuckertree.core.layers import METHODS, get_method
from tuckertree.core.layers.methods import CutMethod

CUT_METHODS = tuple(name for name in METHODS if isinstance(get_method(name), CutMethod))


def examples(count: int) -> settings:
    """Run a property on so many examples, the same ones every time."""
    return settings(max_examples=count, derandomize=True, deadline=None)


def seeded() -> st.SearchStrategy[torch.Generator]:
    return st.integers(0, 2**20).map(torch.Generator().manual_seed)


class Factoring(NamedTuple):
    """A kernel ``W[g, T, C, D1, ..., DN]``, a method that exists for it, and a rank for each of its cuts."""

    kernel: Tensor
    method: str
    cuts: tuple[int, ...]
    ranks: tuple[int, ...]


@st.composite
def kernels(draw: st.DrawFn, order: int | None = None, max_groups: int = 3) -> Tensor:
    """Float64 kernels; one in four is of low multilinear rank in its channel modes."""
    order = draw(st.integers(0, 3)) if order is None else order
    groups = draw(st.integers(1, max_groups))
    channels = draw(st.lists(st.integers(1, 9), min_size=2, max_size=2))
    taps = draw(st.lists(st.integers(1, 4), min_size=order, max_size=order))
    generator = draw(seeded())
    kernel = torch.randn(groups, *channels, *taps, dtype=torch.float64, generator=generator)
    if draw(st.sampled_from([False, False, False, True])):
        kernel[:, :, 1:] = kernel[:, :, :1] * torch.arange(1, channels[1]).view(-1, *(1 for _ in taps))
    return kernel


def method_cuts(method: str, order: int) -> tuple[int, ...]:
    """Bonds that a method cuts in a kernel with so many spatial modes."""
    return get_method(method).at(order)


def methods_for(order: int) -> tuple[str, ...]:
    """Methods that cut the row of a kernel's modes, for a kernel of so many spatial ones."""
    return CUT_METHODS if order >= 2 else tuple(method for method in CUT_METHODS if method != "spatial")


@st.composite
def factorings(draw: st.DrawFn, order: int | None = None, max_groups: int = 3) -> Factoring:
    kernel = draw(kernels(order, max_groups))
    method = draw(st.sampled_from(methods_for(kernel.ndim - 3)))
    cuts = method_cuts(method, kernel.ndim - 3)
    ranks = draw(st.lists(st.integers(1, 12), min_size=len(cuts), max_size=len(cuts)))
    return Factoring(kernel, method, cuts, tuple(ranks))

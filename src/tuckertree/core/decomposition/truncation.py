r"""Squared errors of truncating a kernel at every choice of ranks, without truncating it once.

Rotate the kernel into the bases of its two leaves: the entry ``[k1, ..., k3]`` of the rotated core is kept if
``k1 < R1`` and ``k3 < R3``. So the error of the Tucker part is a sum over a rectangle of squared entries, and
all rectangles together are one cumulative sum.

An inner cut adds the tail of the *projected* core. The best approximation ``A_r`` of rank ``r`` at that cut,
restricted to the same rectangle, still has rank ``r``; the projected core is truncated optimally, so its tail
is at most the squared norm of ``A - A_r`` within the rectangle. That is never more than the textbook's
``tau_13``, which counts once more what the leaves have discarded already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import pad

from tuckertree.core.decomposition.matricization import modes_in_row
from tuckertree.core.decomposition.spectra import (
    Bond,
    Spectra,
    decompose_bond,
    in_working_precision,
    kernel_spectra,
)


class Truncations:
    """Squared errors of truncating one kernel at any cuts; what they share is computed once.

    Parameters
    ----------
    kernel
        ``W[g, T, C, D1, ..., DN]``.

    Raises
    ------
    TuckertreeError
        If it holds NaN or infinite values.
    """

    def __init__(self, kernel: Tensor) -> None:
        self.kernel = in_working_precision(kernel)
        self.order = kernel.ndim - 3
        self._leaves = kernel_spectra(kernel, (0, self.order) if self.order else (0,))

    @cached_property
    def _core(self) -> Tensor:
        return rotated_core(self.kernel, self._leaves)

    @cached_property
    def _inner(self) -> dict[int, Bond]:
        return core_bonds(self._core, range(1, self.order))

    @cached_property
    def spectra(self) -> Spectra:
        """Spectra at every bond, with the bases that the outermost factors are made of."""
        inner = {bond: Bond(at.squared) for bond, at in self._inner.items()} if self.order else {}
        return Spectra(self._leaves.shape, {**self._leaves.bonds, **inner})

    def errors(self, cuts: Sequence[int], ranks: Sequence[Tensor]) -> Tensor:
        """Bound of the squared error for all ranks of a grid, exact for one cut: one axis for each cut."""
        if len(cuts) == 1:
            return self.spectra.bonds[cuts[0]].tails[ranks[0]]
        return truncation_errors(self._core, self._inner, cuts, ranks)


def rotated_core(kernel: Tensor, spectra: Spectra) -> Tensor:
    """Kernel in the bases of its leaves, of ``K1`` and ``K3`` vectors: ``[g, K1, D1, ..., DN, K3]``.

    Parameters
    ----------
    kernel
        ``W[g, T, C, D1, ..., DN]`` with at least one spatial mode.
    spectra
        Of this kernel, with the bases of bonds 0 and N.
    """
    row = modes_in_row(in_working_precision(kernel))
    groups, *modes = row.shape
    leaves = spectra.bonds[0], spectra.bonds[len(modes) - 2]
    first, last = (leaf.leading(len(leaf.squared)) for leaf in leaves)
    core = first.mT @ row.reshape(groups, modes[0], -1)
    core = core.reshape(groups, -1, modes[-1]) @ last
    return core.reshape(groups, first.shape[-1], *modes[1:-1], last.shape[-1])


def tucker_tails(core: Tensor) -> Tensor:
    """Exact squared error of keeping ``R1`` and ``R3`` leading vectors of the leaves, for all of them.

    Parameters
    ----------
    core
        ``[g, K1, D1, ..., DN, K3]`` (:func:`rotated_core`).

    Returns
    -------
    Tensor
        ``[K1 + 1, K3 + 1]``, summed over the groups, which share their ranks. Sums of squares alone, no
        differences: a small error is as exact as a large one.
    """
    energy = _energy(core)
    right_of = pad(energy.flip(1).cumsum(1).flip(1), (0, 1))
    below = pad(right_of[:, 0].flip(0).cumsum(0).flip(0), (0, 1))
    return below.unsqueeze(1) + pad(right_of.cumsum(0), (0, 0, 1, 0))


def core_bonds(core: Tensor, bonds: Sequence[int]) -> dict[int, Bond]:
    """Singular values and vectors, in the core's own coordinates, at inner bonds of the rotated core."""
    return {bond: decompose_bond(_at_bond(core, bond), side="smaller") for bond in bonds}


def inner_tails(core: Tensor, bond: int, at: Bond, ranks: Sequence[Tensor]) -> Tensor:
    """Bound of the squared error that an inner cut adds, for all ranks of a grid.

    Parameters
    ----------
    core
        ``[g, K1, D1, ..., DN, K3]``.
    bond, at
        Number of the bond, and what :func:`core_bonds` says about it.
    ranks
        Rising ranks, all at least 1, of the first leaf, of this bond and of the last leaf.

    Returns
    -------
    Tensor
        ``[number of R1, number of R, number of R3]``, summed over the groups.
    """
    first, inner, last = ranks
    rest = _at_bond(core, bond).clone()
    basis = at.leading(len(at.squared))
    coefficients = basis.mT @ rest if at.side == "left" else rest @ basis
    table, kept = [], 0
    for rank in inner.tolist():
        new = slice(kept, rank)
        if at.side == "left":
            rest.baddbmm_(basis[..., new], coefficients[:, new], alpha=-1)
        else:
            rest.baddbmm_(coefficients[..., new], basis[..., new].mT, alpha=-1)
        kept = rank
        table.append(_energy(rest.reshape(core.shape)).cumsum(0)[first - 1].cumsum(1)[:, last - 1])
    return torch.stack(table, dim=1)


def truncation_errors(
    core: Tensor, inner: Mapping[int, Bond], cuts: Sequence[int], ranks: Sequence[Tensor]
) -> Tensor:
    """Bound of the squared error of a method with two cuts or more, for all ranks of a grid.

    Exact where only the leaves are cut (Tucker-2); otherwise never less than the error that
    :func:`~tuckertree.core.decomposition.decompose` makes and never more than ``tau_1 + tau_3 + tau_13``.

    Parameters
    ----------
    core
        ``[g, K1, D1, ..., DN, K3]``.
    inner
        :func:`core_bonds` at the method's inner cuts.
    cuts, ranks
        Cuts of the method, from 0 to N, and rising ranks for each.

    Returns
    -------
    Tensor
        One axis for each cut.
    """
    first, *middle, last = ranks
    total = tucker_tails(core)[first][:, last]
    total = total.reshape(len(first), *(1 for _ in middle), len(last))
    for number, (bond, grid) in enumerate(zip(cuts[1:-1], middle, strict=True)):
        tails = inner_tails(core, bond, inner[bond], (first, grid, last))
        axes = [len(grid) if i == number else 1 for i in range(len(middle))]
        total = total + tails.reshape(len(first), *axes, len(last))
    return total


def _at_bond(core: Tensor, bond: int) -> Tensor:
    return core.reshape(core.shape[0], prod(core.shape[1 : bond + 2]), -1)


def _energy(core: Tensor) -> Tensor:
    """Squared norm of each fibre between the two leaves: ``[K1, K3]``."""
    return core.reshape(*core.shape[:2], -1, core.shape[-1]).square().sum((0, 2))

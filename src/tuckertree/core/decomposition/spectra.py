r"""Singular values of a kernel's matricizations: computed once, used by every rank rule and by the factors.

A singular value decomposition would be more than is needed. Ranks ask for singular values, the leaf
factors for leading singular vectors on one side, and both come from the Gram matrix of the smaller side
by one symmetric eigendecomposition in float64. Squaring costs half the digits: singular values below about
1e-8 of the largest are noise, far under what a float32 weight can hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.core.decomposition.matricization import matricize

_PANEL = 192


@dataclass(frozen=True)
class Bond:
    """What one matricization of a kernel says.

    Attributes
    ----------
    squared
        Squared singular values ``[min(left, right)]``, float64, falling, summed over the groups (which share
        their ranks).
    basis
        Orthonormal singular vectors ``[g, side, min(left, right)]`` of one side, or None where only the
        values are needed.
    side
        ``"left"`` or ``"right"``: the side of the matricization that ``basis`` spans.
    """

    squared: Tensor
    basis: Tensor | None = None
    side: str = "left"

    @cached_property
    def tails(self) -> Tensor:
        """Squared norm ``tau[r]`` lost by keeping ``r`` singular values, for every ``r`` from 0."""
        reversed_sum = self.squared.flip(0).cumsum(0).flip(0)
        return torch.cat([reversed_sum, reversed_sum.new_zeros(1)])

    @cached_property
    def full_rank(self) -> int:
        """Numerical rank, at least 1: singular values at the rounding of the Gram matrix do not count."""
        noise = self.squared.amax() * len(self.squared) * torch.finfo(self.squared.dtype).eps
        return max(1, int((self.squared > noise).sum()))

    def leading(self, rank: int) -> Tensor:
        """First ``rank`` singular vectors of the side that has a basis: ``[g, side, rank]``."""
        if self.basis is None:
            raise UsageError("only the singular values of this bond were computed")
        return self.basis[..., :rank]

    def rank_for_energy(self, energy: float) -> int:
        """Smallest ``r`` with ``sum_{i<=r} s_i^2 / sum_i s_i^2 > energy``, at most the numerical rank.

        The inequality is strict, as in the paper, so an energy of 1 gives the full rank; a kernel of zeros
        has rank 1.
        """
        total = self.squared.sum()
        if energy >= 1 or total == 0:
            return self.full_rank
        reached = self.squared.cumsum(0) / total > energy
        return min(int((~reached).sum()) + 1, self.full_rank)

    def rank_for_tail(self, allowance: float) -> int:
        """Smallest ``r >= 1`` whose discarded squared norm ``tau[r]`` is at most ``allowance``."""
        return max(1, int((self.tails > allowance).sum()))


@dataclass(frozen=True)
class Spectra:
    """Spectra of a kernel at a set of bonds.

    Attributes
    ----------
    shape
        Kernel shape ``(T, C, D1, ..., DN)`` of one group.
    bonds
        The :class:`Bond` at each bond number that was asked for.
    """

    shape: tuple[int, ...]
    bonds: Mapping[int, Bond]

    def serves(self, cuts: Sequence[int]) -> bool:
        """Whether a kernel can be decomposed at these cuts with what is known here."""
        return all(cut in self.bonds and self.bonds[cut].basis is not None for cut in (cuts[0], cuts[-1]))

    @cached_property
    def squared_norm(self) -> float:
        """Squared Frobenius norm of the kernel over all groups."""
        return float(next(iter(self.bonds.values())).squared.sum())

    def bound(self, ranks: Mapping[int, int]) -> float:
        r"""Upper bound of the relative error at the given rank of each bond.

        ``||W - W^||_F^2 <= tau_1 + tau_3 + tau_13`` (the hierarchical truncation bound of the paper); the ratio
        returned is the square root of that sum over ``||W||_F^2``. It is exact where one bond is cut.
        """
        if self.squared_norm == 0:
            return 0.0
        lost = sum(float(self.bonds[bond].tails[rank]) for bond, rank in ranks.items())
        return float((lost / self.squared_norm) ** 0.5)


def kernel_spectra(kernel: Tensor, cuts: Sequence[int]) -> Spectra:
    """Spectra at the given cuts, with the bases that the outermost two factors are made of.

    Parameters
    ----------
    kernel
        ``W[g, T, C, D1, ..., DN]`` of any floating-point type, on any device.
    cuts
        Bonds in rising order, at least one.

    Raises
    ------
    TuckertreeError
        If the kernel holds NaN or infinite values.
    UsageError
        If it has a mode of size zero, or no bond is cut.
    """
    kernel = in_working_precision(kernel)
    if not len(cuts):
        raise UsageError("at least one bond must be cut")
    if len(cuts) == 1:
        bonds = {cuts[0]: decompose_bond(matricize(kernel, cuts[0]), side="smaller")}
    else:
        first, *inner, last = cuts
        bonds = {first: decompose_bond(matricize(kernel, first), side="left")}
        bonds |= {cut: Bond(_squared_singular_values(matricize(kernel, cut))) for cut in inner}
        bonds[last] = decompose_bond(matricize(kernel, last), side="right")
    return Spectra(shape=tuple(kernel.shape[1:]), bonds=bonds)


def in_working_precision(kernel: Tensor) -> Tensor:
    """The kernel in float64, on its own device where that has float64 (Apple's mps has not).

    Raises
    ------
    TuckertreeError, UsageError
        As :func:`kernel_spectra`.
    """
    if kernel.numel() == 0 or kernel.ndim < 3:
        raise UsageError(
            f"a kernel needs groups, T and C, none of them empty; got shape {tuple(kernel.shape)}"
        )
    if not kernel.dtype.is_floating_point:
        raise UsageError(f"only real floating-point kernels can be decomposed, not {kernel.dtype}")
    kernel = kernel.detach()
    if kernel.device.type == "mps":
        kernel = kernel.cpu()
    kernel = kernel.to(torch.float64)
    # A sum is finite only if every term is, and far cheaper to look at; it may also overflow by itself.
    if not kernel.sum().isfinite() and not kernel.isfinite().all():
        raise TuckertreeError("the kernel holds NaN or infinite values")
    return kernel


def leading_left_vectors(matrix: Tensor, rank: int) -> Tensor:
    """First ``rank`` left singular vectors ``[g, rows, rank]`` of ``matrix[g, rows, columns]``."""
    if matrix.shape[-2] <= matrix.shape[-1]:
        return _eigen(lower_gram(matrix))[1][..., :rank]
    right = _eigen(lower_gram(matrix.mT))[1][..., :rank]
    return _orthonormal(matrix @ right)


def decompose_bond(matrix: Tensor, side: str) -> Bond:
    """Singular values of ``matrix[g, rows, columns]``; vectors of the side asked for."""
    rows, columns = matrix.shape[-2:]
    if side == "smaller":
        side = "left" if rows <= columns else "right"
    if side == "right":
        matrix = matrix.mT
        rows, columns = columns, rows
    if rows <= columns:
        values, basis = _eigen(lower_gram(matrix))
    else:
        values, opposite = _eigen(lower_gram(matrix.mT))
        basis = _orthonormal(matrix @ opposite)
    return Bond(values.sum(0), basis, side)


def _squared_singular_values(matrix: Tensor) -> Tensor:
    wide = matrix if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT
    return torch.linalg.eigvalsh(lower_gram(wide)).flip(-1).clamp_(min=0).sum(0)


def lower_gram(rows: Tensor) -> Tensor:
    """Lower triangle of ``rows @ rows^T``, which is all that the eigensolvers read; panel by panel.

    A general product would compute every entry twice.
    """
    size = rows.shape[-2]
    gram = rows.new_zeros(*rows.shape[:-2], size, size)
    for start in range(0, size, _PANEL):
        stop = min(start + _PANEL, size)
        gram[..., start:stop, :stop] = rows[..., start:stop, :] @ rows[..., :stop, :].mT
    return gram


def mirrored(lower: Tensor) -> Tensor:
    """The symmetric matrices whose lower triangles these are."""
    return lower.tril() + lower.tril(-1).mT


def _eigen(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``[g, n]``, falling and not negative, and eigenvectors ``[g, n, n]`` of Gram matrices."""
    values, vectors = torch.linalg.eigh(gram)
    return values.flip(-1).clamp_(min=0), vectors.flip(-1)


def _orthonormal(columns: Tensor) -> Tensor:
    """Orthonormal columns spanning the given orthogonal ones, zero columns replaced by arbitrary ones."""
    return torch.linalg.qr(columns)[0]

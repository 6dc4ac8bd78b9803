r"""The factored form of a kernel: a short train of cores.

    w~[c, d1, t, d2] = sum_{r1, r3, r13}  U1[c, r1] G1[r1, d1, r13] G2[r3, d2, r13] U3[t, r3]      (HT-2)

Written in the order C, D1, D2, T this is a tensor train, and so are Tucker-2, the spatial SVD and the SVD
of the T-mode, with neighbouring modes left together (:mod:`tuckertree.core.decomposition.matricization`).
A core that is diagonal in its ranks, as in the canonical polyadic decomposition, is one in more groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd, prod

import torch
from torch import Tensor

from tuckertree._base.errors import UsageError
from tuckertree.core.decomposition.matricization import block_sizes, kernel_from_row, mode_sizes, modes_in_row
from tuckertree.core.decomposition.spectra import (
    Bond,
    Spectra,
    in_working_precision,
    kernel_spectra,
    leading_left_vectors,
)


@dataclass(frozen=True)
class Factors:
    """A kernel ``W[g, T, C, D1, ..., DN]`` as a product of cores.

    Attributes
    ----------
    cores
        One for each block of modes: ``[g, rank to the left, *modes of the block, rank to the right]``, where
        the first rank and the last are 1. For HT-2 of a two-dimensional kernel the cores are
        ``U1[g, 1, C, R1]``, ``G1[g, R1, D1, R13]``, ``G2[g, R13, D2, R3]`` and ``U3[g, R3, T, 1]``. A core may
        be in more groups than the kernel, whose own are the greatest common divisor: for CP the cores are
        ``[g, 1, C, R]``, ``[g R, 1, D1, 1]``, ``[g R, 1, D2, 1]`` and ``[g, R, T, 1]``.
    in_groups
        Groups of each core; by default what its shape says, which tracing does not take for a number.
    """

    cores: tuple[Tensor, ...]
    in_groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.in_groups:
            object.__setattr__(self, "in_groups", tuple(core.shape[0] for core in self.cores))

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.cores)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Rank at each cut, from the C end: ``(R1, R13, R3)`` for HT-2."""
        channels = zip(self.in_groups, (core.shape[-1] for core in self.cores[:-1]), strict=False)
        return tuple(finer * rank // self.groups for finer, rank in channels)

    @property
    def groups(self) -> int:
        """Groups of the kernel, ``g``."""
        return gcd(*self.in_groups)

    @property
    def parameters(self) -> int:
        """Numbers stored: ``C R1 + D1 R1 R13 + D2 R13 R3 + R3 T`` for HT-2 of one group."""
        return sum(core.numel() for core in self.cores)

    def kernel(self) -> Tensor:
        """Multiply the cores out: ``W^[g, T, C, D1, ..., DN]`` in the cores' own precision."""
        return kernel_from_row(self.merged(range(len(self.cores) - 1), ()).rows()[0])

    def rows(self) -> list[Tensor]:
        """The cores as kernels of layers, their modes in a row: ``[groups, inputs, *taps, outputs]``."""
        rows = list(self.cores)
        rows[0] = rows[0].squeeze(1)
        rows[-1] = rows[-1].squeeze(-1)
        return rows

    @classmethod
    def of_rows(cls, rows: Sequence[Tensor], in_groups: Sequence[int] = ()) -> Factors:
        """Invert :meth:`rows`."""
        cores = list(rows)
        cores[0] = cores[0].unsqueeze(1)
        cores[-1] = cores[-1].unsqueeze(-1)
        return cls(tuple(cores), tuple(in_groups))

    def merged(self, cuts: Sequence[int], kept: Sequence[int]) -> Factors:
        """Multiply neighbouring cores out wherever the cut between them is not kept."""
        first, *rest = zip(self.rows(), self.in_groups, strict=True)
        rows = [first]
        for cut, row in zip(cuts, rest, strict=True):
            if cut in kept:
                rows.append(row)
            else:
                rows[-1] = _merged(*rows[-1], *row)
        return Factors.of_rows(*zip(*rows, strict=True))

    def relative_error(self, kernel: Tensor) -> float:
        """True error ``||W - W^||_F / ||W||_F`` against a kernel (0 if both are zero), in float64."""
        kernel = in_working_precision(kernel)
        approximation = self.to(torch.float64).kernel().detach()
        norm = float(torch.linalg.vector_norm(kernel))
        distance = float(torch.linalg.vector_norm(kernel - approximation.to(kernel.device)))
        return distance / norm if norm > 0 else distance

    def to(self, dtype: torch.dtype) -> Factors:
        """The same factors in another type."""
        return Factors(tuple(core.to(dtype) for core in self.cores))


def _merged(left: Tensor, in_left: int, right: Tensor, in_right: int) -> tuple[Tensor, int]:
    """Multiply two neighbouring rows, in so many groups, out: one layer that does what the two do, and its groups.

    Parameters
    ----------
    left, right
        ``[groups, inputs, *taps, outputs]``; the outputs of all groups together are the inputs of the next.

    Returns
    -------
    Tensor, int
        ``[groups, inputs, *taps of the left, *taps of the right, outputs]`` in as many groups as both can be in.
    """
    groups = gcd(in_left, in_right)
    if in_left > groups:  # blocks on a diagonal
        eye = torch.eye(in_left // groups).to(left)
        blocks = left.reshape(groups, -1, *left.shape[1:])
        left = torch.einsum("gka...b,kl->gka...lb", blocks, eye).flatten(1, 2).flatten(-2)
    inner = left.reshape(groups, -1, in_right // groups, right.shape[1])
    outer = right.reshape(groups, in_right // groups, right.shape[1], -1, right.shape[-1])
    product = torch.einsum("gakc,gkcnd->gankd", inner, outer)
    return product.reshape(*left.shape[:-1], *right.shape[2:-1], -1), groups


def feasible_ranks(kernel_shape: Sequence[int], cuts: Sequence[int], ranks: Sequence[int]) -> tuple[int, ...]:
    """Ranks lowered to what the matrices they are taken from can have; nothing is lost by it.

    The ends are bounded by their matricizations, an inner rank also by the projected one: for HT-2
    ``R13 <= min(D1 R1, D2 R3)``.

    Raises
    ------
    UsageError
        If there is not one positive rank for each cut.
    """
    if len(ranks) != len(cuts) or any(rank < 1 for rank in ranks):
        raise UsageError(f"{len(cuts)} positive ranks are needed here, got {tuple(ranks)}")
    sizes = block_sizes(kernel_shape, cuts)
    limits = [min(prod(sizes[:i]), prod(sizes[i:])) for i in range(1, len(sizes))]
    ranks = [min(rank, limit) for rank, limit in zip(ranks, limits, strict=True)]
    for i in range(1, len(ranks) - 1):
        right = prod(sizes[i + 1 : -1]) * ranks[-1]
        ranks[i] = min(ranks[i], ranks[i - 1] * sizes[i], right)
    return tuple(ranks)


def decompose(
    kernel: Tensor, ranks: Sequence[int], cuts: Sequence[int], spectra: Spectra | None = None
) -> Factors:
    """Factor a kernel, leaves first (the HT-2 algorithm of the paper).

    1. ``U1``: leading left singular vectors at the first cut of the kernel itself;
    2. ``U3``: leading right singular vectors at the last cut; the kernel is projected on both;
    3. each inner core: leading left singular vectors of what is left of the projected tensor, which is
       projected in turn; the last inner core is the remainder.

    Every step is an orthogonal projection, so the squared error is at most the sum of the discarded squared
    singular values (:meth:`Spectra.bound`).

    Parameters
    ----------
    kernel
        ``W[g, T, C, D1, ..., DN]``, any floating-point type.
    ranks
        One for each cut; lowered by :func:`feasible_ranks` where they are more than there is.
    cuts
        Bonds to cut, rising.
    spectra
        Spectra of this kernel, if they are at hand already; not used where they lack a basis that is needed.

    Returns
    -------
    Factors
        In float64, on the kernel's device.

    Raises
    ------
    TuckertreeError
        If the kernel holds NaN or infinite values.
    UsageError
        If the kernel has an empty mode or the ranks do not match the cuts.
    """
    shape = kernel.shape[1:]
    ranks = feasible_ranks(shape, cuts, ranks)
    if spectra is None or not spectra.serves(cuts):
        spectra = kernel_spectra(kernel, cuts)
    row = modes_in_row(in_working_precision(kernel))
    blocks = row.reshape(row.shape[0], *block_sizes(shape, cuts))
    matrices = _cut_once if len(cuts) == 1 else _cut_often
    return Factors(_split_modes(matrices(blocks, ranks, [spectra.bonds[cut] for cut in cuts]), shape, cuts))


def _cut_once(blocks: Tensor, ranks: Sequence[int], bonds: Sequence[Bond]) -> list[Tensor]:
    (rank,), (bond,) = ranks, bonds
    basis = bond.leading(rank)
    left, right = (basis, basis.mT @ blocks) if bond.side == "left" else (blocks @ basis, basis.mT)
    return [left.unsqueeze(1), right.unsqueeze(-1)]


def _cut_often(blocks: Tensor, ranks: Sequence[int], bonds: Sequence[Bond]) -> list[Tensor]:
    groups, *sizes = blocks.shape
    first, last = bonds[0].leading(ranks[0]), bonds[-1].leading(ranks[-1])
    rest = first.mT @ blocks.reshape(groups, sizes[0], -1)
    rest = rest.reshape(groups, -1, sizes[-1]) @ last
    cores = [first.unsqueeze(1)]
    for size, left_rank, rank in zip(sizes[1:-2], ranks, ranks[1:-1], strict=False):
        rest = rest.reshape(groups, left_rank * size, -1)
        core = leading_left_vectors(rest, rank)
        cores.append(core.reshape(groups, left_rank, size, rank))
        rest = core.mT @ rest
    cores.append(rest.reshape(groups, -1, sizes[-2], ranks[-1]))
    return [*cores, last.mT.unsqueeze(-1)]


def _split_modes(cores: Sequence[Tensor], shape: Sequence[int], cuts: Sequence[int]) -> tuple[Tensor, ...]:
    """Give each core ``[g, rank, block, rank]`` the separate modes of its block, in memory of its own."""
    sizes = mode_sizes(shape)
    edges = pairwise((0, *(cut + 1 for cut in cuts), len(sizes)))
    return tuple(
        core.reshape(*core.shape[:2], *sizes[a:b], core.shape[-1]).clone(
            memory_format=torch.contiguous_format
        )
        for core, (a, b) in zip(cores, edges, strict=True)
    )

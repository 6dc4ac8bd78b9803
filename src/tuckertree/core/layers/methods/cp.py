"""CP: a kernel as a sum of R products of vectors, one for each mode (Lebedev et al., ICLR 2015, arXiv 1412.6553).

    w~[c, d1, d2, t] = sum_r  A[c, r] B1[d1, r] B2[d2, r] E[t, r]

The layer becomes a pointwise one to R channels, a depthwise one along each spatial axis, and a pointwise one to T.
It is no cut of the row of modes: the middle stages act on each component alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from tuckertree.core.decomposition import Factors, Spectra, Truncations
from tuckertree.core.decomposition.matricization import mode_sizes, modes_in_row
from tuckertree.core.decomposition.refine import descend_cores, ridged_root
from tuckertree.core.decomposition.spectra import in_working_precision
from tuckertree.core.layers.methods.method import Choices, Method
from tuckertree.core.layers.spec import LayerSpec
from tuckertree.core.layers.stages import Stage, chain_parameters, chain_stages

Known = dict[int, list[list[Tensor]]]
"""Matrices ``[mode, rank]`` of each group, by the rank."""
_SWEEPS, _TOLERANCE, _RIDGE = (4, 30), 1e-3, 1e-10
_WORK = 1e10
"""About so many multiply-accumulates at one rank: wide layers have fewer sweeps, between the least and the most."""
_SHARES = (3 / 4, 1 / 2)
_OCTAVES = 5


class CPMethod(Method):
    """Canonical polyadic decomposition, by alternating least squares."""

    name = "cp"

    def applies(self, spec: LayerSpec) -> bool:
        """Pointwise and linear kernels are matrices, which have the SVD."""
        return bool(spec.nontrivial_modes)

    def stages(self, spec: LayerSpec, ranks: Sequence[int]) -> tuple[Stage, ...]:
        """Pointwise, one depthwise stage along each spatial axis, pointwise."""
        cuts = range(len(spec.nontrivial_modes) + 1)
        return chain_stages(spec, cuts, tuple(ranks) * len(cuts), depthwise=True)

    def feasible(self, shape: Sequence[int], ranks: Sequence[int]) -> tuple[int, ...]:
        """At most the number of fibres of the longest mode, by which every kernel is exact."""
        sizes = mode_sizes(shape)
        return (min(ranks[0], prod(sizes) // max(sizes)),)

    def choices(self, spec: LayerSpec, kernel: Truncations, round_to: int) -> Choices:
        """Two ranks in each octave below that of the dense layer's size; the error is the true one."""
        sizes = mode_sizes(spec.nontrivial_shape)
        most = min(
            spec.weights // chain_parameters(self.stages(spec, (1,))),
            prod(sizes) // max(sizes),
        )
        wanted = {
            int(share * most / 2**k) // round_to * round_to for share in _SHARES for k in range(_OCTAVES)
        }
        ranks = sorted(rank for rank in wanted if rank) or [min(round_to, prod(sizes) // max(sizes))]
        known: Known = {}
        found = [self._factors(kernel.kernel, rank, known).kernel() for rank in ranks]
        squared = [(kernel.kernel - each).square().sum() for each in found]
        return Choices(torch.tensor(ranks).unsqueeze(1), torch.stack(squared).cpu())

    def decompose(self, kernel: Tensor, ranks: Sequence[int], spectra: Spectra | None = None) -> Factors:  # noqa: ARG002
        """Alternating least squares, each rank started from half of it; exact at full rank."""
        kernel = in_working_precision(kernel)
        (rank,) = self.feasible(kernel.shape[1:], ranks)
        return self._factors(kernel, rank, {})

    def refine(
        self,
        start: Callable[[], Factors],
        kernel: Tensor,
        sigma: Tensor,
        *,
        ranks: Sequence[int],  # noqa: ARG002
        sweeps: int,
        tolerance: float,
    ) -> Factors:
        """Conjugate gradients on one factor after the other; see :meth:`Method.refine`."""
        return descend_cores(start(), kernel, sigma, sweeps=sweeps, tolerance=tolerance)

    def balance(self, factors: Factors) -> Factors:
        """The vectors of each component have the same norm."""
        rank = factors.ranks[0]
        return _as_factors(
            [_balanced(matrices) for matrices in _as_matrices(factors.to(torch.float64), rank)]
        )

    def _factors(self, kernel: Tensor, rank: int, known: Known) -> Factors:
        return _as_factors(
            [_balanced(matrices) for matrices in self._solve(modes_in_row(kernel), rank, known)]
        )

    def _solve(self, row: Tensor, rank: int, known: Known) -> list[list[Tensor]]:
        """Matrices of each group of ``row[g, C, D1, ..., T]``; ``known`` are those of other ranks."""
        if rank not in known:
            if rank >= row[0].numel() // max(row.shape[1:]):
                known[rank] = [_fibres(group) for group in row]
            else:
                less = (
                    self._solve(row, rank // 2, known)
                    if rank > 1
                    else [[x[:, :0] for x in _fibres(g)] for g in row]
                )
                known[rank] = [_alternate(group, rank, start) for group, start in zip(row, less, strict=True)]
        return known[rank]


def _alternate(row: Tensor, rank: int, start: Sequence[Tensor]) -> list[Tensor]:
    """Matrices ``[mode, rank]`` of one group ``row[C, D1, ..., T]``, never worse than those of a lower rank.

    For each mode in turn the least squares ``M (o_n M_n^T M_n) = row . (x_n M_n)``, n the other modes (Carroll and
    Chang, Psychometrika 35, 1970). What the long modes have in common is contracted first, so that no Khatri-Rao
    product is formed.
    """
    missing, norm = rank - start[0].shape[1], row.norm()
    before = [pad(matrix, (0, missing)) for matrix in start]
    generator = torch.Generator().manual_seed(rank)
    more = [torch.randn(len(matrix), missing, generator=generator).to(row) for matrix in start]
    size = norm ** (1 / row.ndim)
    after = [torch.cat([a, size * b / b.norm(dim=0)], 1) for a, b in zip(start, more, strict=True)]
    lost = torch.inf
    least, most = _SWEEPS
    for _ in range(int(min(max(_WORK / (2 * row.numel() * rank), least), most))):
        by_last = row @ after[-1]
        for mode in range(row.ndim):
            from_last = mode < row.ndim - 1
            rest = by_last if from_last else (row.flatten(1).mT @ after[0]).reshape(*row.shape[1:], rank)
            others = [n for n in range(row.ndim) if n not in (mode, row.ndim - 1 if from_last else 0)]
            for n in reversed(others):
                place = n if from_last else n - 1
                shape = [1] * (rest.ndim - 1)
                shape[place] = len(after[n])
                rest = (rest * after[n].reshape(*shape, rank)).sum(place, keepdim=True)
            grams = [matrix.mT @ matrix for n, matrix in enumerate(after) if n != mode]
            gram = torch.stack(grams).prod(0)
            root, _ = ridged_root(gram.unsqueeze(0), _RIDGE)
            wanted = rest.reshape(-1, rank)
            after[mode] = torch.cholesky_solve(wanted.mT, root[0]).mT
        error = norm**2 + (after[-1] @ gram * after[-1]).sum() - 2 * (after[-1] * wanted).sum()
        if not error < (1 - _TOLERANCE) * lost:
            break
        lost = float(error)
    return min(before, after, key=lambda found: float((row - _product(found)).norm().nan_to_num(torch.inf)))


def _product(matrices: Sequence[Tensor]) -> Tensor:
    *others, last = matrices
    product = others[0]
    for matrix in others[1:]:
        product = product.unsqueeze(-2) * matrix
    return product @ last.mT


def _fibres(row: Tensor) -> list[Tensor]:
    """Exact matrices: one component for each fibre of the longest mode."""
    longest = max(range(row.ndim), key=lambda mode: row.shape[mode])
    others = [torch.arange(n, device=row.device) for mode, n in enumerate(row.shape) if mode != longest]
    places = iter(torch.cartesian_prod(*others).unbind(1))
    return [
        row.movedim(mode, 0).flatten(1) if mode == longest else one_hot(next(places), n).mT.to(row)
        for mode, n in enumerate(row.shape)
    ]


def _balanced(matrices: Sequence[Tensor]) -> list[Tensor]:
    """The same components with vectors of equal norm."""
    norms = torch.stack([matrix.norm(dim=0) for matrix in matrices])
    mean = norms.log().mean(0).exp()
    return [matrix * (mean / norm.where(norm > 0, 1)) for matrix, norm in zip(matrices, norms, strict=True)]


def _as_factors(groups: Sequence[Sequence[Tensor]]) -> Factors:
    """A core for each stage from the matrices ``[mode, rank]`` of each group."""
    first, *middle, last = (torch.stack(matrices) for matrices in zip(*groups, strict=True))
    depthwise = [each.mT.flatten(0, 1)[:, None, :, None].contiguous() for each in middle]
    return Factors((first.unsqueeze(1), *depthwise, last.mT.unsqueeze(-1).contiguous()))


def _as_matrices(factors: Factors, rank: int) -> list[list[Tensor]]:
    """Invert :func:`_as_factors`."""
    first, *middle, last = factors
    depthwise = [each.reshape(len(first), rank, -1).mT for each in middle]
    return [list(group) for group in zip(first.squeeze(1), *depthwise, last.squeeze(-1).mT, strict=True)]

"""CP: a kernel as a sum of R products of vectors, one for each mode (Lebedev et al., ICLR 2015, arXiv 1412.6553).

    w~[c, d1, d2, t] = sum_r  A[c, r] B1[d1, r] B2[d2, r] E[t, r]

The layer becomes a pointwise one to R channels, a depthwise one along each spatial axis, and a pointwise one to T.
It is no cut of the row of modes: the middle stages act on each component alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import lcm, prod

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from tuckertree.core.decomposition import Factors, Spectra, Truncations
from tuckertree.core.decomposition.matricization import modes_in_row
from tuckertree.core.decomposition.refine import descend_cores, ridged_root
from tuckertree.core.decomposition.spectra import in_working_precision
from tuckertree.core.layers.methods.method import Choices, Method
from tuckertree.core.layers.spec import LayerSpec
from tuckertree.core.layers.stages import Stage, chain_parameters, chain_stages

_SWEEPS, _TOLERANCE, _RIDGE = (4, 30), 1e-3, 1e-10
_WORK = 4e9
"""About so many multiply-accumulates at one rank: wide layers have fewer sweeps, between the least and the most."""
_SHARES = (1 / 2, 3 / 8)
_OCTAVES = 5
_LARGE = 2**16
"""Kernels of more weights are contracted in single precision."""


@dataclass(frozen=True)
class _Found:
    """Matrices ``[mode, rank]`` of a group, and the squared error of what they multiply out to."""

    matrices: list[Tensor]
    squared: float


Known = dict[int, list[_Found]]
"""What was found for each group, by the rank."""


class CPMethod(Method):
    """Canonical polyadic decomposition, by alternating least squares."""

    name = "cp"
    block = 1
    """Ranks on offer are multiples of this."""

    def applies(self, spec: LayerSpec) -> bool:
        """Pointwise and linear kernels are matrices, which have the SVD."""
        return bool(spec.nontrivial_modes)

    def places(self, modes: int) -> Sequence[int]:
        """Between which modes a kernel of so many spatial ones is cut: everywhere."""
        return range(modes + 1)

    def stages(self, spec: LayerSpec, ranks: Sequence[int]) -> tuple[Stage, ...]:
        """Pointwise, one depthwise stage along each spatial axis, pointwise."""
        cuts = self.places(len(spec.nontrivial_modes))
        return chain_stages(spec, cuts, tuple(ranks) * len(cuts), depthwise=True)

    def feasible(self, shape: Sequence[int], ranks: Sequence[int]) -> tuple[int, ...]:
        """At most the number of fibres of the longest mode, by which every kernel is exact."""
        return (min(ranks[0], self._most(shape)),)

    def choices(self, spec: LayerSpec, kernel: Truncations, round_to: int) -> Choices:
        """Two ranks in each octave below half of the dense layer's size; the error is the true one."""
        fibres, round_to = self._most(spec.nontrivial_shape), lcm(round_to, self.block)
        most = min(spec.weights // chain_parameters(self.stages(spec, (1,))), fibres)
        wanted = {
            int(share * most / 2**k) // round_to * round_to for share in _SHARES for k in range(_OCTAVES)
        }
        ranks = sorted(rank for rank in wanted if rank) or [min(round_to, fibres)]
        (row, size), known = self._row(kernel.kernel), Known()
        squared = [size**2 * sum(each.squared for each in self._solve(row, rank, known)) for rank in ranks]
        return Choices(torch.tensor(ranks).unsqueeze(1), torch.tensor(squared, dtype=torch.float64))

    def decompose(self, kernel: Tensor, ranks: Sequence[int], spectra: Spectra | None = None) -> Factors:  # noqa: ARG002
        """Alternating least squares, each rank started from half of it; exact at full rank."""
        kernel = in_working_precision(kernel)
        (rank,) = self.feasible(kernel.shape[1:], ranks)
        taps = self._taps(kernel.shape[3:])
        row, size = self._row(kernel)
        found = [each.matrices for each in self._solve(row, rank, {})]
        sized = [[size ** (1 / len(group)) * x.to(kernel) for x in group] for group in found]
        return _as_factors(sized, taps)

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
        taps = [core.shape[2:-1] for core in factors.cores[1:-1]]
        return _as_factors(_as_matrices(factors.to(torch.float64), rank), taps)

    def _most(self, shape: Sequence[int]) -> int:
        """The rank at which every kernel ``(T, C, D1, ..., DN)`` is exact."""
        outputs, inputs, *spatial = shape
        sizes = inputs, *map(prod, self._taps(spatial)), outputs
        return prod(sizes) // max(sizes)

    def _taps(self, spatial: Sequence[int]) -> list[Sequence[int]]:
        """The spatial modes of each stage between the first and the last."""
        return [spatial[a:b] for a, b in pairwise(self.places(len(spatial)))]

    def _row(self, kernel: Tensor) -> tuple[Tensor, float]:
        """The kernel as ``[g, C, ..., T]`` of norm 1, the spatial modes of each stage as one, and its norm."""
        row = modes_in_row(kernel)
        row = row.reshape(*row.shape[:2], *map(prod, self._taps(row.shape[2:-1])), row.shape[-1])
        size = float(row.double().norm()) or 1.0
        return row / size, size

    def _solve(self, row: Tensor, rank: int, known: Known) -> list[_Found]:
        """What is found for each group of ``row[g, C, ..., T]``; ``known`` is what was for other ranks."""
        if rank not in known:
            if rank >= row[0].numel() // max(row.shape[1:]):
                known[rank] = [_Found(_fibres(group), 0.0) for group in row]
            else:
                half = rank // 2 // self.block * self.block or rank // 2
                less = self._solve(row, half, known) if half else [_nothing(group) for group in row]
                known[rank] = [_alternate(group, rank, start) for group, start in zip(row, less, strict=True)]
        return known[rank]


class DepthwiseMethod(CPMethod):
    """CP with the spatial modes as one (Astrid and Lee, arXiv 1701.07148; Phan et al., arXiv 2008.05441).

    The layer becomes pointwise, depthwise ``D1 x ... x DN``, pointwise: what mobile networks are made of.
    """

    name = "depthwise"
    block = 8

    def places(self, modes: int) -> Sequence[int]:
        """Before and after all spatial modes."""
        return (0, modes)


def _alternate(row: Tensor, rank: int, start: _Found) -> _Found:
    """What one group ``row[C, ..., T]`` becomes at a rank, never worse than at the lower one of the start.

    For each mode in turn the least squares ``M (o_n M_n^T M_n) = row . (x_n M_n)``, n the other modes (Carroll and
    Chang, Psychometrika 35, 1970). What the long modes have in common is contracted first, so that no Khatri-Rao
    product is formed.
    """
    missing, norm = rank - start.matrices[0].shape[1], row.norm()
    before = [pad(matrix, (0, missing)) for matrix in start.matrices]
    generator = torch.Generator().manual_seed(rank)
    more = [torch.randn(len(matrix), missing, generator=generator).to(row) for matrix in before]
    size = norm ** (1 / row.ndim)
    after = [torch.cat([a, size * b / b.norm(dim=0)], 1) for a, b in zip(start.matrices, more, strict=True)]
    single = row.to(torch.float32) if row.numel() > _LARGE else row
    by_first = single.flatten(1).mT.contiguous()
    lost, (least, most) = torch.inf, _SWEEPS
    for _ in range(int(min(max(_WORK / (2 * row.numel() * rank), least), most))):
        by_last = single @ after[-1].to(single)
        for mode in range(row.ndim):
            from_last = mode < row.ndim - 1
            rest = by_last if from_last else (by_first @ after[0].to(single)).reshape(*row.shape[1:], rank)
            others = [n for n in range(row.ndim) if n not in (mode, row.ndim - 1 if from_last else 0)]
            for n in reversed(others):
                place = n if from_last else n - 1
                shape = [1] * (rest.ndim - 1)
                shape[place] = len(after[n])
                rest = (rest * after[n].to(single).reshape(*shape, rank)).sum(place, keepdim=True)
            grams = [matrix.mT @ matrix for n, matrix in enumerate(after) if n != mode]
            gram = torch.stack(grams).prod(0)
            root, _ = ridged_root(gram.unsqueeze(0), _RIDGE)
            wanted = rest.reshape(-1, rank).to(row)
            after[mode] = torch.cholesky_solve(wanted.mT, root[0]).mT
        error = norm**2 + (after[-1] @ gram * after[-1]).sum() - 2 * (after[-1] * wanted).sum()
        if not error < (1 - _TOLERANCE) * lost:
            break
        lost = float(error)
    squared = float((row - _product(after)).square().sum().nan_to_num(torch.inf))
    return _Found(after, squared) if squared < start.squared else _Found(before, start.squared)


def _nothing(row: Tensor) -> _Found:
    """Rank 0."""
    return _Found([x[:, :0] for x in _fibres(row)], float(row.square().sum()))


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


def _as_factors(groups: Sequence[Sequence[Tensor]], taps: Sequence[Sequence[int]]) -> Factors:
    """A core for each stage, balanced, from each group's matrices ``[mode, rank]``; ``taps`` are the modes of those between."""
    balanced = map(_balanced, groups)
    first, *middle, last = (torch.stack(matrices) for matrices in zip(*balanced, strict=True))
    depthwise = [
        each.mT.reshape(-1, 1, *sizes, 1).contiguous() for each, sizes in zip(middle, taps, strict=True)
    ]
    return Factors((first.unsqueeze(1), *depthwise, last.mT.unsqueeze(-1).contiguous()))


def _as_matrices(factors: Factors, rank: int) -> list[list[Tensor]]:
    """Invert :func:`_as_factors`."""
    first, *middle, last = factors
    depthwise = [each.reshape(len(first), rank, -1).mT for each in middle]
    return [list(group) for group in zip(first.squeeze(1), *depthwise, last.squeeze(-1).mT, strict=True)]

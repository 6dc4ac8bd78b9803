"""Methods that cut the row of a kernel's modes: HT-2, Tucker-2, the spatial SVD and the SVD of the T-mode.

==========  =====================  =================================================
method      blocks for order 2     known as
==========  =====================  =================================================
``ht2``     C / D1 / D2 / T        hierarchical Tucker-2 (the paper)
``tucker2`` C / D1 D2 / T          Tucker-2 on the channel modes
``spatial`` C D1 / D2 T            spatial SVD: a vertical and a horizontal layer
``svd``     C D1 D2 / T            SVD of the T-mode: R whole filters, then 1x1
==========  =====================  =================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tuckertree._base.errors import UsageError
from tuckertree.core.decomposition import Factors, Spectra, Truncations, balance, decompose, feasible_ranks
from tuckertree.core.decomposition.matricization import block_sizes
from tuckertree.core.decomposition.refine import alternate, project_outputs
from tuckertree.core.layers.methods.method import Choices, Method
from tuckertree.core.layers.spec import LayerSpec
from tuckertree.core.layers.stages import Stage, chain_stages

GRID = 64
"""At most so many values of each rank where two or three ranks span a grid."""
_COARSE_GRID = 24
_FINE_GRID = 1024


@dataclass(frozen=True)
class CutMethod(Method):
    """A kernel's row of modes cut at some bonds.

    Attributes
    ----------
    bonds
        Bonds that are cut in a kernel with so many spatial modes.
    least
        Spatial modes from which on its stages differ from those of methods with fewer cuts.
    exists
        Spatial modes that it needs.
    """

    name: str
    bonds: Callable[[int], Sequence[int]]
    least: int = 0
    exists: int = 0

    def applies(self, spec: LayerSpec) -> bool:
        """See :meth:`Method.applies`."""
        return len(spec.nontrivial_modes) >= self.exists

    def is_usual(self, spec: LayerSpec) -> bool:
        """See :meth:`Method.is_usual`."""
        return len(spec.nontrivial_modes) >= self.least

    def rank_count(self, spec: LayerSpec) -> int:
        """One for each cut."""
        return len(self.cuts(spec))

    def cuts(self, spec: LayerSpec) -> tuple[int, ...]:
        """The bonds that are cut."""
        return self.at(len(spec.nontrivial_modes))

    def at(self, order: int) -> tuple[int, ...]:
        """Bonds that are cut in a kernel with ``order`` spatial modes.

        Raises
        ------
        UsageError
            If the method needs more spatial modes.
        """
        if order < self.exists:
            raise UsageError(f"method {self.name!r} needs two spatial modes, this kernel has {order}")
        return tuple(self.bonds(order))

    def stages(self, spec: LayerSpec, ranks: Sequence[int]) -> tuple[Stage, ...]:
        """One for each block between cuts."""
        return chain_stages(spec, self.cuts(spec), ranks)

    def feasible(self, shape: Sequence[int], ranks: Sequence[int]) -> tuple[int, ...]:
        """See :func:`~tuckertree.core.decomposition.feasible_ranks`."""
        return feasible_ranks(shape, self.at(len(shape) - 2), ranks)

    def choices(self, spec: LayerSpec, kernel: Truncations, round_to: int) -> Choices:
        """A grid of up to 64 values of each rank, in about equal ratios; 1,024 of a single one."""
        cuts = self.cuts(spec)
        most = _FINE_GRID if len(cuts) == 1 else GRID if len(cuts) <= 3 else _COARSE_GRID
        values = [rank_grid(len(kernel.spectra.bonds[cut].squared), round_to, most) for cut in cuts]
        squared = kernel.errors(cuts, values).flatten()
        mesh = [ranks.flatten() for ranks in torch.meshgrid(*values, indexing="ij")]
        return Choices(torch.stack(_feasible(mesh, block_sizes(spec.nontrivial_shape, cuts)), 1), squared)

    def decompose(self, kernel: Tensor, ranks: Sequence[int], spectra: Spectra | None = None) -> Factors:
        """See :func:`~tuckertree.core.decomposition.decompose`."""
        return decompose(kernel, ranks, self.at(kernel.ndim - 3), spectra)

    def merged_factors(
        self, kernel: Tensor, ranks: Sequence[int], cuts: Sequence[int], kept: Sequence[int]
    ) -> Factors:
        """Those of the kept cuts alone, which lose less."""
        return decompose(kernel, [rank for cut, rank in zip(cuts, ranks, strict=True) if cut in kept], kept)

    def refine(
        self,
        start: Callable[[], Factors],
        kernel: Tensor,
        sigma: Tensor,
        *,
        ranks: Sequence[int],
        sweeps: int,
        tolerance: float,
    ) -> Factors:
        """The optimum for one cut before T; otherwise alternating least squares (:func:`alternate`)."""
        matrix = kernel.flatten(2).mT
        if self.at(kernel.ndim - 3) == (kernel.ndim - 3,):
            filters, basis = project_outputs(matrix, sigma, ranks[0])
            return Factors.of_rows(
                [filters.reshape(len(kernel), *kernel.shape[2:], -1), basis.mT.contiguous()]
            )
        factors = start()
        if not sweeps:
            return factors
        last = factors.rows()[-1]
        cores = [core.reshape(*core.shape[:2], -1, core.shape[-1]) for core in factors.cores[:-1]]
        cores.append(last.reshape(*last.shape[:2], -1, last.shape[-1]))
        cores, _ = alternate(cores, matrix, sigma, sweeps=sweeps, tolerance=tolerance)
        return Factors(
            tuple(core.reshape(old.shape).contiguous() for core, old in zip(cores, factors, strict=True))
        )

    def balance(self, factors: Factors) -> Factors:
        """See :func:`~tuckertree.core.decomposition.balance`."""
        return balance(factors)


HT2 = CutMethod("ht2", lambda order: range(order + 1), least=1)
TUCKER2 = CutMethod("tucker2", lambda order: sorted({0, order}), least=2)
SPATIAL = CutMethod("spatial", lambda order: [(order + 1) // 2], least=2, exists=2)
SVD = CutMethod("svd", lambda order: [order])


def _feasible(ranks: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """:func:`~tuckertree.core.decomposition.feasible_ranks` for a grid: inner ranks to what is left of a core."""
    ranks = list(ranks)
    for i in range(1, len(ranks) - 1):
        right = ranks[-1]
        for size in sizes[i + 1 : -1]:
            right = right * size
        ranks[i] = torch.minimum(torch.minimum(ranks[i], ranks[i - 1] * sizes[i]), right)
    return ranks


def rank_grid(limit: int, round_to: int, most: int) -> Tensor:
    """Rising multiples of ``round_to`` and ``limit`` itself: all, or ``most`` of about equal ratios."""
    multiples = max(1, -(-limit // round_to))
    steps = torch.arange(1, multiples + 1) if multiples <= most else _rising(multiples, most)
    return (steps * round_to).clamp(max=limit)


def _rising(last: int, most: int) -> Tensor:
    """At most ``most`` integers from 1 to ``last``: all small ones, then growing in about equal ratios."""
    for points in range(4 * most, most - 1, -1):
        steps = torch.logspace(0, 1, points, base=last, dtype=torch.float64).round().long().unique()
        if len(steps) <= most:
            return steps
    raise AssertionError("as many points as values are allowed cannot be too many")

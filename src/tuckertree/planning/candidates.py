"""Candidates: every method and every choice of ranks for one layer, with what it costs and what it loses.

All of a grid is computed at once as tensors, and reduced to its Pareto front: the candidates to which no
other is at least equal in error, parameters and MACs together. A network-wide rule chooses among the fronts.
With a timer the front is that of error and time instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from tuckertree._base.errors import UsageError
from tuckertree.core.decomposition import (
    METHODS,
    Bond,
    Spectra,
    core_bonds,
    kernel_spectra,
    method_cuts,
    rotated_core,
    truncation_errors,
)
from tuckertree.core.decomposition.matricization import block_sizes
from tuckertree.core.layers import LayerSpec, chain_stages, stage_macs
from tuckertree.planning.fronts import pareto_front
from tuckertree.planning.inventory import Layer
from tuckertree.planning.plan import DENSE
from tuckertree.planning.timing import Timer, fastest_forms, forms_of_methods, rank_step

GRID = 64
"""At most so many values of each rank where two or three ranks span a grid."""
_COARSE_GRID = 24
_FINE_GRID = 1024


@dataclass(frozen=True)
class Candidates:
    """What may be done to one layer: ``n`` candidates, none of them worse than another in every way.

    Attributes
    ----------
    methods
        Method of each candidate; ``dense`` leaves the layer as it is.
    ranks
        Ranks of each, one for each cut of its method.
    error
        Bound of the squared relative error of the weight ``[n]``, float64; 0 for ``dense``.
    parameters, macs
        Weights and multiply-accumulates ``[n]``, int64, biases not counted; at the example inputs.
    loss
        What a rule minimises ``[n]``, float64: the error, unless the caller knows better (:meth:`measured`).
    spectra
        Spectra of the kernel, with the bases that its factors can be made of.
    seconds, forms
        With a timer the time of each in its fastest form ``[n]``, float64, and the cuts that stay in that form.
    """

    methods: tuple[str, ...]
    ranks: tuple[tuple[int, ...], ...]
    error: Tensor
    parameters: Tensor
    macs: Tensor
    loss: Tensor
    spectra: Spectra
    seconds: Tensor | None = None
    forms: tuple[tuple[int, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.methods)

    def weighted(self, weight: float) -> Candidates:
        """The same candidates with ``weight * error`` as their loss."""
        return self.measured(lambda error: weight * error)

    def measured(self, loss: Callable[[Tensor], Tensor]) -> Candidates:
        """The same candidates with ``loss`` as a function of the squared relative error.

        A weight is ``lambda error: weight * error``; a measured sensitivity any curve that does not fall.

        Raises
        ------
        UsageError
            If the loss is not finite, is negative, or falls where the error rises.
        """
        measured = loss(self.error).to(torch.float64)
        rising = measured[self.error.argsort(stable=True)]
        if not measured.isfinite().all() or (rising < 0).any() or (rising.diff() < 0).any():
            raise UsageError("a loss must be finite, not negative, and must not fall as the error rises")
        return replace(self, loss=measured)


def layer_candidates(
    layer: Layer,
    kernel: Tensor,
    *,
    round_to: int | None = 1,
    methods: Sequence[str] = METHODS,
    timer: Timer | None = None,
) -> Candidates:
    """Candidates of a layer: dense, and each method that makes it smaller, on a grid of ranks.

    Parameters
    ----------
    layer
        Says what each stage costs.
    kernel
        ``W[g, T, C, ...]`` with the nontrivial modes alone, or that kernel in any other metric: the errors are
        relative to the norm of what is given.
    round_to
        Ranks are multiples of this, or as many as there can be. None: what suits a CPU's vectors
        (:func:`~tuckertree.planning.timing.rank_step`).
    methods
        Methods that may be used, those that the layer has none of left out.
    timer
        Knows times: then only what runs faster than the dense layer is a candidate, in its fastest form.

    Returns
    -------
    Candidates
        None has more parameters or MACs than the dense layer. Up to 64 values of each rank, all multiples if
        there are no more, otherwise growing in about equal ratios; the single rank of ``svd`` and ``spatial``
        has up to 1,024.

    Raises
    ------
    TuckertreeError
        If the kernel holds NaN or infinite values.
    UsageError
        If a method is unknown.
    """
    for method in methods:
        method_cuts(method, 2)
    round_to = rank_step(layer) if round_to is None else round_to
    order = len(layer.spec.nontrivial_modes)
    if order:
        tables, spectra = _tables_of_convolution(layer.spec, kernel, round_to, methods)
    else:
        spectra = kernel_spectra(kernel, (0,))
        tables = {"svd": _single_cut(spectra, 0, round_to)}
    grids = [_Grid.of(layer, method, *table, spectra.squared_norm) for method, table in tables.items()]
    return _front(layer, grids, spectra, timer)


@dataclass(frozen=True)
class _Grid:
    """One method at a grid of ranks: ``ranks[n, cuts]``, and error, costs and number of the form ``[n]``."""

    method: str
    ranks: Tensor
    error: Tensor
    parameters: Tensor
    macs: Tensor
    seconds: Tensor
    form: Tensor

    @classmethod
    def of(
        cls, layer: Layer, method: str, ranks: Sequence[Tensor], squared: Tensor, squared_norm: float
    ) -> _Grid:
        """Work out the costs of a method on the product of some values of each rank."""
        cuts = method_cuts(method, len(layer.spec.nontrivial_modes))
        mesh = [values.flatten() for values in torch.meshgrid(*ranks, indexing="ij")]
        # Whatever the bound says, what projections lose is never more than the whole.
        error = (squared.flatten() / squared_norm if squared_norm else squared.flatten()).clamp(max=1).cpu()
        mesh = _feasible(mesh, block_sizes(layer.spec.nontrivial_shape, cuts))
        stages = chain_stages(layer.spec, cuts, [1] * len(cuts))
        macs = torch.zeros(len(stages), dtype=torch.int64)
        for call in layer.calls:
            macs += call.samples * torch.tensor(stage_macs(stages, call.size_in, call.size_out))
        return cls(
            method=method,
            ranks=torch.stack(mesh, 1),
            error=error,
            parameters=_cost(mesh, [stage.spec.weights for stage in stages]),
            macs=_cost(mesh, macs.tolist()),
            seconds=torch.zeros(error.shape, dtype=torch.float64),
            form=torch.zeros(error.shape, dtype=torch.int64),
        )

    def __getitem__(self, index: Tensor) -> _Grid:
        columns = (self.ranks, self.error, self.parameters, self.macs, self.seconds, self.form)
        return _Grid(self.method, *(column[index] for column in columns))

    def cuts(self, layer: Layer) -> tuple[int, ...]:
        """The bonds that the method cuts."""
        return () if self.method == DENSE else method_cuts(self.method, len(layer.spec.nontrivial_modes))

    def timed(self, layer: Layer, timer: Timer, forms: Sequence[tuple[int, ...]]) -> _Grid:
        """The same grid with times."""
        seconds, form = fastest_forms(timer, layer, self.cuts(layer), self.ranks, forms)
        return replace(self, seconds=seconds, form=form)


def _cost(ranks: Sequence[Tensor], at_rank_one: Sequence[int]) -> Tensor:
    """Cost of a chain, each stage's being proportional to the ranks at its two ends."""
    ends = [torch.ones_like(ranks[0]), *ranks, torch.ones_like(ranks[0])]
    return sum(
        (cost * left * right for cost, (left, right) in zip(at_rank_one, pairwise(ends), strict=True)),
        torch.zeros_like(ranks[0]),
    )


def _feasible(ranks: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """:func:`~tuckertree.core.decomposition.feasible_ranks` for a grid: inner ranks to what is left of a core."""
    ranks = list(ranks)
    for i in range(1, len(ranks) - 1):
        right = ranks[-1]
        for size in sizes[i + 1 : -1]:
            right = right * size
        ranks[i] = torch.minimum(torch.minimum(ranks[i], ranks[i - 1] * sizes[i]), right)
    return ranks


def _tables_of_convolution(
    spec: LayerSpec, kernel: Tensor, round_to: int, methods: Sequence[str]
) -> tuple[dict[str, tuple[list[Tensor], Tensor]], Spectra]:
    """For each method the values of its ranks and the squared errors on their grid."""
    order = len(spec.nontrivial_modes)
    leaves = kernel_spectra(kernel, (0, order))
    core = rotated_core(kernel, leaves)
    inner = core_bonds(core, range(1, order))
    spectra = Spectra(
        leaves.shape, {**leaves.bonds, **{bond: Bond(at.squared) for bond, at in inner.items()}}
    )
    tables: dict[str, tuple[list[Tensor], Tensor]] = {}
    for method, cuts in _distinct_methods(order, methods).items():
        if len(cuts) == 1:
            tables[method] = _single_cut(spectra, cuts[0], round_to)
            continue
        most = GRID if len(cuts) <= 3 else _COARSE_GRID
        ranks = [rank_grid(len(spectra.bonds[cut].squared), round_to, most) for cut in cuts]
        tables[method] = ranks, truncation_errors(core, inner, cuts, ranks)
    return tables, spectra


def _distinct_methods(order: int, methods: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Methods that exist for a number of spatial modes, with their cuts; of equal ones the first."""
    cuts: dict[str, tuple[int, ...]] = {}
    for method in methods:
        if (method != "spatial" or order >= 2) and method_cuts(method, order) not in cuts.values():
            cuts[method] = method_cuts(method, order)
    return cuts


def _single_cut(spectra: Spectra, cut: int, round_to: int) -> tuple[list[Tensor], Tensor]:
    bond = spectra.bonds[cut]
    ranks = rank_grid(len(bond.squared), round_to, _FINE_GRID)
    return [ranks], bond.tails[ranks]


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


def _front(layer: Layer, grids: Sequence[_Grid], spectra: Spectra, timer: Timer | None) -> Candidates:
    """Put the methods' grids and the dense layer together and keep the Pareto front."""
    none = torch.zeros(1, dtype=torch.int64)
    weights, macs = none + layer.spec.weights, none + layer.macs
    dense = _Grid(DENSE, none.new_zeros(1, 0), none.double(), weights, macs, none.double(), none)
    small = [g[(g.parameters < weights) & (g.macs <= macs)] for g in grids]
    forms = forms_of_methods({g.method: g.cuts(layer) for g in [dense, *grids]}) if timer else {}
    if timer:
        dense = dense.timed(layer, timer, forms[DENSE])
        small = [g.timed(layer, timer, forms[g.method]) for g in small if len(g.error)]
        small = [g[g.seconds < dense.seconds] for g in small]

    def front(grid: _Grid) -> Tensor:
        costs = (grid.seconds, grid.seconds) if timer else (grid.parameters, grid.macs)
        return pareto_front(grid.error, *costs)

    small = [dense, *(g[front(g)] for g in small)]
    columns = {
        name: torch.cat([getattr(g, name) for g in small])
        for name in ("error", "parameters", "macs", "seconds", "form")
    }
    kept = front(_Grid("", none, **columns))
    owner = [(g, i) for g in small for i in range(len(g.error))]
    chosen = [owner[i] for i in kept.tolist()]
    return Candidates(
        methods=tuple(g.method for g, _ in chosen),
        ranks=tuple(tuple(g.ranks[i].tolist()) for g, i in chosen),
        error=columns["error"][kept],
        parameters=columns["parameters"][kept],
        macs=columns["macs"][kept],
        loss=columns["error"][kept],
        spectra=spectra,
        seconds=columns["seconds"][kept] if timer else None,
        forms=tuple(forms[g.method][int(g.form[i])] for g, i in chosen) if timer else (),
    )

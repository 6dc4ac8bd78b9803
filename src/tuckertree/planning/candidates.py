"""Candidates: every method and every choice of ranks for one layer, with what it costs and what it loses.

All of a grid is computed at once as tensors, and reduced to its Pareto front: the candidates to which no
other is at least equal in error, parameters and MACs together. A network-wide rule chooses among the fronts.
With a timer the front is that of error and time instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tuckertree._base.errors import UsageError
from tuckertree.core.decomposition import Spectra, Truncations, kernel_spectra
from tuckertree.core.layers import (
    METHODS,
    Choices,
    LayerSpec,
    Method,
    chain_parameters,
    get_method,
    stage_macs,
)
from tuckertree.planning.fronts import pareto_front
from tuckertree.planning.inventory import Layer
from tuckertree.planning.plan import DENSE
from tuckertree.planning.timing import (
    DENSE_FORM,
    TimedForm,
    Timer,
    fastest_forms,
    forms_of_methods,
    rank_step,
)


@dataclass(frozen=True)
class Candidates:
    """What may be done to one layer: ``n`` candidates, none of them worse than another in every way.

    Attributes
    ----------
    methods
        Method of each candidate; ``dense`` leaves the layer as it is.
    ranks
        Ranks of each.
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
    offered
        All ranks on offer of methods that have one rank and no spectrum for it, such as CP, with relative squared errors.
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
    offered: Mapping[str, Choices] = field(default_factory=dict)

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
        None has more parameters or MACs than the dense layer.

    Raises
    ------
    TuckertreeError
        If the kernel holds NaN or infinite values.
    UsageError
        If a method is unknown, or breaks its contract.
    """
    round_to = rank_step(layer) if round_to is None else round_to
    truncations = Truncations(kernel)
    spectra = truncations.spectra
    grids = [
        _Grid.of(layer, method, truncations, round_to) for method in distinct_methods(layer.spec, methods)
    ]
    offered = {
        g.method: Choices(g.ranks, g.error) for g in grids if _is_tried(get_method(g.method), layer.spec)
    }
    return replace(_front(layer, grids, spectra, timer), offered=offered)


def _is_tried(method: Method, spec: LayerSpec) -> bool:
    """Whether the one rank of a method is that of no cut, so that errors are known where it was tried alone."""
    return method.rank_count(spec) == 1 < len(method.cuts(spec))


def sample_candidates(layer: Layer, kernel: Tensor) -> Candidates:
    """The dense layer and its SVD at half the rank, whatever that costs: to see what an error of the layer means."""
    how, shape = get_method("svd"), layer.spec.nontrivial_shape
    spectra = kernel_spectra(kernel, how.cuts(layer.spec))
    ranks = how.feasible(shape, [max(bond.full_rank // 2, 1) for bond in spectra.bonds.values()])
    error = spectra.bound(dict(zip(spectra.bonds, ranks, strict=True))) ** 2
    stages = how.stages(layer.spec, ranks)
    errors = torch.tensor([0.0, error], dtype=torch.float64)
    return Candidates(
        methods=(DENSE, how.name),
        ranks=((), tuple(ranks)),
        error=errors,
        parameters=torch.tensor([layer.spec.weights, chain_parameters(stages)]),
        macs=torch.tensor([layer.macs, layer.chain_macs(stages)]),
        loss=errors,
        spectra=spectra,
    )


def distinct_methods(spec: LayerSpec, names: Sequence[str]) -> list[Method]:
    """Methods that a layer has; of those whose stages are the same the usual one, or the first.

    Raises
    ------
    UsageError
        If a method is unknown.
    """
    methods = [method for method in map(get_method, names) if method.applies(spec)]
    distinct: dict[object, Method] = {}
    for method in sorted(methods, key=lambda method: not method.is_usual(spec)):
        distinct.setdefault(method.scaling(spec).signature, method)
    return list(distinct.values())


@dataclass(frozen=True)
class _Grid:
    """One method at a grid of ranks: ``ranks[n, k]``, and error, costs and number of the form ``[n]``."""

    method: str
    ranks: Tensor
    error: Tensor
    parameters: Tensor
    macs: Tensor
    seconds: Tensor
    form: Tensor

    @classmethod
    def of(cls, layer: Layer, method: Method, kernel: Truncations, round_to: int) -> _Grid:
        """Work out what a method loses and costs at the ranks that it offers."""
        found = method.checked_choices(layer.spec, kernel, round_to)
        scaling, norm = method.scaling(layer.spec), kernel.spectra.squared_norm
        # Whatever the bound says, what projections lose is never more than the whole.
        error = (found.squared / norm if norm else found.squared).clamp(max=1).cpu()
        macs = torch.zeros(len(scaling.stages), dtype=torch.int64)
        for call in layer.calls:
            macs += call.samples * torch.tensor(stage_macs(scaling.stages, call.size_in, call.size_out))
        weights = [stage.spec.weights for stage in scaling.stages]
        return cls(
            method=method.name,
            ranks=found.ranks,
            error=error,
            parameters=scaling.times(weights, found.ranks).sum(0),
            macs=scaling.times(macs.tolist(), found.ranks).sum(0),
            seconds=torch.zeros(error.shape, dtype=torch.float64),
            form=torch.zeros(error.shape, dtype=torch.int64),
        )

    def __getitem__(self, index: Tensor) -> _Grid:
        columns = (self.ranks, self.error, self.parameters, self.macs, self.seconds, self.form)
        return _Grid(self.method, *(column[index] for column in columns))

    def timed(self, layer: Layer, timer: Timer, forms: Sequence[TimedForm]) -> _Grid:
        """The same grid with times."""
        seconds, form = fastest_forms(timer, layer, self.ranks, forms)
        return replace(self, seconds=seconds, form=form)


def _front(layer: Layer, grids: Sequence[_Grid], spectra: Spectra, timer: Timer | None) -> Candidates:
    """Put the methods' grids and the dense layer together and keep the Pareto front."""
    none = torch.zeros(1, dtype=torch.int64)
    weights, macs = none + layer.spec.weights, none + layer.macs
    dense = _Grid(DENSE, none.new_zeros(1, 0), none.double(), weights, macs, none.double(), none)
    small = [g[(g.parameters < weights) & (g.macs <= macs)] for g in grids]
    forms = forms_of_methods(layer.spec, [get_method(g.method) for g in grids]) if timer else {}
    forms[DENSE] = [DENSE_FORM]
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
        forms=tuple(forms[g.method][int(g.form[i])].cuts for g, i in chosen) if timer else (),
    )

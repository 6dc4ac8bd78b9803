"""How long a layer takes in any fusion variant at any ranks, from measurements of a few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor, nn

from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree.core.decomposition import feasible_ranks
from tuckertree.core.decomposition.matricization import mode_sizes
from tuckertree.core.layers import METHODS, FusionVariant, LayerSpec, Scaling, chain_stages
from tuckertree.latency.fit import fit_times, work
from tuckertree.latency.pool import Pool, worth_timing
from tuckertree.measure import Timing
from tuckertree.planning import Call, Layer
from tuckertree.planning.candidates import distinct_methods
from tuckertree.planning.timing import form_cuts, rank_step
from tuckertree.runtimes import CandidateTime, Runtime, time_candidates

LayerBenchmark = Callable[[tuple[int, ...], Sequence[FusionVariant]], Sequence[CandidateTime]]
"""Times variants of a layer, the dense one first, on an input of the given shape."""

_Use = tuple[LayerSpec, Call]
_CLOSE = 0.02
_TRIES = 3


@dataclass(frozen=True)
class _Fitted:
    """Seconds of the dense layer, and coefficients of the share of that which another variant takes."""

    dense: float
    coefficients: Tensor


class TimeModel:
    """Times of layers, a :class:`~tuckertree.planning.Timer`.

    Each distinct layer is timed dense, and of its variants those that have something to tell: a time is taken to be linear
    in what the stages do (:func:`~tuckertree.latency.fit.work`), as a chain of plain layers does one after the
    other and a runtime joins little of them, with coefficients that differ little between the layers of a network
    (:class:`~tuckertree.latency.pool.Pool`). So the layers that take the most are timed in several variants, the others in
    ever fewer, and where a layer's share of the network is small its times are guessed.

    Parameters
    ----------
    benchmark
        Measures.
    batch
        Samples now, and in the inventory's forward pass, where the two differ.
    methods
        Whose stages are timed.
    tolerance
        To which share of all layers' time together each layer's is to be known. 0: every sample is timed
        (:func:`sample_variants`).

    Attributes
    ----------
    timed
        How many candidates have been timed, dense layers among them.
    """

    def __init__(
        self,
        benchmark: LayerBenchmark,
        batch: tuple[int, int] = (1, 1),
        methods: Sequence[str] = METHODS,
        *,
        tolerance: float = 5e-4,
    ) -> None:
        self._benchmark, self._batch, self._methods, self._tolerance = benchmark, batch, methods, tolerance
        self._fitted: dict[_Use, _Fitted] = {}
        self._dense: dict[_Use, float] = {}
        self._pool, self._total, self.timed = Pool(), 0.0, 0

    def measure(self, layers: Sequence[Layer], *, tick: ProgressCallback = no_progress) -> None:
        """Time what is worth it of all distinct layers now, those first that take the most time."""
        uses = [(layer, (layer.spec, call)) for layer in layers for call in map(self._now, layer.calls)]
        count, steps = Counter(use for _, use in uses), {use: rank_step(layer) for layer, use in uses}
        for number, use in enumerate(count):
            self._dense_seconds(*use)
            tick("timing dense layers", number + 1, len(count))
        shares = {use: times * self._dense[use] for use, times in count.items()}
        self._total = sum(shares.values())
        for number, use in enumerate(sorted(count, key=lambda use: -shares[use])):
            self._fit(*use, steps[use], times=count[use])
            tick("timing variants of layers", number + 1, len(count))

    def seconds(self, layer: Layer, stages: Scaling | None, ranks: Tensor) -> Tensor:
        """As :meth:`Timer.seconds <tuckertree.planning.Timer.seconds>`."""
        total = torch.zeros(len(ranks), dtype=torch.float64)
        for call in map(self._now, layer.calls):
            if stages is None:
                total += self._dense_seconds(layer.spec, call)
                continue
            fitted = self._fit(layer.spec, call, rank_step(layer))
            total += fitted.dense * (work(layer.spec, call, stages, ranks) @ fitted.coefficients)
        return total

    def _dense_seconds(self, spec: LayerSpec, call: Call) -> float:
        """Of a dense layer, timed alone."""
        if (spec, call) not in self._dense:
            (time,) = self._time(spec, call, [_dense_variant(spec)])
            self._dense[spec, call] = time.seconds
            seconds = torch.tensor([time.seconds], dtype=torch.float64)
            self._pool.add(_work_of(spec, call, [_dense_variant(spec)]), seconds, torch.zeros(1))
        return self._dense[spec, call]

    def _now(self, call: Call) -> Call:
        now, then = self._batch
        return Call(call.samples * now // then, call.size_in, call.size_out)

    def _time(
        self, spec: LayerSpec, call: Call, variants: Sequence[FusionVariant]
    ) -> Sequence[CandidateTime]:
        self.timed += len(variants) - (
            len(variants) > 1
        )  # the dense layer was counted when it was timed alone
        return self._benchmark(input_shape(spec, call), variants)

    def _fit(self, spec: LayerSpec, call: Call, step: int, times: int = 1) -> _Fitted:
        if (spec, call) not in self._fitted:
            dense = self._dense_seconds(spec, call)
            share = times * dense / max(self._total, times * dense)
            tolerance = self._tolerance and max(self._tolerance / share, _CLOSE)
            variants = sample_variants(spec, step, self._methods)
            rows = _work_of(spec, call, variants)
            prior, found = self._pool.prior(rows), {0: Timing(1.0, 1.0, 1.0)}
            for _ in range(_TRIES):
                chosen = worth_timing(rows, prior, {i: _spread(time) for i, time in found.items()}, tolerance)
                if not chosen:
                    break
                times_of_chosen = self._time(spec, call, [variants[i] for i in (0, *chosen)])[1:]
                found |= {i: time.ratio for i, time in zip(chosen, times_of_chosen, strict=True)}
            ratios = torch.tensor([time.median for time in found.values()], dtype=torch.float64)
            spread = torch.tensor([_spread(time) for time in found.values()], dtype=torch.float64)
            self._fitted[spec, call] = _Fitted(dense, fit_times(rows[[*found]], ratios, spread, prior))
            self._pool.add(rows[[*found]][1:], dense * ratios[1:], spread[1:])
        return self._fitted[spec, call]


def _spread(ratio: Timing) -> float:
    return (ratio.high - ratio.low) / ratio.median


def _dense_variant(spec: LayerSpec) -> FusionVariant:
    return FusionVariant((), chain_stages(spec, (), ()))


def _work_of(spec: LayerSpec, call: Call, variants: Sequence[FusionVariant]) -> Tensor:
    none = torch.ones(1, 0)
    return torch.cat([work(spec, call, Scaling.fixed(variant.stages), none) for variant in variants])


def sample_variants(spec: LayerSpec, step: int, methods: Sequence[str] = METHODS) -> list[FusionVariant]:
    """The variants of a layer that may be timed: the dense one, then every other at two choices of ranks or three.

    Ranks are quarters and halves of what there can be, of the channels at most, in multiples of ``step``. With
    two cuts either is once the larger one, so that the stages can be told apart. A layer of a single other variant
    has it timed three times: two that are off would not be noticed.
    """
    row, channels = mode_sizes(spec.nontrivial_shape), max(spec.kernel_shape[:2])
    limits = [min(prod(row[: n + 1]), prod(row[n + 1 :]), channels) for n in range(len(row) - 1)]

    def rounded(share: float, limit: int) -> int:
        return max(step, int(share * limit) // step * step)

    dense = _dense_variant(spec)
    found, known = {dense.stages: dense}, set[object]()
    for cuts in form_cuts(range(len(row) - 1)):
        known.add(Scaling.of(partial(chain_stages, spec, cuts), len(cuts)).signature)
        for shares in _choices(len(cuts), alone=len(row) == 2):
            ranks = [rounded(share, limits[cut]) for share, cut in zip(shares, cuts, strict=True)]
            stages = chain_stages(spec, cuts, feasible_ranks(spec.nontrivial_shape, cuts, ranks))
            found[stages] = FusionVariant(cuts, stages)
    for method in distinct_methods(spec, methods):
        for kept in form_cuts(method.cuts(spec)):
            if (signature := method.scaling(spec, kept).signature) not in known:
                known.add(signature)
                for share in (0.25, 0.5):
                    ranks = [rounded(share, channels)] * method.rank_count(spec)
                    stages = method.run_as(spec, method.feasible(spec.nontrivial_shape, ranks), kept)
                    found[stages] = FusionVariant(kept, stages)
    return list(found.values())


def _choices(cuts: int, *, alone: bool) -> tuple[tuple[float, ...], ...]:
    """Ranks of a variant as shares of what there can be."""
    if alone:
        return (0.25,), (0.5,), (0.75,)
    if cuts == 2:
        return (0.25, 0.5), (0.5, 0.25)
    return (0.25,) * cuts, (0.5,) * cuts


def input_shape(spec: LayerSpec, call: Call) -> tuple[int, ...]:
    """Shape of what a layer is called with."""
    if spec.order:
        return (call.samples, spec.in_channels, *call.size_in)
    return (call.samples, *(n for n in call.size_in if n > 1), spec.in_channels)


class RuntimeBenchmark:
    """Times variants as modules with random weights on a runtime (:func:`~tuckertree.runtimes.time_candidates`)."""

    def __init__(self, runtime: Runtime, dtype: torch.dtype, *, repeats: int = 15) -> None:
        self._runtime, self._dtype, self._repeats = runtime, dtype, repeats

    def __call__(self, shape: tuple[int, ...], variants: Sequence[FusionVariant]) -> Sequence[CandidateTime]:
        """Time variants of one layer, the dense one first."""
        modules = [
            nn.Sequential(*(stage.spec.build(dtype=self._dtype) for stage in variant.stages))
            for variant in variants
        ]
        for module in modules:
            fill(module)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self._dtype)
        return time_candidates(modules, x, self._runtime, repeats=self._repeats)


def fill(module: nn.Module) -> None:
    """Random weights of a layer's usual size: zeros, denormals and infinities would take a time of their own."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            fan_in = max(1, p[0].numel()) if p.ndim > 1 else 1e4
            p.copy_(torch.randn(p.shape, generator=generator) / fan_in**0.5)

"""Times of layers as the planner sees them: what measures them is handed in, from a package below."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import torch
from torch import Tensor

from tuckertree.core.layers import LayerSpec, Method, Scaling
from tuckertree.planning.inventory import Layer


class Timer(Protocol):
    """Knows how long a layer takes on some runtime, in all its calls of one forward."""

    def seconds(self, layer: Layer, stages: Scaling | None, ranks: Tensor) -> Tensor:
        """Time of the layer as some stages.

        Parameters
        ----------
        stages
            What it is run as; None for the dense layer.
        ranks
            ``[n, k]``.

        Returns
        -------
        Tensor
            ``[n]``, float64.
        """
        ...


@dataclass(frozen=True)
class TimedForm:
    """A fusion variant of a method's chains: the cuts that stay, and its stages."""

    cuts: tuple[int, ...]
    stages: Scaling | None


DENSE_FORM = TimedForm((), None)


def form_cuts(cuts: Sequence[int]) -> list[tuple[int, ...]]:
    """Cuts that stay in each form of a chain but the dense one, the fewest layers first."""
    return [some for count in range(1, len(cuts) + 1) for some in combinations(cuts, count)]


def forms_of_methods(spec: LayerSpec, methods: Iterable[Method]) -> dict[str, list[TimedForm]]:
    """Forms in which each method's chains of a layer are looked at, by the method's name.

    A form belongs to the method of the fewest stages that has it: HT-2 run as 1x1, 3x3, 1x1 takes as long as
    Tucker-2 of the same ranks and loses more.
    """
    forms: dict[str, list[TimedForm]] = {}
    taken: set[object] = set()
    for method in sorted(methods, key=lambda method: len(method.cuts(spec))):
        every = [TimedForm(kept, method.scaling(spec, kept)) for kept in form_cuts(method.cuts(spec))]
        own = {form.stages.signature: form for form in every if form.stages}
        forms[method.name] = [form for signature, form in own.items() if signature not in taken]
        taken |= own.keys()
    return forms


def fastest_forms(
    timer: Timer, layer: Layer, ranks: Tensor, forms: Sequence[TimedForm]
) -> tuple[Tensor, Tensor]:
    """Seconds of each chain in the fastest of some forms ``[n]``, and the number of that form.

    Of equally fast forms the first counts.
    """
    times = [timer.seconds(layer, form.stages, ranks) for form in forms]
    seconds, number = torch.stack(times).min(0)
    return seconds, number


def rank_step(layer: Layer) -> int:
    """Multiple that ranks are rounded to where time counts: 16 from 64 channels on, 8 from 32, 4 below.

    Runtimes compute channels in blocks of the CPU's vectors (16 numbers of single precision with
    AVX-512, 8 with AVX2): what a rank lies above a multiple costs the whole block.
    """
    return channel_step(min(layer.spec.kernel_shape[:2]))


def channel_step(channels: int) -> int:
    """The same for one number of channels."""
    return 16 if channels >= 64 else 8 if channels >= 32 else 4

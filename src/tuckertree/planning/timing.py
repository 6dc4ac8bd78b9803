"""Times of layers as the planner sees them: what measures them is handed in, from a package below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Protocol

import torch
from torch import Tensor

from tuckertree.planning.inventory import Layer


class Timer(Protocol):
    """Knows how long a layer takes on some runtime, in all its calls of one forward."""

    def seconds(self, layer: Layer, cuts: tuple[int, ...], ranks: Tensor) -> Tensor:
        """Time of the layer as one plain layer for each block between its cuts.

        Parameters
        ----------
        cuts
            Bonds of the kernel's row of modes; none for the dense layer.
        ranks
            ``[n, cuts]``.

        Returns
        -------
        Tensor
            ``[n]``, float64.
        """
        ...


def form_cuts(cuts: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Cuts that stay in each form of a chain (:func:`~tuckertree.core.layers.fusion_variants`), the fewest layers first.

    The dense form is one only where nothing is cut.
    """
    return [some for count in range(1, len(cuts) + 1) for some in combinations(cuts, count)] or [()]


def forms_of_methods(methods: Mapping[str, tuple[int, ...]]) -> dict[str, list[tuple[int, ...]]]:
    """Forms in which each method's chains are looked at, given the cuts of all methods there are.

    A form belongs to the method of the fewest cuts that has it: HT-2 run as 1x1, 3x3, 1x1 takes as long as
    Tucker-2 of the same ranks and loses more.
    """
    forms: dict[str, list[tuple[int, ...]]] = {}
    for method in sorted(methods, key=lambda method: len(methods[method])):
        taken = {form for known in forms.values() for form in known}
        forms[method] = [form for form in form_cuts(methods[method]) if form not in taken]
    return forms


def fastest_forms(
    timer: Timer, layer: Layer, cuts: tuple[int, ...], ranks: Tensor, forms: Sequence[tuple[int, ...]]
) -> tuple[Tensor, Tensor]:
    """Seconds of each chain in the fastest of some forms ``[n]``, and the number of that form.

    Of equally fast forms the first counts.
    """
    times = [timer.seconds(layer, kept, ranks[:, [cuts.index(cut) for cut in kept]]) for kept in forms]
    seconds, number = torch.stack(times).min(0)
    return seconds, number


def rank_step(layer: Layer) -> int:
    """Multiple that ranks are rounded to where time counts: 16 from 64 channels on, 8 from 32, 4 below.

    Runtimes compute channels in blocks of the CPU's vectors (16 numbers of single precision with
    AVX-512, 8 with AVX2): what a rank lies above a multiple costs the whole block.
    """
    channels = min(layer.spec.kernel_shape[:2])
    return 16 if channels >= 64 else 8 if channels >= 32 else 4

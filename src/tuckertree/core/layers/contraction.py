"""Fusion variants of a chain, in which it can be run without changing its function: neighbouring stages merged.

The factors are one thing and the way they are run another. Four small layers have the fewest multiply-
accumulates, but each of them reads and writes its activations. Merging neighbours multiplies their cores out:
fewer layers, more multiply-accumulates, the same function. As each stage acts on axes of its own, any neighbours
can be merged, and a variant is a subset of the chain's cuts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import nn

from tuckertree.core.layers.chain import Chain, densify, take_over
from tuckertree.core.layers.spec import bias_of, weight_of
from tuckertree.core.layers.stages import Stage, chain_macs, chain_parameters, merged_stages


@dataclass(frozen=True)
class FusionVariant:
    """One way to run a factored layer.

    Attributes
    ----------
    cuts
        Those that stay; none for the dense layer.
    stages
        Structure of each layer; for the dense variant of the one layer.
    """

    cuts: tuple[int, ...]
    stages: tuple[Stage, ...]

    @property
    def is_dense(self) -> bool:
        """Whether everything is merged."""
        return not self.cuts

    @property
    def name(self) -> str:
        """The kernels in their order, ``1x1, 3x3, 1x1``, or ``dense``; for linear layers their number."""
        if self.is_dense:
            return "dense"
        if not self.stages[0].spec.order:
            return f"{len(self.stages)} linear"
        return ", ".join("x".join(map(str, stage.spec.kernel_size)) for stage in self.stages)

    @property
    def parameters(self) -> int:
        """Weights, biases not counted."""
        return chain_parameters(self.stages)

    def macs(self, size_in: Sequence[int], size_out: Sequence[int]) -> int:
        """Multiply-accumulates for one sample with the given spatial sizes.

        For a linear layer the sizes hold the number of positions it is applied to.
        """
        return chain_macs(self.stages, size_in, size_out)


def fusion_variants(stages: Sequence[Stage], cuts: Sequence[int]) -> tuple[FusionVariant, ...]:
    """List every fusion variant of a chain: ``2^n`` for the ``n`` cuts between its stages.

    For HT-2 of a two-dimensional convolution, cut at bonds 0, 1, 2 with ranks ``(R1, R13, R3)``:

    ===========  =======================  ==========================================
    cuts kept    layers                   merged
    ===========  =======================  ==========================================
    0, 1, 2      1x1, D1x1, 1xD2, 1x1     nothing
    1, 2         D1x1, 1xD2, 1x1          ``U1 G1``
    0, 1         1x1, D1x1, 1xD2          ``G2 U3``
    0, 2         1x1, D1xD2, 1x1          ``G1 G2``: the Tucker-2 form
    1            D1x1, 1xD2               ``U1 G1`` and ``G2 U3``: two layers
    0            1x1, D1xD2               ``G1 G2 U3``
    2            D1xD2, 1x1               ``U1 G1 G2``
    none         D1xD2                    everything: the dense layer
    ===========  =======================  ==========================================

    Returns
    -------
    tuple of FusionVariant
        The chain as it is first, then ever fewer layers; the dense variant is the last.
    """
    return tuple(
        FusionVariant(kept, merged_stages(stages, cuts, kept))
        for count in range(len(cuts), -1, -1)
        for kept in combinations(cuts, count)
    )


def contract_chain(chain: Chain, variant: FusionVariant) -> nn.Module:
    """Run a chain as another fusion variant: new modules with the same function up to rounding.

    The products of the cores are taken in float64 and kept in the chain's own type, on its device, in its
    memory format, training mode and ``requires_grad``. Nothing is shared with the chain.

    Parameters
    ----------
    variant
        One of :func:`fusion_variants` of this chain: a subset of its cuts.

    Returns
    -------
    torch.nn.Module
        A :class:`Chain`, or for the dense variant the layer that the chain stands for.

    Raises
    ------
    ValueError
        If the variant is not one of this chain.
    """
    if variant not in fusion_variants(chain.stages, chain.cuts):
        raise ValueError(
            f"a chain cut at {chain.cuts} with ranks {chain.ranks} has no variant {variant.name!r}"
        )
    if variant.is_dense:
        return densify(chain)
    weights = [weight_of(layer) for layer in chain]
    contracted = type(chain)(
        chain.dense, chain.method, chain.ranks, weights[0].device, weights[0].dtype, cuts=variant.cuts
    )
    with torch.no_grad():
        contracted.set_factors(chain.factors().to(torch.float64).merged(chain.cuts, variant.cuts))
    take_over(contracted, weights, bias_of(chain[-1]))
    return contracted.train(chain.training)

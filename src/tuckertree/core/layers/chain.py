"""A dense torch layer to its factored chain, and back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError
from tuckertree.core.decomposition import Factors, Spectra
from tuckertree.core.decomposition.matricization import kernel_from_row, modes_in_row
from tuckertree.core.layers.interface import LayerInterface
from tuckertree.core.layers.methods import get_method
from tuckertree.core.layers.spec import DENSE_TYPES, LayerSpec, bias_of, weight_of


class Chain(LayerInterface, nn.Sequential):
    """A factored layer: plain torch layers one after the other, under the names of its stages.

    For HT-2 of a two-dimensional convolution these are ``reduce`` (1x1), ``vertical`` (D1x1), ``horizontal``
    (1xD2) and ``expand`` (1x1, with the bias). Made by :func:`factorize`, or with uninitialised weights by
    :func:`empty_chain`. A chain that has been contracted keeps ``method`` and has fewer ``cuts`` than it
    (:func:`~tuckertree.core.layers.contract_chain`). What else is asked of it, as of the dense layer, is in
    :class:`~tuckertree.core.layers.interface.LayerInterface`.

    Attributes
    ----------
    dense
        Structure of the layer this stands for.
    method
        How it was factored.
    ranks
        Of the method: for a method that cuts bonds one for each.
    cuts
        Numbers of the places between the stages (:meth:`Method.cuts`), for most methods the bonds that are cut.
    stages
        Structure of each layer of the chain.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> tt.factorize(torch.nn.Conv2d(32, 64, 3, stride=2), "ht2", (8, 12, 10))
    Chain(
      (reduce): Conv2d(32, 8, kernel_size=(1, 1), stride=(1, 1), bias=False)
      (vertical): Conv2d(8, 12, kernel_size=(3, 1), stride=(2, 1), bias=False)
      (horizontal): Conv2d(12, 10, kernel_size=(1, 3), stride=(1, 2), bias=False)
      (expand): Conv2d(10, 64, kernel_size=(1, 1), stride=(1, 1))
    )
    """

    def __init__(
        self,
        dense: LayerSpec,
        method: str,
        ranks: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        *,
        cuts: Sequence[int] | None = None,
    ) -> None:
        how = get_method(method)
        self.ranks = how.checked_ranks(dense, ranks)
        self.cuts = how.cuts(dense) if cuts is None else tuple(cuts)
        stages = how.run_as(dense, self.ranks, cuts)
        super().__init__(OrderedDict((stage.name, stage.spec.build(device, dtype)) for stage in stages))
        self.method = method
        self.stand_for(dense, stages)

    def factors(self) -> Factors:
        """Read the factors off the weights, in the weights' own type.

        Raises
        ------
        TuckertreeError
            If a stage has become something else, as by quantization.
        """
        rows = []
        for name, layer in self.named_children():
            if not isinstance(layer, DENSE_TYPES):
                raise TuckertreeError(
                    f"the stage {name} of this chain is a {type(layer).__name__}, which has no factor"
                )
            weight = weight_of(layer)
            rows.append(modes_in_row(LayerSpec.of(layer).kernel(weight)))
        return Factors.of_rows(rows, [stage.spec.groups for stage in self.stages])

    @torch.no_grad()
    def set_factors(self, factors: Factors) -> None:
        """Copy factors of the same ranks into the weights, in the weights' own type.

        Raises
        ------
        TuckertreeError
            If they are not such as the stages take.
        """
        rows, taken = factors.rows(), [stage.spec.row_shape for stage in self.stages]
        if (given := [tuple(row.shape) for row in rows]) != taken:
            raise get_method(self.method).breach(
                f"the stages take factors {list(map(list, taken))}, not {list(map(list, given))}"
            )
        for layer, row in zip(self, rows, strict=True):
            weight_of(layer).copy_(LayerSpec.of(layer).weight(kernel_from_row(row)))

    def decompose(self, kernel: Tensor, spectra: Spectra | None = None) -> Factors:
        """Factors of another kernel by this chain's method and ranks, merged as its stages are."""
        how = get_method(self.method)
        every = how.cuts(self.dense)
        if self.cuts == every:
            return how.factors(kernel, self.ranks, spectra)
        return how.merged_factors(kernel, self.ranks, every, self.cuts)


class TransposedChain(Chain):
    """The chain of a transposed convolution, which may be asked for the size of its output."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._order = self.dense.order
        self._moves = [[axis in stage.axes for axis in range(self._order)] for stage in self.stages]

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: A002
        """Run the stages; ``output_size`` as in :class:`torch.nn.ConvTranspose2d`. TorchScript can read this."""
        for number, layer in enumerate(self):
            if output_size is not None and hasattr(
                layer, "_output_padding"
            ):  # transposed, so it moves over axes
                wanted = output_size[-self._order :]
                size = [
                    wanted[axis] if self._moves[number][axis] else input.shape[axis - self._order]
                    for axis in range(self._order)
                ]
                input = layer(input, output_size=size)  # noqa: A001
            else:
                input = layer(input)  # noqa: A001
        return input


def empty_chain(
    dense: LayerSpec,
    method: str,
    ranks: Sequence[int],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Chain:
    """Build the chain of a layer with uninitialised weights.

    Raises
    ------
    UsageError
        If the method does not exist for this layer or there is not one positive rank for each cut.
    """
    return (TransposedChain if dense.transposed else Chain)(dense, method, ranks, device, dtype)


def factorize(
    module: nn.Module,
    method: str,
    ranks: Sequence[int],
    *,
    spectra: Spectra | None = None,
    factors: Factors | None = None,
) -> Chain:
    """Factor a dense layer into its chain.

    The chain is on the layer's device, in its type, memory format, training mode and ``requires_grad``, and
    shares no memory with it. Nothing else is approximated: at full ranks it computes what the layer does.

    Parameters
    ----------
    module
        ``nn.Conv1d/2d/3d``, ``nn.ConvTranspose1d/2d/3d`` or ``nn.Linear``.
    method
        Its name: ``ht2``, ``tucker2``, ``spatial``, ``svd``, ``depthwise``, ``cp``, or another that is registered.
    ranks
        Of the method, one for each cut; for HT-2 of a two-dimensional convolution ``(R1, R13, R3)``.
    spectra
        Spectra of the layer's kernel at the method's cuts, if they are at hand.
    factors
        Factors of these ranks to put in the chain, instead of decomposing the weight.

    Raises
    ------
    TuckertreeError
        If the weight holds NaN or infinite values.
    UsageError
        If the method or the ranks do not fit the layer.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> layer = torch.nn.Conv2d(32, 64, 3, padding=1)
    >>> chain = tt.factorize(layer, "tucker2", (8, 10))
    >>> sum(p.numel() for p in layer.parameters()), sum(p.numel() for p in chain.parameters())
    (18496, 1680)
    >>> exact, x = tt.factorize(layer, "tucker2", (32, 64)), torch.randn(1, 32, 8, 8)
    >>> torch.allclose(exact(x), layer(x), atol=1e-5)  # at full ranks
    True
    """
    dense = LayerSpec.of(module)
    weight, bias = weight_of(module), bias_of(module)
    chain = empty_chain(dense, method, ranks, device=weight.device, dtype=weight.dtype)
    chain.set_factors(factors or chain.decompose(dense.kernel(weight), spectra))
    take_over(chain, [weight], bias)
    return chain.train(module.training)


def take_over(chain: Chain, weights: Sequence[Tensor], bias: Tensor | None) -> None:
    """Give a chain the bias of the layer or chain it is made from, its ``requires_grad`` and memory format."""
    _copy_bias(bias, chain[-1])
    for layer in chain:
        weight_of(layer).requires_grad_(weights[0].requires_grad)
    _keep_memory_format(chain, weights)


def _keep_memory_format(module: nn.Module, weights: Sequence[Tensor]) -> None:
    """Go over to channels-last where one of the weights is; a 1x1 kernel is in both formats."""
    channels_last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(weights[0].ndim)
    if channels_last and any(
        not weight.is_contiguous() and weight.is_contiguous(memory_format=channels_last) for weight in weights
    ):
        module.to(memory_format=channels_last)


def densify(chain: Chain) -> nn.Module:
    """Multiply a chain out into the dense layer it stands for: the inverse of :func:`factorize`.

    Exact up to rounding: the product is taken in float64 and returned in the chain's own type.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> chain = tt.factorize(torch.nn.Conv2d(32, 64, 3, padding=1), "svd", (16,))
    >>> layer, x = tt.densify(chain), torch.randn(1, 32, 8, 8)
    >>> layer, torch.allclose(layer(x), chain(x), atol=1e-5)
    (Conv2d(32, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)), True)
    """
    weights = [weight_of(layer) for layer in chain]
    first = weights[0]
    module = chain.dense.build(first.device, first.dtype)
    weight = weight_of(module)
    with torch.no_grad():
        weight.copy_(chain.dense.weight(chain.factors().to(torch.float64).kernel()))
    weight.requires_grad_(first.requires_grad)
    _copy_bias(bias_of(chain[-1]), module)
    _keep_memory_format(module, weights)
    return module.train(chain.training)


@torch.no_grad()
def _copy_bias(bias: Tensor | None, module: nn.Module) -> None:
    own = bias_of(module)
    if own is not None and bias is not None:
        own.copy_(bias)
        own.requires_grad_(bias.requires_grad)

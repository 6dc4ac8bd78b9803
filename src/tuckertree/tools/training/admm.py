r"""Training a dense network towards the ranks of a plan, before it is decomposed.

The problem ``min loss(W) subject to: W has the plan's ranks`` by the alternating direction method of
multipliers, in its scaled form (Boyd et al. 2011, section 3.1.1; for tensor formats Yin et al., arXiv
2107.12422):

    W <- steps of the optimiser on  loss(W) + rho/2 ||W - Z + U||^2
    Z <- truncation of W + U to the plan's ranks
    U <- U + W - Z

The weights stay dense; that they are near to the plan's ranks makes the decomposition lose little.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.core.layers import LayerSpec, get_method, weight_of
from tuckertree.network.surgery import is_compressed, layer_for
from tuckertree.planning import LayerPlan, Plan
from tuckertree.tools.settings import Settings


class Admm:
    """The low-rank copies ``Z`` of the planned layers' weights and the scaled multipliers ``U``.

    It starts with ``Z`` the truncation of the weights and ``U`` zero.

    Attributes
    ----------
    Z, U
        By layer name, in the shape and type of its weight.

    Raises
    ------
    UsageError
        If the network is compressed already, or the plan is of another network, compresses nothing, or has
        ranks that cannot be.
    TuckertreeError
        If a weight holds NaN or infinite values.
    """

    def __init__(self, network: nn.Module, plan: Plan, rho: float, every: int) -> None:
        if is_compressed(network):
            raise UsageError(
                "admm_rho trains a dense network towards a plan's ranks; this one is decomposed already"
            )
        if not plan.compressed:
            raise UsageError("the plan leaves all layers dense, so there are no ranks to train towards")
        self.rho, self.every = rho, every
        self._layers = [(_found(network, layer), layer) for layer in plan.compressed]
        self.Z = {layer.name: truncated(dense, layer) for dense, layer in self._layers}
        self.U = {name: torch.zeros_like(low_rank) for name, low_rank in self.Z.items()}

    def penalty(self) -> Tensor:
        """``rho/2 ||W - Z + U||^2``, summed over the layers; its gradient is ``rho (W - Z + U)``."""
        distances = [
            (weight_of(dense) - self.Z[layer.name] + self.U[layer.name]).square().sum()
            for dense, layer in self._layers
        ]
        return self.rho / 2 * torch.stack(distances).sum()

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Renew ``Z`` and ``U`` after every so many steps; ``step`` is counted over the whole run from 1."""
        # Weights that are not finite cannot be truncated; that the run diverged is found by its loss.
        if step % self.every or not all(bool(weight_of(dense).isfinite().all()) for dense, _ in self._layers):
            return
        for dense, layer in self._layers:
            weight, multiplier = weight_of(dense).detach(), self.U[layer.name]
            low_rank = truncated(dense, layer, multiplier)
            self.Z[layer.name] = low_rank
            self.U[layer.name] = multiplier + weight - low_rank

    @torch.no_grad()
    def truncation_error(self) -> float:
        """What truncating the weights now would lose: ``||W - truncation of W|| / ||W||`` over all layers."""
        lost, total = 0.0, 0.0
        for dense, layer in self._layers:
            weight = weight_of(dense)
            lost += float((weight - truncated(dense, layer)).double().square().sum())
            total += float(weight.double().square().sum())
        return (lost / total) ** 0.5 if total else 0.0

    def to(self, device: torch.device) -> None:
        """Copy ``Z`` and ``U`` to where the network is: no other process shares their memory then."""
        self.Z = {name: tensor.to(device, copy=True) for name, tensor in self.Z.items()}
        self.U = {name: tensor.to(device, copy=True) for name, tensor in self.U.items()}

    def to_data(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint keeps."""
        return {"Z": self.Z, "U": self.U}

    def from_data(self, data: Mapping[str, Any]) -> None:
        """Take up what a checkpoint kept."""
        self.Z, self.U = dict(data["Z"]), dict(data["U"])


@torch.no_grad()
def truncated(dense: nn.Module, layer: LayerPlan, offset: Tensor | None = None) -> Tensor:
    """A layer's weight, plus an offset, truncated to the method and ranks of its plan.

    Returns
    -------
    Tensor
        In the shape and type of the weight; its decomposition at these ranks is exact up to rounding.

    Raises
    ------
    UsageError
        If method or ranks do not fit the layer.
    TuckertreeError
        If the weight holds NaN or infinite values.
    """
    spec, weight = LayerSpec.of(dense), weight_of(dense)
    kernel = spec.kernel(weight if offset is None else weight + offset)
    try:
        factors = get_method(layer.method).factors(kernel, layer.ranks)
    except TuckertreeError as error:
        raise type(error)(f"{layer.name}: {error}") from error
    return spec.weight(factors.kernel()).to(weight.dtype)


def _found(network: nn.Module, layer: LayerPlan) -> nn.Module:
    try:
        return layer_for(network, layer)
    except TuckertreeError as error:
        raise UsageError(f"the plan does not fit the network: {error}") from error


def make_admm(network: nn.Module, plan: Plan | None, settings: Settings) -> Admm | None:
    """What the settings ask for: none without ``admm_rho``.

    Raises
    ------
    UsageError
        If one of ``plan`` and ``admm_rho`` is given without the other, or as :class:`Admm` says.
    """
    if settings.admm_rho is None:
        if plan is not None:
            raise UsageError("a plan is of use in training with admm_rho alone; give admm_rho, such as 1e-3")
        return None
    if plan is None:
        raise UsageError("admm_rho needs a plan, the ranks that the network is to be trained towards")
    return Admm(network, plan, settings.admm_rho, settings.admm_every)

"""The chains of a model with balanced factors, which are better to fine-tune."""

from __future__ import annotations

from torch import nn

from tuckertree.core.decomposition import balance
from tuckertree.core.layers import Chain, get_method
from tuckertree.measure import copy_model

__all__ = ["balance", "balance_in_place", "rebalance"]


def rebalance(model: nn.Module) -> nn.Module:
    """Copy a model with the factors of every chain balanced (:meth:`Method.balance`): the same function."""
    model = copy_model(model)
    for module in model.modules():
        if isinstance(module, Chain):
            balance_in_place(module)
    return model


def balance_in_place(chain: Chain) -> None:
    """Balance the factors of a chain."""
    chain.set_factors(get_method(chain.method).balance(chain.factors()))

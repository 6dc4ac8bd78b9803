"""The chains of a model with balanced factors, which are better to fine-tune."""

from __future__ import annotations

from torch import nn

from tuckertree.core.decomposition import balance
from tuckertree.core.layers import Chain, get_method
from tuckertree.measure import copy_model

__all__ = ["balance", "rebalance"]


def rebalance(model: nn.Module) -> nn.Module:
    """Copy a model with the factors of every chain balanced (:meth:`Method.balance`): the same function."""
    model = copy_model(model)
    for module in model.modules():
        if isinstance(module, Chain):
            module.set_factors(get_method(module.method).balance(module.factors()))
    return model

"""Which parameters of a model its user has frozen."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def may_change(model: nn.Module) -> Callable[[object], bool]:
    """What tells a parameter that may change from one that is frozen, or is none.

    It takes a gradient, or none of the model's does: a network made ready for inference says nothing about single layers.
    """
    trained = any(parameter.requires_grad for parameter in model.parameters())
    return lambda parameter: isinstance(parameter, Tensor) and (parameter.requires_grad or not trained)

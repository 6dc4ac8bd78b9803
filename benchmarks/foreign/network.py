"""What a network of others is: how it is built, and what it is called with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

BATCH = 2
SHARE = 0.6
"""Budget of multiply-accumulates, where it can be reached."""
Inputs = Any
"""As :data:`tuckertree.measure.ExampleInputs`."""


@dataclass(frozen=True)
class Network:
    """A network of others.

    Attributes
    ----------
    make
        Builds it, with random weights.
    sample
        Draws one batch of inputs.
    macs
        Share of the multiply-accumulates that it is to be compressed to.
    targets
        What its training mode takes beside the inputs, for those that give their losses themselves.
    """

    make: Callable[[], nn.Module]
    sample: Callable[[], Inputs]
    macs: float = SHARE
    targets: Callable[[], Any] | None = None

    def build(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return self.make()

    def inputs(self, seed: int) -> Inputs:
        torch.manual_seed(seed)
        return self.sample()


def of(module: str, name: str, *args: Any, **options: Any) -> Callable[[], Any]:
    """A function that calls ``module.name``, imported when it is called."""
    return lambda: getattr(import_module(module), name)(*args, **options)


def noise(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(BATCH, *shape)


def image(size: int, channels: int = 3) -> Callable[[], Tensor]:
    return noise(channels, size, size)

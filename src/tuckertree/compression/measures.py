"""What is measured of a compression: the time of its phases, and the true errors of the weights."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
from torch import nn

from tuckertree._base.progress import parallel_map
from tuckertree.core.layers import Chain, LayerSpec, weight_of
from tuckertree.planning import Layer, peculiarity


class Stopwatch:
    """Seconds of each phase of a compression."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """End a phase, or one more turn of it."""
        now = time.perf_counter()
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + now - self._last, 4)
        self._last = now


def measure_errors(
    model: nn.Module, compressed: nn.Module, layers: Iterable[Layer]
) -> tuple[dict[str, float], float]:
    """True relative errors of the weights of chains, by layer, and of all layers' weights together."""

    def work(layer: Layer) -> tuple[float | None, float]:
        if peculiarity(model.get_submodule(layer.name)):
            return None, 0.0  # no tensor of numbers: it stays as it is, and has no norm here
        weight = weight_of(model.get_submodule(layer.name)).detach()
        chain = compressed.get_submodule(layer.name)
        if not isinstance(chain, Chain) and weight_of(chain).shape != weight.shape:
            return None, 0.0  # it has other channels
        norm = float(torch.linalg.vector_norm(weight.to(torch.promote_types(weight.dtype, torch.float32))))
        if not isinstance(chain, Chain):
            return None, norm
        return chain.factors().relative_error(LayerSpec.kernel(chain.dense, weight)), norm

    layers = list(layers)
    measured = parallel_map(work, layers)
    errors = {layer.name: e for layer, (e, _) in zip(layers, measured, strict=True) if e is not None}
    total = sum(norm**2 for _, norm in measured)
    lost = sum((e or 0) ** 2 * norm**2 for e, norm in measured)
    return errors, (lost / total) ** 0.5 if total else 0.0

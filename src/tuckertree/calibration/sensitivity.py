"""Measured sensitivity: how much the network's output changes when one layer alone is compressed.

A few candidates of each layer are tried in the network, on a few images; between them the change is
interpolated over the candidates' errors. Nothing is assumed about the network, and it takes a forward pass for each
try.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import isfinite

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError
from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree.calibration.distances import IncomparableError, output_distances
from tuckertree.calibration.fit import decompose_weighted
from tuckertree.calibration.metrics import KroneckerMetric
from tuckertree.calibration.sources import Calibration, CalibrationData
from tuckertree.core.layers import Chain, LayerSpec, factorize, get_method, weight_of
from tuckertree.network.surgery import replace_layers
from tuckertree.planning import DENSE, Candidates, Layer

ERRORS = (0.05, 0.25)
"""Squared relative errors of the candidates that are tried, as near as a layer has them."""
IMAGES = 64


def measure_sensitivity(
    model: nn.Module,
    layers: Sequence[Layer],
    candidates: Mapping[str, Candidates],
    metrics: Mapping[str, KroneckerMetric],
    images: CalibrationData | Calibration,
    *,
    errors: Sequence[float] = ERRORS,
    count: int = IMAGES,
    tick: ProgressCallback = no_progress,
) -> dict[str, Candidates]:
    """Candidates whose loss is the squared relative change of the network's output, measured.

    Parameters
    ----------
    model, layers
        The dense model, which is not changed, and the layers to try.
    candidates, metrics
        Of these layers, by name; the candidates' errors are those in the metrics, of inputs alone.
    images
        Without labels; the first ``count`` are looked at.
    errors
        Squared relative errors to try in each layer.

    Raises
    ------
    TuckertreeError
        If the images cannot be used, or the sizes of the outputs depend on values.
    """
    images = Calibration(images)
    images = Calibration(list(images.part(0, count)), example=images.example)
    found = {}
    for done, layer in enumerate(layers):
        own = candidates[layer.name]
        curve = [(0.0, 0.0)]
        for pick in picks_near(own, errors):
            chain = whitened_chain(model, layer, own.methods[pick], own.ranks[pick], metrics[layer.name])
            tried = replace_layers(model, {layer.name: chain})
            try:
                (change,) = output_distances(model, (tried,), images)
            except IncomparableError as error:
                raise TuckertreeError(
                    f"{error}, so the sensitivity to a layer has no measure; use the objective moments"
                ) from error
            if isfinite(change):
                curve.append((float(own.error[pick]), change**2))
        found[layer.name] = own.measured(partial(interpolated, curve=curve))
        tick("sensitivity", done + 1, len(layers))
    return found


def picks_near(candidates: Candidates, errors: Sequence[float]) -> list[int]:
    """Candidates nearest to the given errors, by rising error, each error once and never 0."""
    picks: dict[float, int] = {}
    for wanted in errors:
        able = [
            i for i, method in enumerate(candidates.methods) if method != DENSE and candidates.error[i] > 0
        ]
        if able:
            nearest = min(able, key=lambda i: abs(float(candidates.error[i]) - wanted))
            picks[float(candidates.error[nearest])] = nearest
    return [picks[error] for error in sorted(picks)]


def whitened_chain(
    model: nn.Module, layer: Layer, method: str, ranks: Sequence[int], metric: KroneckerMetric
) -> Chain:
    """A layer's chain, decomposed in the metric of its inputs."""
    module = model.get_submodule(layer.name)
    kernel = LayerSpec.of(module).kernel(weight_of(module).detach())
    root = metric.roots[1]
    assert root is not None
    factors = decompose_weighted(kernel, get_method(method), ranks, root, torch.linalg.inv(root))
    return factorize(module, method, ranks, factors=factors)


def interpolated(error: Tensor, curve: Sequence[tuple[float, float]]) -> Tensor:
    """Piecewise linear through the points, which are made to rise; beyond the last as steep as up to it."""
    x = torch.tensor([point[0] for point in curve], dtype=torch.float64)
    y = torch.tensor([point[1] for point in curve], dtype=torch.float64).cummax(0).values
    if len(curve) == 1:
        return error.to(torch.float64)
    x = torch.cat([x, (10 * x[-1:]).clamp_min(10)])
    y = torch.cat([y, y[-1:] * x[-1] / x[-2]])
    place = torch.searchsorted(x, error.to(torch.float64).contiguous(), right=True).clamp(1, len(x) - 1)
    share = (error - x[place - 1]) / (x[place] - x[place - 1])
    return y[place - 1] + share * (y[place] - y[place - 1])

"""sensitivity(): what each layer of a network alone costs, to look at before a budget is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from torch import nn

from tuckertree._base.errors import UsageError
from tuckertree._base.progress import progress_bar
from tuckertree.calibration import CalibrationData, collect_metrics
from tuckertree.compression.layerwise import Sensitivity, measure_each_layer
from tuckertree.compression.network import Network
from tuckertree.compression.networks import network_of
from tuckertree.core.layers import METHODS
from tuckertree.measure import ExampleInputs
from tuckertree.planning import DENSE, Options, survey_candidates
from tuckertree.planning.options import Choice


def sensitivity(
    model: nn.Module | str | Path | Network,
    example_inputs: ExampleInputs | None = None,
    *,
    calibration: CalibrationData,
    factor: float = 2.0,
    include: str | Sequence[str] | Choice = ("*",),
    exclude: str | Sequence[str] | Choice = (),
    methods: Sequence[str] = METHODS,
    progress: bool | None = None,
) -> Sensitivity:
    """Measure what each layer alone costs: it is compressed, the others stay, and the outputs are compared.

    A layer is decomposed in the metric of its inputs, as the objective ``sensitivity`` does, and not fitted; so what
    the whole network loses after calibration is less than these together. It takes a pass over the images for each layer.

    Parameters
    ----------
    model, example_inputs, include, exclude, methods, progress
        As of :func:`tuckertree.compress`.
    calibration
        Unlabelled images, all of which are looked at: a hundred or two.
    factor
        How many times fewer MACs each layer is given.

    Returns
    -------
    Sensitivity
        Relative distances of the network's outputs, and of classifiers shares of equal answers.

    Raises
    ------
    UsageError
        If the factor is not above 1, or a name fits no layer.
    TuckertreeError
        If the model or the images cannot be used, or the outputs cannot be compared.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> from tuckertree.tools.data import open_calibration
    >>> from tuckertree.tools.models import resolve
    >>> images = open_calibration("demo", resolve("demo").preprocessing, limit=32)
    >>> found = tt.sensitivity(tt.build("demo"), torch.zeros(1, 3, 32, 32), calibration=images, include="layer1.*")
    >>> tried = [layer for layer in found.layers if layer.method != "dense"]
    >>> len(tried), all(0 < layer.distance < 1 and 0 <= layer.agreement <= 1 for layer in tried)
    (6, True)
    """
    if (
        isinstance(factor, bool)
        or not isinstance(factor, int | float)
        or not factor > 1
        or not isfinite(factor)
    ):
        raise UsageError(f"a layer is given fewer MACs by a factor above 1, not {factor!r}")
    network = network_of(model, example_inputs)
    images = network.images(calibration)
    include = (include,) if isinstance(include, str) else include
    exclude = (exclude,) if isinstance(exclude, str) else exclude
    with progress_bar(progress) as tick, network.opened(images):
        inventory = network.inventory()
        options = Options(include, exclude, methods=methods).among(inventory.layers)
        inventory = network.probed(inventory, options)
        network.check_images(images)
        chosen = {layer.name: options.method(layer) for layer in inventory.layers}
        layers = [layer for layer in inventory.layers if chosen[layer.name][0] != DENSE]
        metrics = collect_metrics(network.module, layers, images, gradients=False, tick=tick)
        candidates = survey_candidates(
            network.module,
            inventory,
            options,
            metric=lambda layer, kernel: metrics[layer.name].of(kernel),
            tick=tick,
        )
        network.settle()
        reasons = {name: reason for name, (method, reason) in chosen.items() if method == DENSE}
        return measure_each_layer(
            network.module, inventory, candidates, metrics, images, reasons, factor=float(factor), tick=tick
        )

"""How many images run together: as many as the allocator keeps the memory for, where each stands for itself."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError
from tuckertree.calibration.batches import batch_size, narrow
from tuckertree.calibration.sources import Calibration, floating_outputs, to_model
from tuckertree.measure import run
from tuckertree.planning import Layer

_KEPT = 2**25
"""More bytes at a time go back to the system when they are freed, which clears them for the next layer: two thirds
of the time of EfficientNet-B0 in batches of 64."""
_ROUNDING = 1e-3


def images_at_once(model: nn.Module, layers: Sequence[Layer], images: Calibration) -> int | None:
    """How many images may run together so that no layer's input or output is of more than :data:`_KEPT` bytes.

    None, that is batches as they are, where the model gives something else for an image alone than in a batch.

    Raises
    ------
    TuckertreeError
        If the images cannot be used.
    """
    first = next(iter(images))

    def outputs(count: int) -> list[Tensor]:
        inputs = to_model(narrow(first, 0, count), model)
        return [
            y[:1].float() for y in floating_outputs(run(model, inputs, "the calibration images")) if y.ndim
        ]

    try:
        alone, together = outputs(1), outputs(min(2, batch_size(first)))
    except TuckertreeError:
        return None
    if [y.shape for y in alone] != [y.shape for y in together]:
        return None
    if any((x - y).norm() > _ROUNDING * y.norm() for x, y in zip(alone, together, strict=True)):
        return None
    numbers = [
        max(layer.spec.in_channels * prod(use.size_in), layer.spec.out_channels * prod(use.size_out))
        for layer in layers
        for use in layer.calls
    ]
    return max(1, _KEPT // (4 * max(numbers, default=1)))

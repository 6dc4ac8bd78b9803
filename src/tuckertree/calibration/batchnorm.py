"""BatchNorm statistics taken anew from the compressed network, where that helps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tuckertree.calibration.sources import Calibration, Source, batch_size, floating_outputs, to_model
from tuckertree.errors import TuckertreeError
from tuckertree.measure import ExampleInputs, call, copy_model, evaluating, run

HELD_OUT = 0.25


def reestimate(
    model: nn.Module, images: Source | Calibration, *, start: int = 0, stop: int | None = None
) -> nn.Module:
    """Copy a model with its BatchNorm statistics reset and averaged over images ``start`` to ``stop - 1``.

    The average is cumulative, every batch counting the same, but those of less than half the size of the largest
    are left out; all else runs in evaluation mode.

    Raises
    ------
    TuckertreeError
        If there are no images or the model does not run on them.
    """
    images = Calibration(images)
    model = copy_model(model)
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    momenta = [norm.momentum for norm in norms]
    with evaluating(model):
        for norm in norms:
            norm.momentum, norm.training = None, True
        largest = 0
        for inputs in images.part(start, len(images) if stop is None else stop):
            size = batch_size(inputs)
            if 2 * size < largest:
                continue
            if size > 2 * largest:  # the first, or those before are too small to count
                for norm in norms:
                    norm.reset_running_stats()
            largest = max(largest, size)
            call(model, to_model(inputs, model), "the calibration images")
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum, norm.training = momentum, False
    if not largest:
        raise TuckertreeError("there are no calibration images to estimate BatchNorm statistics from")
    return model


def reestimate_if_better(
    model: nn.Module, reference: nn.Module, images: Source | Calibration, *, held_out: float = HELD_OUT
) -> nn.Module:
    """Re-estimate BatchNorm where that brings the outputs nearer to the original network's.

    Parameters
    ----------
    model
        The compressed network; it is not changed.
    reference
        The original network.
    images
        Calibration images.
    held_out
        Share of them, the last ones, that is kept for the comparison.

    Returns
    -------
    torch.nn.Module
        A copy with new statistics, or the model itself, if it has none, or they would not help or cannot be had:
        a single value for each channel has no variance.
    """
    if not any(isinstance(m, _BatchNorm) and m.running_mean is not None for m in model.modules()):
        return model
    images = Calibration(images)
    split = len(images) - max(1, round(held_out * len(images)))
    if not split:
        return model
    try:
        candidate = reestimate(model, images, stop=split)
    except TuckertreeError as error:
        if "more than 1 value per channel" in str(error):  # torch's words
            return model
        raise
    before, after = output_distances(reference, (model, candidate), images, start=split)
    return candidate if after < before else model


def output_distances(
    reference: nn.Module, models: tuple[nn.Module, ...], images: Source | Calibration, *, start: int = 0
) -> list[float]:
    """Relative distance of each model's outputs from the reference's on the images from ``start`` on."""
    images = Calibration(images)
    lost, whole = [0.0] * len(models), 0.0
    for inputs in images.part(start, len(images)):
        wanted = _outputs(reference, inputs)
        whole += sum(float((y * y).sum()) for y in wanted)
        for i, model in enumerate(models):
            pairs = zip(_outputs(model, inputs), wanted, strict=True)
            lost[i] += sum(float(((y - z) ** 2).sum()) for y, z in pairs)
    return [(value / whole) ** 0.5 if whole else value for value in lost]


def _outputs(model: nn.Module, inputs: ExampleInputs) -> list[Tensor]:
    outputs = floating_outputs(run(model, to_model(inputs, model), "the calibration images"))
    return [output.to(torch.float32) for output in outputs]

"""BatchNorm statistics taken anew from the compressed network, where that helps."""

from __future__ import annotations

from collections.abc import Collection
from math import isqrt
from warnings import warn

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tuckertree._base.errors import TuckertreeError
from tuckertree.calibration.batches import batch_size
from tuckertree.calibration.distances import Comparison
from tuckertree.calibration.sources import Calibration, CalibrationData, CalibrationWarning, to_model
from tuckertree.measure import call, copy_model, evaluating


def held_out(images: int) -> int:
    """Number of the first of the last images, which are kept for comparisons: the root of their number.

    It is enough to see where networks part, and every image that is held out is one less to fit to: for ResNet-20 a
    fifth of 1,024 cost a point.
    """
    return images - isqrt(images)


def reestimate(
    model: nn.Module,
    images: CalibrationData | Calibration,
    *,
    start: int = 0,
    stop: int | None = None,
    only: Collection[str] | None = None,
) -> nn.Module:
    """Copy a model with its BatchNorm statistics reset and averaged over images ``start`` to ``stop - 1``.

    The average is cumulative, every batch counting the same, but those of less than half the size of the largest
    are left out; all else runs in evaluation mode. ``only`` names the BatchNorms whose statistics may change.

    Raises
    ------
    TuckertreeError
        If there are no images or the model does not run on them.
    """
    images = Calibration(images)
    model = copy_model(model)
    norms = _norms(model, only)
    momenta = [norm.momentum for norm in norms]
    with evaluating(model, as_written=True):
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
    model: nn.Module, comparison: Comparison, *, only: Collection[str] | None = None
) -> nn.Module:
    """Re-estimate BatchNorm where that brings the outputs nearer to the original network's.

    Parameters
    ----------
    model
        The compressed network; it is not changed.
    comparison
        With the original network, whose ``cut`` (:func:`held_out`) leaves images for the comparison.
    only
        Names of the BatchNorms whose statistics may change; by default all.

    Returns
    -------
    torch.nn.Module
        A copy with new statistics, or the model itself, if it has none, or they would not help or cannot be had:
        a single value for each channel has no variance.

    Warns
    -----
    CalibrationWarning
        If the model does not run with its norms in training mode, or its outputs cannot be compared.
    """
    if not _norms(model, only):
        return model
    if not comparison.cut:
        return model
    try:
        candidate = reestimate(model, comparison.images, stop=comparison.cut, only=only)
        before, after = comparison.distances((model, candidate), start=comparison.cut)
    except TuckertreeError as error:
        if "more than 1 value per channel" not in str(error):  # torch's words
            warn(f"BatchNorm statistics are not taken anew: {error}", CalibrationWarning, stacklevel=3)
        return model
    return candidate if after < before else model


def _norms(model: nn.Module, only: Collection[str] | None) -> list[_BatchNorm]:
    """The BatchNorms that have statistics of their own."""
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        and module.running_mean is not None
        and (only is None or name in only)
    ]

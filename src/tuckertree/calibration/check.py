"""Whether calibration images are such as the network was trained on, before minutes are spent on them."""

from __future__ import annotations

from contextlib import suppress
from warnings import warn

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tuckertree._base.errors import TuckertreeError
from tuckertree.calibration.moments import EnoughError
from tuckertree.calibration.sources import Calibration, CalibrationWarning, to_model
from tuckertree.core.layers import DENSE_TYPES
from tuckertree.core.layers.product import is_transformed
from tuckertree.measure import ExampleInputs, run, watch_input
from tuckertree.measure.forward import describe
from tuckertree.planning import peculiarity

_IMAGES = 32
_FAR = 3.0
_VARIANCE = 25.0


@torch.no_grad()
def check_images(model: nn.Module, images: Calibration, example_inputs: ExampleInputs) -> None:
    """Refuse images of another size or kind than the example input; warn of another range.

    The range is judged by the first BatchNorm of the model, which knows what its input looked like in training.

    Raises
    ------
    TuckertreeError
        If a weight of the model is not finite; if the images have another shape than the example, are integers
        where it is not, hold NaN, or the model does not run on them.

    Warns
    -----
    CalibrationWarning
        If the first BatchNorm sees a mean more than three standard deviations off, or 25 times the variance.
    """
    for name, module in model.named_modules():
        if isinstance(module, DENSE_TYPES) and not peculiarity(module):
            for what, values in (("kernel", module.weight), ("bias", module.bias)):
                if isinstance(values, Tensor) and not values.isfinite().all():
                    raise TuckertreeError(f"{name}: the {what} holds NaN or infinite values")
    first = next(iter(images.part(0, _IMAGES)))
    if isinstance(first, Tensor) and isinstance(example_inputs, Tensor):
        if first.shape[1:] != example_inputs.shape[1:]:
            raise TuckertreeError(
                f"the calibration images are {describe(first[:1])}, the example input is {describe(example_inputs)}"
            )
        if first.is_floating_point() != example_inputs.is_floating_point():
            raise TuckertreeError(
                f"the calibration images are {describe(first[:1])}; normalise them as the model's training did"
            )
        if first.is_floating_point() and not first.isfinite().all():
            raise TuckertreeError("the calibration images hold NaN or infinite values")
    norm = next(
        (m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None), None
    )
    if norm is not None and _looks_foreign(model, norm, to_model(first, model)):
        warn(
            "the calibration images do not look like what the model was trained on (its first BatchNorm says so); "
            "check their normalisation and range",
            CalibrationWarning,
            stacklevel=3,
        )


def _looks_foreign(model: nn.Module, norm: _BatchNorm, inputs: ExampleInputs) -> bool:
    seen: list[Tensor] = []

    def keep(x: Tensor) -> None:
        if not is_transformed():
            seen.append(x.detach().transpose(0, 1).flatten(1).to(torch.float64))
            raise EnoughError

    handle = watch_input(norm, keep)
    try:
        with suppress(EnoughError):
            run(model, inputs, "the calibration images")
    finally:
        handle.remove()
    if not seen:
        return False
    mean, variance = (norm.get_buffer(name).double() for name in ("running_mean", "running_var"))
    scale = variance.clamp_min(norm.eps)
    distance = (seen[0].mean(1) - mean).abs() / scale.sqrt()
    ratio = seen[0].var(1, correction=0) / scale
    return bool(distance.median() > _FAR or ratio.median() > _VARIANCE)

"""How far networks' outputs are from the original's."""

from __future__ import annotations

from math import inf, isfinite
from warnings import warn

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError
from tuckertree.calibration.metrics import units_of
from tuckertree.calibration.sources import (
    Calibration,
    CalibrationData,
    CalibrationWarning,
    floating_outputs,
    to_model,
)
from tuckertree.measure import ExampleInputs, run

NO_NEARER = "fitting does not bring the outputs nearer to the original's"
_ROUNDING = 1e-5


class IncomparableError(TuckertreeError):
    """Outputs are whole numbers, or have other sizes in another network, as the boxes of a detector may."""


def output_distances(
    reference: nn.Module,
    models: tuple[nn.Module, ...],
    images: CalibrationData | Calibration,
    *,
    start: int = 0,
    in_units: bool = False,
) -> list[float]:
    """Relative distance of each model's outputs from the reference's on the images from ``start`` on.

    ``in_units``, boxes and scores in one output count alike (:func:`~tuckertree.calibration.metrics.units_of`).
    What is not finite in the reference does not count; what is so only in a model makes its distance infinite.

    Raises
    ------
    IncomparableError
        If outputs differ in number or size, or none is of floating-point numbers.
    """
    images = Calibration(images)
    lost, whole = [0.0] * len(models), 0.0
    for inputs in images.part(start, len(images)):
        wanted = _outputs(reference, inputs)
        if not wanted:
            raise IncomparableError("no output is of floating-point numbers")
        usual = [y.where(y.isfinite(), 0.0) for y in wanted]
        units = [units_of(y) if in_units else y.new_ones(()) for y in usual]
        whole += sum(float((y * unit).square().sum()) for y, unit in zip(usual, units, strict=True))
        for i, model in enumerate(models):
            found = _outputs(model, inputs)
            if [y.shape for y in found] != [y.shape for y in wanted]:
                raise IncomparableError("the sizes of the outputs depend on their values")
            lost[i] += sum(
                float(((y - z) * unit)[y.isfinite()].square().sum())
                for y, z, unit in zip(wanted, found, units, strict=True)
            )
    distances = [(value / whole) ** 0.5 if whole else value for value in lost]
    return [value if isfinite(value) else inf for value in distances]


def nearer(model: nn.Module, plain: nn.Module, fitted: nn.Module, images: Calibration) -> nn.Module:
    """Of two networks the one whose outputs are nearer to the original's; the fitted one if that cannot be seen.

    Warns
    -----
    CalibrationWarning
        If that is the plain one, by more than rounding.
    """
    try:
        before, after = output_distances(model, (plain, fitted), images)
    except IncomparableError:
        return fitted
    if after <= before:
        return fitted
    if after > before + _ROUNDING:
        warn(f"{NO_NEARER}: left as decomposed", CalibrationWarning, stacklevel=3)
    return plain


def _outputs(model: nn.Module, inputs: ExampleInputs) -> list[Tensor]:
    outputs = floating_outputs(run(model, to_model(inputs, model), "the calibration images"))
    return [output.to(torch.float32) for output in outputs]

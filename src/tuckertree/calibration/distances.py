"""How far networks' outputs are from the original's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
    for norm, errors in squared_errors(reference, models, images.part(start, len(images)), in_units=in_units):
        whole += norm
        lost = [total + error for total, error in zip(lost, errors, strict=True)]
    distances = [(value / whole) ** 0.5 if whole else value for value in lost]
    return [value if isfinite(value) else inf for value in distances]


def squared_errors(
    reference: nn.Module,
    models: tuple[nn.Module, ...],
    batches: Iterable[ExampleInputs],
    *,
    in_units: bool = False,
) -> Iterator[tuple[float, list[float]]]:
    """For each batch the squared norm of the reference's outputs, and the squared error of each model's.

    Units, what is not finite, and errors raised as of :func:`output_distances`.
    """
    for wanted, found in compared_outputs(reference, models, batches):
        yield squared_error(wanted, found, in_units=in_units)


def compared_outputs(
    reference: nn.Module, models: tuple[nn.Module, ...], batches: Iterable[ExampleInputs]
) -> Iterator[tuple[list[Tensor], list[list[Tensor]]]]:
    """For each batch the floating-point outputs of the reference, and those of each model, of the same sizes.

    Raises
    ------
    IncomparableError
        As :func:`output_distances`.
    """
    for inputs in batches:
        wanted = float_outputs(reference, inputs)
        if not wanted:
            raise IncomparableError("no output is of floating-point numbers")
        found = [float_outputs(model, inputs) for model in models]
        if any([y.shape for y in each] != [y.shape for y in wanted] for each in found):
            raise IncomparableError("the sizes of the outputs depend on their values")
        yield wanted, found


def squared_error(
    wanted: list[Tensor], found: list[list[Tensor]], *, in_units: bool = False
) -> tuple[float, list[float]]:
    """Squared norm of a batch's outputs, and the squared error of each model's; as :func:`squared_errors`."""
    usual = [y.where(y.isfinite(), 0.0) for y in wanted]
    units = [units_of(y) if in_units else y.new_ones(()) for y in usual]
    norm = sum(float((y * unit).square().sum()) for y, unit in zip(usual, units, strict=True))
    return norm, [
        sum(
            float(((y - z) * unit)[y.isfinite()].square().sum())
            for y, z, unit in zip(wanted, each, units, strict=True)
        )
        for each in found
    ]


def answers_of(outputs: Sequence[Tensor]) -> Tensor | None:
    """The classes that logits ``[images, classes]`` say, -1 where they hold NaN; None of what is no classifier's."""
    if not outputs or outputs[0].ndim != 2 or outputs[0].shape[1] < 2:
        return None
    logits = outputs[0]
    best = torch.where(logits.isnan().any(1), -1, logits.argmax(1))
    return best.cpu()


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


def float_outputs(
    model: nn.Module, inputs: ExampleInputs, what: str = "the calibration images"
) -> list[Tensor]:
    """All floating-point outputs of a model on a batch, in float32; ``what`` the batch is of is for messages."""
    outputs = floating_outputs(run(model, to_model(inputs, model), what))
    return [output.to(torch.float32) for output in outputs]

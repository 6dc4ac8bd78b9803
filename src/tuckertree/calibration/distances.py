"""How far networks' outputs are from the original's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from math import inf, isfinite
from warnings import warn

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError
from tuckertree.calibration.sources import (
    Calibration,
    CalibrationData,
    CalibrationWarning,
    Part,
    floating_outputs,
    to_model,
)
from tuckertree.calibration.units import as_it_is, units_of
from tuckertree.measure import ExampleInputs, run

NO_NEARER = "fitting does not bring the outputs nearer to the original's"
_ROUNDING = 1e-5


class IncomparableError(TuckertreeError):
    """Outputs are whole numbers, or have other sizes in another network, as the boxes of a detector may."""


def output_distances(
    reference: nn.Module,
    models: Sequence[nn.Module],
    images: CalibrationData | Calibration,
    *,
    start: int = 0,
    in_units: bool = False,
) -> list[float]:
    """Relative distance of each model's outputs from the reference's on the images from ``start`` on.

    ``in_units``, boxes and scores in one output count alike (:func:`~tuckertree.calibration.units.units_of`).
    What is not finite in the reference does not count; what is so only in a model makes its distance infinite.

    Raises
    ------
    IncomparableError
        If outputs differ in number or size, or none is of floating-point numbers.
    """
    return Comparison(reference, images, in_units=in_units).distances(models, start=start)


class Comparison:
    """Networks compared with a reference on images; none runs twice on the same ones.

    Parameters
    ----------
    reference, images, in_units
        As of :func:`output_distances`.
    at_once
        So many images run at a time; by default batches as they are.
    cut
        Images from this one on may be compared alone, and nothing is fitted to them.
    folds
        Into so many, equally large, those before it, or all, are dealt out in their order.
    """

    def __init__(
        self,
        reference: nn.Module,
        images: CalibrationData | Calibration,
        *,
        at_once: int | None = None,
        cut: int = 0,
        folds: int = 1,
        in_units: bool = False,
    ) -> None:
        self.reference, self.images, self.cut = reference, Calibration(images), cut
        self._at_once, self._in_units, self._folds = at_once, in_units, folds
        self._wanted: dict[tuple[int, int], list[Tensor]] = {}
        self._squares: dict[tuple[nn.Module, tuple[int, int]], tuple[float, float]] = {}

    def parts(self, start: int = 0) -> Iterator[Part]:
        """The images from one on, as networks run on them."""
        last = self._fitted
        cuts = [*(last * fold // self._folds for fold in range(1, self._folds)), last]
        return self.images.parts(self._at_once, start=start, cuts=cuts)

    def fitted_parts(self) -> Iterator[tuple[int, Part]]:
        """Those that are fitted to, and their folds."""
        for part in self.parts():
            if (fold := self.fold_of(part)) is not None:
                yield fold, part

    def fold_of(self, part: Part) -> int | None:
        """Number of the fold that a part is in; none of one that is held out."""
        last = self._fitted
        return (part.place[0] * self._folds + self._folds - 1) // last if part.place[0] < last else None

    @property
    def _fitted(self) -> int:
        return self.cut or len(self.images)

    def note(
        self, place: tuple[int, int], wanted: list[Tensor], model: nn.Module, found: list[Tensor]
    ) -> None:
        """Take outputs of the reference and of a model on a part that need not be computed again."""
        self._wanted[place] = wanted
        with suppress(IncomparableError):  # it is raised again where the distance is asked for
            self._squares[model, place] = self._compare(wanted, found)

    def distances(
        self, models: Sequence[nn.Module], *, start: int = 0, stop: int | None = None
    ) -> list[float]:
        """As :func:`output_distances`, and to the image ``stop - 1``."""
        lost, whole = [0.0] * len(models), 0.0
        for inputs, place, _ in self.parts(start):
            if stop is not None and place[0] >= stop:
                break
            new = [model for model in models if (model, place) not in self._squares]
            wanted = self._wanted.get(place) or float_outputs(self.reference, inputs) if new else []
            for model in new:
                self._squares[model, place] = self._compare(wanted, float_outputs(model, inputs))
            squares = [self._squares[model, place] for model in models]
            lost = [total + square for total, (square, _) in zip(lost, squares, strict=True)]
            whole += squares[0][1]
        distances = [(value / whole) ** 0.5 if whole else value for value in lost]
        return [value if isfinite(value) else inf for value in distances]

    def _compare(self, wanted: list[Tensor], found: list[Tensor]) -> tuple[float, float]:
        """Squared distance of outputs, and the square of those of the reference."""
        whole, (lost,) = squared_error(wanted, [found], in_units=self._in_units)
        return lost, whole


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
    for inputs in batches:
        found = [float_outputs(model, inputs) for model in models]
        yield squared_error(float_outputs(reference, inputs), found, in_units=in_units)


def squared_error(
    wanted: list[Tensor], found: list[list[Tensor]], *, in_units: bool = False
) -> tuple[float, list[float]]:
    """Squared norm of a batch's outputs, and the squared error of each model's; as :func:`squared_errors`."""
    if not wanted:
        raise IncomparableError("no output is of floating-point numbers")
    if any([y.shape for y in each] != [y.shape for y in wanted] for each in found):
        raise IncomparableError("the sizes of the outputs depend on their values")
    usual = [y.where(y.isfinite(), 0.0) for y in wanted]
    units = [units_of(y) if in_units else as_it_is for y in usual]
    norm = sum(float(unit(y).square().sum()) for y, unit in zip(usual, units, strict=True))
    return norm, [
        sum(
            float((unit(usual_y) - unit(z.where(y.isfinite(), 0.0))).square().sum())
            for y, usual_y, z, unit in zip(wanted, usual, each, units, strict=True)
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


def nearer(plain: nn.Module, fitted: nn.Module, comparison: Comparison) -> nn.Module:
    """Of two networks the one whose outputs are nearer to the original's; the fitted one if that cannot be seen.

    On the images that are held out, if there are any.

    Warns
    -----
    CalibrationWarning
        If that is the plain one, by more than rounding.
    """
    try:
        before, after = comparison.distances((plain, fitted), start=comparison.cut)
    except IncomparableError:
        return fitted
    if after <= before:
        return fitted
    if after > before + _ROUNDING:
        warn(f"{NO_NEARER}: left as decomposed", CalibrationWarning, stacklevel=3)
    return plain


def distances_of(model: nn.Module, comparison: Comparison) -> dict[str, float]:
    """How far a network's outputs are from the original's on images fitted to and on those held out, and their numbers."""
    cut, count = comparison.cut, len(comparison.images)
    if not cut:
        return {}
    try:
        (fitted,) = comparison.distances((model,), stop=cut)
        (held,) = comparison.distances((model,), start=cut)
    except IncomparableError:
        return {}
    if not (isfinite(fitted) and isfinite(held)):
        return {}
    return {"fitted": fitted, "held out": held, "images fitted": cut, "images held out": count - cut}


def comparable(returned: object) -> list[Tensor]:
    """Of what a network returns, what is compared."""
    return [output.to(torch.float32) for output in floating_outputs(returned)]


def float_outputs(
    model: nn.Module, inputs: ExampleInputs, what: str = "the calibration images"
) -> list[Tensor]:
    """All floating-point outputs of a model on a batch, in float32; ``what`` the batch is of is for messages."""
    return comparable(run(model, to_model(inputs, model), what))

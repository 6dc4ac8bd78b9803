"""How far the outputs of two ONNX models are apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuckertree._base.errors import TuckertreeError
from tuckertree.network.onnx.inputs import Feed
from tuckertree.network.onnx.runtime import Session

Shapes = Mapping[str, Sequence[int | str | None]]
"""Sizes of outputs by name; what is no number is free."""


@dataclass(frozen=True)
class Agreement:
    """Outputs of two models on the same inputs.

    Attributes
    ----------
    error
        ``||y' - y|| / ||y||`` over all floating-point outputs; None if there is nothing to compare.
    same
        Share of the integers and booleans that are equal; None if there are none.
    left_out
        Outputs that had another size at least once, as the boxes of a detector may.
    not_finite
        Share of the finite numbers that became NaN or infinite, on an input that was made up.
    """

    error: float | None
    same: float | None
    left_out: tuple[str, ...] = ()
    not_finite: float = 0.0

    def __str__(self) -> str:
        """What there is to say, in one line."""
        parts = [
            *([] if self.error is None else [f"{self.error:.3g} relative error"]),
            *([] if self.same is None else [f"{self.same:.2%} of the integers the same"]),
            *(f"{name} not compared, its size depends on the values" for name in self.left_out),
        ]
        return "; ".join(parts) or "nothing to compare"


def compare_sessions(
    before: Session, after: Session, feeds: Sequence[Feed], made_up: bool = False
) -> Agreement:
    """Compare two models on the same inputs; ``made_up`` as in :func:`compare_outputs`.

    Raises
    ------
    TuckertreeError
        If a model does not run, or as :func:`compare_outputs`.
    """
    return compare_outputs(
        (before.run(feed) for feed in feeds),
        (after.run(feed) for feed in feeds),
        before.shapes,
        made_up=made_up,
    )


def compare_outputs(
    before: Iterable[Mapping[str, object]],
    after: Iterable[Mapping[str, Any]],
    shapes: Shapes,
    *,
    made_up: bool = False,
) -> Agreement:
    """Compare the outputs of two models, run by run.

    Parameters
    ----------
    shapes
        Sizes of the first model's outputs, as far as they do not depend on inputs.
    made_up
        The inputs are random: that numbers are no longer finite on them is counted, and not the second model's fault.

    Raises
    ------
    TuckertreeError
        If a second output is of another shape where that is not free, or not finite where the first one is and the
        inputs are not made up.
    """
    sums, left_out = dict[str, np.ndarray[Any, Any]](), dict[str, None]()
    for ours, theirs in zip(before, after, strict=True):
        for name, y in ours.items():
            if not isinstance(y, np.ndarray) or y.dtype.kind not in "fiub":
                continue
            other = theirs[name]
            if other.shape != y.shape:
                _check_free(name, y.shape, other.shape, shapes.get(name, ()))
                left_out[name] = None
            elif name not in left_out:
                sums[name] = sums.get(name, 0) + _sums(y, other)
                if sums[name][-1] and not made_up:
                    raise TuckertreeError(f"the output {name} became NaN or infinite")
    lost, whole, count, equal, integers, broken = sum(
        (found for name, found in sums.items() if name not in left_out), np.zeros(6)
    )
    return Agreement(
        error=None if not count else float((lost / (whole or 1)) ** 0.5),
        same=float(equal / integers) if integers else None,
        left_out=tuple(left_out),
        not_finite=float(broken / (count + broken or 1)),
    )


def _check_free(
    name: str, ours: Sequence[int], theirs: Sequence[int], declared: Sequence[int | str | None]
) -> None:
    free = len(ours) == len(theirs) == len(declared) and all(
        a == b or not isinstance(size, int) for a, b, size in zip(ours, theirs, declared, strict=True)
    )
    if not free:
        raise TuckertreeError(f"the output {name} became {list(theirs)}; it was {list(ours)}")


def _sums(y: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Squared difference, squared norm and count of finite numbers; equal integers, and all of them; lost numbers."""
    if y.dtype.kind != "f":
        return np.array([0, 0, 0, (y == other).sum(), y.size, 0], dtype=np.float64)
    finite, seen = np.isfinite(y), np.isfinite(y) & np.isfinite(other)
    y, other = y[seen].astype(np.float64), other[seen].astype(np.float64)
    return np.array([((y - other) ** 2).sum(), (y**2).sum(), y.size, 0, 0, finite.sum() - seen.sum()])

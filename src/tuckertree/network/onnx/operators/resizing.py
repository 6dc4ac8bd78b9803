"""Resize, Upsample and GridSample.

Interpolation is separable: along each axis an output element is a weighted sum of a few input elements, its taps.
Coordinates are computed in float32 and in the order of ONNX Runtime, so that ties fall to the same side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tuckertree.network.onnx.operators.operation import Function, Operation, Table, along

TABLE = Table()


@dataclass(frozen=True)
class _Axis:
    """An axis to resize: its sizes, and the scale that coordinates are computed with, as float32."""

    before: int
    after: int
    scale: Tensor


def _symmetric(at: Tensor, axis: _Axis) -> Tensor:
    offset = axis.before / 2 * (1 - axis.after / (axis.scale * axis.before))
    return (offset + (at.double() + 0.5) / axis.scale - 0.5).float()


_COORDINATES: dict[str, Callable[[Tensor, _Axis], Tensor]] = {
    "align_corners": lambda at, axis: at * (axis.before - 1) / max(axis.after - 1, 1),
    "asymmetric": lambda at, axis: at / axis.scale,
    "half_pixel": lambda at, axis: (at + 0.5) / axis.scale - 0.5,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": lambda at, axis: (at + 0.5) / axis.scale - 0.5 if axis.after > 1 else at * 0,
    "tf_half_pixel_for_nn": lambda at, axis: (at + 0.5) / axis.scale,
}
_TIE = 1e-6
"""How near to the middle between two elements ONNX Runtime sees a tie."""
_NEAREST: dict[str, Callable[[Tensor], Tensor]] = {
    "ceil": torch.ceil,
    "floor": torch.floor,
    "round_prefer_ceil": lambda at: (at.double() + 0.5 + _TIE).floor(),
    "round_prefer_floor": lambda at: (at.double() - 0.5 - _TIE).ceil(),
}
Taps = tuple[Tensor, Tensor | None]
"""Indices of input elements and their weights, ``[output elements, taps]``; no weights if they are 1."""


def _nearest_taps(operation: Operation, at: Tensor, axis: _Axis) -> Taps:
    if operation.opset < 11:
        rounded = at.ceil() if axis.scale < 1 else at.trunc()
    else:
        rounded = _NEAREST[operation.text("nearest_mode", "round_prefer_floor")](at)
    return rounded.long().clamp(0, axis.before - 1)[:, None], None


def _linear_taps(_: Operation, at: Tensor, axis: _Axis) -> Taps:
    at = at.clamp(0, axis.before - 1)
    left = at.floor()
    right = at - left
    indices = torch.stack([left, left + 1], 1).long().clamp(max=axis.before - 1)
    return indices, torch.stack([1 - right, right], 1)


def _cubic_taps(operation: Operation, at: Tensor, axis: _Axis) -> Taps:
    """Keys, *Cubic convolution interpolation for digital image processing* (1981), equation 15 with any a."""
    a = operation.get("cubic_coeff_a", -0.75)
    left = at.floor()
    indices = left[:, None] + torch.arange(-1.0, 3.0)
    s = (at[:, None] - indices).abs()
    near, far = ((a + 2) * s - (a + 3)) * s * s + 1, ((a * s - 5 * a) * s + 8 * a) * s - 4 * a
    weights = torch.where(s <= 1, near, far)
    if operation.get("exclude_outside", 0):
        weights = torch.where((indices >= 0) & (indices < axis.before), weights, 0)
        weights = weights / weights.sum(1, keepdim=True)
    return indices.long().clamp(0, axis.before - 1), weights


_TAPS: dict[str, Callable[[Operation, Tensor, _Axis], Taps]] = {
    "cubic": _cubic_taps,
    "linear": _linear_taps,
    "nearest": _nearest_taps,
}


def _interpolated(x: Tensor, axis: int, taps: Taps) -> Tensor:
    indices, weights = taps
    chosen = (x.index_select(axis, each) for each in indices.T.to(x.device))
    if weights is None:
        return next(chosen)
    factors = (along(each, axis, x.dim()) for each in weights.T.to(x))
    return reduce(torch.add, map(torch.mul, chosen, factors))


@TABLE.add("Resize", "Upsample")
def _resize(operation: Operation) -> Function | None:
    mode = operation.text("mode", "nearest")
    coordinates = operation.text("coordinate_transformation_mode", "half_pixel")
    coordinates = coordinates if operation.opset >= 11 else "asymmetric"
    policy = operation.text("keep_aspect_ratio_policy", "stretch")
    if coordinates not in _COORDINATES or mode not in _TAPS or policy != "stretch":
        return None
    if operation.get("antialias", 0):
        return None

    def resize(x: Tensor, *given: Tensor | None) -> Tensor:
        axes = operation.get("axes") or range(x.dim())
        scales, sizes = _targets(operation, given)
        before = torch.tensor([x.shape[axis] for axis in axes])
        if scales is None:
            assert sizes is not None
            after = sizes.cpu()
            scales = after / before
        else:
            after = (scales * before).long()
        if torch.equal(after, before):
            return x
        whole = mode != "nearest" and not x.is_floating_point()
        y = x.double() if whole else x
        for place, *numbers in zip(axes, before.tolist(), after.tolist(), scales, strict=True):
            axis = _Axis(*numbers)
            if axis.scale != 1:
                at = _COORDINATES[coordinates](torch.arange(axis.after, dtype=torch.float32), axis)
                y = _interpolated(y, place, _TAPS[mode](operation, at, axis))
        return y.round(decimals=3).to(x.dtype) if whole else y  # truncated, but not for a rounding error

    return resize


def _targets(operation: Operation, given: tuple[Tensor | None, ...]) -> tuple[Tensor | None, Tensor | None]:
    """Scales or sizes, whichever are given."""
    if operation.opset >= 11:
        _, scales, sizes = (*given, None, None)[:3]
    else:
        scales, sizes = given[0] if given else torch.tensor(operation.get("scales")), None
    return scales.float().cpu() if scales is not None and scales.numel() else None, sizes


@TABLE.add("GridSample")
def _grid_sample(operation: Operation) -> Function | None:
    mode = operation.text("mode", "bilinear")
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    padding = operation.text("padding_mode", "zeros")
    corners = bool(operation.get("align_corners", 0))
    return lambda x, grid: F.grid_sample(x, grid, mode, padding, corners)

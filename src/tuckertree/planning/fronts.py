"""Pareto fronts and lower convex hulls."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 1024


def pareto_front(first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """Indices of the points that no other point equals or betters in all of three numbers.

    Parameters
    ----------
    first, second, third
        ``[n]`` each; smaller is better. Of equal points one is kept.

    Returns
    -------
    Tensor
        Rising in ``second``. Time is ``n log n`` where most points are dominated, as on a grid.
    """
    if not len(first):
        return torch.zeros(0, dtype=torch.int64)
    order = _sorted_by(second, third, first)
    front: list[Tensor] = []
    # All that came before, as a staircase: the smallest `first` among those whose `third` is at most so much.
    stairs_third, stairs_first = third[:0], first[:0]
    for chunk in order.split(_CHUNK):
        chunk = chunk[~_under_stairs(first[chunk], third[chunk], stairs_first, stairs_third)]
        x, z = first[chunk], third[chunk]
        dominated = ((x[:, None] >= x) & (z[:, None] >= z)).tril(-1).any(1)
        chunk = chunk[~dominated]
        front.append(chunk)
        stairs_third, stairs_first = _staircase(
            torch.cat([stairs_third, third[chunk]]), torch.cat([stairs_first, first[chunk]])
        )
    return torch.cat(front)


def lower_hull(cost: Tensor, loss: Tensor) -> list[int]:
    """Indices of the corners of the lower convex hull, from the cheapest to the one of the least loss.

    Parameters
    ----------
    cost, loss
        ``[n]``, at least one point.

    Returns
    -------
    list of int
        Cost rises, loss falls, and less and less loss is saved for the same cost.
    """
    order = _sorted_by(cost, loss)
    lowest = loss[order].cummin(0).values
    order = order[torch.cat([torch.ones(1, dtype=torch.bool), lowest[1:] < lowest[:-1]])]
    corners: list[tuple[float, float, int]] = []
    for x, y, index in zip(cost[order].tolist(), loss[order].tolist(), order.tolist(), strict=True):
        while len(corners) > 1 and _is_above(corners[-2], corners[-1], x, y):
            corners.pop()
        corners.append((x, y, index))
    return [index for _, _, index in corners]


def _is_above(a: tuple[float, float, int], b: tuple[float, float, int], x: float, y: float) -> bool:
    """Whether ``b`` lies on or above the line from ``a`` to ``(x, y)``."""
    return (b[1] - a[1]) * (x - a[0]) >= (y - a[1]) * (b[0] - a[0])


def _sorted_by(*keys: Tensor) -> Tensor:
    """Order of rising first key, of equal ones of rising second key, and so on."""
    order = torch.arange(len(keys[0]))
    for key in reversed(keys):
        order = order[key[order].argsort(stable=True)]
    return order


def _under_stairs(first: Tensor, third: Tensor, stairs_first: Tensor, stairs_third: Tensor) -> Tensor:
    if not len(stairs_third):
        return torch.zeros(len(first), dtype=torch.bool)
    step = torch.searchsorted(stairs_third, third, right=True) - 1
    return (step >= 0) & (stairs_first[step.clamp(min=0)] <= first)


def _staircase(third: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    order = _sorted_by(third, first)
    third, first = third[order], first[order]
    lowest = first.cummin(0).values
    step = torch.cat([torch.ones(1, dtype=torch.bool), lowest[1:] < lowest[:-1]])
    return third[step], first[step]

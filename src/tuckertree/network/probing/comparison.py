"""Whether two models did the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from math import inf, isfinite, isnan
from typing import Any

import torch
from torch import Tensor

from tuckertree.network.probing.recording import Record

_UNITS, _COARSEST = 64, 0.02
"""Units in the last place of the largest value that may be rounding, and the largest share of it."""
_CHANCE = 4.0
"""How many times the distance of two runs of the original a copy may be off, where these differ."""


def difference(
    ours: Sequence[Record], theirs: Sequence[Record], again: Sequence[Record] | None = None
) -> str | None:
    """Say in what a copy's forward passes differ from the original's, or None if in nothing but rounding.

    Parameters
    ----------
    ours, theirs
        Records of the original and of the copy on the same inputs.
    again
        A second record of the original from the same state, where two runs of it may differ: what does differ is
        compared only within that.
    """
    for one, other, same in zip(ours, theirs, again or ours, strict=True):
        found = _other_way(one, other, same)
        if found is None:
            found = _other_values(one, other, same)
        elif _outputs(one) == _outputs(other) and not _other_values(*map(_answer, (one, other, same))):
            continue  # another way to the same result, as torch's own faster ones for attention
        if found:
            return f"{found} {one.where}"
    return None


def _answer(record: Record) -> Record:
    """A record without the way there."""
    return replace(record, calls=())


def _other_way(one: Record, other: Record, same: Record) -> str | None:
    if _form(one) != _form(same):
        return None  # it takes other ways by itself, so there is none to compare
    for (wanted, _), (name, _) in zip_longest(one.calls, other.calls, fillvalue=("nothing", ())):
        if name != wanted:
            return f"it calls {name or 'itself'} instead of {wanted or 'itself'}"
    return None if _form(one) == _form(other) else "it returns tensors of another number, shape or type"


def _other_values(one: Record, other: Record, same: Record) -> str | None:
    if _form(one) != _form(same):
        return None
    noise = [_distance(x, y) for (_, x), (_, y) in zip(_values(one), _values(same), strict=True)]
    for (what, value), (_, found), own in zip(_values(one), _values(other), noise, strict=True):
        allowed = _rounding(value)
        if own or isinstance(value, float):  # a single number may be repeated by chance
            allowed = max(allowed, _CHANCE * max(noise))
        if (distance := _distance(value, found)) > allowed:
            return f"{what} differs" + (f" by {distance:.2g}" if isfinite(distance) else "")
    return None


def _form(record: Record) -> list[object]:
    """All but the numbers."""
    return [*((name, len(norms)) for name, norms in record.calls), *_outputs(record)]


def _outputs(record: Record) -> list[object]:
    return [(x.shape, x.dtype) if isinstance(x, Tensor) else type(x) for x in record.outputs]


def _values(record: Record) -> Iterator[tuple[str, object]]:
    """Outputs of the network first: they are what counts."""
    yield from (("its output", x) for x in record.outputs)
    yield from ((f"what {name or 'it'} returns", norm) for name, norms in record.calls for norm in norms)


def _distance(x: object, y: Any) -> float:
    """Largest distance as a share of the largest finite value; what is no number is equal or infinitely far."""
    if isinstance(x, Tensor):
        return _distance_of_tensors(x, y)
    if isinstance(x, float):
        return 0.0 if x == y or (isnan(x) and isnan(y)) else min(abs(x - y) / max(abs(x), 1e-30), inf)
    return inf if isinstance(x, int | str | bytes) and x != y else 0.0


def _distance_of_tensors(x: Tensor, y: Tensor) -> float:
    if x.is_meta or torch.equal(x, y):
        return 0.0
    if not (x.is_floating_point() or x.is_complex()):
        return inf
    exact = torch.complex128 if x.is_complex() else torch.float64
    x, y = x.to(exact), y.to(exact)
    far = (x - y).abs()
    far = torch.where((x == y) | (x.isnan() & y.isnan()), 0.0, far.nan_to_num(nan=inf))
    size = float(x.abs().nan_to_num(0, 0, 0).max())
    return float(far.max()) / size if size else inf


def _rounding(x: object) -> float:
    dtype = x.dtype if isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex()) else torch.float32
    return min(_UNITS * torch.finfo(dtype).eps, _COARSEST)

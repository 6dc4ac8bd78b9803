"""What budgets are given as: shares and factors, names with commas between them."""

from __future__ import annotations

from math import isfinite
from numbers import Real

from tuckertree._base.errors import UsageError


def is_number(value: object) -> bool:
    """Whether something is a finite number."""
    return not isinstance(value, bool) and isinstance(value, Real) and isfinite(value)


def names_in(precision: object) -> tuple[str, ...]:
    """Read names of precisions, as text with commas between them or one by one.

    Raises
    ------
    UsageError
        If there is none, or one twice.
    """
    listed = precision.split(",") if isinstance(precision, str) else precision
    names = listed if isinstance(listed, list | tuple) else ()
    found = tuple(name.strip() for name in names if isinstance(name, str))
    if not found or len(found) < len(names) or len(set(found)) < len(found) or "" in found:
        raise UsageError(f"precision names one or several, each once, such as 'fp32,int8', not {precision!r}")
    return found


def share_of(kind: str, value: float | str) -> float:
    """Read a share or a factor.

    Raises
    ------
    UsageError
        If it is neither.
    """
    wrong = UsageError(f"{kind} must be a share in (0, 1] or a factor such as '2x', not {value!r}")
    is_factor = isinstance(value, str) and value.strip().lower().endswith("x")
    try:
        number = float(value.strip().lower().removesuffix("x") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        raise wrong from None
    share = (1 / number if number >= 1 else 0.0) if is_factor else number
    if isinstance(value, bool) or not 0 < share <= 1:
        raise wrong
    return share

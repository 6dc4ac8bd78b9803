"""Confidence intervals of a share, and of the difference of two shares that were counted on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from statistics import NormalDist

LEVEL = 0.95


def normal_quantile(level: float = LEVEL) -> float:
    """How many standard deviations to either side hold this share of a normal distribution."""
    return NormalDist().inv_cdf((1 + level) / 2)


def wilson(hits: int, count: int, z: float | None = None) -> tuple[float, float]:
    """Wilson's score interval of a share, ``hits`` of ``count`` (Wilson 1927), by default of 95 %.

    Unlike the share plus or minus its standard error it stays within 0 and 1 and is right near both ends, where
    accuracies are.

    Examples
    --------
    >>> from tuckertree.measure.intervals import wilson
    >>> [round(limit, 3) for limit in wilson(90, 100)]
    [0.826, 0.945]
    """
    z = normal_quantile() if z is None else z
    share, spread = hits / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z * (share * (1 - share) / count + spread / (4 * count)) ** 0.5 / (1 + spread)
    # Of none and of all the limit is the share itself, but for rounding.
    return max(min(middle - half, share), 0.0), min(max(middle + half, share), 1.0)


def paired_difference(
    both: int, first: int, second: int, neither: int, z: float | None = None
) -> tuple[float, float]:
    """Newcombe's interval of the difference of two shares of the same images (Newcombe 1998, method 10).

    Both networks mostly fail on the same images, so the difference is known far better than either share: what
    counts are the images on which they part. Built from Wilson's intervals and the correlation of the answers.

    Parameters
    ----------
    both, first, second, neither
        Images that both networks, the first alone, the second alone and none of them answer rightly.
    z
        Standard deviations; by default for 95 %.

    Returns
    -------
    tuple[float, float]
        Of the first share less the second.

    Examples
    --------
    >>> from tuckertree.measure.intervals import paired_difference
    >>> [round(limit, 3) for limit in paired_difference(900, 20, 10, 70)]
    [-0.001, 0.022]
    """
    count = both + first + second + neither
    ours, theirs = (both + first) / count, (both + second) / count
    low, high = wilson(both + first, count, z)
    their_low, their_high = wilson(both + second, count, z)
    product = (both + first) * (second + neither) * (both + second) * (first + neither)
    excess: float = both * neither - first * second
    if excess > 0:
        excess = max(excess - count / 2, 0)  # continuity
    correlation = excess / product**0.5 if product else 0.0

    def reach(own: float, other: float) -> float:
        return max(own * own - 2 * correlation * own * other + other * other, 0.0) ** 0.5

    middle = ours - theirs
    return (
        max(middle - reach(ours - low, their_high - theirs), -1.0),
        min(middle + reach(high - ours, theirs - their_low), 1.0),
    )


def ratio_interval(parts: Sequence[tuple[float, float]], z: float | None = None) -> tuple[float, float]:
    """Interval of the root of a ratio of sums, from what independent parts add to both.

    A relative distance ``(sum e / sum w)^(1/2)`` of outputs is one; the parts are batches of images. By linearisation.

    Parameters
    ----------
    parts
        Squared errors and squared norms, one pair for each part.
    z
        As of :func:`paired_difference`.
    """
    z = normal_quantile() if z is None else z
    whole, count = sum(w for _, w in parts), len(parts)
    squared = sum(e for e, _ in parts) / whole if whole else 0.0
    if count < 2 or not whole:
        return 0.0, inf
    rest = sum((e - squared * w) ** 2 for e, w in parts)
    half = z * (rest * count / (count - 1)) ** 0.5 / whole
    return max(squared - half, 0.0) ** 0.5, (squared + half) ** 0.5

"""What a network lost against the original, with how far that is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

from torch import Tensor

from tuckertree.measure.intervals import paired_difference, ratio_interval, wilson

TOP1, ANSWERS, OUTPUTS = "top1", "answers", "outputs"
_HAIR = 1e-9


@dataclass(frozen=True)
class Loss:
    """How much of the original a network lost on some images.

    Attributes
    ----------
    kind
        ``top1``, of labelled images: points of top-1; ``answers``, of classifiers: the share of answers that are
        others than the original's; ``outputs``: the relative distance of the outputs.
    lost
        The loss, in these units; negative where the network is better.
    low, high
        95 % confidence interval. Of top-1 it is that of a difference on the same images (Newcombe's method 10), which
        is far narrower than those of the two accuracies; of answers Wilson's; of outputs by linearisation over batches.
    spread
        Half of the interval of one standard deviation.
    images
        Their number.
    top1
        Of the original and of the network, in percent.
    """

    kind: str
    lost: float
    low: float
    high: float
    spread: float
    images: int
    top1: tuple[float, float] | None = None

    @classmethod
    def of_answers(cls, before: Tensor, after: Tensor, z: float) -> Loss:
        """Of right answers before and after, each ``[images]`` of bool.

        ``z`` standard deviations make the interval.
        """
        cells = [
            int((one & other).sum()) for one in (before, ~before) for other in (after, ~after)
        ]  # both, the first alone, the second alone, neither
        both, first, second, neither = cells
        count = sum(cells)
        low, high = paired_difference(both, first, second, neither, z)
        near = paired_difference(both, first, second, neither, 1.0)
        top1 = 100 * (both + first) / count, 100 * (both + second) / count
        lost = 100 * (first - second) / count
        return cls(TOP1, lost, 100 * low, 100 * high, 50 * (near[1] - near[0]), count, top1)

    @classmethod
    def of_equality(cls, equal: Tensor, z: float) -> Loss:
        """Of which answers are the original's, ``[images]`` of bool."""
        count = len(equal)
        others = count - int(equal.sum())
        near = wilson(others, count, 1.0)
        return cls(ANSWERS, others / count, *wilson(others, count, z), (near[1] - near[0]) / 2, count)

    @classmethod
    def of_distance(cls, parts: Sequence[tuple[float, float]], images: int, z: float) -> Loss:
        """Of squared errors and squared norms of the outputs, batch by batch."""
        error, norm = (sum(part[side] for part in parts) for side in (0, 1))
        distance = (error / norm if norm else error) ** 0.5 if isfinite(error) else inf
        if not isfinite(distance):
            return cls(OUTPUTS, inf, inf, inf, inf, images)
        near = ratio_interval(parts, 1.0)
        return cls(OUTPUTS, distance, *ratio_interval(parts, z), (near[1] - near[0]) / 2, images)

    def within(self, limit: float) -> bool:
        """Whether it is at most the limit."""
        return self.lost <= limit + _HAIR

    def clearly_within(self, limit: float) -> bool:
        """Whether it is so by one standard deviation: on other images it will most often be so, too.

        Half of the limit is always clear enough: with few images a standard deviation may be more than all there is.
        """
        return self.within(limit - min(self.spread, limit / 2))

    def is_vague(self, limit: float) -> bool:
        """Whether the images are too few to tell a loss of the limit: the interval reaches farther to either side.

        Of answers: a distance of outputs is known well from few images, and that nothing is lost no number can tell.
        """
        return self.kind != OUTPUTS and 0 < limit < (self.high - self.low) / 2

    def images_for(self, limit: float) -> int:
        """About how many images would tell it."""
        needed = self.images * ((self.high - self.low) / 2 / limit) ** 2
        step = 10 ** max(len(str(int(needed))) - 2, 0)
        return -int(-needed // step) * step

    def __str__(self) -> str:
        """In words: ``0.84 points of top-1 lower (0.3 to 1.4)``."""
        if not isfinite(self.lost):
            return "outputs that are not finite"
        if self.kind == TOP1:
            return f"{self.lost:.2f} points of top-1 lost ({self.low:.2f} to {self.high:.2f})"
        if self.kind == OUTPUTS:
            return f"outputs {self.lost:.3g} away ({self.low:.3g} to {self.high:.3g})"
        return f"{1 - self.lost:.2%} of the answers equal ({1 - self.high:.2%} to {1 - self.low:.2%})"

    def to_json(self) -> dict[str, object]:
        """As JSON data, which has no infinite numbers."""
        numbers = {name: getattr(self, name) for name in ("lost", "low", "high")}
        return {
            "kind": self.kind,
            **{name: value if isfinite(value) else None for name, value in numbers.items()},
            "images": self.images,
            **({"top1": self._accuracies()} if self.top1 else {}),
        }

    def _accuracies(self) -> list[dict[str, object]]:
        from tuckertree.measure.accuracy import share_interval

        assert self.top1 is not None
        return [
            {"top1": share, "top1_interval": list(share_interval(share, self.images))} for share in self.top1
        ]

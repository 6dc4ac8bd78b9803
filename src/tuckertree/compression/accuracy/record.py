"""What a search for an accuracy tried, and how the network that was found was proved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tuckertree.compression.accuracy.loss import TOP1, Loss
from tuckertree.planning import Budget, Plan

_CHANCE = 1.5
"""Times an even guess."""


@dataclass(frozen=True)
class AccuracyStep:
    """One network that was tried.

    Attributes
    ----------
    share
        Of what is to be cheapest, as the budget of this step had it.
    latency
        Share of the original's time that was measured, where time was to be cheapest.
    parameters, macs
        Of the whole network before and after; None where no plan keeps the share.
    loss
        What it lost, or None likewise.
    held
        Whether that is little enough: in the search by one standard deviation, in the proof at all.
    """

    share: float
    parameters: tuple[int, int] | None = None
    macs: tuple[int, int] | None = None
    loss: Loss | None = None
    held: bool = False
    latency: float | None = None

    @classmethod
    def of(cls, share: float, plan: Plan, loss: Loss, *, held: bool) -> AccuracyStep:
        """A step with a network."""
        latency = plan.latency.measured if plan.latency else None
        return cls(share, plan.parameters, plan.macs, loss, held, latency)

    def __str__(self) -> str:
        """One line."""
        if self.loss is None or self.macs is None or self.parameters is None:
            return f"{1 / self.share:.2f}x: out of reach"
        sizes = [
            *([] if self.latency is None else [f"time {1 / self.latency:.2f}x"]),
            f"MACs {self.macs[0] / max(self.macs[1], 1):.2f}x",
            f"parameters {self.parameters[0] / max(self.parameters[1], 1):.2f}x",
        ]
        return f"{', '.join(sizes)}: {self.loss}{'' if self.held else ', too much'}"

    def to_json(self) -> dict[str, object]:
        """As JSON data."""
        return {**asdict(self), "loss": None if self.loss is None else self.loss.to_json()}


@dataclass(frozen=True)
class AccuracySearch:
    """How the cheapest network that keeps an accuracy was found.

    Attributes
    ----------
    limit
        The most that may be lost, in the units of :class:`Loss`.
    cheapest
        What was made small.
    steps
        Networks that were tried, in order, on the images to search with.
    proofs
        Looks at the images that took no part in the search, the last at the network that is given. After the first
        they took a small part: so the confidence intervals of several looks are wider (Bonferroni).
    classes
        Of a classifier.
    """

    limit: float
    cheapest: str
    steps: tuple[AccuracyStep, ...]
    proofs: tuple[AccuracyStep, ...]
    classes: int | None = None

    @property
    def held(self) -> bool:
        """Whether the network keeps the accuracy on the images that took no part."""
        return bool(self.proofs) and self.proofs[-1].held

    @property
    def loss(self) -> Loss:
        """What the network lost on the images that took no part in the search."""
        found = self.proofs[-1].loss
        assert found is not None
        return found

    @property
    def asked(self) -> str:
        """What was asked for, in words."""
        if self.loss.kind == TOP1:
            return f"a drop of at most {self.limit:g} points of top-1"
        return f"an agreement of {1 - self.limit:g}"

    @property
    def warnings(self) -> list[str]:
        """Reasons to doubt it."""
        loss, found = self.loss, list[str]()
        if not self.held:
            found.append(f"{self.asked} was not kept: {loss} on {loss.images} images that took no part")
        if loss.is_vague(self.limit):
            found.append(
                f"{loss.images} images are too few to tell {self.asked}; about {2 * loss.images_for(self.limit)} would do, "
                "half of them to search with"
            )
        if loss.top1 is not None and self.classes and loss.top1[0] < 100 * _CHANCE / self.classes:
            found.append(
                f"the original answers {loss.top1[0]:.1f} % of the images rightly, no more than a guess: do the labels "
                "belong to this network?"
            )
        return found

    def lines(self) -> list[str]:
        """What there is to say, a line each."""
        loss = self.loss
        before = "" if loss.top1 is None else _accuracies(loss)
        return [
            *(f"step {number:<6} {step}" for number, step in enumerate(self.steps, 1)),
            *(f"look {number:<6} {step}" for number, step in enumerate(self.proofs[:-1], 1)),
            f"accuracy    {before}{loss}, on {loss.images} images that took no part in the search",
        ]

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "limit": self.limit,
            "cheapest": self.cheapest,
            "held": self.held,
            "loss": self.loss.to_json(),
            "steps": _list(self.steps),
            "proofs": _list(self.proofs),
        }


def _list(steps: Sequence[AccuracyStep]) -> list[dict[str, object]]:
    return [step.to_json() for step in steps]


def _accuracies(loss: Loss) -> str:
    from tuckertree.measure.accuracy import percent

    assert loss.top1 is not None
    before, after = (percent(share, loss.images) for share in loss.top1)
    return f"{before} -> {after} top-1: "


def limit_of(budget: Budget) -> float:
    """The most that may be lost, in points of top-1 or as a share."""
    return budget.max_drop if budget.max_drop is not None else 1 - (budget.agreement or 1)

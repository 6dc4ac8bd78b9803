"""What is compared: cells of methods and budgets, and what each of them gave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from tuckertree._base.errors import UsageError
from tuckertree.core.layers import known_methods
from tuckertree.measure.accuracy import share_interval
from tuckertree.planning import DENSE, Budget
from tuckertree.planning.channels import CHANNELS, DEFAULT_METHODS

PRUNE = "prune"
"""Structured pruning by torch-pruning."""
DEFAULT = "default"
"""What compress() does when it is given no methods."""
WEIGHTS = "weights"
JOINED = "+"
COSTS = ("macs", "params")
_MEANT = {DEFAULT: DEFAULT_METHODS}


@dataclass(frozen=True)
class Method:
    """A way to compress a network.

    Attributes
    ----------
    name
        A method of :func:`tuckertree.compress`, ``default`` for all that it chooses among by itself, several joined by ``+``
        for a choice among them, or ``prune``.
    fitted
        Whether it is given the calibration images; otherwise it has the weights alone, as it was published.

    Examples
    --------
    >>> from tuckertree.tools.comparison import Method
    >>> Method.of("ht2"), str(Method.of("ht2:weights"))
    (Method(name='ht2', fitted=True), 'ht2:weights')
    >>> str(Method.of("svd+ht2")), str(Method.of("cp+default"))
    ('ht2+svd', 'default+cp')
    >>> Method.of("default+cp").among
    ('ht2', 'tucker2', 'spatial', 'svd', 'depthwise', 'channels', 'cp')
    """

    name: str
    fitted: bool = True

    @classmethod
    def of(cls, text: str) -> Self:
        """Read ``ht2``, ``ht2:weights`` or ``ht2+svd``; the same choice in another order is the same method.

        Raises
        ------
        UsageError
            If there is no such method, the message lists those there are; or one is named twice, as in ``default+ht2``.
        """
        name, colon, images = text.strip().partition(":")
        known = (*known_methods(), CHANNELS, PRUNE, DEFAULT)
        parts = name.split(JOINED)
        is_known = all(part in known and (part != PRUNE or len(parts) == 1) for part in parts)
        if not is_known or (colon and (images != WEIGHTS or CHANNELS in parts)):
            raise UsageError(
                f"unknown method {text.strip()!r}; known: {', '.join(known)}; several, ht2{JOINED}svd, but for {PRUNE}; and all "
                f"but {CHANNELS} without images too: ht2:{WEIGHTS}"
            )
        every = [each for part in parts for each in _MEANT.get(part, (part,))]
        twice = next((each for each in every if every.count(each) > 1), None)
        if twice is not None:
            also = f"; {DEFAULT} is {JOINED.join(DEFAULT_METHODS)}" if DEFAULT in parts else ""
            raise UsageError(f"the method {text.strip()!r} names {twice} twice{also}")
        whole = [each for each in DEFAULT_METHODS if not colon or each != CHANNELS]
        if set(whole) <= set(every):
            parts = [DEFAULT, *(part for part in parts if part not in (DEFAULT, *whole))]
        return cls(JOINED.join(sorted(parts, key=(DEFAULT, *known).index)), not colon)

    def __str__(self) -> str:
        return self.name if self.fitted else f"{self.name}:{WEIGHTS}"

    @property
    def among(self) -> tuple[str, ...]:
        """The methods of :func:`tuckertree.compress` that a budget chooses among."""
        names = (name for part in self.name.split(JOINED) for name in _MEANT.get(part, (part,)))
        return tuple(name for name in names if self.fitted or name != CHANNELS)


@dataclass(frozen=True)
class Cell:
    """A method at a budget.

    Attributes
    ----------
    method
        None for the network as it is.
    budget
        As it was typed, ``2.5x`` or ``0.4``.
    """

    method: Method | None
    budget: str

    def __str__(self) -> str:
        return f"{self.method} {self.budget}" if self.method else DENSE

    @property
    def file(self) -> str:
        """Name of the file that its outcome is kept in."""
        return f"{str(self.method).replace(':', '.')}-{self.budget}.json" if self.method else f"{DENSE}.json"


ORIGINAL = Cell(None, "1x")


def cells_of(methods: Sequence[str], budgets: Sequence[str], by: str = "macs") -> list[Cell]:
    """Every method at every budget, each once.

    Parameters
    ----------
    methods
        Such as ``ht2``, ``svd:weights``, ``prune``, ``default``.
    budgets
        Shares or factors, as :class:`tuckertree.Budget` takes them.
    by
        What they are budgets of: ``macs`` or ``params``.

    Raises
    ------
    UsageError
        If there are none, a method is unknown, or a budget is no share.

    Examples
    --------
    >>> from tuckertree.tools.comparison import cells_of
    >>> [str(cell) for cell in cells_of(["ht2", "prune"], ["2x"])]
    ['ht2 2x', 'prune 2x']
    """
    chosen = list(dict.fromkeys(Method.of(text) for text in methods))
    shares = list(dict.fromkeys(text.strip() for text in budgets))
    if not chosen or not shares:
        raise UsageError("a comparison needs at least one method and one budget")
    for share in shares:
        budget_of(share, by)
    return [Cell(method, share) for share in shares for method in chosen]


def budget_of(share: str, by: str) -> Budget:
    """The budget of a cell.

    Raises
    ------
    UsageError
        If it is no share or factor, or of nothing that is compared at.
    """
    if by not in COSTS:
        raise UsageError(f"budgets are of {' or '.join(COSTS)}, not of {by!r}")
    return Budget(macs=share) if by == "macs" else Budget(params=share)


@dataclass(frozen=True)
class Score:
    """How good a network is on images that no network was fitted to.

    Attributes
    ----------
    images
        Their number.
    top1, low, high
        Top-1 in percent and Wilson's 95 % interval of it, where that is what networks are scored by.
    distance
        Relative distance of the outputs from the original's, likewise.
    others
        Numbers of a score function, likewise, by their names; of each more is better, and the first counts.

    Examples
    --------
    >>> from tuckertree.tools.comparison import Score
    >>> print(Score.of({"mAP": 31.6, "AP50": 47.5}, 70))
    31.60 / 47.50
    >>> print(Score.of({"top1": 90.0}, 1000))
    90.00 (88.0 to 91.7)
    """

    images: int
    top1: float | None = None
    low: float | None = None
    high: float | None = None
    distance: float | None = None
    others: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, numbers: Mapping[str, float], images: int) -> Self:
        """Make a score of named numbers: ``top1``, ``distance``, or others."""
        if "top1" in numbers:
            low, high = share_interval(numbers["top1"], images)
            return cls(images, numbers["top1"], low, high)
        if "distance" in numbers:
            return cls(images, distance=numbers["distance"])
        return cls(images, others=dict(numbers))

    @property
    def numbers(self) -> Mapping[str, float]:
        """By their names, that which networks are compared by first."""
        if self.top1 is not None:
            return {"top-1": self.top1}
        return {"distance": self.distance} if self.distance is not None else self.others

    @property
    def name(self) -> str:
        """What the numbers are."""
        return " / ".join(self.numbers)

    def __str__(self) -> str:
        """For people."""
        if self.top1 is not None:
            return f"{self.top1:.2f} ({self.low:.1f} to {self.high:.1f})"
        digits = 2 if self.distance is None else 4
        return " / ".join(f"{value:.{digits}f}" for value in self.numbers.values())


@dataclass(frozen=True)
class Latency:
    """One run of a network and of the original, in turns.

    Attributes
    ----------
    seconds
        Median of groups of rounds.
    ratio, low, high
        Its time over the original's, with quartiles.
    """

    seconds: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Outcome:
    """What a cell gave.

    Attributes
    ----------
    method, budget
        The cell.
    failed
        Why there is no network; empty where there is one.
    unreachable
        Whether that is because the method cannot reach the budget.
    parameters, macs
        Of the network.
    score, tuned
        As it is, and after tuning.
    seconds, tuning
        To compress it, and to tune it.
    latency
        Where a runtime was asked for.
    warnings
        Reasons to doubt it.
    """

    method: str
    budget: str
    failed: str = ""
    unreachable: bool = False
    parameters: int = 0
    macs: int = 0
    score: Score | None = None
    tuned: Score | None = None
    seconds: float = 0.0
    tuning: float | None = None
    latency: Latency | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def failure(cls, cell: Cell, reason: str, *, unreachable: bool = False) -> Self:
        """That of a cell without a network."""
        return cls(str(cell.method or DENSE), cell.budget, failed=reason, unreachable=unreachable)

    def with_warnings(self, more: Iterable[str]) -> Self:
        """The same with more of them, each once."""
        return replace(self, warnings=tuple(dict.fromkeys((*self.warnings, *more))))

    @property
    def is_final(self) -> bool:
        """Whether making the cell again would give nothing else: a package may be installed, a process killed."""
        return not self.failed or self.unreachable

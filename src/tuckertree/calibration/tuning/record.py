"""How long to tune and how, and what it did."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from math import inf, isfinite

from tuckertree._base.errors import UsageError


@dataclass(frozen=True)
class Length:
    """How long to tune: a number of steps, or seconds that become one.

    Examples
    --------
    >>> from tuckertree.calibration import Length
    >>> Length.of("5min"), Length.of(300)
    (Length(steps=None, seconds=300.0), Length(steps=300, seconds=None))
    """

    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise UsageError("tuning takes either minutes or steps, such as minutes=5 or steps=300")
        if self.steps is not None and (
            not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 1
        ):
            raise UsageError(f"steps of tuning are a whole number from 1 on, not {self.steps!r}")
        if self.seconds is not None and not 0 < self.seconds < inf:
            raise UsageError(f"tuning takes more than no time, not {self.seconds / 60:g} minutes")

    @classmethod
    def of(cls, text: str | int) -> Length:
        """Read ``5min``, ``90s``, ``1h``, or a number of steps.

        Raises
        ------
        UsageError
            If it is none of these.
        """
        if isinstance(text, int):
            return cls(steps=text)
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)|(\d+)", str(text).strip())
        if found is None:
            raise UsageError(
                f"tuning takes a time such as 5min or 90s, or a number of steps such as 300, not {text!r}"
            )
        if found[3]:
            return cls(steps=int(found[3]))
        return cls(seconds=float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]])


@dataclass(frozen=True)
class Way:
    """How steps are made.

    Attributes
    ----------
    batch_norm
        Whether BatchNorms that may change are in training mode.
    rate
        The highest learning rate of Adam; it rises for a tenth of the steps and falls along a cosine.
    corrected
        Whether they start from the network as it is; otherwise from factors that do not make up for each other.
    """

    batch_norm: bool
    rate: float
    corrected: bool = True


@dataclass(frozen=True)
class Tuning:
    """What tuning did.

    Attributes
    ----------
    steps, batch, seed
        With these the run can be repeated; ``best`` is the step whose state was kept, 0 where that is the start.
    seconds
        It took, trials included.
    before, after
        Relative distance of the outputs from the original's on the images held out.
    images, held_out
        Their numbers.
    way
        How the steps were made.
    note
        Why it ended early, or nothing was gained.
    interrupted
        Whether it was interrupted.
    course
        The steps after which the images held out were looked at, and the distance then; None where it is not finite.
    """

    steps: int
    best: int
    seconds: float
    before: float
    after: float
    images: int
    held_out: int
    batch: int
    seed: int
    way: Way | None = None
    note: str = ""
    interrupted: bool = False
    course: tuple[tuple[int, float | None], ...] = ()

    def to_json(self) -> dict[str, object]:
        """As JSON data, which has no infinite numbers."""
        found = asdict(self)
        return {name: None if isinstance(x, float) and not isfinite(x) else x for name, x in found.items()}

    def __str__(self) -> str:
        """One line."""
        if self.best:
            gained = (
                f"{self.steps} steps in {self.seconds:.0f} s: outputs {self.before:.4f} -> {self.after:.4f}"
            )
            gained += f" from the original's on {self.held_out} images held out"
        else:
            gained = (
                f"nothing changed in {self.steps} steps, the outputs are {self.before:.4f} from the original's on "
                f"{self.held_out} images held out"
            )
        return gained + (f" ({self.note})" if self.note else "")

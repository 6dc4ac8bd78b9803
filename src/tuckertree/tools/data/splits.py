"""The names of splits, and the choice of one."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tuckertree._base.errors import UsageError

_Name = TypeVar("_Name", bound=str | None)
_Split = TypeVar("_Split")

SAMPLE = "demo"
"""The name of the packaged images."""

ALIASES = {"test": "test", "validation": "val", "valid": "val", "val": "val", "train": "train"}
"""The names a split goes by, and the one name for each that is used here."""

BY_DEFAULT = ("test", "val", "train")
"""The first of these that is present is taken when none is asked for: never train where there is a choice."""


def choose_split(splits: Mapping[_Name, _Split], wanted: str | None, source: str) -> _Split:
    """Return what stands for the split ``wanted``, or for the default one.

    Raises
    ------
    UsageError
        If the source has no such split, or several and none of them is a default. The message names them.
    """
    for name in BY_DEFAULT if wanted is None else (wanted,):
        for present, found in splits.items():
            if present is not None and canonical(present) == canonical(name):
                return found
    if wanted is None and len(splits) == 1:
        return next(iter(splits.values()))
    if wanted is None:
        raise UsageError(f"{source} has the splits {_listed(splits)}; choose one of them")
    if None in splits:
        raise UsageError(f"{source} is not divided into splits; leave out the split {wanted!r}")
    raise UsageError(f"{source} has no split {wanted!r}; it has {_listed(splits)}; give images that have it")


def canonical(name: str | None) -> str | None:
    """The one name that a split is known by here."""
    return None if name is None else ALIASES.get(name, name)


def halves(available: int, count: int | None) -> tuple[Sequence[int], Sequence[int]]:
    """Numbers of images to fit to, evenly spaced and at most ``count``, and of as many others as there are in one half."""
    numbers = range(available)
    to_fit = numbers[::2]
    if count is not None:
        to_fit = to_fit[:: max(len(to_fit) // count, 1)][:count]
    return to_fit, numbers[1::2]


def is_same_place(one: str, other: str) -> bool:
    """Whether two names of images stand for the same, as ``images`` and ``./images/`` do."""
    if SAMPLE in (one, other):
        return one == other
    return one == other or (Path(one).exists() and Path(one).resolve() == Path(other).resolve())


def _listed(names: Iterable[str | None]) -> str:
    return ", ".join(sorted(str(name) for name in names))

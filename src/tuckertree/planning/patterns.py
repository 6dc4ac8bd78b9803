"""Names of layers, wanted by pattern."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase


def fits(name: str, pattern: str, names: Collection[str] = ()) -> bool:
    """Whether a name fits a pattern, as in a shell.

    A pattern that is one of ``names``, those of all layers, fits that one alone, whatever ``[``, ``*`` or ``?`` is
    in it.
    """
    return name == pattern or (pattern not in names and fnmatchcase(name, pattern))

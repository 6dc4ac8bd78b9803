"""Times kept from one run of the program to the next, in the user's cache folder."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import isfinite
from pathlib import Path

from tuckertree._base.atomic import write_atomically
from tuckertree._base.errors import TuckertreeError
from tuckertree._base.reading import read_json

_FORMAT = 1
_WIDEST = 1.3


def cache_folder() -> Path:
    """The folder ``tuckertree`` in the user's cache, or the one that ``TUCKERTREE_CACHE`` names."""
    if named := os.environ.get("TUCKERTREE_CACHE"):
        return Path(named)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "tuckertree"


class LatencyCache:
    """Measured numbers by a key that says everything they depend on.

    A cache is only ever a saving of time: a file that is missing, corrupt or of another format counts as
    empty, and one that cannot be written is left alone.

    Parameters
    ----------
    path
        The JSON file; by default ``latency.json`` in :func:`cache_folder`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_folder() / "latency.json"
        self._entries = self._read()

    def get(self, key: Mapping[str, object]) -> dict[str, float] | None:
        """The numbers kept under a key, or None; what a busy machine has left uncertain is none, and measured anew."""
        numbers = self._entries.get(_text(key))
        return None if numbers is None or numbers["high"] > _WIDEST * numbers["low"] else numbers

    def keep(self, entries: Sequence[tuple[Mapping[str, object], dict[str, float]]]) -> None:
        """Add numbers, and write the file anew beside what others may have added to it since."""
        self._entries |= {_text(key): numbers for key, numbers in entries}
        self._entries = self._read() | self._entries
        data = {"format": _FORMAT, "entries": self._entries}
        with suppress(TuckertreeError):  # times can be measured anew
            write_atomically(self.path, json.dumps(data, indent=0, sort_keys=True) + "\n")

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            data = read_json(self.path)
        except TuckertreeError:
            return {}
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            return {}
        entries = data.get("entries")
        if not isinstance(entries, dict):
            return {}
        return {key: numbers for key, numbers in entries.items() if _is_sound(numbers)}


def _is_sound(numbers: object) -> bool:
    return (
        isinstance(numbers, dict)
        and set(numbers) == {"seconds", "median", "low", "high"}
        and all(isinstance(n, int | float) and isfinite(n) and n > 0 for n in numbers.values())
    )


def _text(key: Mapping[str, object]) -> str:
    return json.dumps(key, sort_keys=True)

"""What a page shows, as data: a line, figures, sections of tables and plots. The script of the page draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, Literal

Kind = Literal["text", "count", "number", "share", "ratio", "milliseconds"]
Value = str | float | None


@dataclass(frozen=True)
class Column:
    """A column of a table, or an axis: its head and how its values are written."""

    label: str
    kind: Kind = "text"
    log: bool = False


@dataclass(frozen=True)
class Table:
    """A table that can be sorted, and searched if asked for."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]
    search: bool = False
    type: Literal["table"] = "table"

    def filled(self) -> Table:
        """The same without columns that nothing stands in."""
        used = [n for n in range(len(self.columns)) if any(row[n] not in (None, "") for row in self.rows)]
        rows = [[row[n] for n in used] for row in self.rows]
        return Table(self.caption, [self.columns[n] for n in used], rows, self.search)


@dataclass(frozen=True)
class Series:
    """Points of one name: ``names`` says what each is, ``low`` and ``high`` how far it is known.

    ``line`` is a line through points that other series show.
    """

    name: str
    y: Sequence[float | None]
    x: Sequence[float | None] | None = None
    names: Sequence[str] | None = None
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    alone: bool = False
    line: bool = False


@dataclass(frozen=True)
class View:
    """One of the ways to look at a plot."""

    label: str
    y: Column
    series: Sequence[Series]


@dataclass(frozen=True)
class Plot:
    """Bars, lines or points; the page gives each a table of its numbers."""

    caption: str
    form: Literal["bars", "lines", "points"]
    x: Column
    views: Sequence[View]
    type: Literal["plot"] = "plot"


@dataclass(frozen=True)
class Strip:
    """Layers in the order of the forward pass, as wide as they cost, coloured by one of several measures."""

    caption: str
    measures: Sequence[Column]
    names: Sequence[str]
    widths: Sequence[float]
    values: Sequence[Sequence[float | None]]
    notes: Sequence[str]
    type: Literal["strip"] = "strip"


@dataclass(frozen=True)
class Ranks:
    """Spectra of layers, or errors at ranks on offer, with ranks that can be moved, and what they cost and lose."""

    caption: str
    error: str
    totals: Mapping[str, tuple[int, int]]
    layers: Sequence[Mapping[str, Any]]
    type: Literal["ranks"] = "ranks"


@dataclass(frozen=True)
class Lines:
    """Lines of text, or of what is typed in a terminal."""

    lines: Sequence[str]
    typed: bool = False
    type: Literal["lines"] = "lines"


Block = Table | Plot | Strip | Ranks | Lines


@dataclass(frozen=True)
class Section:
    """Blocks under a heading."""

    id: str
    title: str
    text: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Figure:
    """A figure before and after, with what that makes; of what was not compared, ``after`` alone."""

    label: str
    kind: Kind
    before: float | None
    after: float | None
    change: str = ""
    note: str = ""


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes
    ----------
    verdict
        All in one line.
    missing
        What was not measured or not kept, and how it is had.
    """

    title: str
    verdict: str
    origin: str
    figures: Sequence[Figure] = ()
    warnings: Sequence[str] = ()
    missing: Sequence[str] = ()
    sections: Sequence[Section] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """As JSON data, which has no infinite numbers."""
        found: dict[str, Any] = _finite(asdict(self))
        return found


def listed(values: Mapping[str, object]) -> list[str]:
    """Lines of names and values, without those that say nothing."""
    known = ((name, value) for name, value in values.items() if value is not None)
    return [
        f"{name}: {value:.5g}" if isinstance(value, float) else f"{name}: {value}" for name, value in known
    ]


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite(entry) for name, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list | tuple) else value

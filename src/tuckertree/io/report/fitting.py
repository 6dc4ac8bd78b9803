"""Tables that fit the width they are printed at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tuckertree._base.errors import printable

_SHARE, _LEAST = 0.35, 16
"""Of a narrow line the first column, of names, gets this share, and at least so many signs; longer ones are folded."""
_NAMED = 3


@dataclass(frozen=True)
class FittingTable:
    """A table that leaves columns out until it fits, and says which.

    Attributes
    ----------
    columns
        Heads; one that begins with ``>`` is set flush right. The first column holds names.
    rows
        Cells, as plain text.
    expendable
        Heads, without ``>``, of columns that can be left out where there are such, in this order.
    note
        The head of a column of remarks, if there is one. Left out, each remark is told below the table, with whom it is about.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    expendable: Sequence[str] = ()
    note: str | None = None

    @property
    def row_count(self) -> int:
        """Number of rows."""
        return len(self.rows)

    @property
    def heads(self) -> list[str]:
        """Heads of all columns."""
        return [column.lstrip(">") for column in self.columns]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        """See rich."""
        made, hidden = self._fitted(console, options)
        yield made
        if self.note in hidden:
            yield from map(Text, self._remarks(self.note))
        if rest := [head for head in hidden if head != self.note]:
            yield Text(
                f"not shown at this width: {', '.join(map(_in_one_line, rest))} (COLUMNS=200 shows all)"
            )

    def _fitted(self, console: Console, options: ConsoleOptions) -> tuple[Table, list[str]]:
        """The table with as many columns as fit, and the heads of the others."""
        wide = self._make(())
        if _width(wide, console, options) <= options.max_width:
            return wide, []
        hidden: list[str] = []
        longest = max(_LEAST, round(_SHARE * options.max_width))
        for head in (self.note, *self.expendable):
            if head not in self.heads:
                continue
            hidden.append(head)
            made = self._make(hidden, longest)
            if _width(made, console, options) <= options.max_width:
                return made, hidden
        return self._make(hidden, longest), hidden

    def _make(self, hidden: Sequence[str], longest_name: int | None = None) -> Table:
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        shown = [number for number, head in enumerate(self.heads) if head not in hidden]
        for number in shown:
            made.add_column(
                self.heads[number],
                justify="right" if self.columns[number].startswith(">") else "left",
                overflow="fold",
                no_wrap=number > 0,
                max_width=longest_name if number == 0 else None,
            )
        for row in self.rows:
            made.add_row(*(Text(printable(row[number])) for number in shown))  # Text: nothing in it is markup
        return made

    def _remarks(self, head: str) -> Iterator[str]:
        about: dict[str, list[str]] = {}
        for row in self.rows:
            if remark := row[self.heads.index(head)]:
                about.setdefault(remark, []).append(row[0])
        for remark, names in about.items():
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            yield printable(f"{remark}: {', '.join(names[:_NAMED])}{more}")


def _width(table: Table, console: Console, options: ConsoleOptions) -> int:
    return Measurement.get(console, options.update(width=10_000), table).maximum


def _in_one_line(head: str) -> str:
    return head.replace("\n", " ")

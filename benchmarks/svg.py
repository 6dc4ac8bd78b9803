"""Pictures of measurements: panels of lines side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDE, HIGH, LEFT, RIGHT, TOP, BOTTOM = 300, 240, 48, 12, 34, 44
LEGEND, LABEL = 20, 100


@dataclass(frozen=True)
class Panel:
    """Points ``(x, y)`` of each line, above 0, from its name; what the axis across says; whether the one upwards is linear.

    ``upwards`` is what that one says, where it is not the same in all panels of a picture.
    """

    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    across: str
    linear: bool = False
    upwards: str | None = None


def picture(panels: Sequence[Panel], colours: Mapping[str, str], upwards: str, columns: int) -> str:
    """All panels, row by row, on a white ground with one legend.

    Parameters
    ----------
    colours
        Of the lines, by name, in the order of the legend.
    upwards
        What the axis upwards says.
    """
    rows = -(-len(panels) // columns)
    names = [name for name in colours if any(panel.lines.get(name) for panel in panels)]
    in_row = (columns * WIDE - LEFT) // LABEL
    wide, high = columns * WIDE, rows * HIGH + LEGEND * -(-len(names) // in_row) + 8
    parts = [
        f'<g transform="translate({number % columns * WIDE},{number // columns * HIGH})">{_panel(panel, colours, panel.upwards or upwards)}</g>'
        for number, panel in enumerate(panels)
    ]
    for number, name in enumerate(names):
        x, y = LEFT + LABEL * (number % in_row), rows * HIGH + LEGEND * (number // in_row) + 16
        parts.append(f'<path d="M{x} {y - 4}h18" stroke="{colours[name]}" stroke-width="3"/>')
        parts.append(text(x + 24, y, name, "start"))
    return document(wide, high, f"{upwards} by {', '.join(names)}", parts)


def document(wide: int, high: int, label: str, parts: Sequence[str]) -> str:
    """A picture of some parts on a white ground; ``label`` is what a screen reader says of it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" role="img" '
        f'aria-label="{escape(label)}">\n'
        f'<rect width="{wide}" height="{high}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def text(x: float, y: float, what: str, anchor: str, size: int = 12) -> str:
    """A piece of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#222222">{escape(what)}</text>'


def _panel(panel: Panel, colours: Mapping[str, str], upwards: str) -> str:
    points = [point for line in panel.lines.values() for point in line]
    parts = [text(LEFT, 20, panel.title, "start", 13)]
    if not points:
        return "".join(parts)
    across = _Axis(sorted({x for x, _ in points}))
    up = _Axis(sorted({y for _, y in points}), linear=panel.linear)

    def at(point: tuple[float, float]) -> tuple[float, float]:
        x = LEFT + (WIDE - LEFT - RIGHT) * across.place(point[0])
        return x, HIGH - BOTTOM - (HIGH - TOP - BOTTOM) * up.place(point[1])

    for value in across.values:
        x, _ = at((value, up.low))
        parts.append(text(x, HIGH - BOTTOM + 15, f"{value:.3g}", "middle", 10))
    for value in up.ticks():
        _, y = at((across.low, value))
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDE - RIGHT}" stroke="#dddddd"/>')
        parts.append(text(LEFT - 5, y + 4, f"{value:g}", "end", 10))
    parts.append(text((LEFT + WIDE - RIGHT) / 2, HIGH - BOTTOM + 30, panel.across, "middle", 11))
    parts.append(
        f'<g transform="rotate(-90)">{text(-(TOP + HIGH - BOTTOM) / 2, 12, upwards, "middle", 11)}</g>'
    )
    for name, line in panel.lines.items():
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, line))
        parts.append(f'<polyline points="{places}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
        for point in line:
            x, y = at(point)
            told = escape(f"{name}: {point[1]:.3g} at {point[0]:.3g}")
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colours[name]}"><title>{told}</title></circle>'
            )
    return "".join(parts)


@dataclass(frozen=True)
class _Axis:
    """An axis over values that rise, logarithmic or linear, with a tenth of room at its ends."""

    values: Sequence[float]
    linear: bool = False

    @property
    def low(self) -> float:
        """Where it begins."""
        first, last = self.values[0], self.values[-1]
        return first - 0.1 * (last - first or 1) if self.linear else first / 1.1

    @property
    def high(self) -> float:
        """Where it ends."""
        first, last = self.values[0], self.values[-1]
        return last + 0.1 * (last - first or 1) if self.linear else 1.1 * last

    def place(self, value: float) -> float:
        """Where a value lies, from 0 to 1."""
        if self.linear:
            return (value - self.low) / (self.high - self.low)
        return math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[float]:
        """Round numbers within the axis."""
        if self.linear:
            power = 10.0 ** math.floor(math.log10(self.high - self.low))
            step = next(
                power * each
                for each in (0.1, 0.2, 0.5, 1)
                if self.high - self.low <= 8 * power * each or each == 1
            )
            every = [
                step * number
                for number in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)
            ]
            return [round(value, 6) for value in every]
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        digits = [digit * 10.0**power for power in range(first, last + 1) for digit in (1, 2, 5)]
        return [value for value in digits if self.low <= value <= self.high]

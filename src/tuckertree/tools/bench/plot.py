"""A bar chart as SVG, in a few lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tuckertree.tools.bench.measuring import Measured

_WIDTH, _NAMES, _BARS, _ROW = 900, 320, 400, 26
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")


def bar_chart(rows: Sequence[Measured]) -> str:
    """Draw the median time of every row, with its quartiles, runtime by runtime."""
    longest = max(row.seconds.high for row in rows)
    colours = {
        name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(dict.fromkeys(r.name for r in rows))
    }
    parts, y, runtime = [], 10, ""
    for row in rows:
        if row.runtime != runtime:
            runtime, y = row.runtime, y + 26
            parts.append(_text(10, y, f"{runtime}, batch {row.batch}, {row.threads} threads", bold=True))
            y += 10
        low, middle, high = (
            _NAMES + _BARS * t / longest for t in (row.seconds.low, row.seconds.median, row.seconds.high)
        )
        label = f"{row.seconds.median * 1e3:.3g} ms"
        if row.name != rows[0].name:
            label += f"  {1 / row.time_ratio.median:.2f}x faster, {1 / row.mac_ratio:.2f}x fewer MACs"
        parts += [
            _text(_NAMES - 8, y + 15, row.name[-44:], anchor="end"),
            f'<rect x="{_NAMES}" y="{y + 3}" width="{middle - _NAMES:.1f}" height="16" '
            f'fill="{colours[row.name]}"/>',
            f'<path d="M{low:.1f} {y + 11}H{high:.1f}" stroke="#222" stroke-width="1.5"/>',
            _text(round(high) + 8, y + 15, label),
        ]
        y += _ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 20}" '
        'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{_WIDTH}" height="{y + 20}" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _text(x: int, y: int, text: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'

"""Draw the figures of docs/mathematics.md from the packaged ResNet-20, as SVG, with nothing but tuckertree.

    python scripts/figures.py

The same weights give the same figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import floor, log10
from pathlib import Path

import torch

import tuckertree as tt
from tuckertree.core.decomposition.factors import decompose
from tuckertree.core.decomposition.truncation import Truncations

FIGURES = Path(__file__).parents[1] / "docs/figures"
LAYER = "layer3.1.conv1"
COLOURS = ("#00796b", "#d84315", "#5e35b1")
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 340, 64, 52
Line = Sequence[tuple[float, float]]


def svg(body: str, height: int, title: str) -> str:
    """A picture with a ground of its own, so that it can be read on light and on dark pages."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-family="sans-serif" font-size="13">\n'
        f'<title>{escape(title)}</title>\n<rect width="{WIDTH}" height="{height}" rx="8" fill="#fff"/>\n{body}</svg>\n'
    )


def text(x: float, y: float, said: str, anchor: str = "middle", more: str = "") -> str:
    """Words at a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#222"{more}>{escape(said)}</text>\n'


def step(most: float) -> float:
    """A fourth of an axis that reaches as far as this, in a round number."""
    scale = 10.0 ** floor(log10(most / 4))
    return next(
        size * scale for size in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if size * scale >= most / 4 - 1e-9
    )


def chart(lines: Mapping[str, Line], title: str, x_name: str, y_name: str) -> str:
    """Lines over one pair of axes that begin at zero, with a legend."""
    steps = [step(max(point[axis] for line in lines.values() for point in line)) for axis in (0, 1)]
    right, top = 4 * steps[0], 4 * steps[1]

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + x / right * (WIDTH - LEFT - 24), HEIGHT - BOTTOM - y / top * (HEIGHT - BOTTOM - 28)

    parts = []
    for k in range(5):
        (x, low), (left, y) = at(right * k / 4, 0), at(0, top * k / 4)
        parts.append(
            f'<path d="M{left:.1f} {y:.1f}H{WIDTH - 24}M{x:.1f} {low:.1f}V28" stroke="#ddd" fill="none"/>\n'
        )
        parts += [
            text(x, low + 18, f"{right * k / 4:.3g}"),
            text(left - 8, y + 4, f"{top * k / 4:.3g}", "end"),
        ]
    for number, (name, line) in enumerate(lines.items()):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line))
        colour, dash = COLOURS[number], ("", ' stroke-dasharray="7 4"', ' stroke-dasharray="2 4"')[number]
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"{dash}/>\n'
        )
        y = 46 + 20 * number
        parts.append(
            f'<path d="M{WIDTH - 250} {y - 4}h30" stroke="{colour}" stroke-width="2.5" fill="none"{dash}/>\n'
        )
        parts.append(text(WIDTH - 212, y, name, "start"))
    parts.append(text((LEFT + WIDTH) / 2, HEIGHT - 12, x_name))
    parts.append(text(18, HEIGHT / 2, y_name, more=f' transform="rotate(-90 18 {HEIGHT / 2:.0f})"'))
    return svg("".join(parts), HEIGHT, title)


def chain() -> str:
    """A layer and the four that take its place."""
    boxes = (("1x1", "C to R1", "U1"), ("D1x1", "R1 to R13", "G1"), ("1xD2", "R13 to R3", "G2"))
    boxes = (*boxes, ("1x1", "R3 to T, bias", "U3"))
    parts = [
        f'<rect x="220" y="22" width="200" height="52" rx="6" fill="#fbe9e7" stroke="{COLOURS[1]}"/>\n',
        text(320, 44, "D1xD2 convolution, C to T"),
        text(320, 64, "W: T C D1 D2 numbers"),
        text(320, 100, "becomes"),
    ]
    for number, (size, channels, factor) in enumerate(boxes):
        x = 16 + number * 155
        parts.append(
            f'<rect x="{x}" y="116" width="132" height="72" rx="6" fill="#e0f2f1" stroke="{COLOURS[0]}"/>\n'
        )
        parts += [text(x + 66, 138 + 20 * k, said) for k, said in enumerate((size, channels, factor))]
        if number:
            parts.append(
                f'<path d="M{x - 22} 152h18m-6 -5l6 5l-6 5" fill="none" stroke="#222" stroke-width="1.5"/>\n'
            )
    parts.append(
        text(320, 214, "C R1 + D1 R1 R13 + D2 R13 R3 + R3 T numbers, stride and padding shared out by axis")
    )
    return svg("".join(parts), 230, "A convolution and the chain of four that takes its place")


def kernel() -> torch.Tensor:
    """The kernel of the layer, ``W[1, T, C, D1, D2]``."""
    return tt.build("demo").get_submodule(LAYER).weight.detach()[None].double()


def spectra() -> str:
    """Singular values at the three cuts, and what an energy of 0.9 keeps."""
    bonds = Truncations(kernel()).spectra.bonds
    names = ("C | D1 D2 T: R1", "C D1 | D2 T: R13", "C D1 D2 | T: R3")
    lines = {
        name: [(k + 1.0, float(v)) for k, v in enumerate(bonds[b].squared.clamp(min=0).sqrt())]
        for b, name in enumerate(names)
    }
    return chart(lines, f"Singular values of {LAYER}", "number", "singular value")


def errors() -> str:
    """True squared error beside two bounds of it, over the share of the numbers that are kept."""
    weight = kernel()
    found = Truncations(weight)
    bonds, whole = found.spectra.bonds, float(weight.square().sum())
    lines: dict[str, list[tuple[float, float]]] = {"textbook: three tails": [], "our bound": [], "true": []}
    for percent in range(40, 100, 3):
        ranks = [int((bonds[b].squared.cumsum(0) / whole <= percent / 100).sum()) + 1 for b in range(3)]
        factors = decompose(weight, ranks, (0, 1, 2))
        kept = list(factors.ranks)
        share = factors.parameters / weight.numel()
        core = weight.movedim(1, -1)[0]
        made = factors.cores[0][0]
        for part in factors.cores[1:]:
            made = torch.tensordot(made, part[0], dims=1)
        true = float((core - made.reshape(core.shape)).square().sum())
        bound = float(found.errors((0, 1, 2), [torch.tensor([rank]) for rank in kept]).squeeze())
        textbook = sum(float(bonds[b].tails[rank]) for b, rank in enumerate(kept))
        for line, value in zip(lines.values(), (textbook, bound, true), strict=True):
            line.append((share, value / whole))
    return chart(
        lines, f"Squared error of {LAYER} and its bounds", "share of the numbers", "relative squared error"
    )


def curve() -> str:
    """The trade-off curve of the network."""
    points = tt.trade_off_curve(tt.build("demo"), torch.zeros(1, 3, 32, 32))
    whole = max(point.parameters for point in points)
    line = [(point.parameters / whole, point.loss) for point in points]
    return chart(
        {"budgets of parameters": line}, "Trade-off of ResNet-20", "share of the parameters", "predicted loss"
    )


def figures() -> dict[str, str]:
    """All figures by the names of their files."""
    return {"chain.svg": chain(), "spectra.svg": spectra(), "errors.svg": errors(), "curve.svg": curve()}


def main() -> None:
    """Write them."""
    for name, drawn in figures().items():
        (FIGURES / name).write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()

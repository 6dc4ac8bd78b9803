"""Tables with a drawing in a column: spectra, and the trade-off curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tuckertree.core.decomposition import Spectra
from tuckertree.io.report.fitting import FittingTable
from tuckertree.io.report.tables import short
from tuckertree.planning import LayerPlan, OfferedRecord, TradeOff

ENERGIES = (0.95, 0.9, 0.8, 0.7, 0.5)
_LEVELS = " ▁▂▃▄▅▆▇█"
_WIDTH = 24


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """Draw values from 0 to 1 as columns of a height of eight, at most ``width`` of them.

    Examples
    --------
    >>> from tuckertree.io.report.drawing import sparkline
    >>> sparkline([1.0, 0.5, 0.25, 0.0])
    '█▄▂ '
    >>> len(sparkline([0.5] * 100))
    24
    """
    count = min(width, len(values))
    chosen = (values[round(i * (len(values) - 1) / max(1, count - 1))] for i in range(count))
    return "".join(_LEVELS[round(min(1.0, max(0.0, value)) * (len(_LEVELS) - 1))] for value in chosen)


def bar(share: float, width: int = _WIDTH) -> str:
    """Draw a share as a bar, to an eighth of a sign.

    Examples
    --------
    >>> from tuckertree.io.report.drawing import bar
    >>> bar(0.5, width=4), bar(0.2, width=4), bar(1, width=4)
    ('██', '▊', '████')
    """
    whole, part = divmod(round(min(1.0, max(0.0, share)) * width * 8), 8)
    return "█" * whole + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[part]


Offered = Mapping[str, tuple[LayerPlan, OfferedRecord]]
"""Layers of a compressed network whose method has ranks on offer in place of a spectrum, by name."""


def spectra_table(spectra: Mapping[str, Spectra], offered: Offered | None = None) -> FittingTable:
    """Table of the singular values of each layer at each place where it can be cut, and the ranks of some energies.

    Parameters
    ----------
    offered
        Adds a row for each of these layers: the chosen rank of those on offer, the errors at these, and the least of them that
        keeps an energy.
    """
    columns = ("layer", "cut", ">full rank", "singular values", *(f">{energy:g}" for energy in ENERGIES))
    rows = []
    tried = {name: _tried_row(*each) for name, each in (offered or {}).items()}
    for name, found in spectra.items():
        for label, bond in zip(_cut_names(len(found.bonds)), found.bonds.values(), strict=True):
            values = bond.squared.clamp(min=0).sqrt()
            largest = float(values.amax())
            rows.append(
                (
                    name,
                    label,
                    f"{bond.full_rank} of {len(values)}",
                    sparkline([float(value) / largest for value in values] if largest else [0.0]),
                    *(str(bond.rank_for_energy(energy)) for energy in ENERGIES),
                )
            )
        rows += [tried.pop(name)] if name in tried else []
    rows += tried.values()
    return FittingTable(columns, rows, ("full rank", *(f"{energy:g}" for energy in (0.95, 0.7))))


def _tried_row(layer: LayerPlan, offered: OfferedRecord) -> tuple[str, ...]:
    ranks, squared = offered.ranks, offered.squared
    kept = (
        next((str(rank) for rank, error in zip(ranks, squared, strict=True) if error < 1 - energy), "-")
        for energy in ENERGIES
    )
    chosen = f"{layer.ranks[0]} of {ranks[0]}..{ranks[-1]}"
    return layer.name, layer.method, chosen, sparkline([error**0.5 for error in squared]), *kept


def _cut_names(count: int) -> Sequence[str]:
    """Names of the cuts of a layer; those of a two-dimensional convolution as the paper has them."""
    known = {1: ("R",), 3: ("R1", "R13", "R3")}
    return known.get(count) or [f"R{number}" for number in range(1, count + 1)]


def curve_table(points: Sequence[TradeOff]) -> FittingTable:
    """Table of predicted loss against budget, the largest network first, with the loss as bars."""
    whole = points[-1]
    most = max((point.loss for point in points), default=0.0)
    rows = [
        (
            f"{point.parameters / whole.parameters:.3f}",
            short(point.parameters),
            f"{point.macs / whole.macs:.3f}",
            short(point.macs),
            f"{point.loss:.4g}",
            bar(point.loss / most) if most else "",
        )
        for point in reversed(points)
    ]
    return FittingTable(
        (">params", ">parameters", ">macs", ">MACs", ">predicted loss", "of the largest"),
        rows,
        ("of the largest",),
    )

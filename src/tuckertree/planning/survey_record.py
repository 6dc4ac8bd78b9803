"""What a plan was chosen by, small enough to be kept: spectra at a few ranks, what ranks cost, the trade-off curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from tuckertree._base.errors import UsageError
from tuckertree.core.decomposition import Bond, Spectra
from tuckertree.core.layers import get_method, stage_macs
from tuckertree.planning.budget import TradeOff
from tuckertree.planning.inventory import Inventory, Layer
from tuckertree.planning.plan import LayerPlan, Plan

POINTS = 64
"""At most so many ranks of a bond are kept, at equal ratios."""
_DIGITS = 4


@dataclass(frozen=True)
class BondRecord:
    """The spectrum of one bond at some ranks.

    Attributes
    ----------
    ranks
        Rising from 1; the last is the largest that there is, and the chosen one is among them.
    values
        The singular value of each, over the largest.
    tails
        Share of the kernel's squared norm that is lost by keeping so many.

    Raises
    ------
    UsageError
        If these are not as many, or the ranks do not rise from 1.
    """

    ranks: tuple[int, ...]
    values: tuple[float, ...]
    tails: tuple[float, ...]

    def __post_init__(self) -> None:
        rising = sorted({*self.ranks}) == list(self.ranks)
        if not rising or self.ranks[:1] != (1,) or not len(self.ranks) == len(self.values) == len(self.tails):
            raise UsageError("a spectrum has ranks that rise from 1, and a value and a tail for each")

    @classmethod
    def of(cls, bond: Bond, chosen: int) -> BondRecord:
        """Read it off a spectrum."""
        count = len(bond.squared)
        spread = torch.logspace(0, 1, POINTS - 1, base=float(count)).round().long().tolist()
        ranks = sorted({*spread, chosen} if count > POINTS else range(1, count + 1))
        norm, largest = float(bond.tails[0]) or 1.0, float(bond.squared.amax()) or 1.0
        return cls(
            tuple(ranks),
            tuple(_rounded((float(bond.squared[rank - 1]) / largest) ** 0.5) for rank in ranks),
            tuple(_rounded(float(bond.tails[rank]) / norm) for rank in ranks),
        )


@dataclass(frozen=True)
class StageRecord:
    """What one plain layer of a chain costs: ``parameters * product(rank ** exponent)``, MACs likewise."""

    parameters: int
    macs: int
    exponents: tuple[int, ...]


@dataclass(frozen=True)
class LayerRecord:
    """A bond for each rank of a compressed layer, and what the layer costs at any ranks."""

    bonds: tuple[BondRecord, ...]
    stages: tuple[StageRecord, ...]

    def __post_init__(self) -> None:
        if any(len(stage.exponents) != len(self.bonds) for stage in self.stages):
            raise UsageError("a stage has an exponent for each bond")

    def costs(self, ranks: Sequence[int]) -> tuple[int, int]:
        """Parameters and MACs at some ranks."""
        parameters = macs = 0
        for stage in self.stages:
            times = 1
            for rank, exponent in zip(ranks, stage.exponents, strict=True):
                times *= rank**exponent
            parameters, macs = parameters + stage.parameters * times, macs + stage.macs * times
        return parameters, macs


@dataclass(frozen=True)
class SurveyRecord:
    """What a plan was chosen by.

    Attributes
    ----------
    layers
        Of compressed layers whose method has a spectrum for each rank, by name; in the metric that errors were weighed in.
    curve
        The predicted loss at every budget, where the rule chose for the whole network.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(8, 16, 3), torch.nn.Conv2d(16, 32, 3))
    >>> result = tt.compress(model, torch.zeros(1, 8, 9, 9), tt.Budget(params=0.5), methods=("svd",))
    >>> layer = result.plan.compressed[-1]
    >>> result.survey.layers[layer.name].costs(layer.ranks) == (layer.parameters[1], layer.macs[1])
    True
    """

    layers: Mapping[str, LayerRecord]
    curve: tuple[TradeOff, ...] = ()

    def to_json(self) -> dict[str, object]:
        """As JSON data."""
        return asdict(self)


def values_alone(spectra: Spectra) -> Spectra:
    """The same without bases, which take far more memory."""
    return replace(spectra, bonds={number: Bond(bond.squared) for number, bond in spectra.bonds.items()})


def record_survey(
    plan: Plan, inventory: Inventory, spectra: Mapping[str, Spectra], curve: Sequence[TradeOff] = ()
) -> SurveyRecord | None:
    """What is known of the layers that a plan compresses; None if nothing, as of a plan that was given."""
    of = {layer.name: layer for layer in inventory.layers}
    found = {
        layer.name: _recorded(layer, of[layer.name], spectra[layer.name])
        for layer in plan.compressed
        if layer.name in spectra and layer.name in of
    }
    layers = {name: record for name, record in found.items() if record}
    return SurveyRecord(layers, tuple(curve)) if layers or curve else None


def _recorded(plan: LayerPlan, layer: Layer, spectra: Spectra) -> LayerRecord | None:
    """A layer; None where its ranks are no ranks of bonds, or hidden channels changed what it costs."""
    how = get_method(plan.method)
    cuts = how.cuts(layer.spec)
    if len(cuts) != len(plan.ranks) or not all(cut in spectra.bonds for cut in cuts):
        return None
    if any(rank > len(spectra.bonds[cut].squared) for cut, rank in zip(cuts, plan.ranks, strict=True)):
        return None
    scaling = how.scaling(layer.spec)
    macs = [0] * len(scaling.stages)
    for call in layer.calls:
        counted = stage_macs(scaling.stages, call.size_in, call.size_out)
        macs = [total + call.samples * more for total, more in zip(macs, counted, strict=True)]
    record = LayerRecord(
        tuple(BondRecord.of(spectra.bonds[cut], rank) for cut, rank in zip(cuts, plan.ranks, strict=True)),
        tuple(
            StageRecord(stage.spec.weights, count, exponents)
            for stage, count, exponents in zip(scaling.stages, macs, scaling.weights, strict=True)
        ),
    )
    return record if record.costs(plan.ranks) == (plan.parameters[1], plan.macs[1]) else None


def _rounded(share: float) -> float:
    return float(f"{max(share, 0.0):.{_DIGITS}g}")

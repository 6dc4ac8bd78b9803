"""What a plan was chosen by, small enough to be kept: spectra and errors at a few ranks, what ranks cost, the trade-off curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil

import torch

from tuckertree._base.errors import UsageError
from tuckertree.core.decomposition import Bond, Spectra
from tuckertree.core.layers import Choices, get_method, stage_macs
from tuckertree.planning.budget import TradeOff
from tuckertree.planning.inventory import Inventory, Layer
from tuckertree.planning.plan import LayerPlan, Plan

POINTS = 64
"""At most so many ranks of a bond are kept, at equal ratios; of those on offer about so many."""
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
class OfferedRecord:
    """The ranks on offer of a method that has one rank and no spectrum for it, such as ``depthwise``.

    Attributes
    ----------
    ranks
        Rising; the chosen one is among them.
    squared
        The squared relative error at each.

    Raises
    ------
    UsageError
        If there are none, these are not as many, or the ranks do not rise from at least 1.
    """

    ranks: tuple[int, ...]
    squared: tuple[float, ...]

    def __post_init__(self) -> None:
        rising = sorted({*self.ranks}) == list(self.ranks)
        if not self.ranks or not rising or self.ranks[0] < 1 or len(self.ranks) != len(self.squared):
            raise UsageError("ranks on offer rise from at least 1, and each has a squared error")
        if not all(0 <= each <= 1 for each in self.squared):
            raise UsageError("ranks on offer have squared relative errors from 0 to 1")

    @classmethod
    def of(cls, choices: Choices, chosen: int) -> OfferedRecord | None:
        """Read it off what a method offers; None if the chosen rank is not on offer."""
        errors = dict[int, float]()
        for (rank,), error in zip(choices.ranks.tolist(), choices.squared.tolist(), strict=True):
            errors[rank] = min(error, errors.get(rank, error))
        if chosen not in errors:
            return None
        every, step = sorted(errors), ceil(len(errors) / POINTS)
        ranks = sorted({*every[::step], chosen, every[-1]})
        return cls(tuple(ranks), tuple(_rounded(errors[rank]) for rank in ranks))


@dataclass(frozen=True)
class StageRecord:
    """What one plain layer of a chain costs: ``parameters * product(rank ** exponent)``, MACs likewise."""

    parameters: int
    macs: int
    exponents: tuple[int, ...]


@dataclass(frozen=True)
class LayerRecord:
    """A bond for each rank of a compressed layer, or the one rank's values on offer; and what the layer costs at any ranks."""

    bonds: tuple[BondRecord, ...]
    stages: tuple[StageRecord, ...]
    offered: OfferedRecord | None = None

    def __post_init__(self) -> None:
        if self.bonds and self.offered:
            raise UsageError("a layer has either bonds or ranks on offer")
        count = 1 if self.offered else len(self.bonds)
        if any(len(stage.exponents) != count for stage in self.stages):
            raise UsageError("a stage has an exponent for each rank")

    def fits(self, ranks: Sequence[int]) -> bool:
        """Whether it is of a layer with these ranks."""
        if self.offered:
            return len(ranks) == 1 and ranks[0] in self.offered.ranks
        return len(ranks) == len(self.bonds)

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
        Of compressed layers whose method has a spectrum for each rank, or one rank that was tried, by name; in the metric that
        errors were weighed in.
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
        data = asdict(self)
        for layer in data["layers"].values():
            if layer["offered"] is None:
                del layer["offered"]
        return data

    def known(self, plan: Plan) -> dict[str, tuple[LayerPlan, LayerRecord]]:
        """The compressed layers of a plan that it knows and whose ranks fit, in the plan's order."""
        pairs = ((layer, self.layers.get(layer.name)) for layer in plan.compressed)
        return {layer.name: (layer, found) for layer, found in pairs if found and found.fits(layer.ranks)}


def values_alone(spectra: Spectra) -> Spectra:
    """The same without bases, which take far more memory."""
    return replace(spectra, bonds={number: Bond(bond.squared) for number, bond in spectra.bonds.items()})


def record_survey(
    plan: Plan,
    inventory: Inventory,
    spectra: Mapping[str, Spectra],
    offered: Mapping[str, Mapping[str, Choices]],
    curve: Sequence[TradeOff] = (),
) -> SurveyRecord | None:
    """What is known of the layers that a plan compresses; None if nothing, as of a plan that was given.

    Parameters
    ----------
    spectra, offered
        By layer; of the latter by method, as :attr:`Candidates.offered <tuckertree.planning.Candidates.offered>`.
    """
    of = {layer.name: layer for layer in inventory.layers}
    found = {
        layer.name: _recorded(layer, of[layer.name], spectra[layer.name], offered.get(layer.name, {}))
        for layer in plan.compressed
        if layer.name in spectra and layer.name in of
    }
    layers = {name: record for name, record in found.items() if record}
    return SurveyRecord(layers, tuple(curve)) if layers or curve else None


def _recorded(
    plan: LayerPlan, layer: Layer, spectra: Spectra, offered: Mapping[str, Choices]
) -> LayerRecord | None:
    """A layer; None where its ranks are neither of bonds nor on offer, or hidden channels changed what it costs."""
    how = get_method(plan.method)
    tried = OfferedRecord.of(offered[how.name], *plan.ranks) if how.name in offered else None
    bonds = () if tried else _bonds(how.cuts(layer.spec), plan.ranks, spectra)
    if not tried and not bonds:
        return None
    scaling = how.scaling(layer.spec)
    macs = [0] * len(scaling.stages)
    for call in layer.calls:
        counted = stage_macs(scaling.stages, call.size_in, call.size_out)
        macs = [total + call.samples * more for total, more in zip(macs, counted, strict=True)]
    record = LayerRecord(
        bonds,
        tuple(
            StageRecord(stage.spec.weights, count, exponents)
            for stage, count, exponents in zip(scaling.stages, macs, scaling.weights, strict=True)
        ),
        tried,
    )
    return record if record.costs(plan.ranks) == (plan.parameters[1], plan.macs[1]) else None


def _bonds(cuts: Sequence[int], ranks: Sequence[int], spectra: Spectra) -> tuple[BondRecord, ...]:
    """A bond for each rank; none where these are no ranks of bonds."""
    if len(cuts) != len(ranks) or not all(cut in spectra.bonds for cut in cuts):
        return ()
    pairs = [(spectra.bonds[cut], rank) for cut, rank in zip(cuts, ranks, strict=True)]
    if any(rank > len(bond.squared) for bond, rank in pairs):
        return ()
    return tuple(BondRecord.of(bond, rank) for bond, rank in pairs)


def _rounded(share: float) -> float:
    return float(f"{max(share, 0.0):.{_DIGITS}g}")

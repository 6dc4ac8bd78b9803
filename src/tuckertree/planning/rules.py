"""Rules: how ranks are chosen from a layer's spectra.

A rule is plain data with one method. ``Energy`` is the paper's; ``ErrorBound`` bounds the error; ``Ranks`` says
it all by hand. Each of these sees one layer at a time; a :class:`NetworkRule` sees them all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol, runtime_checkable

from tuckertree._base.errors import UsageError
from tuckertree.core.decomposition import Spectra
from tuckertree.planning.groups import Decisions
from tuckertree.planning.inventory import Inventory
from tuckertree.planning.patterns import fits
from tuckertree.planning.plan import Optimality


class Rule(Protocol):
    """Anything that can choose ranks."""

    def ranks(self, name: str, spectra: Spectra) -> tuple[int, ...] | None:
        """Choose a rank for each cut, from the C end, or None to leave the layer dense."""
        ...

    def describe(self) -> dict[str, object]:
        """The rule as JSON data, to be kept in the plan."""
        ...


@dataclass(frozen=True)
class Allocation:
    """What a rule chose for the whole network.

    Attributes
    ----------
    picks
        Number of the candidate chosen in each decision, by its name; of those that exclude each other some.
    optimality
        How good the choice is.
    """

    picks: Mapping[str, int]
    optimality: Optimality


@runtime_checkable
class NetworkRule(Protocol):
    """Anything that can choose one candidate for each layer, or group of layers, all together."""

    def choose(self, inventory: Inventory, decisions: Decisions) -> Allocation:
        """Choose candidates such that each layer that has some is decided once."""
        ...

    def describe(self) -> dict[str, object]:
        """The rule as JSON data, to be kept in the plan."""
        ...


@dataclass(frozen=True)
class Energy:
    """At each cut the smallest rank whose share of the squared singular values exceeds ``energy`` (the paper).

    ``Energy(1)`` gives full ranks. The relative error of HT-2 is at most ``sqrt(3 (1 - energy))``.

    Raises
    ------
    UsageError
        If the energy is not in (0, 1].

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> plan = tt.plan(tt.build("demo"), torch.zeros(1, 3, 32, 32), tt.Energy(0.8))
    >>> plan.parameters[1] < 0.6 * plan.parameters[0]
    True
    >>> all(layer.bound <= (3 * (1 - 0.8)) ** 0.5 for layer in plan.compressed)
    True
    """

    energy: float

    def __post_init__(self) -> None:
        if not 0 < self.energy <= 1:
            raise UsageError(f"energy must be in (0, 1], got {self.energy}")

    def ranks(self, name: str, spectra: Spectra) -> tuple[int, ...]:  # noqa: ARG002
        """See :meth:`Rule.ranks`."""
        return tuple(bond.rank_for_energy(self.energy) for bond in spectra.bonds.values())

    def describe(self) -> dict[str, object]:
        """See :meth:`Rule.describe`."""
        return {"rule": "energy", **asdict(self)}


@dataclass(frozen=True)
class ErrorBound:
    """Small ranks whose error bound is at most ``error``, relative to the norm of the weight.

    The allowance is shared evenly by the cuts, then each rank in turn is lowered as far as what the others
    left over allows: at the end no rank can be lowered by one.

    Raises
    ------
    UsageError
        If the error is not in [0, 1).

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> result = tt.compress(tt.build("demo"), torch.zeros(1, 3, 32, 32), tt.ErrorBound(0.4))
    >>> max(result.errors.values()) <= 0.4  # of the weights as they are stored
    True
    """

    error: float

    def __post_init__(self) -> None:
        if not 0 <= self.error < 1:
            raise UsageError(f"error must be in [0, 1), got {self.error}")

    def ranks(self, name: str, spectra: Spectra) -> tuple[int, ...]:  # noqa: ARG002
        """See :meth:`Rule.ranks`."""
        bonds = list(spectra.bonds.values())
        if self.error == 0:
            return tuple(bond.full_rank for bond in bonds)
        allowance = self.error**2 * spectra.squared_norm
        ranks = [bond.rank_for_tail(allowance / len(bonds)) for bond in bonds]
        for i, bond in enumerate(bonds):
            others = sum(float(b.tails[r]) for b, r in zip(bonds, ranks, strict=True)) - float(
                bond.tails[ranks[i]]
            )
            ranks[i] = min(ranks[i], bond.rank_for_tail(allowance - others))
        return tuple(ranks)

    def describe(self) -> dict[str, object]:
        """See :meth:`Rule.describe`."""
        return {"rule": "error", **asdict(self)}


@dataclass(frozen=True)
class Ranks:
    """Ranks by layer name: ``Ranks({"layer1.*": 8, "layer2.*": (8, 12, 10), "fc": 0.9})``.

    The first pattern (as in a shell) that fits a layer's name counts. An integer is the rank at every cut,
    a sequence one rank for each, a float an energy. Layers that no pattern fits stay dense. A pattern that is
    the very name of a layer fits that layer alone, where the ``names`` of all layers are known.

    Raises
    ------
    UsageError
        If a value is none of these, or no pattern is given.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> model = torch.nn.Sequential(
    ...     torch.nn.Conv2d(3, 32, 3), torch.nn.Conv2d(32, 64, 3), torch.nn.Conv2d(64, 64, 3)
    ... )
    >>> plan = tt.plan(model, torch.zeros(1, 3, 16, 16), tt.Ranks({"1": (8, 12, 10), "2": 16}))
    >>> [(layer.method, layer.ranks, layer.parameters[1]) for layer in plan.layers]
    [('dense', (), 864), ('ht2', (8, 12, 10), 1544), ('ht2', (16, 16, 16), 3584)]
    """

    layers: Mapping[str, int | float | Sequence[int]]
    names: Collection[str] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.layers:
            raise UsageError("Ranks needs at least one layer pattern")
        for pattern, value in self.layers.items():
            if isinstance(value, float):
                Energy(value)
                continue
            ranks = [value] if isinstance(value, int) else list(value)
            if not ranks or any(not isinstance(r, int) or isinstance(r, bool) or r < 1 for r in ranks):
                raise UsageError(f"{pattern}: ranks must be positive integers or an energy, got {value!r}")

    def ranks(self, name: str, spectra: Spectra) -> tuple[int, ...] | None:
        """See :meth:`Rule.ranks`."""
        for pattern, value in self.layers.items():
            if not fits(name, pattern, self.names):
                continue
            if isinstance(value, float):
                return Energy(value).ranks(name, spectra)
            ranks = (value,) * len(spectra.bonds) if isinstance(value, int) else tuple(value)
            if len(ranks) != len(spectra.bonds):
                raise UsageError(f"{name} needs {len(spectra.bonds)} ranks, {pattern!r} gives {len(ranks)}")
            return ranks
        return None

    def describe(self) -> dict[str, object]:
        """See :meth:`Rule.describe`."""
        layers = {k: v if isinstance(v, int | float) else list(v) for k, v in self.layers.items()}
        return {"rule": "ranks", "layers": layers}

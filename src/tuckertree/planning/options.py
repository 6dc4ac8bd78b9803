"""Which layers are compressed, and how, apart from their ranks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from tuckertree._base.errors import UsageError, advice
from tuckertree.core.layers import known_methods
from tuckertree.planning.channels import CHANNELS, DEFAULT_METHODS
from tuckertree.planning.inventory import Layer
from tuckertree.planning.patterns import fits
from tuckertree.planning.plan import DENSE, EXCLUDED, NOT_INCLUDED
from tuckertree.planning.rules import NetworkRule, Rule

FIRST_LAYER = ("svd", "ht2", DENSE)
Choice = Callable[[Layer], bool]


@dataclass(frozen=True)
class Options:
    """Which layers are compressed, and how, apart from their ranks.

    Attributes
    ----------
    include, exclude
        Name patterns as in a shell, or a predicate on :class:`~tuckertree.planning.inventory.Layer`; by
        default every layer is included and none excluded. A layer's very name fits that layer alone.
    first
        The first convolution: ``svd`` of the T-mode (the paper), ``ht2``, or left ``dense``. To a
        budget it is a layer like any other, unless it is left dense.
    round_to
        Ranks are rounded up to a multiple of this where there is room. None leaves it to the width of each
        layer (:func:`~tuckertree.planning.timing.rank_step`), for a budget.
    methods
        Names of the methods that a budget chooses among; ``channels`` among them lets hidden channels go. Other rules
        have HT-2, and the SVD for the first convolution, pointwise and linear layers (the paper).

    Raises
    ------
    UsageError
        If an option has a value it cannot have.
    """

    include: Sequence[str] | Choice = ("*",)
    exclude: Sequence[str] | Choice = ()
    first: str = "svd"
    round_to: int | None = 1
    methods: Sequence[str] = DEFAULT_METHODS

    def __post_init__(self) -> None:
        if self.first not in FIRST_LAYER:
            raise UsageError(f"the first layer can be {', '.join(FIRST_LAYER)}, not {self.first!r}")
        if self.round_to is not None and self.round_to < 1:
            raise UsageError(f"ranks can be rounded to a multiple of 1 or more, not {self.round_to}")
        if isinstance(self.methods, str) or not self.methods:
            raise UsageError(f"methods are several names, such as ('ht2', 'svd'), not {self.methods!r}")
        known = (*known_methods(), CHANNELS)
        for name in self.methods:
            if name not in known:
                also = advice(typed=", or default", called="")
                raise UsageError(f"unknown method {name!r}; known: {', '.join(known)}{also}")

    @property
    def of_layers(self) -> tuple[str, ...]:
        """The methods that are about one layer."""
        return tuple(name for name in self.methods if name != CHANNELS)

    def for_rule(self, rule: Rule | NetworkRule) -> Options:
        """The same, where the methods are such as the rule can use.

        Raises
        ------
        UsageError
            If it sees one layer at a time, and its two methods are not among them.
        """
        if not isinstance(rule, NetworkRule) and not {"ht2", "svd"} <= set(self.methods):
            raise UsageError(
                "methods belong to a budget, such as Budget(macs=0.5); other rules use ht2 and svd"
            )
        return self

    def among(self, layers: Sequence[Layer]) -> Options:
        """The same for these layers: a pattern that is a layer's very name is that name.

        Raises
        ------
        UsageError
            Naming a pattern that fits no layer: it is a slip of the pen.
        """
        # The pattern of the default is all layers, even if one is called so.
        names = {name for layer in layers for name in (layer.name, *layer.aliases)} - {"*"}

        def known(patterns: Sequence[str] | Choice) -> Sequence[str] | Choice:
            if callable(patterns) or not layers:
                return patterns
            for pattern in patterns:
                if not any(fits(name, pattern, names) for name in names):
                    raise UsageError(f"no layer is named {pattern!r}; `tuckertree inspect` lists the names")
            return lambda layer: _fits(layer, patterns, names)

        return replace(self, include=known(self.include), exclude=known(self.exclude))

    def method(self, layer: Layer) -> tuple[str, str]:
        """Method for a layer (``dense`` to leave it) and the reason."""
        if _fits(layer, self.exclude):
            return DENSE, EXCLUDED
        if not _fits(layer, self.include):
            return DENSE, NOT_INCLUDED
        if layer.skip_reason:
            return DENSE, layer.skip_reason
        if layer.is_first:
            return self.first, "first convolution"
        if not layer.spec.nontrivial_modes:
            return "svd", "linear" if layer.spec.kind == "linear" else "pointwise"
        return "ht2", ""


def _fits(layer: Layer, wanted: Sequence[str] | Choice, names: Collection[str] = ()) -> bool:
    if callable(wanted):
        return wanted(layer)
    return any(fits(name, pattern, names) for pattern in wanted for name in (layer.name, *layer.aliases))

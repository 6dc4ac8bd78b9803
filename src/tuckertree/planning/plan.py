"""The plan: what is to be done to each layer, as data that can be read, compared, edited and kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree._base.reading import read_as
from tuckertree.core.layers import LayerSpec, get_method, known_methods
from tuckertree.planning.channels import Pruning

DENSE = "dense"
EXCLUDED, NOT_INCLUDED = "excluded", "not included"


def list_reasons(reasons: Iterable[str]) -> str:
    """The first reasons of all, each once, for a message."""
    every = sorted(set(reasons))
    return "; ".join(every[:3]) + ("; ..." if len(every) > 3 else "")


def _check_sizes(*sizes: tuple[int, ...]) -> None:
    if any(size < 0 for row in sizes for size in row):
        raise UsageError("kernel, ranks, parameters and macs must not be negative")


@dataclass(frozen=True)
class LayerPlan:
    """What is to be done to one layer, and why.

    Applying it needs ``method`` and ``ranks``; the figures beside them are what the planner expected, and
    are not made anew when a plan is edited by hand.

    Attributes
    ----------
    name
        Where the layer is in the model.
    kind
        ``conv2d``, ``linear``, ...
    kernel
        Kernel shape ``(T, C, D1, ..., DN)`` of one group; ``groups`` is their number.
    method
        ``dense``, or the name of a method: ``ht2``, ``tucker2``, ``spatial``, ``svd``, ``depthwise``, ``cp``.
    ranks
        Of the method, for most one for each cut from the C end; empty for a dense layer.
    parameters, macs
        Weights and multiply-accumulates before and after, biases not counted; MACs at the example inputs.
    bound
        Upper bound of the relative error: of the weight, or in the metric of a budget's objective.
    reason
        Why it is so, in words.
    form
        The cuts that stay when the chain is run for a budget of latency, its other neighbours multiplied out
        (:func:`~tuckertree.core.layers.fusion_variants`); None if nothing is said about it.
    seconds
        Predicted time before and after, where a budget of latency was kept.
    group
        Names of the layers that were decided together with this one, itself among them; None if it was alone.
    precision
        Of a network in 8 bits, ``int8`` or, where that would cost too much of the outputs, ``fp32``; None if nothing is said.

    Raises
    ------
    UsageError
        If there is no such method, a size is negative, the form is none of the method's, or the group is none.

    Examples
    --------
    >>> from dataclasses import replace
    >>> import torch, tuckertree as tt
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(32, 64, 3), torch.nn.Conv2d(64, 64, 3))
    >>> plan = tt.plan(model, torch.zeros(1, 32, 16, 16), tt.Ranks({"*": 16}), first="ht2")
    >>> first, second = plan.layers
    >>> edited = replace(first, method="dense", ranks=()), replace(second, ranks=(8, 12, 8))
    >>> compressed = tt.apply(model, replace(plan, layers=edited))
    >>> [type(layer).__name__ for layer in compressed], compressed[1].ranks
    (['Conv2d', 'Chain'], (8, 12, 8))
    """

    name: str
    kind: str
    kernel: tuple[int, ...]
    groups: int
    method: str
    ranks: tuple[int, ...]
    parameters: tuple[int, int]
    macs: tuple[int, int]
    bound: float
    reason: str
    form: tuple[int, ...] | None = None
    seconds: tuple[float, float] | None = None
    group: tuple[str, ...] | None = None
    precision: Literal["fp32", "int8"] | None = None

    def __post_init__(self) -> None:
        if self.method not in (known := (*known_methods(), DENSE)):
            raise UsageError(f"method: {self.method!r} is none of {', '.join(known)}")
        if self.group is not None and (
            self.name not in self.group or len(set(self.group)) < max(2, len(self.group))
        ):
            raise UsageError(f"group: {list(self.group)} are not several layers, {self.name} among them")
        _check_sizes(self.kernel, self.ranks, self.parameters, self.macs)
        if self.form is not None:
            rising = sorted(set(self.form)) == list(self.form)
            if not self.form or not rising or not set(self.form) <= set(self._cuts()):
                raise UsageError(f"form: {list(self.form)} are not rising cuts of a {self.method} chain")

    def _cuts(self) -> tuple[int, ...]:
        """The cuts of the method in this layer, none where it is not for it."""
        if self.method == DENSE or len(self.kernel) < 2 or min(self.groups, *self.kernel) < 1:
            return ()
        spec, how = LayerSpec.of_kernel(self.kernel, self.groups), get_method(self.method)
        return how.cuts(spec) if how.applies(spec) else ()

    @property
    def left_out(self) -> bool:
        """Whether the user had it left as it is: then nothing of it changes."""
        return self.method == DENSE and self.reason in (EXCLUDED, NOT_INCLUDED)


@dataclass(frozen=True)
class Optimality:
    """How good a plan for the whole network is among all that the rule could choose from.

    Attributes
    ----------
    loss
        What the rule minimised: the sum of the layers' losses, by default their squared relative errors.
    lower_bound
        The Lagrangian bound: no choice of the rule's candidates within the budget has a smaller loss.
    multipliers
        Loss that one more unit of each budgeted quantity would save.
    """

    loss: float
    lower_bound: float
    multipliers: Mapping[str, float]

    @property
    def gap(self) -> float:
        """Certified distance from the best, as a share of the loss."""
        return (self.loss - self.lower_bound) / self.loss if self.loss > 0 else 0.0


@dataclass(frozen=True)
class Latency:
    """How the time of a whole network was predicted and measured, in its layers' planned forms.

    Attributes
    ----------
    runtime, threads, batch
        What ran it, on how many CPU threads, how many samples in one run.
    seconds
        Of one run of the dense network, undisturbed.
    target, predicted
        Shares of that time: asked for; expected from the layers' times alone.
    measured, low, high
        Share measured, both networks in turns, the least time of either, and the range that their least three leave open.
    rounds
        Plans that were measured until one kept the target.
    fastest
        Whether no plan is predicted to be faster by much: this is close to the fastest plan there is.
    missed
        Whether the target was not kept, and this is the nearest plan (:attr:`Budget.best_effort
        <tuckertree.planning.Budget.best_effort>`).
    precision
        In which the planned network was measured, ``fp32`` or ``int8``; the dense one always in single precision.

    Raises
    ------
    UsageError
        If a time or a share of one is none that a network can have.
    """

    runtime: str
    threads: int
    batch: int
    seconds: float
    target: float
    predicted: float
    measured: float
    low: float
    high: float
    rounds: int
    fastest: bool = False
    missed: bool = False
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if not all(1e-6 <= share <= 1e6 for share in (self.measured, self.low, self.high)):
            raise UsageError("measured, low and high are shares of a time: positive, from 1e-6 to 1e6")
        if not all(1e-12 <= each <= 1e12 for each in (self.seconds, self.target)):
            raise UsageError("seconds and target are positive, from 1e-12 to 1e12")

    def to_json(self) -> dict[str, Any]:
        """The same as JSON data."""
        data = asdict(self)
        if self.precision == "fp32":
            del data["precision"]
        return data


@dataclass(frozen=True)
class Plan:
    """Plans of all layers, in the order of the forward pass.

    Attributes
    ----------
    layers
        One for each convolution and linear layer of the model.
    rule
        The rule that chose the ranks, as data.
    parameters, macs
        Of the whole network before and after, other layers and biases included; MACs at the example inputs.
    optimality
        Certificate of a rule that chose for the whole network at once; other rules give none.
    latency
        What was measured for a budget of latency.
    pruned
        Hidden channels of which some go.
    before
        Those that had gone when the plan was made, stage by stage: of a network that is compressed in stages.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> plan = tt.plan(tt.build("demo"), torch.zeros(1, 3, 32, 32), tt.Energy(0.8))
    >>> len(plan.layers), plan.layers[0].method, plan.layers[0].reason
    (20, 'svd', 'first convolution')
    >>> plan.layers[2].method, plan.layers[2].parameters[1] < plan.layers[2].parameters[0]
    ('ht2', True)
    >>> tt.Plan.loads(plan.dumps()) == plan
    True
    """

    layers: tuple[LayerPlan, ...]
    rule: Mapping[str, object]
    parameters: tuple[int, int]
    macs: tuple[int, int]
    optimality: Optimality | None = None
    latency: Latency | None = None
    pruned: tuple[Pruning, ...] = ()
    before: tuple[tuple[Pruning, ...], ...] = ()

    def __post_init__(self) -> None:
        _check_sizes(self.parameters, self.macs)

    @property
    def compressed(self) -> tuple[LayerPlan, ...]:
        """The layers that become chains."""
        return tuple(layer for layer in self.layers if layer.method != DENSE)

    @property
    def changes(self) -> bool:
        """Whether anything becomes smaller: layers, or the numbers that all of them compute with."""
        return bool(self.compressed or self.pruned or (self.latency and self.latency.precision != "fp32"))

    @property
    def in_fp32(self) -> tuple[str, ...] | None:
        """Names of the layers that stay in single precision in a network in 8 bits; None where it is not decided."""
        if all(layer.precision is None for layer in self.layers):
            return None
        return tuple(layer.name for layer in self.layers if layer.precision == "fp32")

    def noted(self, notes: Mapping[str, str]) -> Plan:
        """The same plan with more in the reasons of some layers, by name."""
        layers = (
            replace(layer, reason="; ".join(filter(None, (layer.reason, notes.get(layer.name)))))
            for layer in self.layers
        )
        return replace(self, layers=tuple(layers))

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON data."""
        data = asdict(self)
        for layer in data["layers"]:
            for name in ("group", "precision"):
                if layer[name] is None:
                    del layer[name]
        if self.latency:
            data["latency"] = self.latency.to_json()
        for name in ("pruned", "before"):
            if not data[name]:
                del data[name]
        return data

    @classmethod
    def from_json(cls, data: object) -> Plan:
        """Read JSON data back, trusting none of it.

        Raises
        ------
        TuckertreeError
            If a field is missing, unknown or of the wrong type.
        """
        before = data.get("before") if isinstance(data, dict) else None
        if isinstance(before, list) and any(isinstance(each, dict) for each in before):
            raise TuckertreeError(
                "plan.before: written by an older version, which did not keep the stages apart; compress the network again"
            )
        try:
            return read_as(cls, data, "plan")
        except UsageError as error:  # nobody typed it
            raise TuckertreeError(str(error)) from error

    def dumps(self) -> str:
        """The plan as JSON text, one layer a line."""
        data = self.to_json()
        layers = ",\n".join(f"  {json.dumps(layer)}" for layer in data.pop("layers"))
        head = json.dumps(data)[1:-1]
        return f'{{{head}, "layers": [\n{layers}\n]}}\n'

    @classmethod
    def loads(cls, text: str) -> Plan:
        """Read :meth:`dumps` back.

        Raises
        ------
        TuckertreeError
            If the text is not JSON or not a plan.
        """
        try:
            return cls.from_json(json.loads(text))
        except ValueError as error:
            raise TuckertreeError(f"the plan is not JSON: {error}") from error

"""The plan: what is to be done to each layer, as data that can be read, compared, edited and kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any

from tuckertree._base.errors import TuckertreeError
from tuckertree.core.layers import LayerSpec, get_method, known_methods

DENSE = "dense"
EXCLUDED, NOT_INCLUDED = "excluded", "not included"


def list_reasons(reasons: Iterable[str]) -> str:
    """The first reasons of all, each once, for a message."""
    every = sorted(set(reasons))
    return "; ".join(every[:3]) + ("; ..." if len(every) > 3 else "")


@dataclass(frozen=True)
class LayerPlan:
    """What is to be done to one layer, and why.

    Carrying it out needs ``method`` and ``ranks``; the figures beside them are what the planner expected, and
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
        ``dense``, or the name of a method: ``ht2``, ``tucker2``, ``spatial``, ``svd``, ``cp``.
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
        (:func:`~tuckertree.core.layers.forms`); None if nothing is said about it.
    seconds
        Predicted time before and after, where a budget of latency was kept.
    group
        Names of the layers that were decided together with this one, itself among them; None if it was alone.
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
        What ran it, on how many threads of the processor, how many samples in one run.
    seconds
        Of one run of the dense network, undisturbed.
    target, predicted
        Shares of that time: asked for; expected from the layers' times alone.
    measured, low, high
        Share measured, both networks in turns: median and quartiles.
    rounds
        Plans that were measured until one kept the target.
    fastest
        Whether no plan is predicted to be faster by much: this is close to the fastest plan there is.
    missed
        Whether the target was not kept, and this is the nearest plan (:attr:`Budget.best_effort
        <tuckertree.planning.Budget.best_effort>`).
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


@dataclass(frozen=True)
class Plan:
    """Plans of all layers, in the order of the forward.

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
    """

    layers: tuple[LayerPlan, ...]
    rule: Mapping[str, Any]
    parameters: tuple[int, int]
    macs: tuple[int, int]
    optimality: Optimality | None = None
    latency: Latency | None = None

    @property
    def compressed(self) -> tuple[LayerPlan, ...]:
        """The layers that become chains."""
        return tuple(layer for layer in self.layers if layer.method != DENSE)

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
            if layer["group"] is None:
                del layer["group"]
        return data

    @classmethod
    def from_json(cls, data: Any) -> Plan:
        """Read JSON data back, trusting none of it.

        Raises
        ------
        TuckertreeError
            If a field is missing, unknown or of the wrong type.
        """
        data = _fields(cls, data, "plan")
        layers = _typed(data["layers"], list, "plan.layers")
        return cls(
            layers=tuple(_layer_from_json(layer, f"plan.layers[{i}]") for i, layer in enumerate(layers)),
            rule=_typed(data["rule"], dict, "plan.rule"),
            parameters=_pair(data["parameters"], "plan.parameters"),
            macs=_pair(data["macs"], "plan.macs"),
            optimality=_optimality(data.get("optimality"), "plan.optimality"),
            latency=_latency(data.get("latency"), "plan.latency"),
        )

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


def _layer_from_json(data: Any, where: str) -> LayerPlan:
    data = _fields(LayerPlan, data, where)
    method = _typed(data["method"], str, f"{where}.method")
    if method not in (known := (*known_methods(), DENSE)):
        raise TuckertreeError(f"{where}.method: {method!r} is none of {', '.join(known)}")
    return LayerPlan(
        name=_typed(data["name"], str, f"{where}.name"),
        kind=_typed(data["kind"], str, f"{where}.kind"),
        kernel=_integers(data["kernel"], f"{where}.kernel"),
        groups=_typed(data["groups"], int, f"{where}.groups"),
        method=method,
        ranks=_integers(data["ranks"], f"{where}.ranks"),
        parameters=_pair(data["parameters"], f"{where}.parameters"),
        macs=_pair(data["macs"], f"{where}.macs"),
        bound=_number(data["bound"], f"{where}.bound"),
        reason=_typed(data["reason"], str, f"{where}.reason"),
        form=_form(data, method, f"{where}.form"),
        seconds=_seconds(data.get("seconds"), f"{where}.seconds"),
        group=_group(data.get("group"), data["name"], f"{where}.group"),
    )


def _group(data: Any, name: str, where: str) -> tuple[str, ...] | None:
    if data is None:
        return None
    group = tuple(_typed(each, str, where) for each in _typed(data, (list, tuple), where))
    if len(set(group)) < max(2, len(group)) or name not in group:
        raise TuckertreeError(f"{where}: {data!r} are not the names of several layers, this one among them")
    return group


def _form(layer: dict[str, Any], method: str, where: str) -> tuple[int, ...] | None:
    if (data := layer.get("form")) is None:
        return None
    form, known = _integers(data, where), tuple[int, ...]()
    if method != DENSE and len(layer["kernel"]) > 1 and min(layer["groups"], *layer["kernel"]) > 0:
        spec, how = LayerSpec.of_kernel(layer["kernel"], layer["groups"]), get_method(method)
        known = how.cuts(spec) if how.applies(spec) else ()
    if not form or sorted(set(form)) != list(form) or not set(form) <= set(known):
        raise TuckertreeError(f"{where}: {data!r} are not rising cuts of a {method} chain")
    return form


def _seconds(data: Any, where: str) -> tuple[float, float] | None:
    if data is None:
        return None
    if not isinstance(data, list | tuple) or len(data) != 2:
        raise TuckertreeError(f"{where} must be [before, after], not {data!r}")
    return _number(data[0], where), _number(data[1], where)


def _latency(data: Any, where: str) -> Latency | None:
    if data is None:
        return None
    data = _fields(Latency, data, where)
    kinds = {"runtime": str, "threads": int, "batch": int, "rounds": int, "fastest": bool, "missed": bool}
    values: dict[str, Any] = {
        key: _typed(value, kinds[key], f"{where}.{key}") if key in kinds else _number(value, f"{where}.{key}")
        for key, value in data.items()
    }
    return Latency(**values)


def _optimality(data: Any, where: str) -> Optimality | None:
    if data is None:
        return None
    data = _fields(Optimality, data, where)
    multipliers = _typed(data["multipliers"], dict, f"{where}.multipliers")
    return Optimality(
        loss=_number(data["loss"], f"{where}.loss"),
        lower_bound=_number(data["lower_bound"], f"{where}.lower_bound"),
        multipliers={key: _number(multipliers[key], f"{where}.multipliers.{key}") for key in multipliers},
    )


def _fields(kind: type, data: Any, where: str) -> dict[str, Any]:
    """Check that data has a class's fields and no others; one with a default may be absent."""
    known = {field.name for field in fields(kind)}
    needed = {field.name for field in fields(kind) if field.default is MISSING}
    if not isinstance(data, dict) or not needed <= set(data) <= known:
        found = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise TuckertreeError(f"{where} must have exactly the fields {sorted(known)}, found {found}")
    return data


def _typed(value: Any, kind: type | tuple[type, ...], where: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TuckertreeError(f"{where} has a value of the wrong type: {value!r}")
    return value


def _number(value: Any, where: str) -> float:
    try:
        return float(_typed(value, (int, float), where))
    except OverflowError as error:
        raise TuckertreeError(f"{where} has a value that is too large for a number") from error


def _integers(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or any(type(v) is not int or v < 0 for v in value):
        raise TuckertreeError(f"{where} must be a list of integers that are not negative, not {value!r}")
    return tuple(value)


def _pair(value: Any, where: str) -> tuple[int, int]:
    numbers = _integers(value, where)
    if len(numbers) != 2:
        raise TuckertreeError(f"{where} must be [before, after], not {value!r}")
    return numbers[0], numbers[1]

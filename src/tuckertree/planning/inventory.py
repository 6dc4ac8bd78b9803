"""Inventory: which layers a model has, what each costs, and why some cannot be compressed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from tuckertree.core.layers import DENSE_TYPES, LayerSpec, Stage, chain_macs
from tuckertree.measure import ExampleInputs, count_macs, count_parameters, watch_call
from tuckertree.measure.reach import overlapping
from tuckertree.planning.accepted import check_model, peculiarity

DEPTHWISE = "depthwise: no channel mode to compress"


@dataclass(frozen=True)
class Call:
    """One use of a layer in the forward.

    Attributes
    ----------
    samples
        Batch size.
    size_in, size_out
        Spatial sizes; for a linear layer the number of positions it is applied to.
    """

    samples: int
    size_in: tuple[int, ...]
    size_out: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer of a model.

    Attributes
    ----------
    name
        Where it is in the model; ``aliases`` are other places of the same module.
    spec
        Its structure.
    calls
        Its uses in one forward pass, in order.
    skip_reason
        Why it cannot be factored, or an empty string.
    is_first
        Whether it is the first convolution that the forward pass meets.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(32, 64, 3), torch.nn.Conv2d(64, 64, 3))
    >>> def wide(layer: tt.Layer) -> bool:
    ...     return layer.spec.in_channels >= 64
    >>> plan = tt.plan(model, torch.zeros(1, 32, 16, 16), tt.Energy(0.5), include=wide)
    >>> [(layer.name, layer.method, layer.reason) for layer in plan.layers]
    [('0', 'dense', 'not included'), ('1', 'ht2', '')]
    """

    name: str
    aliases: tuple[str, ...]
    spec: LayerSpec
    calls: tuple[Call, ...]
    skip_reason: str
    is_first: bool

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all its calls."""
        return sum(call.samples * self.spec.macs(call.size_in, call.size_out) for call in self.calls)

    def chain_macs(self, stages: tuple[Stage, ...]) -> int:
        """Multiply-accumulates of all its calls if a chain stood in its place."""
        return sum(call.samples * chain_macs(stages, call.size_in, call.size_out) for call in self.calls)


@dataclass(frozen=True)
class Inventory:
    """The layers of a model in the order of the forward pass (unreached ones last), and the model's totals.

    Attributes
    ----------
    parameters, macs
        Of the whole model, other layers included; MACs at the example inputs.
    seconds
        Time of one forward pass on the runtime that a budget names, where it has been measured.
    notes
        What is not among the layers, and other things to know of the model.
    """

    layers: tuple[Layer, ...]
    parameters: int
    macs: int
    seconds: float | None = None
    notes: tuple[str, ...] = ()


def take_inventory(model: nn.Module, example_inputs: ExampleInputs) -> Inventory:
    """List a model's convolutions and linear layers by one forward pass at the example inputs.

    The model is left as it was: it runs in evaluation mode without gradients, and its modes are restored.

    Raises
    ------
    TuckertreeError
        If the model does not run on the inputs, or :func:`~tuckertree.planning.accepted.check_model` refuses it.
    """
    check_model(model)
    names = _names_by_module(model)
    # A subclass of a dense type is listed too, so that its skip reason can be read.
    dense = {module: places for module, places in names.items() if isinstance(module, DENSE_TYPES)}
    with _recording(dense) as calls:
        macs = count_macs(model, example_inputs)
    uses = _uses(names)
    first = next((module for module in calls if not isinstance(module, nn.Linear)), None)
    order = [*calls, *(module for module in dense if module not in calls)]
    layers = tuple(
        Layer(
            name=dense[module][0],
            aliases=tuple(dense[module][1:]),
            spec=LayerSpec.of(module),
            calls=tuple(calls.get(module, ())),
            skip_reason=_skip_reason(module, uses, is_called=module in calls),
            is_first=module is first,
        )
        for module in order
    )
    # The counter does not see what runs in threads of the model's own.
    macs = max(macs, sum(layer.macs for layer in layers))
    return Inventory(layers, count_parameters(model), macs)


def _names_by_module(model: nn.Module) -> dict[nn.Module, list[str]]:
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    return names


def _uses(modules: Iterable[nn.Module]) -> Counter[int]:
    """How many modules hold each parameter, or another in the same memory; by its id."""
    own = [parameter for module in modules for parameter in module.parameters(recurse=False)]
    uses = Counter(map(id, own))
    for group in overlapping({id(parameter): parameter for parameter in own}.values()):
        total = sum(uses[id(parameter)] for parameter in group)
        for parameter in group:
            uses[id(parameter)] = total
    return uses


@contextmanager
def _recording(modules: dict[nn.Module, list[str]]) -> Iterator[dict[nn.Module, list[Call]]]:
    """Record the calls of modules, in the order of each module's first call."""
    calls: dict[nn.Module, list[Call]] = {}

    def record(module: nn.Module, x: object, y: object) -> None:
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            calls.setdefault(module, []).append(_call(module, x, y))

    handles = [watch_call(module, partial(record, module)) for module in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _call(module: nn.Module, x: Tensor, y: Tensor) -> Call:
    if isinstance(module, nn.Linear):
        positions = (prod(x.shape[1:-1]),)
        return Call(x.shape[0] if x.ndim > 1 else 1, positions, positions)
    order = LayerSpec.of(module).order
    samples = x.shape[0] if x.ndim == order + 2 else 1
    return Call(samples, tuple(x.shape[-order:]), tuple(y.shape[-order:]))


def _skip_reason(module: nn.Module, uses: Counter[int], *, is_called: bool) -> str:
    """Why a layer cannot be replaced by a chain that does exactly the same, or ''."""
    dense_type = next(kind for kind in DENSE_TYPES if isinstance(module, kind))
    weight = next(module.parameters(recurse=False), None)
    if is_parametrized(module):
        return "parametrized; remove its parametrizations first"
    if _has_hooks(module):
        return "has hooks (weight_norm, spectral_norm, pruning or your own)"
    if _overrides(module, dense_type):
        own, theirs = type(module), dense_type.__name__
        name = own.__name__ if own.__name__ != theirs else f"{own.__module__}.{own.__name__}"
        return f"{name} changes the forward of {theirs}"
    if found := peculiarity(module):
        return found
    if weight is None or not weight.dtype.is_floating_point:
        return "has no real floating-point weight"
    if any(uses[id(p)] > 1 for p in module.parameters(recurse=False)):
        return "shares its weight with another layer"
    if not is_called:
        return "not called on the example input"
    if LayerSpec.of(module).groups > 1 and LayerSpec.of(module).kernel_shape[1] == 1:
        return DEPTHWISE
    return ""


def _has_hooks(module: nn.Module) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for kind in kinds)


def _overrides(module: nn.Module, dense_type: type[nn.Module]) -> bool:
    methods = ("forward", "_conv_forward", "__call__")
    if any(m in vars(module) for m in methods):  # put on this one layer, as wrappers do
        return True
    return any(getattr(type(module), m, None) is not getattr(dense_type, m, None) for m in methods)

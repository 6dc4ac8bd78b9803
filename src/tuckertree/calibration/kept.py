"""What calibration leaves as it is, to the bit: layers that are left out, frozen parameters, norms behind them.

A layer is left out by ``include`` or ``exclude``. A parameter is frozen if it takes no gradient, unless none of the
model's does: a network made ready for inference says nothing about single layers. A frozen layer that is not left
out may be compressed, which is what it is given for, but nothing else of it changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tuckertree.calibration.sources import to_model
from tuckertree.measure import ExampleInputs, run, watch_input
from tuckertree.measure.frozen import may_change
from tuckertree.planning import DENSE, Layer, Plan


@dataclass(frozen=True)
class Changeable:
    """What calibration may change in a network, by the names of its modules.

    Attributes
    ----------
    kernels
        Layers whose kernel may be fitted anew.
    biases
        Layers whose bias may be.
    behind
        For a layer the BatchNorm that its output, as it is, goes into, if its running mean may be changed.
    norms
        BatchNorms whose statistics may be taken anew.
    """

    kernels: frozenset[str]
    biases: frozenset[str]
    behind: dict[str, str] = field(default_factory=dict)
    norms: frozenset[str] = frozenset()


def changeable(model: nn.Module, plan: Plan, layers: Sequence[Layer], first: ExampleInputs) -> Changeable:
    """See by one forward pass of the original model what may be changed in the compressed one.

    Raises
    ------
    TuckertreeError
        If the model does not run.
    """
    is_free = may_change(model)
    planned = {layer.name: layer for layer in plan.layers}
    modules = {layer.name: model.get_submodule(layer.name) for layer in layers}
    compressed = {name for name, layer in planned.items() if layer.method != DENSE}
    kept = {name for name, layer in planned.items() if layer.left_out} | {
        name for name, module in modules.items() if name not in compressed and not is_free(module.weight)
    }
    biases = {name for name, m in modules.items() if name not in kept and is_free(m.bias)}
    inputs = _inputs_of_norms(model, layers, first)
    free = {
        name
        for name, seen in inputs.items()
        if all(map(is_free, model.get_submodule(name).parameters()))
        and not any(source in kept for source in seen.sources)
        and not _is_within(name, layers, kept)
    }
    once = {layer.name for layer in layers if len(layer.calls) == 1}
    behind = {
        seen.sources[0]: name
        for name, seen in inputs.items()
        if name in free and seen.direct and len(seen.sources) == 1 and seen.sources[0] in once
    }
    return Changeable(frozenset(modules) - kept, frozenset(biases), behind, frozenset(free))


@dataclass
class _Seen:
    """The layers whose outputs a norm got at its calls; ``direct`` if they came as they were."""

    sources: list[str] = field(default_factory=list)
    direct: bool = True


def _inputs_of_norms(model: nn.Module, layers: Sequence[Layer], first: ExampleInputs) -> dict[str, _Seen]:
    """For each BatchNorm with statistics the layers before it: those it follows at once, or the last ones called."""
    outputs: dict[str, tuple[Tensor, int]] = {}
    norms = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }
    found = {name: _Seen() for name in norms}
    last: list[str] = []

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: object, output: Tensor) -> None:  # noqa: ARG001
            outputs[name] = output, _version(output)
            last[:] = [name]

        return hook

    def look(name: str) -> Any:
        def see(x: object) -> None:
            # The same tensor, and nothing in it changed in place since.
            direct = [n for n, (y, version) in outputs.items() if y is x and _version(y) == version]
            found[name].sources += direct or last
            found[name].direct &= bool(direct)

        return see

    with ExitStack() as ending:
        for layer in layers:
            module = model.get_submodule(layer.name)
            ending.callback(module.register_forward_hook(keep(layer.name)).remove)
        for name, norm in norms.items():
            ending.callback(watch_input(norm, look(name)).remove)
        run(model, to_model(first, model), "the calibration images")
    return found


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _is_within(name: str, layers: Sequence[Layer], kept: set[str]) -> bool:
    """Whether the module that a norm belongs to has layers, and all of them are kept."""
    owner = name.rpartition(".")[0]
    siblings = Counter(
        layer.name in kept
        for layer in layers
        if not owner or any(place.startswith(f"{owner}.") for place in (layer.name, *layer.aliases))
    )
    return siblings[True] > 0 and not siblings[False]

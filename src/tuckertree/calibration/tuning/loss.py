"""What a network that is tuned learns: the original's outputs, and its features at the ends of blocks and stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError
from tuckertree.calibration.distances import IncomparableError
from tuckertree.calibration.sources import floating_outputs
from tuckertree.calibration.units import Units, as_it_is, units_of
from tuckertree.core.layers import DENSE_TYPES
from tuckertree.core.layers.product import is_transformed
from tuckertree.measure import ExampleInputs, call, run

NO_OUTPUTS = "a network without floating-point outputs cannot be tuned: there is no distance to lessen"
_STAGES = 4
_BLOCKS = 16
_IMAGES = "the calibration images"


class Imitation:
    """The loss of a network against the original, on the same inputs.

    Of each floating-point output its relative squared error, numbers in units of their own as in the objective
    ``outputs``; and the same of the features at up to twenty places: what the last module gives at each size of the maps,
    and what blocks give, the smallest modules that hold two layers or more, or layers where there are no blocks. With more
    places the layers learn in fewer steps.

    Parameters
    ----------
    original
        The teacher; it runs in evaluation mode.
    first
        Inputs to see the places at.

    Attributes
    ----------
    outputs
        The original's on them.
    """

    def __init__(self, original: nn.Module, first: ExampleInputs) -> None:
        self._original = original
        self.places, self.outputs = _places(original, first)

    def loss(self, student: nn.Module, inputs: ExampleInputs) -> Tensor:
        """The loss, with a gradient.

        Raises
        ------
        IncomparableError
            If outputs have other sizes than the original's.
        """
        wanted: dict[str, Tensor] = {}
        with _watching(
            self._original, self.places, lambda name, x: wanted.update({name: x.detach().clone()})
        ):
            targets = floating_outputs(run(self._original, inputs, _IMAGES))
        found: dict[str, Tensor] = {}

        def compare(name: str, x: Tensor) -> None:  # at once: what comes next may change it in place
            target = wanted.get(name)
            if target is not None and target.shape == x.shape:
                found[name] = relative_error(x, target)

        with _watching(student, self.places, compare), torch.enable_grad():
            outputs = floating_outputs(call(student, inputs, _IMAGES))
            if [y.shape for y in outputs] != [y.shape for y in targets]:
                raise IncomparableError("the sizes of the outputs depend on their values")
            errors = [
                relative_error(z, y, units_of(y.where(y.isfinite(), 0.0)))
                for z, y in zip(outputs, targets, strict=True)
                if y.numel()
            ]
            return torch.stack([*errors, *found.values()]).sum()


def relative_error(x: Tensor, target: Tensor, units: Units = as_it_is) -> Tensor:
    """Squared error relative to the square of the target, where that is finite."""
    usual = target.isfinite()
    if not usual.all():
        x, target = x.where(usual, 0.0), target.where(usual, 0.0)
    x, target = units(x.float()), units(target.float())
    whole = target.square().sum()
    return (x - target).square().sum() / whole.where(whole > 0, 1.0)


def _places(original: nn.Module, first: ExampleInputs) -> tuple[list[str], list[Tensor]]:
    """Names of the modules that end a block or a stage, and the outputs."""
    closed: tuple[type, ...] = (*DENSE_TYPES, torch.jit.ScriptModule)
    inside = {f"{name}." for name, module in original.named_modules() if name and isinstance(module, closed)}
    names = [name for name, _ in original.named_modules() if name and not name.startswith(tuple(inside))]
    calls: Counter[str] = Counter()
    stages: dict[tuple[int, ...], str] = {}
    order: dict[str, int] = {}
    before: list[tuple[Tensor, int]] = []

    def see(name: str, x: Tensor) -> None:
        calls[name] += 1
        version = 0 if x.is_inference() else x._version
        handed_on = any(x is y and version == known for y, known in before)
        before[:] = [(x, version)]
        if prod(x.shape[2:]) > 1:
            order[name] = max(order.values(), default=0) + (not handed_on)
            stages[tuple(x.shape[2:]) if x.ndim > 3 else tuple(x.shape[1:])] = name

    with _watching(original, names, see):
        outputs = floating_outputs(run(original, first, _IMAGES))
    if not outputs:
        raise TuckertreeError(NO_OUTPUTS)
    alone = [name for name in order if calls[name] == 1]
    last = [name for name in alone if name in stages.values()][-_STAGES:]
    ends = _ends(original, alone)[::-1]
    chosen = {order[name]: name for name in (*last, *ends[:: ceil(len(ends) / _BLOCKS) or 1])}
    return sorted(chosen.values(), key=order.__getitem__), outputs


def _ends(model: nn.Module, names: list[str]) -> list[str]:
    """Of some modules the blocks; where there are hardly any, as in a plain row of layers, the layers."""
    blocks = _blocks(model)
    found = [name for name in names if name in blocks]
    if len(found) > _STAGES:
        return found
    return [name for name in names if isinstance(model.get_submodule(name), DENSE_TYPES)]


def _blocks(model: nn.Module) -> set[str]:
    """Names of the modules that hold two layers or more, and no other such module."""
    held: Counter[str] = Counter()
    for name, module in model.named_modules():
        if isinstance(module, DENSE_TYPES):
            held.update(_around(name))
    several = {name for name, count in held.items() if count > 1}
    outer = {name for block in several for name in _around(block)}
    return several - outer


def _around(name: str) -> list[str]:
    """Names of the modules that one is in."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _holds_numbers(x: Tensor) -> bool:
    """Whether it is an ordinary tensor, whose values can be had."""
    return not is_transformed() and not x.is_nested and x.layout == torch.strided


@contextmanager
def _watching(model: nn.Module, names: list[str], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Show what modules give, as long as it is one tensor of numbers."""

    def hook(name: str) -> Callable[..., None]:
        def look(module: nn.Module, args: object, output: Any) -> None:  # noqa: ARG001
            if isinstance(output, Tensor) and output.is_floating_point() and _holds_numbers(output):
                see(name, output)

        return look

    handles = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

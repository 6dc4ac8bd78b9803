"""Structured pruning by torch-pruning, as one uses that library without training."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

import torch
from torch import nn

from tuckertree._base.errors import TuckertreeError, UnreachableTargetError, first_line
from tuckertree._base.extras import require_extra
from tuckertree.calibration import Calibration, CalibrationData, reestimate
from tuckertree.calibration.sources import floating_outputs
from tuckertree.measure import ExampleInputs, copy_model, count_macs, count_parameters, run
from tuckertree.planning import Budget

_COARSE, _HALVINGS = 10, 8
"""Tenths are tried from below until the budget is kept, then the last is halved so often: 1 in 2,560 channels."""
_CANNOT = "torch-pruning cannot prune this network"


def prune(
    model: nn.Module,
    example: ExampleInputs,
    budget: Budget,
    calibration: CalibrationData | Calibration | None = None,
) -> nn.Module:
    """Take whole channels out of a network: those whose weights are the smallest.

    Groups of channels that hang together, as found by torch-pruning, are ranked over the whole network by the norm of
    their weights; the smallest share of them goes that keeps the budget. With images the BatchNorm statistics are taken
    anew.

    Parameters
    ----------
    model
        A network without chains; it is not changed.
    example
        What it is called with once.
    budget
        Of MACs or of parameters.
    calibration
        Unlabelled images.

    Returns
    -------
    torch.nn.Module
        A smaller network of plain layers.

    Raises
    ------
    UnreachableTargetError
        If no share keeps the budget.
    TuckertreeError
        If torch-pruning is not installed or cannot prune this network.
    """
    pruner = _Pruner(model, example, budget)
    low, least, found = 0.0, inf, None
    for high in (tenths / _COARSE for tenths in range(1, _COARSE)):
        candidate, excess = pruner.without(high)
        if excess <= 0:
            found = candidate
            break
        low, least = high, min(least, excess)
    if found is None:
        cost, limit = next((cost, limit) for cost, (limit, _) in pruner.limits.items())
        raise UnreachableTargetError(
            f"torch-pruning does not reach {cost} {limit:.4g}; the nearest that was tried is {limit + least:.4g}"
        )
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        candidate, excess = pruner.without(middle)
        if excess <= 0:
            found, high = candidate, middle
        else:
            low = middle
    return found if calibration is None else reestimate(found, Calibration(calibration, example=example))


class _Pruner:
    """Copies of a network without some of its channels."""

    def __init__(self, model: nn.Module, example: ExampleInputs, budget: Budget) -> None:
        self._library = require_extra("torch_pruning", extra="rivals")
        self._model, self._example = model, example
        self._shapes = _output_shapes(model, example)
        with _told():
            graph = self._library.DependencyGraph().build_dependency(_free(model), example_inputs=example)
            self._last = sorted({graph._module2name[layer] for layer in _last_layers(graph)})
        if not self._last:
            raise TuckertreeError(f"{_CANNOT}: no derivative leads from its outputs to a layer")
        costs = {"params": (budget.params, count_parameters(model)), "macs": (budget.macs, self._macs(model))}
        self.limits = {
            cost: (float(share), whole) for cost, (share, whole) in costs.items() if share is not None
        }

    def _macs(self, model: nn.Module) -> int:
        return count_macs(model, self._example)

    def without(self, share: float) -> tuple[nn.Module, float]:
        """A copy without a share of all channels, and by what share of the network it is above the budget."""
        smaller = _free(self._model)
        with _told():
            self._library.pruner.MetaPruner(
                smaller,
                self._example,
                importance=self._library.importance.MagnitudeImportance(p=2),
                global_pruning=True,
                pruning_ratio=share,
                ignored_layers=[smaller.get_submodule(name) for name in self._last],
                in_channel_groups={},  # the defaults are one mapping for all pruners
                out_channel_groups={},
                num_heads={},
            ).step()
            shapes = _output_shapes(smaller, self._example)
        if shapes != self._shapes:
            raise TuckertreeError(f"{_CANNOT}: its outputs would have other sizes")
        for parameter, original in zip(smaller.parameters(), self._model.parameters(), strict=True):
            parameter.requires_grad_(original.requires_grad)
        now = {"params": count_parameters(smaller), "macs": self._macs(smaller)}
        return smaller, max(now[cost] / whole - limit for cost, (limit, whole) in self.limits.items())


@contextmanager
def _told() -> Iterator[None]:
    """Say in one line what torch-pruning has against a network; it follows the graph of derivatives."""
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        raise TuckertreeError(f"{_CANNOT}: {first_line(error)}") from error


def _free(model: nn.Module) -> nn.Module:
    """A copy in which nothing is frozen."""
    copy = copy_model(model)
    for parameter in copy.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return copy


def _last_layers(graph: Any) -> Iterator[nn.Module]:
    """The layers whose channels are those of the outputs, also where something that is no layer stands behind them."""
    waiting = [node for node in graph.module2node.values() if not node.outputs]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node.module, nn.modules.conv._ConvNd | nn.Linear):
            yield node.module
        else:
            waiting += node.inputs


def _output_shapes(model: nn.Module, example: ExampleInputs) -> list[torch.Size]:
    return [output.shape for output in floating_outputs(run(model, example))]

"""What each layer alone costs a network: one compressed, the others as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any

import torch

from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree.calibration.distances import answers_of, float_outputs, squared_error
from tuckertree.calibration.metrics import KroneckerMetric
from tuckertree.calibration.sensitivity import whitened_chain
from tuckertree.calibration.sources import Calibration
from tuckertree.measure.intervals import wilson
from tuckertree.network.surgery import replace_layers
from tuckertree.planning import DENSE, Candidates, Inventory, Layer

_AT_ONCE = 4
"""Networks held in memory, each with one layer compressed, that one run of the original serves."""


@dataclass(frozen=True)
class LayerSensitivity:
    """What one layer costs.

    Attributes
    ----------
    name, kind, kernel, groups
        As in a :class:`~tuckertree.planning.LayerPlan`.
    method, ranks
        How it was compressed; ``dense`` and none where it was not.
    macs
        Of the layer before and after.
    distance
        Relative distance of the network's outputs, or None where it was not compressed.
    agreement, agreement_interval
        Of classifiers, the share of equal answers and its 95 % interval (Wilson).
    reason
        Why it was not compressed, or not by as much.
    """

    name: str
    kind: str
    kernel: tuple[int, ...]
    groups: int
    method: str
    ranks: tuple[int, ...]
    macs: tuple[int, int]
    distance: float | None = None
    agreement: float | None = None
    agreement_interval: tuple[float, float] | None = None
    reason: str = ""

    @classmethod
    def dense(cls, layer: Layer, reason: str) -> LayerSensitivity:
        """Of a layer that stays."""
        spec = layer.spec
        macs = layer.macs, layer.macs
        return cls(layer.name, spec.kind, spec.kernel_shape, spec.groups, DENSE, (), macs, reason=reason)


@dataclass(frozen=True)
class Sensitivity:
    """What each layer of a network alone costs.

    Attributes
    ----------
    layers
        In the order of the forward pass.
    factor
        How many times fewer MACs each was given.
    images
        Number of images looked at.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> seed = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3))
    >>> found = tt.sensitivity(model, torch.zeros(1, 3, 12, 12), calibration=torch.randn(16, 3, 12, 12))
    >>> [(layer.name, layer.macs[1] <= layer.macs[0] / 2) for layer in found.layers]
    [('0', True), ('2', True)]
    >>> [layer.name for layer in found.worst(1)] in (["0"], ["2"])
    True
    """

    layers: tuple[LayerSensitivity, ...]
    factor: float
    images: int

    def worst(self, count: int = 5) -> tuple[LayerSensitivity, ...]:
        """The layers that cost most, the dearest first."""
        tried = [layer for layer in self.layers if layer.distance is not None]
        return tuple(sorted(tried, key=lambda layer: -(layer.distance or 0))[:count])

    def to_json(self) -> dict[str, object]:
        """As JSON data, which has no infinite numbers."""
        return {"factor": self.factor, "images": self.images, "layers": self.rows()}

    def rows(self) -> list[dict[str, Any]]:
        """A row for each layer, as JSON data."""
        layers = [asdict(layer) for layer in self.layers]
        for layer in layers:
            if layer["distance"] is not None and not isfinite(layer["distance"]):
                layer["distance"] = None
                layer["reason"] = "the outputs are not finite"
        return layers

    def __str__(self) -> str:
        """Table of the layers."""
        from tuckertree.io.report.tables import sensitivity_text

        return sensitivity_text(self.rows())


def measure_each_layer(
    module: torch.nn.Module,
    inventory: Inventory,
    candidates: Mapping[str, Candidates],
    metrics: Mapping[str, KroneckerMetric],
    images: Calibration,
    reasons: Mapping[str, str],
    *,
    factor: float,
    tick: ProgressCallback = no_progress,
) -> Sensitivity:
    """Compress each layer alone and see what becomes of the outputs.

    Parameters
    ----------
    module
        The dense network; it is not changed.
    candidates, metrics
        Of the layers that may be compressed, by name; the candidates' errors are those in the metrics, of inputs alone.
    reasons
        Why the others may not.
    factor
        Of the candidates with so many times fewer MACs that of the least error is tried; where there are none, that of
        the fewest.

    Raises
    ------
    IncomparableError
        If the sizes of the outputs depend on values, or none is of floating-point numbers.
    """
    picks = {
        layer.name: pick
        for layer in inventory.layers
        if layer.name in candidates and (pick := _pick(layer, candidates[layer.name], factor)) is not None
    }
    tried = [layer for layer in inventory.layers if layer.name in picks]
    found: dict[str, tuple[float, float | None, tuple[float, float] | None]] = {}
    for start in range(0, len(tried), _AT_ONCE):
        some = tried[start : start + _AT_ONCE]
        models = []
        for layer in some:
            own, pick = candidates[layer.name], picks[layer.name]
            chain = whitened_chain(module, layer, own.methods[pick], own.ranks[pick], metrics[layer.name])
            models.append(replace_layers(module, {layer.name: chain}))
        results = _compare(module, tuple(models), images)
        found |= {layer.name: result for layer, result in zip(some, results, strict=True)}
        tick("sensitivity", len(found), len(tried))
    rows = []
    for layer in inventory.layers:
        row = LayerSensitivity.dense(layer, reasons.get(layer.name, "no method makes it smaller"))
        if layer.name in found:
            own, pick = candidates[layer.name], picks[layer.name]
            macs = int(own.macs[pick])
            distance, agreement, interval = found[layer.name]
            row = replace(
                row,
                method=own.methods[pick],
                ranks=own.ranks[pick],
                macs=(layer.macs, macs),
                distance=distance,
                agreement=agreement,
                agreement_interval=interval,
                reason="" if macs * factor <= layer.macs else f"no candidate has {factor:g}x fewer MACs",
            )
        rows.append(row)
    return Sensitivity(tuple(rows), factor, len(images))


def _pick(layer: Layer, candidates: Candidates, factor: float) -> int | None:
    """The candidate of least error among those cheap enough, or the cheapest."""
    chains = [number for number, method in enumerate(candidates.methods) if method != DENSE]
    macs, error = candidates.macs.tolist(), candidates.error.tolist()
    cheap = [number for number in chains if macs[number] * factor <= layer.macs]
    if cheap:
        return min(cheap, key=lambda number: (error[number], macs[number]))
    return min(chains, key=lambda number: (macs[number], error[number]), default=None)


def _compare(
    original: torch.nn.Module, models: Sequence[torch.nn.Module], images: Calibration
) -> list[tuple[float, float | None, tuple[float, float] | None]]:
    """Distance of each network's outputs, and of classifiers the share of equal answers with its interval."""
    norm, count, classifies = 0.0, 0, True
    errors, equal = [0.0] * len(models), [0] * len(models)
    for inputs in images:
        wanted, *found = (float_outputs(model, inputs) for model in (original, *models))
        whole, lost = squared_error(wanted, found, in_units=True)
        norm += whole
        errors = [total + each for total, each in zip(errors, lost, strict=True)]
        answers = answers_of(wanted) if len(wanted) == 1 else None
        if answers is None:
            classifies = False
            continue
        count += len(answers)
        for number, outputs in enumerate(found):
            same = answers_of(outputs)
            assert same is not None
            equal[number] += int(((answers == same) & (answers >= 0)).sum())
    distances = [_root(error, norm) for error in errors]
    if not classifies:
        return [(distance, None, None) for distance in distances]
    return [
        (distance, hits / count, wilson(hits, count)) for distance, hits in zip(distances, equal, strict=True)
    ]


def _root(error: float, norm: float) -> float:
    ratio = error / norm if norm else error
    return ratio**0.5 if isfinite(ratio) else float("inf")

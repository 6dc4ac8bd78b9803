"""distance_by_layer(): where a compressed network's distance from its original comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import torch
from torch import nn

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree._base.progress import ProgressCallback, progress_bar
from tuckertree.calibration import CalibrationData, check_images
from tuckertree.calibration.distances import float_outputs, squared_error
from tuckertree.calibration.sources import to_model
from tuckertree.compression.result import CompressionResult
from tuckertree.compression.tuned import images_for, original_of
from tuckertree.measure import ExampleInputs, run
from tuckertree.measure.copying import copy_for_inference
from tuckertree.planning import DENSE, Plan


@dataclass(frozen=True)
class Rise:
    """What layers that were changed together add to the distance.

    Attributes
    ----------
    layers
        Their names: most often one, with fewer hidden channels those that give and those that read them.
    distance
        Relative distance of the outputs where all before these, they themselves, and what follows them up to the next
        changed layer are the compressed network's, and the rest the original's.
    share
        By how much the squared distance rose over them, of that of the whole network; negative where they make up for what
        was lost before.
    """

    layers: tuple[str, ...]
    distance: float
    share: float


@dataclass(frozen=True)
class DistanceByLayer:
    """Where a compressed network's distance comes from.

    Attributes
    ----------
    rises
        In the order of the forward pass; their shares add up to 1, or are all 0 where nothing was lost.
    images
        Number of images looked at.

    Examples
    --------
    >>> import tuckertree as tt
    >>> from tuckertree.compression import Rise
    >>> found = tt.DistanceByLayer((Rise(("first",), 0.1, 0.25), Rise(("last",), 0.2, 0.75)), images=8)
    >>> [rise.layers for rise in found.worst(1)], found.rises[-1].distance
    ([('last',)], 0.2)
    """

    rises: tuple[Rise, ...]
    images: int

    def worst(self, count: int = 5) -> tuple[Rise, ...]:
        """Those that cost most, the dearest first."""
        return tuple(sorted(self.rises, key=lambda rise: -rise.share)[:count])

    def to_json(self) -> dict[str, object]:
        """As JSON data."""
        return {"images": self.images, "rises": self.rows()}

    def rows(self) -> list[dict[str, Any]]:
        """A row for each, as JSON data."""
        return [asdict(rise) for rise in self.rises]

    def __str__(self) -> str:
        """Table of the layers."""
        from tuckertree.io.report.tables import rises_text

        return rises_text(self.rows())


def distance_by_layer(
    result: CompressionResult,
    original: nn.Module | None,
    images: CalibrationData,
    *,
    start: int = 0,
    progress: bool | None = None,
) -> DistanceByLayer:
    """Make the original network the compressed one, layer after layer, and see how the outputs' distance grows.

    Layers that were fitted make up for what those before them have lost. So what one costs cannot be seen by putting
    its original back: that most often makes the outputs worse. It takes a run of the network for each changed layer.

    Parameters
    ----------
    result
        What :func:`~tuckertree.compress` gave.
    original
        The model before it was compressed; it is not changed. A result of an ONNX file holds its own: None.
    images
        As for the calibration; best such as it was not fitted to.
    start
        Images before this one are left out.
    progress
        Draw a progress bar on stderr; by default where stderr is a terminal.

    Raises
    ------
    UsageError
        If there are no images from ``start`` on, no original, or what is given is no result.
    TuckertreeError
        If the networks do not belong together or do not run on the images, or the outputs cannot be compared or are
        not finite.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> seed = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3)).eval()
    >>> images = torch.randn(40, 3, 12, 12)
    >>> result = tt.compress(model, images[:1], energy=0.8, first="ht2", calibration=images[:32])
    >>> found = tt.distance_by_layer(result, model, images, start=32)
    >>> [rise.layers for rise in found.rises], round(sum(rise.share for rise in found.rises), 6)
    ([('0',), ('2',)], 1.0)
    """
    if not isinstance(result, CompressionResult):
        raise UsageError(f"give the result that compress() returned, not a {type(result).__name__}")
    if start < 0:
        raise UsageError(f"start is the number of an image, not {start}")
    original = original_of(result, original)
    given = images_for(result, images)
    check_images(original, given, next(iter(given)))
    batches = [inputs for inputs, _, _ in given.parts(None, start=start)]
    if not batches:
        raise UsageError(f"there are no images from number {start} on: there are {len(given)}")
    _refuse_others(result.plan, original, result.model)
    with torch.no_grad(), progress_bar(progress) as tick:
        rises = _rises(original, result.model, result.plan, batches, tick)
    return DistanceByLayer(rises, len(given) - start)


def _refuse_others(plan: Plan, original: nn.Module, compressed: nn.Module) -> None:
    """Refuse networks that lack a layer of the plan."""
    for name in (layer.name for layer in plan.layers):
        for what, model in (("original", original), ("compressed", compressed)):
            try:
                model.get_submodule(name)
            except AttributeError as error:
                raise TuckertreeError(
                    f"the networks do not belong together: the {what} one has no layer {name}"
                ) from error


def _rises(
    original: nn.Module,
    compressed: nn.Module,
    plan: Plan,
    batches: Sequence[ExampleInputs],
    tick: ProgressCallback,
) -> tuple[Rise, ...]:
    twin = copy_for_inference(original)
    order = _called(twin, to_model(batches[0], twin), plan)
    changed = _changed(plan, {name: place for place, tied in enumerate(order) for name in tied})
    wanted = [float_outputs(original, inputs) for inputs in batches]
    found: list[tuple[tuple[str, ...], float]] = []
    left = dict(enumerate(order))
    for number, (names, places) in enumerate(changed):
        later = {place for _, others in changed[number + 1 :] for place in others}
        stop = min(later - {*range(max(places))}, default=0)
        for place in [place for place in left if place < stop and place not in later]:
            for name in left.pop(place):
                twin.set_submodule(name, compressed.get_submodule(name))
        model = twin if later else compressed
        found.append((names, _squared_distance(model, batches, wanted)))
        tick("layers", number + 1, len(changed))
    whole = found[-1][1] if found else 0.0
    before = [0.0, *(squared for _, squared in found)]
    return tuple(
        Rise(names, squared**0.5, (squared - last) / whole if whole else 0.0)
        for (names, squared), last in zip(found, before, strict=False)
    )


def _called(model: nn.Module, inputs: ExampleInputs, plan: Plan) -> list[tuple[str, ...]]:
    """All names of each module that may be exchanged, in the order in which these are first called; the others come last.

    Modules of the plan, whatever is in them, and outside of them those without parts.
    """
    planned = {layer.name for layer in plan.layers}
    planned |= {name for each in plan.pruned for name in each.hidden.modules}
    whole = tuple(f"{name}." for name in planned)
    names: dict[nn.Module, tuple[str, ...]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if name in planned or not (name.startswith(whole) or list(module.children())):
            names[module] = (*names.get(module, ()), name)
    called: dict[tuple[str, ...], None] = {}

    def note(module: nn.Module, _: object) -> None:
        called.setdefault(names[module])

    hooks = [module.register_forward_pre_hook(note) for module in names]
    try:
        run(model, inputs, "the images")
    finally:
        for hook in hooks:
            hook.remove()
    return [*called, *(tied for tied in names.values() if tied not in called)]


def _changed(plan: Plan, places: Mapping[str, int]) -> list[tuple[tuple[str, ...], set[int]]]:
    """Names of layers that cannot be changed one without the other, and the places of all modules that are concerned.

    In the order of the last of these.
    """
    units = [({layer.name}, {places[layer.name]}) for layer in plan.layers if layer.method != DENSE]
    for each in plan.pruned:
        names, span = (
            {*each.hidden.producers, *each.hidden.consumers},
            {*map(places.__getitem__, each.hidden.modules)},
        )
        for other in [other for other in units if other[1] & span]:
            units.remove(other)
            names, span = names | other[0], span | other[1]
        units.append((names, span))
    units.sort(key=lambda unit: max(unit[1]))
    return [(tuple(sorted(names, key=places.__getitem__)), span) for names, span in units]


def _squared_distance(
    model: nn.Module, batches: Sequence[ExampleInputs], wanted: Sequence[list[torch.Tensor]]
) -> float:
    whole = lost = 0.0
    for inputs, outputs in zip(batches, wanted, strict=True):
        norm, (error,) = squared_error(outputs, [float_outputs(model, inputs)])
        whole, lost = whole + norm, lost + error
    if not isfinite(lost):
        raise TuckertreeError(
            "the outputs of the compressed network are not finite: there is no distance to divide"
        )
    return lost / whole if whole else lost

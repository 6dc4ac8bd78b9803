r"""Calibration of a whole network: factors, means and BatchNorm statistics, from unlabelled images.

With correction, layers are fitted in the order of the forward pass. The inputs ``z`` of the layers being fitted
come from the network as compressed so far, the outputs they are to give from the original layers in
the original network, ``W x`` (Zhang et al., arXiv 1505.06798): so a layer makes up for what was lost before
it. The mean of what is left is put where it costs nothing: in the layer's bias, or in the running mean of the
BatchNorm that follows it. What is left out or frozen stays as it is (:mod:`tuckertree.calibration.kept`).
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Any

from torch import nn

from tuckertree._base.errors import TuckertreeError
from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree.calibration.batches import batch_size
from tuckertree.calibration.batchnorm import held_out, reestimate_if_better
from tuckertree.calibration.distances import NO_NEARER, Comparison, comparable, distances_of, nearer
from tuckertree.calibration.fitting import Fitter, let_answer
from tuckertree.calibration.kept import Changeable, changeable
from tuckertree.calibration.moments import MEMORY, POSITIONS, chunks_within
from tuckertree.calibration.pairs import FOLDS, collect_pairs, gather_pairs
from tuckertree.calibration.parts import images_at_once
from tuckertree.calibration.sources import Calibration, CalibrationData, to_model
from tuckertree.calibration.suspended import (
    OtherWayError,
    advance,
    can_suspend,
    live_bytes,
    suspended,
)
from tuckertree.measure import ExampleInputs, copy_model, run
from tuckertree.network.channels import prune, silence
from tuckertree.network.surgery import apply
from tuckertree.planning import DEPTHWISE, Inventory, Layer, Plan, take_inventory

LAYERS_PER_PASS = 1
ACTIVATIONS = 4 * 2**30


def calibrate(
    model: nn.Module,
    plan: Plan,
    images: CalibrationData | Calibration,
    *,
    correction: bool = True,
    means: bool = True,
    batch_norm: bool = True,
    layers_per_pass: int = LAYERS_PER_PASS,
    dense: bool = True,
    ridge: float | None = None,
    memory: int = MEMORY,
    activations: int = ACTIVATIONS,
    positions: int = POSITIONS,
    seed: int = 0,
    notes: MutableMapping[str, str] | None = None,
    distances: MutableMapping[str, float] | None = None,
    tick: ProgressCallback = no_progress,
) -> nn.Module:
    """Apply a plan with factors fitted to images.

    A layer is fitted to what it sees in both networks if it is known that the same rows belong together there
    (:mod:`tuckertree.measure.control_flow`), and otherwise to what it sees in the original one. Where it sees nothing
    that can be used it stays as decomposed. If all this does not bring the network's outputs nearer to the
    original's on images held out, the plain decomposition is given.

    Parameters
    ----------
    model
        The dense model the plan was made for; it is not changed.
    plan
        Methods and ranks.
    images
        Without labels; see :class:`~tuckertree.calibration.sources.Calibration`.
    correction
        Fit each layer to the inputs it gets in the compressed network; otherwise to those in the original.
    means
        Keep the mean of each output, in the bias or in the BatchNorm that follows.
    batch_norm
        Take BatchNorm statistics anew where that brings the outputs nearer to the original's on the last fifth of
        the images, to which nothing is fitted.
    layers_per_pass
        With correction: how many layers, one after the other, are fitted between two passes over the images,
        where these are needed. One, the default, measures best.
    activations
        Bytes for activations. Where all images' fit, both networks run once, suspended at each layer in turn
        (:mod:`tuckertree.calibration.suspended`); otherwise, or where a module keeps an activation for later,
        there is more than one pass over the images.
    dense
        With correction: fit the layers that stay dense, too, to the inputs they get.
    ridge
        Of all corrections, see :class:`~tuckertree.calibration.least_squares.Correction`; by default each layer's
        strength is chosen (:mod:`tuckertree.calibration.strength`).
    notes
        Takes up what there is to say of compressed layers that were not fitted as the others, by name.
    distances
        Takes up the relative distance of the outputs from the original's, ``"fitted"`` and ``"held out"``, and the
        numbers of these images; nothing where outputs cannot be compared, or there is but one image.
    memory, positions, seed
        As :func:`~tuckertree.calibration.moments.collect_moments`.

    Returns
    -------
    torch.nn.Module
        As :func:`tuckertree.apply` gives it, with other weights.

    Raises
    ------
    TuckertreeError
        If the plan does not belong to the model, or the images cannot be used.

    Warns
    -----
    CalibrationWarning
        If there are layers too large for the memory, or such as see nothing that can be used; those
        keep the plain decomposition. If the statistics of BatchNorm cannot be taken anew.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> from tuckertree.tools.data import batches, open_images
    >>> from tuckertree.tools.models import resolve
    >>> images, _ = next(batches(open_images("demo", resolve("demo").preprocessing), batch_size=32))
    >>> seed = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3))
    >>> plan = tt.plan(model, images, tt.Budget(params=0.3))
    >>> decomposed, fitted = tt.apply(model, plan), tt.calibrate(model, plan, images)
    >>> bool(torch.dist(fitted(images), model(images)) < 0.5 * torch.dist(decomposed(images), model(images)))
    True
    """
    images = Calibration(images)
    first, inventory = _first_look(model, images)
    # All sizes stay until the end, so that what goes in and out can be compared channel by channel.
    result = apply(model, replace(plan, pruned=()), tick=tick)
    silence(result, plan.pruned)
    plain = copy_model(result)
    free = changeable(model, plan, inventory.layers, first)
    layers = _to_fit(inventory.layers, plan, free, dense=dense and correction)
    free = free if means else replace(free, biases=frozenset(), behind={})
    fitter = Fitter(model, result, plan, free, ridge)
    options: dict[str, Any] = {"memory": memory, "positions": positions, "seed": seed, "tick": tick}
    copies = 2 if correction else 1
    fitting = [layer for chunk in chunks_within(layers, memory, copies, FOLDS) for layer in chunk]
    planned = _changed(plan)
    following = list(dict.fromkeys([*planned, *(layer.name for layer in fitting)]))
    cut, at_once = held_out(len(images)), images_at_once(model, inventory.layers, images)
    if at_once is None:
        images = _in_enough_batches(model, images)
        cut = _whole_batches(images, cut)
    comparison = Comparison(model, images, at_once=at_once, cut=cut, folds=FOLDS)
    in_one_pass = correction and _has_room(fitting, len(images), layers_per_pass, activations)
    left: Sequence[Layer] = fitting
    if in_one_pass and can_suspend(model, fitting, [*images.part(0, images.batch_size)]):
        left = _fit_in_one_pass(comparison, result, fitting, following, fitter, **options)
    for layer in left if correction else ():
        let_answer(result.get_submodule(layer.name), model.get_submodule(layer.name))
    compressed = result if correction else None
    for chunk in chunks_within(left, memory, copies, FOLDS):
        size = layers_per_pass if correction else len(chunk)
        for some in (chunk[start : start + size] for start in range(0, len(chunk), size)):
            parts = comparison.fitted_parts
            fitter.fit(some, collect_pairs(model, compressed, some, parts, following=following, **options))
    fitter.check()
    if batch_norm:
        result = reestimate_if_better(result, comparison, only=free.norms)
    nearest = nearer(plain, result, comparison)
    if distances is not None:
        distances.update(distances_of(nearest, comparison))
    if notes is not None:
        notes.update(_unfitted(plan, inventory.layers, fitting), **fitter.notes)
        if nearest is plain:
            notes.update(dict.fromkeys(planned, f"as decomposed: {NO_NEARER}"))
    return prune(nearest, plan.pruned)


def _first_look(model: nn.Module, images: Calibration) -> tuple[ExampleInputs, Inventory]:
    """An image and the inventory at it; a whole batch where the model does not run on one image."""
    try:
        first = next(iter(images.part(0, 1)))
        return first, take_inventory(model, to_model(first, model))
    except TuckertreeError:
        first = next(iter(images))
        return first, take_inventory(model, to_model(first, model))


def _to_fit(layers: Sequence[Layer], plan: Plan, free: Changeable, *, dense: bool) -> list[Layer]:
    """The compressed layers, and the dense ones after the first of them that may be changed."""
    planned = _changed(plan)
    chosen: list[Layer] = []
    for layer in layers:
        is_alone = (
            layer.skip_reason in ("", DEPTHWISE) and len(layer.calls) == 1 and layer.name in free.kernels
        )
        if layer.calls and (layer.name in planned or (dense and chosen and is_alone)):
            chosen.append(layer)
    return chosen


def _changed(plan: Plan) -> list[str]:
    """Layers whose kernels the plan changes: chains, and what reads fewer channels."""
    consumers = (name for each in plan.pruned for name in each.hidden.consumers)
    return list(dict.fromkeys([*(layer.name for layer in plan.compressed), *consumers]))


def _unfitted(plan: Plan, layers: Sequence[Layer], fitting: Sequence[Layer]) -> dict[str, str]:
    """Why compressed layers are not among those that are fitted."""
    fitted, called = {layer.name for layer in fitting}, {layer.name for layer in layers if layer.calls}
    return {
        layer.name: "as decomposed: "
        + ("its moments do not fit in memory" if layer.name in called else "not called on the first image")
        for layer in plan.compressed
        if layer.name not in fitted
    }


def _has_room(layers: Sequence[Layer], images: int, layers_per_pass: int, activations: int) -> bool:
    """A module that is called twice must be fitted to both calls, so its first call cannot go on before."""
    once = all(len(layer.calls) == 1 for layer in layers)
    return once and layers_per_pass == 1 and live_bytes(layers, images) <= activations


def _in_enough_batches(model: nn.Module, images: Calibration) -> Calibration:
    """One for each fold and one to hold out, if the model runs on batches so small."""
    smaller = images.in_batches(ceil(len(images) / (FOLDS + 1)))
    sizes = set[int]()
    try:
        for inputs in smaller:
            if batch_size(inputs) not in sizes:
                sizes.add(batch_size(inputs))
                run(model, to_model(inputs, model), "the calibration images")
    except TuckertreeError:
        return images
    return smaller


def _whole_batches(images: Calibration, cut: int) -> int:
    """The last image up to ``cut`` at which a batch begins; 0 if no more than half of the images are before it."""
    start = last = 0
    for inputs in images:
        last = start if start <= cut else last
        start += batch_size(inputs)
    return last if 2 * last > len(images) else 0


def _fit_in_one_pass(
    comparison: Comparison,
    result: nn.Module,
    layers: Sequence[Layer],
    following: Sequence[str],
    fitter: Fitter,
    *,
    memory: int,
    positions: int,
    seed: int,
    tick: ProgressCallback,
) -> Sequence[Layer]:
    """Fit layers one after the other; those that are left where forward passes part are returned."""
    model, parts = comparison.reference, list(comparison.parts())
    folds = [comparison.fold_of(part) for part in parts]
    inputs = [part.inputs for part in parts]
    with (
        suspended(model, layers, inputs, following) as ours,
        suspended(result, layers, inputs, following, changing=True) as theirs,
    ):
        for done, layer in enumerate(layers):
            try:
                before = [advance(forward, layer.name) for forward in ours]
                after = [advance(forward, layer.name) for forward in theirs]
            except OtherWayError:
                return layers[done:]
            # Of inputs of one size a chain makes outputs of the size that its layer does.
            seen = [
                (fold, [x._replace(continues=part.continues)], [z._replace(size_out=x.size_out)])
                for x, z, part, fold in zip(before, after, parts, folds, strict=True)
                if fold is not None
            ]
            pairs = gather_pairs(
                [layer], lambda *_, seen=seen: seen, memory=memory, positions=positions, seed=seed
            )
            fitter.fit([layer], pairs)
            tick("fitting", done + 1, len(layers))
        for part, one, other in zip(parts, ours, theirs, strict=True):
            comparison.note(part.place, comparable(one.finish()), result, comparable(other.finish()))
    return []

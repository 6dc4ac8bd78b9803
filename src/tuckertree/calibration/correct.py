r"""Calibration of a whole network: factors, means and BatchNorm statistics, from unlabelled images.

With correction, layers are fitted in the order of the forward, in stages. The inputs ``z`` of a stage's
layers come from the network as compressed so far, the outputs they are to give from the original layers in
the original network, ``W x`` (Zhang et al., arXiv 1505.06798): so a layer makes up for what was lost before
it. The mean of what is left is put where it costs nothing: in the layer's bias, or in the running mean of the
BatchNorm that follows it. What is left out or frozen stays as it is (:mod:`tuckertree.calibration.kept`).
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast
from warnings import warn

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tuckertree.calibration.batchnorm import reestimate_if_better
from tuckertree.calibration.distances import NO_NEARER, nearer
from tuckertree.calibration.fit import fit
from tuckertree.calibration.kept import Changeable, changeable
from tuckertree.calibration.moment import NOT_CALLED
from tuckertree.calibration.moments import MEMORY, POSITIONS, chunks_within, warn_of_few
from tuckertree.calibration.pairs import Pair, collect_pairs, gather_pairs, least_squares_kernel
from tuckertree.calibration.sources import Calibration, CalibrationWarning, Source, to_model
from tuckertree.calibration.suspended import OtherWayError, advance, can_suspend, live_bytes, suspended
from tuckertree.decomposition import Factors, decompose, method_cuts
from tuckertree.decomposition.spectra import in_working_precision
from tuckertree.errors import TuckertreeError
from tuckertree.layers import Chain
from tuckertree.measure import ExampleInputs
from tuckertree.planning import Layer, Plan, take_inventory
from tuckertree.progress import Tick, no_progress, spread
from tuckertree.surgery import apply, replace_layers

PER_STAGE = 1
ACTIVATIONS = 4 * 2**30
ASTRAY = 2.0
"""No kernel is fitted that is further than so many times its norm from what it was: ResNet-20's, at a quarter of their
parameters, are at most 1.02 from it, those of black images up to 50."""
TOO_LITTLE = "the images show too little of its inputs"


def calibrate(
    model: nn.Module,
    plan: Plan,
    images: Source | Calibration,
    *,
    correction: bool = True,
    means: bool = True,
    batch_norm: bool = True,
    per_stage: int = PER_STAGE,
    dense: bool = True,
    ridge: float | None = None,
    memory: int = MEMORY,
    activations: int = ACTIVATIONS,
    positions: int = POSITIONS,
    seed: int = 0,
    notes: MutableMapping[str, str] | None = None,
    tick: Tick = no_progress,
) -> nn.Module:
    """Carry out a plan with factors fitted to images.

    A layer is fitted to what it sees in both networks if it is known that the same rows belong together there
    (:mod:`tuckertree.calibration.ways`), and otherwise to what it sees in the original one. Where it sees nothing
    that can be used it stays as decomposed. If all this does not bring the network's outputs nearer to the
    original's, the plain decomposition is given.

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
        Take BatchNorm statistics anew where that brings the outputs nearer to the original's on the last
        quarter of the images.
    per_stage
        With correction: how many layers, one after the other, are fitted between two passes over the images,
        where these are needed. One, the default, measures best.
    activations
        Bytes for activations. Where all images' fit, both networks run once, suspended at each layer in turn
        (:mod:`tuckertree.calibration.suspended`); otherwise, or where a module keeps an activation for later,
        there is a pass over the images for each stage.
    dense
        With correction: fit the layers that stay dense, too, to the inputs they get.
    ridge
        Of the correction, see :func:`~tuckertree.calibration.pairs.least_squares_kernel`; by default
        :func:`default_ridge`.
    notes
        Takes up what there is to say of compressed layers that were not fitted as the others, by name.
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
        If there are few images, layers too large for the memory, or such as see nothing that can be used; those
        keep the plain decomposition. If the statistics of BatchNorm cannot be taken anew.
    """
    images = Calibration(images)
    first = next(iter(images.part(0, 1)))
    inventory = take_inventory(model, to_model(first, model))
    result = apply(model, plan, tick=tick)
    plain = replace_layers(result, {})
    free = changeable(model, plan, inventory.layers, first)
    layers = _to_fit(inventory.layers, plan, free, dense=dense and correction)
    free = free if means else replace(free, biases=frozenset(), behind={})
    fitter = Fitter(model, result, plan, free, default_ridge(len(images)) if ridge is None else ridge)
    options: dict[str, Any] = {"positions": positions, "seed": seed, "tick": tick}
    copies = 2 if correction else 1
    fitting = [layer for chunk in chunks_within(layers, memory, copies) for layer in chunk]
    planned = [layer.name for layer in plan.compressed]
    following = list(dict.fromkeys([*planned, *(layer.name for layer in fitting)]))
    in_one_pass = correction and _has_room(fitting, len(images), per_stage, activations)
    batches = list(images) if in_one_pass else []
    left: Sequence[Layer] = fitting
    if in_one_pass and can_suspend(model, fitting, batches):
        left = _fit_in_one_pass(model, result, fitting, batches, following, fitter, **options)
    for layer in left if correction else ():
        _let_answer(result.get_submodule(layer.name), model.get_submodule(layer.name))
    compressed = result if correction else None
    for chunk in chunks_within(left, memory, copies):
        size = per_stage if correction else len(chunk)
        for stage in (chunk[start : start + size] for start in range(0, len(chunk), size)):
            fitter.fit(stage, collect_pairs(model, compressed, stage, images, following=following, **options))
    fitter.check()
    warn_of_few(fitter.few)
    if batch_norm:
        result = reestimate_if_better(result, model, images, only=free.norms)
    nearest = nearer(model, plain, result, images)
    if notes is not None:
        notes.update(_unfitted(plan, inventory.layers, fitting), **fitter.notes)
        if nearest is plain:
            notes.update(dict.fromkeys(planned, f"as decomposed: {NO_NEARER}"))
    return nearest


def default_ridge(images: int) -> float:
    """Ridge of the correction for so many images: 0.01 for 1,024, and it falls as their square.

    By the outputs' divergence on images that took no part: for ResNet-20 at 256 images, 0.16 was the best of 0.04,
    0.16 and 0.6; for GoogLeNet at 188, where this gives 0.29, 0.21 was the best of 0.05, 0.21 and 0.85.
    """
    return 10240 / images**2


def _to_fit(layers: Sequence[Layer], plan: Plan, free: Changeable, *, dense: bool) -> list[Layer]:
    """The compressed layers, and the dense ones after the first of them that may be changed."""
    planned = {layer.name for layer in plan.compressed}
    chosen: list[Layer] = []
    for layer in layers:
        is_alone = not layer.refusal and len(layer.calls) == 1 and layer.name in free.kernels
        if layer.calls and (layer.name in planned or (dense and chosen and is_alone)):
            chosen.append(layer)
    return chosen


def _unfitted(plan: Plan, layers: Sequence[Layer], fitting: Sequence[Layer]) -> dict[str, str]:
    """Why compressed layers are not among those that are fitted."""
    fitted, called = {layer.name for layer in fitting}, {layer.name for layer in layers if layer.calls}
    return {
        layer.name: "as decomposed: "
        + ("its moments do not fit in memory" if layer.name in called else "not called on the first image")
        for layer in plan.compressed
        if layer.name not in fitted
    }


def _has_room(layers: Sequence[Layer], images: int, per_stage: int, activations: int) -> bool:
    """A module that is called twice must be fitted to both calls, so its first call cannot go on before."""
    once = all(len(layer.calls) == 1 for layer in layers)
    return once and per_stage == 1 and live_bytes(layers, images) <= activations


def _fit_in_one_pass(
    model: nn.Module,
    result: nn.Module,
    layers: Sequence[Layer],
    batches: Sequence[ExampleInputs],
    following: Sequence[str],
    fitter: Fitter,
    *,
    positions: int,
    seed: int,
    tick: Tick,
) -> Sequence[Layer]:
    """Fit layers one after the other; those that are left where forwards part are returned."""
    with (
        suspended(model, layers, batches, following) as ours,
        suspended(result, layers, batches, following) as theirs,
    ):
        for done, layer in enumerate(layers):
            try:
                seen = [
                    ([advance(one, layer.name)], [advance(other, layer.name)])
                    for one, other in zip(ours, theirs, strict=True)
                ]
            except OtherWayError:
                return layers[done:]
            fitter.fit(
                [layer], gather_pairs([layer], lambda *_, seen=seen: seen, positions=positions, seed=seed)
            )
            tick("fitting", done + 1, len(layers))
    return []


@dataclass
class Fitter:
    """Fits layers of a network and puts the factors and means in their places.

    Attributes
    ----------
    model, result
        The original network and the compressed one, in which the layers have the same names.
    few
        Layers that saw few patches.
    notes
        What there is to say of compressed layers.
    """

    model: nn.Module
    result: nn.Module
    plan: Plan
    free: Changeable
    ridge: float
    few: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._planned = {layer.name: layer for layer in self.plan.compressed}
        self._fitted: list[str] = []
        self._troubles: dict[str, str] = {}

    def fit(self, layers: Sequence[Layer], pairs: Mapping[str, Pair | str]) -> None:
        """Fit layers to their pairs, by name; those that have none stay as they are."""
        found = {name: pair for name, pair in pairs.items() if isinstance(pair, Pair)}
        chosen = [layer for layer in layers if layer.name in found]

        def work(layer: Layer) -> tuple[Factors | Tensor, Tensor]:
            return self._fit_one(layer, found[layer.name])

        fitted = spread(work, chosen, size=lambda layer: layer.spec.weights)
        for layer, (weights, shift) in zip(chosen, fitted, strict=True):
            module = self.result.get_submodule(layer.name)
            _put(module, layer, weights)
            self._shift_output(layer.name, module, shift)
            self._fitted.append(layer.name)
            self.few += [layer.name] if found[layer.name].moment.few else []
        for layer in layers:
            _let_answer(self.result.get_submodule(layer.name), None)
            pair = pairs[layer.name]
            note = f"as decomposed: {pair}" if isinstance(pair, str) else pair.note
            if isinstance(pair, str):
                self._troubles[layer.name] = pair
            if note and layer.name in self._planned:
                self.notes[layer.name] = note

    def check(self) -> None:
        """Refuse images of which no layer has any use, and warn of layers that had none.

        Raises
        ------
        TuckertreeError
            With what the first of the layers saw.

        Warns
        -----
        CalibrationWarning
            Naming them.
        """
        unusable = [f"{name}: {why}" for name, why in self._troubles.items() if why != NOT_CALLED]
        if unusable and not self._fitted:
            raise TuckertreeError(unusable[0])
        left = [f"{name}, {why}" for name, why in self._troubles.items() if name in self._planned]
        if left:
            shown = "; ".join(left[:3]) + ("; ..." if len(left) > 3 else "")
            warn(f"not calibrated: {shown}", CalibrationWarning, stacklevel=3)

    def _fit_one(self, layer: Layer, pair: Pair) -> tuple[Factors | Tensor, Tensor]:
        """Factors or kernel of a layer, and by how much the mean of its output must rise, ``[g * T]``."""
        weight = cast("Tensor", self.model.get_submodule(layer.name).weight)
        kernel = in_working_precision(layer.spec.kernel(weight))
        mean_before, mean_after = pair.mean, pair.moment.mean
        if layer.name in self.free.biases or layer.name in self.free.behind:
            pair = pair.centred()
        if pair.moment.few:
            pair = replace(pair, moment=pair.moment.shrunk())
        target = least_squares_kernel(kernel, pair, self.ridge)
        planned = self._planned.get(layer.name)
        fitted: Factors | Tensor = target if _is_near(target, kernel) else kernel
        if planned is not None:
            cuts = method_cuts(planned.method, len(layer.spec.essential_modes))
            fitted = fit(target, pair.moment, cuts, planned.ranks)
            if not _is_near(fitted.kernel(), kernel):
                fitted = decompose(kernel, planned.ranks, cuts)
                self.notes[layer.name] = f"as decomposed: {TOO_LITTLE}"
        after = fitted.kernel() if isinstance(fitted, Factors) else fitted
        return fitted, _mean_output(kernel, mean_before) - _mean_output(after, mean_after)

    @torch.no_grad()
    def _shift_output(self, name: str, module: nn.Module, shift: Tensor) -> None:
        if name in self.free.biases:
            last = module[-1] if isinstance(module, Chain) else module
            bias = cast("Tensor", last.bias)
            bias += shift.to(bias)
        elif name in self.free.behind:
            norm = cast("_BatchNorm", self.result.get_submodule(self.free.behind[name]))
            mean = cast("Tensor", norm.running_mean)
            mean -= shift.to(mean)


@torch.no_grad()
def _put(module: nn.Module, layer: Layer, weights: Factors | Tensor) -> None:
    if isinstance(weights, Factors):
        cast("Chain", module).set_factors(weights)
    else:
        cast("Tensor", module.weight).copy_(layer.spec.weight(weights))


def _is_near(fitted: Tensor, kernel: Tensor) -> bool:
    """Whether a kernel fitted to images is still of this layer, also for inputs they do not show."""
    return bool((fitted - kernel).norm() <= ASTRAY * kernel.norm())


def _mean_output(kernel: Tensor, mean: Tensor) -> Tensor:
    return torch.einsum("gtk,gk->gt", kernel.flatten(2), mean.to(kernel.device)).flatten()


def _let_answer(chain: nn.Module, dense: nn.Module | None) -> None:
    """Let a dense layer answer in a chain's place, under hooks on the chain; None ends it."""
    if dense is None:
        vars(chain).pop("forward", None)
    else:
        vars(chain)["forward"] = dense.forward

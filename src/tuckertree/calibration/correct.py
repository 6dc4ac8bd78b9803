r"""Calibration of a whole network: factors, means and BatchNorm statistics, from unlabelled images.

With correction, layers are fitted in the order of the forward, in stages. The inputs ``z`` of a stage's
layers come from the network as compressed so far, the outputs they are to give from the original layers in
the original network, ``W x`` (Zhang et al., arXiv 1505.06798): so a layer makes up for what was lost before
it. The mean of what is left is put where it costs nothing: in the layer's bias, or in the running mean of the
BatchNorm that follows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tuckertree.calibration.batchnorm import reestimate_if_better
from tuckertree.calibration.fit import fit
from tuckertree.calibration.moments import MEMORY, POSITIONS, chunks_within, moment_chunks, warn_of_few
from tuckertree.calibration.pairs import Pair, PairSum, collect_pairs, least_squares_kernel
from tuckertree.calibration.sources import Calibration, Source, to_model
from tuckertree.calibration.suspended import advance, can_suspend, live_bytes, suspended
from tuckertree.decomposition import Factors, method_cuts
from tuckertree.decomposition.spectra import in_working_precision
from tuckertree.layers import Chain
from tuckertree.measure import ExampleInputs, run, watch_input
from tuckertree.planning import Layer, Plan, take_inventory
from tuckertree.progress import Tick, no_progress, spread
from tuckertree.surgery import apply

PER_STAGE = 1
ACTIVATIONS = 4 * 2**30


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
    tick: Tick = no_progress,
) -> nn.Module:
    """Carry out a plan with factors fitted to images.

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
        If there are few images, or layers too large for the memory; those keep the plain decomposition.
    """
    images = Calibration(images)
    first = next(iter(images.part(0, 1)))
    inventory = take_inventory(model, to_model(first, model))
    result = apply(model, plan, tick=tick)
    layers = _to_fit(inventory.layers, plan, dense=dense and correction)
    norms = _norms_after(result, layers, first) if means else {}
    ridge = default_ridge(len(images)) if ridge is None else ridge
    fitter = Fitter(model, result, plan, norms, means=means, ridge=ridge)
    options: dict[str, Any] = {"positions": positions, "seed": seed, "tick": tick}
    in_one_pass = correction and _has_room(layers, len(images), per_stage, activations)
    batches = list(images) if in_one_pass else []
    if in_one_pass and can_suspend(model, layers, batches):
        _fit_in_one_pass(model, result, layers, batches, fitter, memory, **options)
    elif correction:
        for layer in layers:
            _let_answer(result.get_submodule(layer.name), model.get_submodule(layer.name))
        for stage in _stages(layers, per_stage, memory):
            fitter.fit(stage, collect_pairs(model, result, stage, images, **options))
        for layer in layers:
            _let_answer(result.get_submodule(layer.name), None)
    else:
        for chunk in moment_chunks(model, layers, images, memory=memory, **options):
            pairs = {layer.name: Pair.alike(moment) for layer, moment in chunk}
            fitter.fit([layer for layer, _ in chunk], pairs)
    warn_of_few(fitter.few)
    return reestimate_if_better(result, model, images) if batch_norm else result


def default_ridge(images: int) -> float:
    """Ridge of the correction for so many images: 0.01 for 1,024, and it falls as their square.

    By the outputs' divergence on images that took no part: for ResNet-20 at 256 images, 0.16 was the best of 0.04,
    0.16 and 0.6; for GoogLeNet at 188, where this gives 0.29, 0.21 was the best of 0.05, 0.21 and 0.85.
    """
    return 10240 / images**2


def _to_fit(layers: Sequence[Layer], plan: Plan, *, dense: bool) -> list[Layer]:
    """The compressed layers, and the dense ones after the first of them."""
    planned = {layer.name for layer in plan.compressed}
    chosen: list[Layer] = []
    for layer in layers:
        is_alone = not layer.refusal and len(layer.calls) == 1
        if layer.calls and (layer.name in planned or (dense and chosen and is_alone)):
            chosen.append(layer)
    return chosen


def _has_room(layers: Sequence[Layer], images: int, per_stage: int, activations: int) -> bool:
    """A module that is called twice must be fitted to both calls, so its first call cannot go on before."""
    once = all(len(layer.calls) == 1 for layer in layers)
    return once and per_stage == 1 and live_bytes(layers, images) <= activations


def _fit_in_one_pass(
    model: nn.Module,
    result: nn.Module,
    layers: Sequence[Layer],
    batches: Sequence[ExampleInputs],
    fitter: Fitter,
    memory: int,
    *,
    positions: int,
    seed: int,
    tick: Tick,
) -> None:
    layers = [layer for chunk in chunks_within(layers, memory, copies=2) for layer in chunk]
    with suspended(model, layers, batches) as ours, suspended(result, layers, batches) as theirs:
        for done, layer in enumerate(layers):
            total = PairSum(layer, positions, seed)
            for one, other in zip(ours, theirs, strict=True):
                total.add(advance(one, layer.name), advance(other, layer.name))
            fitter.fit([layer], {layer.name: total.result()})
            tick("fitting", done + 1, len(layers))


class Fitter:
    """Fits layers of a network and puts the factors and means in their places."""

    def __init__(
        self,
        model: nn.Module,
        result: nn.Module,
        plan: Plan,
        norms: Mapping[str, _BatchNorm],
        *,
        means: bool,
        ridge: float,
    ) -> None:
        self._model, self._result, self._norms = model, result, norms
        self._means, self._ridge = means, ridge
        self._planned = {layer.name: layer for layer in plan.compressed}
        self.few: list[str] = []

    def fit(self, layers: Sequence[Layer], pairs: Mapping[str, Pair]) -> None:
        """Fit layers to their pairs, by name; ``few`` gathers those that saw few patches."""

        def work(layer: Layer) -> tuple[Factors | Tensor, Tensor]:
            return self._fit_one(layer, pairs[layer.name])

        fitted = spread(work, layers, size=lambda layer: layer.spec.weights)
        for layer, (weights, shift) in zip(layers, fitted, strict=True):
            module = self._result.get_submodule(layer.name)
            _put(module, layer, weights)
            _let_answer(module, None)
            if self._means:
                _shift_output(module, self._norms.get(layer.name), shift)
            self.few += [layer.name] if pairs[layer.name].moment.few else []

    def _fit_one(self, layer: Layer, pair: Pair) -> tuple[Factors | Tensor, Tensor]:
        """Factors or kernel of a layer, and by how much the mean of its output must rise, ``[g * T]``."""
        weight = cast("Tensor", self._model.get_submodule(layer.name).weight)
        kernel = in_working_precision(layer.spec.kernel(weight))
        mean_before, mean_after = pair.mean, pair.moment.mean
        if self._means and (layer.spec.bias or layer.name in self._norms):
            pair = pair.centred()
        if pair.moment.few:
            pair = replace(pair, moment=pair.moment.shrunk(), gram=pair.moment.patch)
        target = least_squares_kernel(kernel, pair, self._ridge)
        before = _mean_output(kernel, mean_before)
        planned = self._planned.get(layer.name)
        if planned is None:
            return target, before - _mean_output(target, mean_after)
        cuts = method_cuts(planned.method, len(layer.spec.essential_modes))
        factors = fit(target, pair.moment, cuts, planned.ranks)
        return factors, before - _mean_output(factors.kernel(), mean_after)


@torch.no_grad()
def _put(module: nn.Module, layer: Layer, weights: Factors | Tensor) -> None:
    if isinstance(weights, Factors):
        cast("Chain", module).set_factors(weights)
    else:
        cast("Tensor", module.weight).copy_(layer.spec.weight(weights))


def _mean_output(kernel: Tensor, mean: Tensor) -> Tensor:
    return torch.einsum("gtk,gk->gt", kernel.flatten(2), mean.to(kernel.device)).flatten()


def _let_answer(chain: nn.Module, dense: nn.Module | None) -> None:
    """Let a dense layer answer in a chain's place, under hooks on the chain; None ends it."""
    if dense is None:
        vars(chain).pop("forward", None)
    else:
        vars(chain)["forward"] = dense.forward


@torch.no_grad()
def _shift_output(module: nn.Module, norm: _BatchNorm | None, shift: Tensor) -> None:
    last = module[-1] if isinstance(module, Chain) else module
    bias = cast("Tensor | None", last.bias)
    if bias is not None:
        bias += shift.to(bias)
    elif norm is not None and norm.running_mean is not None:
        norm.running_mean -= shift.to(norm.running_mean)


def _norms_after(model: nn.Module, layers: Sequence[Layer], first: ExampleInputs) -> dict[str, _BatchNorm]:
    """BatchNorm that each layer's output, and nothing else, goes into, seen in one forward."""
    outputs: dict[str, Tensor] = {}
    found: dict[str, _BatchNorm] = {}
    calls: Counter[nn.Module] = Counter()

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:  # noqa: ARG001
            outputs[name] = output

        return hook

    def look(norm: _BatchNorm, x: Any) -> None:
        calls[norm] += 1
        for name, output in outputs.items():
            if x is output:
                found[name] = norm

    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    handles = [model.get_submodule(layer.name).register_forward_hook(keep(layer.name)) for layer in layers]
    handles += [watch_input(norm, partial(look, norm)) for norm in norms]
    try:
        run(model, to_model(first, model), "the calibration images")
    finally:
        for handle in handles:
            handle.remove()
    once = {layer.name for layer in layers if len(layer.calls) == 1}
    return {name: norm for name, norm in found.items() if name in once and calls[norm] == 1}


def _stages(layers: Sequence[Layer], per_stage: int, memory: int) -> Iterator[list[Layer]]:
    """Groups of at most ``per_stage`` consecutive layers whose pairs, two moments each, fit in memory."""
    for chunk in chunks_within(layers, memory, copies=2):
        for start in range(0, len(chunk), per_stage):
            yield chunk[start : start + per_stage]

"""Fitting layers to what they see: kernel, factors, and the mean of the output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from warnings import warn

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError
from tuckertree._base.progress import parallel_map
from tuckertree.calibration.fit import fit
from tuckertree.calibration.kept import Changeable
from tuckertree.calibration.least_squares import reading
from tuckertree.calibration.moment import NOT_CALLED
from tuckertree.calibration.pairs import Pair
from tuckertree.calibration.sources import CalibrationWarning
from tuckertree.calibration.strength import Strength, choose_strength, shrunk_by_folds
from tuckertree.core.decomposition import Factors
from tuckertree.core.decomposition.spectra import in_working_precision
from tuckertree.core.layers import Chain, bias_of, get_method, weight_of
from tuckertree.planning import Layer, Plan
from tuckertree.planning.channels import left_of

ASTRAY = 4.0
"""No kernel is fitted that is further than so many times its norm from what it was: those of ResNet-20 at 3.8 times fewer
parameters are up to 2.6 from it, and left out for that the network loses 0.8 points; those of black images up to 50."""
TOO_LITTLE = "the images show too little of its inputs"


@dataclass
class Fitter:
    """Fits layers of a network and puts the factors and means in their places.

    Attributes
    ----------
    model, result
        The original network and the compressed one, in which the layers have the same names.
    ridge
        Of every correction; None, the strength of each is chosen.
    notes
        What there is to say of compressed layers.
    """

    model: nn.Module
    result: nn.Module
    plan: Plan
    free: Changeable
    ridge: float | None
    notes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._planned = {layer.name: layer for layer in self.plan.compressed}
        self._thinned = {name for each in self.plan.pruned for name in each.hidden.consumers}
        self._fitted: list[str] = []
        self._troubles: dict[str, str] = {}

    def fit(self, layers: Sequence[Layer], pairs: Mapping[str, Pair | str]) -> None:
        """Fit layers to their pairs, by name; those that have none stay as they are."""
        found = {name: pair for name, pair in pairs.items() if isinstance(pair, Pair)}
        chosen = [layer for layer in layers if layer.name in found]

        def work(layer: Layer) -> tuple[Factors | Tensor, Tensor]:
            return self._fit_one(layer, found[layer.name])

        fitted = parallel_map(work, chosen, size=lambda layer: layer.spec.weights)
        for layer, (weights, shift) in zip(chosen, fitted, strict=True):
            module = self.result.get_submodule(layer.name)
            _put(module, layer, weights)
            self._shift_output(layer.name, module, shift)
            self._fitted.append(layer.name)
        for layer in layers:
            let_answer(self.result.get_submodule(layer.name), None)
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
        weight = weight_of(self.model.get_submodule(layer.name))
        kernel = in_working_precision(layer.spec.kernel(weight))
        mean_before, mean_after, folds = pair.mean, pair.moment.mean, pair.folds
        if centred := layer.name in self.free.biases or layer.name in self.free.behind:
            pair = pair.centred()
        channels = (
            left_of(self.plan.pruned, layer.name, "inputs", layer.spec.in_channels)
            if layer.name in self._thinned
            else None
        )
        strength = (
            Strength(self.ridge) if self.ridge else choose_strength(kernel, folds, channels, centred=centred)
        )
        target = strength.correct(kernel, pair, channels)
        if len(folds) > 1:
            pair = replace(pair, moment=shrunk_by_folds(pair.moment, folds, centred=centred))
        elif pair.moment.few:
            pair = replace(pair, moment=pair.moment.shrunk())
        planned = self._planned.get(layer.name)
        fitted: Factors | Tensor = target if _is_near(target, kernel) else reading(kernel, channels)
        if planned is not None:
            method = get_method(planned.method)
            fitted = fit(target, pair.moment, method, planned.ranks)
            if not _is_near(fitted.kernel(), kernel):
                fitted = method.factors(kernel, planned.ranks)
                self.notes[layer.name] = f"as decomposed: {TOO_LITTLE}"
        after = fitted.kernel() if isinstance(fitted, Factors) else fitted
        return fitted, _mean_output(kernel, mean_before) - _mean_output(after, mean_after)

    @torch.no_grad()
    def _shift_output(self, name: str, module: nn.Module, shift: Tensor) -> None:
        if name in self.free.biases:
            last = module[-1] if isinstance(module, Chain) else module
            mean, sign = bias_of(last), 1
        elif name in self.free.behind:
            mean, sign = self.result.get_buffer(f"{self.free.behind[name]}.running_mean"), -1
        else:
            return
        assert mean is not None
        mean += sign * shift.to(mean)


@torch.no_grad()
def _put(module: nn.Module, layer: Layer, weights: Factors | Tensor) -> None:
    if isinstance(weights, Factors):
        assert isinstance(module, Chain)
        module.set_factors(weights)
    else:
        weight_of(module).copy_(layer.spec.weight(weights))


def _is_near(fitted: Tensor, kernel: Tensor) -> bool:
    """Whether a kernel fitted to images is still of this layer, also for inputs they do not show."""
    return bool((fitted - kernel).norm() <= ASTRAY * kernel.norm())


def _mean_output(kernel: Tensor, mean: Tensor) -> Tensor:
    return torch.einsum("gtk,gk->gt", kernel.flatten(2), mean.to(kernel.device)).flatten()


def let_answer(chain: nn.Module, dense: nn.Module | None) -> None:
    """Let a dense layer answer in a chain's place, under hooks on the chain; None ends it."""
    if dense is None:
        vars(chain).pop("forward", None)
    else:
        vars(chain)["forward"] = dense.forward

r"""How far a layer's fit may follow the images: chosen by images that the fit has not seen.

The images are dealt out to a few folds, whose moments are kept apart and add up to those of all. A fit to the others,
judged on a fold, costs a solve and no pass over images; the positions of one image, which are alike, are never on both
sides. So nothing depends on how many patches or images there are but what they show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tuckertree.calibration.least_squares import Correction, corrected, reading
from tuckertree.calibration.moment import InputSecondMoment
from tuckertree.calibration.pairs import Pair

RIDGES = (10.0, 1.0, 0.1, 0.01, 0.001)
"""In this order; what is weaker than one that was worse than the one before is not tried."""

_COSTLY = 2048
"""Of kernels with more unknowns for an output a solve takes seconds: one fold is judged by the others, not each in turn."""

_OUTPUTS = 256
"""Where a layer has more, strengths are compared on so many random mixtures of them: all squared errors are as expected."""


@dataclass(frozen=True)
class Strength:
    """Of a layer's correction.

    Attributes
    ----------
    ridge
        See :class:`~tuckertree.calibration.least_squares.Correction`.
    share
        Of the way from the original kernel to the corrected one, 0 to 1.
    """

    ridge: float
    share: float = 1.0

    def correct(self, kernel: Tensor, pair: Pair, channels: Sequence[int] | None = None) -> Tensor:
        """The kernel as far corrected as this says, reading some channels alone."""
        if not self.share:
            return reading(kernel, channels)
        return corrected(kernel, pair, self.ridge, self.share, channels)


NONE = Strength(RIDGES[0], 0.0)


def choose_strength(
    kernel: Tensor, folds: Sequence[Pair], channels: Sequence[int] | None = None, *, centred: bool
) -> Strength:
    """Choose the ridge and the share with the least output error on images that a fit has not seen, or :data:`NONE`.

    With ``D`` the change of the kernel that the other folds ask for, a fold's squared output error falls by
    ``2 a <D, N> - a^2 <D, S D>``, ``N`` half of its slope there and ``S`` its second moment; summed over the folds the
    best share ``a`` has a closed form.

    Parameters
    ----------
    kernel
        ``W[g, T, C, D1, ..., DN]``, float64.
    folds
        Pairs of disjoint images; of one alone nothing can be said.
    channels
        Those of ``C`` that may be read; by default all.
    centred
        Whether the mean of the output is corrected by itself.
    """
    if len(folds) < 2:
        return NONE
    kernel = _mixed(kernel)
    judged: list[tuple[Correction, Correction, float]] = []
    for place, fold in enumerate(folds if kernel[0, 0].numel() <= _COSTLY else folds[:1]):
        others = Pair.joined([*folds[:place], *folds[place + 1 :]])
        samples = float(fold.moment.samples)
        if centred:
            fold, others = fold.about(others.moment.mean, others.mean), others.centred()
        fitted, unseen = (Correction.of(kernel, pair, channels) for pair in (others, fold))
        judged.append((fitted.single(fitted.unit), unseen.single(fitted.unit), samples * fitted.unit))
    best, most = NONE, 0.0
    for ridge in RIDGES:
        along, across = 0.0, 0.0
        for fitted, unseen, samples in judged:
            change = fitted.change(ridge)
            along += samples * float((change * unseen.slope).sum())
            across += samples * float((change * (unseen.gram @ change)).sum())
        share = min(max(along / across, 0.0), 1.0) if across > 0 else 0.0
        gain = share * (2 * along - share * across)
        if gain < most:
            break
        if gain > most:
            best, most = Strength(ridge, share), gain
    rounding = torch.finfo(kernel.dtype).eps * sum(samples * unseen.energy for _, unseen, samples in judged)
    return best if most > rounding else NONE


def _mixed(kernel: Tensor) -> Tensor:
    """Few random mixtures of a kernel's outputs, ``[g, T', C, D1, ..., DN]``: of the squares of sums as many as of terms."""
    groups, outputs, *sizes = kernel.shape
    if outputs <= _OUTPUTS:
        return kernel
    signs = torch.randint(2, (_OUTPUTS, outputs), generator=torch.Generator().manual_seed(0)).mul(2).sub(1)
    return (signs.to(kernel) / _OUTPUTS**0.5 @ kernel.flatten(2)).reshape(groups, _OUTPUTS, *sizes)


def shrunk_by_folds(moment: InputSecondMoment, folds: Sequence[Pair], *, centred: bool) -> InputSecondMoment:
    """Shrink a moment towards the identity, as far as it differs between images.

    Ledoit and Wolf's intensity (J. Multivariate Analysis 88, 2004) with folds as samples: the variance of the moment
    over its squared distance from the identity.

    Parameters
    ----------
    moment
        Of all folds together; centred if they are to be.
    folds
        At least two.
    """
    total, count = sum(fold.moment.samples for fold in folds), len(folds)
    scale = moment.patch.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    target = scale * torch.eye(moment.patch.shape[-1]).to(scale)
    mean = Pair.joined(folds)
    variance = torch.zeros_like(scale)
    for fold in folds:
        seen = fold.about(mean.moment.mean, mean.mean) if centred else fold
        off = (seen.gram - moment.patch).square().sum((1, 2), keepdim=True)
        variance += count / (count - 1) * (fold.moment.samples / total) ** 2 * off
    distance = (moment.patch - target).square().sum((1, 2), keepdim=True)
    rho = torch.where(distance > 0, variance / distance.clamp_min(1e-300), 1.0).clamp(max=1.0)
    return replace(moment, patch=(1 - rho) * moment.patch + rho * target)

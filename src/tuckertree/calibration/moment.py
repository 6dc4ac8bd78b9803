r"""The second moment of a layer's input patches, and the sums it is made of.

``Sigma = E[x x^T]`` over the patches ``x`` that output positions see (not centred). With it the mean squared
error of a layer's output is ``tr((W - W^) Sigma (W - W^)^T)``, whatever the layer's stride, padding or
transposition (:mod:`tuckertree.calibration.patches`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from tuckertree._base.errors import TuckertreeError
from tuckertree.calibration.patches import channels_first
from tuckertree.core.decomposition.spectra import lower_gram, mirrored
from tuckertree.core.layers import LayerSpec

NOT_CALLED = "not called on the calibration images"
ROUNDING = 1e-10
"""Variances below this share of the mean square are rounding: float32 values that ought to be equal differ in 1e-6."""


@dataclass(frozen=True)
class InputSecondMoment:
    """Second moment of a layer's input patches.

    Attributes
    ----------
    patch
        ``Sigma[g, K, K]``, float64, ``K = C * taps`` in the order of ``LayerSpec.kernel``.
    mean
        ``E[x]``, ``[g, K]``.
    taps
        Number of taps of the kernel.
    samples
        Number of patches it was taken from.
    """

    patch: Tensor
    mean: Tensor
    taps: int
    samples: int

    @property
    def channel(self) -> Tensor:
        """Mean ``[g, C, C]`` of the diagonal blocks over the taps: the second moment of the channels."""
        groups, unknowns, _ = self.patch.shape
        shape = (groups, *(unknowns // self.taps, self.taps) * 2)
        return self.patch.reshape(shape).diagonal(dim1=2, dim2=4).mean(-1)

    def root(self, floor: float = 1e-6) -> Tensor:
        """Symmetric square root ``[g, K, K]``; eigenvalues are at least ``floor`` times the largest."""
        return symmetric_roots(self.patch, floor)[0]

    def channel_root(self, floor: float = 1e-6) -> Tensor:
        """Symmetric square root ``S[g, C, C]`` of the channel moment, floored likewise."""
        return symmetric_roots(self.channel, floor)[0]

    def channel_roots(self, floor: float = 1e-6) -> tuple[Tensor, Tensor]:
        """:meth:`channel_root` and its inverse, which the floor keeps finite."""
        return symmetric_roots(self.channel, floor)

    @property
    def few(self) -> bool:
        """Whether there were fewer patches than unknowns."""
        return self.samples < self.patch.shape[-1]

    def centred(self) -> InputSecondMoment:
        """The covariance: right where the mean of the output is corrected by itself (a bias)."""
        patch = plus_outer(self.patch, -self.mean, self.mean)
        return replace(self, patch=patch, mean=torch.zeros_like(self.mean))

    def above_rounding(self, whole: InputSecondMoment) -> InputSecondMoment:
        """A trace of the identity added, above what rounding leaves of ``whole`` once the mean is taken away.

        It is nothing beside what varies, and where nothing does, all directions count the same.
        """
        patch = self.patch.clone()
        diagonal = patch.diagonal(dim1=1, dim2=2)
        diagonal += ROUNDING * whole.patch.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)
        return replace(self, patch=patch)

    def shrunk(self) -> InputSecondMoment:
        """Shrink towards the channel moment at every tap, as far as the number of patches asks for.

        ``(1 - rho) Sigma + rho (Sigma_C x I)`` with the intensity of :func:`shrinkage`, and then a little
        towards the identity.
        """
        groups, size, _ = self.patch.shape
        rho = shrinkage(self.patch, self.samples)[:, None, None]
        level = self.patch.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)
        patch = ((1 - rho) * self.patch).contiguous()
        blocks = patch.view(groups, *(size // self.taps, self.taps) * 2).diagonal(dim1=2, dim2=4)
        blocks += (rho * (1 - rho) * self.channel).unsqueeze(-1)
        diagonal = patch.diagonal(dim1=1, dim2=2)
        diagonal += rho[:, 0] ** 2 * level
        return replace(self, patch=patch)


def shrinkage(gram: Tensor, samples: int) -> Tensor:
    """Share of the identity that a second moment ``[g, n, n]`` of so few samples should get, ``[g]``.

    The oracle approximating shrinkage (Chen et al., IEEE Trans. Signal Processing 58, 2010, eq. 23).
    """
    size = gram.shape[-1]
    trace = gram.diagonal(dim1=1, dim2=2).sum(1)
    square = (gram * gram).sum((1, 2))
    above = (1 - 2 / size) * square + trace**2
    below = (samples + 1 - 2 / size) * (square - trace**2 / size)
    return torch.where(below > 0, above / below.clamp_min(1e-300), 1.0).clamp(max=1.0)


def moment_bytes(spec: LayerSpec) -> int:
    """Memory of a layer's moment."""
    return 8 * spec.groups * prod(spec.kernel_shape[1:]) ** 2


class MomentSum:
    """Sums of patches and of their products: float32 blocks, added up in float64.

    What is added up is the deviation from the mean of the first block. So what varies little about a large mean keeps
    its digits, and what does not vary has a covariance of exactly zero.

    Attributes
    ----------
    spec
        The layer.
    samples
        Number of patches so far.
    """

    def __init__(self, spec: LayerSpec) -> None:
        self.spec = spec
        self._products: Tensor | None = None
        self._shifts: list[Tensor] = []
        self._totals: list[Tensor] = []
        self.samples = 0

    def add(self, patches: Tensor, name: str, other: Tensor | None = None) -> None:
        """Add a block ``[g, n, K]``: products with itself, or with ``other`` of the same patches' shape.

        Raises
        ------
        TuckertreeError
            If it holds NaN or infinite values; the message has the layer's name.
        """
        blocks = [_in_sum_precision(block) for block in ([patches] if other is None else [patches, other])]
        if self._products is None:
            self._shifts = [block.mean(1, keepdim=True, dtype=torch.float64).to(block) for block in blocks]
        blocks = [block - shift for block, shift in zip(blocks, self._shifts, strict=True)]
        totals = [block.sum(1) for block in blocks]
        if not all(total.isfinite().all() for total in totals):
            raise TuckertreeError(f"{name}: its input holds NaN or infinite values on the calibration images")
        products = lower_gram(blocks[0].mT) if other is None else blocks[1].mT @ blocks[0]
        device = "cpu" if patches.device.type == "mps" else patches.device
        if self._products is None:
            self._products = torch.zeros_like(products, dtype=torch.float64, device=device)
            self._totals = [torch.zeros_like(t, dtype=torch.float64, device=device) for t in totals]
        self._products += products.to(device)
        for sum_, total in zip(self._totals, totals, strict=True):
            sum_ += total.to(device)
        self.samples += patches.shape[1]

    def result(self, name: str) -> InputSecondMoment:
        """The means: ``E[z x^T]`` with the mean of ``x``, ``z`` the other one.

        Raises
        ------
        TuckertreeError
            If nothing was added, or the products overflowed.
        """
        if self._products is None:
            raise TuckertreeError(f"{name}: {NOT_CALLED}")
        if not self._products.isfinite().all():
            raise TuckertreeError(f"{name}: its input is too large to be squared on the calibration images")
        taps = prod(self.spec.kernel_size)
        shifts = [shift[:, 0].to(self._products) for shift in self._shifts]
        deviations = [total / self.samples for total in self._totals]
        means = [shift + deviation for shift, deviation in zip(shifts, deviations, strict=True)]
        products = mirrored(self._products) if len(means) == 1 else self._products
        covariance = plus_outer(products / self.samples, -deviations[-1], deviations[0])
        patch = plus_outer(covariance, means[-1], means[0])
        patch = channels_first(channels_first(patch, taps, 1), taps, 2)
        return InputSecondMoment(patch, channels_first(means[0], taps, 1), taps, self.samples)


def plus_outer(matrix: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``[g, m, n]`` and the outer products of ``[g, m]`` and ``[g, n]``."""
    return torch.baddbmm(matrix, rows.unsqueeze(2), columns.unsqueeze(1))


def _in_sum_precision(patches: Tensor) -> Tensor:
    return patches if patches.dtype == torch.float64 else patches.to(torch.float32)


def symmetric_roots(gram: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Square root and inverse square root; of a zero matrix the identity."""
    values, vectors = torch.linalg.eigh(gram)
    largest = values[..., -1:]
    values = torch.where(largest > 0, values.maximum(floor * largest), 1.0)
    root = values.sqrt().unsqueeze(-2)
    return (vectors * root) @ vectors.mT, (vectors / root) @ vectors.mT

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

from tuckertree.calibration.patches import channels_first
from tuckertree.errors import TuckertreeError
from tuckertree.layers import LayerSpec


@dataclass(frozen=True)
class Moment:
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

    def centred(self) -> Moment:
        """The covariance: right where the mean of the output is corrected by itself (a bias)."""
        outer = self.mean.unsqueeze(2) * self.mean.unsqueeze(1)
        return replace(self, patch=self.patch - outer, mean=torch.zeros_like(self.mean))

    def shrunk(self) -> Moment:
        """Shrink towards the channel moment at every tap, as far as the number of patches asks for.

        ``(1 - rho) Sigma + rho (Sigma_C x I)`` with the intensity of :func:`shrinkage`, and then a little
        towards the identity.
        """
        size = self.patch.shape[-1]
        trace = self.patch.diagonal(dim1=1, dim2=2).sum(1)
        rho = shrinkage(self.patch, self.samples)[:, None, None]
        eye = torch.eye(self.taps, dtype=self.patch.dtype, device=self.patch.device)
        target = torch.einsum("gcd,kl->gckdl", self.channel, eye).reshape(self.patch.shape)
        target = (1 - rho) * target + rho * (trace / size)[:, None, None] * torch.eye(size).to(target)
        return replace(self, patch=(1 - rho) * self.patch + rho * target)


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

    Attributes
    ----------
    spec
        The layer.
    """

    def __init__(self, spec: LayerSpec) -> None:
        self.spec = spec
        self._products: Tensor | None = None
        self._total: Tensor | None = None
        self._samples = 0

    def add(self, patches: Tensor, name: str, other: Tensor | None = None) -> None:
        """Add a block ``[g, n, K]``: products with itself, or with ``other`` of the same patches' shape.

        Raises
        ------
        TuckertreeError
            If it holds NaN or infinite values; the message has the layer's name.
        """
        patches = _in_sum_precision(patches)
        total = patches.sum(1)
        if not total.isfinite().all():
            raise TuckertreeError(f"{name}: its input holds NaN or infinite values on the calibration images")
        other = patches if other is None else _in_sum_precision(other)
        products = other.mT @ patches
        if self._products is None or self._total is None:
            device = "cpu" if patches.device.type == "mps" else patches.device
            self._products = torch.zeros_like(products, dtype=torch.float64, device=device)
            self._total = torch.zeros_like(total, dtype=torch.float64, device=device)
        self._products += products.to(self._products.device)
        self._total += total.to(self._total.device)
        self._samples += patches.shape[1]

    def result(self, name: str) -> Moment:
        """The means.

        Raises
        ------
        TuckertreeError
            If nothing was added, or the products overflowed.
        """
        if self._products is None or self._total is None:
            raise TuckertreeError(f"{name}: not called on the calibration images")
        if not self._products.isfinite().all():
            raise TuckertreeError(f"{name}: its input is too large to be squared on the calibration images")
        taps = prod(self.spec.kernel_size)
        mean = channels_first(self._total / self._samples, taps, 1)
        patch = channels_first(channels_first(self._products / self._samples, taps, 1), taps, 2)
        return Moment(patch, mean, taps, self._samples)


def _in_sum_precision(patches: Tensor) -> Tensor:
    return patches if patches.dtype == torch.float64 else patches.to(torch.float32)


def symmetric_roots(gram: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Square root and inverse square root; of a zero matrix the identity."""
    values, vectors = torch.linalg.eigh(gram)
    largest = values[..., -1:]
    values = torch.where(largest > 0, values.maximum(floor * largest), 1.0)
    root = values.sqrt().unsqueeze(-2)
    return (vectors * root) @ vectors.mT, (vectors / root) @ vectors.mT

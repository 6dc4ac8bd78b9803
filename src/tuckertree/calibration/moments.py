r"""Second moments of the inputs of layers, gathered while images stream through the network.

``Sigma = E[x x^T]`` over the patches ``x`` that output positions see (not centred). With it the mean squared
error of a layer's output is ``tr((W - W^) Sigma (W - W^)^T)``, whatever the layer's stride, padding or
transposition (:mod:`tuckertree.calibration.patches`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import prod
from typing import Any
from warnings import warn
from zlib import crc32

import torch
from torch import Tensor, nn

from tuckertree.calibration.patches import (
    channels_first,
    choose_positions,
    input_patches,
    output_sizes,
)
from tuckertree.calibration.sources import Calibration, Source, to_model
from tuckertree.errors import TuckertreeError
from tuckertree.layers import LayerSpec
from tuckertree.measure import ExampleInputs, run
from tuckertree.planning import Layer
from tuckertree.progress import Tick, no_progress

MEMORY = 512 * 2**20
POSITIONS = 64
_BLOCK = 2**23  # patches are made at most so many numbers at a time: 32 MiB in float32


class CalibrationWarning(UserWarning):
    """The calibration images are fewer than one would like, or a layer is left out of the calibration."""


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
        return _roots(self.patch, floor)[0]

    def channel_root(self, floor: float = 1e-6) -> Tensor:
        """Symmetric square root ``S[g, C, C]`` of the channel moment, floored likewise."""
        return _roots(self.channel, floor)[0]

    def channel_roots(self, floor: float = 1e-6) -> tuple[Tensor, Tensor]:
        """:meth:`channel_root` and its inverse, which the floor keeps finite."""
        return _roots(self.channel, floor)

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

        ``(1 - rho) Sigma + rho (Sigma_C x I)`` with the intensity of the oracle approximating shrinkage (Chen
        et al., IEEE Trans. Signal Processing 58, 2010, eq. 23), and then a little towards the identity.
        """
        size = self.patch.shape[-1]
        trace = self.patch.diagonal(dim1=1, dim2=2).sum(1)
        square = (self.patch * self.patch).sum((1, 2))
        above = (1 - 2 / size) * square + trace**2
        below = (self.samples + 1 - 2 / size) * (square - trace**2 / size)
        rho = torch.where(below > 0, above / below.clamp_min(1e-300), 1.0).clamp(max=1.0)[:, None, None]
        eye = torch.eye(self.taps, dtype=self.patch.dtype, device=self.patch.device)
        target = torch.einsum("gcd,kl->gckdl", self.channel, eye).reshape(self.patch.shape)
        target = (1 - rho) * target + rho * (trace / size)[:, None, None] * torch.eye(size).to(target)
        return replace(self, patch=(1 - rho) * self.patch + rho * target)


def moment_bytes(spec: LayerSpec) -> int:
    """Memory of a layer's moment."""
    return 8 * spec.groups * prod(spec.kernel_shape[1:]) ** 2


def collect_moments(
    model: nn.Module,
    layers: Sequence[Layer],
    images: Source | Calibration,
    *,
    memory: int = MEMORY,
    positions: int = POSITIONS,
    seed: int = 0,
    tick: Tick = no_progress,
) -> Iterator[tuple[Layer, Moment]]:
    """Gather the moments of layers, a chunk of layers in each pass over the images.

    Parameters
    ----------
    model
        The model; it runs in evaluation mode and is left as it was.
    layers
        Layers of it, in the order of the forward.
    images
        See :class:`~tuckertree.calibration.sources.Calibration`.
    memory
        Bytes that the moments of a chunk may take together. A layer whose moment alone takes more is left
        out, with a warning. What comes on top is one block of patches and the network's own activations.
    positions
        At most so many output positions of each image, chosen at random for each batch.
    seed
        Of that choice; each layer has its own, so the chunks do not matter.

    Yields
    ------
    layer, moment
        Once a chunk is complete. Keep no more of them than there is memory for.

    Raises
    ------
    TuckertreeError
        If the images cannot be used, or a layer's input holds NaN or infinite values.

    Warns
    -----
    CalibrationWarning
        If there are fewer patches than unknowns in some layers; their moments are shrunk.
    """
    few: list[str] = []
    for chunk in moment_chunks(
        model, layers, images, memory=memory, positions=positions, seed=seed, tick=tick
    ):
        while chunk:
            layer, moment = chunk.pop(0)
            if moment.few:
                few.append(layer.name)
            yield layer, moment.shrunk() if moment.few else moment
    warn_of_few(few)


def moment_chunks(
    model: nn.Module,
    layers: Sequence[Layer],
    images: Source | Calibration,
    *,
    memory: int = MEMORY,
    positions: int = POSITIONS,
    seed: int = 0,
    tick: Tick = no_progress,
) -> Iterator[list[tuple[Layer, Moment]]]:
    """Gather moments as :func:`collect_moments` does, a chunk at a time, as they are: not shrunk."""
    images = Calibration(images)
    chunks = chunks_within(layers, memory)
    for number, chunk in enumerate(chunks):
        sums = {layer.name: MomentSum(layer.spec) for layer in chunk}
        choices = {layer.name: PositionChoice(layer.name, positions, seed) for layer in chunk}
        for done, inputs in enumerate(images):
            for name, x, size_out in captured_inputs(model, chunk, inputs):
                chosen = choices[name].choose(size_out)
                for (patches,) in patch_blocks((x,), sums[name].spec, size_out, chosen):
                    sums[name].add(patches, name)
            tick(f"moments {number + 1}/{len(chunks)}", done + 1, images.batches)
        yield [(layer, sums.pop(layer.name).result(layer.name)) for layer in chunk]


def warn_of_few(names: Sequence[str]) -> None:
    """Warn once of all layers that saw fewer patches than they have unknowns."""
    if names:
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        warn(
            f"fewer calibration patches than unknowns in {len(names)} layers ({shown}): their moments are "
            "shrunk; more images would do better",
            CalibrationWarning,
            stacklevel=3,
        )


def chunks_within(layers: Sequence[Layer], memory: int, copies: int = 1) -> list[list[Layer]]:
    """Divide layers, in their order, into chunks whose moments (times ``copies``) fit in ``memory``.

    Warns
    -----
    CalibrationWarning
        Naming layers that do not fit alone; they are in no chunk.
    """
    chunks: list[list[Layer]] = []
    left = 0
    too_large = [layer.name for layer in layers if copies * moment_bytes(layer.spec) > memory]
    if too_large:
        warn(
            f"the moments of {', '.join(too_large)} do not fit in {memory / 2**20:.0f} MiB: these layers are "
            "not calibrated",
            CalibrationWarning,
            stacklevel=3,
        )
    for layer in layers:
        if layer.name in too_large:
            continue
        size = copies * moment_bytes(layer.spec)
        if size > left or not chunks:
            chunks.append([])
            left = memory
        chunks[-1].append(layer)
        left -= size
    return chunks


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


class PositionChoice:
    """Output positions of one layer, batch after batch; the same ones whatever else is gathered."""

    def __init__(self, name: str, count: int, seed: int) -> None:
        self._count = count
        self._generator = torch.Generator().manual_seed(seed + crc32(name.encode()))

    def choose(self, size_out: Sequence[int]) -> Tensor:
        """See :func:`~tuckertree.calibration.patches.choose_positions`."""
        return choose_positions(size_out, self._count, self._generator)


def patch_blocks(
    inputs: Sequence[Tensor], spec: LayerSpec, size_out: Sequence[int], positions: Tensor
) -> Iterator[list[Tensor]]:
    """Patches of one or more inputs at the same positions, a few images at a time."""
    batched = [x if x.ndim > max(spec.order + 1, 1) else x.unsqueeze(0) for x in inputs]
    images = max(1, _BLOCK // max(spec.in_channels * prod(spec.kernel_size) * len(positions), 1))
    for parts in zip(*(x.split(images) for x in batched), strict=True):
        yield [input_patches(part, spec, size_out, positions) for part in parts]


Captured = tuple[str, Tensor, tuple[int, ...]]


def captured_inputs(model: nn.Module, layers: Sequence[Layer], inputs: ExampleInputs) -> list[Captured]:
    """Inputs and output sizes of layers at every call, by one forward that ends after the last of them.

    Raises
    ------
    TuckertreeError
        If the model does not run on the images.
    """
    calls: list[Captured] = []
    left = {layer.name: max(1, len(layer.calls)) for layer in layers}

    def hook(layer: Layer) -> Any:
        def keep(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
            calls.append((layer.name, args[0].detach(), output_sizes(output, layer.spec)))
            left[layer.name] -= 1
            if all(count <= 0 for count in left.values()):
                raise _EnoughError

        return keep

    handles = [model.get_submodule(layer.name).register_forward_hook(hook(layer)) for layer in layers]
    try:
        with suppress(_EnoughError):
            run(model, to_model(inputs, model), "the calibration images")
    finally:
        for handle in handles:
            handle.remove()
    return calls


class _EnoughError(BaseException):
    """Ends a forward; no ``except Exception`` of the model's own may take it for a failure."""


def _in_sum_precision(patches: Tensor) -> Tensor:
    return patches if patches.dtype == torch.float64 else patches.to(torch.float32)


def _roots(gram: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Square root and inverse square root; of a zero matrix the identity."""
    values, vectors = torch.linalg.eigh(gram)
    largest = values[..., -1:]
    values = torch.where(largest > 0, values.maximum(floor * largest), 1.0)
    root = values.sqrt().unsqueeze(-2)
    return (vectors * root) @ vectors.mT, (vectors / root) @ vectors.mT

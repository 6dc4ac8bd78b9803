r"""Input patches: what each output position of a layer sees, for every kind of layer in one way.

Along each spatial axis a table says which input position tap ``d`` of output position ``o`` reads, or -1
where it reads nothing. Stride, dilation and padding (of every mode) are entries of that table, and so is
transposition: output ``o`` of a transposed convolution reads input ``(o + padding - d * dilation) / stride``
where that is whole. A layer's output at a position is its kernel ``W[g, T, (C, taps)]`` times the patch
there, always, so the second moment of the patches gives its mean squared output error exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from tuckertree.core.layers import LayerSpec


def choose_positions(size_out: Sequence[int], count: int, generator: torch.Generator) -> Tensor:
    """Choose ``count`` output positions by their flat number, at random; all of them if there are no more."""
    total = prod(size_out)
    if total <= count:
        return torch.arange(total)
    return torch.randperm(total, generator=generator)[:count]


def input_patches(x: Tensor, spec: LayerSpec, size_out: Sequence[int], positions: Tensor) -> Tensor:
    """Patches ``[g, images * positions, taps * C]`` that the given output positions see, the taps first.

    Parameters
    ----------
    x
        The layer's input ``[images, g * C, I1, ..., IN]`` (a linear layer's: ``[images, ..., C]``); the batch
        may be missing.
    spec
        The layer.
    size_out
        Spatial sizes of its output; for a linear layer the number of positions.
    positions
        Flat numbers of output positions.
    """
    if not spec.order:
        x = x.reshape(len(x) if x.ndim > 1 else 1, -1, spec.in_channels)
        return x.index_select(1, positions.to(x.device)).reshape(1, -1, spec.in_channels)
    x = x if x.ndim == spec.order + 2 else x.unsqueeze(0)
    sources = _flat_sources(spec, x.shape[2:], size_out, positions).to(x.device)
    images, channels = x.shape[:2]
    # One more input position that is zero: where a tap reads nothing, it reads that. With the channels last,
    # what is gathered are whole rows of memory.
    rows = torch.cat([x.flatten(2).mT, x.new_zeros(images, 1, channels)], dim=1)
    patches = rows.index_select(1, sources.flatten())
    if spec.groups == 1:
        return patches.reshape(1, images * len(positions), -1)
    patches = patches.reshape(images * len(positions), -1, spec.groups, channels // spec.groups)
    return patches.permute(2, 0, 1, 3).flatten(2)


def channels_first(values: Tensor, taps: int, axis: int) -> Tensor:
    """Reorder an axis from ``(taps, C)``, as patches are gathered, to ``(C, taps)``, as kernels lie."""
    return values.unflatten(axis, (taps, -1)).transpose(axis, axis + 1).flatten(axis, axis + 1)


def output_sizes(y: Tensor, spec: LayerSpec) -> tuple[int, ...]:
    """Spatial sizes of a layer's output; for a linear layer the number of positions."""
    return tuple(y.shape[-spec.order :]) if spec.order else (prod(y.shape[1:-1]),)


def _flat_sources(
    spec: LayerSpec, size_in: Sequence[int], size_out: Sequence[int], positions: Tensor
) -> Tensor:
    """Flat input position ``[positions, taps]`` that each tap reads, or the number of positions for none."""
    flat = torch.zeros(len(positions), 1, dtype=torch.long)
    reads = torch.ones(len(positions), 1, dtype=torch.bool)
    coordinates = torch.unravel_index(positions, tuple(size_out))
    for axis, (coordinate, length) in enumerate(zip(coordinates, size_in, strict=True)):
        table = _axis_sources(spec, axis, length, size_out[axis])[coordinate]
        flat = (flat.unsqueeze(2) * length + table.unsqueeze(1)).flatten(1)
        reads = (reads.unsqueeze(2) & (table >= 0).unsqueeze(1)).flatten(1)
    return flat.where(reads, torch.tensor(prod(size_in)))


def _axis_sources(spec: LayerSpec, axis: int, length: int, outputs: int) -> Tensor:
    """Input position ``[outputs, taps]`` along one axis, -1 for none."""
    stride, dilation = spec.stride[axis], spec.dilation[axis]
    taps = torch.arange(spec.kernel_size[axis]) * dilation
    start = torch.arange(outputs).unsqueeze(1)
    nothing = torch.tensor(-1)
    if spec.transposed:
        scaled = start + _padding(spec, axis) - taps
        source = scaled.div(stride, rounding_mode="floor")
        return source.where((scaled % stride == 0) & (source >= 0) & (source < length), nothing)
    source = start * stride + taps - _padding(spec, axis)
    if spec.padding_mode == "replicate":
        return source.clamp(0, length - 1)
    if spec.padding_mode == "circular":
        return source % length
    if spec.padding_mode == "reflect":
        return length - 1 - (length - 1 - source.abs()).abs()
    return source.where((source >= 0) & (source < length), nothing)


def _padding(spec: LayerSpec, axis: int) -> int:
    """Positions added before the first; torch puts the odd one of ``"same"`` after the last."""
    if not isinstance(spec.padding, str):
        return spec.padding[axis]
    return spec.dilation[axis] * (spec.kernel_size[axis] - 1) // 2 if spec.padding == "same" else 0

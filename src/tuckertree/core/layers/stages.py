"""How a factored layer is run: which plain layers, in which order, at which cost.

Each block of modes between two cuts becomes one stage. A stage takes the stride, padding and dilation of
the spatial modes it holds and is 1 wide in the others; because every one of these attributes acts on one
axis at a time, the stages together do exactly what the dense layer does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tuckertree.core.layers.spec import LayerSpec

_AXES = ("depth", "vertical", "horizontal")


@dataclass(frozen=True)
class Stage:
    """One plain layer of a chain.

    Attributes
    ----------
    name
        ``reduce``, ``vertical``, ``horizontal``, ``expand``; for three-dimensional kernels also ``depth``;
        ``filters`` for whole filters (SVD of the T-mode), ``core`` for an undivided Tucker-2 core.
    spec
        Structure of the layer.
    axes
        Spatial axes the stage moves over, from the input's size to the output's.
    """

    name: str
    spec: LayerSpec
    axes: tuple[int, ...]


def chain_stages(spec: LayerSpec, cuts: Sequence[int], ranks: Sequence[int]) -> tuple[Stage, ...]:
    """Stages of a layer whose kernel (nontrivial modes alone) is cut at ``cuts`` with ``ranks``."""
    nontrivial = spec.nontrivial_modes
    edges = (0, *(cut + 1 for cut in cuts), len(nontrivial) + 2)
    channels = (spec.in_channels, *(rank * spec.groups for rank in ranks), spec.out_channels)
    taps = [
        tuple(nontrivial[p - 1] for p in range(a, b) if 1 <= p <= len(nontrivial)) for a, b in pairwise(edges)
    ]
    trivial = tuple(axis for axis in range(spec.order) if axis not in nontrivial)
    owner = _owner_of_trivial_axes(taps, spec.transposed)
    stages = []
    for number, modes in enumerate(taps):
        is_last = number == len(taps) - 1
        axes = tuple(sorted(modes + trivial)) if number == owner else modes
        stages.append(
            Stage(
                name=_name(number == 0, is_last, modes, spec.order, len(nontrivial)),
                spec=_stage_spec(
                    spec, axes, channels[number], channels[number + 1], bias=spec.bias and is_last
                ),
                axes=axes,
            )
        )
    return tuple(stages)


def chain_parameters(stages: Sequence[Stage]) -> int:
    """Weights in all stages, biases not counted."""
    return sum(stage.spec.weights for stage in stages)


def chain_macs(stages: Sequence[Stage], size_in: Sequence[int], size_out: Sequence[int]) -> int:
    """Multiply-accumulates of all stages for one sample with the given spatial sizes.

    For a linear layer the sizes hold the number of positions it is applied to.
    """
    return sum(stage_macs(stages, size_in, size_out))


def stage_macs(stages: Sequence[Stage], size_in: Sequence[int], size_out: Sequence[int]) -> tuple[int, ...]:
    """Multiply-accumulates of each stage, as :func:`chain_macs`."""
    size, counts = tuple(size_in), []
    for stage in stages:
        after = tuple(size_out[axis] if axis in stage.axes else here for axis, here in enumerate(size))
        counts.append(stage.spec.macs(size, after))
        size = after
    return tuple(counts)


def _owner_of_trivial_axes(taps: Sequence[tuple[int, ...]], transposed: bool) -> int:
    """Stage that strides along axes with one tap: where the tensor is still, or again, smallest."""
    spatial = [number for number, modes in enumerate(taps) if modes]
    if transposed:
        return spatial[-1] if spatial else len(taps) - 1
    return spatial[0] if spatial else 0


def _name(is_first: bool, is_last: bool, modes: tuple[int, ...], order: int, nontrivial: int) -> str:
    if not modes:
        return "reduce" if is_first else "expand"
    if len(modes) == nontrivial and (is_first or is_last):
        return "filters"
    return _AXES[modes[0] - order] if len(modes) == 1 else "core"


def _stage_spec(
    spec: LayerSpec, axes: tuple[int, ...], inputs: int, outputs: int, *, bias: bool
) -> LayerSpec:
    def along(values: Sequence[int], otherwise: int) -> tuple[int, ...]:
        return tuple(value if axis in axes else otherwise for axis, value in enumerate(values))

    padding = spec.padding
    if isinstance(padding, str):
        padding = padding if axes and padding == "same" else (0,) * spec.order
    else:
        padding = along(padding, 0)
    return LayerSpec(
        in_channels=inputs,
        out_channels=outputs,
        kernel_size=along(spec.kernel_size, 1),
        stride=along(spec.stride, 1),
        padding=padding,
        dilation=along(spec.dilation, 1),
        output_padding=along(spec.output_padding, 0),
        groups=spec.groups,
        transposed=spec.transposed and bool(axes),
        bias=bias,
        padding_mode=spec.padding_mode if padding == "same" or any(padding) else "zeros",
    )

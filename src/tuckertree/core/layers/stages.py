"""How a factored layer is run: which plain layers, in which order, at which cost.

Each block of modes between two cuts becomes one stage. A stage takes the stride, padding and dilation of
the spatial modes it holds and is 1 wide in the others; because every one of these attributes acts on one
axis at a time, the stages together do exactly what the dense layer does, and so does one stage in the place of
several neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd

import torch
from torch import Tensor

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


def chain_stages(
    spec: LayerSpec, cuts: Sequence[int], ranks: Sequence[int], *, depthwise: bool = False
) -> tuple[Stage, ...]:
    """Stages of a layer whose kernel (nontrivial modes alone) is cut at ``cuts`` with ``ranks``.

    ``depthwise``: the stages between the first and the last act on each channel alone.
    """
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
                spec=stage_spec(
                    spec,
                    axes,
                    channels[number],
                    channels[number + 1],
                    groups=channels[number] if depthwise and number and not is_last else spec.groups,
                    bias=spec.bias and is_last,
                ),
                axes=axes,
            )
        )
    return tuple(stages)


def merged_stages(stages: Sequence[Stage], cuts: Sequence[int], kept: Sequence[int]) -> tuple[Stage, ...]:
    """Stages with those neighbours made one between which a cut is not kept.

    Parameters
    ----------
    stages
        No two move over the same axis.
    cuts, kept
        Numbers of the places between the stages, and of those that stay.
    """
    runs = [[stages[0]]]
    for cut, stage in zip(cuts, stages[1:], strict=True):
        if cut in kept:
            runs.append([stage])
        else:
            runs[-1].append(stage)
    nontrivial = sum(len(stage.spec.nontrivial_modes) for stage in stages)
    return tuple(
        run[0] if len(run) == 1 else _merged(run, run is runs[0], run is runs[-1], nontrivial) for run in runs
    )


def _merged(run: Sequence[Stage], is_first: bool, is_last: bool, nontrivial: int) -> Stage:
    first, last = run[0].spec, run[-1].spec
    owner = {axis: stage.spec for stage in run for axis in stage.axes}
    paddings = [stage.spec.padding for stage in run]

    def along(name: str) -> tuple[int, ...]:
        return tuple(getattr(owner.get(axis, first), name)[axis] for axis in range(first.order))

    spec = LayerSpec(
        in_channels=first.in_channels,
        out_channels=last.out_channels,
        kernel_size=along("kernel_size"),
        stride=along("stride"),
        padding="same" if "same" in paddings else along("padding"),
        dilation=along("dilation"),
        output_padding=along("output_padding"),
        groups=gcd(*(stage.spec.groups for stage in run)),
        transposed=any(stage.spec.transposed for stage in run),
        bias=last.bias,
        padding_mode=next((s.spec.padding_mode for s in run if s.spec.padding_mode != "zeros"), "zeros"),
    )
    name = _name(is_first, is_last, spec.nontrivial_modes, spec.order, nontrivial)
    return Stage(name, spec, tuple(sorted(owner)))


@dataclass(frozen=True)
class Scaling:
    """Stages as they grow with the ranks: weights, MACs and channels of each are monomials of them.

    Attributes
    ----------
    stages
        At ranks of 1.
    weights, outputs, groups
        Exponents ``[stages][ranks]``: of the weights and MACs, of the channels that a stage gives, of its groups.
    """

    stages: tuple[Stage, ...]
    weights: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    groups: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, stages: Callable[[Sequence[int]], tuple[Stage, ...]], ranks: int) -> Scaling:
        """Read the exponents off the stages at ranks of 1, one of them 2 at a time."""
        one = stages((1,) * ranks)
        twos = [stages(tuple(1 + (i == j) for j in range(ranks))) for i in range(ranks)]
        return cls(
            one,
            _exponents([[s.spec.weights for s in each] for each in (one, *twos)]),
            _exponents([[s.spec.out_channels for s in each] for each in (one, *twos)]),
            _exponents([[s.spec.groups for s in each] for each in (one, *twos)]),
        )

    @classmethod
    def fixed(cls, stages: tuple[Stage, ...]) -> Scaling:
        """Stages of ranks that are chosen."""
        return cls.of(lambda _: stages, 0)

    @property
    def signature(self) -> object:
        """Equal where the stages do the same work, whatever they and their ranks are called."""
        columns = zip(*self.weights, *self.outputs, *self.groups, strict=True)
        return tuple(stage.spec for stage in self.stages), tuple(c for c in columns if any(c))

    def times(self, at_one: Sequence[int], ranks: Tensor) -> Tensor:
        """Weights or MACs of each stage, given at ranks of 1, for each row of ``ranks[n, k]``: ``[stages, n]``."""
        return _times(at_one, self.weights, ranks)

    def passed(self, ranks: Tensor) -> Tensor:
        """Channels that each stage gives for each row of ``ranks[n, k]``: ``[stages, n]``."""
        return _times([stage.spec.out_channels for stage in self.stages], self.outputs, ranks)

    def in_groups(self, ranks: Tensor) -> Tensor:
        """Groups of each stage for each row of ``ranks[n, k]``: ``[stages, n]``."""
        return _times([stage.spec.groups for stage in self.stages], self.groups, ranks)


def _exponents(counts: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """How often 2 is in what each count is at a rank of 2 over what it is at 1: ``[stages][ranks]``."""
    one, *twos = counts
    return tuple(tuple((two[i] // n).bit_length() - 1 for two in twos) for i, n in enumerate(one))


def _times(at_one: Sequence[int], exponents: Sequence[Sequence[int]], ranks: Tensor) -> Tensor:
    rows = []
    for count, powers in zip(at_one, exponents, strict=True):
        row = ranks.new_full((len(ranks),), count)
        for column, power in zip(ranks.unbind(1), powers, strict=True):
            for _ in range(power):
                row = row * column
        rows.append(row)
    return torch.stack(rows)


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


def stage_spec(
    spec: LayerSpec, axes: tuple[int, ...], inputs: int, outputs: int, *, groups: int, bias: bool
) -> LayerSpec:
    """A layer of other channels and groups that moves over some axes as the layer does, and over the others not."""

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
        groups=groups,
        transposed=spec.transposed and bool(axes),
        bias=bias,
        padding_mode=spec.padding_mode if padding == "same" or any(padding) else "zeros",
    )

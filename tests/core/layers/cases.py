"""Every kind of layer this package factors, with every attribute it can have, and an input that fits."""

from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.strategies import seeded
from tuckertree.core.layers import LayerSpec, get_method
from tuckertree.core.layers.methods import known_methods

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
FULL = 10**6


class Case(NamedTuple):
    """A float64 layer, an input for it, and a method that exists for it."""

    layer: nn.Module
    x: Tensor
    method: str

    def ranks(self, rank: int) -> tuple[int, ...]:
        """The same rank for each that the method has."""
        return (rank,) * get_method(self.method).rank_count(LayerSpec.of(self.layer))


@st.composite
def linears(draw: st.DrawFn, batch: st.SearchStrategy[tuple[int, ...]]) -> tuple[nn.Module, tuple[int, ...]]:
    inputs, outputs = draw(st.tuples(st.integers(1, 8), st.integers(1, 8)))
    return nn.Linear(inputs, outputs, bias=draw(st.booleans())), (*draw(batch), inputs)


@st.composite
def convolutions(
    draw: st.DrawFn, batch: st.SearchStrategy[tuple[int, ...]], transposed: bool
) -> tuple[nn.Module, tuple[int, ...]]:
    order = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))

    def each(least: int, most: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(least, most), min_size=order, max_size=order)))

    kernel_size, dilation, stride, size = each(1, 4), each(1, 2), each(1, 3), each(3, 5)
    inputs, outputs = (groups * draw(st.integers(1, 4)) for _ in range(2))
    structure = {
        "kernel_size": kernel_size,
        "dilation": dilation,
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    reach = [d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True)]
    if transposed:
        padding = tuple(draw(st.integers(0, r // 2)) for r in reach)
        extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
        layer = TRANSPOSED[order](
            inputs, outputs, stride=stride, padding=padding, output_padding=extra, **structure
        )
    else:
        size = tuple(n + r for n, r in zip(size, reach, strict=True))
        padding = draw(st.sampled_from(["same", "valid", each(0, 2)]))
        layer = CONVOLUTIONS[order](
            inputs,
            outputs,
            stride=1 if padding == "same" else stride,
            padding=padding,
            padding_mode=draw(st.sampled_from(PADDING_MODES)),
            **structure,
        )
    return layer, (*draw(batch), inputs, *size)


@st.composite
def cases(
    draw: st.DrawFn,
    batches: tuple[tuple[int, ...], ...] = ((), (1,), (2,)),
    methods: tuple[str, ...] = known_methods(),
) -> Case:
    batch = st.sampled_from(batches)
    layer, shape = draw(
        st.one_of(
            convolutions(batch, False), convolutions(batch, False), convolutions(batch, True), linears(batch)
        )
    )
    generator = draw(seeded())
    layer = layer.to(torch.float64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
    x = torch.randn(shape, dtype=torch.float64, generator=generator)
    spec = LayerSpec.of(layer)
    return Case(layer, x, draw(st.sampled_from([name for name in methods if get_method(name).applies(spec)])))

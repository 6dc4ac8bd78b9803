import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import conv1d, conv2d, conv3d

from tests.strategies import Factoring, examples, factorings
from tuckertree.core.decomposition import decompose, kruskal_convolution

CONVOLUTIONS = {1: conv1d, 2: conv2d, 3: conv3d}


@examples(80)
@given(st.integers(1, 3).flatmap(factorings), st.data())
def test_kruskal_convolution_is_the_convolution_with_the_factored_kernel(factoring: Factoring, data):
    kernel, _, cuts, ranks = factoring
    groups, T, C, *taps = kernel.shape
    stride, dilation, spare = (
        data.draw(st.lists(st.integers(least, 3), min_size=len(taps), max_size=len(taps)))
        for least in (1, 1, 0)
    )
    sizes = [d * (size - 1) + 1 + more for size, d, more in zip(taps, dilation, spare, strict=True)]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, groups * C, *sizes, dtype=torch.float64, generator=generator)
    factors = decompose(kernel, ranks, cuts)
    weight = factors.kernel().reshape(groups * T, C, *taps)
    expected = CONVOLUTIONS[len(taps)](x, weight, stride=stride, dilation=dilation, groups=groups)
    torch.testing.assert_close(
        kruskal_convolution(x, factors, stride=stride, dilation=dilation), expected, rtol=0, atol=1e-11
    )

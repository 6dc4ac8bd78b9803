"""A chain computes what its dense layer does: no attribute is lost, whatever the method."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import pad

from tests.core.layers.cases import FULL, cases
from tests.strategies import CUT_METHODS, examples
from tuckertree.core.decomposition import kruskal_convolution
from tuckertree.core.layers import LayerSpec, densify, factorize

# torch says so when it pads by hand because the two sides differ: for the layer and the chain alike
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-11 * max(1.0, float(expected.abs().max())))


@examples(250)
@given(cases())
def test_at_full_ranks_the_chain_is_the_layer_and_so_is_its_product(case):
    layer, x, method = case
    chain = factorize(layer, method, case.ranks(FULL))
    product = densify(chain)
    with torch.no_grad():
        assert_same(chain(x), layer(x))
        assert_same(product(x), layer(x))
    assert type(product) is type(layer)
    assert LayerSpec.of(product) == LayerSpec.of(layer) == chain.dense


@examples(120)
@given(cases(), st.integers(1, 4))
def test_at_lower_ranks_the_chain_is_the_layer_with_the_truncated_kernel(case, rank):
    layer, x, method = case
    chain = factorize(layer, method, case.ranks(rank))
    truncated = copy.deepcopy(layer)
    with torch.no_grad():
        truncated.weight.copy_(chain.dense.weight(chain.factors().kernel()))
        assert_same(chain(x), truncated(x))
        assert_same(densify(chain)(x), truncated(x))


@examples(60)
@given(
    cases(batches=((1,), (2,)), methods=CUT_METHODS).filter(
        lambda case: (
            isinstance(case.layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
            and min(case.layer.kernel_size) > 1
            and not isinstance(case.layer.padding, str)
        )
    ),
    st.integers(1, 4),
)
def test_the_chain_of_a_convolution_is_the_kruskal_convolution(case, rank):
    layer, x, method = case
    chain = factorize(layer, method, case.ranks(rank))
    widths = [width for width in reversed(layer.padding) for _ in range(2)]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    with torch.no_grad():
        y = kruskal_convolution(
            pad(x, widths, mode), chain.factors(), stride=layer.stride, dilation=layer.dilation
        )
        if layer.bias is not None:
            y += layer.bias.view(-1, *(1 for _ in layer.stride))
        assert_same(chain(x), y)


@pytest.mark.parametrize("method", ["ht2", "tucker2", "spatial", "svd"])
@pytest.mark.parametrize(("layer", "size"), [
    (nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1), (5, 6)),
    (nn.ConvTranspose2d(4, 3, (4, 2), stride=(3, 2), dilation=(1, 2)), (3, 4)),
    (nn.ConvTranspose3d(4, 6, (1, 3, 3), stride=(2, 3, 2), padding=(0, 1, 1), groups=2), (2, 3, 3)),
])  # fmt: skip
def test_a_transposed_chain_reaches_every_output_size_the_layer_does(layer, size, method):
    layer = layer.double()
    chain = factorize(layer, method, [FULL] * {"ht2": 3, "tucker2": 2}.get(method, 1))
    x = torch.randn(2, 4, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        least = layer(x).shape[2:]
        most = [n + s - 1 for n, s in zip(least, layer.stride, strict=True)]
        for output_size in (least, most, (2, layer.out_channels, *most)):
            assert_same(chain(x, output_size=output_size), layer(x, output_size=output_size))
        with pytest.raises(ValueError, match="output size"):
            chain(x, output_size=[n + 1 for n in most])

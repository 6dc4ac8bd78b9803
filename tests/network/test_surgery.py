"""to_dense(): a compressed network multiplied out again."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import tuckertree as tt
from tests import networks
from tests.core.layers.cases import cases
from tests.strategies import examples
from tuckertree.core.layers import Chain, LayerSpec, factorize

IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def structure(model):
    """Names, types and shapes of a network."""
    layers = [(name, type(module), str(module)) for name, module in model.named_modules()]
    return layers, {name: (value.shape, value.dtype) for name, value in model.state_dict().items()}


# torch says so when it pads by hand because the two sides differ: for the layer and the chain alike
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@examples(60)
@given(cases(), st.integers(1, 3))
def test_every_kind_of_layer_comes_back_with_the_function_of_its_chain(case, rank):
    layer, x, method = case
    compressed = nn.Sequential(factorize(layer, method, case.ranks(rank)))
    dense = tt.to_dense(compressed)
    assert structure(dense) == structure(nn.Sequential(layer))
    assert LayerSpec.of(dense[0]) == LayerSpec.of(layer)
    with torch.no_grad():
        torch.testing.assert_close(dense(x), compressed(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("make", [networks.small_cnn, networks.UNet, networks.SharedModule])
def test_the_network_is_as_it_was_before_and_the_given_one_is_not_touched(make):
    model = make().eval()
    compressed = tt.compress(model, IMAGE, energy=0.5).model
    before = copy.deepcopy(compressed.state_dict())
    dense = tt.to_dense(compressed)
    assert structure(dense) == structure(model)
    assert not any(module.training for module in dense.modules())
    with torch.no_grad():
        torch.testing.assert_close(dense(IMAGE), compressed(IMAGE), rtol=1e-4, atol=1e-5)
        for parameter in dense.parameters():
            parameter.fill_(7.0)
    assert all(torch.equal(value, before[name]) for name, value in compressed.state_dict().items())


def test_what_is_shared_and_what_it_is_called_is_kept():
    shared = tt.to_dense(tt.compress(networks.SharedModule(), IMAGE, energy=0.5).model)
    assert isinstance(shared.a, nn.Conv2d)
    assert shared.a is shared.b
    demo = tt.to_dense(tt.compress(tt.build("demo"), torch.zeros(1, 3, 32, 32), energy=0.5).model)
    assert demo.architecture_name == "cifar10:resnet20"


def test_networks_without_chains_are_copied_and_a_chain_becomes_its_layer():
    model = networks.small_cnn()
    copied = tt.to_dense(model)
    assert copied is not model
    assert all(map(torch.equal, copied.parameters(), model.parameters()))
    chain = factorize(nn.Conv2d(8, 8, 3).half(), "ht2", (2, 2, 2))
    assert isinstance(chain, Chain)
    assert type(tt.to_dense(chain)) is nn.Conv2d
    assert tt.to_dense(chain).weight.dtype == torch.float16

"""Every form of a chain computes what the chain does, whatever the layer."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.core.layers.cases import cases
from tests.strategies import examples
from tuckertree.core.layers import Chain, LayerSpec, contract_chain, densify, factorize, fusion_variants

# torch says so when it pads by hand because the two sides differ: for the layer and the chain alike
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


def all_forms(chain):
    return fusion_variants(chain.stages, chain.cuts)


def convolution(order=2, **attributes):
    kinds = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kinds[order](6, 8, 3, padding=1, **attributes)


def assert_same(actual, expected):
    scale = max(1.0, float(expected.detach().abs().max()))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-11 * scale)


@examples(150)
@given(cases(), st.integers(1, 4))
def test_every_form_is_the_chain(case, rank):
    layer, x, method = case
    chain = factorize(layer, method, case.ranks(rank))
    expected = chain(x)
    for form in all_forms(chain):
        contracted = contract_chain(chain, form)
        assert_same(contracted(x), expected)
        stages = contracted if isinstance(contracted, Chain) else [contracted]
        assert form.parameters == sum(stage.weight.numel() for stage in stages)
        assert len(stages) == len(form.stages)


@pytest.mark.parametrize(
    "layer",
    [
        convolution(1, stride=2),
        convolution(2, stride=(2, 1), dilation=(1, 2), groups=2),
        convolution(2, padding_mode="reflect"),
        convolution(3, bias=False),
        nn.ConvTranspose2d(6, 8, 3, stride=2, padding=1, output_padding=1, groups=2),
        nn.Linear(6, 8),
    ],
    ids=["conv1d", "conv2d", "reflect", "conv3d", "transposed", "linear"],
)
def test_each_kind_of_layer_in_single_precision(layer):
    order = LayerSpec.of(layer).order
    chain = factorize(layer, "ht2", (3,) * (order + 1))
    x = torch.randn(2, 6, *(7,) * order, generator=torch.Generator().manual_seed(0))
    expected = chain(x)
    found = all_forms(chain)
    assert len(found) == 2 ** (order + 1)
    for form in found:
        torch.testing.assert_close(contract_chain(chain, form)(x), expected, rtol=0, atol=2e-6)


def test_the_forms_of_a_convolution_have_the_known_layers_and_costs():
    chain = factorize(convolution(2), "ht2", (2, 4, 3))
    assert [form.name for form in all_forms(chain)] == [
        "1x1, 3x1, 1x3, 1x1",
        "1x1, 3x1, 1x3",
        "1x1, 3x3, 1x1",
        "3x1, 1x3, 1x1",
        "1x1, 3x3",
        "3x1, 1x3",
        "3x3, 1x1",
        "dense",
    ]
    c, t, r1, r13, r3 = 6, 8, 2, 4, 3
    weights = [
        c * r1 + 3 * r1 * r13 + 3 * r13 * r3 + r3 * t,
        c * r1 + 3 * r1 * r13 + 3 * r13 * t,
        c * r1 + 9 * r1 * r3 + r3 * t,
        3 * c * r13 + 3 * r13 * r3 + r3 * t,
        c * r1 + 9 * r1 * t,
        3 * c * r13 + 3 * r13 * t,
        9 * c * r3 + r3 * t,
        9 * c * t,
    ]
    assert [form.parameters for form in all_forms(chain)] == weights
    assert [form.macs((5, 5), (5, 5)) for form in all_forms(chain)] == [25 * count for count in weights]


def test_a_stride_is_taken_where_its_axis_is():
    chain = factorize(convolution(2, stride=2), "ht2", (2, 4, 3))
    two = next(form for form in all_forms(chain) if form.cuts == (1,))
    assert [stage.spec.stride for stage in two.stages] == [(2, 1), (1, 2)]
    assert two.macs((8, 8), (4, 4)) == 3 * 6 * 4 * (4 * 8) + 3 * 4 * 8 * (4 * 4)


def test_ranks_that_a_decomposition_would_lower_are_kept():
    # With the last cut gone the one before it could not be so large, if the factors were made for it.
    layer = convolution(3)
    chain = factorize(layer, "ht2", (6, 18, 2, 8))
    form = next(form for form in all_forms(chain) if form.cuts == (0, 1, 2))
    contracted = contract_chain(chain, form)
    assert contracted.factors().ranks == chain.ranks[:3]
    x = torch.randn(1, 6, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(contracted(x), chain(x), rtol=0, atol=2e-6)


def test_a_transposed_chain_still_takes_the_size_of_its_output():
    layer = nn.ConvTranspose2d(4, 4, 3, stride=2)
    chain = factorize(layer, "ht2", (2, 3, 2))
    x = torch.ones(1, 4, 5, 5)
    for form in all_forms(chain):
        assert contract_chain(chain, form)(x, output_size=(12, 11)).shape[-2:] == (12, 11)


@pytest.mark.parametrize("cuts", [(0, 2), (1,), ()])
def test_what_else_a_chain_has_is_kept(cuts):
    layer = convolution(2).to(memory_format=torch.channels_last).half().eval()
    layer.weight.requires_grad_(False)
    chain = factorize(layer, "ht2", (4, 6, 4))
    before = copy.deepcopy(chain.state_dict())
    form = next(form for form in all_forms(chain) if form.cuts == cuts)
    contracted = contract_chain(chain, form)
    weights = [p for name, p in contracted.named_parameters() if name.endswith("weight")]
    biases = [p for name, p in contracted.named_parameters() if name.endswith("bias")]
    assert not contracted.training
    assert {p.dtype for p in contracted.parameters()} == {torch.float16}
    assert [p.requires_grad for p in weights] == [False] * len(weights)
    assert [p.requires_grad for p in biases] == [True]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    assert not all(p.is_contiguous() for p in weights)
    with torch.no_grad():
        for parameter in contracted.parameters():
            parameter.zero_()
    assert all(torch.equal(chain.state_dict()[name], value) for name, value in before.items())


def test_a_contracted_chain_can_be_contracted_further():
    chain = factorize(convolution(2).double(), "ht2", (2, 4, 3))
    x = torch.randn(1, 6, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    three = contract_chain(chain, all_forms(chain)[1])
    for form in all_forms(three):
        assert_same(contract_chain(three, form)(x), chain(x))


def test_a_form_of_another_chain_is_refused():
    chain, other = (factorize(convolution(2), "ht2", ranks) for ranks in [(2, 4, 3), (2, 3, 3)])
    with pytest.raises(ValueError, match="has no variant '3x1, 1x3'"):
        contract_chain(chain, next(form for form in all_forms(other) if form.cuts == (1,)))


@pytest.mark.parametrize(("cuts", "method", "ranks"), [((0, 2), "tucker2", (3, 4)), ((1,), "spatial", (5,))])
def test_a_contracted_chain_takes_every_weight_of_its_own_ranks(cuts, method, ranks):
    layer = convolution(2)
    chain = factorize(layer, "ht2", (3, 5, 4))
    contracted = contract_chain(chain, next(form for form in all_forms(chain) if form.cuts == cuts))
    wanted = densify(factorize(convolution(2), method, ranks)).weight
    contracted.weight = nn.Parameter(wanted.detach())
    torch.testing.assert_close(densify(contracted).weight, wanted)

"""Other factors for 8 bits: the same function, and less lost by rounding."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import tuckertree as tt
from tests import networks
from tests.core.layers.cases import cases
from tests.strategies import examples, seeded
from tuckertree.calibration import rebalance_for_int8
from tuckertree.calibration.int8 import rounded_values, rounded_weight
from tuckertree.core.decomposition import Factors
from tuckertree.core.decomposition.bases import change_basis, even_basis, flat_rotation, shared_range
from tuckertree.core.layers import factorize

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rounded(chain, x):
    """What a chain gives in 8 bits, stage after stage, as the text of a format says it."""
    for layer, stage in zip(chain, chain.stages, strict=True):
        weight, axis = layer.weight.clone(), int(stage.spec.transposed)
        with torch.no_grad():
            layer.weight.copy_(rounded_weight(weight, axis))
            x = layer(rounded_values(x))
            layer.weight.copy_(weight)
    return x


def scaled_badly(chain, seed):
    """The same function with channels of very different sizes between the stages."""
    rows, factors = chain.factors().rows(), chain.factors()
    for bond in range(len(rows) - 1):
        ranks = rows[bond].shape[0] * rows[bond].shape[-1]
        scales = 10 ** torch.empty(ranks, 1, 1).uniform_(-2, 2, generator=generator(seed + bond))
        rows[bond], rows[bond + 1] = change_basis(rows[bond], rows[bond + 1], scales.to(rows[bond]))
    chain.set_factors(Factors.of_rows(rows, factors.in_groups))


@examples(120)
@given(cases(), st.integers(1, 4), st.integers(0, 9))
def test_the_function_stays_and_rounding_costs_no_more(case, rank, seed):
    layer, x, method = case
    chain = factorize(layer, method, case.ranks(rank))
    scaled_badly(chain, seed)
    with torch.no_grad():
        other = rebalance_for_int8(nn.Sequential(chain), x)[0]
        exact = chain(x)
        torch.testing.assert_close(other(x), exact, rtol=0, atol=1e-7 * max(1.0, float(exact.abs().max())))
        lost = [float((rounded(each, x) - exact).norm()) for each in (chain, other)]
    assert other.ranks == chain.ranks
    assert lost[1] <= lost[0] * (1 + 1e-6) + 1e-12


@pytest.mark.parametrize("method", ["ht2", "tucker2", "svd", "depthwise", "cp"])
def test_what_bases_the_factors_come_in_matters_no_more(method):
    layer, x = nn.Conv2d(32, 64, 3, bias=False), torch.randn(4, 32, 12, 12, generator=generator())
    with torch.no_grad():
        layer.weight.normal_(generator=generator(1))
        ranks = (16,) * {"ht2": 3, "tucker2": 2, "svd": 1, "depthwise": 1, "cp": 1}[method]
        chain = factorize(layer, method, ranks)
        exact, bad = chain(x), factorize(layer, method, ranks)
        scaled_badly(bad, 0)
        found = [rebalance_for_int8(nn.Sequential(each), x)[0] for each in (chain, bad)]
        good, mended, unmended = (float((rounded(each, x) - exact).norm()) for each in (*found, bad))
    assert mended <= 1.2 * good
    assert mended < 0.2 * unmended


@examples(60)
@given(st.sampled_from([1, 2, 4, 8]), seeded())
def test_no_other_basis_loses_less_to_rounding_by_the_values_sizes(size, random):
    moments, gram = (
        x @ x.mT + 0.1 * torch.eye(size)
        for x in torch.randn(2, 1, size, size, generator=random, dtype=torch.float64)
    )

    def lost(basis):
        inverse = torch.linalg.inv(basis)
        values, answers = basis @ moments @ basis.mT, inverse.mT @ gram @ inverse
        return float((values.diagonal(dim1=1, dim2=2) * answers.diagonal(dim1=1, dim2=2)).sum())

    basis = even_basis(moments, gram)
    for _ in range(5):
        other = torch.randn(1, size, size, generator=random, dtype=torch.float64)
        assert lost(basis) <= lost(other) * (1 + 1e-4)
        assert lost(basis) <= lost(basis + 0.05 * other) * (1 + 1e-4)


@examples(60)
@given(st.integers(1, 12), st.floats(0, 1), seeded())
def test_no_other_scales_share_a_range_whose_steps_the_outputs_answer_to_less(channels, lean, random):
    low, high, answers = torch.rand(3, channels, generator=random, dtype=torch.float64) + 1e-3
    low = -low * (1 - lean)

    def lost(scales):
        ends = torch.stack([scales * low, scales * high])
        return float((ends.max() - ends.min()).square() * (answers / scales.square()).sum())

    scales = shared_range(low, high, answers)
    assert float(torch.minimum(scales * low, scales * high).min()) >= -1 - 1e-9
    for _ in range(8):
        other = torch.randn(channels, generator=random, dtype=torch.float64)
        assert lost(scales) <= lost(other) * 1.03
        assert lost(scales) <= lost(scales * (1 + 0.05 * other)) * 1.03


def test_a_channel_may_be_negated_and_scaled_before_and_the_range_is_shared_as_well():
    low, high, answers = -torch.tensor([0.5, 3.0, 2.0]), torch.tensor([2.0, 1.0, 4.0]), torch.rand(3)
    scales, factors = shared_range(low, high, answers), torch.tensor([3.0, -0.1, -20.0])
    ends = torch.stack([factors * low, factors * high])
    torch.testing.assert_close(
        shared_range(*ends.aminmax(dim=0), answers / factors.square()), scales / factors
    )


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 8, 12, 20, 31, 48])
def test_a_flat_rotation_is_orthogonal_and_no_entry_stands_out(size):
    matrix = flat_rotation(size)
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(size, dtype=torch.float64))
    assert float(matrix.abs().max()) <= 2**0.5 / size**0.5 + 1e-12


def test_a_network_keeps_its_function_and_the_given_one_is_not_touched():
    x = torch.randn(2, 3, 16, 16, generator=generator())
    model = tt.compress(networks.small_cnn(), x, energy=0.7).model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = rebalance_for_int8(model, x)
    torch.testing.assert_close(other(x), model(x), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in other.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in other.modules())


def test_a_chain_that_the_images_do_not_reach_and_one_of_zeros_stay():
    chain = factorize(nn.Linear(8, 8, bias=False), "svd", (4,))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = factorize(nn.Linear(8, 8, bias=False), "svd", (4,)), chain

        def forward(self, x):
            return self.used(x)

    network = Network()
    with torch.no_grad():
        for p in network.used.parameters():
            p.zero_()
    other = rebalance_for_int8(network, torch.randn(3, 8, generator=generator()))
    assert all(
        torch.equal(a, b)
        for a, b in zip(other.state_dict().values(), network.state_dict().values(), strict=True)
    )


def test_a_group_that_a_few_images_do_not_show_is_as_good_on_others_as_with_its_own_factors():
    layer = nn.Conv2d(16, 32, 3, groups=2, bias=False)
    with torch.no_grad():
        layer.weight.normal_(generator=generator())
    chain = factorize(layer, "ht2", (4, 6, 8))
    seen, others = (torch.randn(4, 16, 10, 10, generator=generator(seed)) for seed in (1, 2))
    seen[:, :8] = 0
    with torch.no_grad():
        other = rebalance_for_int8(nn.Sequential(chain), seen)[0]
        exact = chain(others)
        own, found = (float((rounded(each, others) - exact).norm()) for each in (chain, other))
    assert found < 1.5 * own


def test_images_with_numbers_that_are_none_change_nothing():
    x = torch.randn(2, 8, 6, 6, generator=generator())
    x[0, 0, 0, 0] = float("nan")
    model = nn.Sequential(factorize(nn.Conv2d(8, 8, 3), "svd", (4,)))
    other = rebalance_for_int8(model, x)
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), model.parameters(), strict=True))

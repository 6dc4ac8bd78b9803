"""CP: the errors of alternating least squares, and what the layers of its chains are."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.strategies import examples, kernels, seeded
from tuckertree.core.decomposition import Truncations
from tuckertree.core.decomposition.matricization import modes_in_row
from tuckertree.core.layers import LayerSpec, contract_chain, factorize, fusion_variants, get_method

CP, DEPTHWISE = get_method("cp"), get_method("depthwise")
both = pytest.mark.parametrize("method", [CP, DEPTHWISE], ids=lambda method: method.name)
KERNELS = kernels(max_groups=2).filter(lambda kernel: kernel.ndim > 3)


def sum_of_products(sizes, rank, generator):
    """A kernel ``[1, T, C, D1, ...]`` of a CP rank."""
    matrices = [torch.randn(n, rank, dtype=torch.float64, generator=generator) for n in sizes]
    letters = "abcde"[: len(sizes)]
    return torch.einsum(",".join(f"{x}r" for x in letters) + "->" + letters, *matrices).unsqueeze(0)


def test_the_layers_are_pointwise_and_depthwise():
    chain = factorize(nn.Conv2d(8, 12, (3, 5), stride=(2, 1), padding=1, groups=2), "cp", (5,))
    assert [(m.kernel_size, m.stride, m.padding, m.groups) for m in chain] == [
        ((1, 1), (1, 1), (0, 0), 2),
        ((3, 1), (2, 1), (1, 0), 10),
        ((1, 5), (1, 1), (0, 1), 10),
        ((1, 1), (1, 1), (0, 0), 2),
    ]
    assert [m.weight.numel() for m in chain] == [8 * 5, 10 * 3, 10 * 5, 5 * 12]
    merged = next(form for form in fusion_variants(chain.stages, chain.cuts) if form.cuts == (0, 2))
    (_, core, _) = contract_chain(chain, merged)
    assert (core.kernel_size, core.groups, core.weight.numel()) == ((3, 5), 10, 10 * 15)


def test_depthwise_has_one_layer_between_that_is_fast():
    layer = nn.Conv2d(64, 48, (3, 5), stride=(2, 1), padding=1).requires_grad_(False)
    chain = factorize(layer, "depthwise", (40,))
    assert [(m.kernel_size, m.stride, m.padding, m.groups) for m in chain] == [
        ((1, 1), (1, 1), (0, 0), 1),
        ((3, 5), (2, 1), (1, 1), 40),
        ((1, 1), (1, 1), (0, 0), 1),
    ]
    spec = LayerSpec.of(layer)
    for round_to in (1, 4, 16):
        ranks = DEPTHWISE.choices(spec, Truncations(spec.kernel(layer.weight)), round_to).ranks.flatten()
        assert all(rank % max(round_to, 8) == 0 for rank in ranks.tolist())


@examples(10)
@given(kernels(max_groups=2).filter(lambda kernel: kernel.ndim > 4), st.integers(1, 4))
def test_spatial_modes_as_one_lose_no_more_than_apart(kernel, rank):
    # Any kernel of the chain of cp is one of depthwise; the start and the seed are not the same.
    apart = CP.decompose(kernel, (rank,)).kernel()
    assert DEPTHWISE.decompose(apart, (3 * rank,)).relative_error(apart) < 0.2


@examples(20)
@given(st.sampled_from([(6, 5, 3), (7, 4, 3, 3), (5, 4, 2, 3, 2)]), st.integers(1, 3), seeded())
def test_a_sum_of_few_products_is_found(sizes, rank, generator):
    kernel = sum_of_products(sizes, rank, generator)
    # Half of the rank may be a bad start: twice the rank is enough for all of these.
    assert CP.decompose(kernel, (2 * rank,)).relative_error(kernel) < 0.05


@both
@examples(15)
@given(kernel=KERNELS)
def test_more_components_never_lose_more(method, kernel):
    (full,) = method.feasible(kernel.shape[1:], (10**6,))
    errors = [method.decompose(kernel, (2**k,)).relative_error(kernel) for k in range(4)]
    assert all(after <= before + 1e-9 for before, after in pairwise(errors))
    assert method.decompose(kernel, (full,)).relative_error(kernel) < 1e-12


@both
@examples(15)
@given(kernel=KERNELS, rank=st.integers(1, 5))
def test_balanced_components_have_vectors_of_one_norm(method, kernel, rank):
    factors = method.decompose(kernel, (rank,))
    (rank,) = factors.ranks[:1]
    for each in (factors, method.balance(factors)):
        first, *middle, last = each.rows()
        groups = len(first)
        norms = [
            first.norm(dim=1),
            *(m.reshape(groups, rank, -1).norm(dim=2) for m in middle),
            last.norm(dim=2),
        ]
        for norm in norms[1:]:
            torch.testing.assert_close(norm, norms[0], rtol=1e-7, atol=1e-9)


@both
@pytest.mark.parametrize("round_to", [1, 4, 16])
@pytest.mark.parametrize("width", [48, 288], ids=["small", "large, in single precision"])
def test_ranks_on_offer_are_multiples_and_save_parameters(method, round_to, width):
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(32, width, 3).requires_grad_(False)
    layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
    spec = LayerSpec.of(layer)
    found = method.choices(spec, Truncations(spec.kernel(layer.weight)), round_to)
    ranks = found.ranks.flatten().tolist()
    assert len(ranks) > 3
    assert all(rank % round_to == 0 for rank in ranks)
    scaling = method.scaling(spec)
    weights = scaling.times([stage.spec.weights for stage in scaling.stages], found.ranks).sum(0)
    assert int(weights.max()) < spec.weights
    for rank, squared in zip(ranks[::2], found.squared[::2].tolist(), strict=True):
        chain = factorize(layer.double(), method.name, (rank,))
        error = chain.factors().relative_error(spec.kernel(layer.weight))
        whole = float(layer.weight.square().sum())
        assert error**2 * whole == pytest.approx(squared, rel=1e-6)


@examples(8)
@given(st.sampled_from([(9, 8, 3, 3), (8, 6, 3), (5, 6, 3, 2, 3)]), st.integers(2, 6), seeded())
def test_the_error_is_that_of_tensorly(sizes, rank, generator):
    decomposition = pytest.importorskip("tensorly.decomposition")
    import tensorly

    kernel = torch.randn(1, *sizes, dtype=torch.float64, generator=generator)
    row = modes_in_row(kernel)[0].numpy()
    theirs = decomposition.parafac(row, rank, init="random", n_iter_max=200, tol=1e-7, random_state=0)
    error = float(tensorly.norm(row - tensorly.cp_to_tensor(theirs)) / tensorly.norm(row))
    assert CP.decompose(kernel, (rank,)).relative_error(kernel) < 1.05 * error


@both
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_size_of_the_weights_changes_nothing_but_the_size(method, size):
    kernel = torch.randn(1, 96, 96, 3, 3, generator=torch.Generator().manual_seed(0))
    kernel[0, 0, 0, 0, 0] = 100
    error = method.decompose(kernel, (16,)).relative_error(kernel)
    scaled = size * kernel
    assert method.decompose(scaled, (16,)).relative_error(scaled) == pytest.approx(error, rel=1e-3)

import torch
from hypothesis import given

import tuckertree as tt
from tests import networks
from tests.calibration.cases import generator, random_moment
from tests.strategies import examples, factorings
from tuckertree.calibration import balance, fit, rebalance
from tuckertree.core.decomposition import Factors
from tuckertree.core.layers import get_method


@examples(80)
@given(factorings())
def test_the_kernel_and_ranks_stay_and_the_norms_are_equal(factoring):
    kernel, method, _, ranks = factoring
    factors = fit(kernel, random_moment(kernel, dead=1), get_method(method), ranks, sweeps=1)
    balanced = balance(factors)
    assert balanced.ranks == factors.ranks
    scale = float(kernel.abs().max())
    torch.testing.assert_close(balanced.kernel(), factors.kernel(), rtol=0, atol=1e-9 * scale)
    matrices = [core.flatten(1, -2) for core in balanced.cores[:-1]] + [balanced.cores[-1].flatten(2)]
    norms = torch.stack([torch.linalg.matrix_norm(matrix, 2) for matrix in matrices])
    torch.testing.assert_close(norms, norms[:1].expand_as(norms))


@examples(40)
@given(factorings(order=2, max_groups=1).filter(lambda f: len(f.cuts) == 3))
def test_all_cores_but_one_are_orthonormal_up_to_scale(factoring):
    kernel, method, _, ranks = factoring
    U1, G1, _, U3 = balance(fit(kernel, random_moment(kernel), get_method(method), ranks, sweeps=1))
    for matrix in (U1.flatten(1, -2)[0], G1.flatten(1, -2)[0], U3.flatten(2)[0].mT):
        gram = matrix.mT @ matrix
        if matrix.shape[0] >= matrix.shape[1]:
            torch.testing.assert_close(gram, gram[0, 0] * torch.eye(len(gram), dtype=gram.dtype))


def test_a_kernel_of_zeros_stays_one():
    zeros = Factors((torch.zeros(1, 1, 4, 2), torch.zeros(1, 2, 5, 1)))
    assert not balance(zeros).kernel().any()


def test_a_model_computes_the_same_after_it_and_the_given_one_is_not_touched():
    x = torch.randn(2, 3, 16, 16, generator=generator())
    model = tt.compress(networks.small_cnn(), x, energy=0.7).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after = rebalance(model)
    torch.testing.assert_close(after(x), model(x))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(after[2][0].weight, model[2][0].weight)

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.calibration.cases import random_moment
from tests.strategies import examples, factorings, kernels
from tuckertree._base.errors import UsageError
from tuckertree.calibration import InputSecondMoment, fit, output_error
from tuckertree.calibration.fit import decompose_weighted
from tuckertree.core.decomposition import decompose, feasible_ranks
from tuckertree.core.layers import get_method

# A kernel seen only where it is zero has no relative error to speak of.
FULL = 10**6


@examples(60)
@given(factorings(), st.integers(0, 3))
def test_no_sweep_raises_the_error_whatever_the_method_and_the_dead_channels(factoring, dead):
    kernel, method, cuts, ranks = factoring
    moment = random_moment(kernel, dead=dead)
    errors = [
        output_error(
            kernel, fit(kernel, moment, get_method(method), ranks, sweeps=sweeps, tolerance=0), moment
        )
        for sweeps in range(4)
    ]
    assert all(after <= before + 1e-7 for before, after in pairwise(errors))
    assert errors[-1] <= 1 + 1e-9
    factors = fit(kernel, moment, get_method(method), ranks)
    assert factors.ranks == feasible_ranks(kernel.shape[1:], cuts, ranks)
    assert all(core.isfinite().all() and core.is_contiguous() for core in factors)
    assert factors.kernel().shape == kernel.shape


@examples(40)
@given(factorings(max_groups=2))
def test_full_ranks_are_exact(factoring):
    kernel, method, cuts, _ = factoring
    moment = random_moment(kernel)
    assert fit(kernel, moment, get_method(method), [FULL] * len(cuts)).relative_error(kernel) < 1e-5


@examples(40)
@given(kernels(max_groups=1), st.integers(1, 6))
def test_one_cut_before_the_outputs_is_the_best_of_its_rank_in_the_metric(kernel, rank):
    moment = random_moment(kernel)
    values = torch.linalg.svdvals(moment.root(0) @ kernel.flatten(2)[0].mT)[0]
    optimum = float(values[rank:].square().sum() / values.square().sum()) ** 0.5
    error = output_error(kernel, fit(kernel, moment, get_method("svd"), (rank,)), moment)
    assert error == pytest.approx(optimum, abs=1e-6)


@examples(30)
@given(factorings(max_groups=2))
def test_the_error_is_that_of_the_output(factoring):
    kernel, _, cuts, ranks = factoring
    groups, size = len(kernel), kernel[0, 0].numel()
    patches = torch.randn(groups, 50, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    moment = InputSecondMoment(patches.mT @ patches / 50, patches.mean(1), 1, 50)
    factors = decompose(kernel, ranks, cuts)
    before, after = (patches @ each.flatten(2).mT for each in (kernel, factors.kernel()))
    expected = torch.linalg.vector_norm(before - after) / torch.linalg.vector_norm(before)
    assert output_error(kernel, factors, moment) == pytest.approx(float(expected), abs=1e-9)


@examples(30)
@given(factorings(order=2))
def test_inputs_without_structure_change_nothing_at_the_start(factoring):
    kernel, method, cuts, ranks = factoring
    size = kernel[0, 0].numel()
    white = InputSecondMoment(
        torch.eye(size).double().expand(len(kernel), -1, -1), torch.zeros(1, size), 1, 10
    )
    white = InputSecondMoment(white.patch, white.mean, size // kernel.shape[2], 10)
    torch.testing.assert_close(
        decompose_weighted(kernel, get_method(method), ranks, *white.channel_roots()).kernel(),
        decompose(kernel, ranks, cuts).kernel(),
    )


def test_no_input_at_all_leaves_the_plain_decomposition():
    kernel = torch.randn(1, 6, 5, 3, 3, dtype=torch.float64)
    moment = InputSecondMoment(torch.zeros(1, 45, 45, dtype=torch.float64), torch.zeros(1, 45), 9, 10)
    expected = decompose(kernel, (2, 3, 2), (0, 1, 2)).kernel()
    torch.testing.assert_close(fit(kernel, moment, get_method("ht2"), (2, 3, 2)).kernel(), expected)
    assert output_error(kernel, decompose(kernel, (2, 3, 2), (0, 1, 2)), moment) == 0


def test_a_moment_of_another_kernel_is_refused():
    kernel = torch.randn(1, 6, 5, 3, 3)
    with pytest.raises(UsageError, match="does not belong to a kernel"):
        fit(kernel, random_moment(torch.randn(1, 6, 4, 3, 3)), get_method("svd"), (2,))


@examples(20)
@given(kernels(max_groups=2).filter(lambda kernel: kernel.ndim > 3), st.integers(1, 6), st.integers(0, 2))
def test_cp_is_refined_in_the_metric_of_the_inputs(kernel, rank, dead):
    moment, cp = random_moment(kernel, dead=dead), get_method("cp")
    errors = [
        output_error(kernel, fit(kernel, moment, cp, (rank,), sweeps=sweeps, tolerance=0), moment)
        for sweeps in (0, 1, 4)
    ]
    assert all(after <= before + 1e-7 for before, after in pairwise(errors))

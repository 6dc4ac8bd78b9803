import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.strategies import examples, factorings, kernels
from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.core.decomposition import decompose, feasible_ranks, kernel_spectra, matricize

HT2, TUCKER2 = (0, 1, 2), (0, 2)
AS_MANY_AS_THERE_ARE = 10**6


def random_kernel(*shape: int) -> Tensor:
    return torch.randn(1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@examples(80)
@given(factorings())
def test_every_method_is_exact_at_full_ranks(factoring):
    kernel, _, cuts, _ = factoring
    full = [AS_MANY_AS_THERE_ARE] * len(cuts)
    assert decompose(kernel, full, cuts).relative_error(kernel) < 1e-13


@examples(100)
@given(factorings())
def test_error_stays_within_the_bound_at_any_ranks(factoring):
    kernel, _, cuts, ranks = factoring
    spectra = kernel_spectra(kernel, cuts)
    # ranks that only the projected matrix limits: lowering them must not cost anything
    asked = {cut: min(rank, len(spectra.bonds[cut].squared)) for cut, rank in zip(cuts, ranks, strict=True)}
    assert decompose(kernel, ranks, cuts).relative_error(kernel) <= spectra.bound(asked) + 1e-7


@examples(60)
@given(kernels(order=2), st.sampled_from([0.0, 0.4, 0.7, 0.9, 0.99]))
def test_one_energy_for_all_three_cuts_bounds_the_error_as_in_the_paper(kernel, energy):
    spectra = kernel_spectra(kernel, HT2)
    ranks = {cut: bond.rank_for_energy(energy) for cut, bond in spectra.bonds.items()}
    error = decompose(kernel, tuple(ranks.values()), HT2, spectra).relative_error(kernel)
    assert error <= spectra.bound(ranks) + 1e-12
    assert spectra.bound(ranks) ** 2 <= 3 * (1 - energy)


@examples(40)
@given(factorings(max_groups=1).filter(lambda f: len(f.cuts) == 1))
def test_one_cut_is_the_best_approximation_of_its_rank(factoring):
    kernel, _, (cut,), (rank,) = factoring
    matrix = matricize(kernel, cut)[0]
    discarded = torch.linalg.svdvals(matrix)[rank:]
    optimum = float(torch.linalg.vector_norm(discarded) / torch.linalg.vector_norm(matrix))
    assert decompose(kernel, (rank,), (cut,)).relative_error(kernel) == pytest.approx(optimum, abs=1e-12)


@examples(40)
@given(kernels(order=2), st.integers(1, 6), st.integers(1, 6), st.integers(1, 12))
def test_ht2_is_the_algorithm_of_the_paper(kernel, R1, R3, R13):
    """Leaves first, each by an SVD of the group's own kernel, written as the paper writes it."""
    approximations = []
    for W in kernel:
        U1 = torch.linalg.svd(W.transpose(0, 1).flatten(1))[0][:, :R1]
        U3 = torch.linalg.svd(W.flatten(1))[0][:, :R3]
        S = torch.einsum("tcij,cr,ts->risj", W, U1, U3).permute(0, 1, 3, 2)
        r1, D1, D2, r3 = S.shape
        U, s, V = torch.linalg.svd(S.reshape(r1 * D1, D2 * r3), full_matrices=False)
        S = ((U[:, :R13] * s[:R13]) @ V[:R13]).reshape(r1, D1, D2, r3)
        approximations.append(torch.einsum("rijs,cr,ts->tcij", S, U1, U3))
    ours = decompose(kernel, (R1, R13, R3), HT2).kernel()
    torch.testing.assert_close(ours, torch.stack(approximations), rtol=0, atol=1e-7)


@examples(40)
@given(kernels(order=2), st.integers(1, 9), st.integers(1, 9))
def test_ht2_with_all_of_r13_is_tucker2(kernel, R1, R3):
    undivided = decompose(kernel, (R1, R3), TUCKER2).kernel()
    divided = decompose(kernel, (R1, AS_MANY_AS_THERE_ARE, R3), HT2).kernel()
    torch.testing.assert_close(divided, undivided)


@examples(40)
@given(factorings(order=2), st.data())
def test_error_never_grows_with_a_rank(factoring, data):
    kernel, _, cuts, ranks = factoring
    raised = data.draw(st.integers(0, len(cuts) - 1))
    more = tuple(rank + (i == raised) for i, rank in enumerate(ranks))
    error, error_with_more = (decompose(kernel, r, cuts).relative_error(kernel) for r in (ranks, more))
    assert error_with_more <= error + 1e-10


@examples(40)
@given(factorings().filter(lambda f: len(f.cuts) > 1))
def test_all_cores_but_the_remainder_are_orthonormal(factoring):
    kernel, _, cuts, ranks = factoring
    *bases, _, last = decompose(kernel, ranks, cuts)
    last = last.flatten(2)  # U3[g, R3, T]
    for basis in [*(core.flatten(1, -2) for core in bases), last.mT]:
        gram = basis.mT @ basis
        torch.testing.assert_close(gram, torch.eye(gram.shape[-1], dtype=gram.dtype).expand_as(gram))


@examples(20)
@given(kernels(order=2))
def test_ht2_cores_follow_the_formula(kernel):
    groups, T, C, D1, D2 = kernel.shape
    factors = decompose(kernel, (3, 4, 2), HT2)
    R1, R13, R3 = factors.ranks
    U1, G1, G2, U3 = factors
    assert (U1.shape, U3.shape) == ((groups, 1, C, R1), (groups, R3, T, 1))
    product = torch.einsum("gcr,grdq,gqes,gst->gtcde", U1[:, 0], G1, G2, U3[..., 0])
    torch.testing.assert_close(factors.kernel(), product)
    assert factors.parameters == groups * (C * R1 + D1 * R1 * R13 + D2 * R13 * R3 + R3 * T)


@pytest.mark.parametrize(
    ("shape", "cuts", "asked", "feasible"),
    [
        ((64, 64, 3, 3), HT2, (2, 99, 4), (2, 6, 4)),  # R13 <= D1 R1
        ((64, 64, 3, 5), HT2, (9, 99, 2), (9, 10, 2)),  # R13 <= D2 R3
        ((4, 100, 3, 3), HT2, (99, 99, 99), (36, 12, 4)),  # R1 <= D1 D2 T
        ((8, 6), (0,), (99,), (6,)),
        ((8, 8, 3, 3, 3), (0, 1, 2, 3), (2, 99, 99, 1), (2, 6, 3, 1)),
        ((8, 8, 3, 3), HT2, (2, 3, 4), (2, 3, 4)),
    ],
)
def test_ranks_are_lowered_to_what_there_is(shape, cuts, asked, feasible):
    assert feasible_ranks(shape, cuts, asked) == feasible
    assert decompose(random_kernel(*shape), asked, cuts).ranks == feasible


@pytest.mark.parametrize("ranks", [(1, 1), (1, 1, 1, 1), (1, 0, 1)])
def test_one_positive_rank_is_needed_for_each_cut(ranks):
    with pytest.raises(UsageError, match="3 positive ranks are needed"):
        decompose(random_kernel(4, 4, 3, 3), ranks, HT2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_kernels_are_factored_in_float64_and_left_alone(dtype):
    kernel = random_kernel(8, 6, 3, 3).to(dtype).requires_grad_()
    before = kernel.detach().clone()
    cores = decompose(kernel, (3, 4, 3), HT2).cores
    assert torch.equal(kernel, before)
    for core, wide in zip(cores, decompose(before.to(torch.float64), (3, 4, 3), HT2), strict=True):
        assert core.dtype == torch.float64
        assert not core.requires_grad
        assert torch.equal(core, wide)


@examples(20)
@given(factorings())
def test_spectra_at_hand_change_nothing(factoring):
    kernel, _, cuts, ranks = factoring
    spectra = kernel_spectra(kernel, cuts)
    pairs = zip(decompose(kernel, ranks, cuts), decompose(kernel, ranks, cuts, spectra), strict=True)
    assert all(torch.equal(computed, given) for computed, given in pairs)


@examples(20)
@given(factorings())
def test_cores_are_contiguous_in_memory_of_their_own(factoring):
    kernel, _, cuts, ranks = factoring
    spectra = kernel_spectra(kernel, cuts)
    bases = [bond.basis for bond in spectra.bonds.values() if bond.basis is not None]
    cores = decompose(kernel, ranks, cuts, spectra).cores
    storages = {tensor.untyped_storage().data_ptr() for tensor in (kernel, *bases, *cores)}
    assert len(storages) == 1 + len(bases) + len(cores)
    assert all(core.untyped_storage().nbytes() == 8 * core.numel() for core in cores)
    assert all(core.is_contiguous() for core in cores)


def test_a_kernel_of_zeros_has_finite_factors_and_no_error():
    kernel = torch.zeros(2, 4, 4, 3, 3)
    factors = decompose(kernel, (2, 2, 2), HT2)
    assert all(core.isfinite().all() for core in factors)
    assert factors.relative_error(kernel) == 0


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_one_bad_weight_is_enough_to_refuse_a_kernel(poison):
    kernel = random_kernel(4, 4, 3, 3)
    kernel[0, 1, 2, 0, 1] = poison
    with pytest.raises(TuckertreeError, match="the kernel holds NaN or infinite values"):
        decompose(kernel, (1, 1, 1), HT2)

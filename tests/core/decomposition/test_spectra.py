import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import examples, factorings, kernels
from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.core.decomposition import Bond, decompose, kernel_spectra, matricize

EVERY_ENERGY = (0.0, 0.5, 0.9, 1.0)


def bonds() -> st.SearchStrategy[Bond]:
    """Spectra made by hand, with plateaus and exact zeros."""
    squared = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.0, 3.0, 10.0]), min_size=1, max_size=8)
    return squared.map(lambda values: Bond(torch.tensor(sorted(values, reverse=True), dtype=torch.float64)))


@examples(60)
@given(factorings())
def test_spectra_are_the_squared_singular_values_of_the_unfoldings(factoring):
    kernel, _, cuts, _ = factoring
    spectra = kernel_spectra(kernel, cuts)
    assert tuple(spectra.bonds) == cuts
    for cut, bond in spectra.bonds.items():
        expected = torch.linalg.svdvals(matricize(kernel, cut)).square().sum(0)
        torch.testing.assert_close(bond.squared, expected, rtol=0, atol=1e-12 * float(expected.sum()))


@examples(60)
@given(factorings())
def test_leading_vectors_are_orthonormal_and_capture_what_the_spectrum_says(factoring):
    kernel, _, cuts, _ = factoring
    for cut, bond in kernel_spectra(kernel, cuts).bonds.items():
        if bond.basis is None:
            continue
        matrix = matricize(kernel, cut)
        matrix = matrix if bond.side == "left" else matrix.mT
        for rank in range(1, len(bond.squared) + 1):
            vectors = bond.leading(rank)
            gram = vectors.mT @ vectors
            torch.testing.assert_close(gram, torch.eye(rank, dtype=gram.dtype).expand_as(gram))
            captured = float((vectors.mT @ matrix).square().sum())
            assert captured == pytest.approx(float(bond.squared[:rank].sum()), rel=1e-10)


@examples(40)
@given(bonds())
def test_tails_are_what_a_rank_discards(bond):
    assert bond.tails.tolist() == [math.fsum(bond.squared[rank:]) for rank in range(len(bond.squared) + 1)]


@examples(60)
@given(bonds(), st.sampled_from([0.0, 0.25, 0.5, 0.75, 0.875, 0.99]))
def test_rank_for_energy_is_the_smallest_above_the_energy(bond, energy):
    rank = bond.rank_for_energy(energy)
    kept = [math.fsum(bond.squared[:r]) for r in range(len(bond.squared) + 1)]
    if kept[-1] == 0:
        assert rank == 1
    else:
        assert kept[rank] / kept[-1] > energy >= kept[rank - 1] / kept[-1]


def test_energy_must_be_exceeded_not_reached():
    assert Bond(torch.ones(4, dtype=torch.float64)).rank_for_energy(0.5) == 3


@examples(60)
@given(bonds(), st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0, 1e3]))
def test_rank_for_tail_is_the_smallest_that_stays_within_the_allowance(bond, allowance):
    rank = bond.rank_for_tail(allowance)
    assert bond.tails[rank] <= allowance
    assert rank == 1 or bond.tails[rank - 1] > allowance


def test_energy_of_one_is_the_numerical_rank_and_keeps_everything_but_rounding():
    generator = torch.Generator().manual_seed(0)
    core, u, v = (
        torch.randn(*shape, dtype=torch.float64, generator=generator)
        for shape in ((4, 3, 3, 3), (12, 4), (10, 3))
    )
    kernel = torch.einsum("tr,rshw,cs->tchw", u, core, v).unsqueeze(0)  # multilinear rank (T: 4, C: 3)
    spectra = kernel_spectra(kernel, (0, 1, 2))
    ranks = tuple(bond.rank_for_energy(1.0) for bond in spectra.bonds.values())
    assert (ranks[0], ranks[2]) == (3, 4)
    assert decompose(kernel, ranks, (0, 1, 2)).relative_error(kernel) < 1e-7


@pytest.mark.parametrize("energy", EVERY_ENERGY)
def test_a_kernel_of_zeros_has_rank_one(energy):
    spectra = kernel_spectra(torch.zeros(2, 5, 4, 3, 3), (0, 1, 2))
    assert [bond.rank_for_energy(energy) for bond in spectra.bonds.values()] == [1, 1, 1]
    assert spectra.bound({0: 1, 1: 1, 2: 1}) == 0


@pytest.mark.parametrize("energy", EVERY_ENERGY)
def test_a_single_channel_has_rank_one_in_its_modes(energy):
    kernel = torch.randn(1, 1, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    leaf_c, inner, leaf_t = kernel_spectra(kernel, (0, 1, 2)).bonds.values()
    assert leaf_c.rank_for_energy(energy) == leaf_t.rank_for_energy(energy) == 1
    assert len(inner.squared) == 3


@examples(20)
@given(kernels(order=2), st.sampled_from([torch.float16, torch.bfloat16, torch.float32]))
def test_narrow_types_lose_nothing_more_than_they_have(kernel, dtype):
    narrow = kernel.to(dtype)
    spectra, wide = (kernel_spectra(k, (0, 1, 2)) for k in (narrow, narrow.to(torch.float64)))
    for cut, bond in spectra.bonds.items():
        assert bond.squared.dtype == torch.float64
        assert torch.equal(bond.squared, wide.bonds[cut].squared)


@pytest.mark.parametrize(
    ("kernel", "error", "message"),
    [
        (torch.full((1, 2, 2, 3), torch.nan), TuckertreeError, "NaN or infinite"),
        (torch.full((1, 2, 2, 3), -torch.inf), TuckertreeError, "NaN or infinite"),
        (torch.zeros(1, 2, 0, 3), UsageError, r"none of them empty; got shape \(1, 2, 0, 3\)"),
        (torch.zeros(2, 3), UsageError, r"needs groups, T and C.*\(2, 3\)"),
        (torch.ones(1, 2, 2, dtype=torch.int8), UsageError, "not torch.int8"),
        (torch.ones(1, 2, 2, dtype=torch.complex64), UsageError, "not torch.complex64"),
    ],
    ids=["nan", "inf", "empty", "no groups", "integer", "complex"],
)
def test_kernels_that_have_no_spectrum_are_refused(kernel, error, message):
    with pytest.raises(error, match=message):
        kernel_spectra(kernel, (0,))


def test_a_spectrum_needs_a_cut_and_vectors_need_a_basis():
    kernel = torch.ones(1, 4, 4, 3, 3)
    with pytest.raises(UsageError, match="at least one bond"):
        kernel_spectra(kernel, ())
    with pytest.raises(UsageError, match="only the singular values"):
        kernel_spectra(kernel, (0, 1, 2)).bonds[1].leading(1)

"""The errors foretold for every choice of ranks, against decompositions that are really made."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import examples, kernels
from tuckertree.core.decomposition import (
    core_bonds,
    decompose,
    inner_tails,
    kernel_spectra,
    rotated_core,
    truncation_errors,
    tucker_tails,
)

spatial_kernels = st.integers(1, 3).flatmap(kernels)


def cut_everywhere(kernel):
    order = kernel.ndim - 3
    cuts = tuple(range(order + 1))
    spectra = kernel_spectra(kernel, cuts)
    core = rotated_core(kernel, spectra)
    return cuts, spectra, core, core_bonds(core, cuts[1:-1])


@examples(40)
@given(spatial_kernels)
def test_tucker_tails_are_the_errors_of_tucker2(kernel):
    cuts, spectra, core, _ = cut_everywhere(kernel)
    ends = (cuts[0], cuts[-1])
    tails, norm = tucker_tails(core), spectra.squared_norm
    for ranks in itertools.product(range(1, core.shape[1] + 1), range(1, core.shape[-1] + 1)):
        error = decompose(kernel, ranks, ends, spectra).relative_error(kernel)
        assert float(tails[ranks]) == pytest.approx(error**2 * norm, abs=1e-9 * norm)
    assert float(tails[0, 0]) == float(tails[0, -1]) == pytest.approx(norm)


@examples(60)
@given(spatial_kernels, st.data())
def test_the_bound_of_all_cuts_lies_between_the_true_error_and_the_textbooks(kernel, data):
    cuts, spectra, core, inner = cut_everywhere(kernel)
    limits = [len(spectra.bonds[cut].squared) for cut in cuts]
    ranks = tuple(data.draw(st.integers(1, limit)) for limit in limits)
    grid = [torch.tensor([rank]) for rank in ranks]
    bound = float(truncation_errors(core, inner, cuts, grid)) / spectra.squared_norm
    assert decompose(kernel, ranks, cuts, spectra).relative_error(kernel) ** 2 <= bound + 1e-9
    assert bound <= spectra.bound(dict(zip(cuts, ranks, strict=True))) ** 2 + 1e-9


@examples(30)
@given(kernels(order=2))
def test_an_inner_cut_alone_loses_its_own_tail(kernel):
    _, spectra, core, inner = cut_everywhere(kernel)
    ranks = torch.arange(1, len(inner[1].squared) + 1)
    full = torch.tensor([core.shape[1]]), ranks, torch.tensor([core.shape[-1]])
    tails = inner_tails(core, 1, inner[1], full).flatten()
    expected = spectra.bonds[1].tails[ranks]
    torch.testing.assert_close(tails, expected, rtol=0, atol=1e-9 * spectra.squared_norm)


@examples(20)
@given(kernels(order=3))
def test_a_grid_is_its_points(kernel):
    cuts, _, core, inner = cut_everywhere(kernel)
    limits = (core.shape[1], *(len(bond.squared) for bond in inner.values()), core.shape[-1])
    grid = [torch.arange(1, limit + 1) for limit in limits]
    table = truncation_errors(core, inner, cuts, grid)
    assert table.shape == tuple(len(ranks) for ranks in grid)
    middle = tuple(size // 2 for size in table.shape)
    point = truncation_errors(core, inner, cuts, [g[i : i + 1] for g, i in zip(grid, middle, strict=True)])
    assert float(point) == pytest.approx(float(table[middle]), rel=1e-9, abs=1e-12)


def test_spectra_without_a_basis_are_not_trusted_with_a_decomposition():
    kernel = torch.randn(1, 6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    spectra = kernel_spectra(kernel, (0, 1, 2))
    assert spectra.serves((0, 2))
    assert not spectra.serves((1,))
    expected = decompose(kernel, (4,), (1,)).kernel()
    torch.testing.assert_close(decompose(kernel, (4,), (1,), spectra).kernel(), expected)

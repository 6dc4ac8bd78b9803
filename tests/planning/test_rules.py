"""What each rule promises about its ranks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tuckertree._base.errors import UsageError
from tuckertree.core.decomposition import decompose, kernel_spectra
from tuckertree.planning import Energy, ErrorBound, Ranks

KERNEL = torch.randn(1, 12, 10, 3, 3, generator=torch.Generator().manual_seed(1))
CUTS = (0, 1, 2)
SPECTRA = kernel_spectra(KERNEL, CUTS)


def bound(ranks):
    return SPECTRA.bound(dict(zip(CUTS, ranks, strict=True)))


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.floats(0.01, 0.99))
def test_error_meets_its_bound_and_no_rank_can_be_lowered(error):
    ranks = ErrorBound(error).ranks("layer", SPECTRA)
    assert bound(ranks) <= error
    assert decompose(KERNEL, ranks, CUTS, SPECTRA).relative_error(KERNEL) <= error
    for i, rank in enumerate(ranks):
        if rank > 1:
            assert bound([*ranks[:i], rank - 1, *ranks[i + 1 :]]) > error


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.floats(0.01, 0.99))
def test_energy_is_exceeded_by_its_ranks_and_by_no_smaller_ones(energy):
    for bond, rank in zip(SPECTRA.bonds.values(), Energy(energy).ranks("layer", SPECTRA), strict=True):
        shares = bond.squared.cumsum(0) / bond.squared.sum()
        assert shares[rank - 1] > energy
        assert rank == 1 or shares[rank - 2] <= energy


def test_energy_one_and_error_zero_are_full_ranks():
    assert Energy(1).ranks("layer", SPECTRA) == ErrorBound(0).ranks("layer", SPECTRA) == (10, 30, 12)


def test_ranks_by_pattern_first_match_counts():
    rule = Ranks({"a.*": 4, "b": (1, 2, 3), "a.b": 9, "c": 0.5})
    assert rule.ranks("a.b", SPECTRA) == (4, 4, 4)
    assert rule.ranks("b", SPECTRA) == (1, 2, 3)
    assert rule.ranks("c", SPECTRA) == Energy(0.5).ranks("c", SPECTRA)
    assert rule.ranks("d", SPECTRA) is None


@pytest.mark.parametrize("energy", [0, -0.1, 1.0001, float("nan")])
def test_energy_outside_its_range_is_refused(energy):
    with pytest.raises(UsageError, match=r"energy must be in \(0, 1\]"):
        Energy(energy)


@pytest.mark.parametrize("error", [-0.1, 1, float("nan")])
def test_error_outside_its_range_is_refused(error):
    with pytest.raises(UsageError, match=r"error must be in \[0, 1\)"):
        ErrorBound(error)


@pytest.mark.parametrize(
    "layers", [{}, {"a": 0}, {"a": (1, -2)}, {"a": 1.5}, {"a": ()}, {"a": True}, {"a": ("x",)}]
)
def test_ranks_that_cannot_be_are_refused(layers):
    with pytest.raises(UsageError):
        Ranks(layers)


def test_the_wrong_number_of_ranks_names_the_layer():
    with pytest.raises(UsageError, match="layer needs 3 ranks, 'l\\*' gives 2"):
        Ranks({"l*": (1, 2)}).ranks("layer", SPECTRA)

"""Tables with drawings: every cut of a layer has a row and a name."""

import pytest
import torch

from tuckertree.core.decomposition import kernel_spectra
from tuckertree.io.report import spectra_table


@pytest.mark.parametrize(
    ("kernel", "cuts", "names"),
    [
        ((), (0,), ["R"]),
        ((3,), (0, 1), ["R1", "R2"]),
        ((3, 3), (0, 1, 2), ["R1", "R13", "R3"]),
        ((3, 3, 3), (0, 1, 2, 3), ["R1", "R2", "R3", "R4"]),
        ((1,) * 10, range(11), [f"R{number}" for number in range(1, 12)]),
    ],
)
def test_each_cut_is_named(kernel, cuts, names):
    torch.manual_seed(0)
    found = kernel_spectra(torch.randn(1, 4, 5, *kernel), cuts)
    assert [row[:2] for row in spectra_table({"layer": found}).rows] == [("layer", name) for name in names]

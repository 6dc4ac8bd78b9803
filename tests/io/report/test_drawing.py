"""Tables with drawings: every cut of a layer has a row and a name."""

from dataclasses import replace

import pytest
import torch

import tuckertree as tt
from tuckertree.core.decomposition import kernel_spectra
from tuckertree.io.report import spectra_table
from tuckertree.planning import OfferedRecord, Options, survey, take_inventory


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


def test_a_layer_with_ranks_on_offer_has_a_row_of_errors():
    torch.manual_seed(0)
    model, x = (
        torch.nn.Sequential(torch.nn.Conv2d(8, 16, 3), torch.nn.Conv2d(16, 16, 3)),
        torch.zeros(1, 8, 9, 9),
    )
    plan = tt.plan(model, x, tt.Budget(macs=0.5), methods=("depthwise",))
    layer = replace(plan.compressed[-1], ranks=(16,))
    offered = {"1": (layer, OfferedRecord((8, 16, 24), (1.0, 0.25, 0.0)))}
    rows = spectra_table({"1": kernel_spectra(torch.randn(1, 4, 5, 3, 3), (0, 1, 2))}, offered).rows
    assert [row[1] for row in rows] == ["R1", "R13", "R3", "depthwise"]
    assert rows[-1][2:] == ("16 of 8..24", "█▄ ", "24", "24", "24", "16", "16")
    assert spectra_table({}, offered).rows == [rows[-1]]


def test_networks_of_one_and_three_dimensions():
    torch.manual_seed(0)
    for layer, x, names in (
        (torch.nn.Conv1d, torch.zeros(1, 8, 5), ["R1", "R2"]),
        (torch.nn.Conv3d, torch.zeros(1, 8, 5, 5, 5), ["R1", "R2", "R3", "R4"]),
    ):
        model = torch.nn.Sequential(layer(8, 8, 3), layer(8, 8, 3))
        found = survey(model, take_inventory(model, x), Options())
        assert [row[:2] for row in spectra_table(found).rows] == [
            ("0", "R"),  # the first one gets an SVD
            *(("1", name) for name in names),
        ]

"""What is kept of the spectra and the curve that a plan was chosen by."""

import json

import pytest
import torch
from torch import nn

import tuckertree as tt
from tuckertree._base.reading import read_as
from tuckertree.core.decomposition import kernel_spectra
from tuckertree.core.layers import Choices
from tuckertree.planning import SurveyRecord
from tuckertree.planning.survey_record import POINTS, BondRecord, LayerRecord, OfferedRecord, StageRecord


def network():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 96, 3, groups=2), nn.ReLU(), nn.Conv2d(96, 100, 1)
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    "rule", [tt.Energy(0.7), tt.ErrorBound(0.4), tt.Budget(macs=0.5), tt.Budget(params=0.5, macs=0.6)]
)
def test_costs_at_the_chosen_ranks_are_those_of_the_plan(rule):
    methods = ("ht2", "tucker2", "spatial", "svd")  # the methods whose ranks are those of bonds
    options = {"methods": methods} if isinstance(rule, tt.Budget) else {}
    result = tt.compress(network(), torch.zeros(1, 3, 12, 12), rule, **options)
    assert set(result.survey.layers) == {layer.name for layer in result.plan.compressed} != set()
    for layer in result.plan.compressed:
        known = result.survey.layers[layer.name]
        assert known.costs(layer.ranks) == (layer.parameters[1], layer.macs[1])
        assert all(rank in bond.ranks for rank, bond in zip(layer.ranks, known.bonds, strict=True))


@pytest.mark.parametrize("method", ["depthwise", "cp"])
def test_of_methods_without_spectra_the_ranks_on_offer_are_kept_with_their_errors(tmp_path, method):
    result = tt.compress(network(), torch.zeros(1, 3, 12, 12), tt.Budget(macs=0.6), methods=(method,))
    assert set(result.survey.layers) == {layer.name for layer in result.plan.compressed} != set()
    for layer in result.plan.compressed:
        known = result.survey.layers[layer.name]
        assert known.costs(layer.ranks) == (layer.parameters[1], layer.macs[1])
        assert known.fits(layer.ranks)
        assert not known.fits((max(known.offered.ranks) + 1,))
        squared = dict(zip(known.offered.ranks, known.offered.squared, strict=True))
        assert squared[layer.ranks[0]] ** 0.5 == pytest.approx(result.errors[layer.name], rel=1e-3)
    report = json.loads((result.save(tmp_path / "saved") / "report.json").read_text())
    assert read_as(SurveyRecord, report["survey"]) == result.survey
    assert result.survey.known(result.plan).keys() == result.survey.layers.keys()


def test_bonds_are_kept_as_they_were_before_there_were_ranks_on_offer():
    methods = {"methods": ("svd",)}
    survey = tt.compress(network(), torch.zeros(1, 3, 12, 12), tt.Budget(params=0.5), **methods).survey
    assert all(layer.keys() == {"bonds", "stages"} for layer in survey.to_json()["layers"].values())


def test_many_ranks_on_offer_are_thinned_and_the_chosen_one_stays():
    ranks = torch.arange(1, 1000).unsqueeze(1)
    record = OfferedRecord.of(Choices(ranks, 1 / ranks[:, 0].double()), 777)
    assert len(record.ranks) <= POINTS + 2
    assert {1, 777, 999} <= set(record.ranks)
    assert OfferedRecord.of(Choices(ranks, 1 / ranks[:, 0].double()), 1000) is None


@pytest.mark.parametrize(
    ("ranks", "squared"),
    [((), ()), ((8, 8), (1, 1)), ((0,), (1,)), ((8,), (1, 1)), ((8,), (1.5,)), ((8,), (-1,))],
)
def test_ranks_on_offer_that_cannot_be_are_refused(ranks, squared):
    with pytest.raises(tt.UsageError, match="ranks"):
        OfferedRecord(ranks, squared)


def test_a_layer_has_either_bonds_or_ranks_on_offer():
    offered, stage = OfferedRecord((8,), (0.5,)), StageRecord(1, 1, (1, 1))
    with pytest.raises(tt.UsageError, match="either"):
        LayerRecord((BondRecord((1,), (1.0,), (0.0,)),), (), offered)
    with pytest.raises(tt.UsageError, match="exponent"):
        LayerRecord((), (stage,), offered)


def test_a_budget_keeps_its_curve_and_the_plan_lies_on_it_or_above():
    result = tt.compress(network(), torch.zeros(1, 3, 12, 12), tt.Budget(params=0.5))
    curve, plan = result.survey.curve, result.plan
    assert curve[-1].parameters == plan.parameters[0]
    better = [point.loss for point in curve if point.parameters >= plan.parameters[1]]
    assert min(better) <= plan.optimality.loss <= max(point.loss for point in curve)


def test_tails_are_shares_of_the_squared_norm():
    kernel = torch.randn(1, 70, 90, 3, 3, generator=torch.Generator().manual_seed(1))
    bond = kernel_spectra(kernel, (0, 2)).bonds[0]
    record = BondRecord.of(bond, 41)
    assert len(record.ranks) <= POINTS
    assert 41 in record.ranks
    assert (record.ranks[0], record.ranks[-1]) == (1, 90)
    assert sorted(set(record.ranks)) == list(record.ranks)
    for rank, tail in zip(record.ranks, record.tails, strict=True):
        assert tail == pytest.approx(float(bond.tails[rank] / bond.tails[0]), rel=1e-3)


def test_it_is_read_back_from_the_saved_report_and_is_not_printed_with_the_result(tmp_path):
    result = tt.compress(network(), torch.zeros(1, 3, 12, 12), tt.Budget(params=0.5))
    report = json.loads((result.save(tmp_path / "saved") / "report.json").read_text())
    assert read_as(SurveyRecord, report["survey"]) == result.survey
    assert "survey" not in result.summary()
    with pytest.raises(tt.UsageError, match="unknown key"):
        read_as(SurveyRecord, {**report["survey"], "code": "x"})


def test_of_a_plan_that_was_given_there_is_nothing_to_keep(tmp_path):
    model, x = network(), torch.zeros(1, 3, 12, 12)
    result = tt.compress(model, x, tt.plan(model, x, tt.Budget(params=0.5)))
    assert result.survey is None
    assert "survey" not in json.loads((result.save(tmp_path / "saved") / "report.json").read_text())


def test_a_kernel_of_zeros_has_a_record():
    record = BondRecord.of(kernel_spectra(torch.zeros(1, 4, 5, 3, 3), (0, 2)).bonds[0], 1)
    assert set(record.tails) == {0.0}

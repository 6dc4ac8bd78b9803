"""A network of little use is not handed over without a word."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import tuckertree as tt
from tests import networks
from tuckertree.io.report import plan_table, plan_totals, totals, warnings_of

IMAGE = torch.zeros(1, 3, 32, 32)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return networks.UNet().eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_a_large_loss_is_warned_of_only_without_images(model, images):
    lost = tt.compress(model, IMAGE, tt.Budget(params="4x"))
    assert lost.relative_error > 0.25
    assert [line for line in warnings_of(lost) if "--calibration" in line]
    assert [line for line in totals(lost) if line.startswith("warning     without images")]
    assert "without images" in str(lost)
    fitted = tt.compress(model, IMAGE, tt.Budget(params="4x"), calibration=images)
    assert not [line for line in warnings_of(fitted) if "without images" in line]
    assert not [line for line in warnings_of(replace(lost, relative_error=0.05)) if "without images" in line]


def test_a_layer_of_which_nothing_is_left_is_named_whatever_the_total_says():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3), nn.Conv2d(32, 32, 3)).eval()
    with torch.no_grad():
        model[1].weight *= 1e-3
    result = tt.compress(model, IMAGE, tt.Ranks({"1": 1}))
    assert result.relative_error < 0.05
    assert result.errors["1"] > 0.95
    (warning,) = warnings_of(result)
    assert "next to nothing is left of 1 (ranks 1/1/1, error 0.9" in warning


def test_a_bound_stands_beside_the_error_only_where_it_bounds_it(model, images):
    heads = {}
    for name, rule, calibration in (
        ("plain", tt.Energy(0.5), None),
        ("fitted", tt.Energy(0.5), images),
        ("budget", tt.Budget(params=0.5), None),
        ("outputs", tt.Budget(params=0.5), images),
    ):
        result = tt.compress(model, IMAGE, rule, calibration=calibration)
        heads[name] = plan_table(result).heads
        if "bound" in heads[name]:
            bounds = {layer.name: layer.bound for layer in result.plan.compressed}
            assert all(result.errors[layer] <= bound * 1.001 for layer, bound in bounds.items())
            assert not any(line.startswith("planned") for line in totals(result))
        else:
            assert any(line.startswith("planned     error") for line in totals(result))
    assert [name for name, shown in heads.items() if "bound" in shown] == ["plain", "budget"]


def test_what_is_left_of_a_budget_is_explained_where_it_is_more_than_a_little():
    said = set()
    for round_to, least in ((1, 0.3), (16, 0.5)):
        for share in (least, 0.6, 0.7, 0.8):
            plan = tt.plan(networks.small_cnn(), IMAGE, tt.Budget(params=share), round_to=round_to)
            lines = [line for line in plan_totals(plan) if line.startswith("left over")]
            used = plan.parameters[1] / plan.parameters[0]
            assert bool(lines) == (used <= 0.98 * share)
            assert not lines or f"{used:.3g} of the parameters for {share:g} asked for" in lines[0]
            said.add(bool(lines))
    assert said == {True, False}
    bound = tt.plan(networks.small_cnn(), IMAGE, tt.Budget(params=1, macs=0.5))
    assert not [line for line in plan_totals(bound) if line.startswith("left over")]  # the MACs are used up

"""Budgets: kept, spent, certified, and refused with the nearest that can be."""

import itertools
import json
import re

import pytest
import torch
from torch import nn

from tests import networks
from tests.strategies import CUT_METHODS
from tuckertree._base.errors import TuckertreeError, UnreachableTargetError, UsageError
from tuckertree.core.layers import METHODS
from tuckertree.measure import count_macs, count_parameters
from tuckertree.network.surgery import apply
from tuckertree.planning import (
    Budget,
    Options,
    Plan,
    make_plan,
    survey_candidates,
    take_inventory,
    trade_off,
)

IMAGE = torch.zeros(1, 3, 16, 16)
BUDGETS = [
    {"params": 0.5},
    {"params": "3x"},
    {"macs": 0.4},
    {"macs": "1.5X"},
    {"params": 0.6, "macs": 0.3},
    {"params": 0.25, "macs": 0.7},
    {"params": "0.35", "macs": "2.5x"},
]


def surveyed(model, options=None, **how):
    inventory = take_inventory(model, IMAGE)
    return inventory, survey_candidates(model, inventory, options or Options(), **how)


@pytest.fixture(scope="module", params=["small_cnn", "UNet"])
def network(request):
    torch.manual_seed(0)
    model = getattr(networks, request.param)().eval()
    return model, *surveyed(model)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_a_budget_is_kept_by_the_network_itself(network, budget):
    model, inventory, candidates = network
    rule = Budget(**budget)
    plan = make_plan(inventory, candidates, rule)
    small = apply(model, plan)
    assert plan.parameters == (count_parameters(model), count_parameters(small))
    assert plan.macs == (count_macs(model, IMAGE), count_macs(small, IMAGE))
    assert plan.parameters[1] <= (rule.params or 1) * plan.parameters[0]
    assert plan.macs[1] <= (rule.macs or 1) * plan.macs[0]
    for layer in plan.layers:
        assert layer.parameters[1] <= layer.parameters[0]
        assert layer.macs[1] <= layer.macs[0]


@pytest.mark.parametrize(("methods", "gap"), [(CUT_METHODS, 0.06), (METHODS, 0.1)], ids=["cuts", "default"])
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_the_gap_is_certified_and_small(network, budget, methods, gap):
    model, inventory, candidates = network
    if methods != METHODS:  # ranks of depthwise are few
        inventory, candidates = surveyed(model, Options(methods=methods))
    plan = make_plan(inventory, candidates, Budget(**budget))
    loss = sum(layer.bound**2 for layer in plan.layers)
    assert plan.optimality.loss == pytest.approx(loss)
    assert 0 < plan.optimality.lower_bound <= plan.optimality.loss
    assert plan.optimality.gap < gap
    assert set(plan.optimality.multipliers) == {"params", "macs"} & set(budget)


def test_the_choice_is_the_best_of_all_that_enumeration_finds():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, stride=2), nn.Conv2d(6, 8, 1)).eval()
    inventory, candidates = surveyed(model)
    fronts = [
        list(zip(c.loss.tolist(), c.parameters.tolist(), c.macs.tolist(), strict=True))
        for c in candidates.values()
    ]
    biases = inventory.parameters - sum(layer.spec.weights for layer in inventory.layers)
    choices = [tuple(map(sum, zip(*choice, strict=True))) for choice in itertools.product(*fronts)]
    for budget in BUDGETS:
        rule = Budget(**budget)
        found = make_plan(inventory, candidates, rule).optimality
        optimum = min(
            loss
            for loss, parameters, macs in choices
            if parameters + biases <= (rule.params or 1) * inventory.parameters
            and macs <= (rule.macs or 1) * inventory.macs
        )
        assert found.lower_bound <= optimum + 1e-12
        assert found.loss == pytest.approx(optimum)


def test_more_budget_costs_less(network):
    _, inventory, candidates = network
    for kinds in (("params",), ("macs",), ("params", "macs")):
        plans = [
            make_plan(inventory, candidates, Budget(**dict.fromkeys(kinds, share)))
            for share in (0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
        ]
        losses = [plan.optimality.loss for plan in plans]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < 1e-12


def test_the_whole_network_as_a_budget_changes_nothing_that_matters(network):
    _, inventory, candidates = network
    plan = make_plan(inventory, candidates, Budget(params=1, macs=1))
    assert all(layer.bound < 1e-6 for layer in plan.layers)


def test_a_layers_weight_decides_where_the_budget_goes():
    model = networks.small_cnn()
    inventory, candidates = surveyed(model)
    rule = Budget(params=0.4)
    plain = {layer.name: layer.bound for layer in make_plan(inventory, candidates, rule).layers}
    candidates["2"] = candidates["2"].measured(lambda error: 100 * error)
    weighted = {layer.name: layer.bound for layer in make_plan(inventory, candidates, rule).layers}
    assert weighted["2"] < plain["2"]
    assert sum(weighted.values()) > sum(plain.values())


def test_errors_may_be_measured_in_another_metric():
    model = networks.small_cnn()
    scale = torch.cat([torch.full((4,), 30.0), torch.ones(12)])  # layer 2: a quarter of its inputs is loud

    def metric(layer, kernel):
        return kernel * scale.reshape(-1, 1, 1) if layer.name == "2" else kernel

    _, plain = surveyed(model)
    _, loud = surveyed(model, metric=metric)
    assert torch.equal(plain["5"].error, loud["5"].error)
    # A quarter of the channels carries nearly everything, so half of the parameters lose nearly nothing.
    half = int(plain["2"].parameters.max()) // 2
    least = [float(c["2"].error[c["2"].parameters <= half].min()) for c in (plain, loud)]
    assert least[1] < 0.02 < 0.2 < least[0]


def test_excluded_layers_and_the_first_where_asked_stay_dense():
    options = Options(exclude=("5",), first="dense")
    inventory, candidates = surveyed(networks.small_cnn(), options)
    plan = make_plan(inventory, candidates, Budget(params=0.6), options)
    dense = {layer.name: layer.reason for layer in plan.layers if layer.method == "dense"}
    assert dense["5"] == "excluded"
    assert dense["0"] == "first convolution"
    assert dense["4"].startswith("depthwise")
    assert {layer.reason for layer in plan.compressed} == {"budget"}


@pytest.mark.parametrize(
    "budget",
    [{"params": 0.01}, {"macs": 0.004}, {"params": 0.01, "macs": 0.5}, {"params": "50x", "macs": "90x"}],
    ids=str,
)
def test_an_impossible_budget_names_the_nearest_and_the_nearest_is_possible(network, budget):
    _, inventory, candidates = network
    with pytest.raises(UnreachableTargetError, match="cannot be met by this network; the nearest") as raised:
        make_plan(inventory, candidates, Budget(**budget))
    nearest = dict(re.findall(r"(params|macs) ([0-9.]+)", str(raised.value).partition("nearest")[2]))
    assert set(nearest) == set(budget)
    asked = Budget(**budget)
    raised_to = {kind: max(float(nearest[kind]), getattr(asked, kind)) for kind in nearest}
    make_plan(inventory, candidates, Budget(**raised_to))
    assert UnreachableTargetError.exit_code == 3


def test_a_budget_below_what_the_fixed_layers_cost_is_refused():
    options = Options(include=("8",))
    inventory, candidates = surveyed(networks.small_cnn(), options)
    with pytest.raises(
        UnreachableTargetError,
        match=r"nearest within reach is params 0\.9.*4 of 5 layers stay dense .*left out",
    ):
        make_plan(inventory, candidates, Budget(params=0.5), options)


def test_a_network_without_layers_to_compress():
    inventory, candidates = surveyed(nn.Sequential(nn.Conv2d(3, 6, 3, groups=3)))
    with pytest.raises(UnreachableTargetError, match=r"no layer can be compressed.*1 of 1.*depthwise"):
        make_plan(inventory, candidates, Budget(params=0.5))
    assert make_plan(inventory, candidates, Budget(params=1)).compressed == ()
    assert [point.loss for point in trade_off(inventory, candidates)] == [0]


@pytest.mark.parametrize(
    "budget",
    [
        {},
        {"params": 0},
        {"params": 1.5},
        {"macs": -1},
        {"macs": "0.5x"},
        {"macs": "fast"},
        {"params": "x"},
        {"params": float("nan")},
        {"params": True},
        {"macs": "infx"},
        {"macs": [0.5]},
    ],
    ids=str,
)
def test_what_is_no_share_and_no_factor_is_refused(budget):
    with pytest.raises(UsageError, match=r"a share in|a budget needs"):
        Budget(**budget)


def test_shares_and_factors_mean_the_same():
    assert Budget(params="2x", macs="0.25") == Budget(params=0.5, macs="4x")
    assert Budget(macs="2.5x").describe() == {"rule": "budget", "params": None, "macs": 0.4}


def test_a_plan_with_a_certificate_survives_json(network):
    _, inventory, candidates = network
    plan = make_plan(inventory, candidates, Budget(params=0.5, macs=0.5))
    assert Plan.loads(plan.dumps()) == plan
    data = json.loads(plan.dumps())
    del data["optimality"]
    assert Plan.from_json(data).optimality is None
    for spoilt in ({"loss": 1.0}, {**plan.to_json()["optimality"], "loss": "0"}, 3):
        with pytest.raises(TuckertreeError, match=r"plan\.optimality"):
            Plan.from_json({**data, "optimality": spoilt})


@pytest.mark.parametrize("by", ["params", "macs", "both"])
def test_the_curve_falls_from_the_smallest_network_to_the_whole(network, by):
    _, inventory, candidates = network
    curve = trade_off(inventory, candidates, by=by, points=12)
    assert 2 < len(curve) <= 12
    losses = [point.loss for point in curve]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-12
    assert curve[-1].parameters <= inventory.parameters
    assert curve[-1].macs <= inventory.macs
    if by == "both":
        return
    for point in curve[:-1]:
        kind, whole = ("parameters", inventory.parameters) if by == "params" else ("macs", inventory.macs)
        share = (getattr(point, kind) + 0.5) / whole
        plan = make_plan(inventory, candidates, Budget(**{by: share}))
        assert plan.optimality.loss == pytest.approx(point.loss)


@pytest.mark.parametrize("options", [{"by": "time"}, {"points": 1}])
def test_a_curve_by_something_else_is_refused(network, options):
    _, inventory, candidates = network
    with pytest.raises(UsageError, match="a curve needs"):
        trade_off(inventory, candidates, **options)

"""The plan: what is chosen and why, and its life as JSON."""

import json
from dataclasses import asdict

import pytest
import torch

from tests import networks
from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.planning import Energy, Latency, Options, Plan, Ranks, make_plan, survey, take_inventory

IMAGE = torch.zeros(1, 3, 16, 16)
LATENCY = asdict(
    Latency("torch", 1, 1, 0.1, target=0.5, predicted=0.5, measured=0.5, low=0.5, high=0.5, rounds=1)
)


def plan_of(rule=None, options=None, model=None):
    model, options = model or networks.small_cnn(), options or Options()
    inventory = take_inventory(model, IMAGE)
    return make_plan(inventory, survey(model, inventory, options), rule or Energy(0.5), options)


def methods(plan):
    return {layer.name: layer.method for layer in plan.layers}


def test_methods_follow_the_kind_of_layer():
    assert methods(plan_of()) == {"0": "svd", "2": "ht2", "4": "dense", "5": "svd", "8": "svd"}


@pytest.mark.parametrize(("first", "method"), [("svd", "svd"), ("ht2", "ht2"), ("dense", "dense")])
def test_the_first_convolution_follows_its_policy(first, method):
    assert methods(plan_of(Energy(0.3), Options(first=first)))["0"] == method


def test_include_and_exclude_by_pattern_and_by_predicate():
    plan = plan_of(options=Options(include=("[25]",), exclude=("5",)))
    assert [layer.name for layer in plan.compressed] == ["2"]
    assert {layer.name: layer.reason for layer in plan.layers}["5"] == "excluded"
    plan = plan_of(options=Options(include=lambda layer: layer.spec.kind == "linear"))
    assert [layer.name for layer in plan.compressed] == ["8"]


def test_a_pattern_that_fits_nothing_is_refused():
    with pytest.raises(UsageError, match="no layer is named 'layer9"):
        plan_of(options=Options(exclude=("layer9.*",)))


def test_nothing_ever_grows():
    plan = plan_of(Energy(0.999))
    for layer in plan.layers:
        assert layer.parameters[1] <= layer.parameters[0]
        assert layer.macs[1] <= layer.macs[0]
        if layer.method == "dense":
            assert layer.parameters[0] == layer.parameters[1]
    assert "would not save parameters" in next(layer.reason for layer in plan.layers if layer.name == "2")


def test_a_chain_with_fewer_parameters_and_more_macs_is_left_dense():
    # A stride of 4 makes the dense layer cheap, while its 1x1 layer runs at the full size.
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3, padding=1), torch.nn.Conv2d(64, 64, 3, stride=4))
    layer = plan_of(Ranks({"1": (40, 40, 40)}), model=model).layers[1]
    assert layer.method == "dense"
    assert layer.reason == "ranks 40/40/40 would add MACs"


def test_ranks_are_rounded_up_to_a_multiple_where_there_is_room():
    plain = {layer.name: layer.ranks for layer in plan_of(Energy(0.3)).compressed}
    rounded = {layer.name: layer.ranks for layer in plan_of(Energy(0.3), Options(round_to=4)).compressed}
    for name, ranks in rounded.items():
        assert all(r % 4 == 0 and 0 <= r - p < 4 for r, p in zip(ranks, plain[name], strict=True))


def test_a_plan_survives_json_unchanged():
    plan = plan_of()
    assert Plan.loads(plan.dumps()) == plan
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("rule"), "the key 'plan.rule' is missing"),
        (lambda p: p.update(surplus=1), "unknown key 'plan.surplus'"),
        (lambda p: p.update(macs=[1]), "plan.macs: must have 2 entries"),
        (
            lambda p: p["layers"][0].update(method="eval"),
            "plan.layers.0: method: 'eval' is none of",
        ),
        (
            lambda p: p["layers"][1].update(ranks=[1.5, 2, 3]),
            "plan.layers.1.ranks.0: must be a whole number",
        ),
        (
            lambda p: p["layers"][1].update(ranks=[-1, 2, 3]),
            "plan.layers.1: kernel, ranks, .* must not be negative",
        ),
        (lambda p: p["layers"][0].update(name=3), "plan.layers.0.name: must be a text, not 3"),
        (
            lambda p: p["layers"][0].update(bound=10**400),
            "plan.layers.0.bound: must be finite",
        ),
        (
            lambda p: p.update(latency=dict(LATENCY, seconds=10**400)),
            "plan.latency.seconds: must be finite",
        ),
        (
            lambda p: p.update(latency=dict(LATENCY, rounds=1.5)),
            "plan.latency.rounds: must be a whole number",
        ),
        (lambda p: p.update(layers={}), "plan.layers: must be a list, not a mapping"),
    ],
)
def test_a_spoilt_plan_is_refused_with_the_place(change, message):
    data = json.loads(plan_of().dumps())
    change(data)
    with pytest.raises(TuckertreeError, match=message):
        Plan.from_json(data)


def test_text_that_is_not_json_is_refused():
    with pytest.raises(TuckertreeError, match="the plan is not JSON"):
        Plan.loads("{")


@pytest.mark.parametrize("options", [{"first": "tucker"}, {"round_to": 0}])
def test_options_that_cannot_be_are_refused(options):
    with pytest.raises(UsageError):
        Options(**options)


def test_stages_that_an_older_version_wrote_are_refused_with_what_to_do():
    data = {**plan_of().to_json(), "before": [{"hidden": {}, "kept": []}]}
    with pytest.raises(TuckertreeError, match=r"written by an older version.*compress the network again"):
        Plan.from_json(data)

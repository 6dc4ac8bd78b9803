"""Decisions about several layers at once, beside those about each: chosen, certified, kept in the plan."""

import itertools
import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.strategies import examples
from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.network.surgery import apply
from tuckertree.planning import (
    Budget,
    Group,
    Options,
    Plan,
    make_plan,
    survey_candidates,
    take_inventory,
    trade_off,
)

LAYERS = ("0", "2", "4")


@pytest.fixture(scope="module")
def surveyed():
    torch.manual_seed(0)
    layers = nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3)
    model = nn.Sequential(*layers).eval()
    inventory = take_inventory(model, torch.zeros(1, 4, 12, 12))
    return model, inventory, survey_candidates(model, inventory, Options(round_to=2))


def plan_of(surveyed, decisions, budget):
    _, inventory, _ = surveyed
    return make_plan(inventory, decisions, Budget(params=budget))


def pair_of(surveyed, names, loss, budget=0.4):
    """A group whose one candidate compresses its layers as a budget would, at a loss of our choice."""
    whole = plan_of(surveyed, surveyed[2], budget)
    plans = tuple(layer for layer in whole.layers if layer.name in names)
    return Group(tuple(names), (plans,), torch.tensor([loss], dtype=torch.float64))


def test_a_pair_that_loses_less_than_its_layers_apart_is_chosen_for_both(surveyed):
    model, _, candidates = surveyed
    pair = pair_of(surveyed, ("0", "2"), 0.0)
    plan = plan_of(surveyed, {**candidates, "the pair": pair}, 0.5)
    by_name = {layer.name: layer for layer in plan.layers}
    assert [by_name[name].group for name in LAYERS] == [("0", "2"), ("0", "2"), None]
    assert tuple(replace(by_name[name], group=None) for name in ("0", "2")) == pair.plans[0]
    alone = plan_of(surveyed, candidates, 0.5)
    assert plan.optimality.lower_bound <= plan.optimality.loss < alone.optimality.loss
    assert plan.parameters[1] <= 0.5 * plan.parameters[0]
    assert {type(apply(model, plan).get_submodule(x.name)).__name__ for x in plan.compressed} == {"Chain"}


def test_a_pair_that_loses_more_changes_nothing(surveyed):
    _, _, candidates = surveyed
    alone = plan_of(surveyed, candidates, 0.5)
    with_pair = plan_of(surveyed, {"the pair": pair_of(surveyed, ("0", "2"), 9.0), **candidates}, 0.5)
    assert with_pair.optimality.loss <= alone.optimality.loss
    assert [layer.group for layer in with_pair.layers] == [None] * 3
    assert '"group"' not in alone.dumps() + with_pair.dumps()


def test_a_plan_with_groups_is_read_back_as_it_was_written(surveyed):
    plan = plan_of(surveyed, {**surveyed[2], "pair": pair_of(surveyed, ("2", "4"), 0.0)}, 0.5)
    assert Plan.loads(plan.dumps()) == plan
    data = json.loads(plan.dumps())
    assert [layer.get("group") for layer in data["layers"]] == [None, ["2", "4"], ["2", "4"]]
    for wrong in ["2", ["2"], ["0", "4"], [2, 4], ["2", "2"]]:
        data["layers"][1]["group"] = wrong
        with pytest.raises(TuckertreeError, match=r"plan.layers.1"):
            Plan.from_json(data)


@pytest.mark.parametrize("losses", [(0.0, 0.0), (9.0, 0.0), (9.0, 9.0)])
def test_of_joint_groups_at_most_one_is_chosen(surveyed, losses):
    _, inventory, candidates = surveyed
    names = ("0", "2"), ("2", "4")
    joint = {
        f"joint {'-'.join(own)}": replace(pair_of(surveyed, own, loss), joint=True)
        for own, loss in zip(names, losses, strict=True)
    }
    decisions = {**candidates, **joint}
    for kinds in ({"params": 0.5}, {"macs": 0.5}, {"params": 0.5, "macs": 0.6}):
        rule = Budget(**kinds)
        picks = rule.choose(inventory, decisions).picks
        assert sum(name in joint for name in picks) <= 1
        assert not any(name in joint and decisions[name].loss[pick] > 1 for name, pick in picks.items())
        decided = [layer for name in picks for layer in getattr(decisions[name], "layers", (name,))]
        assert sorted(decided) == sorted(LAYERS)
        plan = make_plan(inventory, decisions, rule)
        assert plan.parameters[1] <= kinds.get("params", 1) * inventory.parameters
        assert plan.macs[1] <= kinds.get("macs", 1) * inventory.macs
        alone = make_plan(inventory, candidates, rule)
        assert plan.optimality.lower_bound <= alone.optimality.loss + 1e-12
    curve = trade_off(inventory, decisions, by="both")
    assert all(a.loss >= b.loss - 1e-12 for a, b in itertools.pairwise(curve))


def test_layers_of_joint_groups_need_candidates_of_their_own(surveyed):
    _, inventory, candidates = surveyed
    joint = replace(pair_of(surveyed, ("0", "2"), 0.0), joint=True)
    with pytest.raises(UsageError, match="candidates of their own"):
        make_plan(inventory, {"4": candidates["4"], "0": candidates["0"], "joint": joint}, Budget(params=0.9))


@examples(40)
@given(
    st.lists(
        st.sampled_from([("0", "2"), ("2", "4"), ("0", "4"), LAYERS]), min_size=1, max_size=3, unique=True
    ),
    st.integers(0, 2**20),
    st.sampled_from(["params", "macs"]),
)
def test_the_certificate_holds_against_every_choice(surveyed, groups, seed, kind):
    _, inventory, candidates = surveyed
    generator = torch.Generator().manual_seed(seed)
    few = {
        name: replace(
            found,
            **{
                key: value[::step]
                for key, value in vars(found).items()
                if isinstance(value, tuple | torch.Tensor) and len(value)
            },
        )
        for name, found in candidates.items()
        for step in [max(1, len(found) // 4)]
    }
    few = {name: found if "dense" in found.methods else candidates[name] for name, found in few.items()}
    decisions = dict(few)
    for number, names in enumerate(groups):
        plans = [
            tuple(x for x in make_plan(inventory, candidates, Budget(params=share)).layers if x.name in names)
            for share in (0.3, 0.6)
        ]
        loss = torch.rand(2, generator=generator, dtype=torch.float64)
        group = Group(names, tuple(plans), loss)
        decisions[f"group {number}"] = group
    rule = Budget(**{kind: 0.55})
    allocation = rule.choose(inventory, decisions)
    plan = make_plan(inventory, decisions, rule)
    total = {"params": inventory.parameters, "macs": inventory.macs}[kind]
    spent = {"params": plan.parameters, "macs": plan.macs}[kind][1]
    assert spent <= 0.55 * total
    least = best_of_all(inventory, decisions, kind, 0.55 * total)
    assert allocation.optimality.lower_bound <= least + 1e-12
    assert least <= allocation.optimality.loss + 1e-12
    curve = trade_off(inventory, decisions, by=kind)
    assert all(a.loss >= b.loss - 1e-12 for a, b in itertools.pairwise(curve))


def best_of_all(inventory, decisions, kind, limit):
    """Least loss within a limit, by trying every way to decide each layer once."""
    cost = {"params": "parameters", "macs": "macs"}[kind]
    dense = {"params": lambda x: x.spec.weights, "macs": lambda x: x.macs}[kind]
    left = {"params": inventory.parameters, "macs": inventory.macs}[kind] - sum(map(dense, inventory.layers))

    def ways(layers):
        if not layers:
            yield 0.0, 0
            return
        for name, decision in decisions.items():
            own = getattr(decision, "layers", (name,))
            if layers[0] in own and set(own) <= set(layers):
                costs = getattr(decision, cost).tolist()
                for loss, spent in ways([x for x in layers if x not in own]):
                    yield from (
                        (loss + a, spent + b) for a, b in zip(decision.loss.tolist(), costs, strict=True)
                    )

    return min(loss for loss, spent in ways(list(LAYERS)) if left + spent <= limit)


def test_groups_that_leave_a_layer_undecided_are_refused(surveyed):
    _, inventory, candidates = surveyed
    pairs = {"a": pair_of(surveyed, ("0", "2"), 0.0), "b": pair_of(surveyed, ("2", "4"), 0.0)}
    with pytest.raises(UsageError, match="each layer is decided once"):
        make_plan(inventory, pairs, Budget(params=0.9))
    alone = {"0": candidates["0"], "b": pairs["b"]}
    assert [x.group for x in make_plan(inventory, alone, Budget(params=0.9)).layers] == [
        None,
        *[("2", "4")] * 2,
    ]


def test_a_group_that_does_not_say_what_becomes_of_its_layers_is_refused(surveyed):
    pair = pair_of(surveyed, ("0", "2"), 0.0)
    for layers, plans, loss in [
        (("0",), pair.plans, pair.loss),
        (("2", "0"), pair.plans, pair.loss),
        (pair.layers, pair.plans * 2, pair.loss),
        (pair.layers, (), pair.loss[:0]),
    ]:
        with pytest.raises(UsageError, match="group"):
            Group(layers, plans, loss)

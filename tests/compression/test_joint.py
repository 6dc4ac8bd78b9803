"""Widths of groups that share layers, against every choice there is."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import examples
from tuckertree.compression.joint import PARTS, Costs, JointWidths


def network_of(seed, *, shared):
    """Three groups of channels, four layers each; with candidates of low rank, or none."""
    generator = np.random.default_rng(seed)
    inputs, outputs = np.zeros((4, 3)), np.zeros((4, 3))
    for g in range(3):
        outputs[g, g] = 1 / 8
        inputs[g + 1 if shared else 3, g] = 1 / 8 if shared else 1 / 24
    gone = [np.array([0.0, 2, 4, 6])] * 3
    losses = [np.concatenate([[0.0], generator.random(3).cumsum()]) for _ in range(3)]
    dense = 10.0 + generator.integers(0, 90, 4)
    others = [(np.array([0.0, generator.random() * 2]), np.array([c, c * generator.random()])) for c in dense]
    return (
        JointWidths(inputs, outputs, gone, losses),
        (inputs, outputs, gone, losses),
        Costs(dense, None, None, others),
    )


def cheapest(parts, costs, steps, price):
    """Loss and priced cost of a choice, counted by hand."""
    inputs, outputs, gone, losses = parts
    total = sum(loss[step] for loss, step in zip(losses, steps, strict=True))
    for layer, dense in enumerate(costs.dense):
        less = [gone[g][step] for g, step in enumerate(steps)]
        if any(less[g] and inputs[layer, g] + outputs[layer, g] for g in range(3)):
            total += price * dense * (1 - inputs[layer] @ less) * (1 - outputs[layer] @ less)
        else:
            loss, cost = costs.others[layer]
            total += (loss + price * cost).min()
    return total


@examples(30)
@given(st.integers(0, 2**20), st.booleans())
def test_at_a_price_few_choices_are_better_than_those_that_are_found(seed, shared):
    widths, parts, costs = network_of(seed, shared=shared)
    found = widths.choices(costs)
    assert found[0] == (0, 0, 0)
    assert len(set(found)) == len(found)
    every = list(itertools.product(range(4), repeat=3))
    assert set(found) <= set(every)
    for price in (0.001, 0.01, 0.1, 1.0):
        best = min(cheapest(parts, costs, steps, price) for steps in every)
        ours = min(cheapest(parts, costs, steps, price) for steps in found)
        assert best - 1e-12 <= ours <= 1.1 * best + 1e-9


def test_costs_in_proportion_are_tables_that_say_so():
    widths, _, costs = network_of(3, shared=True)
    table = np.tile(np.linspace(0, 1, PARTS + 1), (4, 1))
    assert widths.choices(costs) == widths.choices(Costs(costs.dense, table, table, costs.others))


def test_where_nothing_is_lost_all_that_can_go_goes():
    widths, (inputs, outputs, gone, _), costs = network_of(1, shared=True)
    free = JointWidths(inputs, outputs, gone, [np.zeros(4), np.zeros(4), np.array([0, 1.0, 1, 1])])
    alone = Costs(costs.dense, None, None, [(np.zeros(1), np.array([c])) for c in costs.dense])
    assert (3, 3, 0) in free.choices(alone)
    assert widths.choices(alone)[0] == (0, 0, 0)

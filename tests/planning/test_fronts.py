"""Pareto fronts and hulls, against their definitions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import examples, seeded
from tuckertree.planning.fronts import lower_hull, pareto_front


def dominated(points):
    """Whether another point is at most as large in all and smaller in one."""
    at_most = (points[None] <= points[:, None]).all(-1)
    less = (points[None] < points[:, None]).any(-1)
    return (at_most & less).any(1)


@examples(60)
@given(st.integers(1, 60), st.integers(1, 12), seeded())
def test_the_front_is_what_nothing_dominates_each_point_once(count, values, generator):
    points = torch.randint(0, values, (count, 3), generator=generator)
    front = pareto_front(*points.T)
    expected = points[~dominated(points)].unique(dim=0)
    assert points[front].tolist() == points[front][points[front][:, 1].argsort(stable=True)].tolist()
    assert torch.equal(points[front].unique(dim=0), expected)
    assert len(front) == len(expected)


def test_a_front_of_many_chunks():
    points = torch.rand(5000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    front = pareto_front(*points.T)
    assert sorted(front.tolist()) == (~dominated(points)).nonzero().flatten().tolist()


def test_a_front_of_nothing_is_empty():
    assert pareto_front(*torch.zeros(3, 0)).tolist() == []


@examples(60)
@given(st.integers(1, 40), st.integers(1, 15), seeded())
def test_the_hull_has_the_best_point_at_every_multiplier_and_no_more(count, values, generator):
    cost, loss = torch.randint(1, values + 1, (2, count), generator=generator).double()
    hull = lower_hull(cost, loss)
    for multiplier in (0.0, 0.05, 0.3, 1.0, 2.5, 30.0):
        priced = loss + multiplier * cost
        assert float(priced[hull].min()) == float(priced.min())
    savings = (-loss[hull].diff() / cost[hull].diff()).tolist()
    assert all(saving > 0 for saving in savings)
    assert savings == sorted(set(savings), reverse=True)
    assert float(cost[hull[0]]) == float(cost.min())
    assert float(loss[hull[-1]]) == float(loss.min())


@pytest.mark.parametrize("points", [[(1, 1)], [(2, 5), (2, 5)], [(1, 3), (2, 3), (3, 3)]])
def test_a_hull_may_be_one_point(points):
    cost, loss = torch.tensor(points, dtype=torch.float64).T
    assert len(lower_hull(cost, loss)) == 1

"""The knapsack against enumeration: within the limits, and never further from the best than it says."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import examples
from tuckertree.planning.fronts import pareto_front
from tuckertree.planning.knapsack import Front, HullPath, least_excess, solve


@st.composite
def problems(draw, kinds=(1, 2)):
    """Some fronts and limits between a little under the least and the most that can be spent."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    kinds = draw(st.sampled_from(kinds))
    fronts = []
    for _ in range(draw(st.integers(1, 4))):
        count = draw(st.integers(1, 7))
        costs = torch.randint(1, 40, (count, kinds), generator=generator).double()
        loss = torch.rand(count, dtype=torch.float64, generator=generator) * 3
        front = pareto_front(loss, costs[:, 0], costs[:, -1])
        fronts.append(Front(loss[front], costs[front]))
    least = torch.stack([front.costs.amin(0) for front in fronts]).sum(0)
    most = torch.stack([front.costs.amax(0) for front in fronts]).sum(0)
    shares = torch.tensor(draw(st.lists(st.floats(-0.1, 1.1), min_size=kinds, max_size=kinds)))
    return fronts, (least + shares * (most - least)).clamp(min=1).floor()


def best(fronts, limits):
    """Least loss of all choices within the limits, or None."""
    losses = [
        float(sum(front.loss[i] for front, i in zip(fronts, picks, strict=True)))
        for picks in itertools.product(*(range(len(front.loss)) for front in fronts))
        if bool((sum(front.costs[i] for front, i in zip(fronts, picks, strict=True)) <= limits).all())
    ]
    return min(losses, default=None)


@examples(150)
@given(problems())
def test_the_choice_is_within_the_limits_and_the_bound_is_one(problem):
    fronts, limits = problem
    optimum, solution = best(fronts, limits), solve(fronts, limits)
    if optimum is None:
        assert solution is None
        return
    if solution is None:
        assert len(limits) == 2  # two limits that can only just be met together
        return
    costs = sum(front.costs[i] for front, i in zip(fronts, solution.picks, strict=True))
    loss = sum(float(front.loss[i]) for front, i in zip(fronts, solution.picks, strict=True))
    assert (costs <= limits).all()
    assert solution.loss == pytest.approx(loss)
    assert solution.lower_bound <= optimum + 1e-9
    assert solution.loss >= optimum - 1e-9


@examples(60)
@given(problems(kinds=(1,)))
def test_two_layers_or_fewer_are_solved_exactly(problem):
    fronts, limits = problem
    optimum, solution = best(fronts[:2], limits), solve(fronts[:2], limits)
    assert (solution is None) == (optimum is None)
    if solution is not None:
        assert solution.loss == pytest.approx(optimum)


@examples(60)
@given(problems())
def test_more_budget_never_raises_the_bound_nor_the_loss_by_more_than_the_gap(problem):
    fronts, limits = problem
    solutions = [solve(fronts, (limits * more).floor()) for more in (1, 1.1, 1.5, 3)]
    for less, more in itertools.pairwise(solution for solution in solutions if solution):
        assert more.lower_bound <= less.lower_bound + 1e-9
        assert more.loss <= less.loss + (more.loss - more.lower_bound) + 1e-9


@examples(60)
@given(problems())
def test_least_excess_is_the_least_that_any_choice_exceeds(problem):
    fronts, limits = problem
    picks = least_excess(fronts, limits)
    excess = float((sum(f.costs[i] for f, i in zip(fronts, picks, strict=True)) / limits).max())
    reached = min(
        float((sum(f.costs[i] for f, i in zip(fronts, p, strict=True)) / limits).max())
        for p in itertools.product(*(range(len(front.loss)) for front in fronts))
    )
    assert excess >= reached
    if len(limits) == 1:
        assert excess == reached


def test_two_multipliers_price_two_limits_that_bind():
    # Loss falls along either cost alone; each of two layers saves with another kind.
    costs = torch.arange(1, 101).double()
    other = torch.ones_like(costs)
    fronts = [Front(1 / costs, torch.stack(pair, 1)) for pair in ((costs, other), (other, costs))]
    solution = solve(fronts, torch.tensor([31.0, 51.0], dtype=torch.float64))
    assert solution.loss == pytest.approx(1 / 30 + 1 / 50)
    assert all(multiplier > 0 for multiplier in solution.multipliers)


def test_an_exchange_spends_what_the_hull_cannot():
    # The hull jumps from 1 to 10; the limit of 6 leaves room for the candidate above it.
    front = Front(torch.tensor([1.0, 0.7, 0.0]).double(), torch.tensor([[1.0], [5.0], [10.0]]).double())
    solution = solve([front], torch.tensor([6.0]).double())
    assert solution.picks == (1,)
    assert solution.lower_bound == pytest.approx(1 - 5 / 9)


def test_a_path_starts_at_the_cheapest_and_ends_at_the_least_loss():
    fronts = [Front(torch.tensor([2.0, 1.0, 0.0]).double(), torch.tensor([[1.0], [2.0], [4.0]]).double())] * 2
    path = HullPath.of(fronts, torch.ones(1).double())
    assert path.cost.tolist() == [2, 3, 4, 6, 8]
    assert path.loss.tolist() == [4, 3, 2, 1, 0]
    assert path.picks(0) == [0, 0]
    assert path.picks(4) == [2, 2]

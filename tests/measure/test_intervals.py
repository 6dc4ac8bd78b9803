"""Confidence intervals: what they hold, how often, and what they must never do."""

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tuckertree.measure import Accuracy
from tuckertree.measure.intervals import normal_quantile, paired_difference, ratio_interval, wilson

COUNTS = st.integers(0, 400)
CELLS = st.tuples(COUNTS, COUNTS, COUNTS, COUNTS).filter(any)


def test_the_quantile_of_95_percent_is_the_one_of_the_tables():
    assert normal_quantile() == pytest.approx(1.959964, abs=1e-6)


@given(COUNTS, st.integers(0, 400))
@example(hits=0, more=125)
def test_wilsons_limits_are_the_shares_that_a_score_test_just_does_not_reject(hits, more):
    assume(hits + more)
    count, z = hits + more, normal_quantile()
    low, high = wilson(hits, count)
    assert 0 <= low <= hits / count <= high <= 1
    for limit in (low, high):
        if 0 < limit < 1:
            score = (hits / count - limit) / math.sqrt(limit * (1 - limit) / count)
            assert abs(score) == pytest.approx(z, rel=1e-6)


@given(CELLS)
def test_the_interval_of_a_difference_holds_it_and_turns_with_the_networks(cells):
    both, first, second, neither = cells
    low, high = paired_difference(both, first, second, neither)
    difference = (first - second) / sum(cells)
    assert -1 <= low <= difference + 1e-12
    assert difference - 1e-12 <= high <= 1
    assert paired_difference(both, second, first, neither) == pytest.approx((-high, -low), abs=1e-12)


def test_the_formulas_of_the_paper_written_out():
    # Cells 36, 12, 2, 4 of n = 54, by the formulas of the paper (1998, method 10) written out.
    z, n = normal_quantile(), 54
    (l1, u1), (l2, u2) = wilson(48, n, z), wilson(38, n, z)
    phi = (36 * 4 - 12 * 2 - n / 2) / math.sqrt(48 * 6 * 38 * 16)
    d = 10 / n
    lower = d - math.sqrt((48 / n - l1) ** 2 - 2 * phi * (48 / n - l1) * (u2 - 38 / n) + (u2 - 38 / n) ** 2)
    upper = d + math.sqrt((u1 - 48 / n) ** 2 - 2 * phi * (u1 - 48 / n) * (38 / n - l2) + (38 / n - l2) ** 2)
    assert paired_difference(36, 12, 2, 4) == pytest.approx((lower, upper))


@pytest.mark.parametrize(
    "cells", [(0.90, 0.03, 0.01, 0.06), (0.60, 0.10, 0.08, 0.22), (0.97, 0.02, 0.0, 0.01)]
)
@pytest.mark.parametrize("count", [100, 1000])
def test_95_of_100_intervals_of_a_difference_hold_the_truth(cells, count):
    drawn = np.random.default_rng(0).multinomial(count, cells, size=2000)
    truth = cells[1] - cells[2]
    held = [low <= truth <= high for low, high in (paired_difference(*map(int, row)) for row in drawn)]
    assert np.mean(held) >= 0.93


def test_a_difference_on_the_same_images_is_known_better_than_either_share():
    low, high = paired_difference(4500, 100, 60, 340)
    share = wilson(4600, 5000)
    assert high - low < share[1] - share[0]


def test_95_of_100_intervals_of_a_distance_hold_the_truth():
    random = np.random.default_rng(0)
    held = []
    for _ in range(500):
        norms = random.gamma(8, size=60)
        errors = 0.04 * norms * random.gamma(4, 1 / 4, size=60)
        low, high = ratio_interval(list(zip(errors, norms, strict=True)))
        held.append(low <= 0.2 <= high)
    assert 0.9 <= np.mean(held) <= 0.99


def test_one_part_tells_nothing_of_a_distance():
    assert ratio_interval([(0.1, 1.0)]) == (0.0, math.inf)


def test_an_accuracy_says_its_interval_to_people_and_programs():
    accuracy = Accuracy(500, 90.0, 99.0)
    low, high = (100 * limit for limit in wilson(450, 500))
    assert accuracy.top1_interval == (low, high)
    assert accuracy.to_json()["top1_interval"] == [low, high]
    assert accuracy.text("top1") == f"90.00 % ({low:.1f} to {high:.1f})"

"""The search over budgets: what bisection finds, and how long it takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuckertree.compression.accuracy.search import LEAST, RATIO, bisect, shares_from


@given(st.integers(0, 300), st.data())
def test_bisection_finds_the_smallest_that_holds_in_few_tries(count, data):
    first, tries = data.draw(st.integers(0, count)), []

    def holds(number):
        tries.append(number)
        return number >= first

    assert bisect(count, holds) == first
    assert len(tries) == len(set(tries)) <= count.bit_length()
    assert all(0 <= number < count for number in tries)


@given(st.lists(st.booleans(), max_size=200))
def test_where_noise_turns_it_over_what_is_found_held_and_the_one_below_did_not(held):
    tried = set()

    def holds(number):
        tried.add(number)
        return held[number]

    found = bisect(len(held), holds)
    assert found == len(held) or (found in tried and held[found])
    assert found == 0 or (found - 1 in tried and not held[found - 1])


@given(st.floats(1e-6, 0.9999))
def test_budgets_go_from_the_least_to_just_below_the_whole_at_equal_ratios(least):
    shares = shares_from(least)
    assert shares[0] == pytest.approx(max(least, LEAST))
    assert shares == sorted(shares)
    ratios = [after / before for before, after in zip(shares, [*shares[1:], 1.0], strict=True)]
    assert max(ratios) <= RATIO * (1 + 1e-9)
    assert min(ratios) == pytest.approx(max(ratios))


def test_a_network_of_which_nothing_can_be_saved_has_no_budgets():
    assert shares_from(1.0) == []

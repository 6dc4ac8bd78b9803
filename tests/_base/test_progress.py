"""Work spread over threads."""

import pytest
import torch

from tuckertree._base.progress import parallel_map


def test_results_keep_the_order_of_the_items_whatever_their_size():
    ticks = []
    squares = parallel_map(
        lambda n: n * n,
        [3, 1, 50, 2],
        doing="squares",
        tick=lambda *tick: ticks.append(tick),
        size=lambda n: n,
    )
    assert squares == [9, 1, 2500, 4]
    assert ticks == [("squares", done, 4) for done in range(1, 5)]
    assert parallel_map(lambda n: n, []) == []


def test_each_worker_has_one_thread_and_the_caller_keeps_its_own():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert parallel_map(lambda _: torch.get_num_threads(), [1, 1, 1], size=lambda _: 1) == [1, 1, 1]
        assert parallel_map(lambda _: torch.get_num_threads(), [9, 1, 1], size=lambda n: n) == [2, 1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_error_in_a_worker_reaches_the_caller():
    def fail(item):
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 1"):
        parallel_map(fail, [1])

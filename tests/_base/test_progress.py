"""Work spread over threads."""

import pytest
import torch

from tuckertree._base import progress
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


class Clock:
    """A clock that goes on by hand."""

    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_a_log_gets_a_line_now_and_then_with_the_time_left(clock, capsys):
    with progress.progress_bar() as tick:
        for done in range(1, 61):
            clock.now += 1
            tick(f"tuning: distance {1 / done:.2f}", done, 60)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "tuning: distance 0.05: 20 of 60, about 40 s left"
    assert [line.split(": ")[2].split(",")[0] for line in lines] == ["20 of 60", "40 of 60", "60 of 60"]


def test_what_is_short_says_nothing(clock, capsys):
    with progress.progress_bar() as tick:
        for part in ("one", "two"):
            for done in range(1, 10):
                clock.now += 1
                tick(part, done, 9)
    assert capsys.readouterr().err == ""


def test_nothing_is_said_where_it_is_not_wanted(clock, capsys):
    def work(show):
        with progress.progress_bar(show) as tick:
            for done in (1, 2):
                clock.now += 99
                tick("long", done, 3)

    work(False)
    progress.be_quiet()
    try:
        work(None)
        progress.say("a line")
    finally:
        progress.be_quiet(False)
    assert capsys.readouterr().err == ""
    work(None)
    assert "long: 2 of 3, about 99 s left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (99.4, "99 s"), (100, "2 min"), (3599, "1 h 0 min"), (3900, "1 h 5 min")],
)
def test_times_in_words(seconds, words):
    assert progress.duration(seconds) == words

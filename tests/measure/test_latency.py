"""Latency in turns: who runs when, and what is reported."""

import torch
from torch import nn

from tuckertree.measure import Timing, compare_latency, least_of_each, time_until_steady
from tuckertree.measure import latency as latency_module


class Recorder(nn.Module):
    def __init__(self, name, journal):
        super().__init__()
        self.name, self.journal = name, journal

    def forward(self, x):
        self.journal.append((self.name, self.training))
        return x


def test_models_run_in_turns_in_evaluation_mode_and_warm_up_is_not_reported():
    journal = []
    models = {name: Recorder(name, journal).train() for name in "ab"}
    timings = compare_latency(models, torch.zeros(1), repeats=3, warm_up=1)
    assert journal == [("a", False), ("b", False)] * 4
    assert all(model.training for model in models.values())
    for timing in timings.values():
        assert 0 < timing.low <= timing.median <= timing.high


def test_the_least_of_each_group_that_sees_the_whole_time():
    assert least_of_each([5, 1, 4, 2, 9, 3], 3) == [4, 1]
    assert least_of_each([5, 1, 4], 5) == [1]
    assert least_of_each([5, 1, 4], 1) == [5, 1, 4]


def test_ratios_of_what_is_disturbed_now_and_then():
    # the first is disturbed in the first two rounds, the second in the last two
    ratios = Timing.of_ratios([90, 90, 2, 2], [4, 4, 90, 90], 2)
    assert ratios == Timing(0.5, 0.5, 0.5)


def disturbed(monkeypatch, seconds):
    """Let each turn of each function take what is said, whatever it takes."""
    monkeypatch.setattr(latency_module, "_one_turn", lambda work, shortest: next(seconds[work]))


def test_a_quiet_machine_is_measured_once(monkeypatch):
    a, b = (lambda: None), (lambda: None)
    seconds = {a: iter([2.0] * 7), b: iter([1.0] * 7)}  # one to settle, one to warm up
    disturbed(monkeypatch, seconds)
    assert time_until_steady([a, b]) == [(2.0, Timing(1, 1, 1)), (1.0, Timing(0.5, 0.5, 0.5))]
    assert not list(seconds[a])


def test_a_restless_machine_is_measured_until_three_rounds_were_undisturbed(monkeypatch):
    a, b = (lambda: None), (lambda: None)
    block = [3.0, 3.0, 3.0, 1.0, 3.0, 3.0]  # the first of them to settle
    seconds = {a: iter([2.0] * 50), b: iter([3.0, *block * 8])}
    disturbed(monkeypatch, seconds)
    assert time_until_steady([a, b])[1] == (1.0, Timing(0.5, 0.5, 0.5))
    assert len(list(seconds[a])) == 50 - 7 - 2 * 6


def test_what_is_known_has_no_more_turns_and_what_is_never_known_an_end(monkeypatch):
    reference, steady, restless = (lambda: None), (lambda: None), (lambda: None)
    ever_less = (100.0 / 1.2**number for number in range(200))
    seconds = {reference: iter([2.0] * 200), steady: iter([1.0] * 7), restless: ever_less}
    disturbed(monkeypatch, seconds)
    _, (_, known), (_, unknown) = time_until_steady([reference, steady, restless], repeats=10)
    assert known == Timing(0.5, 0.5, 0.5)
    assert not unknown.is_within(1.2)
    assert len(list(seconds[reference])) == 200 - 7 - 7 * 6


def test_the_least_times_count_and_how_far_the_least_three_are_apart_is_the_range():
    ratio = Timing.of_least([9.0, 1.0, 1.1, 1.05], [2.0, 2.2, 2.1, 8.0, 9.0])
    assert ratio == Timing(0.5, 1 / 2.2, 0.55)
    assert ratio.is_within(1.22)
    assert not ratio.is_within(1.2)


def test_one_function_alone_is_timed_until_it_is_known(monkeypatch):
    seconds = {print: iter([5.0, 5.0, 2.0, 5.0, 2.0, 5.0, 5.0, *[2.0] * 10])}
    disturbed(monkeypatch, seconds)
    assert time_until_steady([print]) == [(2.0, Timing(1, 1, 1))]
    assert len(list(seconds[print])) == 4

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
    seconds = {a: iter([2.0] * 27), b: iter([1.0] * 27)}  # two of them to warm up
    disturbed(monkeypatch, seconds)
    assert time_until_steady([a, b]) == [(2.0, Timing(1, 1, 1)), (1.0, Timing(0.5, 0.5, 0.5))]
    assert not list(seconds[a])


def test_a_restless_machine_is_measured_for_longer_and_what_disturbs_is_left_out(monkeypatch):
    a, b = (lambda: None), (lambda: None)
    restless = [1.0, 1.0, *[3.0, 3.0, 1.0, 1.0, 1.0] * 5]  # two of five groups meet no undisturbed round
    seconds = {a: iter([2.0] * 108), b: iter([*restless, *[1.0] * 81])}
    disturbed(monkeypatch, seconds)
    assert time_until_steady([a, b])[1] == (1.0, Timing(0.5, 0.5, 0.5))
    assert len(list(seconds[a])) == 54  # one more time was enough

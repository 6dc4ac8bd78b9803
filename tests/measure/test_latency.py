"""Latency in turns: who runs when, and what is reported."""

import torch
from torch import nn

from tuckertree.measure import Timing, compare_latency, least_of_each


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

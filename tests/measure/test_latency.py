"""Latency in turns: who runs when, and what is reported."""

import torch
from torch import nn

from tuckertree.measure import compare_latency


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

"""Time of a forward, measured fairly: the same work, in turns, on a machine that may be busy."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median, quantiles

import torch
from torch import Tensor, nn

from tuckertree.measure.forward import evaluating


@dataclass(frozen=True)
class Timing:
    """Seconds of a forward over repeated runs.

    Attributes
    ----------
    median
        Median run.
    low, high
        Quartiles: half of the runs lie between them.
    """

    median: float
    low: float
    high: float


def compare_latency(
    models: Mapping[str, nn.Module], inputs: Tensor, *, repeats: int = 15, warm_up: int = 2
) -> dict[str, Timing]:
    """Time several models on the same inputs, one run of each in turn, so that they share every disturbance.

    Parameters
    ----------
    inputs
        On the models' device.
    repeats, warm_up
        Timed runs of each model, and runs before them that are not.
    """
    runs: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(warm_up + repeats):
        for name, model in models.items():
            with evaluating(model):
                seconds = _time_once(model, inputs)
            if turn >= warm_up:
                runs[name].append(seconds)
    return {name: _summary(times) for name, times in runs.items()}


def _time_once(model: nn.Module, inputs: Tensor) -> float:
    start = time.perf_counter()
    model(inputs)
    if inputs.is_cuda:
        torch.cuda.synchronize(inputs.device)
    return time.perf_counter() - start


def _summary(times: list[float]) -> Timing:
    low, _, high = quantiles(times, n=4) if len(times) > 1 else (times[0],) * 3
    return Timing(median(times), low, high)

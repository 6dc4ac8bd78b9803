"""Time of a forward pass, measured fairly: the same work, in turns, on a machine that may be busy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median, quantiles

import torch
from torch import Tensor, nn

from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree.measure.forward import evaluating

_LONG = 0.1
_BLOCK, _LEAST, _PATIENCE = 5, 3, 4
_KNOWN, _SETTLED = 1.04, 1.1


@dataclass(frozen=True)
class Timing:
    """Seconds of a forward pass over repeated runs, or its ratio to another in the same rounds.

    Attributes
    ----------
    median
        Median run.
    low, high
        Quartiles: half of the runs lie between them; for :meth:`of_least` the ends of a range.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Timing:
        """Summarise single runs, or ratios of them."""
        low, _, high = quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
        return cls(median(values), low, high)

    @classmethod
    def of_ratios(cls, values: Sequence[float], reference: Sequence[float], least_of: int = 1) -> Timing:
        """Summarise the ratios to a reference, round by round: 0.5 is half its time.

        With ``least_of`` the least time in each group of so many rounds counts, of either: what disturbs a run
        only ever adds to it, on a busy machine ten times what a small layer takes.
        """
        pairs = zip(least_of_each(values, least_of), least_of_each(reference, least_of), strict=True)
        return cls.of([a / b for a, b in pairs])

    @classmethod
    def of_least(cls, values: Sequence[float], reference: Sequence[float]) -> Timing:
        """The ratio of the least times of either, and between what it lies if any of their least three is undisturbed.

        What disturbs a run only ever adds to it, so where the least three are alike they are what the run takes.
        """
        (low, *_, high), (least, *_, most) = (sorted(x)[:_LEAST] for x in (values, reference))
        return cls(low / least, low / most, high / least)

    def is_within(self, factor: float) -> bool:
        """Whether the upper end is less than so many times the lower."""
        return self.high < factor * self.low


def least_of_each(values: Sequence[float], count: int) -> list[float]:
    """Least value of each group of at least ``count``, dealt out in turn so that all see the whole time."""
    groups = max(len(values) // count, 1)
    return [min(values[i::groups]) for i in range(groups)]


def synchroniser(device: str | torch.device) -> Callable[[], object]:
    """What waits until a device has done all it was given; a CPU has when a call returns."""
    device = torch.device(device)
    if device.type == "cuda":
        return partial(torch.cuda.synchronize, device)
    return torch.mps.synchronize if device.type == "mps" else lambda: None


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
    synchronise = synchroniser(inputs.device)
    inputs = inputs.clone()  # a forward pass may change them in place

    def forward(model: nn.Module) -> None:
        with evaluating(model):
            model(inputs)
            synchronise()

    runs = [partial(forward, model) for model in models.values()]
    times = time_in_turns(runs, repeats=repeats, warm_up=warm_up)
    return {name: Timing.of(seconds) for name, seconds in zip(models, times, strict=True)}


def time_in_turns(
    runs: Sequence[Callable[[], object]],
    *,
    repeats: int = 15,
    warm_up: int = 2,
    shortest: float = 0.0,
    settle: bool = False,
    pause: float = 0.0,
    tick: ProgressCallback = no_progress,
) -> list[list[float]]:
    """Time functions against each other: each has its turn in every round, so that all share a disturbance.

    The ratio of two functions is best taken round by round, and the median of the ratios then.

    Parameters
    ----------
    runs
        Each does its work once and returns when it is done.
    repeats, warm_up
        Timed rounds, and rounds before them that are not.
    shortest
        Seconds a turn takes at least: what is shorter is run several times in a turn, and the mean counts.
    settle
        Let each function have a turn untimed before its turn, where it takes less than 0.1 s: threads of the one
        before may still be spinning, its own still asleep, and the caches hold other data.
    pause
        Seconds to sleep before each turn. On a shared machine the scheduler lets a process that has just used
        its CPUs wait, so that without a pause a long run slows those after it.

    Returns
    -------
    list of list of float
        Seconds of one run, for each function and each round.
    """
    times: list[list[float]] = [[] for _ in runs]
    least = [0.0] * len(runs)
    for turn in range(warm_up + repeats):
        for number, work in enumerate(runs):
            time.sleep(pause)
            if settle and least[number] < _LONG:
                _one_turn(work, shortest)
            seconds = _one_turn(work, shortest)
            least[number] = min(least[number] or seconds, seconds)
            if turn >= warm_up:
                times[number].append(seconds)
        tick("timing", turn + 1, warm_up + repeats)
    return times


def time_until_steady(
    runs: Sequence[Callable[[], object]],
    *,
    repeats: int = 25,
    shortest: float = 0.0,
    pause: float = 0.0,
    tick: ProgressCallback = no_progress,
) -> list[tuple[float, Timing]]:
    """Time functions in turns against the first of them, no longer than it takes to know their ratios.

    A thread that has to wait for its CPU takes tens of milliseconds more, never less. So the least time counts,
    and it is known when the least three are alike: that many rounds have met no disturbance. After five rounds
    without rests, which a quiet machine needs no more of, a function whose ratio is known within 4% has no more
    turns; the others go on with rests. From ``repeats`` rounds on a tenth is enough, and at most four times as many
    are made.

    Parameters
    ----------
    repeats
        Rounds, at least five; :func:`time_in_turns` has the others.
    pause
        Seconds to rest before a turn, once the machine has turned out to be restless.

    Returns
    -------
    list of (float, Timing)
        For each function its least seconds, and their ratio to the first's (:meth:`Timing.of_least`), which for the
        first says how surely its seconds are known.
    """
    times: list[list[float]] = [[] for _ in runs]
    found = [(0.0, Timing(1.0, 1.0, 1.0))] * len(runs)
    unknown, rounds = list(range(1, len(runs))) or [0], 0
    while unknown and rounds < _PATIENCE * repeats:
        turns = sorted({0, *unknown})
        more = time_in_turns(
            [runs[i] for i in turns],
            repeats=_BLOCK,
            warm_up=0 if rounds else 1,
            shortest=shortest,
            settle=True,
            pause=pause if rounds else 0.0,
            tick=tick,
        )
        rounds += _BLOCK
        for i, added in zip(turns, more, strict=True):
            times[i] += added
            found[i] = (min(times[i]), Timing.of_least(times[i], times[0]))
        known = _KNOWN if rounds < repeats else _SETTLED
        unknown = [i for i in unknown if not found[i][1].is_within(known)]
    return found


def _one_turn(work: Callable[[], object], shortest: float) -> float:
    start, count = time.perf_counter(), 0
    while True:
        work()
        count += 1
        spent = time.perf_counter() - start
        if spent >= shortest:
            return spent / count

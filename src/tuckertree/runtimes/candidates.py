"""How long small modules take on a runtime, each against a reference, and kept on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from torch import Tensor, nn

from tuckertree._base.errors import UsageError
from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree._base.version import __version__
from tuckertree.measure import Timing, time_until_steady
from tuckertree.runtimes.cache import LatencyCache
from tuckertree.runtimes.runtime import Runtime

_TOGETHER = 8
_SHORTEST = 1e-3
_BLOCK = 5
_PAUSE = 0.02


@dataclass(frozen=True)
class CandidateTime:
    """Time of one candidate.

    Attributes
    ----------
    seconds
        Of one run: ``ratio.median`` times the seconds of the reference.
    ratio
        Its time over the reference's, the least of either, and the range that the least three of either leave open.
    """

    seconds: float
    ratio: Timing

    def is_faster(self, margin: float = 0.02) -> bool:
        """Whether it beats the reference by more than noise: at the range's upper end, by the margin."""
        return self.ratio.high < 1 - margin


def time_candidates(
    candidates: Sequence[nn.Module],
    inputs: Tensor,
    runtime: Runtime,
    *,
    repeats: int = 25,
    cache: LatencyCache | None = None,
    tick: ProgressCallback = no_progress,
) -> list[CandidateTime]:
    """Time modules against the first of them, the reference, on a runtime.

    They run in turns, a few at a time, each few together with the reference: what counts is the ratio, which
    a busy machine disturbs far less than the seconds. That is also what is kept in the cache, so that times
    of one reference taken on different days can be compared
    (:func:`~tuckertree.measure.time_until_steady`).

    Parameters
    ----------
    candidates
        Modules of plain torch layers: the cache knows a module by its printed form and the shapes of its
        parameters, which must say all that its time depends on.
    inputs
        The one input of each of them, on the CPU.
    repeats
        Rounds on a restless machine; at least five.
    cache
        Where times are kept; by default the user's (:class:`~tuckertree.runtimes.cache.LatencyCache`).

    Returns
    -------
    list of CandidateTime
        In the order of the candidates; the first has the ratio 1.

    Raises
    ------
    TuckertreeError
        If the runtime cannot run a candidate.
    UsageError
        If the rounds are too few.
    """
    if repeats < _BLOCK:
        raise UsageError(f"a measurement needs at least {_BLOCK} rounds, got {repeats}")
    cache = LatencyCache() if cache is None else cache
    common = _setting(runtime, inputs, candidates[0], repeats)
    keys: list[dict[str, object]] = [{**common, "candidate": _described(module)} for module in candidates]
    known = [cache.get(key) for key in keys]
    missing = [i for i, numbers in enumerate(known) if numbers is None and i]
    if known[0] is None or missing:
        kept = []
        for start in range(0, max(len(missing), 1), _TOGETHER):
            some = missing[start : start + _TOGETHER]
            measured = _measure([candidates[i] for i in (0, *some)], inputs, runtime, repeats, tick)
            for i, numbers in zip((0, *some), measured, strict=True):
                if i or known[0] is None:
                    known[i] = numbers
                    kept.append((keys[i], numbers))
        cache.keep(kept)
    reference = known[0]
    assert reference is not None
    return [_time(numbers, reference["seconds"]) for numbers in known if numbers is not None]


def _time(numbers: Mapping[str, float], reference: float) -> CandidateTime:
    ratio = Timing(numbers["median"], numbers["low"], numbers["high"])
    return CandidateTime(ratio.median * reference, ratio)


def _measure(
    modules: Sequence[nn.Module], inputs: Tensor, runtime: Runtime, repeats: int, tick: ProgressCallback
) -> list[dict[str, float]]:
    with ExitStack() as stack:
        stack.enter_context(runtime.active())
        runs = [runnable.bind([inputs]) for runnable in runtime.load_branches(modules, [inputs])]
        times = time_until_steady(runs, repeats=repeats, shortest=_SHORTEST, pause=_PAUSE, tick=tick)
    return [{"seconds": seconds, **asdict(ratio)} for seconds, ratio in times]


def _setting(runtime: Runtime, inputs: Tensor, reference: nn.Module, repeats: int) -> dict[str, object]:
    return {
        "tuckertree": __version__,
        **runtime.key,
        "input": [str(inputs.dtype), *inputs.shape],
        "reference": _described(reference),
        "rounds": repeats,
    }


def _described(module: nn.Module) -> list[str]:
    return [
        " ".join(str(module).split()),
        *(f"{name} {tuple(p.shape)} {p.dtype}" for name, p in module.named_parameters()),
    ]

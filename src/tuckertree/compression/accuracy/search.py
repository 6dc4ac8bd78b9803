"""The cheapest network that keeps an accuracy: bisection over budgets, and a proof on other images.

Each step is a budget of what is to be cheapest: a plan of the candidates that were surveyed once, a network fitted to the
calibration images, and its loss on the images to search with. The network that is found is chosen for doing well there,
so it must lose less than allowed by one standard deviation, and what counts in the end is its loss on images that took no
part. Where that is too much a larger network is tried, a few times.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from math import ceil, log

from tuckertree._base.errors import UnreachableTargetError, advice
from tuckertree._base.progress import ProgressCallback
from tuckertree.calibration import Length
from tuckertree.compression.accuracy.loss import Loss
from tuckertree.compression.accuracy.record import AccuracySearch, AccuracyStep, limit_of
from tuckertree.compression.accuracy.trials import PROOF, SEARCH
from tuckertree.compression.checking import nothing_to_compress
from tuckertree.compression.choosing import Choosing, Surveyed
from tuckertree.compression.making import Made, make_network, make_result
from tuckertree.compression.result import CompressionResult
from tuckertree.measure.intervals import LEVEL, normal_quantile
from tuckertree.planning import Budget, Plan

_Made = tuple[Made, list[warnings.WarningMessage]]
RATIO = 1.04
"""Budgets that are told apart differ by so much: what smaller steps lose, thousands of images cannot tell."""
FEWEST = 15
"""So many are told apart where a few layers are all that may change."""
LEAST = 1 / 64
"""No budget below is tried."""
BACK = (0, 2, 5, 9, 14)
"""The proof looks at the network found, and where that fails at one that is so many budgets larger."""


class AccuracyNotKeptError(UnreachableTargetError):
    """No network that was tried keeps the accuracy that was asked for.

    Attributes
    ----------
    nearest
        The one that came nearest, with what it lost in ``nearest.accuracy``.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> seed = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 24, 3))
    >>> images = torch.randn(64, 3, 8, 8)
    >>> try:
    ...     tt.compress(model, images[:1], tt.Budget(agreement=1.0), calibration=images, progress=False)
    ... except tt.AccuracyNotKeptError as error:
    ...     nearest = error.nearest
    >>> nearest.accuracy.held, 0 < nearest.accuracy.loss.lost < 0.5
    (False, True)
    """

    def __init__(self, message: str, nearest: CompressionResult) -> None:
        super().__init__(message)
        self.nearest = nearest


def keep_accuracy(
    chosen: Choosing, length: Length | None, tick: ProgressCallback, say: Callable[[str], None]
) -> CompressionResult:
    """The cheapest network that keeps the accuracy that a budget asks for; ``say`` takes a line for each step.

    Raises
    ------
    AccuracyNotKeptError
        If there is none, and the budget does not ask for best effort.
    UnreachableTargetError
        If nothing can be compressed.
    """
    assert isinstance(chosen.rule, Budget)
    assert chosen.trial is not None
    chosen.trial.begin(chosen.network.module, tick)
    chosen.stopwatch.lap("original")
    search = _Search(chosen, chosen.rule, chosen.surveyed(tick), length, tick, say)
    chosen.stopwatch.lap("plan")
    found = bisect(len(search.shares), search.holds)
    return search.proved(found)


def bisect(count: int, holds: Callable[[int], bool]) -> int:
    """The smallest of ``count`` numbers that holds if all above one do; ``count`` where none does.

    Examples
    --------
    >>> from tuckertree.compression.accuracy.search import bisect
    >>> bisect(100, lambda number: number >= 37)
    37
    """
    fails, known = -1, count
    while known - fails > 1:
        middle = (fails + known) // 2
        if holds(middle):
            known = middle
        else:
            fails = middle
    return known


def shares_from(least: float) -> list[float]:
    """Budgets to tell apart, from the least within reach to just below the whole, at equal ratios."""
    least = max(least, LEAST)
    count = max(ceil(log(1 / least) / log(RATIO)), FEWEST) if least < 1 else 0
    return [least ** (step / count) for step in range(count, 0, -1)]


class _Search:
    """Networks at rising budgets, and what was seen of them."""

    def __init__(
        self,
        chosen: Choosing,
        rule: Budget,
        surveyed: Surveyed,
        length: Length | None,
        tick: ProgressCallback,
        say: Callable[[str], None],
    ) -> None:
        assert rule.cheapest is not None
        self._chosen, self._rule, self._surveyed, self._tick, self._say = chosen, rule, surveyed, tick, say
        self._limit, self._length = limit_of(rule), length
        self.shares = shares_from(surveyed.least(rule.cheapest))
        self._steps: list[AccuracyStep] = []
        self._held: dict[int, _Made] = {}
        self._nearest: tuple[Loss, float, _Made] | None = None
        self._total = len(self.shares).bit_length()
        if not self.shares:
            plan = surveyed.plan(rule.at(1.0), tick)
            raise UnreachableTargetError(nothing_to_compress(plan))

    def holds(self, number: int) -> bool:
        """Make the network of a budget and see whether it clearly keeps the accuracy."""
        chosen, share = self._chosen, self.shares[number]
        assert chosen.trial is not None
        step, made = AccuracyStep(share), None
        if (plan := self._plan(share)) is not None:
            with warnings.catch_warnings(record=True) as told:  # of networks that are not given in the end
                network = make_network(chosen, plan, self._surveyed.spectra, self._length, self._tick)
            made = network, told
            loss = chosen.trial.loss(network.model, SEARCH, normal_quantile())
            chosen.stopwatch.lap("accuracy")
            step = AccuracyStep.of(share, network.plan, loss, held=loss.clearly_within(self._limit))
            if step.held:
                self._held[number] = made
            elif self._nearest is None or loss.lost < self._nearest[0].lost:
                self._nearest = loss, share, made
        self._steps.append(step)
        self._tick(f"search: {step}", len(self._steps), max(self._total, len(self._steps)))
        self._say(f"step {len(self._steps)}: {step}")
        return step.held

    def _plan(self, share: float) -> Plan | None:
        try:
            plan = self._surveyed.plan(self._rule.at(share), self._tick)
        except UnreachableTargetError:
            return None
        finally:
            self._chosen.stopwatch.lap("plan")
        said = {**plan.rule, **{k: v for k, v in self._rule.describe().items() if v is not None}}
        return replace(plan, rule=said) if plan.changes else None

    def proved(self, number: int) -> CompressionResult:
        """The network found, or a larger one, proved on the other images."""
        proofs: list[AccuracyStep] = []
        looked: list[tuple[float, CompressionResult, AccuracyStep]] = []
        for larger in (number + back for back in BACK):
            if larger >= len(self.shares) or (larger not in self._held and not self.holds(larger)):
                continue
            result = self._result(self._held.pop(larger))
            proofs.append(self._look(result, self.shares[larger], len(proofs) + 1))
            if proofs[-1].held or (result.tuning is not None and result.tuning.interrupted):
                return self._with_record(result, proofs)
            loss = proofs[-1].loss
            assert loss is not None
            looked.append((loss.lost, result, proofs[-1]))
        if looked:
            _, result, proof = min(looked, key=lambda each: each[0])
            return self._missed(self._with_record(result, [*(p for p in proofs if p is not proof), proof]))
        if self._nearest is None:
            raise UnreachableTargetError("no plan that was tried makes the network cheaper")
        _, share, made = self._nearest
        result = self._result(made)
        return self._missed(self._with_record(result, [self._look(result, share, 1)]))

    def _result(self, made: _Made) -> CompressionResult:
        network, told = made
        for each in told:
            warnings.warn(each.message, stacklevel=2)
        return make_result(self._chosen, network, self._surveyed.inventory, self._length, self._tick)

    def _look(self, result: CompressionResult, share: float, looks: int) -> AccuracyStep:
        """See what a network lost on the images of the proof, the interval such that all looks together are 95 %."""
        assert self._chosen.trial is not None
        z = normal_quantile(1 - (1 - LEVEL) / looks)
        loss = self._chosen.trial.loss(result.model, PROOF, z)
        self._chosen.stopwatch.lap("accuracy")
        step = AccuracyStep.of(share, result.plan, loss, held=loss.within(self._limit))
        self._say(f"proof: {step}")
        return step

    def _with_record(self, result: CompressionResult, proofs: list[AccuracyStep]) -> CompressionResult:
        assert self._rule.cheapest is not None
        assert self._chosen.trial is not None
        record = AccuracySearch(
            self._limit, self._rule.cheapest, tuple(self._steps), tuple(proofs), self._chosen.trial.classes
        )
        return replace(result, accuracy=record, seconds=dict(self._chosen.stopwatch.seconds))

    def _missed(self, result: CompressionResult) -> CompressionResult:
        if result.accuracy is not None and result.accuracy.held:
            return result  # the images of the search were harder
        if self._rule.best_effort:
            return result
        assert result.accuracy is not None
        found = result.accuracy
        vague = (
            f" ({found.loss.images} images are too few to tell)" if found.loss.is_vague(found.limit) else ""
        )
        how = advice(typed="--best-effort", called="Budget(best_effort=True)")
        raise AccuracyNotKeptError(
            f"{found.asked} cannot be kept by this network{vague}; the nearest that was tried: {found.proofs[-1]} on images "
            f"that took no part; allow more, give more calibration images, or keep the nearest by {how}",
            result,
        )

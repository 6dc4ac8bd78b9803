"""What the times of a network's layers say of each other, and which of a layer's variants are worth timing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tuckertree.latency.fit import NOISE, Prior, fit_times

_UNKNOWN, _ALIKE = 1.0, 0.4
_LITTLE, _MUCH = 0.01, 0.3
_NUMBER = 10.0


class Pool:
    """Times of a network's layers, from which those of another layer can be guessed.

    Layers of one network on one runtime take about as long for the same work: what one layer's variants have
    shown, a few measurements confirm or correct for the next.
    """

    def __init__(self) -> None:
        self._known, self._deviation = list[tuple[Tensor, Tensor, Tensor]](), _UNKNOWN

    def add(self, rows: Tensor, seconds: Tensor, spread: Tensor) -> None:
        """Take times into account: what was done (:func:`~tuckertree.latency.fit.work`), how long it took, how surely."""
        self._known.append((rows, seconds, spread))
        if (rows[:, 1] > 1).any():  # a chain, not only dense layers
            self._deviation = _ALIKE

    def prior(self, rows: Tensor) -> Prior:
        """What to take the coefficients of a layer for, the dense layer's time as the unit.

        Parameters
        ----------
        rows
            Of the variants that may be timed, the dense one first.
        """
        known, seconds, spread = map(torch.cat, zip(*self._known, strict=True))
        start = _same_speed(known, seconds)
        found = fit_times(known, seconds, spread, start)
        # What seems to cost nothing may cost a little here.
        little = _LITTLE / rows.amax(0).clamp(min=1e-300)
        mean = torch.maximum(found / (rows[0] @ found), torch.where(rows.amax(0) > 0, little, start.mean))
        deviation = self._deviation * mean
        if self._deviation == _UNKNOWN:  # of small layers a call may take the most
            deviation[:2] = _MUCH
        return Prior(mean, deviation)


def _same_speed(rows: Tensor, times: Tensor) -> Prior:
    """A machine for which any multiply-accumulate takes as long, in whatever kernel, and a call next to nothing."""
    per_mac = (times.sum() / rows[:, 2:6].sum().clamp(min=1)).expand(4)
    per_number = _NUMBER * per_mac[:2]
    per_call = times.mean().expand(2)
    mean = torch.cat([_LITTLE * per_call, per_mac, per_number])
    return Prior(mean, torch.cat([_MUCH * per_call, per_mac, per_number]))


def worth_timing(rows: Tensor, prior: Prior, known: Mapping[int, float], tolerance: float) -> list[int]:
    """Which rows to measure next, so that what all rows take is known.

    One after the other that is taken of which least is known, given the prior, what has been measured, and what will
    have been by then: a linear model says what each measurement tells of the others.

    Parameters
    ----------
    rows
        Work of each variant ``[n, k]``.
    known
        Rows that have been measured, and the relative uncertainty of each.
    tolerance
        Standard deviation to which times are to be known, in the unit of the prior; with 0 all are measured.
    """
    covariance = prior.deviation.square().diag()
    for i, spread in known.items():
        covariance = _measured(covariance, rows[i], max(NOISE, spread / 2) * float(rows[i] @ prior.mean))
    left, found = sorted({*range(len(rows))} - {*known}), list[int]()
    while left:
        deviation = ((rows[left] @ covariance) * rows[left]).sum(1).clamp(min=0).sqrt()
        if tolerance and float(deviation.max()) < tolerance:
            break
        found.append(left.pop(int(deviation.argmax())))
        row = rows[found[-1]]
        covariance = _measured(covariance, row, NOISE * float(row @ prior.mean))
    return found


def _measured(covariance: Tensor, row: Tensor, noise: float) -> Tensor:
    """Covariance of the coefficients once a row has been measured."""
    gain = covariance @ row
    return covariance - torch.outer(gain, gain) / (row @ gain + noise**2)

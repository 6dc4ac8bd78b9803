"""Fewer and fewer of some hidden channels, and what those who read them lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import torch
from torch import Tensor, nn

from tuckertree.calibration import KroneckerMetric
from tuckertree.calibration.sensitivity import interpolated
from tuckertree.core.decomposition.elimination import Elimination, eliminate
from tuckertree.core.layers import weight_of
from tuckertree.planning import Candidates, Layer
from tuckertree.planning.channels import HiddenChannels, Pruning
from tuckertree.planning.timing import channel_step

_SMALL = 1e-3
"""Squared relative error up to which a loss is taken to be linear."""


def widths_of(channels: int, count: int, round_to: int | None) -> list[int]:
    """At most so many numbers of channels at equal distances, falling; None: multiples of what suits a CPU's vectors."""
    round_to = channel_step(channels) if round_to is None else round_to
    step = max(ceil(channels / count / round_to), 1) * round_to
    return [width for width in range(channels - 1, 0, -1) if width % step == 0]


@dataclass(frozen=True)
class Reader:
    """A consumer in the metric in which its candidates are weighed.

    Attributes
    ----------
    kernel, metric
        Its weight and the metric.
    curve
        Its loss by its squared relative error, as its candidates have it.
    whole
        What all of its weight is in the metric.
    """

    kernel: Tensor
    metric: KroneckerMetric
    curve: Sequence[tuple[float, float]]
    whole: float

    @classmethod
    def of(cls, module: nn.Module, layer: Layer, candidates: Candidates, metric: KroneckerMetric) -> Reader:
        """A consumer's weight, metric and candidates together."""
        kernel = layer.spec.kernel(weight_of(module))
        known = dict(sorted(zip(candidates.error.tolist(), candidates.loss.tolist(), strict=True)))
        return cls(
            kernel, metric, list(({0.0: 0.0} | known).items()), float(metric.of(kernel).square().sum())
        )

    @cached_property
    def slope(self) -> float:
        """Loss by squared relative error, where both are small."""
        return float(interpolated(torch.tensor([_SMALL]), self.curve)) / _SMALL

    def loss(self, error: Tensor) -> Tensor:
        """Losses at squared relative errors."""
        return interpolated(error, self.curve)

    def moment_and_gram(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """What it sees of some of its inputs, and the products of their columns in the metric of all other modes.

        A small loss is the sum of the products of the two.
        """
        root = self.metric.roots[1]
        others = KroneckerMetric((self.metric.roots[0], None, *self.metric.roots[2:]))
        columns = others.of(self.kernel.index_select(2, places.to(self.kernel.device)))[0]
        gram = (columns := columns.movedim(1, 0).flatten(1)) @ columns.T
        gram *= self.slope / self.whole if self.whole > 0 else 0.0
        root = torch.ones(1, 1).to(gram) if root is None else root[0].to(gram)
        if len(root) == 1:
            return root.square() * torch.eye(len(gram)).to(gram), gram
        some = root.index_select(1, places.to(root.device))
        return some.T @ some, gram


@dataclass(frozen=True)
class Path:
    """Fewer and fewer of some hidden channels, and the loss at each width."""

    hidden: HiddenChannels
    elimination: Elimination
    loss: Tensor

    @classmethod
    def of(cls, hidden: HiddenChannels, widths: Sequence[int], readers: Mapping[str, Reader]) -> Path:
        """By backward elimination.

        Where a consumer has the channels in several places, each place is a reader; what it has beside them is as it was.
        """
        seen = [(readers[name], start) for name in hidden.consumers for start in hidden.starts(name) or (0,)]
        every = torch.arange(hidden.channels)
        moments, grams = zip(*(reader.moment_and_gram(start + every) for reader, start in seen), strict=True)
        path = eliminate(torch.stack(moments), torch.stack(grams), widths)
        loss = torch.zeros(len(widths), dtype=torch.float64)
        for name in hidden.consumers:
            reader = readers[name]
            lost = [each for each, (other, _) in zip(path.loss.T, seen, strict=True) if other is reader]
            if reader.slope > 0:
                loss += reader.loss(torch.stack(lost).sum(0) / reader.slope)
        return cls(hidden, path, loss)

    def steps(self) -> list[tuple[Pruning | None, float]]:
        """All channels, and then fewer and fewer, each with its loss."""
        path = self.elimination
        prunings = [Pruning(self.hidden, path.kept(width)) for width in path.widths]
        return [(None, 0.0), *zip(prunings, self.loss.tolist(), strict=True)]

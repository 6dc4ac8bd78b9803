"""Hidden channels as candidates: which go first, and what the network's outputs lose by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import ceil

import torch
from torch import Tensor, nn

from tuckertree.calibration import KroneckerMetric
from tuckertree.calibration.sensitivity import interpolated
from tuckertree.core.decomposition.elimination import Elimination, eliminate
from tuckertree.core.layers import weight_of
from tuckertree.planning import DENSE, Candidates, Group, Layer, LayerPlan
from tuckertree.planning.channels import HiddenChannels, Pruning

_WIDTHS = 32
"""Numbers of channels tried of one layer's, at equal distances; of two layers' together the square root of ten times as many."""
_WIDTHS_OF_TWO = 16


def hidden_groups(
    model: nn.Module,
    layers: Sequence[Layer],
    hidden: Sequence[HiddenChannels],
    candidates: Mapping[str, Candidates],
    metrics: Mapping[str, KroneckerMetric],
    *,
    round_to: int = 1,
) -> dict[str, Group]:
    """Groups of layers with fewer channels between them, by names of their own.

    Channels go by backward elimination with the consumers refitted, in the metric in which the candidates of single
    layers are weighed, too.

    Parameters
    ----------
    layers
        All layers that the hidden channels are between.
    hidden
        Of the model; of those that share layers as many are taken as can be chosen apart, or two and two together.
    candidates, metrics
        Of the consumers, by name.
    round_to
        Widths are multiples of this.
    """
    by_name = {layer.name: layer for layer in layers}
    found = {}
    for run in _runs([each for each in hidden if {*each.consumers} <= metrics.keys()]):
        count = _WIDTHS if len(run) == 1 else _WIDTHS_OF_TWO
        paths = [
            _path(model, each, by_name, candidates, metrics, _widths(each.channels, count, round_to))
            for each in run
        ]
        names = tuple(name for name in by_name if any(name in each.modules for each in run))
        prunings, losses = [], []
        for steps in product(*([None, *range(len(path.widths))] for path, _ in paths)):
            chosen = [
                (each, path, loss, step)
                for each, (path, loss), step in zip(run, paths, steps, strict=True)
                if step is not None
            ]
            if chosen:
                prunings.append(
                    tuple(Pruning(each, path.kept(path.widths[step])) for each, path, _, step in chosen)
                )
                losses.append(sum(float(loss[step]) for _, _, loss, step in chosen))
        if prunings:
            plans = tuple(tuple(_plan(by_name[name], some) for name in names) for some in prunings)
            loss = torch.tensor(losses, dtype=torch.float64)
            found[f"channels of {' and '.join(run[0].producers[:1] + run[-1].consumers[-1:])}"] = Group(
                names, plans, loss, tuple(prunings)
            )
    return found


def _runs(hidden: Sequence[HiddenChannels]) -> Iterator[list[HiddenChannels]]:
    """Channels that share layers, at most two and two; of more those of the widest layers."""
    runs: list[list[HiddenChannels]] = []
    for each in sorted(hidden, key=lambda each: -each.channels):
        touched = [run for run in runs if any({*each.modules} & {*other.modules} for other in run)]
        if sum(map(len, touched)) < 2:
            runs = [run for run in runs if run not in touched] + [
                [each, *(other for run in touched for other in run)]
            ]
    order = {each.modules: number for number, each in enumerate(hidden)}
    yield from (sorted(run, key=lambda each: order[each.modules]) for run in runs)


def _widths(channels: int, count: int, round_to: int) -> list[int]:
    step = max(ceil(channels / count / round_to), 1) * round_to
    return [width for width in range(channels - 1, 0, -1) if width % step == 0]


def _path(
    model: nn.Module,
    hidden: HiddenChannels,
    layers: Mapping[str, Layer],
    candidates: Mapping[str, Candidates],
    metrics: Mapping[str, KroneckerMetric],
    widths: Sequence[int],
) -> tuple[Elimination, Tensor]:
    """Which channels go, and the loss at each width."""
    moments, grams, norms, slopes = [], [], [], []
    for name in hidden.consumers:
        kernel = layers[name].spec.kernel(weight_of(model.get_submodule(name)))
        moment, gram = _moment_and_gram(metrics[name], kernel)
        known = candidates[name]
        norm = float((moment * gram).sum())
        moments.append(moment)
        norms.append(norm or 1.0)
        slopes.append(
            float(interpolated(torch.tensor([_SMALL], dtype=torch.float64), _curve(known))[0]) / _SMALL
        )
        grams.append(gram * slopes[-1] / norms[-1])
    path = eliminate(torch.stack(moments), torch.stack(grams), widths)
    loss = torch.zeros(len(path.widths), dtype=torch.float64)
    for place, name in enumerate(hidden.consumers):
        error = path.loss[:, place] / slopes[place] if slopes[place] else path.loss[:, place]
        loss += interpolated(error, _curve(candidates[name]))
    return path, loss


_SMALL = 1e-3


def _curve(candidates: Candidates) -> list[tuple[float, float]]:
    """A layer's loss by its squared relative error, as its candidates have it."""
    points = sorted({(0.0, 0.0), *zip(candidates.error.tolist(), candidates.loss.tolist(), strict=True)})
    return list(dict(points).items())


def _moment_and_gram(metric: KroneckerMetric, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """What a consumer sees of its channels, and the products of its columns in the metric of all other modes."""
    root = metric.roots[1]
    others = KroneckerMetric((metric.roots[0], None, *metric.roots[2:]))
    columns = others.of(kernel)[0].movedim(1, 0).flatten(1)
    gram = columns @ columns.T
    if root is None:
        return torch.eye(len(gram)).to(gram), gram
    root = root[0].to(gram)
    return (root * root * torch.eye(len(gram)).to(gram) if len(root) == 1 else root.T @ root), gram


def _plan(layer: Layer, pruned: Sequence[Pruning]) -> LayerPlan:
    """What becomes of a layer."""
    weights, macs, said = layer.spec.weights, layer.macs, []
    for each in pruned:
        hidden, width = each.hidden, len(each.kept)
        if layer.name in hidden.modules:
            weights, macs = weights // hidden.channels * width, macs // hidden.channels * width
            side = (
                "inputs"
                if layer.name in hidden.consumers
                else "outputs"
                if layer.name in hidden.producers
                else "channels"
            )
            said.append(f"{width} of {hidden.channels} {side}")
    return LayerPlan(
        name=layer.name,
        kind=layer.spec.kind,
        kernel=layer.spec.kernel_shape,
        groups=layer.spec.groups,
        method=DENSE,
        ranks=(),
        parameters=(layer.spec.weights, weights),
        macs=(layer.macs, macs),
        bound=0.0,
        reason=f"budget: {', '.join(said)}" if said else "budget: best left as it is",
    )

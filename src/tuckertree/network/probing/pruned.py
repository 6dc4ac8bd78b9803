"""Whether channels are hidden: a pruned copy beside one in which nobody reads what has gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from tuckertree._base.errors import TuckertreeError
from tuckertree.measure import ExampleInputs, copy_model
from tuckertree.network.channels import prune, silence
from tuckertree.network.probing.comparison import difference
from tuckertree.network.probing.recording import Record, perturbations, record
from tuckertree.planning.channels import HiddenChannels, Pruning


def check_hidden(
    model: nn.Module, hidden: Sequence[HiddenChannels], example_inputs: ExampleInputs
) -> list[HiddenChannels]:
    """Those of which some can go without another change: the model runs without half of them, chosen by chance.

    A copy that has been pruned must give what one of full size gives whose consumers have zeros for these channels, on
    the example input and on a perturbed one. It takes four forward passes; where they differ, the channels to blame
    are found by bisection.
    """
    inputs = [example_inputs, next(perturbations(example_inputs))]
    generator = torch.Generator().manual_seed(0)
    prunings = [Pruning(each, _half(each.channels, generator)) for each in hidden]
    return [each.hidden for each in _exact(model, prunings, inputs)]


def _half(channels: int, generator: torch.Generator) -> tuple[int, ...]:
    order = torch.randperm(channels, generator=generator)
    return tuple(sorted(order[: max(channels // 2, 1)].tolist()))


def _exact(model: nn.Module, some: Sequence[Pruning], inputs: Sequence[ExampleInputs]) -> list[Pruning]:
    if not some or _agree(model, some, inputs):
        return list(some)
    if len(some) == 1:
        return []
    middle = len(some) // 2
    return [*_exact(model, some[:middle], inputs), *_exact(model, some[middle:], inputs)]


def _agree(model: nn.Module, some: Sequence[Pruning], inputs: Sequence[ExampleInputs]) -> bool:
    try:
        theirs = _answers(prune(model, some), inputs)
        silenced = copy_model(model)
        silence(silenced, some)
        return difference(_answers(silenced, inputs), theirs) is None
    except TuckertreeError:  # most often at once: sizes do not fit
        return False


def _answers(model: nn.Module, inputs: Sequence[ExampleInputs]) -> list[Record]:
    """What a model returns, whatever its modules do: those of the pruned one give fewer channels."""
    return [replace(each, calls=()) for each in record(model, inputs, training=False)]

"""Finding hidden channels by what the network does: numbers are marked where layers give them, and looked for where others read.

NaN is the mark: whatever treats each channel by itself passes it on in its channel, and whatever mixes channels spreads
it over all. Each layer answers with a constant, marked in some channels of its own choice; where another reads
exactly these, nothing between the two has mixed them. That nothing else depends on them is tried afterwards
(:func:`~tuckertree.network.probing.check_hidden`), on the pruned model itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError
from tuckertree.core.layers import DENSE_TYPES
from tuckertree.core.layers.product import is_transformed
from tuckertree.measure import ExampleInputs, run, watch_input
from tuckertree.measure.frozen import may_change
from tuckertree.network.channels import BETWEEN, counter, counters
from tuckertree.planning import Inventory, Options
from tuckertree.planning.channels import HiddenChannels
from tuckertree.planning.inventory import count_uses
from tuckertree.planning.plan import EXCLUDED, NOT_INCLUDED

_ROUNDS = 3
_MOST_PRODUCERS = 2
"""A gate and what it is multiplied with. Where more layers give the same channels these are a stream that many blocks
add to and read, and no part of one block."""
_FEWEST = 8
_ANSWER = 0.5
Marks = Mapping[str, Tensor]


def find_hidden(
    model: nn.Module, inventory: Inventory, example_inputs: ExampleInputs
) -> list[HiddenChannels]:
    """Hidden channels of a model, in the order of the forward pass.

    Parameters
    ----------
    model
        It runs a few times in evaluation mode; the caller restores its state.
    inventory
        Its layers.

    Returns
    -------
    list of HiddenChannels
        None where the model does not run on marked numbers.
    """
    modules = dict(model.named_modules())
    layers = {
        layer.name: modules[layer.name]
        for layer in inventory.layers
        if len(layer.calls) == 1 and layer.spec.groups == 1 and layer.name in modules
    }
    counts = {name: getattr(module, counter(module, outputs=True)) for name, module in layers.items()}
    between = {name: m for name, m in modules.items() if isinstance(m, BETWEEN) and name not in layers}
    readers = {**layers, **between}
    generator = torch.Generator().manual_seed(0)
    own, seen = [], []
    try:
        for _ in range(_ROUNDS):
            own.append({n: torch.rand(count, generator=generator) < 0.5 for n, count in counts.items()})
            seen.append(_seen(model, readers, own[-1], example_inputs))
    except TuckertreeError:  # values that are no numbers lead it elsewhere
        return []
    sources = {
        name: found
        for name, module in readers.items()
        if (found := _sources(name, own, seen)) and _fits(module, counts[found[0]])
    }
    uses = count_uses(model.modules())
    return [
        replace(each, beside=_beside(model, each))
        for each in _components(layers, sources, counts)
        if all(
            uses[id(p)] == 1
            for name in each.modules
            for p in model.get_submodule(name).parameters(recurse=False)
        )
    ]


def _beside(model: nn.Module, hidden: HiddenChannels) -> int:
    """Parameters of each channel that are in no layer's weight."""
    found = 0
    for name in (*hidden.producers, *hidden.between):
        own = dict(model.get_submodule(name).named_parameters(recurse=False))
        if isinstance(model.get_submodule(name), DENSE_TYPES):
            own.pop("weight", None)
        found += sum(parameter.numel() // hidden.channels for parameter in own.values())
    return found


def may_go(
    model: nn.Module, hidden: Sequence[HiddenChannels], inventory: Inventory, options: Options
) -> list[HiddenChannels]:
    """Those of which no layer is left out, and no parameter frozen where others are not."""
    is_free = may_change(model)
    left_out = {
        layer.name for layer in inventory.layers if options.method(layer)[1] in (EXCLUDED, NOT_INCLUDED)
    }
    return [
        each
        for each in hidden
        if not left_out & {*each.modules}
        and all(is_free(p) for name in each.modules for p in model.get_submodule(name).parameters())
    ]


def _axis(module: nn.Module) -> int:
    """Where its inputs and outputs have their channels."""
    return -1 if isinstance(module, nn.Linear) else 1


def _seen(
    model: nn.Module,
    readers: Mapping[str, nn.Module],
    marks: Marks,
    inputs: ExampleInputs,
) -> dict[str, Tensor | None]:
    """The channels in which each module sees marks, at its one call; None if it is called again."""
    found: dict[str, Tensor | None] = {}

    def look(name: str, module: nn.Module) -> Callable[[Any], None]:
        def see(x: Any) -> None:
            if name in found or not isinstance(x, Tensor) or x.ndim < 2 or is_transformed():
                found[name] = None
                return
            found[name] = x.isnan().movedim(_axis(module), 0).flatten(1).any(1).cpu()

        return see

    def answer(name: str) -> Callable[..., object]:
        def hook(module: nn.Module, args: object, output: object) -> object:  # noqa: ARG001
            if (
                not isinstance(output, Tensor)
                or output.ndim < 2
                or not output.is_floating_point()
                or is_transformed()
            ):
                return output
            marked = marks[name].nonzero().flatten().to(output.device)
            return torch.full_like(output, _ANSWER).index_fill_(
                _axis(module) % output.ndim, marked, torch.nan
            )

        return hook

    with ExitStack() as ending:
        for name, module in readers.items():
            ending.callback(watch_input(module, look(name, module)).remove)
            if name in marks:
                ending.callback(module.register_forward_hook(answer(name)).remove)
        run(model, inputs)
    return found


def _sources(name: str, own: Sequence[Marks], seen: Sequence[Mapping[str, Tensor | None]]) -> tuple[str, ...]:
    """Layers whose marks a module sees, each in its channel and nothing beside; none where they are mixed."""
    rounds = [marks for each in seen if (marks := each.get(name)) is not None]
    if len(rounds) < len(seen):
        return ()
    read = torch.stack(rounds)
    given = {source: torch.stack([marks[source] for marks in own]) for source in own[0]}
    given = {
        s: marks for s, marks in given.items() if marks.shape == read.shape and not (marks & ~read).any()
    }
    return tuple(given) if given and torch.stack([*given.values()]).any(0).equal(read) else ()


def _fits(module: nn.Module, channels: int) -> bool:
    """Whether a module reads so many channels, each by itself if it stands between layers."""
    if isinstance(module, DENSE_TYPES) and getattr(module, "groups", 1) == 1:
        return getattr(module, counter(module, outputs=False)) == channels
    return all(getattr(module, own) == channels for own in counters(module))


def _components(
    layers: Mapping[str, nn.Module], sources: Mapping[str, tuple[str, ...]], counts: Mapping[str, int]
) -> Iterator[HiddenChannels]:
    """Producers that a reader has in common go together, with all that read them."""
    left = {source for found in sources.values() for source in found}
    for first in layers:
        if first not in left:
            continue
        producers = {first}
        while more := {s for found in sources.values() if producers & {*found} for s in found} - producers:
            producers |= more
        left -= producers
        readers = [name for name, found in sources.items() if producers & {*found}]
        consumers = [name for name in readers if name in layers]
        if (
            consumers
            and len(producers) <= _MOST_PRODUCERS
            and counts[first] >= _FEWEST
            and not producers & {*consumers}
        ):
            yield HiddenChannels(
                counts[first],
                tuple(name for name in layers if name in producers),
                tuple(name for name in readers if name not in layers),
                tuple(consumers),
            )

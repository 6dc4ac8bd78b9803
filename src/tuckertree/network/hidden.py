"""Finding hidden channels by what the network does: numbers are marked where layers give them, and looked for where others read.

NaN is the mark: whatever treats each channel by itself passes it on in its channel, and whatever mixes channels spreads
it over all. Each layer answers with a constant, marked in some channels of its own choice; where another reads
exactly these, all in a row, nothing between the two has mixed them: they are all that it reads, or a part of what has been
concatenated. That nothing else depends on them is tried afterwards
(:func:`~tuckertree.network.probing.check_hidden`), on the pruned model itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError
from tuckertree.core.layers import DENSE_TYPES
from tuckertree.core.layers.product import is_transformed
from tuckertree.measure import ExampleInputs, run, watch_input
from tuckertree.measure.frozen import may_change
from tuckertree.network.channels import BETWEEN, counter, counters
from tuckertree.planning import Inventory, Options
from tuckertree.planning.channels import HiddenChannels, Part
from tuckertree.planning.inventory import count_uses
from tuckertree.planning.plan import EXCLUDED, NOT_INCLUDED

_ROUNDS = 6
_MARKED = 0.2
"""Share of the channels that are marked in each round: where many layers' outputs are added up, some stay without."""
_MOST_PRODUCERS = 2
"""A gate and what it is multiplied with. Where more layers give the same channels these are a stream that many blocks
add to and read, and no part of one block."""
_FEWEST = 8
_ANSWER = 0.5
Marks = Mapping[str, Tensor]
IntArray = npt.NDArray[np.int64]


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
            own.append({n: torch.rand(count, generator=generator) < _MARKED for n, count in counts.items()})
            seen.append(_seen(model, readers, own[-1], example_inputs))
    except TuckertreeError:  # values that are no numbers lead it elsewhere
        return []
    given = {name: _codes([marks[name] for marks in own]) for name in counts}
    read = {name: _codes(marks) for name in readers if (marks := _each(name, seen))}
    read = {name: codes for name, codes in read.items() if _fits(readers[name], len(codes))}
    windows = [window for name, codes in read.items() for window in _windows(name, codes, given)]
    uses = count_uses(model.modules())
    return [
        replace(each, beside=_beside(model, each))
        for each in _components(layers, windows, counts, {name: len(codes) for name, codes in read.items()})
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
        found += len(own) * hidden.times(name)
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


def _each(name: str, seen: Sequence[Mapping[str, Tensor | None]]) -> list[Tensor]:
    """What a module saw in each round; nothing where that was not the same kind of thing each time."""
    found = [marks for each in seen if (marks := each.get(name)) is not None]
    return found if len(found) == len(seen) and len({*map(len, found)}) == 1 else []


def _codes(rounds: Sequence[Tensor]) -> IntArray:
    """For each channel the rounds in which it is marked, as bits."""
    bits = torch.stack(list(rounds)).long() << torch.arange(len(rounds))[:, None]
    codes: IntArray = bits.sum(0).numpy()
    return codes


class _Window(NamedTuple):
    """Channels in a row that a module reads, and the layers that give them."""

    reader: str
    start: int
    producers: frozenset[str]


def _windows(name: str, read: IntArray, given: Mapping[str, IntArray]) -> Iterator[_Window]:
    """Where a module sees the marks of layers, each in its channel and nothing beside; not where they are mixed."""
    fitting: dict[tuple[int, int], list[str]] = {}
    for source, codes in given.items():
        for start in _starts(read, codes):
            fitting.setdefault((start, len(codes)), []).append(source)
    for (start, count), sources in sorted(fitting.items()):
        window = read[start : start + count]
        needed = [
            s for s in sources if (given[s] & ~_union((given[o] for o in sources if o != s), window)).any()
        ]
        found = next(
            (
                each
                for each in (needed, sources)
                if (_union((given[s] for s in each), window) == window).all()
            ),
            None,
        )
        if found and not (window == 2**_ROUNDS - 1).all():
            yield _Window(name, start, frozenset(found))


def _starts(read: IntArray, codes: IntArray) -> list[int]:
    """Places in what is read from which on all marks of a layer are there, perhaps with others."""
    starts = np.arange(max(len(read) - len(codes) + 1, 0))
    for channel, code in enumerate(codes):
        if not len(starts):
            break
        starts = starts[read[starts + channel] & code == code]
    found: list[int] = starts.tolist()
    return found


def _union(codes: Iterable[IntArray], like: IntArray) -> IntArray:
    return reduce(np.bitwise_or, codes, np.zeros_like(like))


def _fits(module: nn.Module, channels: int) -> bool:
    """Whether a module reads so many channels, each by itself if it stands between layers."""
    if isinstance(module, DENSE_TYPES) and getattr(module, "groups", 1) == 1:
        return getattr(module, counter(module, outputs=False)) == channels
    return all(getattr(module, own) == channels for own in counters(module))


def _components(
    layers: Mapping[str, nn.Module],
    windows: Sequence[_Window],
    counts: Mapping[str, int],
    sizes: Mapping[str, int],
) -> Iterator[HiddenChannels]:
    """Producers that a reader has in common in one place go together, with all that read them.

    ``counts`` has how many channels layers give, ``sizes`` how many modules read.
    """
    left = {source for window in windows for source in window.producers}
    for first in layers:
        if first not in left:
            continue
        producers = {first}
        while (
            more := {s for window in windows if producers & window.producers for s in window.producers}
            - producers
        ):
            producers |= more
        left -= producers
        places: dict[str, tuple[int, ...]] = {}
        for window in windows:
            if producers & window.producers:
                places[window.reader] = (*places.get(window.reader, ()), window.start)
        consumers = [name for name in places if name in layers]
        if (
            consumers
            and len(producers) <= _MOST_PRODUCERS
            and counts[first] >= _FEWEST
            and not producers & {*consumers}
        ):
            yield HiddenChannels(
                counts[first],
                tuple(name for name in layers if name in producers),
                tuple(name for name in places if name not in layers),
                tuple(consumers),
                parts=tuple(
                    Part(name, starts) for name, starts in places.items() if sizes[name] > counts[first]
                ),
            )

"""Hidden channels: those between layers, which nothing else reads, so that some of them may go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tuckertree._base.errors import UsageError
from tuckertree.core.layers import METHODS

CHANNELS = "channels"
"""Name of the method that lets hidden channels go; all others are about one layer."""
DEFAULT_METHODS = (*METHODS, CHANNELS)


Side = Literal["outputs", "inputs", "channels"]
"""What hidden channels are to a module: what it gives, what it reads, or both, each by itself."""


@dataclass(frozen=True)
class Part:
    """Where a module that reads a concatenation has some channels.

    Attributes
    ----------
    module
        Its name.
    starts
        Numbers of the first of them among its inputs: one, or more where they are concatenated several times.

    Raises
    ------
    UsageError
        If these are none, or not numbers of inputs in rising order.
    """

    module: str
    starts: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.starts or self.starts[0] < 0 or sorted({*self.starts}) != list(self.starts):
            raise UsageError(f"starts: {self.module} has the channels in one place or more, in rising order")


@dataclass(frozen=True)
class HiddenChannels:
    """Channels that some layers give and others read, through modules that treat each channel by itself.

    Attributes
    ----------
    channels
        How many there are.
    producers
        Layers whose outputs they are: one, or more whose outputs are multiplied, as in squeeze-and-excitation.
    between
        Modules with numbers of their own for each channel: BatchNorms, depthwise convolutions, PReLUs.
    consumers
        Layers whose inputs they are.
    beside
        Parameters that each channel has beside the layers' weights: biases and norms.
    parts
        Of those consumers and modules between that read other channels, too, where they have these; of all others they
        are the whole.

    Raises
    ------
    UsageError
        If there is no producer or no consumer, a module is named twice, or there are no channels.
    """

    channels: int
    producers: tuple[str, ...]
    between: tuple[str, ...]
    consumers: tuple[str, ...]
    beside: int = 0
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        if not self.producers or not self.consumers or len(set(self.modules)) < len(self.modules):
            raise UsageError(f"hidden channels need producers and consumers, each once, not {self.modules}")
        if self.channels < 1:
            raise UsageError(f"there are no {self.channels} channels")
        read = Counter((*self.between, *self.consumers))
        if any(count > read[name] for name, count in Counter(part.module for part in self.parts).items()):
            raise UsageError("parts: of modules that read the channels, each once")

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of all that is concerned."""
        return (*self.producers, *self.between, *self.consumers)

    def side(self, name: str) -> Side | None:
        """What the channels are to a module; None if it has nothing to do with them."""
        if name in self.producers:
            return "outputs"
        if name in self.consumers:
            return "inputs"
        return "channels" if name in self.between else None

    def starts(self, name: str) -> tuple[int, ...] | None:
        """Where a module has them; None if they are all that it gives or reads."""
        return next((part.starts for part in self.parts if part.module == name), None)

    def times(self, name: str) -> int:
        """How often a module has each of them: more than once where they are concatenated several times."""
        return len(self.starts(name) or (0,))

    def places(self, name: str, channels: Iterable[int]) -> tuple[int, ...]:
        """Numbers that some of the channels have among all that a module gives or reads."""
        channels = tuple(channels)
        return tuple(start + channel for start in self.starts(name) or (0,) for channel in channels)


@dataclass(frozen=True)
class Pruning:
    """Which of some hidden channels stay.

    Attributes
    ----------
    hidden
        The channels.
    kept
        Numbers of those that stay, rising.

    Raises
    ------
    UsageError
        If these are none, or not numbers of channels in rising order.
    """

    hidden: HiddenChannels
    kept: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.kept or sorted({*self.kept}) != list(self.kept):
            raise UsageError("kept: the channels that stay are one or more, in rising order")
        if self.kept[0] < 0 or self.kept[-1] >= self.hidden.channels:
            raise UsageError(f"kept: there are {self.hidden.channels} channels, the first is 0")

    def gone(self, name: str) -> tuple[int, ...]:
        """Numbers of the channels that go among all that a module of theirs gives or reads."""
        kept = {*self.kept}
        return self.hidden.places(name, (c for c in range(self.hidden.channels) if c not in kept))


def left_of(pruned: Iterable[Pruning], name: str, side: Side, count: int) -> tuple[int, ...]:
    """Numbers that stay of the ``count`` that a module gives or reads, rising."""
    gone = {c for each in pruned if each.hidden.side(name) == side for c in each.gone(name)}
    return tuple(c for c in range(count) if c not in gone)

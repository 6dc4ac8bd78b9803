"""Hidden channels: those between layers, which nothing else reads, so that some of them may go."""

from __future__ import annotations

from dataclasses import dataclass

from tuckertree._base.errors import UsageError
from tuckertree.core.layers import METHODS

CHANNELS = "channels"
"""Name of the method that lets hidden channels go; all others are about one layer."""
DEFAULT_METHODS = (*METHODS, CHANNELS)


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

    def __post_init__(self) -> None:
        if not self.producers or not self.consumers or len(set(self.modules)) < len(self.modules):
            raise UsageError(f"hidden channels need producers and consumers, each once, not {self.modules}")
        if self.channels < 1:
            raise UsageError(f"there are no {self.channels} channels")

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of all that is concerned."""
        return (*self.producers, *self.between, *self.consumers)


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

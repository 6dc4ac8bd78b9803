"""An architecture by name: how to build it and what it takes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from tuckertree._base.errors import UsageError
from tuckertree.tools.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class Architecture:
    """A network that can be built from its name alone.

    Attributes
    ----------
    name
        The name, with its options, such as ``torchvision:resnet18?num_classes=10``.
    build
        Makes the network, in training mode, with random weights.
    preprocessing
        How an image becomes an input.
    frames
        Length of the clip that a video network takes; None for a network that takes single images.
    """

    name: str
    build: Callable[[], nn.Module]
    preprocessing: Preprocessing
    frames: int | None = None

    def example_inputs(self) -> Tensor:
        """Return one input of the right shape: standard normal numbers, the same each time.

        It is float32 [1, 3, H, W], or [1, 3, frames, H, W] for a video network.
        """
        clip = () if self.frames is None else (self.frames,)
        generator = torch.Generator().manual_seed(0)
        return torch.randn(1, 3, *clip, *self.preprocessing.size, generator=generator)


def unknown_name(scheme: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for a name that a scheme does not have, with those that are similar, or all if few."""
    names = sorted(known)
    near = get_close_matches(name, names, n=4, cutoff=0.5)
    if len(names) <= 10:
        hint = f"known are {', '.join(names)}"
    elif near:
        hint = f"similar are {', '.join(near)}"
    else:
        hint = f"none of the {len(names)} known names is similar"
    return UsageError(f"unknown model '{scheme}:{name}'; {hint}")

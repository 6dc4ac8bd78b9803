"""What every kind of image source offers: undecoded records by number, and labels."""

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from torch import Tensor


class Records(Protocol):
    """The images of one split, as stored."""

    @property
    def source(self) -> str:
        """What this is, for messages: ``demo`` or a path, and the split."""
        ...

    @property
    def labels(self) -> Tensor | None:
        """int64 [N], or None if the images have no labels."""
        ...

    @property
    def classes(self) -> list[str] | None:
        """The names of the classes in the order of the labels, or None if they are not known."""
        ...

    @property
    def mixed(self) -> bool:
        """Whether the first n images are a fair sample; not so where they are sorted by class."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes | Tensor:
        """Return image ``index``: the bytes of an image file, or its pixels, uint8 [3, H, W], RGB."""
        ...

    def where(self, index: int) -> str:
        """Say where image ``index`` is, for messages: a file, or a file and a row."""
        ...


Splits: TypeAlias = Mapping[str | None, Callable[[], Records]]
"""The splits of a source, each opened only when it is chosen. The key None: a source without splits."""

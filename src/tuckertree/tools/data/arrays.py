"""Records held as one array of pixels."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ArrayRecords:
    """Images already decoded: uint8 ``pixels`` [N, 3, H, W] and int64 ``labels`` [N]."""

    source: str
    pixels: Tensor
    labels: Tensor
    classes: list[str] | None
    mixed: bool = True

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int) -> Tensor:
        """Return the pixels of image ``index``, uint8 [3, H, W]."""
        return self.pixels[index]

    def where(self, index: int) -> str:
        """Say which image this is."""
        return f"{self.source}, image {index}"

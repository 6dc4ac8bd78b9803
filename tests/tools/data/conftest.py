"""Small image sources, made for each test."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tuckertree.tools.data import Preprocessing


@pytest.fixture
def small() -> Preprocessing:
    """For 8x8 images, without any scaling: what comes out are the bytes."""
    return Preprocessing((8, 8), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), scale=1.0)


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """The PNG of an 8x8 image whose pixels all have one value."""

    def encode(value: int, size: tuple[int, int] = (8, 8)) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(np.full((*size, 3), value, dtype=np.uint8)).save(stream, "PNG")
        return stream.getvalue()

    return encode


@pytest.fixture(scope="session")
def write_images(encode) -> Callable[..., None]:
    """Write one image file for each value into a folder."""

    def write(folder: Path, *values: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for value in values:
            (folder / f"{value:03}.png").write_bytes(encode(value))

    return write

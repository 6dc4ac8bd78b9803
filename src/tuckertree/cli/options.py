"""Options that commands share, and what their texts mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuckertree.errors import UsageError

if TYPE_CHECKING:
    from tuckertree.data import ImageSet
    from tuckertree.opening import OpenModel

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name, saved folder or package.module:factory.")]
Weights = Annotated[Path | None, typer.Option(help="Weights of the network, a .safetensors file.")]
InputSize = Annotated[str | None, typer.Option(help="Size of the input without the batch: 3,224,224.")]
Calibration = Annotated[
    str | None, typer.Option(help="Unlabelled images to fit to: folder, .parquet file or demo.")
]
CalibrationImages = Annotated[int, typer.Option(help="Look at this many calibration images.", min=1)]
BuiltBy = Annotated[
    str | None, typer.Option("--model", help="Builds a saved folder that names no architecture.")
]
Device = Annotated[str, typer.Option(help="Torch device: cpu, cuda, cuda:1, mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Overwrite = Annotated[bool, typer.Option(help="Replace the output if it is a folder saved by tuckertree.")]


def calibration_images_of(source: str | None, opened: OpenModel, count: int) -> ImageSet | None:
    """Open the calibration images that an option names, prepared for a model."""
    if source is None:
        return None
    from tuckertree.data import open_calibration

    return open_calibration(source, opened.preprocessing, limit=count)


def parse_size(text: str | None) -> tuple[int, ...] | None:
    """Read the value of ``--input-size``."""
    if text is None:
        return None
    try:
        size = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        size = ()
    if not size or min(size) < 1:
        raise UsageError(f"--input-size must be positive integers such as 3,224,224, not {text!r}")
    return size

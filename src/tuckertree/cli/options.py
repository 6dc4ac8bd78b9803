"""Options that commands share, and what their texts mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuckertree.errors import UsageError
from tuckertree.names import TrustedName

if TYPE_CHECKING:
    from tuckertree.data import ImageSet
    from tuckertree.onnx_models import OnnxImages
    from tuckertree.opening import OpenModel

# A name that may lead to an import is made here, of what the user typed, and nowhere else.
Model = Annotated[
    TrustedName,
    typer.Argument(
        parser=TrustedName,
        metavar="MODEL",
        help="Name, saved folder, package.module:factory or .onnx file.",
    ),
]
Models = Annotated[
    list[TrustedName],
    typer.Argument(parser=TrustedName, metavar="MODEL...", help="Names, saved folders or .onnx files."),
]
Teacher = Annotated[
    TrustedName | None,
    typer.Option(
        parser=TrustedName,
        metavar="MODEL",
        help="The original network, if it is not the architecture of DIR.",
    ),
]
Weights = Annotated[Path | None, typer.Option(help="Weights of the network, a .safetensors or .pt file.")]
InputSize = Annotated[str | None, typer.Option(help="Size of the input without the batch: 3,224,224.")]
Calibration = Annotated[
    str | None, typer.Option(help="Unlabelled images to fit to: folder, .parquet file or demo.")
]
CalibrationImages = Annotated[int, typer.Option(help="Look at this many calibration images.", min=1)]
BuiltBy = Annotated[
    TrustedName | None,
    typer.Option(
        "--model",
        parser=TrustedName,
        metavar="MODEL",
        help="Builds a saved folder that names no architecture.",
    ),
]
Mean = Annotated[str | None, typer.Option(help="ONNX: mean of the input's channels: 0.485,0.456,0.406.")]
Std = Annotated[str | None, typer.Option(help="ONNX: their standard deviation.")]
Scale = Annotated[float | None, typer.Option(help="ONNX: factor on the bytes 0..255 before that.")]
Channels = Annotated[str | None, typer.Option(help="ONNX: order of the colour channels, rgb or bgr.")]
Device = Annotated[str, typer.Option(help="Torch device: cpu, cuda, cuda:1.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Overwrite = Annotated[
    bool, typer.Option(help="Replace the output if it is a folder saved by tuckertree, or an ONNX file.")
]


def calibration_images_of(source: str | None, opened: OpenModel, count: int) -> ImageSet | None:
    """Open the calibration images that an option names, prepared for a model."""
    if source is None:
        return None
    from tuckertree.data import open_calibration

    return open_calibration(source, opened.preprocessing, limit=count)


def is_onnx(model: str) -> bool:
    """Whether MODEL is an ONNX file, which is compressed as it is."""
    return model.lower().endswith(".onnx")


def onnx_images_of(
    source: str | None,
    model: str,
    count: int,
    *,
    input_size: tuple[int, ...] | None,
    mean: str | None,
    std: str | None,
    scale: float | None,
    channels: str | None,
) -> OnnxImages | None:
    """Open the calibration images that options name, prepared for an ONNX model."""
    given = {"mean": mean, "std": std, "scale": scale, "channels": channels}
    if source is None:
        refuse_options("belongs to --calibration", **given)
        return None
    from tuckertree.data import Preprocessing
    from tuckertree.onnx_models import open_onnx_calibration

    chosen: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    for key in ("mean", "std"):
        if key in chosen:
            chosen[key] = _three(key, chosen[key])
    preprocessing = Preprocessing((1, 1), **chosen)
    return open_onnx_calibration(model, source, preprocessing, input_size=input_size, limit=count)


def refuse_options(reason: str, **options: object) -> None:
    """Refuse options that were given and have no meaning here."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"--{name.replace('_', '-')} {reason}")


def _three(name: str, text: str) -> tuple[float, float, float]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) == 1:
        values *= 3
    if len(values) != 3:
        raise UsageError(f"--{name} is one number or three such as 0.485,0.456,0.406, not {text!r}")
    return values[0], values[1], values[2]


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

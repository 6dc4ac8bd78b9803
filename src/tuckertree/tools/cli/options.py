"""Options that commands share, and what their texts mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree._base.names import TrustedName

if TYPE_CHECKING:
    from zipfile import ZipFile

    from tuckertree.compression import Network
    from tuckertree.network.onnx.inputs import Sizes
    from tuckertree.planning import Plan
    from tuckertree.tools.data import ImageSet
    from tuckertree.tools.onnx_images import OnnxImages
    from tuckertree.tools.opening import OpenModel

_LARGEST_VALUES = 2**31
"""Bytes of the arrays of one file, unpacked."""

# A name that may lead to an import is made here, of what the user typed, and nowhere else.
Model = Annotated[
    TrustedName,
    typer.Argument(
        parser=TrustedName,
        metavar="MODEL",
        help="Name, saved folder, hf-hub:owner/name, package.module:factory or .onnx file.",
    ),
]
Models = Annotated[
    list[TrustedName],
    typer.Argument(
        parser=TrustedName, metavar="MODEL...", help="Names, saved folders, hf-hub:owner/name or .onnx files."
    ),
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
TorchModel = Annotated[
    TrustedName,
    typer.Argument(
        parser=TrustedName,
        metavar="MODEL",
        help="Name, saved folder, hf-hub:owner/name or package.module:factory.",
    ),
]
InputSize = Annotated[
    list[str] | None,
    typer.Option(
        help="Size of the input without the batch: 3,224,224; images are resized to it. NAME:3,224,224 for an input by "
        "keyword, or for each of several of an ONNX model."
    ),
]
InputValues = Annotated[
    list[str] | None,
    typer.Option(
        help="ONNX: values of an input, NAME:0..999 for random ones, NAME:FILE.npy, or of several, FILE.npz."
    ),
]
Calibration = Annotated[
    str | None, typer.Option(help="Unlabelled images to fit to: folder, .parquet file or demo.")
]
CalibrationImages = Annotated[
    int | None, typer.Option(help="Look at this many calibration images. [256]", min=1)
]
DataImages = Annotated[
    int | None,
    typer.Option("--data-images", "--limit", help="Look at this many images of --data; all.", min=1),
]
BuiltBy = Annotated[
    TrustedName | None,
    typer.Option(
        "--model",
        parser=TrustedName,
        metavar="MODEL",
        help="Builds a saved folder that names no architecture.",
    ),
]
Mean = Annotated[str | None, typer.Option(help="Mean of the images' channels: 0.485,0.456,0.406.")]
Std = Annotated[str | None, typer.Option(help="Their standard deviation.")]
Scale = Annotated[float | None, typer.Option(help="Factor on the bytes 0..255 before that.")]
Channels = Annotated[str | None, typer.Option(help="Order of the colour channels, rgb or bgr.")]
Device = Annotated[str, typer.Option(help="Torch device: cpu, cuda, cuda:1.")]
NoFused = Annotated[
    bool,
    typer.Option(
        "--no-fused", help="Run a folder made for --latency in its factors, not as it was measured."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Overwrite = Annotated[
    bool, typer.Option(help="Replace the output if it is a folder saved by tuckertree, or an ONNX file.")
]


def calibration_images_of(source: str | None, opened: OpenModel, count: int) -> ImageSet | None:
    """Open the calibration images that an option names, prepared for a model."""
    if source is None:
        return None
    from tuckertree.tools.data import open_calibration

    if isinstance(opened.example_inputs, dict):
        raise UsageError(
            "images cannot be given to inputs by keyword; calibrate from Python, with a mapping of them"
        )
    return open_calibration(source, opened.preprocessing, limit=count)


def prepared(opened: OpenModel, **given: Any) -> OpenModel:
    """An open model with images prepared as ``--mean``, ``--std``, ``--scale`` and ``--channels`` say, where given."""
    return replace(opened, preprocessing=replace(opened.preprocessing, **chosen_preprocessing(**given)))


def chosen_preprocessing(
    *, mean: str | None, std: str | None, scale: float | None, channels: str | None
) -> dict[str, Any]:
    """Fields of a preprocessing that options give."""
    triples = {name: _three(name, text) for name, text in (("mean", mean), ("std", std)) if text is not None}
    others = {"scale": scale, "channels": channels}
    return {**triples, **{name: value for name, value in others.items() if value is not None}}


def is_onnx(model: str | Path) -> bool:
    """Whether MODEL is an ONNX file, which is compressed as it is."""
    return str(model).lower().endswith(".onnx")


def open_network(
    model: TrustedName,
    *,
    weights: Path | None,
    architecture: TrustedName | None,
    device: str,
    input_size: Sequence[str] | None,
    input_values: Sequence[str] | None,
) -> tuple[Network, OpenModel | None]:
    """The network that MODEL names, and how it was opened; None of an ONNX file."""
    from tuckertree.compression.networks import OnnxNetwork, TorchNetwork
    from tuckertree.tools.opening import open_model

    size = parse_sizes(input_size)
    if is_onnx(model):
        refuse_torch_options(weights, architecture, device)
        return OnnxNetwork(model, input_size=size, input_values=parse_values(input_values)), None
    refuse_options("belongs to an ONNX model", input_values=input_values)
    opened = open_model(model, weights=weights, architecture=architecture, input_size=size, device=device)
    return TorchNetwork(opened.model, opened.example_inputs), opened


def images_of(
    source: str | None,
    model: str,
    opened: OpenModel | None,
    count: int,
    input_size: Sequence[str] | None,
    **images_as: Any,
) -> ImageSet | OnnxImages | None:
    """Open the calibration images that options name, for what :func:`open_network` gave."""
    if opened is None:
        return onnx_images_of(source, model, count, input_size=parse_sizes(input_size), **images_as)
    return calibration_images_of(source, prepared(opened, **images_as), count)


def onnx_images_of(
    source: str | None,
    model: str,
    count: int,
    *,
    input_size: Sizes,
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
    from tuckertree.tools.data import Preprocessing
    from tuckertree.tools.onnx_images import open_onnx_calibration

    preprocessing = Preprocessing(
        (1, 1), **chosen_preprocessing(mean=mean, std=std, scale=scale, channels=channels)
    )
    return open_onnx_calibration(model, source, preprocessing, input_size=input_size, limit=count)


def refuse_options(reason: str, **options: object) -> None:
    """Refuse options that were given and have no meaning here."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"--{name.replace('_', '-')} {reason}")


def refuse_torch_options(weights: Path | None, architecture: TrustedName | None, device: str) -> None:
    """Refuse, for an ONNX file, what only a torch network takes."""
    elsewhere = device if device != "cpu" else None
    refuse_options("is not supported for ONNX models", weights=weights, model=architecture, device=elsewhere)


def fused_lines(
    plans: Mapping[str, Plan | None], *, no_fused: bool, int8: Mapping[str, Path | None] | None = None
) -> list[str]:
    """What is said of the folders among some models, given their plans, that are run as they were measured.

    ``int8`` are their files in 8 bits, by the same names.

    Raises
    ------
    UsageError
        If they are not to be, and there are none.
    """
    from tuckertree.latency import is_measured

    measured = {name: plan for name, plan in plans.items() if plan is not None and is_measured(plan)}
    if no_fused and not measured:
        raise UsageError("--no-fused belongs to a folder that was compressed with --latency")
    files = int8 or {}
    return [] if no_fused else [_fused_line(name, plan, files.get(name)) for name, plan in measured.items()]


def _fused_line(name: str, plan: Plan, int8: Path | None) -> str:
    from tuckertree.latency import is_int8

    count = sum(layer.form is not None for layer in plan.compressed)
    on = f" on {plan.latency.runtime}" if plan.latency else ""
    if int8 is not None:
        fp32 = f", {len(stay)} of {len(plan.layers)} layers in fp32" if (stay := plan.in_fp32) else ""
        return f"int8        {name}: {int8.name}, as measured{on}{fp32} (--no-fused runs the factors in fp32)"
    if is_int8(plan):
        makes = "`tuckertree export --quantize int8` makes another, and chooses its layers in fp32 anew"
        return f"fused       {name}: in fp32, without the file in 8 bits that was measured; {makes}"
    return f"fused       {name}: {count} layers as measured{on} (--no-fused runs the factors)"


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


def parse_size(texts: Sequence[str] | None) -> tuple[int, ...] | None:
    """Read the value of ``--input-size`` for a network of one input."""
    sizes = parse_sizes(texts)
    if isinstance(sizes, dict):
        raise UsageError("--input-size with the name of an input belongs to inspect and compress")
    return sizes


def parse_sizes(texts: Sequence[str] | None) -> tuple[int, ...] | dict[str, tuple[int, ...]] | None:
    """Read the values of ``--input-size``: one size, or sizes by the names of inputs."""
    sizes: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        name, _, size = text.rpartition(":")
        if name in sizes:
            raise UsageError(f"--input-size is given twice{f' for {name}' if name else ''}")
        try:
            sizes[name] = tuple(int(part) for part in size.replace("x", ",").split(","))
        except ValueError:
            sizes[name] = ()
        if not sizes[name] or min(sizes[name]) < 1:
            raise UsageError(f"--input-size must be positive integers such as 3,224,224, not {text!r}")
    if "" in sizes and len(sizes) > 1:
        raise UsageError("--input-size: give the name of the input with each of several sizes")
    return sizes.get("", sizes) or None


def parse_values(texts: Sequence[str] | None) -> dict[str, Any] | None:
    """Read the values of ``--input-values``: arrays, or the least and largest of random numbers, by name."""
    values: dict[str, object] = {}
    for text in texts or ():
        found = _values(text)
        for name in found:
            if name in values:
                raise UsageError(f"--input-values is given twice{f' for {name}' if name else ''}")
        values |= found
    return values or None


def _values(text: str) -> dict[str, object]:
    if text.lower().endswith(".npz"):
        return _loaded(text)
    name, _, what = text.rpartition(":")
    if what.lower().endswith(".npy"):
        return {name: next(iter(_loaded(what).values()))}
    low, dots, high = what.partition("..")
    try:
        return {name: (float(low), float(high if dots else low))}
    except ValueError as error:
        raise UsageError(f"--input-values is NAME:0..999, NAME:FILE.npy or FILE.npz, not {text!r}") from error


def _loaded(path: str) -> dict[str, object]:
    """Arrays of a file of numpy, one alone without a name; nothing in it is executed."""
    import numpy as np

    from tuckertree._base.reading import check_regular

    check_regular(Path(path))
    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.lib.npyio.NpzFile):
            return {"": found}
        with found:
            archive: ZipFile | None = found.zip
            if archive and sum(entry.file_size for entry in archive.infolist()) > _LARGEST_VALUES:
                raise MemoryError("larger than any inputs")
            return dict(found)
    except OSError as error:
        raise TuckertreeError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # damaged files make numpy complain in many ways
        raise TuckertreeError(f"{path} holds no arrays of numbers: {error}") from error

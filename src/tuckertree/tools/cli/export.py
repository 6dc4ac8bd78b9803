"""`tuckertree export`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tuckertree._base.errors import UsageError
from tuckertree.tools.cli.app import command, print_json, print_table, stderr, stdout
from tuckertree.tools.cli.options import (
    AsJson,
    BuiltBy,
    Calibration,
    CalibrationImages,
    Channels,
    DataImages,
    InputSize,
    Mean,
    NoFused,
    Scale,
    Std,
    TorchModel,
    Weights,
    calibration_images_of,
    fused_lines,
    parse_size,
    prepared,
    refuse_options,
)
from tuckertree.tools.cli.untrained import warn_if_untrained

if TYPE_CHECKING:
    from tuckertree.io.export import Exported
    from tuckertree.measure import Accuracy

_POINTS, _DISTANCE = 1.0, 0.2
"""Loss of top-1, and difference of outputs in 8 bits, from which on a file comes with a warning."""


@command
def export(
    model: TorchModel,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; by default beside the folder, named as it."),
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Format: onnx, pt2 or openvino; by default by the file's ending.")
    ] = None,
    dynamic: Annotated[
        str, typer.Option(help="Sizes of the input that stay free: none, batch, or size (and batch).")
    ] = "batch",
    contract: Annotated[
        str | None,
        typer.Option(
            help="First fuse each layer as is fastest on: onnxruntime, openvino, torch, torch-compile."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads that --contract measures with.", min=1)] = None,
    batch: Annotated[int | None, typer.Option(help="Batch that --contract measures with. [1]", min=1)] = None,
    quantize: Annotated[
        str | None, typer.Option(help="int8: quantize an ONNX file by the --calibration images.")
    ] = None,
    calibration: Calibration = None,
    calibration_images: CalibrationImages = None,
    data: Annotated[
        str | None, typer.Option(help="Labelled images to measure the accuracy of model and ONNX file on.")
    ] = None,
    data_images: DataImages = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Largest difference of the outputs, relative to their largest; with --quantize relative distance that 8 bits "
            "may cost: layers that lose most stay in fp32. [0.1]"
        ),
    ] = None,
    weights: Weights = None,
    architecture: BuiltBy = None,
    input_size: InputSize = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    channels: Channels = None,
    no_fused: NoFused = False,
    overwrite: Annotated[bool, typer.Option(help="Replace the file if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a model as ONNX, torch.export or OpenVINO, and compare the file with the model."""
    from tuckertree._base.progress import progress_bar
    from tuckertree.io import is_on_hub
    from tuckertree.io.export import FileNetwork, check_target, export_int8
    from tuckertree.io.export import export as export_model
    from tuckertree.io.hub import short_name
    from tuckertree.io.report import contraction_table
    from tuckertree.measure import evaluate
    from tuckertree.runtimes import ContractedLayer, Dynamic, formats, get_runtime
    from tuckertree.runtimes import contract as contract_model
    from tuckertree.runtimes.quantization import doubts_of_cpu
    from tuckertree.tools.data import batches as batches_of
    from tuckertree.tools.data import open_images
    from tuckertree.tools.opening import open_model

    if output is None:
        known = formats()
        ending = known[to or "onnx"].suffix if (to or "onnx") in known else ""
        name = short_name(model) if is_on_hub(model) else model.rstrip("/").replace(":", "_")
        output = Path(name + ending)
    to = check_target(output, to, overwrite=overwrite)
    if quantize not in (None, "int8"):
        raise UsageError(f"networks can be quantized to int8, not {quantize!r}")
    if (quantize is None) != (calibration is None):
        raise UsageError("--quantize int8 and the images it needs, --calibration, belong together")
    if (quantize or data) and to != "onnx":
        raise UsageError("--quantize and --data are for ONNX files")
    if contract is None:
        refuse_options("belongs to --contract", threads=threads, batch=batch)
    elif no_fused:
        raise UsageError("--contract measures the factors of a folder; leave --no-fused out")
    if calibration is None:
        refuse_options("belongs to --calibration", calibration_images=calibration_images)
    if data is None:
        refuse_options("belongs to --data", data_images=data_images)
    if tolerance is not None and not tolerance >= 0:
        raise UsageError(f"--tolerance is 0 or more, not {tolerance:g}")
    runtime = None if contract is None else get_runtime(contract, threads=threads)
    images_as: dict[str, object] = {"mean": mean, "std": std, "scale": scale, "channels": channels}
    if calibration is None and data is None:
        refuse_options("belongs to --calibration and --data", **images_as)
    opened = open_model(
        model,
        weights=weights,
        architecture=architecture,
        input_size=parse_size(input_size),
        fused=contract is None and not no_fused,
    )
    warn_if_untrained(model, weights)
    int8 = None if quantize else opened.int8
    fused = []
    if contract is None:
        fused = fused_lines({model: opened.plan}, no_fused=no_fused, int8={model: int8})
    if int8 is not None and (to != "onnx" or dynamic != "batch"):
        raise UsageError(
            f"{model} is an ONNX file in 8 bits with a free batch, and exported as that; --no-fused exports the factors"
        )
    opened = prepared(opened, **images_as)
    network, layers = opened.model, tuple[ContractedLayer, ...]()
    if runtime is not None:
        with progress_bar() as tick:
            inputs = opened.example.expand(batch or 1, *opened.example.shape[1:]).contiguous()
            contraction = contract_model(network, runtime, inputs, tick=tick)
        network, layers = contraction.model, contraction.layers
    images = calibration_images_of(calibration, opened, calibration_images or 256)
    batches = None if images is None else (x for x, _ in batches_of(images, 32))
    labelled = None if data is None else open_images(data, opened.preprocessing, limit=data_images)
    if int8 is not None:
        written = export_int8(int8, network, output, opened.example, tolerance=tolerance, overwrite=overwrite)
    else:
        written = export_model(
            network,
            output,
            opened.example,
            to=to,
            dynamic=cast("Dynamic", dynamic),
            calibration=batches,
            tolerance=tolerance,
            overwrite=overwrite,
        )
    measured: dict[str, Accuracy] = {}
    if labelled is not None:
        for name, module in (("model", network), ("file", FileNetwork(output))):
            measured[name] = evaluate(module, batches_of(labelled, 1 if dynamic == "none" else 64))
    accuracy = {name: found.top1 for name, found in measured.items()}
    worse = _lost(written, accuracy, in_8_bits=bool(quantize or int8))
    warnings = [*([worse] if worse else []), *(doubts_of_cpu() if quantize or int8 else [])]
    for warning in warnings:
        stderr.print(f"warning: {warning}", soft_wrap=True, highlight=False)
    if as_json:
        found = {**asdict(written), "path": str(written.path), "warnings": warnings}
        found["layers"] = None if written.int8 is None else written.int8.to_json()
        if not isfinite(written.tolerance):
            found["tolerance"] = None
        print_json(
            {
                "model": model,
                **found,
                "top1": accuracy,
                "top1_interval": {name: list(found.top1_interval) for name, found in measured.items()},
                "fused": bool(fused),
                "int8": bool(int8),
                "contracted": {layer.name: layer.variant.name for layer in layers},
            }
        )
        return
    if layers:
        print_table(contraction_table(layers))
    shapes = "; ".join(" ".join("x".join(map(str, shape)) for shape in sample) for sample in written.compared)
    stdout.print(f"format      {written.to}")
    for line in fused:
        stdout.print(line, soft_wrap=True, highlight=False)
    stdout.print(f"size        {written.size / 2**20:.2f} MiB")
    stdout.print(f"compared    inputs {shapes}", soft_wrap=True, highlight=False)
    before = "" if written.unquantized is None else f"{written.unquantized:.2g} in float, in 8 bits "
    allowed = f" ({written.tolerance:.0e} allowed)" if isfinite(written.tolerance) and not quantize else ""
    stdout.print(
        f"difference  {before}{written.difference:.2g} of the largest output{allowed}",
        soft_wrap=True,
        highlight=False,
    )
    for line in () if written.int8 is None else written.int8.lines():
        stdout.print(line, soft_wrap=True, highlight=False)
    if accuracy:
        stdout.print(f"top-1       {measured['model'].text()} -> {measured['file'].text()} in the file")
    stdout.print(f"saved       {output}", soft_wrap=True)


def _lost(written: Exported, accuracy: Mapping[str, float], *, in_8_bits: bool) -> str | None:
    """What an exported file has lost, if it is much."""
    if accuracy and accuracy["file"] < accuracy["model"] - _POINTS:
        fallen = accuracy["model"] - accuracy["file"]
        return f"the file answers {fallen:.2f} points fewer of the images rightly than the model: do not use it unseen"
    if not accuracy and in_8_bits and written.difference > _DISTANCE:
        return (
            f"8 bits move the outputs by {written.difference:.2g} of their largest: give labelled images by --data to see "
            "what that costs"
        )
    return None

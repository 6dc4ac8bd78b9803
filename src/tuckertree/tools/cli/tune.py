"""`tuckertree tune`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from tuckertree._base.errors import UsageError
from tuckertree.tools.cli.app import command, with_command
from tuckertree.tools.cli.finetune import original_network
from tuckertree.tools.cli.options import (
    AsJson,
    BuiltBy,
    Channels,
    Device,
    InputSize,
    Mean,
    Overwrite,
    Scale,
    Std,
    Teacher,
    calibration_images_of,
    is_onnx,
    parse_size,
    prepared,
)
from tuckertree.tools.cli.results import end_if_interrupted, show
from tuckertree.tools.cli.training_options import Resume, unfinished


@command
def tune(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder saved by compress, or hf-hub:owner/name.")
    ],
    calibration: Annotated[
        str,
        typer.Option("--calibration", "--images", help="Unlabelled images: folder, .parquet file or demo."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to save to.")],
    minutes: Annotated[float | None, typer.Option(help="How long. [5]")] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="How many steps instead; with the seed they give the same again.", min=1),
    ] = None,
    calibration_images: Annotated[
        int,
        typer.Option("--calibration-images", "--limit", help="Look at this many calibration images.", min=1),
    ] = 1024,
    batch_size: Annotated[
        int | None, typer.Option(help="Images in a step. [64, of large ones 16]", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the order of the images.")] = 0,
    teacher: Teacher = None,
    teacher_weights: Annotated[
        Path | None,
        typer.Option(
            "--weights", "--teacher-weights", help="Weights of the original, a .safetensors or .pt file."
        ),
    ] = None,
    architecture: BuiltBy = None,
    input_size: InputSize = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    channels: Channels = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Tune a compressed model against the original on unlabelled images and save it as a folder."""
    import tuckertree
    from tuckertree.compression import CompressionResult
    from tuckertree.io import check_output, local_folder, read_config, read_report
    from tuckertree.tools.opening import open_model

    if is_onnx(folder):
        raise UsageError(
            f"{folder} is an ONNX file, which is tuned as it is made: `tuckertree compress --tune 5min`"
        )
    check_output(output, overwrite=overwrite or resume)
    folder = local_folder(folder)
    config = read_config(folder)
    size = parse_size(input_size)
    opened = open_model(folder, architecture=architecture, input_size=size, device=device)
    opened = prepared(opened, mean=mean, std=std, scale=scale, channels=channels)
    source, sizes = architecture or config.architecture, size or config.input_size
    original = original_network(teacher, teacher_weights, source, sizes)
    if original is None:
        raise UsageError("give the weights of the original network by --weights, or the network by --teacher")
    images = calibration_images_of(calibration, opened, calibration_images)
    assert images is not None
    known = read_report(folder)
    seconds = known.get("seconds")
    before = CompressionResult(
        opened.model,
        config.plan,
        {},
        0.0,
        seconds=seconds if isinstance(seconds, dict) else {},
        architecture=None if config.architecture is None else str(config.architecture),
        input_size=config.input_size,
    )
    minutes = 5.0 if minutes is None and steps is None else minutes
    with unfinished(output, resume=resume, overwrite=overwrite) as partial:
        result = tuckertree.tune(
            before,
            original.to(device),
            images,
            minutes=minutes,
            steps=steps,
            seed=seed,
            batch_size=batch_size,
            checkpoint=partial / "tuning.ckpt",
        )
        new = result.summary()
        report = _still_true(known, new)
        report["commands"] = with_command(known)
        result.save(output, overwrite=overwrite or resume, report=report)
        show(
            result,
            output,
            [*result.lines(), f"images      {len(images)} of {images.source}"],
            as_json=as_json,
        )
        end_if_interrupted(result, output, resumable=True)


def _still_true(known: Mapping[str, object], new: Mapping[str, object]) -> dict[str, object]:
    """What of a report before tuning is not said anew, and was not of the network as it was."""
    kept = {name: x for name, x in known.items() if name not in {*new, "accuracy", "by_layer", "int8"}}
    tried = kept.get("precisions")
    if "int8" in known and "int8" not in new and isinstance(tried, list):
        kept["precisions"] = [
            {**each, "distance": None} if isinstance(each, dict) and each.get("precision") == "int8" else each
            for each in tried
        ]
    return kept

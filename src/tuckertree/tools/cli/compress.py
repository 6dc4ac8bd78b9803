"""`tuckertree compress`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tuckertree._base.errors import UsageError
from tuckertree.tools.cli.accuracy_images import open_accuracy_images
from tuckertree.tools.cli.app import command, show_warning, typed_command
from tuckertree.tools.cli.options import (
    AsJson,
    BuiltBy,
    Calibration,
    Channels,
    Device,
    InputSize,
    InputValues,
    Mean,
    Model,
    Overwrite,
    Scale,
    Std,
    Weights,
    images_of,
    is_onnx,
    open_network,
    refuse_options,
)
from tuckertree.tools.cli.results import end_if_interrupted, show, show_plan
from tuckertree.tools.cli.rules import rule_of
from tuckertree.tools.cli.untrained import warn_if_untrained


@command
def compress(
    model: Model,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to save to; for an ONNX model a file.")
    ] = None,
    energy: Annotated[float | None, typer.Option(help="Share of energy kept at each cut, in (0, 1].")] = None,
    error: Annotated[
        float | None, typer.Option(help="Bound of each layer's relative error, in [0, 1).")
    ] = None,
    params: Annotated[
        str | None, typer.Option(help="Budget of parameters: a share, 0.4, or a factor, 2.5x.")
    ] = None,
    macs: Annotated[str | None, typer.Option(help="Budget of MACs: a share, 0.5, or a factor, 2x.")] = None,
    latency: Annotated[
        str | None, typer.Option(help="Budget of measured time: a share, 0.5, or a factor, 2x.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(help="Budget of accuracy: at most so many points of top-1 fewer. Needs --data."),
    ] = None,
    agreement: Annotated[
        float | None,
        typer.Option(
            help="Budget of accuracy without labels: share of answers equal to the original's, 0.99; of other outputs 1 "
            "less their relative distance."
        ),
    ] = None,
    cheapest: Annotated[
        str | None,
        typer.Option(
            help="With --max-drop or --agreement: what is made small: macs (default), params, latency."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="With --max-drop: labelled images, folder or .parquet file, half to search with, half to prove. Without "
            "--calibration its training images are those to fit to."
        ),
    ] = None,
    data_images: Annotated[
        int | None, typer.Option(help="Look at this many images of --data; all.", min=2)
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            help="With --latency or --cheapest latency: onnxruntime (default), openvino, torch, torch-compile, triton."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Likewise: threads a run may use.", min=1)] = None,
    batch: Annotated[int | None, typer.Option(help="Likewise: samples in one run.", min=1)] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="With --latency: precisions the network may run in, fp32,int8; int8 needs --calibration. [fp32]"
        ),
    ] = None,
    best_effort: Annotated[
        bool,
        typer.Option(
            "--best-effort", help="With --latency or an accuracy: keep the nearest if none reaches it."
        ),
    ] = False,
    plan: Annotated[
        Path | None,
        typer.Option(help="Carry out a plan instead: what --dry-run --json printed, perhaps edited."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Choose ranks and print the plan; make and write nothing.")
    ] = False,
    calibration: Calibration = None,
    calibration_images: Annotated[
        int | None,
        typer.Option(
            help="Look at this many calibration images; 1024, for ONNX 128, with --agreement twice that.",
            min=1,
        ),
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="What a budget makes small: outputs, sensitivity, moments or weight.")
    ] = None,
    tune: Annotated[
        str | None,
        typer.Option(help="With --calibration: then tune the whole network: 5min, 90s or a number of steps."),
    ] = None,
    by_layer: Annotated[
        bool,
        typer.Option(
            "--by-layer",
            help="With --calibration: show where the outputs' distance comes from, on images not fitted to.",
        ),
    ] = False,
    include: Annotated[
        list[str] | None, typer.Option(help="Compress only layers of this name pattern.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Leave layers of this name pattern dense.")
    ] = None,
    first: Annotated[str, typer.Option(help="The first convolution: svd, ht2 or dense.")] = "svd",
    round_to: Annotated[
        int | None, typer.Option(help="Round ranks to a multiple of this. [1; with --latency 16, 8 or 4]")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods that a budget chooses among: ht2,tucker2,spatial,svd,depthwise,channels (default), cp; default,cp for all."
        ),
    ] = None,
    weights: Weights = None,
    architecture: BuiltBy = None,
    input_size: InputSize = None,
    input_values: InputValues = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    channels: Channels = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compress a model and save it as a folder; an ONNX model becomes another ONNX model.

    A folder that is compressed already is multiplied out and compressed anew; sizes and budgets count against the
    dense network.
    """
    import tuckertree
    from tuckertree.compression.compressing import PlanOptions
    from tuckertree.compression.networks import OnnxNetwork
    from tuckertree.io import check_output
    from tuckertree.planning.channels import DEFAULT_METHODS

    images_as: dict[str, Any] = {"mean": mean, "std": std, "scale": scale, "channels": channels}
    if calibration is None and data is None:
        refuse_options(
            "belongs to --calibration",
            calibration_images=calibration_images,
            tune=tune,
            by_layer=by_layer or None,
            **images_as,
        )
    if data is None:
        refuse_options("belongs to --data", data_images=data_images)
    timing: dict[str, Any] = {"runtime": runtime, "threads": threads, "batch": batch}
    if latency is None:
        refuse_options("belongs to --latency; give a target such as --latency 2x", precision=precision)
    else:
        timing["precision"] = precision
    shares = {"params": params, "macs": macs, "latency": latency}
    accuracy = {"max_drop": max_drop, "agreement": agreement}
    rule = rule_of(energy, error, shares, accuracy, cheapest, timing, best_effort=best_effort, plan=plan)
    if max_drop is None and agreement is None:
        refuse_options("belongs to --max-drop or --agreement", data=data)
    elif max_drop is not None and data is None:
        raise UsageError("--max-drop needs labelled images: give --data")
    named = ["default"] if methods is None else [name.strip() for name in methods.split(",")]
    every = (DEFAULT_METHODS if name == "default" else (name,) for name in named)
    among = tuple(dict.fromkeys(name for names in every for name in names))
    if dry_run:
        refuse_options(
            "has no meaning with --dry-run: nothing is made",
            output=output,
            tune=tune,
            by_layer=by_layer or None,
        )
    elif output is None:
        raise UsageError("give --output, where the result goes, or --dry-run")
    elif not is_onnx(model):
        if output.suffix.lower() == ".onnx":
            raise UsageError(
                f"{output}: a torch network is saved as a folder; `tuckertree export` makes an ONNX file of it"
            )
        check_output(output, overwrite=overwrite)
    network, opened = open_network(
        model,
        weights=weights,
        architecture=architecture,
        device=device,
        input_size=input_size,
        input_values=input_values,
    )
    if latency is None or calibration or data:  # not of times alone
        warn_if_untrained(model, weights)
    if isinstance(network, OnnxNetwork) and output is not None:
        network.check_output(output, overwrite=overwrite)
    count = calibration_images or (1024 if opened else 128) * (2 if agreement and data is None else 1)
    labelled = None
    if data is None:
        images = images_of(calibration, model, opened, count, input_size, **images_as)
    else:
        images, labelled = open_accuracy_images(
            model,
            opened,
            data,
            calibration,
            limit=data_images,
            count=count,
            input_size=input_size,
            **images_as,
        )
    more = [f"images      {len(images)} of {images.source}"] if images and opened else []
    if labelled is not None:
        more.append(f"data        {len(labelled)} of {labelled.images.source}, to search with and to prove")
    if opened and opened.plan:
        more.append(f"from        {model}, compressed already: multiplied out first")
    how: PlanOptions = {
        "include": include or ("*",),
        "exclude": exclude or (),
        "first": first,
        "round_to": round_to,
        "calibration": images,
        "objective": objective,
        "methods": among,
    }
    if output is None:
        show_plan(tuckertree.plan(network, None, rule, **how), as_json=as_json)
        return
    result = tuckertree.compress(network, None, rule, **how, tune=tune, data=labelled)
    fitted = {"images": f"{len(images)} of {images.source}"} if images and opened else {}
    report: dict[str, object] = {"commands": [typed_command()], **fitted}
    result.save(output, overwrite=overwrite, report=report)
    found = None
    if by_layer and images is not None:
        unseen = int(result.distances.get("images fitted", 0))
        more += [] if unseen else ["by layer    on the images fitted to: there were none besides"]
        try:
            found = tuckertree.distance_by_layer(result, network.module, images, start=unseen)
        except tuckertree.TuckertreeError as error:  # the network is made and saved
            show_warning(f"not by layer: {error}")
        else:
            result.save(output, overwrite=True, report={**report, "by_layer": found.to_json()})
    show(result, output, [*result.lines(), *more], by_layer=found, as_json=as_json)
    end_if_interrupted(result, output)

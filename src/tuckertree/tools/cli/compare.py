"""`tuckertree compare`."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from tuckertree._base.errors import UsageError
from tuckertree.tools.cli.app import command, fail, print_json, print_table, stdout
from tuckertree.tools.cli.options import (
    AsJson,
    BuiltBy,
    Channels,
    DataImages,
    InputSize,
    Mean,
    Model,
    Scale,
    Std,
    Weights,
    chosen_preprocessing,
    is_onnx,
    parse_size,
    refuse_options,
    refuse_torch_options,
)
from tuckertree.tools.cli.untrained import warn_if_untrained


@command
def compare(
    model: Model,
    data: Annotated[
        str,
        typer.Option(help="Images to measure on, labelled or not: folder, .parquet file or demo."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    methods: Annotated[
        str,
        typer.Option(
            help="With commas: ht2, tucker2, spatial, svd, depthwise, cp, channels, prune (torch-pruning), default (what compress "
            "chooses by itself); each but channels without images too, as it was published: ht2:weights."
        ),
    ] = "default,ht2,tucker2,svd,prune",
    budgets: Annotated[
        str, typer.Option(help="With commas: shares of the network, 0.4, or factors, 2.5x.")
    ] = "1.5x,2.5x,4x",
    by: Annotated[str, typer.Option(help="What the budgets are of: macs or params.")] = "macs",
    data_images: DataImages = None,
    calibration: Annotated[
        str | None,
        typer.Option(help="Unlabelled images that every method is given: folder, .parquet file or demo."),
    ] = None,
    calibration_images: Annotated[
        int | None, typer.Option(help="Look at this many of them. [1024]", min=1)
    ] = None,
    tune: Annotated[
        str | None,
        typer.Option(
            help="Then tune each network that was fitted, and show that too: 5min, 90s or a number of steps."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn by chance.", min=0)] = 0,
    runtime: Annotated[
        str | None,
        typer.Option(
            help="Time each network too, in turns with the original: onnxruntime, openvino, torch, torch-compile."
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="With --runtime: threads a run may use. [1]", min=1)
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Likewise: samples in one run. [1]", min=1)] = None,
    jobs: Annotated[int, typer.Option(help="Make so many networks at a time.", min=1)] = 1,
    engine: Annotated[
        str, typer.Option(help="What makes them: processes on this machine, or ray.")
    ] = "processes",
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="With --engine ray: a cluster's HOST:PORT, or auto; by default one is started here."
        ),
    ] = None,
    weights: Weights = None,
    architecture: BuiltBy = None,
    input_size: InputSize = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    channels: Channels = None,
    overwrite: Annotated[
        bool, typer.Option(help="Drop the comparison that the folder holds, and begin again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compress a network by several methods at several budgets, and measure them all alike.

    The same command goes on with a comparison that was interrupted; with more methods or budgets it extends it.
    """
    from tuckertree.tools.comparison import NamedTask, Settings, comparison_table
    from tuckertree.tools.comparison import compare as carry_out
    from tuckertree.tools.comparison.on_ray import on_ray
    from tuckertree.tools.comparison.processes import in_processes

    if calibration is None:
        refuse_options("belongs to --calibration", calibration_images=calibration_images, tune=tune)
    if is_onnx(model):
        refuse_torch_options(weights, architecture, "cpu")
    if engine not in ("processes", "ray"):
        raise UsageError(f"--engine is processes or ray, not {engine!r}")
    if engine == "processes":
        refuse_options("belongs to --engine ray", ray_address=ray_address)
    if runtime is not None:
        refuse_options(
            "cannot go with --runtime: times of different machines cannot be compared",
            ray_address=ray_address,
        )
    else:
        refuse_options("belongs to --runtime", threads=threads, batch=batch)
    images_as: dict[str, Any] = {"mean": mean, "std": std, "scale": scale, "channels": channels}
    task = NamedTask(
        model,
        data,
        data_images,
        calibration,
        calibration_images or 1024,
        weights=weights,
        architecture=architecture,
        input_size=parse_size(input_size),
        preprocessing=chosen_preprocessing(**images_as),
    )
    warn_if_untrained(model, weights)
    found = carry_out(
        task,
        methods.split(","),
        budgets.split(","),
        output,
        Settings(by, tune, seed, runtime, threads or 1, batch or 1),
        jobs=jobs,
        overwrite=overwrite,
        mapper=partial(on_ray, jobs=jobs, address=ray_address)
        if engine == "ray"
        else partial(in_processes, jobs=jobs, copies=True),
    )
    if as_json:
        outcomes = [asdict(outcome) for outcome in found.outcomes]
        print_json({"settings": found.settings, "outcomes": outcomes, "output": str(output)})
    else:
        print_table(comparison_table(found.outcomes))
        for line in found.lines():
            stdout.print(line, soft_wrap=True, highlight=False)
    if all(outcome.failed for outcome in found.compressed):
        fail(f"no method gave a network; {found.compressed[0].failed}")
        raise typer.Exit(3 if all(outcome.unreachable for outcome in found.compressed) else 1)

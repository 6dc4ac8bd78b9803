"""`tuckertree evaluate`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from tuckertree.cli.app import app, print_json, stdout
from tuckertree.cli.options import AsJson, BuiltBy, Device, InputSize, Model, Weights, parse_size


@app.command()
def evaluate(
    model: Model,
    data: Annotated[str, typer.Option(help="Images: folder, .parquet file or demo.")],
    split: Annotated[
        str | None, typer.Option(help="Part of the data; by default test or validation.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Look at this many images only.", min=1)] = None,
    batch_size: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 128,
    weights: Weights = None,
    architecture: BuiltBy = None,
    input_size: InputSize = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Measure the accuracy of a model, compressed or not, on labelled images."""
    from tuckertree.data import batches, open_images
    from tuckertree.measure import count_macs, count_parameters
    from tuckertree.measure import evaluate as measure
    from tuckertree.opening import open_model
    from tuckertree.progress import progress_bar
    from tuckertree.report import short

    size = parse_size(input_size)
    opened = open_model(model, weights=weights, architecture=architecture, input_size=size, device=device)
    images = open_images(data, opened.preprocessing, split=split, limit=limit)
    with progress_bar() as tick:
        accuracy = measure(
            opened.model, batches(images, batch_size), device=device, images=len(images), tick=tick
        )
    found = {
        **asdict(accuracy),
        "parameters": count_parameters(opened.model),
        "macs": count_macs(opened.model, opened.example_inputs),
    }
    if as_json:
        print_json({"model": model, "data": images.source, **found})
        return
    stdout.print(f"model       {model}", soft_wrap=True)
    stdout.print(f"data        {images.source}", soft_wrap=True)
    stdout.print(f"images      {accuracy.images}")
    stdout.print(f"top-1       {accuracy.top1:.2f} %")
    stdout.print(f"top-5       {accuracy.top5:.2f} %")
    stdout.print(f"parameters  {short(found['parameters'])}")
    stdout.print(f"MACs        {short(found['macs'])}")

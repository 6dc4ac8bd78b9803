"""`tuckertree inspect`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from tuckertree.cli.app import app, print_json, print_table, stdout
from tuckertree.cli.options import (
    AsJson,
    Calibration,
    CalibrationImages,
    Device,
    InputSize,
    Model,
    Weights,
    calibration_images_of,
    parse_size,
)


@app.command()
def inspect(
    model: Model,
    weights: Weights = None,
    input_size: InputSize = None,
    device: Device = "cpu",
    curve: Annotated[bool, typer.Option("--curve", help="Show the predicted loss at every budget.")] = False,
    by: Annotated[str, typer.Option(help="Budget of the curve: params, macs or both.")] = "params",
    calibration: Calibration = None,
    calibration_images: CalibrationImages = 256,
    as_json: AsJson = False,
) -> None:
    """List the layers of a model, what they cost, and why some cannot be compressed; or its trade-off curve."""
    from tuckertree.objectives import trade_off_curve
    from tuckertree.opening import open_model
    from tuckertree.planning import take_inventory
    from tuckertree.report import curve_table, inventory_table, short

    opened = open_model(model, weights=weights, input_size=parse_size(input_size), device=device)
    if curve:
        images = calibration_images_of(calibration, opened, calibration_images)
        points = trade_off_curve(opened.model, opened.example_inputs, by=by, calibration=images)
        if as_json:
            print_json([asdict(point) for point in points])
        else:
            print_table(curve_table(points))
        return
    inventory = take_inventory(opened.model, opened.example_inputs)
    if as_json:
        print_json(asdict(inventory))
        return
    print_table(inventory_table(inventory))
    shape = "x".join(map(str, opened.example_inputs.shape))
    stdout.print(f"{short(inventory.parameters)} parameters, {short(inventory.macs)} MACs at input {shape}")

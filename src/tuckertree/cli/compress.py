"""`tuckertree compress`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuckertree.cli.app import app, print_json, print_table, stdout
from tuckertree.cli.options import (
    AsJson,
    Calibration,
    CalibrationImages,
    Device,
    InputSize,
    Model,
    Overwrite,
    Weights,
    calibration_images_of,
    parse_size,
)
from tuckertree.errors import UsageError

if TYPE_CHECKING:
    from tuckertree.objectives import AnyRule


@app.command()
def compress(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to save to.")],
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
    runtime: Annotated[
        str | None,
        typer.Option(help="With --latency: onnxruntime (default), openvino, torch, torch-compile."),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="With --latency: threads a run may use.", min=1)] = None,
    batch: Annotated[int | None, typer.Option(help="With --latency: samples in one run.", min=1)] = None,
    calibration: Calibration = None,
    calibration_images: CalibrationImages = 1024,
    objective: Annotated[
        str | None, typer.Option(help="What a budget makes small: outputs, sensitivity, moments or weight.")
    ] = None,
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
    weights: Weights = None,
    input_size: InputSize = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compress a model and save it as a folder."""
    import tuckertree
    from tuckertree.formats import check_output
    from tuckertree.opening import open_model
    from tuckertree.report import plan_table, totals

    timing = {"runtime": runtime, "threads": threads, "batch": batch}
    rule = _rule(energy, error, params, macs, latency, timing)
    check_output(output, overwrite=overwrite)
    opened = open_model(model, weights=weights, input_size=parse_size(input_size), device=device)
    if opened.plan is not None:
        raise UsageError(f"{model} is compressed already; compress the network it was made from")
    result = tuckertree.compress(
        opened.model,
        opened.example_inputs,
        rule,
        include=include or ("*",),
        exclude=exclude or (),
        first=first,
        round_to=round_to,
        calibration=calibration_images_of(calibration, opened, calibration_images),
        objective=objective,
    )
    result.save(output, overwrite=overwrite)
    if as_json:
        print_json({**result.summary(), "plan": result.plan.to_json(), "output": str(output)})
        return
    print_table(plan_table(result.plan, result.errors))
    for line in totals(result):
        stdout.print(line)
    stdout.print(f"saved       {output}", soft_wrap=True)


def _rule(
    energy: float | None,
    error: float | None,
    params: str | None,
    macs: str | None,
    latency: str | None,
    timing: dict[str, Any],
) -> AnyRule:
    """The one rule that the options name."""
    import tuckertree

    rules: list[AnyRule] = []
    if energy is not None:
        rules.append(tuckertree.Energy(energy))
    if error is not None:
        rules.append(tuckertree.Error(error))
    given = {option: value for option, value in timing.items() if value is not None}
    if latency is None and given:
        raise UsageError(f"--{next(iter(given))} belongs to --latency; give a target such as --latency 2x")
    if params is not None or macs is not None or latency is not None:
        rules.append(tuckertree.Budget(params=params, macs=macs, latency=latency, **given))
    if len(rules) != 1:
        raise UsageError(
            "give one of --energy, --error, or a budget: --params, --macs or both, or --latency 2x"
        )
    return rules[0]

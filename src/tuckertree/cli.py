"""The command line: thin, each command calls one function of the library.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 failed, 2 usage, 3 the target
cannot be reached, 130 interrupted.
"""

from __future__ import annotations

import json
import signal
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tuckertree._version import __version__
from tuckertree.errors import TuckertreeError, UsageError

if TYPE_CHECKING:
    from tuckertree.data import ImageSet
    from tuckertree.objectives import AnyRule
    from tuckertree.opening import OpenModel

stdout, stderr = Console(), Console(stderr=True)


class _Commands(typer.core.TyperGroup):
    """Turn the errors of the library into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TuckertreeError as error:
            code, message = error.exit_code, str(error)
        except KeyboardInterrupt:
            code, message = 130, "interrupted; nothing was written"
        except MemoryError as error:
            code, message = 1, f"out of memory: {error}"
        stderr.print("error:", style="bold red", end=" ")
        stderr.print(" ".join(message.split()), soft_wrap=True, markup=False, highlight=False)
        raise typer.Exit(code)


app = typer.Typer(
    name="tuckertree",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Compress trained convolutional networks by hierarchical Tucker-2 decomposition.",
    epilog="MODEL is demo, cifar10:resnet20, caffe:googlenet, torchvision:NAME, timm:NAME, a folder saved by "
    "compress, or package.module:factory.",
)

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


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


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

    opened = open_model(model, weights=weights, input_size=_size(input_size), device=device)
    if curve:
        images = _calibration(calibration, opened, calibration_images)
        points = trade_off_curve(opened.model, opened.example_inputs, by=by, calibration=images)
        if as_json:
            _print_json([asdict(point) for point in points])
        else:
            _print_table(curve_table(points))
        return
    inventory = take_inventory(opened.model, opened.example_inputs)
    if as_json:
        _print_json(asdict(inventory))
        return
    _print_table(inventory_table(inventory))
    shape = "x".join(map(str, opened.example_inputs.shape))
    stdout.print(f"{short(inventory.parameters)} parameters, {short(inventory.macs)} MACs at input {shape}")


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
    round_to: Annotated[int, typer.Option(help="Round ranks up to a multiple of this.")] = 1,
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

    rule = _rule(energy, error, params, macs)
    check_output(output, overwrite=overwrite)
    opened = open_model(model, weights=weights, input_size=_size(input_size), device=device)
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
        calibration=_calibration(calibration, opened, calibration_images),
        objective=objective,
    )
    result.save(output, overwrite=overwrite)
    if as_json:
        _print_json({**result.summary(), "plan": result.plan.to_json(), "output": str(output)})
        return
    _print_table(plan_table(result.plan, result.errors))
    for line in totals(result):
        stdout.print(line)
    stdout.print(f"saved       {output}", soft_wrap=True)


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

    size = _size(input_size)
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
        _print_json({"model": model, "data": images.source, **found})
        return
    stdout.print(f"model       {model}", soft_wrap=True)
    stdout.print(f"data        {images.source}", soft_wrap=True)
    stdout.print(f"images      {accuracy.images}")
    stdout.print(f"top-1       {accuracy.top1:.2f} %")
    stdout.print(f"top-5       {accuracy.top5:.2f} %")
    stdout.print(f"parameters  {short(found['parameters'])}")
    stdout.print(f"MACs        {short(found['macs'])}")


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to save to.")] = Path("out/demo"),
    energy: Annotated[list[float] | None, typer.Option(help="Energy to try; may be repeated.")] = None,
    params: Annotated[
        list[float] | None, typer.Option(help="Share of parameters to try; may be repeated.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compress the packaged ResNet-20 in several ways and show what each costs and keeps."""
    from tuckertree.demo import demo_table, run_demo

    if energy is None and params is None:
        energy, params = [0.95, 0.9, 0.8, 0.7], [0.65, 0.4, 0.26]
    rows = run_demo(output, energies=energy or (), params=params or (), overwrite=overwrite)
    if as_json:
        _print_json([asdict(row) for row in rows])
        return
    _print_table(demo_table(rows))
    stdout.print(f"saved       {output}/*", soft_wrap=True, highlight=False)


def _rule(energy: float | None, error: float | None, params: str | None, macs: str | None) -> AnyRule:
    """The one rule that the options name."""
    import tuckertree

    rules: list[AnyRule] = []
    if energy is not None:
        rules.append(tuckertree.Energy(energy))
    if error is not None:
        rules.append(tuckertree.Error(error))
    if params is not None or macs is not None:
        rules.append(tuckertree.Budget(params=params, macs=macs))
    if len(rules) != 1:
        raise UsageError("give one of --energy, --error, or a budget by --params, --macs or both: --macs 0.5")
    return rules[0]


def _calibration(source: str | None, opened: OpenModel, count: int) -> ImageSet | None:
    if source is None:
        return None
    from tuckertree.data import open_calibration

    return open_calibration(source, opened.preprocessing, limit=count)


def _size(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        size = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        size = ()
    if not size or min(size) < 1:
        raise UsageError(f"--input-size must be positive integers such as 3,224,224, not {text!r}")
    return size


def _print_table(table: Any) -> None:
    """Print a table, at its full width where stdout is no terminal and cannot say how wide it is."""
    if stdout.is_terminal:
        stdout.print(table)
    else:
        Console(width=240).print(table)


def _print_json(data: Mapping[str, Any] | list[Any]) -> None:
    print(json.dumps(data, indent=1, default=list))


def main() -> None:
    """Run the command line; being told to end counts as Ctrl-C, so that nothing is left half-written."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    warnings.showwarning = _show_warning
    app()


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    stderr.print(f"warning: {message}", soft_wrap=True, markup=False, highlight=False)

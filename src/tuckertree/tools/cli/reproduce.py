"""`tuckertree reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuckertree.tools.cli.app import command, print_json, stdout
from tuckertree.tools.cli.options import AsJson, Device, Overwrite
from tuckertree.tools.cli.training_options import NAMED


@command
def reproduce(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file, such as those in recipes.")],
    data: Annotated[str, typer.Option(help="Images with a training and a test split: folder or demo.")],
    schedule: Annotated[
        str | None,
        typer.Option(help="Another way to the same reduction: cpu, images and a short training."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            "--weights-dir",
            help="The safetensors file, or the folder that has it; by default models beside the images.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to save to; by default out/ and its name.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Train so many epochs in each stage.")] = None,
    limit_train: Annotated[
        int | None, typer.Option(*NAMED["limit_train"], help="Train on at most so many images of --data.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the training.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key: training.lr=0.05; may be repeated.")
    ] = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Carry out a recipe: compress a network, fine-tune it, and compare it with what was published."""
    from tuckertree.tools.recipes import load_recipe, parse_overrides, result_lines, training_overrides
    from tuckertree.tools.recipes import reproduce as carry_out

    given = {"epochs": epochs, "limit_train": limit_train, "seed": seed}
    shortcuts = {name: value for name, value in given.items() if value is not None}
    overrides = {**training_overrides(recipe, shortcuts, schedule=schedule), **parse_overrides(changes or ())}
    done = carry_out(
        load_recipe(recipe, overrides, schedule=schedule),
        data,
        output=output or Path("out") / "-".join(filter(None, (recipe.stem, schedule))),
        weights=weights,
        device=device,
        overwrite=overwrite,
        resume=resume,
    )
    if as_json:
        print_json({**done.result, "output": str(done.output)})
    else:
        for line in result_lines(done):
            stdout.print(line, soft_wrap=True, highlight=False, markup=False)
    if any(stage["training"] and stage["training"]["diverged"] for stage in done.result["stages"]):
        raise typer.Exit(1)

"""`tuckertree train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tuckertree._base.errors import UsageError
from tuckertree.tools.cli import training_options as options
from tuckertree.tools.cli.app import command, print_json, print_table
from tuckertree.tools.cli.options import AsJson, Device


@command
@options.takes_settings("admm_rho", "admm_every", epochs=100, lr=0.1, weight_decay=5e-4, augment=None)
def train(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of a network: cifar10:resnet20.")],
    data: options.Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to save to, .safetensors.")],
    given: dict[str, Any],
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights to start from, a .safetensors or .pt file, instead of random ones."),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="The plan to train towards: a .json file, or a folder saved by compress."),
    ] = None,
    resume: options.Resume = False,
    checkpoint_steps: options.CheckpointSteps = None,
    test: options.Test = False,
    device: Device = "cpu",
    overwrite: Annotated[bool, typer.Option(help="Replace the output if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a network, from scratch or from --weights, and save its weights."""
    from tuckertree._base.atomic import atomic_files, check_free_file
    from tuckertree.io import read_plan
    from tuckertree.io.report import history_table
    from tuckertree.io.tensors import save_tensors
    from tuckertree.tools.data import open_images, open_training
    from tuckertree.tools.models import build, resolve
    from tuckertree.tools.training import Settings
    from tuckertree.tools.training import train as run

    if output.suffix != ".safetensors":
        raise UsageError(f"{output} must end in .safetensors")
    check_free_file(output, overwrite=overwrite)
    preprocessing = resolve(model).preprocessing
    given["augment"] = given["augment"] or options.default_augmentation(preprocessing)
    settings = Settings(**given, distill=0.0)
    images = open_training(data, preprocessing)
    test_images = open_images(data, preprocessing, split="test") if test else None
    with options.unfinished(output, resume=resume, overwrite=overwrite) as partial:
        outcome = run(
            model if weights is None else build(model, weights=weights),
            images,
            settings,
            plan=None if plan is None else read_plan(plan),
            output=partial,
            resume=resume,
            checkpoint_steps=checkpoint_steps,
            device=device,
        )
        tested = options.tested(outcome.model, test_images, device)
        with atomic_files(output, overwrite=overwrite) as new:
            save_tensors(outcome.model, new)
    if as_json:
        print_json(options.summary(outcome, tested, output))
    else:
        print_table(history_table(outcome.history))
        options.print_totals(outcome, tested, output)
    options.fail_if_diverged(outcome)

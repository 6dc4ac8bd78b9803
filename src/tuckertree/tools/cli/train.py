"""`tuckertree train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuckertree._base.errors import UsageError
from tuckertree.tools.cli import training_options as given
from tuckertree.tools.cli.app import app, print_json, print_table
from tuckertree.tools.cli.options import AsJson, Device


@app.command()
def train(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of a network: cifar10:resnet20.")],
    data: given.Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to save to, .safetensors.")],
    epochs: given.Epochs = 100,
    lr: given.Lr = 0.1,
    batch_size: given.BatchSize = 128,
    optimizer: given.Optimizer = "sgd",
    schedule: given.Schedule = "onecycle",
    weight_decay: given.WeightDecay = 5e-4,
    label_smoothing: given.LabelSmoothing = 0.0,
    precision: given.Precision = "32",
    clip: given.Clip = None,
    ema: given.Ema = None,
    augment: given.Augment = None,
    channels_last: given.ChannelsLast = False,
    compile_: Annotated[bool, typer.Option("--compile", help="Use torch.compile.")] = False,
    seed: given.Seed = 0,
    validation: given.Validation = 0.1,
    limit_train: given.LimitTrain = None,
    workers: given.Workers = 0,
    devices: given.Devices = 1,
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights to start from, a .safetensors or .pt file, instead of random ones."),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="The plan to train towards: a .json file, or a folder saved by compress."),
    ] = None,
    admm_rho: Annotated[
        float | None, typer.Option(help="Weight of the pull towards the ranks of --plan: 1e-3.")
    ] = None,
    admm_every: Annotated[
        int, typer.Option(help="Steps between two truncations to the ranks of --plan.", min=1)
    ] = 100,
    resume: given.Resume = False,
    checkpoint_steps: given.CheckpointSteps = None,
    test: given.Test = False,
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
    settings = Settings(
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        lr=lr,
        schedule=schedule,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        precision=precision,
        clip=clip,
        ema=ema,
        distill=0.0,
        augment=augment or given.default_augmentation(preprocessing),
        channels_last=channels_last,
        compile=compile_,
        seed=seed,
        validation=validation,
        limit_train=limit_train,
        workers=workers,
        devices=devices,
        admm_rho=admm_rho,
        admm_every=admm_every,
    )
    images = open_training(data, preprocessing)
    test_images = open_images(data, preprocessing, split="test") if test else None
    with given.unfinished(output, resume=resume, overwrite=overwrite) as partial:
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
        tested = given.tested(outcome.model, test_images, device)
        with atomic_files(output, overwrite=overwrite) as new:
            save_tensors(outcome.model, new)
    if as_json:
        print_json(given.summary(outcome, tested, output))
    else:
        print_table(history_table(outcome.history))
        given.print_totals(outcome, tested, output)
    given.fail_if_diverged(outcome)

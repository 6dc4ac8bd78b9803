"""`tuckertree finetune`."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuckertree._base.errors import UsageError
from tuckertree.tools.cli import training_options as given
from tuckertree.tools.cli.app import app, print_json, print_table, stderr
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
    parse_size,
    prepared,
    refuse_options,
)

if TYPE_CHECKING:
    from torch import nn

    from tuckertree._base.names import TrustedName, UntrustedName
    from tuckertree.tools.opening import Sizes


@app.command()
def finetune(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder saved by compress.")],
    data: given.Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to save to.")],
    epochs: given.Epochs = 10,
    lr: Annotated[
        float | None,
        typer.Option(
            help="The highest learning rate of the schedule. [0.05, less for fewer than 4000 steps]"
        ),
    ] = None,
    batch_size: given.BatchSize = 128,
    optimizer: given.Optimizer = "sgd",
    schedule: given.Schedule = "onecycle",
    weight_decay: given.WeightDecay = 1e-4,
    label_smoothing: given.LabelSmoothing = 0.0,
    distill: Annotated[
        bool, typer.Option("--distill/--no-distill", help="Learn from the original too, if it is given.")
    ] = True,
    teacher: Teacher = None,
    teacher_weights: Annotated[
        Path | None, typer.Option(help="Weights of the original network, a .safetensors or .pt file.")
    ] = None,
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
    resume: given.Resume = False,
    checkpoint_steps: given.CheckpointSteps = None,
    test: given.Test = False,
    architecture: BuiltBy = None,
    input_size: InputSize = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    channels: Channels = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train a compressed model further and save it as a folder."""
    from tuckertree.io import check_output, read_config, read_report
    from tuckertree.io.report import history_table
    from tuckertree.tools.data import open_images, open_training
    from tuckertree.tools.opening import open_model
    from tuckertree.tools.training import Settings, default_finetune_lr
    from tuckertree.tools.training import finetune as run

    check_output(output, overwrite=overwrite)
    config = read_config(folder)
    size = parse_size(input_size)
    opened = open_model(folder, architecture=architecture, input_size=size)
    opened = prepared(opened, mean=mean, std=std, scale=scale, channels=channels)
    images = open_training(data, opened.preprocessing)
    if lr is None:
        seen = min(len(images), limit_train or len(images)) * (1 - validation)
        lr = default_finetune_lr(int(epochs * seen / max(batch_size, 1)), optimizer)
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
        distill=Settings(1).distill if distill else 0.0,
        augment=augment or given.default_augmentation(opened.preprocessing),
        channels_last=channels_last,
        compile=compile_,
        seed=seed,
        validation=validation,
        limit_train=limit_train,
        workers=workers,
        devices=devices,
    )
    if not distill:
        refuse_options(
            "cannot be combined with --no-distill", teacher=teacher, teacher_weights=teacher_weights
        )
    original = None
    if distill:
        original = _teacher(
            teacher, teacher_weights, architecture or config.architecture, size or config.input_size
        )
        if original is None:
            stderr.print(
                "training without distillation: give the original network by --teacher-weights FILE",
                soft_wrap=True,
            )
    test_images = open_images(data, opened.preprocessing, split="test") if test else None
    with given.unfinished(output, resume=resume, overwrite=overwrite) as partial:
        outcome = run(
            opened.model,
            images,
            settings,
            teacher=original,
            output=partial,
            resume=resume,
            checkpoint_steps=checkpoint_steps,
            device=device,
        )
        tested = given.tested(outcome.model, test_images, device)
        known = None if config.architecture is None else str(config.architecture)
        done = replace(
            outcome,
            plan=config.plan,
            architecture=known,
            input_size=config.input_size,
            report=read_report(folder),
        )
        done.save(output, overwrite=overwrite)
        shutil.move(partial / "logs", output / "logs")
    if as_json:
        print_json(given.summary(done, tested, output))
    else:
        print_table(history_table(done.history))
        given.print_totals(done, tested, output)
    given.fail_if_diverged(done)


def _teacher(
    name: TrustedName | None,
    weights: Path | None,
    architecture: TrustedName | UntrustedName | None,
    size: Sizes,
) -> nn.Module | None:
    """The original network, or None if nobody says what its weights are."""
    from tuckertree.tools.models import names_a_scheme
    from tuckertree.tools.opening import open_model

    if name is None and weights is None:
        return None
    source = name or architecture
    if source is None:
        raise UsageError("the folder does not name its architecture; give the original by --teacher too")
    if weights is None and names_a_scheme(str(source)) and str(source) != "demo":
        raise UsageError(f"{source} has random weights; give those of the original by --teacher-weights")
    return open_model(source, weights=weights, input_size=size).model

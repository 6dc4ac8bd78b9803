"""`tuckertree finetune`."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuckertree._base.errors import UsageError
from tuckertree.tools.cli import training_options as options
from tuckertree.tools.cli.app import command, print_json, print_table, stderr, with_command
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
    is_onnx,
    parse_size,
    prepared,
    refuse_options,
)

if TYPE_CHECKING:
    from torch import nn

    from tuckertree._base.names import TrustedName, UntrustedName
    from tuckertree.tools.opening import Sizes


@command
@options.takes_settings(epochs=10, lr=None, augment=None)
def finetune(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder saved by compress, or hf-hub:owner/name.")
    ],
    data: options.Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to save to.")],
    given: dict[str, Any],
    distill: Annotated[
        bool, typer.Option("--distill/--no-distill", help="Learn from the original too, if it is given.")
    ] = True,
    teacher: Teacher = None,
    teacher_weights: Annotated[
        Path | None, typer.Option(help="Weights of the original network, a .safetensors or .pt file.")
    ] = None,
    resume: options.Resume = False,
    checkpoint_steps: options.CheckpointSteps = None,
    test: options.Test = False,
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
    from tuckertree.io import check_output, local_folder, read_config, read_report
    from tuckertree.io.report import history_table
    from tuckertree.tools.data import open_images, open_training
    from tuckertree.tools.opening import open_model
    from tuckertree.tools.training import Settings, default_finetune_lr
    from tuckertree.tools.training import finetune as run

    if is_onnx(folder):
        raise UsageError(
            f"{folder} is an ONNX file, which cannot be trained; `tuckertree compress --tune 5min` tunes one as it is made"
        )
    check_output(output, overwrite=overwrite)
    folder = local_folder(folder)
    config, known_report = read_config(folder), read_report(folder)
    size = parse_size(input_size)
    opened = open_model(folder, architecture=architecture, input_size=size)
    opened = prepared(opened, mean=mean, std=std, scale=scale, channels=channels)
    images = open_training(data, opened.preprocessing)
    if given["lr"] is None:
        seen = min(len(images), given["limit_train"] or len(images)) * (1 - given["validation"])
        steps = int(given["epochs"] * seen / max(given["batch_size"], 1))
        given["lr"] = default_finetune_lr(steps, given["optimizer"])
    given["augment"] = given["augment"] or options.default_augmentation(opened.preprocessing)
    settings = Settings(**given, distill=Settings.distill if distill else 0.0)
    if not distill:
        refuse_options(
            "cannot be combined with --no-distill", teacher=teacher, teacher_weights=teacher_weights
        )
    original = None
    if distill:
        original = original_network(
            teacher, teacher_weights, architecture or config.architecture, size or config.input_size
        )
        if original is None:
            stderr.print(
                "training without distillation: give the original network by --teacher-weights FILE",
                soft_wrap=True,
            )
    test_images = open_images(data, opened.preprocessing, split="test") if test else None
    with options.unfinished(output, resume=resume, overwrite=overwrite) as partial:
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
        tested = options.tested(outcome.model, test_images, device)
        known = None if config.architecture is None else str(config.architecture)
        done = replace(
            outcome,
            plan=config.plan,
            architecture=known,
            input_size=config.input_size,
            report={**known_report, "commands": with_command(known_report)},
        )
        done.save(output, overwrite=overwrite)
        shutil.move(partial / "logs", output / "logs")
    if as_json:
        print_json(options.summary(done, tested, output))
    else:
        print_table(history_table(done.history))
        options.print_totals(done, tested, output)
    options.fail_if_diverged(done)


def original_network(
    name: TrustedName | None,
    weights: Path | None,
    architecture: TrustedName | UntrustedName | None,
    size: Sizes,
) -> nn.Module | None:
    """The original network, or None if nobody says what its weights are."""
    from tuckertree.tools.opening import is_untrained, open_model

    if name is None and weights is None:
        return None
    source = name or architecture
    if source is None:
        raise UsageError("the folder does not name its architecture; give the original by --teacher too")
    if is_untrained(source, weights):
        raise UsageError(f"{source} has random weights; give those of the original by --teacher-weights")
    return open_model(source, weights=weights, input_size=size).model

"""Options of the commands that train, and the run they share."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from tuckertree._base.errors import DivergedError, TuckertreeError
from tuckertree.tools.cli.app import stdout
from tuckertree.tools.settings import Settings

if TYPE_CHECKING:
    from torch import nn

    from tuckertree.measure import Accuracy
    from tuckertree.tools.data import ImageSet, Preprocessing
    from tuckertree.tools.training import Outcome

Data = Annotated[
    str, typer.Option(help="Training images: folder, .parquet file, demo, hf:NAME or hf:NAME?streaming.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run that was interrupted.")]
CheckpointSteps = Annotated[
    int | None, typer.Option(help="Write a checkpoint after so many steps too, not each epoch alone.", min=1)
]
Test = Annotated[bool, typer.Option("--test", help="Measure the test split once, at the end.")]

_NOT_OFFERED = ("momentum", "distill", "temperature", "strategy", "balance_factors", "admm_rho", "admm_every")
NAMED = {"limit_train": ("--data-images", "--limit-train")}
"""Options of settings that are not named as these."""


def takes_settings(*more: str, **defaults: object) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each setting that it offers; their values come as ``given``, by name.

    The help of an option is what the docstring of :class:`Settings` says of the field.

    Parameters
    ----------
    more
        Settings that this command offers beside those that all do.
    defaults
        Defaults other than the settings' own; None for what the command itself decides on.
    """
    described = dict(re.findall(r"(?m)^(\w+)\n((?: {4}.*\n?)+)", inspect.cleandoc(Settings.__doc__ or "")))
    names = [f.name for f in fields(Settings) if f.name in more or f.name not in _NOT_OFFERED]
    kinds = get_type_hints(Settings)

    def option(name: str) -> inspect.Parameter:
        text = re.sub(r" \(:func:.*?\)|`", "", " ".join(described.get(name, "").split()))
        default = defaults.get(name, getattr(Settings, name, None))
        kind = kinds[name] | None if default is None else kinds[name]
        offered: object = Annotated[kind, typer.Option(*NAMED.get(name, ()), help=text)]
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=offered)

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        parameters: list[inspect.Parameter] = []
        for own in inspect.signature(command, eval_str=True).parameters.values():
            parameters += map(option, names) if own.name == "given" else [own.replace(kind=own.KEYWORD_ONLY)]

        @functools.wraps(command)
        def run(**values: object) -> None:
            command(given={name: values.pop(name) for name in names}, **values)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorated


def default_augmentation(preprocessing: Preprocessing) -> str:
    """What suits the size of the images."""
    whole = preprocessing.resize in (None, min(preprocessing.size))
    return "flip-crop" if whole else "imagenet"


@contextlib.contextmanager
def unfinished(output: Path, *, resume: bool, overwrite: bool) -> Iterator[Path]:
    """The folder beside an output in which its run is kept until it is finished, or has diverged.

    Raises
    ------
    TuckertreeError
        If there is one already that is neither to be resumed nor to be replaced, or another program is at work in it.
    """
    from tuckertree._base.atomic import claimed

    folder = output.with_name(output.name + ".partial")
    if folder.exists() and not resume and not overwrite:
        raise TuckertreeError(
            f"{folder} holds an unfinished run; pass --resume to go on with it, or --overwrite to drop it"
        )
    with claimed(folder):
        if not resume:
            _clear(folder)
        try:
            yield folder
        except DivergedError:
            _clear(folder)
            raise
        _clear(folder)


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def tested(model: nn.Module, images: ImageSet | None, device: str) -> Accuracy | None:
    """Accuracy on test images, if there are any, measured on a device; the model is on the CPU before and after."""
    from tuckertree._base.progress import progress_bar
    from tuckertree.measure import evaluate
    from tuckertree.tools.data import batches

    if images is None:
        return None
    with progress_bar() as tick:
        found = evaluate(model.to(device), batches(images, 128), device=device, images=len(images), tick=tick)
    model.cpu()
    return found


def fail_if_diverged(outcome: Outcome) -> None:
    """End with the exit code 1 where the run did not come to its end; what it had is saved."""
    if outcome.diverged:
        raise typer.Exit(1)


def summary(outcome: Outcome, test: Any, output: Path) -> dict[str, object]:
    """What a run gave, as JSON data."""
    tested: dict[str, object] = {}
    if test is not None:
        tested = {
            "test_top1": test.top1,
            "test_top1_interval": list(test.top1_interval),
            "test_images": test.images,
        }
    return {**outcome.record(), **tested, "output": str(output)}


def print_totals(outcome: Outcome, test: Any, output: Path) -> None:
    """The last lines for a person."""
    last = outcome.history[-1]
    stdout.print(f"data        {outcome.data}", soft_wrap=True, highlight=False)
    stdout.print(f"distilled   {'yes' if outcome.distilled else 'no'}")
    stdout.print(f"seconds     {outcome.seconds:.1f}")
    if "validation_top1" in last:
        stdout.print(f"validation  {last['validation_top1']:.2f} %")
    if outcome.diverged:
        stdout.print(
            f"diverged    in epoch {len(outcome.history) + 1}; the weights of the epoch before are kept"
        )
    if test is not None:
        stdout.print(f"test        {test.text()} of {test.images} images")
    stdout.print(f"saved       {output}", soft_wrap=True)

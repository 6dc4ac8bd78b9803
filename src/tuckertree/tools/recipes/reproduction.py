"""A recipe run: compress, train, measure, and keep what is needed to repeat it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from tuckertree._base.atomic import Kind, atomic_folder, check_free, claimed
from tuckertree._base.errors import TuckertreeError
from tuckertree._base.names import UntrustedName
from tuckertree._base.progress import progress_bar
from tuckertree.compression import CompressionResult, Stopwatch, compress
from tuckertree.io import save_folder
from tuckertree.measure import Accuracy, count_macs, count_parameters, environment, evaluate
from tuckertree.network.surgery import to_dense
from tuckertree.planning import Budget
from tuckertree.tools.data import ImageSet, batches, open_images
from tuckertree.tools.opening import OpenModel, open_model
from tuckertree.tools.recipes.energies import energy_for
from tuckertree.tools.recipes.reading import LoadedRecipe
from tuckertree.tools.recipes.results import FORMAT
from tuckertree.tools.recipes.run import Run, Start
from tuckertree.tools.recipes.schema import Compression, Paper, Recipe, RecipeStage
from tuckertree.tools.training import Outcome, finetune

RESULT, MODEL = "result.json", "model"
REPRODUCED = Kind(RESULT, {"format": int, "recipe": dict}, frozenset({RESULT, MODEL}))
_EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Reproduction:
    """A recipe that was run.

    Attributes
    ----------
    model
        The network at the end of the last stage.
    result
        What ``result.json`` holds: recipe, overrides, seed, plan, reductions, accuracies, machine, seconds.
    output
        The folder: ``result.json`` and, in ``model``, the saved network.
    paper
        What was published.
    """

    model: nn.Module
    result: Mapping[str, Any]
    output: Path
    paper: Paper


def reproduce(
    loaded: LoadedRecipe,
    data: str | Path,
    *,
    output: str | Path,
    weights: Path | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    resume: bool = False,
    progress: bool | None = None,
) -> Reproduction:
    """Carry a recipe out.

    The network with its trained weights is compressed and fine-tuned, stage by stage, with the original as the
    teacher. Test images are looked at twice, at the very end: by the original and by the final network.

    Parameters
    ----------
    loaded
        From :func:`load_recipe`.
    data
        Images with a split ``train`` and the one to test on, as :func:`tuckertree.tools.data.open_images` reads them.
    output
        Folder to write; it appears whole, at the end. Until then checkpoints stand beside it, in
        ``OUTPUT.partial``.
    weights
        A safetensors file, or the folder that has the file of the recipe's name; by default ``models`` beside ``data``.
    device
        Torch device to compress, train and measure on.
    overwrite
        Whether a folder that an earlier run wrote may be replaced, and checkpoints of an unfinished one.
    resume
        Go on from the checkpoints of an interrupted run, if there are any.
    progress
        Draw a progress bar on stderr; by default where stderr is a terminal.

    Raises
    ------
    UsageError, TuckertreeError
        If weights or images are missing or do not fit the network, or the folder cannot be written.
    UnreachableTargetError
        If the network cannot be reduced so far.
    """
    output = Path(output)
    check_free(output, kind=REPRODUCED, overwrite=overwrite)
    recipe = loaded.recipe
    file = find_weights(recipe, data, weights)
    opened = open_model(UntrustedName(recipe.network), weights=file, device=device)
    if recipe.data.preprocessing is not None:
        opened = replace(opened, preprocessing=recipe.data.preprocessing)
    train = open_images(data, opened.preprocessing, split="train")
    test = open_images(data, opened.preprocessing, split=recipe.data.test_split)
    weights_sha256 = _sha256(file) if file else None
    run = Run(output.with_name(output.name + ".partial"), resume, device, progress)
    with claimed(run.checkpoints):
        if overwrite and not resume:
            run.clear(len(recipe.steps))
        model, stages, stopwatch = opened.model, [], Stopwatch()
        for number, stage in enumerate(recipe.steps):
            made_by = [asdict(each.compression) for each in recipe.steps[: number + 1]]
            compressed = run.start(
                number,
                {"compressions": made_by, "weights": weights_sha256},
                to_dense(model),
                partial(_compress, stage.compression, opened=opened, data=data, progress=progress),
            )
            stopwatch.lap(f"stages.{number}.compression")
            outcome = _train(number, stage, compressed, opened, train, run)
            stopwatch.lap(f"stages.{number}.training")
            model = outcome.model.to(opened.example.device) if outcome else compressed.model
            stages.append(
                {
                    "rule": compressed.plan.rule,
                    "relative_error": compressed.relative_error,
                    "plan": compressed.plan.to_json(),
                    "training": _record(outcome, train) if outcome else None,
                }
            )
            if outcome and outcome.diverged:
                break  # no stage goes on from weights that were diverging
        with progress_bar(progress) as tick:
            before, after = (
                evaluate(tested, batches(test, _EVALUATION_BATCH), device=device, images=len(test), tick=tick)
                for tested in (opened.model, model)
            )
        stopwatch.lap("evaluation")
        example = opened.example
        result = {
            "format": FORMAT,
            "recipe": {"id": recipe_id(loaded.path), "sha256": loaded.sha256, "text": loaded.text},
            "schedule": _schedule(loaded),
            "overrides": dict(loaded.overrides),
            "seeds": [stage.training.seed for stage in recipe.steps if stage.training],
            "weights": {"name": file.name, "sha256": weights_sha256} if file else None,
            "train_images": len(train),
            "test_images": len(test),
            "original": _measured(before, opened.model, example),
            "compressed": _measured(after, model, example),
            "stages": stages,
            "seconds": stopwatch.seconds,
            "device": device,
            "environment": environment(),
        }
        text = json.dumps(result, indent=1, default=list) + "\n"
        with atomic_folder(output, kind=REPRODUCED, overwrite=overwrite) as folder:
            save_folder(
                folder / MODEL,
                model,
                compressed.plan,
                architecture=recipe.network,
                input_size=tuple(opened.example.shape[1:]),
                report={name: result[name] for name in ("original", "compressed", "seconds")},
            )
            (folder / RESULT).write_text(text, encoding="utf-8")
        run.clear(len(recipe.steps))
        return Reproduction(model, json.loads(text), output, recipe.paper)


def find_weights(recipe: Recipe, data: str | Path, weights: Path | None = None) -> Path | None:
    """Find the file of a recipe's weights: the one given, or the one of its name in ``models`` beside ``data``.

    Parameters
    ----------
    weights
        The file, or a folder to look in.

    Returns
    -------
    Path or None
        None for a network whose weights are packaged.

    Raises
    ------
    TuckertreeError
        If there is no such file; the message says where it was looked for.
    """
    folder = Path(data).absolute().parent / "models"
    if weights is not None and weights.is_dir() and recipe.weights is not None:
        folder = weights
    elif weights is not None or recipe.weights is None:
        return weights
    found = folder / recipe.weights
    if not found.is_file():
        advice = f" ({recipe.weights_from})" if recipe.weights_from else ""
        raise TuckertreeError(
            f"{found} is not there; give the weights of {recipe.network} by --weights{advice}"
        )
    return found


def _schedule(loaded: LoadedRecipe) -> dict[str, str] | None:
    if (given := loaded.schedule) is None:
        return None
    return {"name": given.schedule.name, "sha256": given.sha256, "text": given.text}


def recipe_id(path: Path) -> str:
    """Name of a recipe in tables: ``cifar10/resnet20-3.8x``."""
    return f"{path.absolute().parent.name}/{path.stem}"


def _compress(
    wanted: Compression, model: nn.Module, *, opened: OpenModel, data: str | Path, progress: bool | None
) -> CompressionResult:
    rule = wanted.rule()
    if rule is None:
        assert wanted.energy_for is not None  # the schema lets nothing else through
        reduction = Budget(params=wanted.energy_for.params, macs=wanted.energy_for.macs)
        with progress_bar(progress) as tick:
            rule = energy_for(model, opened.example, reduction, wanted.options(), tick=tick)
    images: ImageSet | None = None
    if wanted.calibration:
        images = open_images(data, opened.preprocessing, split="train", limit=wanted.calibration)
    return compress(
        model,
        opened.example,
        rule,
        include=wanted.include,
        exclude=wanted.exclude,
        first=wanted.first,
        round_to=wanted.round_to,
        calibration=images,
        objective=wanted.objective,
        tune=wanted.tune or None,
        progress=progress,
    )


def _train(
    number: int,
    stage: RecipeStage,
    compressed: Start,
    opened: OpenModel,
    train: ImageSet,
    run: Run,
) -> Outcome | None:
    if stage.training is None:
        return None
    folder = run.checkpoints / f"stage-{number}"
    return finetune(
        compressed.model,
        train,
        stage.training,
        teacher=opened.model,
        output=folder,
        resume=run.resume and folder.is_dir(),
        device=run.device,
        progress=run.progress,
    )


def _record(outcome: Outcome, images: ImageSet) -> dict[str, object]:
    """How a network was trained, without the folder that the images happened to be in."""
    record = outcome.record()
    return {**record, "data": record["data"].removeprefix(f"{images.source}: ")}


def _measured(accuracy: Accuracy, model: nn.Module, example: Any) -> dict[str, object]:
    return {
        "parameters": count_parameters(model),
        "macs": count_macs(model, example),
        "top1": accuracy.top1,
        "top5": accuracy.top5,
    }


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

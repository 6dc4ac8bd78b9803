"""Results of runs of recipes, as the page of results reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuckertree._base.errors import TuckertreeError
from tuckertree._base.reading import read_json
from tuckertree.tools.recipes.reading import LoadedRecipe, load_schedule

FORMAT = 1
# How a run is carried out, which the recipe leaves open. The settings of each run are in its result.
_OPEN = ("seed", "precision", "compile", "channels_last", "workers", "devices", "strategy")
_LEFT_OPEN = re.compile(rf"(stages\.\d+\.)?training\.({'|'.join(_OPEN)})")


@dataclass(frozen=True)
class RecipeResult:
    """One result of a recipe.

    Attributes
    ----------
    data
        What ``result.json`` holds.
    shortened
        In what it is not a run of the whole recipe; empty if it is one.
    """

    data: Mapping[str, Any]
    shortened: tuple[str, ...]

    @property
    def schedule(self) -> str | None:
        """Name of the schedule it was carried out by, or None for the recipe's own."""
        given = self.data.get("schedule")
        return None if given is None else str(given["name"])

    @property
    def change(self) -> float:
        """Of top-1, in points."""
        return float(self.data["compressed"]["top1"] - self.data["original"]["top1"])

    def fewer(self, kind: str) -> float:
        """Factor by which ``parameters`` or ``macs`` are fewer."""
        return float(self.data["original"][kind] / self.data["compressed"][kind])


def read_result(path: Path, loaded: Mapping[str, LoadedRecipe]) -> tuple[str, RecipeResult]:
    """Read a result; gives the name of its recipe, too.

    Raises
    ------
    TuckertreeError
        If it is none, or of a recipe that is not among those loaded.
    """
    try:
        data = read_json(path)
        if data["format"] != FORMAT:
            raise TuckertreeError(f"{path} has format {data['format']}, not {FORMAT}")
        name = data["recipe"]["id"]
        if name not in loaded:
            raise TuckertreeError(f"{path} is a result of {name}, which is no recipe here; remove it")
        run = RecipeResult(data, tuple(_shortened(data, loaded[name])))
        # What the tables need is asked for here, where the file is known.
        float(run.change + run.fewer("parameters") + run.fewer("macs") + sum(data["seconds"].values()))
        float(data["original"]["top5"] + data["compressed"]["top5"])
        str(data["device"])
        if run.schedule is not None:
            str(data["environment"]["processor"])
            [stage["training"]["settings"]["epochs"] for stage in data["stages"]]
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise TuckertreeError(f"{path} is not a result of tuckertree reproduce: {error!r}") from error
    return name, run


def _shortened(data: Mapping[str, Any], loaded: LoadedRecipe) -> Iterator[str]:
    """In what a result is not that of the whole recipe as it is now."""
    short = _changes(data, loaded)
    if (first := next(short, None)) is not None:
        schedule = data.get("schedule")
        yield from ([f"schedule {schedule['name']}"] if schedule else [])
        yield first
        yield from short


def _changes(data: Mapping[str, Any], loaded: LoadedRecipe) -> Iterator[str]:
    for key, value in data["overrides"].items():
        if not _LEFT_OPEN.fullmatch(key):
            yield f"{key} {value}"
    for split, wanted in (
        ("train", loaded.recipe.data.train_images),
        ("test", loaded.recipe.data.test_images),
    ):
        if data[f"{split}_images"] != wanted:
            yield f"{data[f'{split}_images']:,} {split} images"
    if any((stage["training"] or {}).get("diverged") for stage in data["stages"]):
        yield "the training diverged"
    if data["recipe"]["sha256"] != loaded.sha256:
        yield "the recipe has changed since"
    if schedule := data.get("schedule"):
        now = load_schedule(loaded.path, schedule["name"])
        if now.sha256 != schedule["sha256"]:
            yield f"the schedule {schedule['name']} has changed since"

"""The page that sets what was published beside what was measured here, from recipes and results alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuckertree.tools.recipes.reading import LoadedRecipe, load_recipe
from tuckertree.tools.recipes.reproduction import Reproduction, recipe_id
from tuckertree.tools.recipes.results import RecipeResult, read_result
from tuckertree.tools.recipes.schema import Baseline, Paper

NOT_RUN = "not run"
_HEAD = """# The paper's tables, repeated

Each row is a recipe in `recipes`, run by `tuckertree reproduce RECIPE --data DATA`. This page is made by
`python scripts/reproduction_page.py` from the recipes and from the results in `docs/results/reproduction`, and
from nothing else. A row without a result of the whole recipe says "{not_run}".

- Factors say how many times fewer parameters and MACs the whole network has. Ours are by our own counts of our
  network, the paper's by its own: read off its charts, FLOPs to about 3 %.
- Runs may differ from the recipe in the seed and in what suits a machine (precision, compilation, memory layout,
  workers, devices); each result keeps all settings. Several runs of one recipe are all given, none is picked.
- Changes are in points of top-1 after fine-tuning, ours against the weights we started from, the paper's against
  its own baselines, so networks differ as well as methods. The paper's epoch is the best on the test images. Ours is
  the last, and test images are looked at once, at the end.
- Ranks are those of one energy for the network, as in the paper, but of the energy that reduces our weights as far
  as the row: at equal energy other weights are reduced otherwise. The paper's rows are matched in parameters; where
  our network then has relatively more MACs, as ResNet-56 and VGG-19 have, the comparison is in parameters alone.
- Our VGG-19-BN is far more compressible than the paper's network: 15.5 times fewer parameters at energy 0.8, where
  the paper has 1.47. Its rows at the paper's reductions are a lighter task than the paper's.
"""


def reproduction_page(recipes: str | Path, results: str | Path) -> str:
    """Write the page.

    Parameters
    ----------
    recipes
        Folder of folders of recipes.
    results
        Folder of results, each a copy of the ``result.json`` of a run.

    Returns
    -------
    str
        Markdown. The same files give the same text.

    Raises
    ------
    UsageError, TuckertreeError
        If a file is no recipe or no result, or a result is of a recipe that is not there. One line, with the file.
    """
    loaded = {
        recipe_id(path): load_recipe(path) for path in sorted(Path(recipes).glob("*/*.yaml"), key=_order)
    }
    runs: dict[str, list[RecipeResult]] = {name: [] for name in loaded}
    for path in sorted(Path(results).glob("*.json")):
        name, run = read_result(path, loaded)
        runs[name].append(run)
    full = {name: [run for run in found if not run.shortened] for name, found in runs.items()}
    whole = {name: [run for run in found if run.schedule is None] for name, found in full.items()}
    parts = [_HEAD.format(not_run=NOT_RUN)]
    for folder, title in (("cifar10", "CIFAR-10"), ("imagenet", "ImageNet")):
        rows = [name for name in loaded if name.startswith(f"{folder}/")]
        if rows:
            parts.append(f"## {title}\n\n" + _table(_PAPER_COLUMNS, _paper_rows(rows, loaded, whole)))
    scheduled = list(_schedule_rows(loaded, full))
    if scheduled:
        parts.append(_SCHEDULES + _table(_SCHEDULE_COLUMNS, scheduled))
    rivals = list(_rival_rows(loaded, whole))
    if rivals:
        parts.append(
            "## Other methods on the same networks\n\nEach stands beside a recipe whose reduction is at least as great.\n\n"
            + _table(_RIVAL_COLUMNS, rivals)
        )
    parts.append(
        "## Shortened and changed runs\n\nNot results of the recipes: they show that it works from end to end, on fewer "
        "epochs, fewer images\nor other settings, as the second column says.\n\n"
        + (_table(_SHORT_COLUMNS, list(_short_rows(runs))) if any(_short_rows(runs)) else "None.\n")
    )
    notes = list(_notes(loaded))
    if notes:
        parts.append("## Notes of the recipes\n\n" + "\n".join(notes) + "\n")
    return "\n".join(parts)


def result_lines(done: Reproduction) -> Iterator[str]:
    """A result in a few lines, for the terminal."""
    run = RecipeResult(done.result, ())
    before, after = done.result["original"], done.result["compressed"]
    yield f"recipe      {done.result['recipe']['id']}"
    for kind, label in (("parameters", "parameters"), ("macs", "MACs")):
        yield f"{label:<11} {before[kind]:,} -> {after[kind]:,}, {run.fewer(kind):.2f}x"
    yield f"top-1       {before['top1']:.2f} -> {after['top1']:.2f} %, {_signed(run.change)} points"
    yield f"published   {_published(done.paper)}"
    for name, value in done.result["overrides"].items():
        yield f"changed     {name} = {value}"
    yield f"saved       {done.output}"


_PAPER_COLUMNS = (
    "recipe",
    "row",
    ">paper's params",
    ">MACs",
    ">top-1",
    ">epochs",
    ">our params",
    ">our MACs",
    ">dense top-1",
    ">our top-1",
    ">our epochs",
)
_SCHEDULES = """## The same rows by other schedules

The network is reduced as far as the row, in parameters and in MACs, by a budget fitted to unlabelled training images and tuned, and
then trained for less long, by `tuckertree reproduce RECIPE --schedule NAME` (`recipes/schedule-NAME.yaml`).

"""
_SCHEDULE_COLUMNS = (
    "recipe",
    "schedule",
    ">paper's top-1",
    ">our params",
    ">our MACs",
    ">dense top-1",
    ">our top-1",
    ">epochs",
    ">seed",
    "machine",
    ">hours",
)
_RIVAL_COLUMNS = (
    "recipe",
    "method",
    ">params",
    ">MACs",
    ">top-1",
    ">top-5",
    ">our params",
    ">our MACs",
    ">our top-1",
    ">our top-5",
)
_SHORT_COLUMNS = (
    "recipe",
    "changed",
    ">params",
    ">MACs",
    ">dense top-1",
    ">then",
    ">change",
    "device",
    ">seconds",
)


def _paper_rows(
    names: Sequence[str], loaded: Mapping[str, LoadedRecipe], runs: Mapping[str, Sequence[RecipeResult]]
) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name in names:
        recipe = loaded[name].recipe
        paper = recipe.paper
        published = (
            _factor(paper.params),
            _factor(paper.macs),
            _change(paper.top1_change),
            _text(paper.epochs),
        )
        epochs = " + ".join(str(stage.training.epochs) for stage in recipe.steps if stage.training) or "0"
        ours = (*_ours(runs[name]), _each(f"{run.data['original']['top1']:.2f}" for run in runs[name]))
        ours = (ours[0], ours[1], ours[3], ours[2]) if runs[name] else (NOT_RUN, "", "", "")
        rows.append((name, recipe.source.row, *published, *ours, epochs))
    return rows


def _machine(data: Mapping[str, Any]) -> str:
    """What a run was on: the GPU, or the processor."""
    known = data["environment"]
    return str(known.get("gpu", data["device"]) if data["device"] != "cpu" else f"cpu, {known['processor']}")


def _schedule_rows(
    loaded: Mapping[str, LoadedRecipe], runs: Mapping[str, Sequence[RecipeResult]]
) -> Iterator[tuple[str, ...]]:
    """One for each run by a schedule."""
    for name, found in runs.items():
        for run in found:
            if run.schedule is None:
                continue
            trained = [stage["training"]["settings"]["epochs"] for stage in run.data["stages"]]
            yield (
                name,
                run.schedule,
                _change(loaded[name].recipe.paper.top1_change),
                *(f"{run.fewer(kind):.2f}x" for kind in ("parameters", "macs")),
                f"{run.data['original']['top1']:.2f}",
                _signed(run.change),
                " + ".join(map(str, trained)),
                " + ".join(map(str, run.data["seeds"])),
                _machine(run.data),
                f"{sum(run.data['seconds'].values()) / 3600:.1f}",
            )


def _rival_rows(
    loaded: Mapping[str, LoadedRecipe], runs: Mapping[str, Sequence[RecipeResult]]
) -> Iterator[tuple[str, ...]]:
    for name, found in loaded.items():
        for rival in found.recipe.rivals:
            changes = (_change(rival.top1_change), _change(rival.top5_change))
            own = (_factor(rival.params), _factor(rival.macs), *changes)
            five = _each(
                _signed(run.data["compressed"]["top5"] - run.data["original"]["top5"]) for run in runs[name]
            )
            ours = (*_ours(runs[name]), five) if runs[name] else (NOT_RUN, "", "", "")
            yield (name, rival.name, *own, *ours)


def _short_rows(runs: Mapping[str, Sequence[RecipeResult]]) -> Iterator[tuple[str, ...]]:
    for name, found in runs.items():
        for run in found:
            if run.shortened:
                before, after = run.data["original"]["top1"], run.data["compressed"]["top1"]
                yield (
                    name,
                    "; ".join(run.shortened),
                    f"{run.fewer('parameters'):.2f}x",
                    f"{run.fewer('macs'):.2f}x",
                    f"{before:.2f}",
                    f"{after:.2f}",
                    _signed(run.change),
                    run.data["device"],
                    f"{sum(run.data['seconds'].values()):.0f}",
                )


def _notes(loaded: Mapping[str, LoadedRecipe]) -> Iterator[str]:
    """Each note once, after the recipes that have it."""
    names: dict[str, list[str]] = {}
    for name, found in loaded.items():
        if found.recipe.note:
            names.setdefault(found.recipe.note, []).append(name)
        for rival in found.recipe.rivals:
            if rival.note:
                names.setdefault(rival.note, []).append(f"{name} ({rival.name})")
    for note, of in names.items():
        yield f"- {', '.join(of)}: {note}"


def _ours(runs: Sequence[RecipeResult]) -> tuple[str, str, str]:
    """Factors and change, of each run with a seed of its own."""
    factors = (_each(f"{run.fewer(kind):.2f}x" for run in runs) for kind in ("parameters", "macs"))
    return (*factors, _each(_signed(run.change) for run in runs))  # type: ignore[return-value]


def _order(path: Path) -> tuple[object, ...]:
    """By network, then by factor, both as numbers where they are: ResNet-20 before ResNet-110."""
    return tuple(
        (0, float(part), "") if part.replace(".", "", 1).isdigit() else (1, 0.0, part)
        for part in re.split(r"(\d+(?:\.\d+)?)", f"{path.parent.name}/{path.stem}")
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [
        "| " + " | ".join(column.removeprefix(">") for column in columns) + " |",
        "|" + "|".join("---:" if column.startswith(">") else "---" for column in columns) + "|",
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _published(paper: Paper | Baseline) -> str:
    said = [
        f"{_factor(value)} {what}"
        for value, what in ((paper.params, "params"), (paper.macs, "MACs"))
        if value
    ]
    if paper.top1_change is not None:
        said.append(f"{_signed(paper.top1_change)} points of top-1")
    return ", ".join(said) or "no numbers at hand"


def _each(texts: Iterator[str]) -> str:
    """Of each run; once, where all are the same."""
    found = list(texts)
    return found[0] if len(set(found)) == 1 else ", ".join(found)


def _factor(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def _change(value: float | None) -> str:
    return "" if value is None else _signed(value)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _signed(points: float) -> str:
    return f"{round(points, 2) + 0.0:+.2f}"

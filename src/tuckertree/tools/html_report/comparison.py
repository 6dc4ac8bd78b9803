"""The page of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree._base.reading import read_json
from tuckertree.tools.comparison import Outcome, Score
from tuckertree.tools.comparison.folder import KIND, MARKER, ResultsFolder
from tuckertree.tools.html_report.content import (
    Column,
    Lines,
    Page,
    Plot,
    Section,
    Series,
    Table,
    View,
    listed,
)


def is_comparison(path: Path) -> bool:
    """Whether a folder is one of `tuckertree compare`."""
    return (path / MARKER).exists() and KIND.marks(path)


def comparison_page(path: Path) -> Page:
    """What a comparison found.

    Raises
    ------
    TuckertreeError
        If it is damaged, or has no result yet.
    """
    marker = read_json(path / MARKER)
    names = [*marker["methods"], *marker["budgets"]]
    if not all(isinstance(name, str) for name in names):
        raise TuckertreeError(f"{path / MARKER} is damaged: methods and budgets are names")
    results = ResultsFolder(path, marker["settings"], marker["methods"], marker["budgets"])
    try:
        outcomes = results.outcomes()
        missing = len(results.cells) - len(outcomes)
    except UsageError as error:  # nobody typed it
        raise TuckertreeError(f"{path / MARKER} is damaged: {error}") from error
    if not outcomes or outcomes[0].method != "dense":
        raise TuckertreeError(f"{path} has no results yet; the same compare goes on with it")
    settings, environment = marker["settings"], marker.get("environment")
    model = str(settings.get("model", path.name))
    kept = [each for each in outcomes if not each.failed]
    return Page(
        title=f"{model}: ways to compress it",
        verdict=_verdict(outcomes[0], [each for each in kept[1:] if _score(each) is not None]),
        origin=f"{path.name}, {len(kept) - 1} networks compared with {model}",
        warnings=[f"{each.method} {each.budget}: {line}" for each in kept for line in each.warnings],
        missing=[
            *(
                []
                if any(each.latency for each in kept)
                else ["Latency: `compare --runtime onnxruntime` measures it."]
            ),
            *([f"{missing} networks: the same command makes them."] if missing else []),
        ],
        sections=[
            _fronts(outcomes[0], kept),
            _table(outcomes),
            _repeat(settings, environment if isinstance(environment, dict) else {}),
        ],
    )


def _score(outcome: Outcome) -> float | None:
    """Top-1 in percent, less the distance, or what else networks are scored by: more is better."""
    score = outcome.tuned or outcome.score
    first = None if score is None else _first(score)
    return -first if first is not None and score and score.distance is not None else first


def _first(score: Score) -> float | None:
    """The number that networks are compared by."""
    return next(iter(score.numbers.values()), None)


def _verdict(original: Outcome, found: Sequence[Outcome]) -> str:
    if not found:
        return "no method gave a network"
    best = max(found, key=lambda each: (_score(each) or 0.0, -each.macs))
    score = best.tuned or best.score
    assert score is not None
    times = f"{original.macs / max(best.macs, 1):.1f}x fewer MACs"
    first = _score(original)
    if score.top1 is not None and first is not None:
        half = ((score.high or 0) - (score.low or 0)) / 2
        what = f"top-1 {first:.1f} -> {score.top1:.1f} \N{PLUS-MINUS SIGN} {half:.1f}"
    elif score.distance is not None:
        what = f"outputs {score.distance:.1%} from the original's"
    else:
        what = f"{score.name} {original.score} -> {score}"
    return f"nearest to the original is {best.method} at {best.budget}: {times}, {what}"


def _fronts(original: Outcome, kept: Sequence[Outcome]) -> Section:
    name = next((each.score.name for each in kept if each.score is not None), "distance")
    by_distance = name == "distance"
    label = {"top-1": "top-1 in percent", "distance": "distance of the outputs"}.get(
        name, name.split(" / ")[0]
    )
    views = []
    for name, cost in (
        ("time", lambda each: each.latency and each.latency.ratio and 1 / each.latency.ratio),
        ("MACs", lambda each: original.macs / max(each.macs, 1)),
        ("parameters", lambda each: original.parameters / max(each.parameters, 1)),
    ):
        series = _series(kept, cost)
        if series:
            series.append(_front_of(series, by_distance=by_distance))
            views.append(View(f"times less {name}", Column(label, "number"), series))
    plot = Plot("Accuracy against size", "points", Column("times less", "ratio"), views)
    bars = "; bars are 95 % intervals" if name == "top-1" else ""
    text = f"{'Down' if by_distance else 'Up'} and to the right is better{bars}."
    return Section("front", "All networks", text, [plot] if views else [])


def _front_of(series: Sequence[Series], *, by_distance: bool) -> Series:
    """The line through what nothing else is better than in both; budgets are kept to a hundredth."""
    points = [
        (x, y) for one in series for x, y in zip(one.x or (), one.y, strict=True) if x and y is not None
    ]
    front: list[tuple[float, float]] = []
    for x, y in sorted(
        points, key=lambda point: (-round(point[0], 2), point[1] if by_distance else -point[1])
    ):
        if not front or (y < front[-1][1] if by_distance else y > front[-1][1]):
            front.append((x, y))
    return Series("Pareto front", [y for _, y in front], [x for x, _ in front], line=True)


def _series(kept: Sequence[Outcome], cost: Any) -> list[Series]:
    found = []
    for tuned in (False, True):
        for method in dict.fromkeys(each.method for each in kept):
            own = [(each, each.tuned if tuned else each.score) for each in kept if each.method == method]
            shown = [
                (each, score, x) for each, score in own if score is not None and (x := cost(each) or None)
            ]
            if not shown:
                continue
            y = [_first(score) for _, score, _ in shown]
            low, high = ([getattr(score, side) for _, score, _ in shown] for side in ("low", "high"))
            bars = (None, None) if None in low else (low, high)
            names = [f"{each.method} {each.budget}" for each, _, _ in shown]
            xs = [float(x) for _, _, x in shown]
            name = f"{method}, tuned" if tuned else method
            found.append(Series(name, y, xs, names, *bars))
    return found


def _table(outcomes: Sequence[Outcome]) -> Section:
    first = outcomes[0]
    others = list(first.score.others) if first.score else []
    columns = [
        Column("method"),
        Column("budget"),
        Column("MACs", "count"),
        Column("times less", "ratio"),
        Column("parameters", "count"),
        Column("times less", "ratio"),
        Column("top-1", "number"),
        Column("low", "number"),
        Column("high", "number"),
        Column("distance", "share"),
        *(Column(name, "number") for name in others),
        Column("tuned", "number"),
        Column("ms", "milliseconds"),
        Column("times faster", "ratio"),
        Column("seconds", "number"),
        Column("remark"),
    ]
    rows = [_row(each, first, others) for each in outcomes]
    table = Table("Each network", columns, rows, search=True).filled()
    return Section("table", "In numbers", "", [table])


def _row(each: Outcome, first: Outcome, others: Sequence[str]) -> list[str | float | None]:
    if each.failed:
        return [each.method, each.budget, *[None] * (12 + len(others)), each.failed]
    score, tuned, latency = each.score, each.tuned, each.latency
    return [
        each.method,
        each.budget,
        each.macs,
        first.macs / max(each.macs, 1),
        each.parameters,
        first.parameters / max(each.parameters, 1),
        *((score.top1, score.low, score.high, score.distance) if score else [None] * 4),
        *(score.others.get(name) if score else None for name in others),
        None if tuned is None else _first(tuned),
        None if latency is None else latency.seconds,
        None if latency is None or not latency.ratio else 1 / latency.ratio,
        each.seconds,
        "; ".join(each.warnings),
    ]


def _repeat(settings: Mapping[str, Any], environment: Mapping[str, Any]) -> Section:
    return Section(
        "repeat",
        "How to repeat it",
        "All networks were made alike.",
        [Lines(listed({**settings, **environment}))],
    )

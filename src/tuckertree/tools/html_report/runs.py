"""What was tried and trained: an accuracy, precisions, distances by layer, tuning and training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tuckertree.compression import DistanceByLayer, Sensitivity
from tuckertree.compression.int8 import InPrecision
from tuckertree.tools.html_report.content import (
    Block,
    Column,
    Lines,
    Plot,
    Section,
    Series,
    Table,
    View,
    listed,
)
from tuckertree.tools.html_report.reading import Known, Quantized, Search, Step, Trained, Tuned

_CURVES = {
    "loss": ("train_loss", "validation_loss"),
    "top-1 in percent": ("train_top1", "validation_top1"),
    "learning rate": ("learning_rate",),
    "truncation error": ("truncation_error",),
}


def run_sections(known: Known) -> Iterator[Section]:
    """Sections for what there is."""
    if known.accuracy is not None:
        yield _search(known.accuracy)
    if known.int8 is not None or known.precisions:
        yield _precisions(known.precisions, known.int8)
    if known.by_layer is not None and known.by_layer.rises:
        yield _by_layer(known.by_layer, stale=known.training is not None)
    if known.sensitivity is not None and known.sensitivity.layers:
        yield _sensitivity(known.sensitivity)
    if known.tuning is not None:
        yield _tuning(known.tuning)
    if known.training is not None:
        yield _training(known.training)


def _search(found: Search) -> Section:
    scale, unit = (1.0, "points of top-1 lost") if found.loss.kind == "top1" else (100.0, "lost, in percent")
    steps = [("search", step) for step in found.steps] + [("proof", step) for step in found.proofs]
    rows = [_step_row(what, step, scale) for what, step in steps]
    table = Table(
        "Networks that were tried",
        [
            Column("step"),
            Column("MACs", "ratio"),
            Column("parameters", "ratio"),
            Column("time", "ratio"),
            Column(unit, "number"),
            Column("low", "number"),
            Column("high", "number"),
            Column("little enough"),
        ],
        rows,
    ).filled()
    axis = next(
        (label for label, place in (("time", 3), ("MACs", 1)) if any(row[place] is not None for row in rows)),
        "MACs",
    )
    place = {"MACs": 1, "time": 3}[axis]
    series = []
    for name, what in (("on images to search with", "search"), ("on images that took no part", "proof")):
        own = [row for row in rows if row[0] == what and isinstance(row[place], float)]
        columns = [[_number(row[n]) for row in own] for n in (place, 4, 5, 6)]
        if own:
            series.append(Series(name, columns[1], columns[0], low=columns[2], high=columns[3]))
    most = "points of top-1" if scale == 1 else "percent"
    cheapest = {"macs": "the fewest MACs", "params": "the fewest parameters"}.get(
        found.cheapest, "the least time"
    )
    text = f"At most {found.limit * scale:g} {most} were to be lost, with {cheapest}."
    axes = Column(f"times less {axis}", "ratio"), [View(unit, Column(unit, "number"), series)]
    plot = Plot("What networks lose, with 95 % intervals", "points", *axes)
    return Section("accuracy", "The search for the accuracy", text, [*([plot] if series else []), table])


def _step_row(what: str, step: Step, scale: float) -> list[str | float | None]:
    loss = step.loss
    lost = (
        [None if loss is None or x is None else x * scale for x in (loss.lost, loss.low, loss.high)]
        if loss
        else []
    )
    return [
        what,
        None if step.macs is None else step.macs[0] / max(step.macs[1], 1),
        None if step.parameters is None else step.parameters[0] / max(step.parameters[1], 1),
        None if not step.latency else 1 / step.latency,
        *(lost or [None] * 3),
        "out of reach" if loss is None else "yes" if step.held else "no",
    ]


def _number(value: object) -> float | None:
    return value if isinstance(value, float) else None


def _precisions(tried: Sequence[InPrecision], int8: Quantized | None) -> Section:
    blocks: list[Block] = []
    columns = [
        Column("precision"),
        Column("times faster", "ratio"),
        Column("distance of the outputs", "share"),
        Column("keeps the target"),
    ]
    rows = [
        [
            one.precision,
            1 / one.measured if 1e-6 <= one.measured <= 1e6 else None,
            one.distance,
            "as it is" if one.unchanged else "yes" if one.kept else "no",
        ]
        for one in tried
    ]
    if rows:
        blocks.append(Table("Precisions that were tried", columns, rows))
    if int8 is None:
        return Section("precision", "Precision", "", blocks)
    layers = int8.layers
    if layers.losses:
        distance = Column("distance from the outputs in fp32", "share")
        series = Series("distance", [*layers.losses.values()], names=[*layers.losses])
        views = [View(distance.label, distance, [series])]
        blocks.append(
            Plot("What the outputs lose by each layer alone in int8", "bars", Column("layer"), views)
        )
    facts = {
        "images that ranges were measured on": int8.images,
        "layers with weights": layers.layers,
        "layers that stay in fp32": ", ".join(layers.fp32) or None,
        "distance from the outputs in fp32": layers.distance,
        "the same with all layers in int8": layers.whole,
        "largest difference to fp32, of the largest output": int8.difference,
    }
    return Section("precision", "Precision", "", [*blocks, Lines(listed(facts))])


def _by_layer(found: DistanceByLayer, *, stale: bool) -> Section:
    names = [", ".join(rise.layers) for rise in found.rises]
    views = [
        View(
            "share of the squared distance",
            Column("share", "share"),
            [Series("share", [rise.share for rise in found.rises], names=names)],
        ),
        View(
            "distance up to them",
            Column("distance of the outputs", "share"),
            [Series("distance", [rise.distance for rise in found.rises], names=names)],
        ),
    ]
    plot = Plot("Where the outputs' distance comes from", "bars", Column("layers"), views)
    text = f"On {found.images} images{', before fine-tuning' if stale else ''}."
    return Section("by-layer", "What each layer costs", text, [plot])


def _sensitivity(found: Sensitivity) -> Section:
    names = [layer.name for layer in found.layers]
    distances = [layer.distance for layer in found.layers]
    changed = [None if layer.agreement is None else 1 - layer.agreement for layer in found.layers]
    columns = {
        Column("distance of the outputs", "share"): distances,
        Column("answers changed", "share"): changed,
    }
    views = [
        View(column.label, column, [Series(column.label, values, names=names)])
        for column, values in columns.items()
        if any(value is not None for value in values)
    ]
    text = f"Each layer alone at {found.factor:g}x fewer MACs, not fitted, on {found.images} images."
    plot = Plot("What the outputs lose by each layer alone", "bars", Column("layer"), views)
    return Section("sensitivity", "Sensitivity", text, [plot] if views else [])


def _tuning(found: Tuned) -> Section:
    facts = [
        f"steps: {found.steps}, of {found.batch} images; the state of step {found.best} was kept",
        f"seconds: {found.seconds:.0f}",
        f"images: {found.images}, and {found.held_out} held out",
        f"seed: {found.seed}",
        *listed(found.way or {}),
        *([f"note: {found.note}"] if found.note else []),
        *(["interrupted: the best state so far was kept"] if found.interrupted else []),
    ]
    if not found.course:
        return Section(
            "tuning", "Tuning", "Distances before and after are above; no curve is kept.", [Lines(facts)]
        )
    steps, far = [0, *(step for step, _ in found.course)], [found.before, *(x for _, x in found.course)]
    distance = Column("distance of the outputs", "share")
    series = [
        Series("on images held out", far, steps),
        Series("kept", [found.after], [found.best], alone=True),
    ]
    plot = Plot(
        "Tuning, step by step", "lines", Column("step", "number"), [View(distance.label, distance, series)]
    )
    text = "Relative distance from the original's outputs; at step 0 that of the network before."
    return Section("tuning", "Tuning", text, [plot, Lines(facts)])


def _training(found: Trained) -> Section:
    epochs = [row.get("epoch") for row in found.history]
    views = []
    for label, names in _CURVES.items():
        series = [
            Series(name.replace("_", " "), [row.get(name) for row in found.history], epochs)
            for name in names
            if any(row.get(name) is not None for row in found.history)
        ]
        if series:
            views.append(View(label, Column(label, "number"), series))
    plots = [Plot("Training, epoch by epoch", "lines", Column("epoch", "number"), views)] if views else []
    facts = [
        f"data: {found.data}",
        f"seconds: {found.seconds:.0f}",
        f"distilled: {'yes' if found.distilled else 'no'}",
    ]
    facts += ["diverged: the weights are those of the last epoch before"] if found.diverged else []
    facts += listed({**found.settings, **found.versions})
    return Section("training", "Fine-tuning", "", [*plots, Lines(facts)])

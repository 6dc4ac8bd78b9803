"""What became of each layer: the strip, bars, spectra, the curve, and the table of decisions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from tuckertree.io.report.tables import kernel_text
from tuckertree.io.report.verdict import bounds_hold, is_weighted
from tuckertree.planning import DENSE, LayerPlan, SurveyRecord
from tuckertree.planning.channels import CHANNELS
from tuckertree.planning.survey_record import LayerRecord
from tuckertree.tools.html_report.content import Column, Plot, Ranks, Section, Series, Strip, Table, View
from tuckertree.tools.html_report.reading import Saved

_LAYERS = Column("layer")


def layer_sections(saved: Saved) -> Iterator[Section]:
    """Sections that show layers, where there are any."""
    if not saved.plan.layers:
        return
    yield _network(saved)
    if saved.known.survey is not None:
        if surveyed(saved):
            yield _spectra(saved)
        if saved.known.survey.curve and saved.plan.optimality is not None:
            yield _curve(saved, saved.known.survey)
    yield _decisions(saved)


def surveyed(saved: Saved) -> list[tuple[LayerPlan, LayerRecord]]:
    """The compressed layers with a spectrum for each of their ranks, or with ranks that were tried."""
    survey = saved.known.survey
    return [] if survey is None else list(survey.known(saved.plan).values())


def method_of(layer: LayerPlan) -> str:
    """The method, or that hidden channels went."""
    return CHANNELS if layer.method == DENSE and layer.parameters[0] != layer.parameters[1] else layer.method


def _network(saved: Saved) -> Section:
    layers = saved.plan.layers
    names = [layer.name for layer in layers]
    hold = bounds_hold(saved)
    errors = {
        Column("planned error", "share"): [_planned(layer) for layer in layers],
        Column("error of the weight", "share"): [_error(saved, layer) for layer in layers],
    }
    columns = {
        **dict(sorted(errors.items(), key=lambda each: each[0].label.startswith("planned") is hold)),
        Column("share of its MACs saved", "share"): [_saved(layer.macs) for layer in layers],
        Column("share of its parameters saved", "share"): [_saved(layer.parameters) for layer in layers],
        Column("share of its time saved", "share"): [
            _saved(layer.seconds) if layer.seconds else None for layer in layers
        ],
    }
    shown = {column: values for column, values in columns.items() if any(v is not None for v in values)}
    strip = Strip(
        "Layers in the order of the forward pass, wider where they have more MACs",
        list(shown),
        names,
        [layer.macs[0] for layer in layers],
        list(shown.values()),
        [_note(layer) for layer in layers],
    )
    views = [
        _before_after("MACs", "count", names, [layer.macs for layer in layers]),
        _before_after("parameters", "count", names, [layer.parameters for layer in layers]),
    ]
    times = [layer.seconds for layer in layers]
    if any(times):
        pairs = [pair or (None, None) for pair in times]
        views.insert(0, _before_after("predicted time", "milliseconds", names, pairs))
    bars = Plot("Each layer, dense and compressed", "bars", _LAYERS, views)
    text = "Choose a layer to see what became of it."
    if is_weighted(saved):
        text += f" Planned errors are in the metric of the objective ({saved.plan.rule.get('objective')})."
    elif saved.fitted:
        text += " Planned errors are those of the weight before the factors were fitted to images."
    return Section("network", "The network", text, [strip, bars])


def _before_after(
    label: str, kind: str, names: Sequence[str], pairs: Sequence[tuple[float | None, float | None]]
) -> View:
    series = [
        Series(name, [pair[side] for pair in pairs], names=names)
        for side, name in enumerate(("dense", "compressed"))
    ]
    return View(label, Column(label, kind), series)  # type: ignore[arg-type]


def _saved(pair: tuple[float, float]) -> float | None:
    return 1 - pair[1] / pair[0] if pair[0] else None


def _planned(layer: LayerPlan) -> float | None:
    return None if layer.method == DENSE else layer.bound


def _error(saved: Saved, layer: LayerPlan) -> float | None:
    return saved.errors.get(layer.name)


def _note(layer: LayerPlan) -> str:
    ranks = f", ranks {'/'.join(map(str, layer.ranks))}" if layer.ranks else ""
    precision = f", in {layer.precision}" if layer.precision else ""
    reason = f": {layer.reason}" if layer.reason else ""
    return f"{layer.kind} {kernel_text(layer)}, {method_of(layer)}{ranks}{precision}{reason}"


def _spectra(saved: Saved) -> Section:
    layers = [
        {
            "name": layer.name,
            "method": layer.method,
            "ranks": layer.ranks,
            "parameters": layer.parameters,
            "macs": layer.macs,
            "bound": layer.bound,
            **asdict(record),
        }
        for layer, record in surveyed(saved)
    ]
    how = (
        f"the metric of the objective ({saved.plan.rule.get('objective')})"
        if is_weighted(saved)
        else "the metric of the weights"
    )
    totals = {"parameters": saved.plan.parameters, "macs": saved.plan.macs}
    spectra = any(layer["bonds"] for layer in layers)
    tried = sorted({layer["method"] for layer in layers if layer["offered"]})
    caption = (
        "Singular values of a layer's matricizations" if spectra else "Error of a layer at the ranks on offer"
    )
    caption += ", or its error at the ranks on offer" if spectra and tried else ""
    text = "Move a rank, by its slider or its line in the plot, to see what the layer would cost and lose."
    if spectra:
        text += " The error is the bound by the sum of the spectra's tails; between the ranks that are kept it is interpolated."
    if tried:
        text += f" {' and '.join(tried)} {'have' if tried[1:] else 'has'} no spectrum: the error is known at the ranks on offer alone."
    block = Ranks(caption, f"error at most, in {how}", totals, layers)
    return Section("spectra", "Spectra and ranks", text, [block])


def _curve(saved: Saved, survey: SurveyRecord) -> Section:
    plan = saved.plan
    assert plan.optimality is not None
    loss = Column("predicted loss", "number", log=True)
    views = []
    for label, side in (("MACs", "macs"), ("parameters", "parameters")):
        points = [(getattr(point, side), point.loss or None) for point in survey.curve]
        curve = Series("best plans", [y for _, y in points], [x for x, _ in points])
        own = Series("this plan", [plan.optimality.loss], [getattr(plan, side)[1]], alone=True)
        views.append(View(label, loss, [curve, own]))
    if {*map(str, saved.plan.rule)} & {"params"} and saved.plan.rule.get("params") is not None:
        views.reverse()
    plot = Plot("Predicted loss against budget", "lines", Column("of the network", "count"), views)
    gap = plan.optimality.gap
    text = f"This plan is at most {gap:.2%} above the best that the candidates allow."
    return Section("curve", "Trade-off", text, [plot])


def _decisions(saved: Saved) -> Section:
    hold = bounds_hold(saved)
    columns = [
        _LAYERS,
        Column("method"),
        Column("ranks"),
        Column("error" if hold else "weight error", "share"),
        Column("bound" if hold else "planned error", "share"),
        Column("parameters before", "count"),
        Column("after", "count"),
        Column("MACs before", "count"),
        Column("after", "count"),
        Column("time before", "milliseconds"),
        Column("after", "milliseconds"),
        Column("precision"),
        Column("reason"),
        Column("kind"),
        Column("kernel"),
    ]
    rows = [
        [
            layer.name,
            method_of(layer),
            "/".join(map(str, layer.ranks)),
            _error(saved, layer),
            _planned(layer),
            *layer.parameters,
            *layer.macs,
            *(layer.seconds or (None, None)),
            layer.precision,
            layer.reason,
            layer.kind,
            kernel_text(layer),
        ]
        for layer in saved.plan.layers
    ]
    table = Table("What was done to each layer, and why", columns, rows, search=True).filled()
    return Section("decisions", "Decisions", "", [table])

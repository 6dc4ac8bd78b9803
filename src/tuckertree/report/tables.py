"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any, Protocol

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuckertree.errors import printable
from tuckertree.layers import Form, LayerSpec, chain_stages
from tuckertree.planning import DENSE, Inventory, LayerPlan, Plan, TradeOff


class Compressed(Protocol):
    """What the tables need of a result."""

    @property
    def plan(self) -> Plan:
        """What was done to each layer."""

    @property
    def errors(self) -> Mapping[str, float]:
        """True relative error of each compressed layer's weight."""

    @property
    def relative_error(self) -> float:
        """The same over all layers together."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """Time of each station."""


def result_text(result: Compressed) -> str:
    """Table of a compression: layers, totals, error and time, as plain text."""
    return _plain(plan_table(result.plan, result.errors)) + "\n".join(totals(result))


_FASTEST = "no plan is faster: the layers gave all they could, so look at what is left of the accuracy"


def totals(result: Compressed) -> list[str]:
    """Lines that sum a compression up."""
    plan = result.plan
    return [
        f"parameters  {ratio(plan.parameters)}",
        f"MACs        {ratio(plan.macs)}",
        f"error       {result.relative_error:.4f} of the norm of all layers' weights",
        *_optimality(plan),
        *_latency(plan),
        f"time        {sum(result.seconds.values()):.2f} s",
    ]


def _optimality(plan: Plan) -> list[str]:
    if plan.optimality is None:
        return []
    found = plan.optimality
    lines = [f"budget      predicted loss {found.loss:.4g}, at most {found.gap:.2%} above the best possible"]
    if plan.rule.get("objective", "weight") != "weight":
        lines.append(
            f"bound       in the metric of the objective ({plan.rule['objective']}), not of the weight"
        )
    return lines


def _latency(plan: Plan) -> list[str]:
    if plan.latency is None:
        return []
    found = plan.latency
    return [
        f"latency     {1 / found.measured:.2f}x faster measured ({1 / found.high:.2f}x to {1 / found.low:.2f}x), "
        f"{1 / found.target:.3g}x asked for, {1 / found.predicted:.2f}x predicted from layers",
        f"runtime     {found.runtime}, {found.threads} threads, batch {found.batch}; "
        f"dense {found.seconds * 1e3:.3g} ms",
        *([f"warning     {_FASTEST}"] if found.fastest else []),
    ]


def plan_table(plan: Plan, errors: Mapping[str, float]) -> Table:
    """Table of a plan with the true errors beside their bounds."""
    columns: tuple[str, ...] = (
        "layer",
        "kind",
        "kernel",
        "method",
        ">ranks",
        ">parameters",
        ">MACs",
        ">error",
        ">bound",
        "reason",
    )
    rows: list[tuple[str, ...]] = []
    for layer in plan.layers:
        dense = layer.method == DENSE
        rows.append(
            (
                layer.name,
                layer.kind,
                kernel_text(layer),
                layer.method,
                "/".join(map(str, layer.ranks)),
                short(layer.parameters[0]) if dense else change(layer.parameters),
                short(layer.macs[0]) if dense else change(layer.macs),
                f"{errors[layer.name]:.3f}" if layer.name in errors else "",
                "" if dense else f"{layer.bound:.3f}",
                layer.reason,
            )
        )
        if plan.latency is not None:
            rows[-1] = (*rows[-1][:-1], form_text(layer), _times(layer), layer.reason)
    if plan.latency is not None:
        columns = (*columns[:-1], "run as", ">predicted ms", columns[-1])
    return table(columns, rows)


def form_text(layer: LayerPlan) -> str:
    """The kernels of the layers that a planned chain is run as: ``1x1, 3x3``."""
    if layer.form is None:
        return ""
    filters, channels, *size = layer.kernel
    ones, zeros = (1,) * len(size), (0,) * len(size)
    spec = LayerSpec(channels, filters, tuple(size), ones, zeros, ones, zeros)
    ranks = (1,) * len(layer.form)
    return Form(layer.form, ranks, chain_stages(spec, layer.form, ranks)).name


def _times(layer: LayerPlan) -> str:
    if layer.seconds is None:
        return ""
    before, after = (f"{seconds * 1e3:.3g}" for seconds in layer.seconds)
    return before if layer.method == DENSE else f"{before} > {after}"


def inventory_table(inventory: Inventory) -> Table:
    """Table of a model's layers, in the order of the forward."""
    columns = ("layer", "kind", "kernel", ">groups", "stride", ">parameters", ">MACs", "note")
    rows = [
        (
            layer.name,
            layer.spec.kind,
            "x".join(map(str, layer.spec.kernel_shape)),
            str(layer.spec.groups),
            "x".join(map(str, layer.spec.stride)),
            short(layer.spec.weights),
            short(layer.macs),
            layer.refusal or ("first convolution" if layer.is_first else ""),
        )
        for layer in inventory.layers
    ]
    return table(columns, rows)


def curve_table(points: Sequence[TradeOff]) -> Table:
    """Table of predicted loss against budget, the largest network first."""
    whole = points[-1]
    rows = [
        (
            f"{point.parameters / whole.parameters:.3f}",
            short(point.parameters),
            f"{point.macs / whole.macs:.3f}",
            short(point.macs),
            f"{point.loss:.4g}",
        )
        for point in reversed(points)
    ]
    return table((">params", ">parameters", ">macs", ">MACs", ">predicted loss"), rows)


def history_table(history: Sequence[Mapping[str, Any]]) -> Table:
    """Table of the epochs of a training run; twenty at most, the last among them."""
    step = -(-len(history) // 20)
    rows = [
        [str(row["epoch"])]
        + [f"{row[name]:.4g}" if name in row else "" for name in ("learning_rate", "train_loss")]
        + [f"{row[name]:.2f}" if name in row else "" for name in ("train_top1", "validation_top1")]
        for row in reversed(history[::-1][::step])
    ]
    return table((">epoch", ">learning rate", ">loss", ">top-1 (training)", ">top-1 (validation)"), rows)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Make a table; a column whose head begins with ``>`` is set flush right."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left")
    for row in rows:
        made.add_row(*(Text(printable(cell)) for cell in row))  # Text: nothing in it is markup
    return made


def kernel_text(layer: LayerPlan) -> str:
    """Kernel shape, with the number of groups where there are several: ``8 x 64x4x3x3``."""
    shape = "x".join(map(str, layer.kernel))
    return shape if layer.groups == 1 else f"{layer.groups} x {shape}"


def ratio(pair: tuple[int, int]) -> str:
    """Before, after and how many times less: ``25.6M -> 10.1M (2.53x)``."""
    before, after = pair
    return f"{short(before)} -> {short(after)} ({before / max(after, 1):.2f}x)"


def change(pair: tuple[int, int]) -> str:
    """Before and after: ``36.9k > 17.8k``."""
    return f"{short(pair[0])} > {short(pair[1])}"


def short(number: float) -> str:
    """A number in three digits and a prefix: ``25.6M``."""
    for prefix in ("", "k", "M", "G"):
        if number < 999.5:
            return f"{number:.0f}" if not prefix else f"{number:.3g}{prefix}"
        number /= 1000
    return f"{number:.3g}T"


def _plain(content: Table) -> str:
    text = StringIO()
    Console(file=text, width=200, color_system=None).print(content)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"

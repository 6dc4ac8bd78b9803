"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from rich.console import Console

from tuckertree.core.layers import FusionVariant, LayerSpec, get_method
from tuckertree.io.report.fitting import FittingTable
from tuckertree.io.report.verdict import Compressed, bounds_hold
from tuckertree.planning import DENSE, Inventory, LayerPlan, Plan
from tuckertree.planning.channels import CHANNELS


def plan_table(result: Compressed) -> FittingTable:
    """Table of a plan with the true errors of the weights, beside what was planned for them.

    The error planned bounds that of the weight, unless a budget had another metric or the factors were fitted to images.
    """
    plan = result.plan
    hold = bounds_hold(result)
    error, bound = ("error", "bound") if hold else ("weight\nerror", "planned\nerror")
    columns: tuple[str, ...] = (
        "layer",
        "kind",
        "kernel",
        "method",
        ">ranks",
        ">parameters",
        ">MACs",
        f">{error}",
        f">{bound}",
        "reason",
    )
    rows: list[tuple[str, ...]] = []
    for layer in plan.layers:
        same = layer.parameters[0] == layer.parameters[1]
        rows.append(
            (
                layer.name,
                layer.kind,
                kernel_text(layer),
                _method_text(layer),
                "/".join(map(str, layer.ranks)),
                short(layer.parameters[0]) if same else change(layer.parameters),
                short(layer.macs[0]) if same else change(layer.macs),
                f"{result.errors[layer.name]:.3f}" if layer.name in result.errors else "",
                "" if layer.method == DENSE else f"{layer.bound:.3f}",
                layer.reason,
            )
        )
        if plan.latency is not None:
            rows[-1] = (*rows[-1][:-1], form_text(layer), _times(layer), layer.reason)
    if plan.latency is not None:
        columns = (*columns[:-1], "run as", ">predicted\nms", columns[-1])
    if plan.in_fp32 is not None:
        columns = (*columns[:-1], "precision", columns[-1])
        rows = [
            (*row[:-1], layer.precision or "", row[-1]) for row, layer in zip(rows, plan.layers, strict=True)
        ]
    first, last = (bound, error) if hold else (error, bound)
    expendable = ("kind", "kernel", first, "parameters", last, "MACs", "method")
    return FittingTable(columns, rows, expendable, note="reason")


def form_text(layer: LayerPlan) -> str:
    """The kernels of the layers that a planned chain is run as: ``1x1, 3x3``."""
    if layer.form is None:
        return ""
    spec = LayerSpec.of_kernel(layer.kernel, layer.groups)
    return FusionVariant(layer.form, get_method(layer.method).run_as(spec, layer.ranks, layer.form)).name


def _times(layer: LayerPlan) -> str:
    if layer.seconds is None:
        return ""
    before, after = (f"{seconds * 1e3:.3g}" for seconds in layer.seconds)
    return before if layer.seconds[0] == layer.seconds[1] else f"{before} > {after}"


def inventory_table(inventory: Inventory, plan: Plan | None = None) -> FittingTable:
    """Table of a model's layers, in the order of the forward; with what a plan has made of them, if there is one."""
    columns: tuple[str, ...] = (
        "layer",
        "kind",
        "kernel",
        ">groups",
        "stride",
        ">parameters",
        ">MACs",
        "note",
    )
    rows: list[tuple[str, ...]] = [
        (
            layer.name,
            layer.spec.kind,
            "x".join(map(str, layer.spec.kernel_shape)),
            str(layer.spec.groups),
            "x".join(map(str, layer.spec.stride)),
            short(layer.spec.weights),
            short(layer.macs),
            layer.skip_reason or ("first convolution" if layer.is_first else ""),
        )
        for layer in inventory.layers
    ]
    if plan is not None:
        planned = {layer.name: layer for layer in plan.layers}
        columns = (*columns[:-1], "saved as", ">ranks", columns[-1])
        rows = [(*row[:-1], *_planned_as(planned.get(row[0])), row[-1]) for row in rows]
        if plan.in_fp32 is not None:
            columns = (*columns[:-1], "precision", columns[-1])
            rows = [
                (*row[:-1], planned[row[0]].precision or "" if row[0] in planned else "", row[-1])
                for row in rows
            ]
    return FittingTable(columns, rows, ("kind", "stride", "groups", "kernel"), note="note")


def _planned_as(layer: LayerPlan | None) -> tuple[str, str]:
    """Method and ranks that a plan has for a layer."""
    return ("", "") if layer is None else (_method_text(layer), "/".join(map(str, layer.ranks)))


def _method_text(layer: LayerPlan) -> str:
    """What becomes of a layer: a method, fewer channels, or nothing."""
    same = layer.parameters[0] == layer.parameters[1]
    return layer.method if same or layer.method != DENSE else CHANNELS


def sensitivity_table(layers: Sequence[Mapping[str, Any]]) -> FittingTable:
    """Table of what each layer alone costs, in the order of the forward pass."""
    columns = (
        "layer",
        "kind",
        "kernel",
        "method",
        ">ranks",
        ">MACs",
        ">distance of\noutputs",
        ">equal\nanswers",
        "reason",
    )
    rows = [
        (
            layer["name"],
            layer["kind"],
            _kernel(layer["kernel"], layer["groups"]),
            layer["method"],
            "/".join(map(str, layer["ranks"])),
            change(layer["macs"]) if layer["ranks"] else short(layer["macs"][0]),
            "" if layer["distance"] is None else f"{layer['distance']:.4f}",
            "" if layer["agreement"] is None else f"{layer['agreement']:.1%}",
            layer["reason"],
        )
        for layer in layers
    ]
    return FittingTable(columns, rows, ("kind", "kernel", "ranks", "MACs", "method"), note="reason")


def sensitivity_text(layers: Sequence[Mapping[str, Any]]) -> str:
    """The same as plain text."""
    return plain(sensitivity_table(layers))


def rises_table(rises: Sequence[Mapping[str, Any]]) -> FittingTable:
    """Table of what each layer adds to the outputs' distance, in the order of the forward."""
    rows = [(", ".join(each["layers"]), f"{each['distance']:.4f}", f"{each['share']:.1%}") for each in rises]
    return FittingTable(("layers", ">distance of outputs\nup to them", ">share of\nits square"), rows)


def rises_text(rises: Sequence[Mapping[str, Any]]) -> str:
    """The same as plain text."""
    return plain(rises_table(rises))


def history_table(history: Sequence[Mapping[str, object]]) -> FittingTable:
    """Table of the epochs of a training run; twenty at most, the last among them."""
    step = -(-len(history) // 20)
    rows = [
        [str(row["epoch"])]
        + [f"{row[name]:.4g}" if name in row else "" for name in ("learning_rate", "train_loss")]
        + [f"{row[name]:.2f}" if name in row else "" for name in ("train_top1", "validation_top1")]
        for row in reversed(history[::-1][::step])
    ]
    columns = (">epoch", ">learning rate", ">loss", ">top-1 (training)", ">top-1 (validation)")
    return FittingTable(columns, rows)


def kernel_text(layer: LayerPlan) -> str:
    """Kernel shape, with the number of groups where there are several: ``8 x 64x4x3x3``."""
    return _kernel(layer.kernel, layer.groups)


def _kernel(kernel: Sequence[int], groups: int) -> str:
    shape = "x".join(map(str, kernel))
    return shape if groups == 1 else f"{groups} x {shape}"


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


def plain(content: FittingTable) -> str:
    """A table as plain text."""
    text = StringIO()
    Console(file=text, width=200, color_system=None).print(content)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"

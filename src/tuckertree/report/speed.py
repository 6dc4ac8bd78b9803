"""Tables of measured times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from tuckertree.report.tables import short, table

if TYPE_CHECKING:
    from tuckertree.bench import Measured
    from tuckertree.runtimes import ContractedLayer


def contraction_table(layers: Sequence[ContractedLayer]) -> Table:
    """Table of the form each chain was given, and how it compares with the dense layer and the whole chain."""
    rows = []
    for layer in layers:
        dense, chain = layer.times[0][1], layer.times[1][1]
        taken = layer.time(layer.form.name)
        rows.append(
            (
                layer.name,
                "x".join(map(str, layer.kernel)),
                "x".join(map(str, layer.input)),
                layer.form.name,
                milliseconds(dense.seconds),
                f"{1 / chain.ratio.median:.2f}x",
                f"{1 / taken.ratio.median:.2f}x",
                "no form is faster by more than noise" if layer.form.is_dense else "",
            )
        )
    columns = ("layer", "kernel", "input", "form", ">dense ms", ">chain", ">form taken", "reason")
    return table(columns, rows)


def bench_table(rows: Sequence[Measured]) -> Table:
    """Table of networks timed against the first of them on each runtime."""
    columns = (
        "network",
        "runtime",
        ">batch",
        ">threads",
        ">ms",
        ">quartiles",
        ">samples/s",
        ">memory MiB",
        ">size MiB",
        ">MACs",
        ">fewer MACs, faster",
    )
    lines = []
    for row in rows:
        less, faster = 1 / row.mac_ratio if row.mac_ratio else 0.0, 1 / row.time_ratio.median
        lines.append(
            (
                row.name,
                row.runtime,
                str(row.batch),
                str(row.threads),
                milliseconds(row.seconds.median),
                f"{milliseconds(row.seconds.low)}-{milliseconds(row.seconds.high)}",
                f"{row.throughput:.4g}",
                "" if row.memory is None else f"{row.memory / 2**20:.0f}",
                f"{row.size / 2**20:.2f}",
                short(row.macs),
                f"{less:.2f}x, {faster:.2f}x ({row.realised:.0%})",
            )
        )
    return table(columns, lines)


def milliseconds(seconds: float) -> str:
    """Milliseconds with three digits."""
    return f"{seconds * 1e3:.3g}"

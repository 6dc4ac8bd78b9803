"""Tables of measured times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuckertree.io.report.fitting import FittingTable
from tuckertree.io.report.tables import short

if TYPE_CHECKING:
    from tuckertree.runtimes import ContractedLayer
    from tuckertree.tools.bench import Measured


def contraction_table(layers: Sequence[ContractedLayer]) -> FittingTable:
    """Table of the fusion variant each chain was given, and how it compares with the dense layer and the whole chain."""
    rows = []
    for layer in layers:
        dense, chain = layer.times[0][1], layer.times[1][1]
        taken = layer.time(layer.variant.name)
        rows.append(
            (
                layer.name,
                "x".join(map(str, layer.kernel)),
                "x".join(map(str, layer.input)),
                layer.variant.name,
                milliseconds(dense.seconds),
                f"{1 / chain.ratio.median:.2f}x",
                f"{1 / taken.ratio.median:.2f}x",
                "no variant is faster by more than noise" if layer.variant.is_dense else "",
            )
        )
    columns = ("layer", "kernel", "input", "variant", ">dense ms", ">chain", ">variant taken", "reason")
    return FittingTable(columns, rows, ("input", "kernel", "chain"), note="reason")


def bench_table(rows: Sequence[Measured]) -> FittingTable:
    """Table of networks timed against the first of them on each runtime."""
    columns = (
        "network",
        "runtime",
        ">ms",
        ">quartiles",
        ">times\nfaster",
        ">fewer\nMACs",
        ">realised",
        ">MACs",
        ">size\nMiB",
        ">memory\nMiB",
        ">samples/s",
        ">batch",
        ">threads",
    )
    lines = [
        (
            row.name,
            row.runtime,
            milliseconds(row.seconds.median),
            f"{milliseconds(row.seconds.low)}-{milliseconds(row.seconds.high)}",
            f"{1 / row.time_ratio.median:.2f}x",
            f"{1 / row.mac_ratio if row.mac_ratio else 0:.2f}x",
            f"{row.realised:.0%}",
            short(row.macs),
            f"{row.size / 2**20:.2f}",
            "" if row.memory is None else f"{row.memory / 2**20:.0f}",
            f"{row.throughput:.4g}",
            str(row.batch),
            str(row.threads),
        )
        for row in rows
    ]
    expendable = ("batch", "threads", "samples/s", "realised", "quartiles", "MACs", "memory\nMiB")
    return FittingTable(columns, lines, expendable)


def milliseconds(seconds: float) -> str:
    """Milliseconds with three digits."""
    return f"{seconds * 1e3:.3g}"

"""Showing what was done."""

from tuckertree.report.speed import bench_table, contraction_table
from tuckertree.report.tables import (
    curve_table,
    history_table,
    inventory_table,
    plan_table,
    ratio,
    result_text,
    short,
    table,
    totals,
)

__all__ = [
    "bench_table",
    "contraction_table",
    "curve_table",
    "history_table",
    "inventory_table",
    "plan_table",
    "ratio",
    "result_text",
    "short",
    "table",
    "totals",
]

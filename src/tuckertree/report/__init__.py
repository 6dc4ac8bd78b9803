"""Showing what was done."""

from tuckertree.report.fitting import FittingTable
from tuckertree.report.speed import bench_table, contraction_table
from tuckertree.report.tables import (
    curve_table,
    history_table,
    inventory_table,
    plan_table,
    ratio,
    result_text,
    short,
    totals,
)
from tuckertree.report.verdict import is_fitted, warnings_of

__all__ = [
    "FittingTable",
    "bench_table",
    "contraction_table",
    "curve_table",
    "history_table",
    "inventory_table",
    "is_fitted",
    "plan_table",
    "ratio",
    "result_text",
    "short",
    "totals",
    "warnings_of",
]

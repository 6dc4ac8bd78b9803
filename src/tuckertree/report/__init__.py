"""Showing what was done."""

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

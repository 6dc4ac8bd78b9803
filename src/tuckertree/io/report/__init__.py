"""Showing what was done."""

from tuckertree.io.report.drawing import curve_table, spectra_table
from tuckertree.io.report.fitting import FittingTable
from tuckertree.io.report.speed import bench_table, contraction_table
from tuckertree.io.report.tables import (
    history_table,
    inventory_table,
    plan_table,
    ratio,
    rises_table,
    sensitivity_table,
    short,
)
from tuckertree.io.report.totals import plan_totals, result_text, totals
from tuckertree.io.report.verdict import too_few_images, warnings_of

__all__ = [
    "FittingTable",
    "bench_table",
    "contraction_table",
    "curve_table",
    "history_table",
    "inventory_table",
    "plan_table",
    "plan_totals",
    "ratio",
    "result_text",
    "rises_table",
    "sensitivity_table",
    "short",
    "spectra_table",
    "too_few_images",
    "totals",
    "warnings_of",
]

"""Showing what was done."""

from tuckertree.report.tables import inventory_table, plan_table, ratio, result_text, short, table, totals

__all__ = ["inventory_table", "plan_table", "ratio", "result_text", "short", "table", "totals"]

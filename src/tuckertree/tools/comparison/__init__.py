"""Ways to compress a network, compared on the user's own network and images, all else being equal."""

from tuckertree.tools.comparison.cell import Settings, measure_cell
from tuckertree.tools.comparison.cells import Cell, Latency, Method, Outcome, Score, cells_of
from tuckertree.tools.comparison.comparing import Comparison, compare
from tuckertree.tools.comparison.opening import NamedTask, demo_task
from tuckertree.tools.comparison.page import comparison_page, comparison_table
from tuckertree.tools.comparison.pruning import prune
from tuckertree.tools.comparison.task import Fold, ImageScore, Task

__all__ = [
    "Cell",
    "Comparison",
    "Fold",
    "ImageScore",
    "Latency",
    "Method",
    "NamedTask",
    "Outcome",
    "Score",
    "Settings",
    "Task",
    "cells_of",
    "compare",
    "comparison_page",
    "comparison_table",
    "demo_task",
    "measure_cell",
    "prune",
]

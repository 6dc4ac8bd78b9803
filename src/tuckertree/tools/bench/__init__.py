"""Networks timed against each other."""

from tuckertree.tools.bench.measuring import Measured, bench
from tuckertree.tools.bench.plot import bar_chart
from tuckertree.tools.bench.subjects import Subject, of_model, open_subject

__all__ = ["Measured", "Subject", "bar_chart", "bench", "of_model", "open_subject"]

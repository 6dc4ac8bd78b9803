"""Networks timed against each other."""

from tuckertree.bench.measuring import Measured, bench
from tuckertree.bench.plot import bar_chart
from tuckertree.bench.subjects import Subject, of_model, open_subject

__all__ = ["Measured", "Subject", "bar_chart", "bench", "of_model", "open_subject"]

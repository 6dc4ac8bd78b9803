"""compress(), what it gives back, and what a budget makes small."""

from tuckertree.compression.compressing import (
    CompressionResult,
    Stopwatch,
    compress,
    measure_errors,
    nothing_to_compress,
)
from tuckertree.compression.objectives import Objective, Survey

__all__ = [
    "CompressionResult",
    "Objective",
    "Stopwatch",
    "Survey",
    "compress",
    "measure_errors",
    "nothing_to_compress",
]

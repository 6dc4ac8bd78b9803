"""compress(), what it gives back, and what a budget makes small."""

from tuckertree.compression.compressing import (
    CompressionResult,
    Stopwatch,
    compress,
    measure_errors,
    nothing_to_compress,
)

__all__ = ["CompressionResult", "Stopwatch", "compress", "measure_errors", "nothing_to_compress"]

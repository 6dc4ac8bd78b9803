"""compress(), what it gives back, and what a budget makes small."""

from tuckertree.compression.compressing import (
    Clock,
    CompressionResult,
    compress,
    measure_errors,
    nothing_to_compress,
)

__all__ = ["Clock", "CompressionResult", "compress", "measure_errors", "nothing_to_compress"]

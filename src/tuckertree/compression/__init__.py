"""compress(), what it takes and gives back, and what a budget makes small."""

from tuckertree.compression.compressing import CompressionResult, Stopwatch, compress
from tuckertree.compression.networks import Network, OnnxNetwork
from tuckertree.compression.objectives import Objective, Survey

__all__ = ["CompressionResult", "Network", "Objective", "OnnxNetwork", "Stopwatch", "Survey", "compress"]

"""compress(), what it takes and gives back, and what a budget makes small."""

from tuckertree.compression.compressing import CompressionResult, compress
from tuckertree.compression.networks import Network, OnnxNetwork

__all__ = ["CompressionResult", "Network", "OnnxNetwork", "compress"]

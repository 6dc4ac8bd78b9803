"""compress(), what it takes and gives back, and what a budget makes small."""

from tuckertree.compression.accuracy.search import AccuracyNotKeptError
from tuckertree.compression.by_layer import DistanceByLayer, Rise, distance_by_layer
from tuckertree.compression.compressing import compress, plan
from tuckertree.compression.layerwise import LayerSensitivity, Sensitivity
from tuckertree.compression.measures import Stopwatch
from tuckertree.compression.network import Network
from tuckertree.compression.networks import OnnxNetwork
from tuckertree.compression.objectives import Objective, Survey, trade_off_curve
from tuckertree.compression.result import CompressionResult
from tuckertree.compression.sensitivities import sensitivity
from tuckertree.compression.tuned import tune

__all__ = [
    "AccuracyNotKeptError",
    "CompressionResult",
    "DistanceByLayer",
    "LayerSensitivity",
    "Network",
    "Objective",
    "OnnxNetwork",
    "Rise",
    "Sensitivity",
    "Stopwatch",
    "Survey",
    "compress",
    "distance_by_layer",
    "plan",
    "sensitivity",
    "trade_off_curve",
    "tune",
]

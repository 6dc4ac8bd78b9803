"""What a network costs and how well it does."""

from tuckertree.measure.accuracy import Accuracy, evaluate
from tuckertree.measure.cost import count_macs, count_parameters
from tuckertree.measure.environment import environment
from tuckertree.measure.forward import ExampleInputs, call, evaluating, run
from tuckertree.measure.latency import Timing, compare_latency

__all__ = [
    "Accuracy",
    "ExampleInputs",
    "Timing",
    "call",
    "compare_latency",
    "count_macs",
    "count_parameters",
    "environment",
    "evaluate",
    "evaluating",
    "run",
]

"""What a network costs and how well it does."""

from tuckertree.measure.accuracy import Accuracy, evaluate
from tuckertree.measure.cost import count_macs, count_parameters
from tuckertree.measure.environment import environment, processor
from tuckertree.measure.forward import ExampleInputs, call, evaluating, run
from tuckertree.measure.latency import (
    Timing,
    compare_latency,
    least_of_each,
    synchroniser,
    time_in_turns,
    time_until_steady,
)

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
    "least_of_each",
    "processor",
    "run",
    "synchroniser",
    "time_in_turns",
    "time_until_steady",
]

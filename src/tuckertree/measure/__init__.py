"""What a network costs and how well it does."""

from tuckertree.measure.accuracy import Accuracy, evaluate
from tuckertree.measure.copying import copy_for_inference, copy_model
from tuckertree.measure.cost import count_macs, count_parameters
from tuckertree.measure.environment import environment, processor
from tuckertree.measure.forward import (
    ExampleInputs,
    call,
    evaluating,
    layer_input,
    run,
    watch_call,
    watch_input,
)
from tuckertree.measure.latency import (
    Timing,
    compare_latency,
    least_of_each,
    synchroniser,
    time_in_turns,
    time_until_steady,
)
from tuckertree.measure.snapshot import Snapshot, preserved

__all__ = [
    "Accuracy",
    "ExampleInputs",
    "Snapshot",
    "Timing",
    "call",
    "compare_latency",
    "copy_for_inference",
    "copy_model",
    "count_macs",
    "count_parameters",
    "environment",
    "evaluate",
    "evaluating",
    "layer_input",
    "least_of_each",
    "preserved",
    "processor",
    "run",
    "synchroniser",
    "time_in_turns",
    "time_until_steady",
    "watch_call",
    "watch_input",
]

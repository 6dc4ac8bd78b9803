"""Latency as a target: layers timed, a plan chosen, the whole network measured, the plan corrected."""

from tuckertree.latency.network import (
    NetworkBenchmark,
    PlanBenchmark,
    fuse_as_planned,
    is_int8,
    is_measured,
    random_as_planned,
)
from tuckertree.latency.target import LatencyNotKeptError, keeps_target, least_latency, meet_target
from tuckertree.latency.time_model import LayerBenchmark, RuntimeBenchmark, TimeModel
from tuckertree.latency.timed import LatencyTarget

__all__ = [
    "LatencyNotKeptError",
    "LatencyTarget",
    "LayerBenchmark",
    "NetworkBenchmark",
    "PlanBenchmark",
    "RuntimeBenchmark",
    "TimeModel",
    "fuse_as_planned",
    "is_int8",
    "is_measured",
    "keeps_target",
    "least_latency",
    "meet_target",
    "random_as_planned",
]

"""Running and timing networks: PyTorch, ONNX Runtime, OpenVINO, and what is registered."""

from tuckertree.runtimes.cache import LatencyCache, cache_folder
from tuckertree.runtimes.candidates import CandidateTime, time_candidates
from tuckertree.runtimes.contract import ContractedLayer, Contraction, contract
from tuckertree.runtimes.onnx_model import DYNAMIC, Dynamic, to_onnx
from tuckertree.runtimes.quantization import FP32, INT8, quantized
from tuckertree.runtimes.registry import (
    check_precision,
    find_runtime,
    formats,
    get_runtime,
    register_runtime,
    runtimes,
)
from tuckertree.runtimes.runtime import Runnable, Runtime, usable_device

__all__ = [
    "DYNAMIC",
    "FP32",
    "INT8",
    "CandidateTime",
    "ContractedLayer",
    "Contraction",
    "Dynamic",
    "LatencyCache",
    "Runnable",
    "Runtime",
    "cache_folder",
    "check_precision",
    "contract",
    "find_runtime",
    "formats",
    "get_runtime",
    "quantized",
    "register_runtime",
    "runtimes",
    "time_candidates",
    "to_onnx",
    "usable_device",
]

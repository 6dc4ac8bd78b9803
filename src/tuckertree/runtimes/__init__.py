"""Running and timing networks: PyTorch, ONNX Runtime, OpenVINO."""

from __future__ import annotations

import torch

from tuckertree._base.errors import UsageError
from tuckertree.runtimes.cache import LatencyCache, cache_folder
from tuckertree.runtimes.candidates import CandidateTime, time_candidates
from tuckertree.runtimes.contract import ContractedLayer, Contraction, contract
from tuckertree.runtimes.onnx_model import DYNAMIC, Dynamic, to_onnx
from tuckertree.runtimes.onnx_runtimes import OnnxRuntime, OpenVino
from tuckertree.runtimes.runtime import Runnable, Runtime
from tuckertree.runtimes.torch_runtimes import CompiledRuntime, TorchRuntime

_KINDS: tuple[type[Runtime], ...] = (TorchRuntime, CompiledRuntime, OnnxRuntime, OpenVino)
RUNTIMES = tuple(kind.name for kind in _KINDS)


def get_runtime(name: str, *, threads: int | None = None, device: str = "cpu") -> Runtime:
    """Make a runtime by name.

    Parameters
    ----------
    name
        ``torch``, ``torch-compile``, ``onnxruntime`` or ``openvino``.
    threads
        Threads of the processor that a run may use; by default as many as torch uses.
    device
        A torch device; the last two run on the cpu alone.

    Raises
    ------
    UsageError
        If there is no such runtime, it does not run on the device, or the number of threads is not positive.
    TuckertreeError
        If its package is not installed.
    """
    kind = next((kind for kind in _KINDS if kind.name == name), None)
    if kind is None:
        raise UsageError(f"unknown runtime {name!r}; known: {', '.join(RUNTIMES)}")
    if threads is not None and threads < 1:
        raise UsageError(f"a runtime needs at least one thread, got {threads}")
    runtime = kind(threads or torch.get_num_threads(), device)
    _ = runtime.version  # imports the package, or says what to install
    return runtime


__all__ = [
    "DYNAMIC",
    "RUNTIMES",
    "CandidateTime",
    "ContractedLayer",
    "Contraction",
    "Dynamic",
    "LatencyCache",
    "Runnable",
    "Runtime",
    "cache_folder",
    "contract",
    "get_runtime",
    "time_candidates",
    "to_onnx",
]

"""An ONNX file to 8 bits, by ONNX Runtime's static quantization."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tuckertree.runtimes import Runtime, get_runtime
from tuckertree.runtimes.quantization import quantized
from tuckertree.runtimes.runtime import Runnable


def quantize(path: Path, batches: Sequence[Tensor]) -> tuple[tuple[Tensor], Any]:
    """Replace an ONNX file by its quantized form: QDQ, a scale for each output channel of a weight.

    Weights become signed, activations unsigned 8-bit integers, whose range is that of the batches.

    Parameters
    ----------
    batches
        Inputs to measure the range of the activations on, one batch at least, of the shape that the file takes.

    Returns
    -------
    tuple
        The first batch, and a function that computes the new file's outputs.

    Raises
    ------
    TuckertreeError
        If the file cannot be quantized.
    """
    runtime = get_runtime("onnxruntime")
    path.write_bytes(quantized(path, ([batch] for batch in batches)).SerializeToString())
    return (batches[0],), runtime.open(path).run


class FileNetwork(nn.Module):
    """An ONNX file as a module, to be evaluated like one."""

    def __init__(self, path: Path, runtime: Runtime | None = None) -> None:
        super().__init__()
        self._loaded: Runnable = (runtime or get_runtime("onnxruntime")).open(path)

    def forward(self, x: Tensor) -> Tensor:
        """First output of the file's network."""
        return torch.as_tensor(self._loaded.run([x])[0])

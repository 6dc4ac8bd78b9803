"""An ONNX file to 8 bits, by ONNX Runtime's static quantization."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from math import inf, isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tuckertree.core.layers import Chain
from tuckertree.io.export.mixed import Int8Layers, quantize_sparingly
from tuckertree.runtimes import Runtime, get_runtime
from tuckertree.runtimes.quantization import Quantizer
from tuckertree.runtimes.runtime import Runnable

Sample = Sequence[Tensor]
_HELD_OUT = 32
"""Images, at most, on which it is seen what 8 bits cost."""


def quantize(
    path: Path,
    batches: Iterable[Sample],
    held_out: Sequence[Sample] = (),
    *,
    names: Collection[str] = (),
    tolerance: float = inf,
    fits: Callable[[Any], bool] | None = None,
    fp32: Collection[str] | None = None,
) -> Int8Layers:
    """Replace an ONNX file by its quantized form: QDQ, a scale for each output channel of a weight.

    Weights become signed, activations unsigned 8-bit integers, whose range is that of the batches. Layers that lose too much by
    it stay in single precision (:func:`~tuckertree.io.export.mixed.quantize_sparingly`).

    Parameters
    ----------
    batches
        Inputs to measure the range of the activations on, one batch at least, of the shape that the file takes.
    held_out
        Others, on which it is seen what 8 bits cost; without any all layers are in 8 bits.
    names, tolerance, fits, fp32
        As of :func:`~tuckertree.io.export.mixed.quantize_sparingly`.

    Raises
    ------
    TuckertreeError
        If the file cannot be quantized.
    """
    quantizer = Quantizer(path, batches)
    proto, found = quantize_sparingly(
        quantizer, held_out, names=names, tolerance=tolerance, fits=fits, fp32=fp32
    )
    path.write_bytes(proto.SerializeToString())
    return found


def parted(batches: Sequence[Sample], *, divisible: bool = True) -> tuple[list[Sample], list[Sample]]:
    """Batches to measure ranges on, and those that are held out: the last images, the root of their number.

    Those of a file of one batch are not ``divisible``. Where nothing would be left the same images are used for both.
    """
    count = sum(len(batch[0]) for batch in batches)
    left = min(isqrt(count), _HELD_OUT)
    fitted, held = list(batches), list[Sample]()
    while left > 0 and fitted:
        last = fitted.pop()
        size = len(last[0])
        if divisible and size > left:
            fitted.append([x[: size - left] for x in last])
            held.append([x[size - left :] for x in last])
            break
        held.append(last)
        left -= size
    return fitted or list(batches), held


def layer_names(model: nn.Module) -> list[str]:
    """Names of a model's layers with weights, a chain being one."""
    kinds = (Chain, nn.Linear, nn.modules.conv._ConvNd)
    found = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    stages = {
        f"{name}.{stage}"
        for name, x in found.items()
        if isinstance(x, Chain)
        for stage, _ in x.named_children()
    }
    return [name for name in found if name not in stages]


class FileNetwork(nn.Module):
    """An ONNX file as a module, to be evaluated like one."""

    def __init__(self, path: Path, runtime: Runtime | None = None) -> None:
        super().__init__()
        self._loaded: Runnable = (runtime or get_runtime("onnxruntime")).open(path)

    def forward(self, x: Tensor) -> Tensor:
        """First output of the file's network."""
        return torch.as_tensor(self._loaded.run([x])[0])

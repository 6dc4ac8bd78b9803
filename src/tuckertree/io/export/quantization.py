"""An ONNX file to 8 bits, by ONNX Runtime's static quantization."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError, first_line
from tuckertree._base.extras import require_extra
from tuckertree.runtimes import Runtime, get_runtime
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
    library = require_extra("onnxruntime.quantization", extra="onnx")
    runtime = get_runtime("onnxruntime")
    name = runtime.open(path).inputs[0][0]  # type: ignore[attr-defined]
    new = path.with_name(f"int8-{path.name}")
    level = logging.getLogger().level
    try:
        logging.getLogger().setLevel(logging.ERROR)  # it recommends a preparation that the exporter has done
        library.quantize_static(
            str(path),
            str(new),
            _reader(library, name, batches),
            quant_format=library.QuantFormat.QDQ,
            per_channel=True,
            activation_type=library.QuantType.QUInt8,
            weight_type=library.QuantType.QInt8,
        )
    except Exception as error:
        raise TuckertreeError(f"the ONNX model cannot be quantized: {first_line(error)}") from error
    finally:
        logging.getLogger().setLevel(level)
    new.replace(path)
    return (batches[0],), runtime.open(path).run


def _reader(library: object, name: str, batches: Sequence[Tensor]) -> object:
    class Reader(library.CalibrationDataReader):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            self.left: Iterator[Tensor] = iter(batches)

        def get_next(self) -> dict[str, object] | None:
            batch = next(self.left, None)
            return None if batch is None else {name: batch.numpy()}

    return Reader()


class FileNetwork(nn.Module):
    """An ONNX file as a module, to be evaluated like one."""

    def __init__(self, path: Path, runtime: Runtime | None = None) -> None:
        super().__init__()
        self._loaded: Runnable = (runtime or get_runtime("onnxruntime")).open(path)

    def forward(self, x: Tensor) -> Tensor:
        """First output of the file's network."""
        return torch.as_tensor(self._loaded.run([x])[0])

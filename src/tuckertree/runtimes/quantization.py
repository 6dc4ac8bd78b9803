"""An ONNX model to 8 bits, by ONNX Runtime's static quantization."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from tuckertree._base.errors import TuckertreeError, first_line
from tuckertree._base.extras import require_extra

FP32, INT8 = "fp32", "int8"
_WITH_WEIGHTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_SUITED = frozenset(
    {
        *("Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "DepthToSpace", "Dropout", "Flatten"),
        *(
            "GlobalAveragePool",
            "GlobalMaxPool",
            "Identity",
            "LeakyRelu",
            "MaxPool",
            "Pad",
            "PRelu",
            "ReduceMax",
        ),
        *(
            "ReduceMean",
            "ReduceMin",
            "Relu",
            "Reshape",
            "Resize",
            "Slice",
            "SpaceToDepth",
            "Split",
            "Squeeze",
        ),
        *("Sub", "Transpose", "Unsqueeze", "Upsample"),
    }
)
"""Operators whose outputs have about the range of their inputs."""
_NO_ACTIVATIONS = frozenset({"Constant", "ConstantOfShape", "Shape"})


def quantized(model: Path | Any, batches: Iterable[Sequence[Tensor]], exclude: Sequence[str] = ()) -> Any:
    """Quantize an ONNX model: QDQ, a scale for each output channel of a weight.

    Weights become signed, activations unsigned 8-bit integers, whose range is that of the batches. Products, roots,
    exponentials and other operators that spread small and large numbers, and what follows them up to the next layer with
    weights, stay in floating point: 8 bits leave nothing of a local response normalisation.

    Parameters
    ----------
    model
        A file, or an ``onnx.ModelProto`` with all weights inside; it is not changed.
    batches
        Inputs to measure the ranges on, each in the order of the model's.
    exclude
        Names of nodes that stay in floating point.

    Returns
    -------
    onnx.ModelProto
        With all weights inside.

    Raises
    ------
    TuckertreeError
        If there is no batch, or the model cannot be quantized.
    """
    onnx = require_extra("onnx", extra="onnx")
    library = require_extra("onnxruntime.quantization", extra="onnx")
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    with TemporaryDirectory(prefix="tuckertree-") as folder:
        source, new = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        try:
            proto = onnx.ModelProto()
            proto.CopyFrom(onnx.load(model) if isinstance(model, Path) else model)
            for number, node in enumerate(proto.graph.node):
                node.name = node.name or f"unnamed_{number}"
            source.write_bytes(proto.SerializeToString())
            names = _input_names(proto)
            root.setLevel(max(level, logging.ERROR))  # it recommends what the exporter has done
            library.quantize_static(
                str(source),
                str(new),
                _reader(library, names, batches),
                quant_format=library.QuantFormat.QDQ,
                per_channel=True,
                activation_type=library.QuantType.QUInt8,
                weight_type=library.QuantType.QInt8,
                nodes_to_exclude=[*exclude, *_unsuited(proto)],
            )
            return onnx.load(new)
        except TuckertreeError:
            raise
        except Exception as error:
            raise TuckertreeError(f"the ONNX model cannot be quantized: {first_line(error)}") from error
        finally:
            root.setLevel(level)
            for handler in {*root.handlers}.difference(handlers):  # logging.warning() adds one
                root.removeHandler(handler)


def batches_for_time(inputs: Sequence[Tensor]) -> list[list[Tensor]]:
    """Batches that give ranges where only time counts: the inputs, which may be zeros, and noise of their shapes."""
    generator = torch.Generator().manual_seed(0)
    noise = [
        torch.randn(x.shape, generator=generator).to(x.dtype) if x.is_floating_point() else x for x in inputs
    ]
    return [list(inputs), noise]


def _unsuited(proto: Any) -> list[str]:
    """Nodes that stay in floating point."""
    found, floating = list[str](), set[str]()
    for node in proto.graph.node:
        if node.op_type in _WITH_WEIGHTS | _NO_ACTIVATIONS:
            continue
        if node.op_type not in _SUITED or not floating.isdisjoint(node.input):
            found.append(node.name)
            floating.update(node.output)
    return found


def _input_names(proto: Any) -> list[str]:
    constants = {tensor.name for tensor in proto.graph.initializer}
    return [value.name for value in proto.graph.input if value.name not in constants]


def _reader(library: Any, names: Sequence[str], batches: Iterable[Sequence[Tensor]]) -> Any:
    class Reader(library.CalibrationDataReader):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            self.left: Iterator[Sequence[Tensor]] = iter(batches)

        def get_next(self) -> dict[str, object] | None:
            batch = next(self.left, None)
            if batch is None:
                return None
            arrays = (x.detach().cpu().contiguous().numpy() for x in batch)
            return dict(zip(names, arrays, strict=True))

    return Reader()

"""An ONNX model to 8 bits, by ONNX Runtime's static quantization."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from tuckertree._base.errors import TuckertreeError, first_line
from tuckertree._base.extras import require_extra
from tuckertree.measure.environment import has_vnni

FP32, INT8 = "fp32", "int8"
WITH_WEIGHTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
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


def quantized(model: Path | Any, batches: Iterable[Sequence[Tensor]], exclude: Collection[str] = ()) -> Any:
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
    return Quantizer(model, batches).quantized(exclude)


class Quantizer:
    """An ONNX model and the ranges of its activations, to be quantized in any of its nodes.

    Parameters
    ----------
    model, batches
        As of :func:`quantized`.

    Attributes
    ----------
    model
        A copy of the model in which all nodes have names.
    unsuited
        Names of nodes that stay in floating point in any case.

    Raises
    ------
    TuckertreeError
        If there is no batch, or the model does not run on them.
    """

    def __init__(self, model: Path | Any, batches: Iterable[Sequence[Tensor]]) -> None:
        onnx = require_extra("onnx", extra="onnx")
        library = require_extra("onnxruntime.quantization", extra="onnx")
        self.model = onnx.ModelProto()
        with _quiet(), TemporaryDirectory(prefix="tuckertree-") as folder:
            source = Path(folder) / "model.onnx"
            self.model.CopyFrom(onnx.load(model) if isinstance(model, Path) else model)
            for number, node in enumerate(self.model.graph.node):
                node.name = node.name or f"unnamed_{number}"
            self.unsuited = frozenset(_unsuited(self.model))
            source.write_bytes(self.model.SerializeToString())
            utils = require_extra("onnxruntime.quantization.quant_utils", extra="onnx")
            self._inferred = utils.load_model_with_shape_infer(source)
            registry = require_extra("onnxruntime.quantization.registry", extra="onnx")
            self._operators = [*registry.QLinearOpsRegistry, *registry.QDQRegistry]
            calibrator = library.create_calibrator(
                source, self._operators, augmented_model_path=str(Path(folder) / "augmented.onnx")
            )
            calibrator.collect_data(_reader(library, _input_names(self.model), batches))
            self._ranges = calibrator.compute_data()

    def quantized(self, exclude: Collection[str] = ()) -> Any:
        """The model in 8 bits but for these nodes, by name, which take what others do not round as it is.

        Raises
        ------
        TuckertreeError
            If it cannot be quantized.
        """
        library = require_extra("onnxruntime.quantization", extra="onnx")
        floating = self.unsuited.union(exclude)
        with _quiet():
            proto = type(self.model)()
            proto.CopyFrom(self._inferred)
            quantizer = library.QDQQuantizer(
                proto,
                per_channel=True,
                reduce_range=False,
                weight_qType=library.QuantType.QInt8,
                activation_qType=library.QuantType.QUInt8,
                tensors_range=self._ranges,
                nodes_to_quantize=[],
                nodes_to_exclude=[*floating],
                op_types_to_quantize=self._operators,
                extra_options={},
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
            found = type(self.model)()
            found.CopyFrom(quantizer.model.model)
        _keep_exact(found, floating)
        return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Turn what the library raises into one line, and keep its advice off the screen: to do what the exporter has done."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        root.setLevel(max(level, logging.ERROR))
        yield
    except TuckertreeError:
        raise
    except Exception as error:
        raise TuckertreeError(f"the ONNX model cannot be quantized: {first_line(error)}") from error
    finally:
        root.setLevel(level)
        for handler in {*root.handlers}.difference(handlers):  # logging.warning() adds one
            root.removeHandler(handler)


def _keep_exact(proto: Any, floating: Collection[str]) -> None:
    """Let nodes in floating point read what such nodes made, which the quantizer rounds for all as soon as it does for one."""
    makers = {name: node for node in proto.graph.node for name in node.output}
    made = {name for node in proto.graph.node if node.name in floating for name in node.output}
    made.update(value.name for value in proto.graph.input)
    for node in proto.graph.node:
        if node.name not in floating:
            continue
        for place, name in enumerate(node.input):
            rounded = makers.get(name)
            if rounded is None or rounded.op_type != "DequantizeLinear":
                continue
            whole = makers.get(rounded.input[0])
            if whole is not None and whole.input[0] in made:
                node.input[place] = whole.input[0]


def doubts_of_cpu() -> list[str]:
    """Why 8 bits may not pay on this machine, if that is known."""
    if has_vnni() is not False:
        return []
    return [
        "this CPU has no VNNI instructions: 8 bits may be no faster than fp32 here, and sums may saturate; measure both"
    ]


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
        if node.op_type in WITH_WEIGHTS | _NO_ACTIVATIONS:
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

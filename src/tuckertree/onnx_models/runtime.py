"""Running an ONNX model by ONNX Runtime: example inputs, and values in the middle."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tuckertree.errors import TuckertreeError, UsageError
from tuckertree.extras import require_extra
from tuckertree.onnx_models.files import LARGEST, OnnxFile, first_line
from tuckertree.onnx_models.graph import Graph

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, ValueInfoProto

Array = np.ndarray[Any, Any]
Feed = dict[str, Array]

_SOURCE_PLACE = re.compile(r"/onnxruntime_src/\S+:\d+ .*?\)(?: const)? ")
"""File, line and signature of a function of ONNX Runtime."""
_FOLDER = "session.model_external_initializers_file_folder_path"


class Session:
    """A model loaded into ONNX Runtime, on the processor.

    Parameters
    ----------
    model
        A file, or a message as bytes.
    folder
        Where the external data of a message are.
    threads
        By default as many as torch may use.
    """

    def __init__(self, model: Path | bytes, folder: Path | None = None, threads: int | None = None) -> None:
        runtime = require_extra("onnxruntime", extra="onnx")
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        if folder is not None:
            options.add_session_config_entry(_FOLDER, str(folder))
        source = model if isinstance(model, bytes) else str(model)
        try:
            self._session = runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no class in common but this
            raise TuckertreeError(f"ONNX Runtime cannot run the model: {_complaint(error)}") from error
        self.shapes = {output.name: tuple(output.shape) for output in self._session.get_outputs()}

    def run(self, feed: Feed) -> dict[str, Any]:
        """Outputs by name.

        Raises
        ------
        TuckertreeError
            If the model does not run on the inputs.
        """
        try:
            return dict(zip(self.shapes, self._session.run(None, feed), strict=True))
        except Exception as error:
            shapes = ", ".join(f"{name} {list(x.shape)} {x.dtype}" for name, x in feed.items())
            raise TuckertreeError(f"the model does not run on {shapes}: {_complaint(error)}") from error


def probing(
    proto: ModelProto, folder: Path, outputs: Sequence[str], nodes: Sequence[NodeProto] = ()
) -> Session:
    """Load a model that gives these values, and computes nothing but what they need."""
    onnx = require_extra("onnx", extra="onnx")
    with _changed(proto, [onnx.ValueInfoProto(name=name) for name in outputs], nodes):
        if proto.ByteSize() > LARGEST:
            raise TuckertreeError(
                "a model of more than 2 GB cannot be run in part: compress it without calibration images"
            )
        content = proto.SerializeToString()
    return Session(content, folder)


@contextmanager
def _changed(
    proto: ModelProto, outputs: Sequence[ValueInfoProto], nodes: Sequence[NodeProto]
) -> Iterator[None]:
    """Give a model other outputs and more nodes for a while: a copy would hold all weights once more."""
    graph = proto.graph
    before, count = list(graph.output), len(graph.node)
    del graph.output[:]
    graph.output.extend(outputs)
    graph.node.extend(nodes)
    try:
        yield
    finally:
        del graph.node[count:]
        del graph.output[:]
        graph.output.extend(before)


def shapes_of(file: OnnxFile, graph: Graph, names: Sequence[str], feed: Feed) -> dict[str, tuple[int, ...]]:
    """Shapes of values at an example input, by running the model; no value is kept but its shape.

    Raises
    ------
    TuckertreeError
        If the model does not run.
    """
    helper = require_extra("onnx.helper", extra="onnx")
    known = {name: tuple(graph.constants[name].dims) for name in names if name in graph.constants}
    known.update({name: feed[name].shape for name in names if name in feed})
    wanted = [name for name in dict.fromkeys(names) if name not in known]
    shape_names = {name: graph.new_name(f"{name}/shape") for name in wanted}
    nodes = [helper.make_node("Shape", [name], [shape]) for name, shape in shape_names.items()]
    # The model's own outputs are asked for too: what they need must run as well.
    try:
        found = probing(file.proto, file.folder, [*shape_names.values(), *graph.outputs], nodes).run(feed)
    except TuckertreeError as error:
        raise TuckertreeError(f"{file.path}: {error}") from error
    return {**known, **{name: tuple(found[shape].tolist()) for name, shape in shape_names.items()}}


def example_feed(graph: Graph, input_size: Sequence[int] | None = None, seed: int = 0) -> Feed:
    """Random inputs of one sample.

    Parameters
    ----------
    input_size
        Size of the (only) input that leaves something open, without the batch.
    seed
        Of the numbers: normal ones, bytes for uint8, zeros for other integers.

    Raises
    ------
    UsageError
        If the size of an input is not known, or the one given does not fit.
    """
    generator = np.random.default_rng(seed)
    inputs = [value for value in graph.proto.graph.input if value.name in graph.inputs]
    sized = [value for value in inputs if None in _dims(value)[1:]] or inputs[:1]
    if input_size is not None and len(sized) > 1:
        raise UsageError(f"--input-size gives the size of one input; {_listed(sized)} leave theirs open")
    feed = {}
    for value in inputs:
        chosen = input_size if value is sized[0] else None
        feed[value.name] = _random(_shape(value, chosen), value.type.tensor_type.elem_type, generator)
    return feed


def fixed_batch(graph: Graph) -> int | None:
    """Batch size that the file prescribes for its first input, or None."""
    first = next((value for value in graph.proto.graph.input if value.name in graph.inputs), None)
    dims = _dims(first) if first is not None else []
    return dims[0] if dims else None


def samples_of(feed: Feed) -> int:
    """Batch size of inputs."""
    return next((len(x) for x in feed.values() if x.ndim), 1)


def repeated(feed: Feed, graph: Graph, batch: int) -> Feed:
    """The first sample ``batch`` times, in every input whose batch the file leaves free.

    Raises
    ------
    UsageError
        If the file prescribes another batch.
    """
    prescribed = fixed_batch(graph)
    if prescribed not in (None, batch):
        raise UsageError(
            f"the model takes {prescribed} samples at a time, so --batch {batch} cannot be timed"
        )
    dims = {value.name: _dims(value) or [None] for value in graph.proto.graph.input}
    return {
        name: np.repeat(x[:1], batch, axis=0) if x.ndim and dims[name][0] is None else x
        for name, x in feed.items()
    }


def element_type(graph: Graph, name: str) -> np.dtype[Any]:
    """Type of an input."""
    helper = require_extra("onnx.helper", extra="onnx")
    value = next(value for value in graph.proto.graph.input if value.name == name)
    return np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def _shape(value: ValueInfoProto, input_size: Sequence[int] | None) -> tuple[int, ...]:
    dims = _dims(value)
    if input_size is not None:
        given = (dims[0] or 1 if dims else 1, *input_size)
        fits = not value.type.tensor_type.HasField("shape") or (
            len(given) == len(dims) and all(d in (None, g) for d, g in zip(dims, given, strict=True))
        )
        if not fits:
            raise UsageError(
                f"--input-size does not fit the input {_described(value)}, the first of which is the batch"
            )
        return given
    if not value.type.tensor_type.HasField("shape") or None in dims[1:]:
        raise UsageError(
            f"give --input-size: the model leaves the size of its input {_described(value)} open"
        )
    return tuple(size or 1 for size in dims)


def _dims(value: ValueInfoProto) -> list[int | None]:
    return [dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim]


def _described(value: ValueInfoProto) -> str:
    return f"{value.name} [{', '.join('?' if d is None else str(d) for d in _dims(value))}]"


def _listed(values: Sequence[ValueInfoProto]) -> str:
    return ", ".join(_described(value) for value in values)


def _random(shape: Sequence[int], elem_type: int, generator: np.random.Generator) -> Array:
    helper = require_extra("onnx.helper", extra="onnx")
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(elem_type))
    except KeyError as error:
        raise TuckertreeError("the model takes an input that is no tensor of numbers") from error
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    if dtype == np.uint8:
        return generator.integers(0, 256, shape, dtype=np.uint8)
    if dtype.kind not in "biu":
        raise TuckertreeError(f"the model takes an input of type {dtype}; only numbers can be made up")
    return np.zeros(shape, dtype)


def _complaint(error: Exception) -> str:
    """ONNX Runtime's message without its number and its own source files."""
    text = first_line(error)
    text = text.split(" : ", 3)[-1] if text.startswith("[ONNXRuntimeError]") else text
    return _SOURCE_PLACE.sub("", text)


def as_feed(inputs: Any, graph: Graph) -> Feed:
    """Inputs of a batch by name, in the types that the model takes.

    Raises
    ------
    TuckertreeError
        If they do not belong to the model's inputs.
    """
    names = graph.inputs
    if isinstance(inputs, Mapping):
        given = dict(inputs)
    else:
        parts = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
        given = dict(zip(names, parts, strict=False))
    if set(given) != set(names):
        raise TuckertreeError(f"the model takes {', '.join(names)}; the calibration gives {', '.join(given)}")
    return {name: _as_array(value, element_type(graph, name)) for name, value in given.items()}


def _as_array(value: Any, dtype: np.dtype[Any]) -> Array:
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    return np.ascontiguousarray(array.astype(dtype, copy=False))

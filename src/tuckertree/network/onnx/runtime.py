"""Running an ONNX model by ONNX Runtime, and as far as values in the middle."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tuckertree._base.errors import TuckertreeError, one_line
from tuckertree._base.extras import require_extra
from tuckertree.network.onnx.constants import Constants
from tuckertree.network.onnx.files import LARGEST, OnnxFile
from tuckertree.network.onnx.graph import INPUTS_LISTED, Graph
from tuckertree.network.onnx.inputs import Feed

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

_SOURCE_PLACE = re.compile(r"/onnxruntime_src/\S+:\d+ .*?\)(?: const)? ")
"""File, line and signature of a function of ONNX Runtime."""
_FOLDER = "session.model_external_initializers_file_folder_path"


class Session:
    """A model loaded into ONNX Runtime, on the CPU.

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


def constant_of(file: OnnxFile, constants: Constants, name: str) -> TensorProto:
    """A constant value, computed if nodes stand between it and the tensors of the file.

    Raises
    ------
    TuckertreeError
        If it cannot be computed.
    """
    if name in constants.tensors:
        return constants.tensors[name]
    onnx = require_extra("onnx", extra="onnx")
    numpy_helper = require_extra("onnx.numpy_helper", extra="onnx")
    origin, model = constants.origin(name), onnx.ModelProto()
    model.ir_version = max(file.proto.ir_version, INPUTS_LISTED)
    model.opset_import.extend(file.proto.opset_import)
    model.functions.extend(file.proto.functions)
    model.graph.name = "constant"
    model.graph.node.extend(origin.steps)
    for leaf in sorted(origin.leaves & constants.tensors.keys()):
        model.graph.initializer.add().CopyFrom(constants.tensors[leaf])
        model.graph.initializer[-1].name = leaf
    model.graph.output.add(name=name)
    value = Session(model.SerializeToString(), file.folder).run({})[name]
    tensor: TensorProto = numpy_helper.from_array(value, name)
    return tensor


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


def _complaint(error: Exception) -> str:
    """ONNX Runtime's message in one line, without its number and its own source files."""
    text = one_line(error)
    text = text.split(" : ", 3)[-1] if text.startswith("[ONNXRuntimeError]") else text
    return _SOURCE_PLACE.sub("", text)

"""ONNX files, read with care.

A file is kept as the message it is (``ModelProto``), so what is not changed is written byte for byte as it was.
Weights in files of their own (external data) stay there until they are needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tuckertree._base.errors import TuckertreeError, first_line
from tuckertree._base.extras import require_extra
from tuckertree._base.reading import check_regular

if TYPE_CHECKING:
    from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

LARGEST = 2**31 - 2**20
"""More than this exceeds protobuf's limit of 2 GiB for one message; a little is kept for what is not weights."""
_LARGEST_FILE = 2**31


@dataclass(frozen=True)
class OnnxFile:
    """A checked ONNX file.

    Attributes
    ----------
    path
        Where it is.
    proto
        Its message; tensors of external data hold their place in a file and no values.
    external
        Whether it has external data.
    notes
        What was done to the message since it was read.
    """

    path: Path
    proto: ModelProto
    external: bool
    notes: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder that external data lie in."""
        return self.path.absolute().parent

    @property
    def size(self) -> int:
        """Bytes of the model with its external data."""
        tensors = [tensor for tensor in all_tensors(self.proto) if is_external(tensor)]
        places = {place_of(tensor, self.path) for tensor in tensors}
        return self.path.stat().st_size + sum(length for _, _, length in places)

    def check_apart(self, *outputs: Path) -> None:
        """Refuse to replace files that the model's own weights lie in.

        Raises
        ------
        TuckertreeError
            If an output is one of them.
        """
        own = {place_of(tensor, self.path)[0] for tensor in all_tensors(self.proto) if is_external(tensor)}
        for output in outputs:
            if output.resolve() in own:
                raise TuckertreeError(f"{output} holds weights of {self.path} itself; choose another output")

    def array(self, tensor: TensorProto) -> np.ndarray[Any, Any]:
        """Values of a tensor, wherever they are.

        Raises
        ------
        TuckertreeError
            If its values are not as many as its shape says.
        """
        numpy_helper = require_extra("onnx.numpy_helper", extra="onnx")
        try:
            array: np.ndarray[Any, Any] = numpy_helper.to_array(tensor, str(self.folder))
        except Exception as error:  # damaged tensors make numpy and onnx complain in many ways
            raise TuckertreeError(
                f"{self.path}: the tensor {tensor.name!r} cannot be read: {first_line(error)}"
            ) from error
        return array


def read_onnx(path: str | Path) -> OnnxFile:
    """Read an ONNX file and check it.

    Raises
    ------
    TuckertreeError
        If the file is missing, no ONNX model or a damaged one, or its external data are missing, too short, or
        outside the model's folder.
    """
    onnx, path = require_extra("onnx", extra="onnx"), Path(path)
    checker = require_extra("onnx.checker", extra="onnx")
    message = require_extra("google.protobuf.message", extra="onnx")
    check_regular(path)
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise TuckertreeError(
                f"{path} is larger than any ONNX model, which is a message of at most 2 GiB"
            )
        content = path.read_bytes()
    except OSError as error:
        raise TuckertreeError(f"{path} cannot be read: {error.strerror or error}") from error
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except message.DecodeError as error:
        raise TuckertreeError(f"{path} is not an ONNX model, or a truncated one") from error
    if not proto.HasField("graph") or not proto.ir_version:
        raise TuckertreeError(f"{path} is not an ONNX model, or a truncated one")
    external = [tensor for tensor in all_tensors(proto) if is_external(tensor)]
    for tensor in external:
        place_of(tensor, path)
    try:
        checker.check_model(str(path))
    except Exception as error:  # the checker's errors have no common class of their own
        raise TuckertreeError(f"{path} is not a valid ONNX model: {findings(error)}") from error
    return OnnxFile(path, proto, bool(external))


def is_external(tensor: TensorProto) -> bool:
    """Whether a tensor's values lie in another file."""
    return tensor.data_location == type(tensor).EXTERNAL


def place_of(tensor: TensorProto, path: Path) -> tuple[Path, int, int]:
    """File, offset and length of an external tensor of the model at ``path``.

    Raises
    ------
    TuckertreeError
        If the place is outside the model's folder, or not there.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location, where = entries.get("location", ""), f"{path}: the tensor {tensor.name!r}"
    folder = path.absolute().parent.resolve()
    try:
        file = (folder / location).resolve()
        size = file.stat().st_size if file.is_file() else None
    except (OSError, ValueError) as error:  # a name too long, or with a zero in it
        raise TuckertreeError(
            f"{where} is in {location[:80]!r}, which is no name of a file: {error}"
        ) from error
    if (
        not location
        or Path(location).is_absolute()
        or ".." in Path(location).parts
        or folder not in file.parents
    ):
        raise TuckertreeError(f"{where} points to {location!r}, outside the model's folder; that is refused")
    if size is None:
        raise TuckertreeError(f"{where} is in {location!r}, which is missing; put it beside the model")
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", size - offset))
    except ValueError as error:
        raise TuckertreeError(f"{where} has an offset or a length that is no number") from error
    if offset < 0 or length < 0 or offset + length > size:
        raise TuckertreeError(f"{where} ends beyond the end of {location!r}; that file is truncated")
    return file, offset, length


def all_tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model: initializers and attributes, in subgraphs and functions too."""
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from node_tensors(node)


def all_nodes(graph: GraphProto | FunctionProto) -> Iterator[NodeProto]:
    """Nodes of a graph or a function, those of subgraphs included."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from all_nodes(inner)


def all_graphs(place: GraphProto | FunctionProto) -> Iterator[GraphProto]:
    """A graph, unless it is a function, and all subgraphs in it."""
    if hasattr(place, "initializer"):
        yield place
    for node in place.node:
        for inner in subgraphs(node):
            yield from all_graphs(inner)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Graphs that a node holds: the branches of an If, the body of a Loop."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from node_tensors(node)


def node_tensors(node: NodeProto) -> Iterator[TensorProto]:
    """Tensors in the attributes of a node, in subgraphs too."""
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
    for graph in subgraphs(node):
        yield from _graph_tensors(graph)


def findings(error: Exception) -> str:
    """What the checker found, with the node where it found it, in one line."""
    return "; ".join(line.removeprefix("==> ") for line in str(error).splitlines() if line.strip())
